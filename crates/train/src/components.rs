//! Components of acting and learning.

use std::sync::{Arc, Mutex};

use bevy_ecs::prelude::*;
use crossbeam::channel::{Receiver, Sender};
use secateur_rl::{ActRequest, Decision, Learner, Policy, Unroll};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// What an actor asked its policy before the decision of this tick.
#[derive(Component, Clone, Debug, Default)]
pub struct Asked(pub ActRequest);

/// What the policy answered, but for the recurrent state, which goes to [`RecurrentState`].
#[derive(Component, Clone, Debug, Default)]
pub struct Decided(pub Decision);

/// The recurrent state the policy handed the actor, empty at the start of a walk.
#[derive(Component, Clone, Debug, Default)]
pub struct RecurrentState(pub Vec<f32>);

/// The version of the policy that made the actor's last decision.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyVersion(pub u64);

/// What every actor of an agent has, beside what the process gives it.
#[derive(Bundle, Clone, Debug, Default)]
pub struct AgentBundle {
    /// What it asked.
    pub asked: Asked,
    /// What it was answered.
    pub decided: Decided,
    /// What its policy remembers.
    pub recurrent: RecurrentState,
    /// Whom it asked.
    pub policy_version: PolicyVersion,
}

/// The unroll an actor is collecting.
#[derive(Component, Clone, Debug, Default)]
pub struct Experience {
    /// Steps so far.
    pub unroll: Unroll,
    /// Steps of a whole unroll on this actor's task.
    pub length: usize,
    /// Trajectories made so far.
    pub sequence: u64,
    /// Recurrent state at the actor's [`secateur_sim::RestartPoint`].
    pub restart_recurrent: Vec<f32>,
    /// Place of the unroll among all unrolls begun, under [`crate::Scheduler::BoundedLag`].
    pub ticket: Option<u64>,
    /// Place of the unroll after it, if that begins with the next decision.
    pub next_ticket: Option<u64>,
}

/// A finished unroll on its way to the queue; its entity is despawned once it is there.
#[derive(Component, Clone, Debug, Default)]
pub struct Trajectory(pub Unroll);

/// Where a trajectory comes from.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The actor's entity.
    pub actor: Entity,
    /// Its stable index.
    pub actor_index: usize,
    /// How often the actor had been restarted.
    pub incarnation: u64,
    /// Number of the trajectory among the actor's.
    pub sequence: u64,
    /// Place of the unroll among all unrolls begun; 0 under other schedulers.
    pub ticket: u64,
}

/// A trajectory in the queue, or with the learner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// Place of the unroll among all unrolls begun; 0 under other schedulers.
    pub ticket: u64,
    /// The unroll.
    pub unroll: Unroll,
}

/// The learner. The lock is never contended: systems reach it through `&mut`.
#[derive(Component)]
pub struct LearnerState(pub Mutex<Box<dyn Learner>>);

/// What a learner did so far.
#[derive(Component, Clone, Debug, Default)]
pub struct LearnerStats {
    /// Learner calls.
    pub n_updates: u64,
    /// Trajectories learned from.
    pub n_trajectories: u64,
    /// Trajectories received and not yet learned from.
    pub pending: Vec<Queued>,
}

/// The actors' end of the trajectory queue.
#[derive(Resource, Clone)]
pub struct TrajectorySender(pub Sender<Queued>);

/// The learner's end of the trajectory queue.
#[derive(Resource, Clone)]
pub struct TrajectoryReceiver(pub Receiver<Queued>);

/// The newest published policy: every actor acts with it.
#[derive(Resource, Clone)]
pub struct CurrentPolicy(pub Arc<dyn Policy>);

/// Decisions taken by all actors.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvSteps(pub u64);

/// The first failure of acting or learning, if any; it stops the search.
#[derive(Resource, Debug, Default)]
pub struct TrainFailure(pub Option<TrainError>);

impl TrainFailure {
    /// Notes an error unless there is one already.
    pub fn note(&mut self, error: TrainError) {
        self.0.get_or_insert(error);
    }
}

/// Which trajectories make the learner's next batch.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchRule {
    /// Those that came first.
    #[default]
    Arrival,
    /// Those that were begun first: the batch waits until the last of them is there.
    Ticket,
    /// All that are there, the last batch however small: the end of a search.
    Rest,
}
