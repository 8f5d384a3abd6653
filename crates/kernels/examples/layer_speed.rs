//! Prints GFLOP/s of one core (of the multiply-adds of the plain convolution) for a table of layer shapes, best of several runs: `cargo run --release -p secateur-kernels --example layer_speed`.
#![allow(clippy::print_stdout, reason = "printing is what this example is for")]

use std::error::Error;
use std::time::Instant;

use secateur_kernels::{Isa, NodeKernel, Scratch};
use secateur_net::{Conv2d, GraphBuilder, Op, Shape, Tensor, Weights};

/// Input channels, output channels, map size, kernel, stride, groups.
type Layer = (usize, usize, usize, usize, usize, usize);

const LAYERS: &[Layer] = &[
    (3, 16, 32, 3, 1, 1),
    (16, 16, 32, 3, 1, 1),
    (16, 32, 32, 3, 2, 1),
    (32, 32, 16, 3, 1, 1),
    (64, 64, 8, 3, 1, 1),
    (64, 64, 32, 3, 1, 1),
    (128, 128, 16, 3, 1, 1),
    (256, 256, 8, 3, 1, 1),
    (512, 512, 4, 3, 1, 1),
    // Pruned widths.
    (16, 7, 32, 3, 1, 1),
    (9, 16, 32, 3, 1, 1),
    (29, 13, 16, 3, 1, 1),
    (29, 45, 8, 3, 1, 1),
    // 1x1, depthwise, linear.
    (64, 128, 8, 1, 1, 1),
    (512, 512, 2, 1, 1, 1),
    (64, 64, 16, 3, 1, 64),
    (29, 29, 16, 3, 1, 29),
    (1024, 1024, 1, 1, 1, 1),
];

fn main() -> Result<(), Box<dyn Error>> {
    for isa in Isa::available() {
        println!("{isa:?}");
        for &layer in LAYERS {
            let (c_in, c_out, size, kernel, stride, groups) = layer;
            println!(
                "  {c_in:>4} -> {c_out:>4} @ {size:>2}x{size:<2} k{kernel} s{stride} g{groups:<4} {:7.1} GFLOP/s",
                gflops(layer, isa)?
            );
        }
    }
    Ok(())
}

fn gflops((c_in, c_out, size, kernel, stride, groups): Layer, isa: Isa) -> Result<f64, Box<dyn Error>> {
    let conv = Conv2d { groups, bias: true, ..Conv2d::square(c_in, c_out, kernel, stride, kernel / 2) };
    let values = |n: usize| (0..n).map(|i| (i * 7919 % 101) as f32 / 50.0 - 1.0).collect::<Vec<f32>>();
    let shape = vec![c_out, c_in / groups, kernel, kernel];
    let weight = Tensor::new(shape.clone(), values(shape.iter().product()))?;
    let mut weights = Weights::new();
    weights.insert("conv.weight".into(), weight);
    weights.insert("conv.bias".into(), Tensor::new(vec![c_out], values(c_out))?);
    let mut builder = GraphBuilder::new(Shape { c: c_in, h: size, w: size });
    let node = builder.push("conv", Op::Conv2d(conv), &[0]);
    let graph = builder.finish()?;
    let out = graph.shape(node);
    let kernel = NodeKernel::with_isa(&graph, &weights, node, isa)?;
    let macs = shape.iter().product::<usize>() * out.h * out.w;
    let lanes = kernel.lanes();
    let (image, mut output, mut scratch) =
        (values(graph.input().len() * lanes), vec![0.0; out.len() * lanes], Scratch::new());
    let n_runs = (40_000_000 / (macs * lanes)).max(1);
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..n_runs {
            kernel.run(&[&image], &mut output, &mut scratch)?;
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (macs * lanes * n_runs) as f64 / best / 1e9)
}
