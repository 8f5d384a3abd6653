//! From a scene file to everything it names, in memory and checked.

mod advice;
mod agent_fit;
pub(crate) mod bare_weights;
pub(crate) mod budgets;
pub(crate) mod images;
pub(crate) mod keep;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod onnx_document;
pub(crate) mod reachable;
pub(crate) mod resolve;
mod reward_fit;
pub(crate) mod roots;
mod scale_fit;
pub(crate) mod scene_file;
pub(crate) mod task_widths;
pub(crate) mod untrained;
pub(crate) mod wide_layers;
