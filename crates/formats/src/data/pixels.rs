//! Where the pixels of a data set are, and how they are asked for.

use std::path::Path;
use std::sync::Arc;

use secateur_net::Shape;

use crate::Preprocessing;
use crate::data::images::files::ImageFiles;

/// Where the pixels of a data set are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// In memory: 0..=255, `[N, C, H, W]`.
    InMemory(Vec<u8>),
    /// In files that are decoded when they are used.
    InFiles(ImageFiles),
    /// In memory, of a user's arrays.
    InArrays(Arc<ArrayImages>),
}

/// Images of a user's arrays. Equal when they are the same ones.
#[derive(Debug)]
pub struct ArrayImages {
    shape: Shape,
    values: ArrayValues,
}

/// Elements of an array of images, `[N, H, W, C]`.
#[derive(Debug)]
pub(crate) enum ArrayValues {
    /// Pixels, 0..=255.
    Bytes(Vec<u8>),
    /// Pixels, 0 to 1.
    Unit(Vec<f32>),
    /// What the network reads.
    Normalised(Vec<f32>),
}

impl PartialEq for ArrayImages {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for ArrayImages {}

impl ArrayImages {
    pub(crate) fn new(shape: Shape, values: ArrayValues) -> Self {
        Self { shape, values }
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        let n = match &self.values {
            ArrayValues::Bytes(values) => values.len(),
            ArrayValues::Unit(values) | ArrayValues::Normalised(values) => values.len(),
        };
        n / self.shape.len().max(1)
    }

    /// Writes the image at `index`, normalised, to `out`, `[H, W, C]`.
    pub(crate) fn normalise_into(&self, index: usize, prep: &Preprocessing, tables: &[[f32; 256]], out: &mut [f32]) {
        let (n, c) = (self.shape.len(), self.shape.c);
        let places = index * n..(index + 1) * n;
        match &self.values {
            ArrayValues::Bytes(values) => {
                let pixels = values[places].iter().zip(out).enumerate();
                pixels.for_each(|(at, (&x, out))| *out = tables[at % c][usize::from(x)]);
            }
            ArrayValues::Unit(values) => {
                let pixels = values[places].iter().zip(out).enumerate();
                pixels.for_each(|(at, (x, out))| *out = (x - prep.mean[at % c]) / prep.std[at % c]);
            }
            ArrayValues::Normalised(values) => out.copy_from_slice(&values[places]),
        }
    }

    /// Hands `update` what tells these images from others.
    pub(crate) fn identify(&self, mut update: impl FnMut(&[u8])) {
        match &self.values {
            ArrayValues::Bytes(values) => update(values),
            ArrayValues::Unit(values) => values.iter().for_each(|x| update(&x.to_le_bytes())),
            ArrayValues::Normalised(values) => {
                update(b"normalised");
                values.iter().for_each(|x| update(&x.to_le_bytes()));
            }
        }
    }
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
