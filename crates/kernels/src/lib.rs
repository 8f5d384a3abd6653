//! The CPU engine: evaluates a [`secateur_net::Network`] on images, on a thread pool it is given. Knows `unsafe` and
//! SIMD; opens no file.
//!
//! Images and outputs are `[N, H, W, C]`; inside, a group of images is `[H, W, C, LANES]`, one image to each lane of a
//! vector, so that every number of channels fills the lanes. Everything is f32, unless [`Precision::Bf16`] is asked
//! for. The plain loops of [`run_reference`] define every operation; all other paths are tested against them.
//!
//! Four floors, each of which uses only those below it: `simd` has vectors and instruction sets, `engine` runs
//! networks ([`Plan`], [`NodeKernel`]), `fit` solves least squares ([`calibrate`], [`repair`], [`SequentialRefit`]),
//! `grad` trains ([`TrainPlan`]). Words are explained in [`secateur_net::glossary`].
//!
//! # Example
//! ```
//! use secateur_kernels::{Arithmetic, Plan};
//! use secateur_net::random::with_random_weights;
//! use secateur_net::{Shape, arch, fold_batch_norm};
//!
//! let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
//! let network = fold_batch_norm(&with_random_weights(graph, 1))?;
//! let plan = Plan::compile(&network, Arithmetic::default())?;
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! // Two images, [N, H, W, C].
//! let images = vec![0.5; 2 * 32 * 32 * 3];
//! assert_eq!(plan.logits(&pool, &images)?.len(), 2 * 10);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![warn(unreachable_pub)]

mod engine;
mod error;
mod fit;
mod grad;
mod simd;

pub use engine::arithmetic::{Arithmetic, Precision};
pub use engine::node_kernel::NodeKernel;
pub use engine::op_kernel::Scratch;
pub use engine::peak::peak_gflops;
pub use engine::plan::{Plan, StepTime};
pub use engine::plan_needs::PlanNeeds;
pub use engine::reference::run_reference;
pub use error::KernelError;
pub use fit::calibrate::{Calibration, calibrate};
pub use fit::channel_moments::channel_moments;
pub use fit::contributions::Contributions;
pub use fit::eliminate::{Reader, RemovalPath, eliminate};
pub use fit::exchange::{Exchanged, exchange};
pub use fit::gram::{NormalEquations, RIDGE};
pub use fit::linear_map::{ChannelSpan, LinearMap};
pub use fit::norms::{Norm, channel_norms};
pub use fit::refit::{RefitData, SequentialRefit};
pub use fit::repair::{Refit, repair, write_refit};
pub use fit::target::{Effort, OutputAim, RefitAim};
pub use fit::wide::{wide_nodes, wide_refit_bytes, wide_rows_max};
pub use grad::loss::{StepReport, TrainLoss, WeightedLoss};
pub use grad::parameters::{ParameterKind, TrainedParameter};
pub use grad::teacher::{MatchedValue, OutputMatch, Teacher};
pub use grad::train_plan::TrainPlan;
pub use simd::interleave::{interleave, separate};
pub use simd::isa::Isa;
