//! Convolutions tap by tap, and the register tiles that every convolution ends in.

pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod tile;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile_bf16;
pub(crate) mod tiling;
