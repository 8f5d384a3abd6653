//! Compute shaders through wgpu: filter norms, and whole networks of many candidates at a time, on Vulkan, Metal or
//! DX12.
//!
//! The CPU engine (`Plan` of `secateur-kernels`) defines what every shader computes; tests compare the two on any
//! adapter found, software Vulkan included. Only this crate knows wgpu. It opens no file and knows nothing of walks,
//! tasks or rewards. Words are explained in [`secateur_net::glossary`].
//!
//! # Example
//! ```no_run
//! use secateur_gpu::{Candidates, Gpu, GpuImages, GpuOptions, Truth};
//! use secateur_net::random::with_random_weights;
//! use secateur_net::{Shape, arch, fold_batch_norm};
//!
//! let shape = Shape { c: 3, h: 32, w: 32 };
//! let network = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10)?, 1))?;
//! // The best adapter: Vulkan, Metal or DX12, in software if there is no other.
//! let gpu = Gpu::open(&GpuOptions::default())?;
//! let images = vec![0.5; 100 * shape.len()];
//! let truth = Truth { labels: Some(&[3; 100]), n_classes: 10, original_logits: None };
//! let images = GpuImages::new(&gpu, shape, &images, Some(truth))?;
//! // Any number of networks that differ only in their widths pass through together.
//! let scores = gpu.score(&images, &Candidates::Repaired(&[&network]))?;
//! println!("{} of 100 on {}", scores[0].n_correct, gpu.name());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod adapter;
mod arena;
mod batch;
mod candidates;
mod convolution;
mod device;
mod error;
mod filter_norm;
mod images;
mod layout;
mod measure;
mod packing;
mod pipelines;
mod program;
mod score;
mod session;
mod weights;

pub use adapter::{AdapterReport, adapters};
pub use candidates::Candidates;
pub use convolution::{CONV_BLOCK_MAX, CONV_TILES, ConvChoice, ConvShape, ConvVariant};
pub use device::{Gpu, GpuOptions};
pub use error::GpuError;
pub use filter_norm::{LayerNorms, Norms, filter_norms, group_norms, norm_order};
pub use images::{GpuImages, Truth};
pub use layout::{StructLayout, layouts};
pub use measure::{DispatchTime, DispatchTimes, Repeats};
pub use pipelines::Shader;
pub use score::{GpuScore, Scoring};
pub use session::{ImageSet, PendingScores, Scored, Session};
