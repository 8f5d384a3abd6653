//! What a program compiles in beside Secateur itself.

use secateur_run::RunSpec;
use secateur_run::scene::AgentList;
use secateur_sim::PluginList;

/// Plugins and agents that scenes can name.
#[derive(Default)]
pub(crate) struct Extensions {
    pub(crate) plugins: PluginList,
    pub(crate) agents: AgentList,
}

impl Extensions {
    /// The run of a scene that may name the agents.
    pub(crate) fn spec(&self, spec: RunSpec) -> RunSpec {
        RunSpec { agents: self.agents.clone(), ..spec }
    }
}
