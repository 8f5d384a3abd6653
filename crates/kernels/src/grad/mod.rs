//! Training: a network's gradient on a batch of images. Knows how gradients are computed, not what is done with them.

pub(crate) mod backward;
pub(crate) mod channels;
pub(crate) mod derivative;
pub(crate) mod execute;
pub(crate) mod input_gradient;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod op_gradient;
pub(crate) mod parameters;
pub(crate) mod placement;
pub(crate) mod program;
pub(crate) mod teacher;
pub(crate) mod train_plan;
pub(crate) mod weight_gradient;
pub(crate) mod winograd_weights;
