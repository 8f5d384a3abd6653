//! What can go wrong in the pruning process.

use secateur_kernels::KernelError;
use thiserror::Error;

use crate::wall::Unreachable;

/// Errors of this crate.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SimError {
    /// Scoring or repairing a candidate failed.
    #[error("task '{task}', walk {walk}: {source}")]
    Candidate {
        /// The task.
        task: String,
        /// Number of the walk.
        walk: u64,
        /// What failed.
        source: KernelError,
    },
    /// Repairing or scoring a candidate panicked again and again.
    #[error("task '{task}', walk {walk}: its candidate panicked {n_times} times, last with: {message}")]
    Panicked {
        /// The task.
        task: String,
        /// Number of the walk.
        walk: u64,
        /// Tries.
        n_times: u32,
        /// What the last panic said.
        message: String,
    },
    /// The final refit of a network's finalists could not be prepared.
    #[error("network '{network}': preparing the final refit: {what}")]
    Preparing {
        /// The network.
        network: String,
        /// What failed.
        what: String,
    },
    /// A policy asked for something that is not a number.
    #[error("task '{task}', walk {walk}: the policy asked for a keep ratio of {got}, expected a number in (0, 1]")]
    KeepRatio {
        /// The task.
        task: String,
        /// Number of the walk.
        walk: u64,
        /// What it asked for.
        got: String,
    },
    /// A plugin turned a reward into something that is not a number.
    #[error("task '{task}', walk {walk}: the reward is {got}, expected a finite number; a plugin may have changed it")]
    Reward {
        /// The task.
        task: String,
        /// Number of the walk.
        walk: u64,
        /// The reward.
        got: String,
    },
    /// A budget below the least cost of any candidate.
    #[error("task '{task}': {why}")]
    Unreachable {
        /// The task.
        task: String,
        /// What cannot be met.
        why: Unreachable,
    },
    /// A plugin does not accept what it saved.
    #[error("plugin '{plugin}': load its saved state: {what}")]
    PluginState {
        /// The plugin.
        plugin: String,
        /// What is wrong.
        what: String,
    },
    /// A network cannot be prepared: NaN, or images that do not fit it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// How the error grows as a group loses channels is not a number.
    #[error(
        "network '{network}': the error curve of group '{group}' is not finite: {source}; weights or activations above \
         1e19 have that effect, too, since their squares are summed"
    )]
    ErrorCurve {
        /// The network.
        network: String,
        /// The group.
        group: String,
        /// What met NaN or infinity.
        source: Box<KernelError>,
    },
    /// A criterion does not rank the channels of a layer.
    #[error("rank the channels of layer '{layer}' of network '{network}' by criterion '{criterion}': {what}")]
    Criterion {
        /// The criterion.
        criterion: String,
        /// The network.
        network: String,
        /// The layer's group.
        layer: String,
        /// What is wrong.
        what: String,
    },
    /// Channels are to be chosen by a criterion that is not there.
    #[error("unknown criterion '{name}' of selection; {known}")]
    UnknownCriterion {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The importance of a layer does not tell which channels to remove.
    #[error(
        "network '{network}': choose channels by the importance of its layers: {what}; a plugin may have changed it"
    )]
    Importance {
        /// The network.
        network: String,
        /// What is wrong, and of which layer.
        what: String,
    },
    /// A candidate is scored elsewhere, the tick waits for its score, and nothing brings one.
    #[error(
        "task '{task}', walk {walk}: its candidate is scored elsewhere, but no system of `ScoreArrivals` brings a score; \
         add the plugin's system that does to that schedule"
    )]
    NoScore {
        /// The task.
        task: String,
        /// Number of the walk.
        walk: u64,
    },
    /// A score from elsewhere that is none.
    #[error(
        "task '{task}', walk {walk}: got the score {got}, expected an accuracy in [0, 1], a finite divergence and output \
         error of at least 0, and of these what the reward {reward} reads; a plugin brought it"
    )]
    Score {
        /// The task.
        task: String,
        /// Number of the walk.
        walk: u64,
        /// The score.
        got: String,
        /// Name of the reward.
        reward: &'static str,
    },
}
