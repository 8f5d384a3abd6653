//! The CPU engine: evaluates a [`secateur_net::Network`] on images, on a thread pool it is given. Knows `unsafe` and SIMD; opens no file.
//!
//! Images and outputs are `[N, H, W, C]`; inside, a group of images is `[H, W, C, LANES]`, one image to each lane of a vector, so
//! that every number of channels fills the lanes. Everything is f32, unless [`Precision::Bf16`] is asked for.
//! The plain loops of [`run_reference`] define every operation; all other paths are tested against them.

mod activations;
mod aligned;
mod arithmetic;
mod bf16_kernel;
mod calibrate;
mod contributions;
mod conv;
mod conv_way;
mod depthwise;
mod elementwise;
mod eliminate;
mod error;
mod gram;
mod image_groups;
mod interleave;
mod layout;
mod linear_map;
mod map_sums;
mod moves;
mod node_kernel;
mod norms;
mod op_kernel;
mod pairs;
mod peak;
mod plan;
mod plan_needs;
mod pool;
mod problem;
mod problem_maps;
mod problem_rows;
mod products;
mod reference;
mod refit;
mod refit_state;
mod refit_target;
mod repair;
mod schedule;
mod segment;
mod shifts;
mod simd;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tile_bf16;
mod tiling;
mod wide;
mod wide_refit;
mod wide_rows;
mod winograd;
#[cfg(target_arch = "x86_64")]
mod winograd_bf16;
mod winograd_rows;
mod winograd_transform;

pub use arithmetic::Precision;
pub use calibrate::{Calibration, calibrate};
pub use contributions::Contributions;
pub use eliminate::{RIDGE, Reader, RemovalPath, eliminate};
pub use error::KernelError;
pub use gram::NormalEquations;
pub use interleave::{interleave, separate};
pub use linear_map::LinearMap;
pub use node_kernel::NodeKernel;
pub use norms::{Norm, channel_norms};
pub use op_kernel::Scratch;
pub use peak::{peak_gflops_for, peak_gflops_with};
pub use plan::Plan;
pub use plan_needs::PlanNeeds;
pub use reference::run_reference;
pub use refit::{RefitData, SequentialRefit};
pub use refit_target::Effort;
pub use repair::{Refit, repair, write_refit};
pub use simd::Isa;
pub use wide::{wide_nodes, wide_refit_bytes, wide_rows_max};
