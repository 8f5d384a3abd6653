//! The run directory: what may lie there, who may write there, and what is written.

pub(crate) mod checkpoint;
pub(crate) mod claim;
pub(crate) mod cut_plan;
pub(crate) mod entries;
mod lock;
mod metrics_counts;
pub(crate) mod onnx_files;
mod plausible;
pub(crate) mod run_directory;
