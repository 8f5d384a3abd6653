//! The run directory: what may lie there, who may write there, and what is written.

pub(crate) mod checkpoint;
mod entries;
mod lock;
pub(crate) mod place;
mod plausible;
pub(crate) mod run_directory;
mod told;
