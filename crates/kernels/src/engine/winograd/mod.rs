//! Convolutions by minimal filtering (Winograd 1980), of square tiles and along rows.

pub(crate) mod filters;
pub(crate) mod geometry;
pub(crate) mod jobs;
pub(crate) mod rows;
pub(crate) mod tiles;
#[cfg(target_arch = "x86_64")]
pub(crate) mod transform_bf16;
pub(crate) mod transform_f32;
pub(crate) mod transforms;
