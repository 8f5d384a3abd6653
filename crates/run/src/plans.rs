//! The searches that a scene asks for, in the words of the crates that do them.

use secateur_rl::{AgentKind, Profile};
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
    pub(crate) agent: AgentKind,
    pub(crate) walks_per_task: u64,
    pub(crate) noise_free: NoiseFree,
}

/// The scene's agent, then the controls.
pub(crate) fn plans(scene: &Scene) -> Vec<Plan> {
    let all_noisy = NoiseFree { every: 0, last: 0 };
    let agent = agent_kind(scene.agent);
    let walks_per_task = if agent == AgentKind::Uniform { 1 } else { scene.walks_per_task };
    let noise_free = match agent {
        AgentKind::Mtacp(_) => NoiseFree { every: CURVE_EVERY, last: LAST_NOISE_FREE.min(walks_per_task / 4) },
        AgentKind::Uniform | AgentKind::Random => all_noisy,
    };
    let controls = scene.controls.iter().map(|control| match control {
        Control::Uniform => Plan { agent: AgentKind::Uniform, walks_per_task: 1, noise_free: all_noisy },
        Control::Random { candidates } => {
            Plan { agent: AgentKind::Random, walks_per_task: *candidates as u64, noise_free: all_noisy }
        }
    });
    std::iter::once(Plan { agent, walks_per_task, noise_free }).chain(controls).collect()
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

/// The agent that a scene names.
pub fn agent_kind(agent: Agent) -> AgentKind {
    match agent {
        Agent::Uniform => AgentKind::Uniform,
        Agent::Random => AgentKind::Random,
        Agent::Mtacp { profile: secateur_scene::Profile::Tuned } => AgentKind::Mtacp(Profile::Tuned),
        Agent::Mtacp { profile: secateur_scene::Profile::Paper } => AgentKind::Mtacp(Profile::Paper),
    }
}
