//! The images of a training's steps: moved, mirrored, and in another order every epoch.

use anyhow::ensure;
use rayon::ThreadPool;
use rayon::prelude::*;
use secateur_formats::{Dataset, Preprocessing};
use secateur_net::Shape;
use secateur_tune::{Augmentation, ImageDraw, Picture, epoch_order};

/// Images that a training learns from.
#[derive(Clone, Debug)]
pub struct TrainingImages<'a> {
    /// The data set.
    pub data: &'a Dataset,
    /// What the network expects of its input.
    pub preprocessing: &'a Preprocessing,
    /// Its places in the data set; what is left of an epoch behind the last whole step is not seen in it.
    pub places: Vec<usize>,
    /// How images are moved and mirrored.
    pub augmentation: Augmentation,
    /// Of the order of images and of how each is moved.
    pub seed: u64,
}

/// The images of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StepImages {
    /// `[N, H, W, C]`
    pub(super) images: Vec<f32>,
    /// Their places in the data set.
    pub(super) places: Vec<usize>,
}

impl TrainingImages<'_> {
    /// The places of all images of an epoch, in its order.
    pub(super) fn order(&self, epoch: usize) -> Vec<usize> {
        let order = epoch_order(self.seed, epoch as u64, self.places.len());
        order.into_iter().map(|at| self.places[at]).collect()
    }

    /// The images at `places`, as epoch number `epoch` has them.
    pub(super) fn load(&self, epoch: usize, places: &[usize], pool: &ThreadPool) -> anyhow::Result<StepImages> {
        let Self { data, preprocessing, augmentation, seed, .. } = self;
        let loaded = data.load_first(places.len(), places, preprocessing, pool)?;
        ensure!(!loaded.indices.is_empty(), "none of the {} images of a step could be read", places.len());
        let black: Vec<f32> =
            preprocessing.mean.iter().zip(&preprocessing.std).map(|(mean, std)| -mean / std).collect();
        let shape: Shape = data.shape;
        let mut images = vec![0.0; loaded.images.len()];
        let pairs = images.par_chunks_exact_mut(shape.len()).zip(loaded.images.par_chunks_exact(shape.len()));
        pool.install(|| {
            pairs.zip(&loaded.indices).for_each(|((out, image), &place)| {
                let draw = ImageDraw { seed: *seed, epoch: epoch as u64, image: place as u64 };
                augmentation.apply(draw, Picture { values: image, shape, black: &black }, out);
            });
        });
        Ok(StepImages { images, places: loaded.indices })
    }
}
