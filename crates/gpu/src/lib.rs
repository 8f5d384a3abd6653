//! Compute shaders through wgpu: filter norms, and whole networks of many candidates at a time, on Vulkan, Metal or DX12.
//!
//! The CPU engine (`Plan` of `secateur-kernels`) defines what every shader computes; tests compare the two on any adapter found,
//! software Vulkan included. Only this crate knows wgpu. It opens no file and knows nothing of walks, tasks or rewards.

mod adapter;
mod arena;
mod batch;
mod candidates;
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
pub use device::{ConvVariant, Gpu, GpuOptions};
pub use error::GpuError;
pub use filter_norm::{LayerNorms, Norms, filter_norms, group_norms, norm_order};
pub use images::{GpuImages, Truth};
pub use layout::{StructLayout, layouts};
pub use measure::{DispatchTime, DispatchTimes};
pub use pipelines::Shader;
pub use score::{GpuScore, Scoring};
pub use session::{ImageSet, PendingScores, Scored, Session};
