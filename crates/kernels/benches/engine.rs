//! Compiling, evaluating and refitting candidates on one core: `cargo bench -p secateur-kernels`.
#![allow(clippy::unwrap_used, missing_docs, reason = "benches")]

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rayon::{ThreadPool, ThreadPoolBuilder};
use secateur_kernels::{
    Arithmetic, Effort, NodeKernel, NormalEquations, Plan, RefitData, Scratch, SequentialRefit, calibrate, repair,
};
use secateur_net::random::with_random_weights;
use secateur_net::{
    ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, Op, Protocol, Shape, arch, fold_batch_norm, prune,
};

const INPUT: Shape = Shape { c: 3, h: 32, w: 32 };

fn one_thread() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(1).build().unwrap()
}

fn resnet20() -> (Network, ChannelGroups, KeptChannels) {
    let network = with_random_weights(arch::build("resnet20", INPUT, 10).unwrap(), 1);
    let network = fold_batch_norm(&network).unwrap();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    groups.prunable().into_iter().for_each(|g| kept.set(g, (0..groups.group(g).n_channels / 2).collect()));
    (network, groups, kept)
}

fn images(n: usize) -> Vec<f32> {
    (0..n * INPUT.len()).map(|i| (i * 7919 % 101) as f32 / 50.0 - 1.0).collect()
}

fn plan(c: &mut Criterion) {
    let (network, groups, kept) = resnet20();
    let compact = prune(&network, &groups, &kept).unwrap();
    let mut group = c.benchmark_group("plan");
    group.bench_function("compile resnet20, half kept", |b| {
        b.iter(|| Plan::compile(&compact, Arithmetic::default()).unwrap())
    });
    let (pool, images) = (one_thread(), images(64));
    group.throughput(Throughput::Elements(64));
    for (name, network) in [("resnet20, half kept", &compact), ("resnet20", &network)] {
        let plan = Plan::compile(network, Arithmetic::default()).unwrap();
        group.bench_function(format!("64 images {name}"), |b| b.iter(|| plan.logits(&pool, &images).unwrap()));
    }
}

fn layers(c: &mut Criterion) {
    let mut group = c.benchmark_group("layers");
    for (n_in, n_out, size, kernel, stride, groups) in [
        (16, 16, 32, 3, 1, 1),
        (16, 7, 32, 3, 1, 1),
        (64, 64, 8, 3, 1, 1),
        (16, 32, 32, 3, 2, 1),
        (64, 64, 16, 3, 1, 64),
    ] {
        let conv = Conv2d { groups, ..Conv2d::square(n_in, n_out, kernel, stride, kernel / 2) };
        let mut b = GraphBuilder::new(Shape { c: n_in, h: size, w: size });
        let node = b.push("conv", Op::Conv2d(conv), &[0]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        let kernel_ = NodeKernel::new(network.graph(), network.weights(), node).unwrap();
        let x = vec![0.5; network.graph().input().len() * kernel_.lanes()];
        let (mut out, mut scratch) = (vec![0.0; kernel_.out_len()], Scratch::new());
        group.throughput(Throughput::Elements(kernel_.lanes() as u64));
        group.bench_function(format!("{n_in}->{n_out}@{size} k{kernel} s{stride} g{groups}"), |b| {
            b.iter(|| kernel_.run(&[&x], &mut out, &mut scratch).unwrap());
        });
    }
}

/// On the activations as the already pruned network makes them.
fn sequential_repair(c: &mut Criterion) {
    let (network, groups, kept) = resnet20();
    let (pool, images) = (one_thread(), images(64));
    let data = RefitData::new(&pool, &network, &groups, &images, Effort::Quick).unwrap();
    let refit = SequentialRefit::new(&pool, &network, &groups, &data);
    let mut group = c.benchmark_group("repair");
    group.sample_size(10);
    group.bench_function("quick refit of resnet20 on 64 images, half kept", |b| {
        b.iter_batched(|| kept.clone(), |kept| refit.run(&kept, false).unwrap(), BatchSize::SmallInput);
    });
}

/// On the original activations: equations once, then a Cholesky factorisation per candidate.
fn original_repair(c: &mut Criterion) {
    let (network, groups, kept) = resnet20();
    let (pool, images) = (one_thread(), images(64));
    let equations = || calibrate(&pool, &network, &groups, &images, |_| ()).unwrap().equations;
    let shared: Vec<Arc<NormalEquations>> = equations().into_iter().map(Arc::new).collect();
    let solve = |_: usize, equations: &NormalEquations, kept: Vec<usize>| equations.refit(&kept).map(Arc::new);
    let mut group = c.benchmark_group("repair on original activations");
    group.sample_size(10);
    group.bench_function("equations of resnet20 from 64 images", |b| b.iter(equations));
    group.bench_function("refit of resnet20, half kept", |b| {
        b.iter(|| pool.install(|| repair(&network, &groups, &shared, &kept, solve).unwrap()));
    });
}

/// 512 channels under 3x3 taps, the widest of VGG-16: 4,609 columns.
fn wide_repair(c: &mut Criterion) {
    let shape = Shape { c: 512, h: 4, w: 4 };
    let mut b = GraphBuilder::new(shape);
    let conv = Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(512, 512, 3, 1, 1) });
    let first = b.push("first", conv.clone(), &[0]);
    b.push("second", conv, &[first]);
    let network = with_random_weights(b.finish().unwrap(), 1);
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let images: Vec<f32> = (0..64 * shape.len()).map(|i| (i * 7919 % 10_007) as f32 / 5000.0 - 1.0).collect();
    let pool = one_thread();
    let equations = || calibrate(&pool, &network, &groups, &images, |_| ()).unwrap().equations.swap_remove(0);
    let wide = equations();
    assert_eq!(wide.map.columns(), 4609);
    let mut group = c.benchmark_group("repair of 4,609 columns");
    group.sample_size(10);
    group.bench_function("equations from 1,024 rows", |b| b.iter(equations));
    for n in [256, 512] {
        let kept: Vec<usize> = (0..n).collect();
        group.bench_function(format!("refit of {n} inputs"), |b| b.iter(|| wide.refit(&kept).unwrap()));
    }
}

criterion_group!(benches, plan, layers, sequential_repair, original_repair, wide_repair);
criterion_main!(benches);
