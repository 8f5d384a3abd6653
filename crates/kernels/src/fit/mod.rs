//! Least squares: which channels to keep, and the weights that replace those that went.

pub(crate) mod activations;
pub(crate) mod calibrate;
pub(crate) mod channel_moments;
pub(crate) mod contributions;
pub(crate) mod eliminate;
pub(crate) mod exchange;
pub(crate) mod gram;
pub(crate) mod image_groups;
pub(crate) mod linear_map;
pub(crate) mod map_sums;
pub(crate) mod norms;
pub(crate) mod pair;
pub(crate) mod partial_network;
pub(crate) mod problem;
pub(crate) mod refit;
pub(crate) mod repair;
pub(crate) mod segment;
pub(crate) mod shifts;
pub(crate) mod surrogate;
pub(crate) mod target;
pub(crate) mod wide;
pub(crate) mod wide_rows;
