//! What is compiled into a program beside Secateur's own.

use secateur_run::scene::AgentList;
use secateur_sim::PluginList;

/// What a program adds, and what there is without it.
#[derive(Default)]
pub(crate) struct Additions {
    /// Plugins that scenes can name.
    pub(crate) plugins: PluginList,
    /// Agents that scenes can name: those of `rl`, and what is added.
    pub(crate) agents: AgentList,
}
