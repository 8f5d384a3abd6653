//! Scoring a compact network on the reward images, and remembering scores.

use std::collections::HashMap;

use bevy_ecs::prelude::*;
use secateur_kernels::{KernelError, Plan};
use secateur_net::{KeptChannels, Network};

/// What is measured on the reward images. Fractions and nats, not percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Top-1 accuracy, [0, 1].
    pub accuracy: f64,
    /// Mean Kullback-Leibler divergence from the original network's class probabilities, nats.
    pub divergence: f64,
}

/// What a walk is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewardKind {
    /// Top-1 accuracy.
    #[default]
    Accuracy,
    /// exp(-divergence), in (0, 1]: still has a slope where accuracy saturates.
    Divergence,
}

impl Score {
    /// Reward of this score, [0, 1].
    pub fn reward(&self, kind: RewardKind) -> f64 {
        match kind {
            RewardKind::Accuracy => self.accuracy,
            RewardKind::Divergence => (-self.divergence).exp(),
        }
    }
}

/// Labelled images and what the original network says of them.
#[derive(Clone, Debug)]
pub struct RewardImages {
    /// `[N, H, W, C]`, normalised.
    pub images: Vec<f32>,
    /// `[N]`.
    pub labels: Vec<u16>,
    /// Logits of the original network, `[N, classes]`.
    pub original_logits: Vec<f32>,
}

impl RewardImages {
    /// Runs the original network on the images.
    ///
    /// # Errors
    /// As [`Plan::logits`]; labels and images of different number.
    pub fn new(
        pool: &rayon::ThreadPool,
        original: &Network,
        images: Vec<f32>,
        labels: Vec<u16>,
    ) -> Result<Self, KernelError> {
        let original_logits = Plan::compile(original)?.logits(pool, &images)?;
        let n = original_logits.len() / original.graph().n_classes();
        if n != labels.len() {
            return Err(KernelError::LabelCount { expected: n, got: labels.len() });
        }
        Ok(Self { images, labels, original_logits })
    }

    /// Scores a network.
    ///
    /// # Errors
    /// As [`Plan::logits`], and NaN among the logits.
    pub fn score(&self, pool: &rayon::ThreadPool, network: &Network) -> Result<Score, KernelError> {
        let logits = Plan::compile(network)?.logits(pool, &self.images)?;
        let n_classes = network.graph().n_classes();
        let rows = logits.chunks_exact(n_classes).zip(self.original_logits.chunks_exact(n_classes)).zip(&self.labels);
        let (mut n_correct, mut divergence) = (0u64, 0.0f64);
        for (image, ((row, original), &label)) in rows.enumerate() {
            if row.iter().any(|x| x.is_nan()) {
                return Err(KernelError::NanLogits { image });
            }
            n_correct += u64::from(argmax(row) == usize::from(label));
            divergence += kl(original, row);
        }
        let n = self.labels.len().max(1) as f64;
        Ok(Score { accuracy: n_correct as f64 / n, divergence: (divergence / n).max(0.0) })
    }
}

/// Index of the largest value; of equals, the first.
fn argmax(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// KL(softmax(p) || softmax(q)) in nats.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let log_sum = |x: &[f32]| {
        let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(most) + x.iter().map(|&v| f64::from(v - most).exp()).sum::<f64>().ln()
    };
    let (sum_p, sum_q) = (log_sum(p), log_sum(q));
    p.iter()
        .zip(q)
        .map(|(&a, &b)| {
            let log_p = f64::from(a) - sum_p;
            log_p.exp() * (log_p - (f64::from(b) - sum_q))
        })
        .sum()
}

/// Scores by everything that determines them and may differ within a run: the network (on its data set) and the kept sets.
/// Weights, selection, repair, images and engine are the same throughout.
#[derive(Resource, Debug, Default)]
pub struct ScoreCache(HashMap<(usize, KeptChannels), Score>);

impl ScoreCache {
    /// The score, if known.
    pub fn get(&self, network: usize, kept: &KeptChannels) -> Option<Score> {
        self.0.get(&(network, kept.clone())).copied()
    }
    /// Remembers a score.
    pub fn insert(&mut self, network: usize, kept: KeptChannels, score: Score) {
        self.0.insert((network, kept), score);
    }
    /// Distinct candidates scored.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether nothing was scored yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
