//! Scoring a compact network on the reward images, and remembering scores.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_kernels::{KernelError, Plan, Precision};
use secateur_net::{KeptChannels, Network};
use serde::{Deserialize, Serialize};

/// What is measured on the reward images. Fractions and nats, not percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Scores a network, which is run in numbers of `precision`.
    ///
    /// # Errors
    /// As [`Plan::compile_with`] and [`Plan::logits`], and NaN or infinity among the logits.
    pub fn score(
        &self,
        pool: &rayon::ThreadPool,
        network: &Network,
        precision: Precision,
    ) -> Result<Score, KernelError> {
        let logits = Plan::compile_with(network, precision)?.logits(pool, &self.images)?;
        let n_classes = network.graph().n_classes();
        let rows = logits.chunks_exact(n_classes).zip(self.original_logits.chunks_exact(n_classes)).zip(&self.labels);
        let (mut n_correct, mut divergence) = (0u64, 0.0f64);
        for (image, ((row, original), &label)) in rows.enumerate() {
            if row.iter().any(|x| !x.is_finite()) {
                return Err(KernelError::NanLogits { image });
            }
            n_correct += u64::from(argmax(row) == usize::from(label));
            divergence += kl(original, row).max(0.0);
        }
        let n = self.labels.len().max(1) as f64;
        Ok(Score { accuracy: n_correct as f64 / n, divergence: divergence / n })
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

/// Most scores remembered: those of the candidates scored last.
const SCORES_MAX: usize = 16_384;

/// Scores by everything that determines them and may differ within a run: the network (on its data set) and the kept sets.
/// Weights, selection, repair, images, engine and precision are the same throughout.
#[derive(Resource, Debug, Default)]
pub struct ScoreCache {
    /// By index of the network.
    scores: Vec<HashMap<Arc<KeptChannels>, Score>>,
    /// Oldest first.
    order: VecDeque<(usize, Arc<KeptChannels>)>,
}

impl ScoreCache {
    /// The score, if known.
    pub fn get(&self, network: usize, kept: &KeptChannels) -> Option<Score> {
        self.scores.get(network)?.get(kept).copied()
    }
    /// Remembers a score; forgets the oldest if there are too many.
    pub fn insert(&mut self, network: usize, kept: KeptChannels, score: Score) {
        if self.scores.len() <= network {
            self.scores.resize_with(network + 1, HashMap::new);
        }
        let kept = Arc::new(kept);
        if self.scores[network].insert(kept.clone(), score).is_none() {
            self.order.push_back((network, kept));
        }
        if self.order.len() > SCORES_MAX
            && let Some((network, oldest)) = self.order.pop_front()
        {
            self.scores[network].remove(&oldest);
        }
    }
    /// All scores, oldest first: network, kept sets, score.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &KeptChannels, Score)> {
        self.order.iter().filter_map(|(network, kept)| Some((*network, &**kept, self.get(*network, kept)?)))
    }
    /// Distinct candidates remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }
    /// Whether nothing was scored yet.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{GraphBuilder, Op, Shape, Tensor};

    /// Two classes whose logits are `scale` times the two inputs.
    fn scaled(scale: f32) -> Network {
        let mut g = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
        g.push("l", Op::Linear { in_features: 2, out_features: 2, bias: false }, &[0]);
        let weight = Tensor::new(vec![2, 2], vec![scale, 0.0, 0.0, scale]).unwrap();
        Network::new(g.finish().unwrap(), [("l.weight".to_owned(), weight)].into()).unwrap()
    }

    fn images(pool: &rayon::ThreadPool) -> RewardImages {
        let images = vec![1.0, 0.0, 0.0, 1.0, 2.0, 1.0, 0.0, 3.0];
        RewardImages::new(pool, &scaled(1.0), images, vec![0, 1, 1, 1]).unwrap()
    }

    #[test]
    fn scores_are_those_worked_out_by_hand() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let images = images(&pool);
        let same = images.score(&pool, &scaled(1.0), Precision::F32).unwrap();
        assert_eq!((same.accuracy, same.divergence), (0.75, 0.0));
        assert_eq!(same.reward(RewardKind::Divergence), 1.0);
        // Logits of 0: the class probabilities become (1/2, 1/2), the divergence ln 2 minus the entropy of the original's.
        let flat = images.score(&pool, &scaled(0.0), Precision::F32).unwrap();
        let entropy = |d: f64| {
            let p = 1.0 / (1.0 + (-d).exp());
            -p * p.ln() - (1.0 - p) * (1.0 - p).ln()
        };
        let by_hand = 2.0f64.ln() - [1.0, 1.0, 1.0, 3.0].map(entropy).iter().sum::<f64>() / 4.0;
        assert_eq!(flat.accuracy, 0.25, "of equal logits the first class is chosen");
        assert!((flat.divergence - by_hand).abs() < 1e-12, "{} {by_hand}", flat.divergence);
    }

    #[test]
    fn the_cache_forgets_the_oldest_and_lists_the_rest_in_order() {
        let mut g = GraphBuilder::new(Shape { c: 1, h: 1, w: 1 });
        g.push("l", Op::Linear { in_features: 1, out_features: 2, bias: false }, &[0]);
        let groups = secateur_net::ChannelGroups::derive(&g.finish().unwrap(), secateur_net::Protocol::Full);
        let kept = KeptChannels::all(&groups);
        let score = |i: usize| Score { accuracy: i as f64, divergence: 0.0 };
        let mut cache = ScoreCache::default();
        // Networks tell the candidates apart here.
        (0..SCORES_MAX + 3).for_each(|i| cache.insert(i, kept.clone(), score(i)));
        cache.insert(7, kept.clone(), score(8));
        assert_eq!((cache.len(), cache.get(2, &kept), cache.get(3, &kept)), (SCORES_MAX, None, Some(score(3))));
        assert_eq!(cache.get(7, &kept), Some(score(8)));
        let order: Vec<usize> = cache.iter().map(|(network, ..)| network).collect();
        assert_eq!(order, (3..SCORES_MAX + 3).collect::<Vec<_>>());
    }

    #[test]
    fn logits_that_overflow_are_an_error_and_not_a_perfect_score() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let error = images(&pool).score(&pool, &scaled(3e38), Precision::F32).unwrap_err();
        assert_eq!(error, KernelError::NanLogits { image: 2 });
    }
}
