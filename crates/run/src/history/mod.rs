//! What is told of a run to a [`secateur_history::History`]: read from its directory, at the run's start, at its end,
//! and whenever one is imported; and what a run takes from there.

pub(crate) mod curves;
pub(crate) mod directory;
mod distance;
mod metrics;
pub(crate) mod place;
pub(crate) mod recorder;
pub(crate) mod scores;
pub(crate) mod sources;
