//! Searches in the synthetic environment: agents, random search around even ratios, cross-entropy.

use secateur_rl::nn::squash::Squash;
use secateur_rl::rng::RngStream;
use secateur_rl::{Learner, Policy, Unroll};

use super::{KEEP_RATIO_MIN, N_FEATURES, Net, Walk, finish, record};

/// Best candidate of one task, by the noisy score, with its accuracy without noise.
#[derive(Clone, Copy, Debug)]
pub struct Best {
    pub score: f64,
    pub accuracy: f64,
}

impl Best {
    pub const NONE: Self = Self { score: f64::NEG_INFINITY, accuracy: 0.0 };

    pub fn add(&mut self, net: &Net, ratios: &[f64]) -> f64 {
        let score = net.score(ratios);
        if score > self.score {
            *self = Self { score, accuracy: net.accuracy(ratios) };
        }
        score
    }
}

/// Walks all (task, walk) pairs side by side to their ends.
pub fn walk_all(policy: &dyn Policy, net: &Net, budgets: &[f64], ids: &[(usize, u64)], explore: bool) -> Vec<Unroll> {
    let mut walks: Vec<Walk> = ids.iter().map(|&(task, _)| Walk::new(net, budgets[task])).collect();
    let mut unrolls = vec![Unroll::default(); ids.len()];
    let mut recurrent = vec![Vec::new(); ids.len()];
    for _ in 0..net.n_layers() {
        let requests: Vec<_> = (0..ids.len())
            .map(|i| {
                let mut request = walks[i].request(ids[i].0, budgets.len(), ids[i].1);
                (request.recurrent, request.explore) = (std::mem::take(&mut recurrent[i]), explore);
                request
            })
            .collect();
        for (i, decision) in policy.act(&requests).unwrap().into_iter().enumerate() {
            let realised = walks[i].step(decision.keep_ratio);
            record(&mut unrolls[i], &requests[i], &decision, realised, policy.version());
            recurrent[i] = decision.recurrent;
        }
    }
    for (unroll, walk) in unrolls.iter_mut().zip(&walks) {
        assert!(walk.is_done());
        finish(unroll, net.score(&walk.ratios));
    }
    unrolls
}

/// Exact ratios of a recorded walk.
pub fn ratios(unroll: &Unroll, net: &Net) -> Vec<f64> {
    let exact = |(&r, &n): (&f32, &u32)| (f64::from(r) * f64::from(n)).round() / f64::from(n);
    unroll.keep_ratio.iter().zip(&net.channels).map(exact).collect()
}

/// Accuracy of the noise-free policy, per task.
pub fn mean_policy_accuracy(policy: &dyn Policy, net: &Net, budgets: &[f64]) -> Vec<f64> {
    let ids: Vec<_> = (0..budgets.len()).map(|task| (task, 0)).collect();
    let unrolls = walk_all(policy, net, budgets, &ids, false);
    unrolls.iter().map(|unroll| net.accuracy(&ratios(unroll, net))).collect()
}

/// Best and mean of `n_walks` walks per task of a policy that does not learn.
pub fn run_fixed(policy: &dyn Policy, net: &Net, budgets: &[f64], n_walks: u64) -> (Vec<Best>, f64) {
    let mut best = vec![Best::NONE; budgets.len()];
    let mut sum = 0.0;
    for walk in 0..n_walks {
        let ids: Vec<_> = (0..budgets.len()).map(|task| (task, walk)).collect();
        for unroll in walk_all(policy, net, budgets, &ids, true) {
            sum += best[unroll.task as usize].add(net, &ratios(&unroll, net));
        }
    }
    (best, sum / (n_walks as f64 * budgets.len() as f64))
}

/// `n_walks` walks per task by `n_actors` actors per task, learner and actors in turn; best per task.
pub fn run_learner(
    learner: &mut dyn Learner,
    net: &Net,
    budgets: &[f64],
    n_actors: u64,
    walks: std::ops::Range<u64>,
) -> Vec<Best> {
    let mut best = vec![Best::NONE; budgets.len()];
    assert_eq!(learner.unroll_length(net.n_layers()), net.n_layers());
    for first in walks.clone().step_by(n_actors as usize) {
        let ids: Vec<_> = (0..budgets.len())
            .flat_map(|task| (first..(first + n_actors).min(walks.end)).map(move |walk| (task, walk)))
            .collect();
        let unrolls = walk_all(&*learner.policy(), net, budgets, &ids, true);
        for unroll in &unrolls {
            assert_eq!(unroll.observation.len(), (net.n_layers() + 1) * N_FEATURES);
            best[unroll.task as usize].add(net, &ratios(unroll, net));
        }
        learner.learn(&unrolls).unwrap();
    }
    best
}

/// A candidate from one offset per group.
pub fn candidate(net: &Net, budget: f64, offsets: &[f64]) -> Vec<f64> {
    let mut walk = Walk::new(net, budget);
    for &offset in offsets {
        walk.step(Squash::AroundEven.keep_ratio(offset as f32, walk.even_ratio(), KEEP_RATIO_MIN));
    }
    walk.ratios
}

/// Offsets drawn from a fixed normal.
pub fn search_around_even(net: &Net, budget: f64, n_walks: u64, sigma: f64, seed: u64) -> Best {
    let mut best = Best::NONE;
    for walk in 0..n_walks {
        let mut rng = RngStream::new(seed, 77, walk, 0);
        let offsets: Vec<f64> = (0..net.n_layers()).map(|_| sigma * rng.normal()).collect();
        best.add(net, &candidate(net, budget, &offsets));
    }
    best
}

/// Settings of the cross-entropy method.
#[derive(Clone, Copy)]
pub struct CrossEntropy {
    pub population: u64,
    pub n_elites: usize,
    pub sigma: f64,
    /// Share of the old mean and deviation that is kept.
    pub inertia: f64,
}

/// Cross-entropy with one normal per group; returns the best and the candidate of the final mean.
pub fn cross_entropy(net: &Net, budget: f64, n_walks: u64, settings: CrossEntropy, seed: u64) -> (Best, f64) {
    let n_layers = net.n_layers();
    let (mut mean, mut sigma) = (vec![0.0; n_layers], vec![settings.sigma; n_layers]);
    let mut best = Best::NONE;
    for first in (0..n_walks).step_by(settings.population as usize) {
        let mut scored: Vec<(f64, Vec<f64>)> = (first..(first + settings.population).min(n_walks))
            .map(|walk| {
                let mut rng = RngStream::new(seed, 78, walk, 0);
                let offsets: Vec<f64> = (0..n_layers).map(|l| mean[l] + sigma[l] * rng.normal()).collect();
                (best.add(net, &candidate(net, budget, &offsets)), offsets)
            })
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.truncate(settings.n_elites);
        let n = scored.len() as f64;
        for l in 0..n_layers {
            let new = scored.iter().map(|(_, o)| o[l]).sum::<f64>() / n;
            let variance = scored.iter().map(|(_, o)| (o[l] - new).powi(2)).sum::<f64>() / n;
            mean[l] = settings.inertia * mean[l] + (1.0 - settings.inertia) * new;
            sigma[l] = (settings.inertia * sigma[l] + (1.0 - settings.inertia) * variance.sqrt()).max(0.05);
        }
    }
    (best, net.accuracy(&candidate(net, budget, &mean)))
}
