//! A cheap stand-in for pruning: accuracy falls with every channel removed, at a random rate per group and more
//! so where neighbours are thin too; cost is linear in the kept channels; a wall keeps every walk in its budget.

pub mod search;

use secateur_rl::rng::RngStream;
use secateur_rl::{ActRequest, Decision, Unroll};

/// Least keep ratio of every task here.
pub const KEEP_RATIO_MIN: f32 = 0.1;
/// Features per observation.
pub const N_FEATURES: usize = 13;

/// A network with random sensitivities.
#[derive(Clone)]
pub struct Net {
    pub channels: Vec<u32>,
    pub cost: Vec<f64>,
    sensitivity: Vec<f64>,
    interaction: Vec<f64>,
    noise: f64,
    seed: u64,
}

impl Net {
    /// `n_layers` groups in three stages of 16, 32 and 64 channels.
    pub fn new(n_layers: usize, seed: u64) -> Self {
        let mut rng = RngStream::new(seed, 1, 0, 0);
        let channels = (0..n_layers).map(|l| 16 << (3 * l / n_layers)).collect();
        let cost = (0..n_layers).map(|l| if l > 0 && 3 * l % n_layers == 0 { 0.75 } else { 1.0 }).collect();
        let sensitivity: Vec<f64> = (0..n_layers).map(|_| (0.9 * rng.normal()).exp()).collect();
        let interaction = (0..n_layers).map(|_| rng.uniform()).collect();
        let mut net = Self { channels, cost, sensitivity, interaction, noise: 0.003, seed };
        // Evenly halved, accuracy is 0.80.
        let scale = (0.82f64 / 0.7).ln() / net.damage(&vec![0.5; n_layers]);
        net.sensitivity.iter_mut().for_each(|s| *s *= scale);
        net
    }

    fn damage(&self, ratios: &[f64]) -> f64 {
        let thin = |l: usize| (1.0 - ratios[l]) / (0.3 + ratios[l]).sqrt();
        (0..ratios.len())
            .map(|l| {
                let neighbour = if l > 0 { self.interaction[l] * thin(l - 1) } else { 0.0 };
                self.sensitivity[l] * thin(l).powi(2) * (1.0 + neighbour)
            })
            .sum()
    }

    /// Accuracy without noise.
    pub fn accuracy(&self, ratios: &[f64]) -> f64 {
        0.1 + 0.82 * (-self.damage(ratios)).exp()
    }

    /// Accuracy as scored: the noise is a function of the candidate.
    pub fn score(&self, ratios: &[f64]) -> f64 {
        let key = ratios.iter().fold(self.seed, |k, r| (k ^ r.to_bits()).wrapping_mul(0x100_0000_01b3).rotate_left(23));
        self.accuracy(ratios) + self.noise * RngStream::new(key, 0, 0, 0).normal()
    }

    pub fn n_layers(&self) -> usize {
        self.cost.len()
    }
}

/// A walk in progress.
#[derive(Clone)]
pub struct Walk<'a> {
    net: &'a Net,
    budget: f64,
    pub ratios: Vec<f64>,
}

impl<'a> Walk<'a> {
    pub fn new(net: &'a Net, budget: f64) -> Self {
        Self { net, budget, ratios: Vec::new() }
    }

    pub fn layer(&self) -> usize {
        self.ratios.len()
    }

    pub fn is_done(&self) -> bool {
        self.layer() == self.net.n_layers()
    }

    /// Least share of a group's channels that may stay.
    fn floor(&self, layer: usize) -> f64 {
        let n = f64::from(self.net.channels[layer]);
        (f64::from(KEEP_RATIO_MIN) * n).ceil() / n
    }

    fn remaining(&self) -> f64 {
        let spent: f64 = self.ratios.iter().zip(&self.net.cost).map(|(r, c)| r * c).sum();
        self.budget * self.net.cost.iter().sum::<f64>() - spent
    }

    pub fn even_ratio(&self) -> f32 {
        let rest: f64 = self.net.cost[self.layer()..].iter().sum();
        ((self.remaining() / rest) as f32).clamp(KEEP_RATIO_MIN, 1.0)
    }

    /// Clamps, rounds and takes a keep ratio; returns what was realised.
    pub fn step(&mut self, keep_ratio: f32) -> f32 {
        let layer = self.layer();
        let later: f64 = (layer + 1..self.net.n_layers()).map(|l| self.floor(l) * self.net.cost[l]).sum();
        let ratio_max = (self.remaining() - later) / self.net.cost[layer];
        let n = f64::from(self.net.channels[layer]);
        let wanted = (f64::from(keep_ratio) * n).round();
        let kept = wanted.min((ratio_max * n + 1e-9).floor()).min(n);
        self.ratios.push(kept.max(self.floor(layer) * n) / n);
        self.ratios[layer] as f32
    }

    pub fn observation(&self, task: usize, n_tasks: usize) -> Vec<f32> {
        let (layer, n_layers) = (self.layer(), self.net.n_layers());
        let total: f64 = self.net.cost.iter().sum();
        let channels = self.net.channels[layer] as f32 / 64.0;
        let reduced: f64 = self.ratios.iter().zip(&self.net.cost).map(|(r, c)| (1.0 - r) * c).sum();
        let rest: f64 = self.net.cost[layer + 1..].iter().sum();
        vec![
            layer as f32 / (n_layers - 1).max(1) as f32,
            channels,
            channels,
            0.25 / channels,
            0.25 / channels,
            1.0,
            1.0,
            self.budget as f32,
            task as f32 / n_tasks as f32,
            self.net.cost[layer] as f32,
            (reduced / total) as f32,
            (rest / total) as f32,
            self.ratios.last().map_or(1.0, |&r| r as f32),
        ]
    }

    pub fn request(&self, task: usize, n_tasks: usize, walk: u64) -> ActRequest {
        ActRequest {
            task: task as u32,
            walk,
            layer: self.layer() as u32,
            n_layers: self.net.n_layers() as u32,
            observation: self.observation(task, n_tasks),
            even_ratio: self.even_ratio(),
            last_action: self.ratios.last().map_or(0.0, |&r| r as f32),
            last_reward: 0.0,
            recurrent: Vec::new(),
            explore: true,
        }
    }
}

/// Adds one step to the unroll of a walk; the caller adds the step after the last with [`finish`].
pub fn record(unroll: &mut Unroll, request: &ActRequest, decision: &Decision, realised: f32, version: u64) {
    push_state(unroll, request);
    unroll.raw_action.push(decision.raw_action);
    unroll.keep_ratio.push(realised);
    unroll.log_prob.push(decision.log_prob);
    unroll.value.push(decision.value);
    unroll.reward.push(0.0);
    unroll.ends_walk.push(false);
    unroll.policy_version.push(version);
}

/// Ends the unroll after the last step of a walk.
pub fn finish(unroll: &mut Unroll, score: f64) {
    let last = unroll.n_steps() - 1;
    unroll.reward[last] = score as f32;
    unroll.ends_walk[last] = true;
    let observation = vec![0.0; N_FEATURES];
    push_state(unroll, &ActRequest { task: unroll.task, observation, even_ratio: 1.0, ..ActRequest::default() });
}

fn push_state(unroll: &mut Unroll, request: &ActRequest) {
    unroll.task = request.task;
    unroll.observation.extend(&request.observation);
    unroll.layer.push(request.layer);
    unroll.even_ratio.push(request.even_ratio);
    unroll.last_action.push(request.last_action);
    unroll.last_reward.push(request.last_reward);
    unroll.starts_walk.push(request.layer == 0);
}
