//! `bench kernels`: one row per layer shape.

use std::time::Instant;

use secateur_kernels::{Isa, NodeKernel, Scratch, peak_gflops};
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Shape, Tensor, Weights};
use serde::Serialize;

use super::json;
use crate::arguments::BenchKernelsArgs;
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
struct Row {
    isa: String,
    layer: String,
    gflops: f64,
    /// Of the highest rate of multiply-adds of one core; above 1 where fewer multiplications than the convolution's are needed.
    peak_share: f64,
}

pub(super) fn kernels(arguments: &BenchKernelsArgs) -> Result<(), Failure> {
    let peak = peak_gflops();
    screen::result(format_args!(
        "One core; highest rate of multiply-adds: {peak:.0} GFLOP/s. Rates count the plain convolution's work."
    ))?;
    let mut rows = Vec::new();
    let isas = if arguments.all_isas { Isa::available() } else { vec![Isa::detect()] };
    for isa in isas {
        for &layer in LAYERS {
            let (gflops, name) = (gflops(layer, isa)?, name(layer));
            screen::result(format_args!("{isa:?}  {name:<34}{gflops:7.1} GFLOP/s {:6.2} of peak", gflops / peak))?;
            rows.push(Row { isa: format!("{isa:?}"), layer: name, gflops, peak_share: gflops / peak });
        }
    }
    json::write(arguments.json.as_deref(), &rows)
}

/// What a layer is called.
pub(super) fn name((c_in, c_out, size, kernel, stride, groups): Layer) -> String {
    format!("{c_in} -> {c_out} @ {size}x{size} k{kernel} s{stride} g{groups}")
}

/// A network of one layer, with weights between -1 and 1.
pub(super) fn network((c_in, c_out, size, kernel, stride, groups): Layer) -> anyhow::Result<Network> {
    let conv = Conv2d { groups, bias: true, ..Conv2d::square(c_in, c_out, kernel, stride, kernel / 2) };
    let shape = vec![c_out, c_in / groups, kernel, kernel];
    let mut weights = Weights::new();
    weights.insert("conv.weight".into(), Tensor::new(shape.clone(), values(shape.iter().product()))?);
    weights.insert("conv.bias".into(), Tensor::new(vec![c_out], values(c_out))?);
    let mut builder = GraphBuilder::new(Shape { c: c_in, h: size, w: size });
    builder.push("conv", Op::Conv2d(conv), &[0]);
    Ok(Network::new(builder.finish()?, weights)?)
}

/// So many values between -1 and 1.
pub(super) fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 101) as f32 / 50.0 - 1.0).collect()
}

/// Best of several runs.
fn gflops(layer: Layer, isa: Isa) -> anyhow::Result<f64> {
    let network = network(layer)?;
    let graph = network.graph();
    let node = graph.output();
    let kernel = NodeKernel::with_isa(graph, network.weights(), node, isa)?;
    let (lanes, out) = (kernel.lanes(), graph.shape(node));
    let macs = network.parameter("conv", "weight").data().len() * out.h * out.w * lanes;
    let image = values(graph.input().len() * lanes);
    let (mut output, mut scratch) = (vec![0.0; out.len() * lanes], Scratch::new());
    let n_runs = (40_000_000 / macs).max(1);
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..n_runs {
            kernel.run(&[&image], &mut output, &mut scratch)?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (macs * n_runs) as f64 / best / 1e9)
}
