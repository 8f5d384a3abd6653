//! Scores, what they are worth, and remembering them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_net::KeptChannels;
use serde::{Deserialize, Serialize};

/// What is measured on the reward images. Fractions and nats, not percent. What the images or the network's outputs do
/// not tell is absent.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[component(storage = "SparseSet")]
pub struct Score {
    /// Top-1 accuracy, [0, 1]; none without labels.
    pub accuracy: Option<f64>,
    /// Mean Kullback-Leibler divergence from the original network's class probabilities, nats; none where the outputs
    /// are not taken for logits.
    pub divergence: Option<f64>,
    /// Output error ([`crate::mean_error`]), a share of the dense outputs' variance; none where labels say more, and
    /// where another engine computed the score.
    pub output_error: Option<f64>,
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
    /// 1 / (1 + error) of the outputs against the dense network's, in (0, 1]: for outputs of any meaning. A half is
    /// what a network gets that answers every image alike.
    OutputError,
}

impl RewardKind {
    /// As scenes and reports name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "Accuracy",
            Self::Kl => "Kl",
            Self::OutputError => "OutputError",
        }
    }
}

impl Score {
    /// Of labelled images and a classifier.
    pub const fn labelled(accuracy: f64, divergence: f64) -> Self {
        Self { accuracy: Some(accuracy), divergence: Some(divergence), output_error: None }
    }
    /// Whether the numbers are those of a score.
    pub fn is_one(&self) -> bool {
        let is_amount = |x: Option<f64>| x.is_none_or(|x| x.is_finite() && x >= 0.0);
        self.accuracy.is_none_or(|accuracy| (0.0..=1.0).contains(&accuracy))
            && is_amount(self.divergence)
            && is_amount(self.output_error)
            && *self != Self::default()
    }
    /// Reward of this score, [0, 1]; none where what is paid for is not known.
    pub fn known_reward(&self, kind: RewardKind) -> Option<f64> {
        match kind {
            RewardKind::Accuracy => self.accuracy,
            RewardKind::Kl => self.divergence.map(|divergence| (-divergence).exp()),
            RewardKind::OutputError => self.output_error.map(|error| 1.0 / (1.0 + error)),
        }
    }
    /// Reward of this score, [0, 1]: 0 where what is paid for is not known.
    pub fn reward(&self, kind: RewardKind) -> f64 {
        self.known_reward(kind).unwrap_or(0.0)
    }
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

/// Scores by index of the network, then by packed kept channels, as [`ScoreCache::iter`] has them.
type PackedScores = Vec<HashMap<Arc<[u8]>, Score>>;

/// Scores that earlier runs, and earlier searches of this one, computed of the same networks under the same conditions,
/// and those that are new. Where the world has them, a candidate that they tell of is neither built nor scored, and in
/// all else goes the way of one that was: it is paid, counted and remembered alike.
#[derive(Resource, Debug, Default)]
pub struct EarlierScores {
    of_runs: PackedScores,
    of_this_run: PackedScores,
    new: Vec<(usize, Arc<[u8]>, Score)>,
    n_taken: u64,
}

impl EarlierScores {
    /// Adds a score that an earlier run computed.
    pub fn insert(&mut self, network: usize, kept: Arc<[u8]>, score: Score) {
        insert(&mut self.of_runs, network, kept, score);
    }
    /// The score, if known; counts it where it is of an earlier run.
    pub(crate) fn take(&mut self, network: usize, kept: &KeptChannels) -> Option<Score> {
        let kept = pack(kept);
        let get = |scores: &PackedScores| scores.get(network)?.get(&*kept).copied();
        let of_runs = get(&self.of_runs);
        self.n_taken += u64::from(of_runs.is_some());
        of_runs.or_else(|| get(&self.of_this_run))
    }
    /// Notes a score that was computed now.
    pub(crate) fn note(&mut self, network: usize, kept: &KeptChannels, score: Score) {
        let kept: Arc<[u8]> = pack(kept).into();
        insert(&mut self.of_this_run, network, kept.clone(), score);
        self.new.push((network, kept, score));
    }
    /// Scores that were computed since this was asked last: network, packed kept channels, score.
    pub fn take_new(&mut self) -> Vec<(usize, Arc<[u8]>, Score)> {
        std::mem::take(&mut self.new)
    }
    /// How many candidates got the score of an earlier run since this was asked last.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.n_taken)
    }
}

fn insert(scores: &mut PackedScores, network: usize, kept: Arc<[u8]>, score: Score) {
    if scores.len() <= network {
        scores.resize_with(network + 1, HashMap::new);
    }
    scores[network].insert(kept, score);
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
    use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, Op, Protocol, Shape};

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

    #[test]
    fn the_cache_forgets_the_oldest_and_lists_the_rest_in_order() {
        let mut g = GraphBuilder::new(Shape { c: 1, h: 1, w: 1 });
        g.push("l", Op::Linear { in_features: 1, out_features: 2, bias: false }, &[0]);
        let groups = ChannelGroups::derive(&g.finish().unwrap(), Protocol::Full);
        let kept = KeptChannels::all(&groups);
        let score = |i: usize| Score::labelled(i as f64, 0.0);
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
    fn every_reward_is_between_zero_and_one_and_falls_with_what_is_lost() {
        let score = |x: f64| Score { accuracy: Some(1.0 / (1.0 + x)), divergence: Some(x), output_error: Some(x) };
        for kind in [RewardKind::Accuracy, RewardKind::Kl, RewardKind::OutputError] {
            let rewards = [0.0, 0.1, 1.0, 30.0].map(|x| score(x).reward(kind));
            assert!(rewards[0] == 1.0 && rewards.windows(2).all(|pair| pair[0] > pair[1] && pair[1] > 0.0), "{kind:?}");
            assert_eq!(Score::default().known_reward(kind), None);
        }
        assert_eq!(score(1.0).reward(RewardKind::OutputError), 0.5);
        let good = Score { output_error: Some(0.5), ..Score::default() };
        assert!(good.is_one() && Score::labelled(0.5, 0.0).is_one());
        for bad in [Some(f64::NAN), Some(-1.0), Some(f64::INFINITY), None] {
            assert!(!Score { output_error: bad, ..Score::default() }.is_one(), "{bad:?}");
        }
        assert!(!Score { output_error: Some(f64::NAN), ..Score::labelled(0.5, 0.0) }.is_one());
    }
}
