//! Value targets, advantages and statistics of rewards, one file each.

pub mod reward_stats;
pub mod vtrace;
