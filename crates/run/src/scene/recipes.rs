//! How networks of a run are trained: winners, and candidates before they are scored.

use serde::{Deserialize, Serialize};

/// Refinement of a winner towards the dense network, without labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename = "Polish")]
pub struct Polish {
    /// Times that its images are seen.
    pub epochs: usize,
    /// Training images, at most: none that walks were paid on or finalists are judged on. Left out, as many as 20,000,
    /// and of large networks so few that a task takes a minute or two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Images of a step.
    pub batch: usize,
    /// Highest learning rate of Adam.
    pub rate: f32,
    /// Most pixels that images are moved by.
    pub crop: usize,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Whether the controls' networks are polished, too.
    pub controls: bool,
}

impl Default for Polish {
    fn default() -> Self {
        Self { epochs: 5, images: None, batch: 64, rate: 0.0002, crop: 2, flip: true, controls: false }
    }
}

/// Fine-tuning of a winner: cross-entropy with the labels, if there are any, and distillation from the dense network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename = "Tune")]
pub struct Tune {
    /// Times that all training images are seen.
    pub epochs: usize,
    /// Images of a step.
    pub batch: usize,
    /// Highest learning rate; it rises over a tenth of the steps, then falls to 0.
    pub rate: f32,
    /// What moves the weights.
    pub optimiser: TuneOptimiser,
    /// Share of distillation in the loss; the rest is cross-entropy with the labels.
    pub distillation: f32,
    /// What outputs are divided by for distillation.
    pub temperature: f32,
    /// Whether convolutions that have no BatchNorm (in a repaired network it is folded) get one while they are trained.
    pub batch_norm: bool,
    /// Most pixels that images are moved by.
    pub crop: usize,
    /// Whether half of the images are mirrored.
    pub flip: bool,
    /// Training images that are not learned from, only watched; at most a tenth of them.
    pub held_out: usize,
    /// Whether the controls' networks are tuned, too.
    pub controls: bool,
}

impl Default for Tune {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 64,
            rate: 0.01,
            optimiser: TuneOptimiser::Sgd,
            distillation: 0.9,
            temperature: 4.0,
            batch_norm: true,
            crop: 4,
            flip: true,
            held_out: 2000,
            controls: false,
        }
    }
}

/// What moves the weights of a network that is tuned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TuneOptimiser {
    /// Gradient descent with Nesterov momentum 0.9 and a weight decay of 5e-4.
    #[default]
    Sgd,
    /// Adam with betas 0.9 and 0.999.
    Adam,
}

/// A few steps towards the dense network, without labels, that every candidate is trained before it is scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneBeforeScore {
    /// Steps, on the first of the refit images; 0 leaves candidates as they are.
    pub steps: usize,
    /// Images of a step.
    pub batch: usize,
    /// Highest learning rate of Adam; it falls to 0.
    pub rate: f32,
}

impl Default for TuneBeforeScore {
    fn default() -> Self {
        Self { steps: 20, batch: 64, rate: 0.0001 }
    }
}

impl TuneBeforeScore {
    /// How many of `n_refit` refit images are seen.
    pub(crate) fn n_images(&self, n_refit: usize) -> usize {
        n_refit.min(self.steps.saturating_mul(self.batch))
    }
}
