//! The searches that a scene asks for, in the words of the crates that do them.

use std::sync::LazyLock;

use secateur_rl::agents::mtacp::MtacpSettings;
use secateur_rl::agents::random::RandomSettings;
use secateur_rl::agents::uniform::UniformSettings;
use secateur_rl::{AgentEntry, AgentKind, AgentSettings, Profile};
use secateur_scene::{Agent, Control, ExecutorKind, Scene, SchedulerKind};
use secateur_sim::NoiseFree;
use secateur_train::{Executor, Scheduler};

/// Every so many walks of a learning agent, one is free of noise and shows what the policy has learned.
const CURVE_EVERY: u64 = 25;
/// The last walks of a task are free of noise (at most a quarter of all): they show what the policy ended as.
const LAST_NOISE_FREE: u64 = 8;

/// A search to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) agent: AgentEntry,
    pub(crate) settings: &'static dyn AgentSettings,
    pub(crate) walks_per_task: u64,
    pub(crate) noise_free: NoiseFree,
}

impl Plan {
    /// `n_walks` walks per task, or one for an agent whose walks are all alike.
    fn new((agent, settings): (AgentEntry, &'static dyn AgentSettings), n_walks: u64) -> Self {
        let walks_per_task = if agent.candidates.is_some() { n_walks } else { 1 };
        let noise_free = match agent.learns {
            true => NoiseFree { every: CURVE_EVERY, last: LAST_NOISE_FREE.min(walks_per_task / 4) },
            false => NoiseFree { every: 0, last: 0 },
        };
        Self { agent, settings, walks_per_task, noise_free }
    }
}

/// The scene's agent, then the controls.
pub(crate) fn plans(scene: &Scene) -> Vec<Plan> {
    let controls = scene.controls.iter().map(|control| match control {
        Control::Uniform => Plan::new(agent(Agent::Uniform), 1),
        Control::Random { candidates } => Plan::new(agent(Agent::Random), *candidates as u64),
    });
    std::iter::once(Plan::new(agent(scene.agent), scene.walks_per_task)).chain(controls).collect()
}

/// What a scene's executor is called in `train`.
pub fn executor(kind: ExecutorKind) -> Executor {
    match kind {
        ExecutorKind::Single => Executor::Single,
        ExecutorKind::Multi => Executor::Multi,
    }
}

/// What a scene's scheduler is called in `train`.
pub fn scheduler(kind: SchedulerKind) -> Scheduler {
    match kind {
        SchedulerKind::Lockstep => Scheduler::Lockstep,
        SchedulerKind::Async => Scheduler::Async,
        SchedulerKind::BoundedLag { max } => Scheduler::BoundedLag { max },
    }
}

/// The agent that a scene names, and its settings.
pub fn agent(agent: Agent) -> (AgentEntry, &'static dyn AgentSettings) {
    static TUNED: LazyLock<MtacpSettings> = LazyLock::new(|| MtacpSettings::of(Profile::Tuned));
    static PAPER: LazyLock<MtacpSettings> = LazyLock::new(|| MtacpSettings::of(Profile::Paper));
    match agent {
        Agent::Uniform => (UniformSettings::ENTRY, &UniformSettings {}),
        Agent::Random => (RandomSettings::ENTRY, &RandomSettings {}),
        Agent::Mtacp { profile: secateur_scene::Profile::Tuned } => (MtacpSettings::ENTRY, &*TUNED),
        Agent::Mtacp { profile: secateur_scene::Profile::Paper } => (MtacpSettings::ENTRY, &*PAPER),
    }
}
