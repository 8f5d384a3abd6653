//! Compares the tuned agent with searches of equal cost on the synthetic task of the tests.
//! `cargo run --release -p secateur-rl --example synthetic -- [groups] [walks per task] [seeds]`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement, not a library")]

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::time::Instant;

use secateur_rl::agents::mtacp::{MtacpLearner, MtacpSettings};
use secateur_rl::agents::random::Random;
use secateur_rl::agents::uniform::Uniform;
use secateur_rl::{EnvironmentSpec, Learner, Profile};
use synthetic::search::{self, Best, CrossEntropy};
use synthetic::{KEEP_RATIO_MIN, N_FEATURES, Net};

const BUDGETS: [f64; 3] = [0.4, 0.5, 0.65];
const COLUMNS: [&str; 9] = [
    "uniform",
    "random, mean",
    "random, best",
    "around even, best",
    "cross-entropy, best",
    "cross-entropy, final mean",
    "optimum (cross-entropy, 30,000 walks)",
    "agent, best",
    "agent, noise-free",
];

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn mean_best(best: &[Best]) -> f64 {
    mean(&best.iter().map(|b| b.accuracy).collect::<Vec<_>>())
}

fn cross_entropy(net: &Net, n_walks: u64, population: u64, seed: u64) -> (f64, f64) {
    let n_elites = population as usize / 4;
    let settings = CrossEntropy { population, n_elites, sigma: 0.8, inertia: 0.2 };
    let runs = BUDGETS.map(|budget| search::cross_entropy(net, budget, n_walks, settings, seed));
    (mean_best(&runs.map(|r| r.0)), mean(&runs.map(|r| r.1)))
}

fn agent(net: &Net, n_walks: u64, seed: u64, profile: Profile) -> MtacpLearner {
    let agent = EnvironmentSpec {
        n_features: N_FEATURES,
        n_tasks: BUDGETS.len(),
        n_actors: 12,
        walk_length_max: net.n_layers(),
        walks_planned: BUDGETS.len() as u64 * n_walks,
        keep_ratio_min: KEEP_RATIO_MIN,
        seed,
    };
    MtacpLearner::new(MtacpSettings::of(profile), &agent).unwrap()
}

fn compare(net: &Net, n_walks: u64, seed: u64) -> [f64; 9] {
    let random = Random { keep_ratio_min: KEEP_RATIO_MIN, seed };
    let (random_best, random_mean) = search::run_fixed(&random, net, &BUDGETS, n_walks);
    let around = BUDGETS.map(|budget| search::search_around_even(net, budget, n_walks, 0.5, seed));
    let (ce_best, ce_mean) = cross_entropy(net, n_walks, 25, seed);
    let mut learner = agent(net, n_walks, seed, Profile::Tuned);
    let best = search::run_learner(&mut learner, net, &BUDGETS, 4, 0..n_walks);
    [
        mean(&search::mean_policy_accuracy(&Uniform, net, &BUDGETS)),
        random_mean,
        mean_best(&random_best),
        mean_best(&around),
        ce_best,
        ce_mean,
        cross_entropy(net, 30_000, 200, seed).1,
        mean_best(&best),
        mean(&search::mean_policy_accuracy(&*learner.policy(), net, &BUDGETS)),
    ]
}

/// Milliseconds of one `act` of 12 rows and of one `learn` of 12 walks, the best of several.
fn time(net: &Net, profile: Profile) -> (f64, f64) {
    let mut learner = agent(net, 100, 0, profile);
    let ids: Vec<_> = (0..12).map(|i| (i % 3, i as u64)).collect();
    let (mut act_ms, mut learn_ms) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..8 {
        let policy = learner.policy();
        let requests: Vec<_> =
            ids.iter().map(|&(task, walk)| synthetic::Walk::new(net, 0.5).request(task, 3, walk)).collect();
        let start = Instant::now();
        policy.act(&requests).unwrap();
        act_ms = (start.elapsed().as_secs_f64() * 1e3).min(act_ms);
        let unrolls = search::walk_all(&*policy, net, &BUDGETS, &ids, true);
        let start = Instant::now();
        learner.learn(&unrolls).unwrap();
        learn_ms = (start.elapsed().as_secs_f64() * 1e3).min(learn_ms);
    }
    (act_ms, learn_ms)
}

fn main() {
    let arg = |i: usize, default: u64| std::env::args().nth(i).map_or(default, |a| a.parse().unwrap());
    let (n_layers, n_walks, n_seeds) = (arg(1, 9) as usize, arg(2, 150), arg(3, 3));
    let mut sums = [0.0; 9];
    for seed in 0..n_seeds {
        let row = compare(&Net::new(n_layers, 100 + seed), n_walks, seed);
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / n_seeds as f64);
    }
    println!("{n_layers} groups, {n_walks} walks per task, {n_seeds} seeds; accuracy without noise");
    for (name, value) in COLUMNS.iter().zip(sums) {
        println!("{value:.4}  {name}");
    }
    for profile in [Profile::Tuned, Profile::Paper] {
        let (act_ms, learn_ms) = time(&Net::new(n_layers, 100), profile);
        println!("{profile:?}: act of 12 rows {act_ms:.3} ms, learn of 12 walks {learn_ms:.1} ms");
    }
}
