//! `bench kernels`: one row per layer shape.

use std::time::Instant;

use anyhow::Context;
use rayon::ThreadPoolBuilder;
use secateur_kernels::{Arithmetic, Isa, NodeKernel, Plan, Scratch, peak_gflops};
use secateur_net::{Conv2d, GraphBuilder, Network, NodeId, Op, Shape, Tensor, Weights};
use serde::Serialize;

use super::arguments::BenchKernelsArgs;
use super::json;
use crate::{Failure, screen};

/// Input channels, output channels, map size, kernel, stride, groups.
pub(super) type Layer = (usize, usize, usize, usize, usize, usize);

/// Layers of the CIFAR ResNets, VGG-16 and MobileNet V1, dense and as pruning leaves them.
pub(super) const LAYERS: &[Layer] = &[
    (3, 16, 32, 3, 1, 1),
    (16, 16, 32, 3, 1, 1),
    (16, 32, 32, 3, 2, 1),
    (32, 32, 16, 3, 1, 1),
    (32, 64, 16, 3, 2, 1),
    (64, 64, 8, 3, 1, 1),
    (64, 64, 32, 3, 1, 1),
    (128, 128, 16, 3, 1, 1),
    (256, 256, 8, 3, 1, 1),
    (512, 512, 4, 3, 1, 1),
    (512, 512, 2, 3, 1, 1),
    (16, 8, 32, 3, 1, 1),
    (8, 16, 32, 3, 1, 1),
    (16, 7, 32, 3, 1, 1),
    (9, 16, 32, 3, 1, 1),
    (29, 13, 16, 3, 1, 1),
    (29, 45, 8, 3, 1, 1),
    (16, 16, 16, 5, 1, 1),
    (3, 16, 32, 7, 1, 1),
    (64, 128, 8, 1, 1, 1),
    (512, 512, 2, 1, 1, 1),
    (64, 64, 16, 3, 1, 64),
    (29, 29, 16, 3, 1, 29),
    (1024, 1024, 1, 1, 1, 1),
];

#[derive(Debug, Serialize)]
struct KernelRate {
    isa: String,
    precision: String,
    layer: String,
    gflops: f64,
    /// Of the highest rate of multiply-adds of one core in the same precision and instruction set; above 1 where fewer
    /// multiplications than the convolution's are needed.
    peak_share: f64,
}

pub(super) fn kernels(arguments: &BenchKernelsArgs) -> Result<(), Failure> {
    screen::result("One core. Rates count the plain convolution's work.")?;
    let mut rows = Vec::new();
    let available = Arithmetic::available();
    let n = if arguments.all_isas { available.len() } else { 1 };
    for &arithmetic in &available[..n] {
        let (peak, title) = (peak_gflops(arithmetic).context("peak")?, arithmetic.to_string());
        screen::result(format_args!("{title}: highest rate of multiply-adds {peak:.0} GFLOP/s"))?;
        for &layer in LAYERS {
            let (gflops, name) = (gflops(layer, arithmetic)?, name(layer));
            let share = gflops / peak;
            screen::result(format_args!("{title:<14}{name:<34}{gflops:7.1} GFLOP/s {share:6.2} of peak"))?;
            let (isa, precision) = (format!("{:?}", arithmetic.isa()), arithmetic.precision().to_string());
            rows.push(KernelRate { isa, precision, layer: name, gflops, peak_share: share });
        }
    }
    json::write(arguments.json.as_deref(), &rows)
}

/// What a layer is called.
pub(super) fn name((c_in, c_out, size, kernel, stride, groups): Layer) -> String {
    format!("{c_in} -> {c_out} @ {size}x{size} k{kernel} s{stride} g{groups}")
}

/// A network of one layer, with weights between -1 and 1.
pub(super) fn network(layer: Layer) -> anyhow::Result<Network> {
    let mut builder = GraphBuilder::new(input(layer));
    let mut weights = Weights::new();
    push(layer, "conv".into(), &mut builder, &mut weights)?;
    Ok(Network::new(builder.finish()?, weights)?)
}

fn input((channels, _, size, ..): Layer) -> Shape {
    Shape { c: channels, h: size, w: size }
}

/// Adds a layer that reads the image.
fn push(
    (c_in, c_out, _, kernel, stride, groups): Layer,
    name: String,
    builder: &mut GraphBuilder,
    weights: &mut Weights,
) -> anyhow::Result<NodeId> {
    let conv = Conv2d { groups, bias: true, ..Conv2d::square(c_in, c_out, kernel, stride, kernel / 2) };
    let shape = vec![c_out, c_in / groups, kernel, kernel];
    weights.insert(format!("{name}.weight"), Tensor::new(shape.clone(), values(shape.iter().product()))?);
    weights.insert(format!("{name}.bias"), Tensor::new(vec![c_out], values(c_out))?);
    Ok(builder.push(name, Op::Conv2d(conv), &[0]))
}

/// So many values between -1 and 1.
pub(super) fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 101) as f32 / 50.0 - 1.0).collect()
}

fn gflops(layer: Layer, arithmetic: Arithmetic) -> anyhow::Result<f64> {
    let network = network(layer)?;
    let output = network.graph().shape(network.graph().output());
    let macs = network.parameter("conv", "weight").data().len() * output.h * output.w * arithmetic.lanes();
    let n_runs = (40_000_000 / macs).max(1);
    let seconds = match arithmetic {
        Arithmetic::F32(isa) => node_seconds(&network, isa, n_runs)?,
        Arithmetic::Bf16 => {
            let seconds = |n| stacked_seconds(layer, arithmetic, n, n_runs);
            ((seconds(5)? - seconds(1)?) / 4.0).max(1e-9)
        }
    };
    Ok(2e-9 * macs as f64 / seconds)
}

/// Of one layer on its own, for a group of images.
fn node_seconds(network: &Network, isa: Isa, n_runs: usize) -> anyhow::Result<f64> {
    let graph = network.graph();
    let kernel = NodeKernel::with_isa(graph, network.weights(), graph.output(), isa)?;
    let image = values(graph.input().len() * kernel.lanes());
    let (mut output, mut scratch) = (vec![0.0; kernel.out_len()], Scratch::new());
    best_seconds(n_runs, || Ok(kernel.run(&[&image], &mut output, &mut scratch)?))
}

/// Of a network of `n` such layers side by side, whose outputs are added up as they are computed, for a group of
/// images: what one layer more takes, no matter how images go in and outputs come out.
fn stacked_seconds(layer: Layer, arithmetic: Arithmetic, n: usize, n_runs: usize) -> anyhow::Result<f64> {
    let mut builder = GraphBuilder::new(input(layer));
    let mut weights = Weights::new();
    let mut sum = push(layer, "conv".into(), &mut builder, &mut weights)?;
    for i in 1..n {
        let conv = push(layer, format!("conv{i}"), &mut builder, &mut weights)?;
        sum = builder.push(format!("sum{i}"), Op::Add, &[conv, sum]);
    }
    // The last step is computed in f32 in any case.
    builder.push("same", Op::Pad { channels: [0, 0], rows: [0, 0], cols: [0, 0] }, &[sum]);
    let plan = Plan::compile(&Network::new(builder.finish()?, weights)?, arithmetic)?;
    let pool = ThreadPoolBuilder::new().num_threads(1).build()?;
    let images = values(input(layer).len() * arithmetic.lanes());
    pool.install(|| best_seconds(n_runs, || Ok(plan.logits(&pool, &images).map(drop)?)))
}

/// Best of several times, in each of which `run` runs `n_runs` times; of one run.
fn best_seconds(n_runs: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..n_runs {
            run()?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best / n_runs as f64)
}
