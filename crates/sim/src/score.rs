//! Scoring a compact network on the reward images, and remembering scores.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_kernels::{Arithmetic, KernelError, Plan, Precision};
use secateur_net::{KeptChannels, Network};
use serde::{Deserialize, Serialize};

/// What is measured on the reward images. Fractions and nats, not percent.
#[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[component(storage = "SparseSet")]
pub struct Score {
    /// Top-1 accuracy, [0, 1].
    pub accuracy: f64,
    /// Mean Kullback-Leibler divergence from the original network's class probabilities, nats.
    pub divergence: f64,
}

/// What a walk is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewardKind {
    /// Top-1 accuracy.
    #[default]
    Accuracy,
    /// exp(-divergence) from the dense network's logits, in (0, 1]: still has a slope where accuracy saturates on the
    /// training images.
    Kl,
}

impl Score {
    /// Whether the numbers are those of a score.
    pub fn is_one(&self) -> bool {
        (0.0..=1.0).contains(&self.accuracy) && self.divergence.is_finite() && self.divergence >= 0.0
    }
    /// Reward of this score, [0, 1].
    pub fn reward(&self, kind: RewardKind) -> f64 {
        match kind {
            RewardKind::Accuracy => self.accuracy,
            RewardKind::Kl => (-self.divergence).exp(),
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
        let original_logits = Plan::compile(original, Arithmetic::default())?.logits(pool, &images)?;
        let n = original_logits.len() / original.graph().n_classes();
        if n != labels.len() {
            return Err(KernelError::LabelCount { expected: n, got: labels.len() });
        }
        Ok(Self { images, labels, original_logits })
    }

    /// Scores a network, which is run in numbers of `precision`.
    ///
    /// # Errors
    /// As [`Plan::compile`] and [`Plan::logits`], and NaN or infinity among the logits.
    pub fn score(
        &self,
        pool: &rayon::ThreadPool,
        network: &Network,
        precision: Precision,
    ) -> Result<Score, KernelError> {
        let logits = Plan::compile(network, precision)?.logits(pool, &self.images)?;
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

/// Scores by everything that determines them and may differ within a run: the network (on its data set) and the kept
/// sets. Weights, selection, repair, images, engine and precision are the same throughout.
#[derive(Resource, Debug, Default)]
pub struct ScoreCache {
    /// By index of the network, then by [`pack`]ed kept channels: lists of wide networks would take thirty times the
    /// memory, and as much longer to save.
    scores: Vec<HashMap<Arc<[u8]>, Score>>,
    /// Oldest first.
    order: VecDeque<(usize, Arc<[u8]>)>,
}

impl ScoreCache {
    /// The score, if known.
    pub fn get(&self, network: usize, kept: &KeptChannels) -> Option<Score> {
        self.scores.get(network)?.get(&*pack(kept)).copied()
    }
    /// Remembers a score; forgets the oldest if there are too many.
    pub fn insert(&mut self, network: usize, kept: KeptChannels, score: Score) {
        if self.scores.len() <= network {
            self.scores.resize_with(network + 1, HashMap::new);
        }
        let kept: Arc<[u8]> = pack(&kept).into();
        if self.scores[network].insert(kept.clone(), score).is_none() {
            self.order.push_back((network, kept));
        }
        if self.order.len() > SCORES_MAX
            && let Some((network, oldest)) = self.order.pop_front()
        {
            self.scores[network].remove(&oldest);
        }
    }
    /// All scores, oldest first: network, kept channels for [`unpack`], score.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8], Score)> {
        self.order.iter().filter_map(|(network, kept)| Some((*network, &**kept, *self.scores[*network].get(kept)?)))
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

/// Kept channels in few bytes: for each group their number as a little-endian u32, then a bit for each channel up to
/// the last that is kept.
fn pack(kept: &KeptChannels) -> Vec<u8> {
    let lists = kept.lists();
    let n_bytes = |list: &Vec<usize>| list.last().map_or(0, |last| last / 8 + 1);
    let mut out = Vec::with_capacity(lists.iter().map(|list| 4 + n_bytes(list)).sum());
    for list in lists {
        out.extend_from_slice(&(n_bytes(list) as u32).to_le_bytes());
        let from = out.len();
        out.resize(from + n_bytes(list), 0);
        list.iter().for_each(|channel| out[from + channel / 8] |= 1 << (channel % 8));
    }
    out
}

/// The kept channels of every group, from the form in which [`ScoreCache::iter`] has them; none if they are cut short.
pub fn unpack(mut packed: &[u8]) -> Option<Vec<Vec<usize>>> {
    let mut lists = Vec::new();
    while let Some((n_bytes, rest)) = packed.split_first_chunk() {
        let (bits, rest) = rest.split_at_checked(u32::from_le_bytes(*n_bytes) as usize)?;
        let channels = 0..8 * bits.len();
        lists.push(channels.filter(|channel| bits[channel / 8] >> (channel % 8) & 1 == 1).collect());
        packed = rest;
    }
    packed.is_empty().then_some(lists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::random::SplitMix;
    use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, Op, Protocol, Shape, Tensor};

    /// Groups of these many channels, and a frozen one.
    fn groups(widths: &[usize]) -> ChannelGroups {
        let mut g = GraphBuilder::new(Shape { c: 1, h: 1, w: 1 });
        let (mut x, mut from) = (0, 1);
        for (i, &width) in widths.iter().enumerate() {
            x = g.push(format!("c{i}"), Op::Conv2d(Conv2d::square(from, width, 1, 1, 0)), &[x]);
            from = width;
        }
        let flat = g.push("flat", Op::Flatten, &[x]);
        g.push("l", Op::Linear { in_features: from, out_features: 10, bias: false }, &[flat]);
        ChannelGroups::derive(&g.finish().unwrap(), Protocol::Full)
    }

    #[test]
    fn packed_channels_are_told_apart_and_come_back() {
        let groups = groups(&[1, 7, 8, 9, 64]);
        let mut rng = SplitMix(5);
        let mut seen = HashMap::new();
        for _ in 0..2000 {
            let mut kept = KeptChannels::all(&groups);
            for group in groups.prunable() {
                let n = groups.group(group).n_channels;
                let mut list: Vec<usize> = (0..n).filter(|_| rng.below(3) == 0).collect();
                list.extend(list.is_empty().then_some(n - 1));
                kept.set(group, list);
            }
            let packed = pack(&kept);
            assert_eq!(unpack(&packed).as_deref(), Some(kept.lists()));
            for n in 1..packed.len() {
                assert_ne!(unpack(&packed[..n]).as_deref(), Some(kept.lists()));
            }
            assert_eq!(seen.entry(packed).or_insert_with(|| kept.clone()), &kept);
        }
        assert_eq!((unpack(&[]), unpack(&[1, 0, 0, 0]), unpack(&[9; 8])), (Some(vec![]), None, None));
    }

    #[test]
    fn a_wide_networks_candidate_takes_a_bit_a_channel() {
        // VGG-16: 4,224 channels in 13 groups.
        let vgg = groups(&[64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]);
        let packed = pack(&KeptChannels::all(&vgg)).len();
        assert!((528..=4224 / 8 + 4 * 16 + 2).contains(&packed), "{packed} bytes");
    }

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
        assert_eq!(same.reward(RewardKind::Kl), 1.0);
        // Logits of 0: the class probabilities become (1/2, 1/2), the divergence ln 2 minus the entropy of the
        // original's.
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
        let groups = ChannelGroups::derive(&g.finish().unwrap(), Protocol::Full);
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
