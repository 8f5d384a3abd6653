//! Where the pixels of a data set are, and how they are asked for.

use std::path::Path;

use secateur_net::Shape;

use crate::data::images::files::ImageFiles;

/// Where the pixels of a data set are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// In memory: 0..=255, `[N, C, H, W]`.
    InMemory(Vec<u8>),
    /// In files that are decoded when they are used.
    InFiles(ImageFiles),
}

impl From<Vec<u8>> for Pixels {
    fn from(bytes: Vec<u8>) -> Self {
        Self::InMemory(bytes)
    }
}

/// What a network asks of a data set.
#[derive(Clone, Copy, Debug)]
pub struct ImageNeeds<'a> {
    /// Shape of the images that it reads.
    pub input: Shape,
    /// Number of its outputs.
    pub outputs: usize,
    /// Folder that may keep decoded images, if any.
    pub cache: Option<&'a Path>,
}

/// Images as a network expects them, and which they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadedImages {
    /// `[indices.len(), H, W, C]`, normalised.
    pub images: Vec<f32>,
    /// Their places in the data set.
    pub indices: Vec<usize>,
    /// How many places were looked at, unreadable images among them.
    pub n_tried: usize,
}
