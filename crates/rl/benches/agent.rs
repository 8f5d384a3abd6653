//! What an agent costs: `cargo bench -p secateur-rl`.
#![allow(clippy::unwrap_used, missing_docs, reason = "benches")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use secateur_rl::agents::mtacp::MtacpSettings;
use secateur_rl::returns::vtrace::{VtraceClip, VtraceInput, vtrace};
use secateur_rl::{ActRequest, EnvironmentSpec, Profile, build};

/// Groups of ResNet-56 under protocol `Inner`, rounded up; the paper's unrolls have 60 steps, its batches 4 unrolls.
const WALK_LENGTH: usize = 28;
const N_FEATURES: usize = 13;

fn returns(c: &mut Criterion) {
    let mut group = c.benchmark_group("rl/vtrace/cpu");
    for (n_steps, n_batch) in [(60, 4), (9, 6), (WALK_LENGTH, 64)] {
        let n = n_steps * n_batch;
        let wave = |scale: f64| (0..n).map(|i| scale * ((i * 7919 % 101) as f64 / 50.0 - 1.0)).collect::<Vec<_>>();
        let (behaviour, target, reward, value) = (wave(0.5), wave(0.6), wave(1.0), wave(0.9));
        let discount: Vec<f64> = (0..n).map(|i| if i / n_batch % 9 == 8 { 0.0 } else { 1.0 }).collect();
        let input = VtraceInput {
            n_batch,
            behaviour_log_prob: &behaviour,
            target_log_prob: &target,
            discount: &discount,
            reward: &reward,
            value: &value,
            bootstrap_value: &vec![0.5; n_batch],
        };
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("T{n_steps}_B{n_batch}"), |b| {
            b.iter(|| vtrace(&input, VtraceClip::default()).unwrap());
        });
    }
}

fn requests(n: u64) -> Vec<ActRequest> {
    let one = |walk| ActRequest {
        walk,
        layer: 3,
        n_layers: WALK_LENGTH as u32,
        observation: (0..N_FEATURES).map(|i| i as f32 / N_FEATURES as f32).collect(),
        even_ratio: 0.6,
        last_action: 0.5,
        explore: true,
        ..ActRequest::default()
    };
    (0..n).map(one).collect()
}

fn policy(c: &mut Criterion) {
    let mut group = c.benchmark_group("rl/policy/cpu");
    let settings = EnvironmentSpec {
        n_features: N_FEATURES,
        n_tasks: 3,
        n_actors: 64,
        walk_length_max: WALK_LENGTH,
        walks_planned: 1000,
        keep_ratio_min: 0.1,
        seed: 1,
    };
    for (name, profile) in [("tuned", Profile::Tuned), ("paper", Profile::Paper)] {
        let policy = build(&MtacpSettings::of(profile), &settings).unwrap().policy();
        for n in [1, 12, 64] {
            let requests = requests(n);
            group.throughput(Throughput::Elements(n));
            group.bench_function(format!("{name}_A{n}"), |b| b.iter(|| policy.act(&requests).unwrap()));
        }
    }
}

criterion_group!(benches, returns, policy);
criterion_main!(benches);
