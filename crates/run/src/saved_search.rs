//! The plain form of searches, which checkpoints hold.

use secateur_train::{SavedSearch, SavedTask};
use serde::{Deserialize, Serialize};

/// Rewards of the walks of one task.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WalkRewards {
    /// Walks with exploration noise (all walks, for agents that do not learn).
    pub(crate) noisy: Vec<f64>,
    /// The last noise-free walks: what the final policy does.
    pub(crate) noise_free: Vec<f64>,
}

/// Seconds that a search took, in all its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchTimes {
    /// From its start to its end.
    pub wall: f64,
    /// Of them, those in which candidates were repaired and scored.
    pub evaluation: f64,
    /// Of all candidates together, several of which are tuned at a time: in which they were tuned before they were
    /// scored.
    #[serde(default)]
    pub tuning: f64,
}

/// A search that ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FinishedSearch {
    pub(crate) tasks: Vec<SavedTask>,
    pub(crate) env_steps: u64,
    pub(crate) learner_updates: u64,
    pub(crate) rewards: Vec<WalkRewards>,
    pub(crate) times: SearchTimes,
}

/// A search that was going on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CurrentSearch {
    pub(crate) search: SavedSearch,
    /// What each plugin saved, in the scene's order.
    pub(crate) plugins: Vec<Vec<u8>>,
    pub(crate) rewards: Vec<WalkRewards>,
    pub(crate) n_ended: u64,
    pub(crate) times: SearchTimes,
}
