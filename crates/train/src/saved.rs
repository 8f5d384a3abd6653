//! A search at the end of a tick, as plain data: all that decides how it goes on. Noise needs no place in it, because its streams
//! are keyed by walk and layer.
//!
//! Whoever writes this to a file gives the file a version, and raises it when a type here changes.

use std::collections::{BTreeMap, BTreeSet};

use secateur_rl::Unroll;
use secateur_sim::{Candidate, Prepared, Readiness, Restarts, Score, TaskStats, Walk};
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
    /// The next ticket and those returned, where unrolls have tickets.
    pub tickets: Option<(u64, BTreeSet<u64>)>,
}

/// Counts and best candidates of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTask {
    /// Counts.
    pub stats: TaskStats,
    /// Best first.
    pub finalists: Vec<SavedCandidate>,
}

/// A scored candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedCandidate {
    pub(crate) walk: u64,
    noise_free: bool,
    pub(crate) kept: Vec<Vec<usize>>,
    pub(crate) macs: u64,
    spent: BTreeMap<usize, usize>,
    pub(crate) score: Option<Score>,
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
    /// What it is collecting; none for agents that do not learn.
    pub experience: Option<SavedExperience>,
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
    /// Tickets of this unroll and the next.
    pub tickets: (Option<u64>, Option<u64>),
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

impl SavedCandidate {
    fn of(candidate: &Candidate) -> Self {
        Self {
            walk: candidate.walk,
            noise_free: candidate.noise_free,
            kept: candidate.kept.lists().to_vec(),
            macs: candidate.macs,
            spent: candidate.spent.clone(),
            score: candidate.score,
            cached: candidate.cached,
            reward: candidate.reward,
        }
    }

    fn restore(self, prepared: &Prepared) -> Result<Candidate, TrainError> {
        Ok(Candidate {
            walk: self.walk,
            noise_free: self.noise_free,
            kept: prepared.kept(self.kept).map_err(|error| foreign_candidate(&error))?,
            macs: self.macs,
            spent: self.spent,
            compact: None,
            fault: None,
            score: self.score,
            cached: self.cached,
            reward: self.reward,
        })
    }
}

impl SavedTask {
    /// The plain form of a result.
    pub fn of(result: &TaskResult) -> Self {
        Self { stats: result.stats, finalists: result.finalists.iter().map(SavedCandidate::of).collect() }
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
