//! Data sets, one file each. A new one needs its file, a variant of [`DatasetSource`] with its arms, and its entry in
//! [`DATASETS`].

pub(crate) mod arrays;
pub(crate) mod cifar;
pub(crate) mod dataset;
mod entries;
pub(crate) mod flowers;
mod idx;
pub(crate) mod images;
mod matlab;
pub(crate) mod pixels;
pub mod procedural;
mod source;

pub use entries::{DATASETS, DatasetEntry, DatasetFiles, dataset_usage};
pub use source::DatasetSource;
