//! A search at the end of a tick, as plain data: all that decides how it goes on. Noise needs no place in it, because
//! its streams are keyed by walk and layer.
//!
//! The code that writes this to a file gives the file a version, which is raised when a type here changes.

use std::collections::{BTreeMap, BTreeSet};

use secateur_rl::{ActRequest, Decision, Unroll};
use secateur_sim::{Finalist, Prepared, Readiness, Restarts, Score, TaskStats, Walk};
use serde::{Deserialize, Serialize};

use crate::components::Queued;
use crate::error::TrainError;
use crate::search::TaskResult;

/// A whole search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedSearch {
    /// Tasks, in order.
    pub tasks: Vec<SavedTask>,
    /// Actors, in order of their index.
    pub actors: Vec<SavedActor>,
    /// Unrolls that found no room in the queue yet.
    pub trajectories: Vec<SavedTrajectory>,
    /// Content of the queue, oldest first.
    pub queued: Vec<Queued>,
    /// The learner, if the agent has one.
    pub learner: Option<SavedLearner>,
    /// The score cache.
    pub scores: Vec<SavedScore>,
    /// Decisions taken.
    pub env_steps: u64,
    /// Ticks in which scores could arrive.
    pub arrival_ticks: u64,
    /// Where unrolls have tickets.
    pub tickets: Option<SavedTickets>,
}

/// Tickets of unrolls, under a bounded lag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTickets {
    /// The next ticket.
    pub next: u64,
    /// Tickets that came back unused.
    pub returned: BTreeSet<u64>,
}

/// Counts and best candidates of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTask {
    /// Counts.
    pub stats: TaskStats,
    /// Best first.
    pub finalists: Vec<SavedFinalist>,
}

/// A scored candidate that may be refitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedFinalist {
    pub(crate) walk: u64,
    noise_free: bool,
    pub(crate) kept: Vec<Vec<usize>>,
    pub(crate) macs: u64,
    spent: BTreeMap<usize, usize>,
    pub(crate) score: Score,
    cached: bool,
    pub(crate) reward: f32,
}

/// An actor in the middle of its walk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedActor {
    /// Whether it takes part.
    pub readiness: Readiness,
    /// Its walk.
    pub walk: Walk,
    /// How often it began again.
    pub restarts: Restarts,
    /// Where it would begin again now, if not at the start of its walk.
    pub restart_point: Option<Walk>,
    /// What its policy handed it.
    pub recurrent: Vec<f32>,
    /// Version of the policy behind its last decision.
    pub policy_version: u64,
    /// The end of its walk, if its candidate waits for a score.
    pub awaits: Option<SavedEnd>,
    /// What it is collecting; none for agents that do not learn.
    pub experience: Option<SavedExperience>,
}

/// The end of a walk whose candidate waits for a score: its channels, which are repaired and scored, or sent elsewhere,
/// again, and the last decision, which is not learned from yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedEnd {
    /// Kept channels of every group.
    pub kept: Vec<Vec<usize>>,
    /// Widths bought with leftover budget: channels added, by place in the walk.
    pub spent: BTreeMap<usize, usize>,
    /// What was asked before the last decision.
    pub request: ActRequest,
    /// What was answered.
    pub decision: Decision,
    /// The keep ratio that came of it.
    pub keep_ratio: f32,
}

/// The unroll an actor is collecting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedExperience {
    /// Steps so far.
    pub unroll: Unroll,
    /// Trajectories made so far.
    pub sequence: u64,
    /// Recurrent state at the point where the actor would begin its walk again.
    pub restart_recurrent: Vec<f32>,
    /// Ticket of this unroll.
    pub ticket: Option<u64>,
    /// Ticket of the next.
    pub next_ticket: Option<u64>,
}

/// An unroll that waits for room in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTrajectory {
    /// Index of its actor.
    pub actor: usize,
    /// Incarnation of its actor.
    pub incarnation: u64,
    /// Its number among the actor's.
    pub sequence: u64,
    /// Its ticket.
    pub ticket: u64,
    /// The unroll.
    pub unroll: Unroll,
}

/// A learner between two updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedLearner {
    /// What [`secateur_rl::Learner::save`] wrote.
    pub state: Vec<u8>,
    /// Updates made.
    pub n_updates: u64,
    /// Trajectories learned from.
    pub n_trajectories: u64,
    /// Trajectories taken from the queue and not yet learned from.
    pub pending: Vec<Queued>,
}

/// An entry of the score cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedScore {
    /// Index of the network.
    pub network: usize,
    /// Kept channels of every group, for [`secateur_sim::unpack`].
    pub kept: Vec<u8>,
    /// The score.
    pub score: Score,
}

impl SavedFinalist {
    fn of(finalist: &Finalist) -> Self {
        let Finalist { walk, noise_free, kept, macs, spent, score, cached, reward } = finalist;
        Self {
            walk: *walk,
            noise_free: *noise_free,
            kept: kept.lists().to_vec(),
            macs: *macs,
            spent: spent.clone(),
            score: *score,
            cached: *cached,
            reward: *reward,
        }
    }

    fn restore(self, prepared: &Prepared) -> Result<Finalist, TrainError> {
        let Self { walk, noise_free, kept, macs, spent, score, cached, reward } = self;
        let kept = prepared.kept(kept).map_err(|error| foreign_candidate(&error))?;
        Ok(Finalist { walk, noise_free, kept, macs, spent, score, cached, reward })
    }
}

impl SavedTask {
    /// The plain form of a result.
    pub fn of(result: &TaskResult) -> Self {
        Self { stats: result.stats, finalists: result.finalists.iter().map(SavedFinalist::of).collect() }
    }

    /// The result, on its network.
    ///
    /// # Errors
    /// [`TrainError::Saved`] if a candidate keeps channels that the network does not have.
    pub fn restore(self, prepared: &Prepared) -> Result<TaskResult, TrainError> {
        let finalists = self.finalists.into_iter().map(|c| c.restore(prepared)).collect::<Result<_, _>>()?;
        Ok(TaskResult { stats: self.stats, finalists })
    }
}

/// Kept channels that the network does not have.
pub(crate) fn foreign_candidate(error: &impl ToString) -> TrainError {
    let (what, expected) = ("a candidate".to_owned(), "one of this network".to_owned());
    TrainError::Saved { what, expected, got: error.to_string() }
}

/// Refuses a saved list of another length.
pub(crate) fn check_count(what: &str, expected: usize, got: usize) -> Result<(), TrainError> {
    if expected == got {
        return Ok(());
    }
    Err(TrainError::Saved { what: format!("number of {what}"), expected: expected.to_string(), got: got.to_string() })
}
