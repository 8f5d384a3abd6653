//! Foreign bytes in and out: weights (safetensors, PyTorch pickles), data sets. Only this crate knows foreign formats; it
//! never runs anything it reads and never takes more memory than a small multiple of the bytes given.

mod atomic;
mod checkpoint;
mod cifar;
mod dataset;
mod element;
mod error;
mod file_bytes;
mod memory_budget;
mod metadata;
mod parameter_names;
mod pickle;
pub mod procedural;
mod safetensors;
mod state_dict;
mod strided;
mod torch_legacy;
mod torch_zip;
mod weights_file;
mod zip_directory;

pub use atomic::{StagedFile, is_temporary_name, write_atomic};
pub use cifar::read_cifar10;
pub use dataset::{Dataset, Preprocessing, Split};
pub use error::{FormatError, Problem};
pub use file_bytes::read_regular_file;
pub use metadata::NetworkDescription;
pub use weights_file::{WeightsFile, read_weights, stage_network, weights_from_bytes, write_network};
