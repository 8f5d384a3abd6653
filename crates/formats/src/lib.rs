//! Foreign bytes in and out: weights (safetensors, PyTorch pickles), data sets. Only this crate knows foreign formats;
//! it never runs anything it reads and never takes more memory than a small multiple of the bytes given. Words are
//! explained in [`secateur_net::glossary`].
//!
//! # Example
//! A network is written with all that is needed to use it, and read again; PyTorch's files are read by the same
//! function:
//! ```
//! use secateur_formats::{Preprocessing, read_weights, write_network};
//! use secateur_net::random::with_random_weights;
//! use secateur_net::{Network, Shape, arch};
//!
//! let network = with_random_weights(arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?, 1);
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("resnet20.safetensors");
//! write_network(&path, &network, &Preprocessing::new(vec![0.5; 3], vec![0.25; 3])?)?;
//!
//! let file = read_weights(&path)?;
//! let description = file.description.ok_or("a file of ours describes its network")?;
//! assert_eq!(Network::new(description.graph, file.weights)?, network);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod alternatives;
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
pub use data::arrays::choices::{ArrayLayout, FloatRange};
pub use data::cifar::read_cifar10;
pub use data::dataset::{Dataset, Preprocessing, Split};
pub use data::flowers::FlowersSplit;
pub use data::images::choices::{ImageLabels, OnError};
pub use data::images::decode::{DecodedImage, decode_image};
pub use data::images::files::ImageFiles;
pub use data::images::transform::{ChannelOrder, Interpolation, Resize, Transform};

pub use data::pixels::{ArrayImages, ImageNeeds, LoadedImages, Pixels};
pub use data::{DATASETS, DatasetEntry, DatasetSource, dataset_usage, procedural};
pub use error::{FileProblem, FormatError};
pub use file_bytes::read_regular_file;
pub use metadata::NetworkDescription;
pub use weights::{
    FORMATS, WeightFormat, WeightsFile, read_weights, stage_network, weight_extensions, weight_extensions_usage,
    weights_from_bytes, write_network,
};
