//! What a pruned network computes, by plain loops and sums in f64: what its PyTorch module must compute as well.

use anyhow::Context;
use rayon::prelude::*;
use secateur_kernels::run_reference;
use secateur_net::{Network, Shape, parameter_shapes};
use serde::Serialize;

/// Images of a check.
const N_IMAGES: usize = 2;
/// Of networks that take more multiply-accumulates, one image is enough: plain loops are slow.
const MACS_OF_SEVERAL_IMAGES: u64 = 1 << 30;
/// Networks with more outputs are checked by the mark of all outputs alone.
const OUTPUTS_MAX: usize = 4096;

/// Images that anybody can make again, and what the pruned network makes of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanCheck {
    /// Images, channels, rows and columns. Value `i` of all is `4 * noise(i) - 2` (`noise` in this file).
    pub images: [usize; 4],
    /// The network's outputs for each image; null where they are many, or where a module goes on behind them.
    pub logits: Option<Vec<Vec<f32>>>,
    /// The mark of all outputs; null where a module goes on behind them, and its layers alone can be checked.
    pub output: Option<OutputMark>,
}

/// Two numbers by which outputs can be told apart: of all images together, channels first, value `i` of an image is
/// `x[i]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OutputMark {
    /// Root of the mean of `x[i]²`.
    pub rms: f64,
    /// Mean of `x[i] * noise(i)`.
    pub probe: f64,
}

/// The outputs of one node for one image.
struct NodeOutput<'a> {
    values: &'a [f32],
    shape: Shape,
}

impl NodeOutput<'_> {
    /// Channel-major, as PyTorch has them.
    fn channels_first(&self) -> impl Iterator<Item = f32> {
        let Shape { c, h, w } = self.shape;
        (0..c).flat_map(move |channel| (0..h * w).map(move |pixel| self.values[pixel * c + channel]))
    }
}

/// From 0 to 1, the same everywhere: 24 bits of a mixed counter.
pub fn noise(i: usize) -> f32 {
    let mut x = (i as u32).wrapping_add(1);
    for factor in [0x7feb_352d, 0x846c_a68b] {
        x = (x ^ (x >> 16)).wrapping_mul(factor);
    }
    ((x ^ (x >> 16)) >> 8) as f32 / (1 << 24) as f32
}

/// The check of a network, and the mark of every node.
///
/// # Errors
/// None for a valid network.
pub(super) fn check(network: &Network, pool: &rayon::ThreadPool) -> anyhow::Result<(PlanCheck, Vec<OutputMark>)> {
    let graph = network.graph();
    let Shape { c, h, w } = graph.input();
    let n_images = if macs(network) > MACS_OF_SEVERAL_IMAGES { 1 } else { N_IMAGES };
    let value = |i: usize| 4.0 * noise(i) - 2.0;
    let of_image = |image: usize| {
        let at = |i: usize| value(image * c * h * w + (i % c) * h * w + i / c);
        run_reference(network, &(0..c * h * w).map(at).collect::<Vec<f32>>())
    };
    let outputs: Vec<Vec<Vec<f32>>> = pool
        .install(|| (0..n_images).into_par_iter().map(of_image).collect::<Result<_, _>>())
        .context("computing what plan.json is checked by")?;
    let marks: Vec<OutputMark> = (0..graph.nodes().len())
        .map(|id| mark(outputs.iter().map(|of_image| NodeOutput { values: &of_image[id], shape: graph.shape(id) })))
        .collect();
    let last = graph.output();
    let logits = outputs
        .iter()
        .map(|of_image| NodeOutput { values: &of_image[last], shape: graph.shape(last) }.channels_first().collect());
    let are_few = graph.shape(last).len() <= OUTPUTS_MAX;
    let (logits, output) = (are_few.then(|| logits.collect()), Some(marks[last]));
    let check = PlanCheck { images: [n_images, c, h, w], logits, output };
    Ok((check, marks))
}

fn mark<'a>(images: impl Iterator<Item = NodeOutput<'a>>) -> OutputMark {
    let (mut squares, mut probe, mut n) = (0.0, 0.0, 0.0);
    for image in images {
        for (i, x) in image.channels_first().enumerate() {
            squares += f64::from(x).powi(2);
            probe += f64::from(x) * f64::from(noise(i));
            n += 1.0;
        }
    }
    OutputMark { rms: (squares / n).sqrt(), probe: probe / n }
}

/// Multiply-accumulates per image, about.
fn macs(network: &Network) -> u64 {
    let graph = network.graph();
    let of_node = |id: usize| {
        let Shape { c, h, w } = graph.shape(id);
        let weights: usize =
            parameter_shapes(&graph.node(id).op).iter().map(|(_, shape)| shape.iter().product()).fold(0, usize::max);
        weights as u64 / c.max(1) as u64 * (c * h * w) as u64
    };
    (0..graph.nodes().len()).map(of_node).sum()
}
