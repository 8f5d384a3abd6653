//! What can go wrong while agents act and learn.

use secateur_rl::{RlError, Unroll};
use secateur_sim::SimError;
use thiserror::Error;

/// Errors of this crate.
#[derive(Debug, Error)]
pub enum TrainError {
    /// No scheduler of this name: what was expected.
    #[error("{0}")]
    SchedulerName(String),
    /// The pruning process stopped.
    #[error(transparent)]
    Process(#[from] SimError),
    /// An agent cannot be built, or cannot decide.
    #[error("agent: {0}")]
    Agent(Box<RlError>),
    /// The learner's end of the trajectory queue is gone.
    #[error("send a trajectory of actor {actor} to the learner: the learner hung up its end of the queue")]
    QueueClosed {
        /// Index of the actor.
        actor: usize,
    },
    /// A system of the tick panicked, for example a plugin's.
    #[error("the tick panicked: {0}")]
    Panicked(String),
    /// The learner refused a batch, or its loss was not a number. It is as it was before the batch.
    #[error("learner, update {n_updates}, batch of {} trajectories: {cause}", batch.len())]
    Learner {
        /// Updates made before.
        n_updates: u64,
        /// What is wrong.
        cause: Box<RlError>,
        /// The batch.
        batch: Vec<Unroll>,
    },
    /// The learner panicked in the middle of a batch, and its state is unknown.
    #[error("learner, update {n_updates}, batch of {} trajectories: panicked: {message}", batch.len())]
    LearnerPanicked {
        /// Updates made before.
        n_updates: u64,
        /// What the panic said.
        message: String,
        /// The batch.
        batch: Vec<Unroll>,
    },
    /// A saved search that does not fit the search it is to continue.
    #[error("continue a saved search: {what} is {got}, expected {expected}")]
    Saved {
        /// The part that does not fit.
        what: String,
        /// What this search has.
        expected: String,
        /// What was saved.
        got: String,
    },
}

impl From<RlError> for TrainError {
    fn from(error: RlError) -> Self {
        Self::Agent(Box::new(error))
    }
}

impl TrainError {
    /// Whether the search is as it was before the failure, so that what [`crate::Search::save`] returns can be
    /// continued.
    pub fn leaves_search_whole(&self) -> bool {
        matches!(self, Self::Learner { .. } | Self::Process(SimError::Panicked { .. }))
    }

    /// Updates made before the batch that the learner failed on, and the batch.
    pub fn failed_batch(&self) -> Option<(u64, &[Unroll])> {
        match self {
            Self::Learner { n_updates, batch, .. } | Self::LearnerPanicked { n_updates, batch, .. } => {
                Some((*n_updates, batch))
            }
            _ => None,
        }
    }
}
