//! Foreign bytes in and out: weights (safetensors, PyTorch pickles), data sets. Only this crate knows foreign formats; it
//! never runs anything it reads and never takes more memory than a small multiple of the bytes given.

mod atomic;
mod checkpoint;
pub mod data;
mod element;
mod error;
mod file_bytes;
mod memory_budget;
mod metadata;
mod parameter_names;
mod pickle;
mod state_dict;
mod strided;
mod weights;
mod zip_directory;

pub use atomic::{StagedFile, is_temporary_name, write_atomic};
pub use data::cifar::read_cifar10;
pub use data::dataset::{Dataset, Preprocessing, Split};
pub use data::{DATASETS, DatasetEntry, DatasetSource, dataset_usage, procedural};
pub use error::{FormatError, Problem};
pub use file_bytes::read_regular_file;
pub use metadata::NetworkDescription;
pub use weights::{
    FORMATS, WeightFormat, WeightsFile, read_weights, stage_network, weight_extensions, weights_from_bytes,
    write_network,
};
