//! A training on its way: one step after the other, until all epochs are done.

use anyhow::{Context, ensure};
use rayon::ThreadPool;
use secateur_kernels::Plan;
use secateur_net::{Network, fold_batch_norm};
use secateur_tune::{StepTargets, Trainer, TrainerState};
use serde::{Deserialize, Serialize};

use super::images::TrainingImages;

/// A network that is being trained on images of a data set. What comes out does not depend on the number of threads,
/// nor on where it was stopped and gone on with.
#[derive(Debug)]
pub struct Training<'a> {
    images: TrainingImages<'a>,
    trainer: Trainer,
    /// Whose outputs are to be matched, if the trainer has no teacher of its own.
    distilled: Option<Plan>,
    /// Whether labels are learned.
    uses_labels: bool,
    /// The epoch whose order is known, and that.
    order: (usize, Vec<usize>),
    sums: EpochSums,
}

/// Sums over the steps of an epoch so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct EpochSums {
    loss: f64,
    n_correct: usize,
    n_images: usize,
}

/// What an epoch saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochMeans {
    /// Epochs that are done, this one included.
    pub epoch: usize,
    /// Mean over its images of the loss, each before the step that learns from it.
    pub loss: f64,
    /// Share of its images that were told right; none without labels.
    pub accuracy: Option<f64>,
}

/// A training between two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTraining {
    trainer: TrainerState,
    sums: EpochSums,
}

impl<'a> Training<'a> {
    /// Before its first step. The loss is what the trainer has of a teacher, the divergence from the outputs of
    /// `distilled`, and the cross-entropy with the labels if they are used.
    ///
    /// # Errors
    /// Images that do not fill a step, labels that are missing or no outputs of the network.
    pub fn new(
        images: TrainingImages<'a>,
        trainer: Trainer,
        distilled: Option<Plan>,
        uses_labels: bool,
    ) -> anyhow::Result<Self> {
        let (n, batch) = (images.places.len(), trainer.settings().batch);
        ensure!(
            n >= batch,
            "{n} images to learn from do not fill a step of {batch}; take a smaller batch or more images"
        );
        if uses_labels {
            let (labels, n_outputs) = (images.data.labels()?, trainer.n_outputs());
            if let Some(&place) = images.places.iter().find(|&&place| usize::from(labels[place]) >= n_outputs) {
                let name = &images.data.name;
                let label = labels[place];
                anyhow::bail!(
                    "image {place} of {name} has label {label}, the network has outputs 0 to {}",
                    n_outputs - 1
                );
            }
        }
        let order = (0, images.order(0));
        Ok(Self { images, trainer, distilled, uses_labels, order, sums: EpochSums::default() })
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.images.places.len() / self.trainer.settings().batch
    }

    /// Steps that are done.
    pub const fn n_done(&self) -> usize {
        self.trainer.n_done()
    }

    /// Steps of the whole training.
    pub const fn n_steps(&self) -> usize {
        self.trainer.settings().n_steps
    }

    /// Whether there is nothing left to do.
    pub const fn is_done(&self) -> bool {
        self.n_done() >= self.n_steps()
    }

    /// One step; at the end of an epoch, what that saw.
    ///
    /// # Errors
    /// Images that cannot be read; a loss that is not finite, with its step.
    pub fn step(&mut self, pool: &ThreadPool) -> anyhow::Result<Option<EpochMeans>> {
        let (per_epoch, batch) = (self.steps_per_epoch(), self.trainer.settings().batch);
        let [epoch, at] = [self.n_done() / per_epoch, self.n_done() % per_epoch];
        if self.order.0 != epoch {
            self.order = (epoch, self.images.order(epoch));
        }
        let step = self.images.load(epoch, &self.order.1[at * batch..][..batch], pool)?;
        let teacher = self.distilled.as_ref().map(|plan| plan.logits(pool, &step.images)).transpose()?;
        let labels: Option<Vec<u16>> = match self.uses_labels {
            true => Some(self.images.data.labels()?).map(|all| step.places.iter().map(|&place| all[place]).collect()),
            false => None,
        };
        let targets = StepTargets { labels: labels.as_deref(), teacher: teacher.as_deref() };
        let report = self.trainer.step(pool, &step.images, targets)?;
        self.sums.loss += report.loss * step.places.len() as f64;
        self.sums.n_correct += report.n_correct;
        self.sums.n_images += step.places.len();
        if !self.n_done().is_multiple_of(per_epoch) {
            return Ok(None);
        }
        let EpochSums { loss, n_correct, n_images } = std::mem::take(&mut self.sums);
        let n = n_images as f64;
        let accuracy = self.uses_labels.then_some(n_correct as f64 / n);
        Ok(Some(EpochMeans { epoch: epoch + 1, loss: loss / n, accuracy }))
    }

    /// The network with the average of its weights so far, BatchNorm folded: what is used and written.
    ///
    /// # Errors
    /// A parameter that is not finite, by name.
    pub fn network(&self) -> anyhow::Result<Network> {
        Ok(fold_batch_norm(&self.unfolded()?)?)
    }

    /// As [`Self::network`], with the BatchNorms that it is trained with.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn unfolded(&self) -> anyhow::Result<Network> {
        Ok(self.trainer.network()?)
    }

    /// All that is needed to go on from here.
    pub fn save(&self) -> SavedTraining {
        SavedTraining { trainer: self.trainer.state(), sums: self.sums.clone() }
    }

    /// Goes on from `saved`, which [`Self::save`] gave for the same network, images and settings.
    ///
    /// # Errors
    /// A state of another training.
    pub fn resume(&mut self, saved: SavedTraining) -> anyhow::Result<()> {
        self.trainer.resume(saved.trainer).context("a training that was stopped")?;
        ensure!(!self.is_done() || self.n_done() == self.n_steps(), "a training has more steps than it was to have");
        self.sums = saved.sums;
        Ok(())
    }
}
