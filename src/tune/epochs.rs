//! A training in epochs, each followed by a checkpoint.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use rayon::ThreadPool;
use secateur_formats::{Dataset, read_regular_file, write_atomic};
use secateur_kernels::{Isa, Plan, TrainPlan};
use secateur_net::Network;
use secateur_run::{
    FirstImages, LoadedNetwork, MemoryBound, SavedTraining, Training, TrainingImages, correct_images, thread_pool,
};
use secateur_tune::{
    AdamSettings, Augmentation, Decay, LossSettings, OptimiserSettings, SgdSettings, Trainer, TrainerSettings,
    epoch_order,
};
use serde::{Deserialize, Serialize};

use super::arguments::{OptimiserArg, RecipeArgs};
use crate::screen;
use crate::screen::Progress;

/// Largest checkpoint that is read, in bytes.
const CHECKPOINT_MAX: u64 = 1 << 34;

/// One epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EpochReport {
    pub(super) loss: f64,
    pub(super) train_accuracy: f64,
    held_out_accuracy: f64,
    images_per_s: f64,
}

/// Data, network and threads of a training.
pub(super) struct Epochs<'a> {
    pub(super) recipe: &'a RecipeArgs,
    pub(super) network: &'a LoadedNetwork,
    pub(super) data: &'a Dataset,
    pub(super) pool: &'a ThreadPool,
    /// Images to learn from, and those that are only watched.
    pub(super) train: Vec<usize>,
    pub(super) held_out: Vec<usize>,
}

/// How the learning rate goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// At its highest.
    pub(super) peak: f32,
    /// Share of the steps in which it rises.
    pub(super) warm_up: f32,
}

/// The threads that are asked for.
pub(super) fn pool_of(recipe: &RecipeArgs) -> anyhow::Result<ThreadPool> {
    thread_pool(recipe.threads.threads).map_err(|failure| anyhow!("{failure}"))
}

impl<'a> Epochs<'a> {
    pub(super) fn new(
        recipe: &'a RecipeArgs,
        network: &'a LoadedNetwork,
        data: &'a Dataset,
        pool: &'a ThreadPool,
    ) -> anyhow::Result<Self> {
        let order = epoch_order(recipe.seed, u64::MAX, data.len());
        let n = recipe.limit.map_or(order.len(), |limit| limit.get().min(order.len()));
        let (n_held_out, batch) = (recipe.held_out.get(), recipe.batch.get());
        ensure!(
            n >= n_held_out + batch,
            "{n} training images, of which --held-out {n_held_out} are only watched, do not fill a batch of {batch}"
        );
        let [held_out, train] = [order[..n_held_out].to_vec(), order[n_held_out..n].to_vec()];
        Ok(Self { recipe, network, data, pool, train, held_out })
    }

    /// What is learned from, moved and mirrored.
    pub(super) fn images(&self) -> TrainingImages<'a> {
        let recipe = self.recipe;
        TrainingImages {
            data: self.data,
            preprocessing: &self.network.preprocessing,
            places: self.train.clone(),
            augmentation: Augmentation { crop: recipe.crop, flip: !recipe.no_flip },
            seed: recipe.seed,
        }
    }

    /// A training of `network` before its first step, if there is memory for it.
    pub(super) fn training(
        &self,
        network: &Network,
        teacher: Option<Plan>,
        rate: Rate,
        loss: LossSettings,
    ) -> anyhow::Result<Training<'a>> {
        let (isa, settings) = (Isa::detect(), self.settings(rate, loss));
        let n_threads = self.pool.current_num_threads();
        let needed = TrainPlan::bytes_needed(network, None, isa, [settings.batch, n_threads])?;
        MemoryBound::new(self.recipe.memory.memory, n_threads).check_training(network, needed, settings.batch)?;
        Training::new(self.images(), Trainer::new(network, isa, settings)?, teacher, true)
    }

    fn settings(&self, Rate { peak, warm_up }: Rate, loss: LossSettings) -> TrainerSettings {
        let recipe = self.recipe;
        TrainerSettings {
            batch: recipe.batch.get(),
            n_steps: recipe.epochs.get() * (self.train.len() / recipe.batch.get()),
            rate: peak,
            warm_up,
            decay: Decay::Linear,
            optimiser: match recipe.optimiser {
                OptimiserArg::Sgd => OptimiserSettings::Sgd(SgdSettings::default()),
                OptimiserArg::Adam => OptimiserSettings::Adam(AdamSettings::default()),
            },
            clip: recipe.clip,
            half_life: 0.05,
            loss,
        }
    }

    /// Share of the images at `indices` that are predicted as their label.
    pub(super) fn accuracy(&self, network: &Network, data: &Dataset, indices: &[usize]) -> anyhow::Result<f64> {
        let (preprocessing, n) = (&self.network.preprocessing, indices.len());
        let images = FirstImages { data, preprocessing, order: Some(indices), n };
        let correct = correct_images(network, images, self.pool, |_| {})?;
        Ok(correct.iter().filter(|&&is_correct| is_correct).count() as f64 / correct.len().max(1) as f64)
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.recipe.out.with_extension("checkpoint")
    }

    /// Trains the epochs that are not done yet; a checkpoint follows each.
    pub(super) fn train_epochs(&self, training: &mut Training<'_>) -> anyhow::Result<Vec<EpochReport>> {
        let mut curve = if self.recipe.resume { self.resume(training)? } else { Vec::new() };
        let (start, n_before, n_epochs) = (Instant::now(), curve.len(), self.recipe.epochs.get());
        for epoch in n_before..n_epochs {
            let report = self.train_epoch(training).with_context(|| self.last_checkpoint())?;
            curve.push(report.clone());
            let bytes = postcard::to_stdvec(&(training.save(), &curve)).context("checkpoint")?;
            write_atomic(&self.checkpoint(), &bytes).with_context(|| {
                format!("checkpoint '{}'; the one before it is still there", self.checkpoint().display())
            })?;
            let left = start.elapsed().as_secs_f64() / (epoch + 1 - n_before) as f64 * (n_epochs - epoch - 1) as f64;
            screen::result(format_args!(
                "epoch {:>3}/{n_epochs}  loss {:.4}  train {:.4}  held-out {:.4}  {:.0} images/s  {:.0} s left",
                epoch + 1,
                report.loss,
                report.train_accuracy,
                report.held_out_accuracy,
                report.images_per_s,
                left
            ))?;
        }
        Ok(curve)
    }

    /// What a failure leaves behind.
    fn last_checkpoint(&self) -> String {
        match self.checkpoint() {
            path if path.exists() => format!("the last good checkpoint is '{}'", path.display()),
            _ => "there is no checkpoint yet".to_owned(),
        }
    }

    fn resume(&self, training: &mut Training<'_>) -> anyhow::Result<Vec<EpochReport>> {
        let path = self.checkpoint();
        if !path.exists() {
            screen::note(format_args!("no checkpoint '{}': starting afresh", path.display()));
            return Ok(Vec::new());
        }
        let what = || format!("checkpoint '{}'", path.display());
        let bytes = read_regular_file(&path, CHECKPOINT_MAX).with_context(what)?;
        let saved: (SavedTraining, Vec<EpochReport>) = postcard::from_bytes(&bytes).with_context(what)?;
        let (saved, curve) = saved;
        training.resume(saved).with_context(what)?;
        ensure!(
            training.n_done() == curve.len() * training.steps_per_epoch(),
            "{}: {} steps are done, but {} epochs; start afresh without --resume",
            what(),
            training.n_done(),
            curve.len()
        );
        Ok(curve)
    }

    fn train_epoch(&self, training: &mut Training<'_>) -> anyhow::Result<EpochReport> {
        let (start, batch) = (Instant::now(), self.recipe.batch.get());
        let n = training.steps_per_epoch() * batch;
        let (mut progress, first) = (Progress::new(n as u64), training.n_done());
        let means = loop {
            if let Some(means) = training.step(self.pool)? {
                break means;
            }
            progress.set(((training.n_done() - first) * batch) as u64);
        };
        drop(progress);
        let images_per_s = n as f64 / start.elapsed().as_secs_f64();
        Ok(EpochReport {
            loss: means.loss,
            train_accuracy: means.accuracy.unwrap_or_default(),
            held_out_accuracy: self.accuracy(&training.network()?, self.data, &self.held_out)?,
            images_per_s,
        })
    }
}
