//! The searches that a scene asks for: its agent's, then the controls'.

use secateur_rl::{AgentEntry, AgentSettings};
use secateur_sim::NoiseFree;

use crate::scene::{AgentSpec, HistoryChoice, Scene};

/// Every so many walks of a learning agent, one is free of noise and shows what the policy has learned.
const CURVE_EVERY: u64 = 25;
/// The last walks of a task are free of noise (at most a quarter of all): they show what the policy ended as.
const LAST_NOISE_FREE: u64 = 8;

/// A search to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchPlan<'a> {
    pub(crate) agent: AgentEntry,
    pub(crate) settings: &'a dyn AgentSettings,
    pub(crate) walks_per_task: u64,
    pub(crate) noise_free: NoiseFree,
    /// Whether it is the scene's own agent, and no control: that one learns of earlier runs.
    pub(crate) is_agent: bool,
    /// Whether the policy is one that an earlier run learned, and stays as it is.
    pub(crate) is_frozen: bool,
}

impl<'a> SearchPlan<'a> {
    /// `n_walks` walks per task, or one for an agent whose walks are all alike.
    fn new(agent: &'a AgentSpec, n_walks: u64) -> Self {
        let entry = agent.entry;
        let walks_per_task = if entry.candidates.is_some() { n_walks } else { 1 };
        let noise_free = match entry.shows_policy {
            true => NoiseFree { every: CURVE_EVERY, last: LAST_NOISE_FREE.min(walks_per_task / 4) },
            false => NoiseFree { every: 0, last: 0 },
        };
        Self { agent: entry, settings: &*agent.settings, walks_per_task, noise_free, is_agent: false, is_frozen: false }
    }
}

impl SearchPlan<'_> {
    /// Whether what earlier runs found is told to its agent.
    pub(crate) fn learns_from_history(&self, scene: &Scene) -> bool {
        self.is_agent && !self.is_frozen && scene.history.as_ref().is_some_and(HistoryChoice::learns)
    }
}

/// The scene's agent, then the controls.
pub(crate) fn plans(scene: &Scene) -> Vec<SearchPlan<'_>> {
    let controls = scene.controls.iter().map(|control| SearchPlan::new(&control.agent, control.candidates as u64));
    std::iter::once(SearchPlan { is_agent: true, ..SearchPlan::new(&scene.agent, scene.walks_per_task) })
        .chain(controls)
        .collect()
}

/// The scene's agent, acting by a policy that is learned already: its last walk of each task is free of noise.
pub(crate) fn frozen_plan(scene: &Scene) -> SearchPlan<'_> {
    let plan = SearchPlan { is_agent: true, ..SearchPlan::new(&scene.agent, scene.walks_per_task) };
    let agent = AgentEntry { learns: false, ..plan.agent };
    SearchPlan { agent, noise_free: NoiseFree { every: 0, last: 1 }, is_frozen: true, ..plan }
}
