//! `bench eval --layers`: how long each layer of a candidate takes.

use anyhow::Context;
use rayon::ThreadPool;
use secateur_kernels::Plan;
use secateur_net::{Conv2d, Graph, NodeId, Shape};
use serde::Serialize;

use super::eval::{N_RUNS, median};
use crate::table::Table;

/// A layer with what was fused to it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LayerTime {
    node: String,
    work: String,
    ms_per_image: f64,
    /// Of the time of all layers.
    share: f64,
    /// Of the plain convolution's work; 0 where nothing is multiplied and added up.
    gflops: f64,
    /// Of all threads' highest rate of multiply-adds.
    peak_share: f64,
}

/// What times and rates are told in.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerScale {
    pub(super) n_images: usize,
    /// GFLOP/s of all threads.
    pub(super) peak: f64,
}

/// Median times of all steps of `plan`, which was compiled of `graph`, over `images`.
pub(super) fn times(
    graph: &Graph,
    plan: &Plan,
    pool: &ThreadPool,
    images: &[f32],
    scale: LayerScale,
) -> anyhow::Result<Vec<LayerTime>> {
    plan.step_times(pool, images).context("timing layers")?;
    let runs = (0..N_RUNS).map(|_| plan.step_times(pool, images)).collect::<Result<Vec<_>, _>>()?;
    let of_step = |step: usize| median(runs.iter().map(|run| run[step].seconds).collect());
    let seconds: Vec<f64> = (0..runs[0].len()).map(of_step).collect();
    let total: f64 = seconds.iter().sum();
    let layer = |step: usize| {
        let seconds = seconds[step];
        let node = runs[0][step].node;
        let gflops = 2e-9 * macs(graph, node) as f64 * scale.n_images as f64 / seconds;
        LayerTime {
            node: graph.node(node).name.clone(),
            work: work(graph, node),
            ms_per_image: 1e3 * seconds / scale.n_images as f64,
            share: seconds / total,
            gflops,
            peak_share: gflops / scale.peak,
        }
    };
    Ok((0..seconds.len()).map(layer).collect())
}

/// One row for each layer.
pub(super) fn table(layers: &[LayerTime]) -> Table {
    let mut table = Table::new(&["layer", "work", ">ms/image", ">share", ">GFLOP/s", ">of peak"]);
    for layer in layers {
        let rate = |text: String| if layer.gflops > 0.0 { text } else { "-".into() };
        table.row([
            layer.node.clone(),
            layer.work.clone(),
            format!("{:.3}", layer.ms_per_image),
            format!("{:.1} %", 100.0 * layer.share),
            rate(format!("{:.1}", layer.gflops)),
            rate(format!("{:.2}", layer.peak_share)),
        ]);
    }
    table
}

/// Multiply-accumulates of a convolution or a linear layer for one image, taps beside the image included.
fn macs(graph: &Graph, node: NodeId) -> u64 {
    graph.node(node).op.as_conv2d().map_or(0, |conv| {
        let per_output = conv.in_channels / conv.groups * conv.kernel[0] * conv.kernel[1];
        (graph.shape(node).len() * per_output) as u64
    })
}

/// `64 -> 128 @ 28x28 k3 s2`
fn work(graph: &Graph, node: NodeId) -> String {
    let Shape { c, h, w } = graph.shape(node);
    let of_conv = |conv: &Conv2d| {
        let groups = if conv.groups > 1 { format!(" g{}", conv.groups) } else { String::new() };
        format!("{} -> {c} @ {h}x{w} k{} s{}{groups}", conv.in_channels, conv.kernel[0], conv.stride[0])
    };
    let op = &graph.node(node).op;
    op.as_conv2d().map_or_else(|| format!("{} -> {c} @ {h}x{w}", op.name()), |conv| of_conv(&conv))
}
