//! Networks on large images: the lanes of a vector are channels of one image.
//!
//! A map of one image is `[H, W, pitch]`, the pitch being its channels, rounded up to whole vectors; what lies behind
//! the last channel is unspecified and never read as a channel. Sixteen images to a vector, as small images are
//! computed, would make maps of 224x224 pixels sixteen times as large as the caches that hold one.

pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod maps;
pub(crate) mod needs;
pub(crate) mod plan;
pub(crate) mod product;
pub(crate) mod schedule;
pub(crate) mod step;
pub(crate) mod tiles;
