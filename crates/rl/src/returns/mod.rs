//! Value targets and advantages, one file each.

pub mod vtrace;
