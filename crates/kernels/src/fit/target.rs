//! What a sequential refit aims at: the original network's sums, at the pixels that enter the least-squares problems.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use secateur_net::{Graph, Network, NodeId, Op, Pointwise};

use crate::fit::image_groups::ImageGroups;
use crate::fit::linear_map::{PixelSample, ROWS_PER_COLUMN};
use crate::fit::map_sums::MapProducts;
use crate::fit::segment::{Segment, SegmentBuffers};
use crate::fit::wide::{has_few_rows, wide_rows_max};
use crate::{KernelError, LinearMap};

/// How much a sequential refit takes pains. A quick one, on 128 images, is for ranking: measured on ResNet-20 with 28
/// random candidates at 0.3 and at 0.5 of the MACs, accuracies after such refits correlate 0.91 and 0.98 with those
/// after a careful one on 3,000 images; thorough ones on 256 images do 0.92 and 0.97, and take, scoring included, twice
/// as long. That was with two plain passes; one over-relaxed pass reaches the same mean accuracies, its correlation was
/// not measured again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// To rank candidates.
    Quick,
    /// For the network to ship.
    Thorough,
}

/// What of its outputs a refit keeps where a vector of numbers leaves the network: nothing in the graph tells logits
/// from other numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputAim {
    /// They are the logits of a classifier: their softmax.
    #[default]
    Softmax,
    /// They are any numbers: every one of them, in squared error.
    Values,
}

/// What a sequential refit aims at, and how hard it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefitAim {
    /// How much it takes pains.
    pub effort: Effort,
    /// What of the outputs is kept.
    pub outputs: OutputAim,
}

impl From<Effort> for RefitAim {
    /// Of a classifier.
    fn from(effort: Effort) -> Self {
        Self { effort, outputs: OutputAim::Softmax }
    }
}

impl Effort {
    const fn rows_per_column(self) -> usize {
        match self {
            Self::Quick => 50,
            Self::Thorough => ROWS_PER_COLUMN,
        }
    }
    /// How often targets that an activation hides are moved.
    pub(crate) const fn clamp_passes(self) -> usize {
        match self {
            Self::Quick => 1,
            Self::Thorough => 3,
        }
    }
}

/// Fewest rows of a map with few columns: channels that are seldom active must not look as if they never were.
const ROWS_MIN: usize = 4096;

/// The nonlinearity that is applied to a sum, which says which of its errors matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Nonlinearity {
    /// None, or one whose effect is not used: all errors count alike.
    Unknown,
    /// An activation that clamps it to this range.
    Clamp([f32; 2]),
    /// The softmax of a classifier.
    Softmax,
}

impl Nonlinearity {
    fn of(Scope { graph, readers, aim, .. }: &Scope<'_>, sum: NodeId) -> Self {
        let shape = graph.shape(sum);
        let is_vector = shape.h * shape.w == 1 && shape.c > 1;
        match readers[sum][..] {
            [] if is_vector && aim.outputs == OutputAim::Softmax => Self::Softmax,
            [reader] => match graph.node(reader).op {
                Op::Pointwise(function) => hidden_beyond(function).map_or(Self::Unknown, Self::Clamp),
                Op::Softmax if is_vector && reader == graph.output() => Self::Softmax,
                Op::Input
                | Op::Conv2d(_)
                | Op::BatchNorm { .. }
                | Op::PRelu { .. }
                | Op::Linear { .. }
                | Op::Add
                | Op::Concat
                | Op::MaxPool(_)
                | Op::AvgPool(_)
                | Op::GlobalAvgPool
                | Op::Mul
                | Op::FlattenPixels
                | Op::ChannelShuffle { .. }
                | Op::DepthToSpace { .. }
                | Op::Resize { .. }
                | Op::LayerNorm { .. }
                | Op::GlobalMaxPool
                | Op::ConvTranspose2d(_)
                | Op::ChannelConv { .. }
                | Op::GroupNorm { .. }
                | Op::LocalResponseNorm { .. }
                | Op::Max
                | Op::Min
                | Op::ChannelMean
                | Op::ChannelMax
                | Op::BranchSum { .. }
                | Op::BranchSoftmax { .. }
                | Op::Flatten
                | Op::Pad { .. }
                | Op::Slice { .. }
                | Op::Softmax
                | Op::Identity => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// The range outside of which `function` does not tell values apart: all below give the same, and all above; `None` for
/// a function that tells all apart (a LeakyRelu too, however little) or is not this simple.
fn hidden_beyond(function: Pointwise) -> Option<[f32; 2]> {
    match function {
        Pointwise::Relu => Some([0.0, f32::INFINITY]),
        Pointwise::Relu6 => Some([0.0, 6.0]),
        // A constant hides everything.
        Pointwise::Clip { min, max } => (min < max).then_some([min, max]),
        Pointwise::HardSigmoid { alpha, beta } => {
            let [low, high] = [-beta / alpha, (1.0 - beta) / alpha];
            (low < high && low.is_finite() && high.is_finite()).then_some([low, high])
        }
        _ => None,
    }
}

/// What the maps of one node are fitted to.
#[derive(Debug)]
pub(crate) struct RefitTarget {
    /// The sum that the node is part of, or the node itself.
    pub sum: NodeId,
    /// The sum's other addends, all computed before the node.
    pub others: Vec<NodeId>,
    /// What is applied to the sum.
    pub nonlinearity: Nonlinearity,
    /// Whether the node's maps are too wide for normal equations, or have fewer rows than columns.
    pub is_wide: bool,
    /// Pixels used.
    pub sample: PixelSample,
    /// Groups of images used, from the first on.
    pub n_groups: usize,
    /// The original `sum` there, `[group of images, pixel, channel, LANES]`.
    pub values: Vec<f32>,
}

impl RefitTarget {
    /// The target of `node`, its values still zero; `None` when it has no linear map.
    fn of(scope: &Scope<'_>, node: NodeId) -> Option<Self> {
        let Scope { graph, readers, images: groups, wide, aim } = *scope;
        let maps = LinearMap::of(graph, node);
        let columns = maps.first()?.columns();
        let (mut sum, mut others) = (node, Vec::new());
        if let [reader] = readers[node][..] {
            let addends = &graph.node(reader).inputs;
            let rest: Vec<NodeId> = addends.iter().copied().filter(|&i| i != node).collect();
            let is_sum =
                graph.node(reader).op == Op::Add && addends.iter().all(|&i| graph.shape(i) == graph.shape(node));
            if is_sum && rest.iter().all(|&i| i < node) {
                (sum, others) = (reader, rest);
            }
        }
        // A softmax couples all outputs, which the maps of a grouped convolution do not see.
        let nonlinearity = match Nonlinearity::of(scope, sum) {
            Nonlinearity::Softmax if maps.len() > 1 => Nonlinearity::Unknown,
            known => known,
        };
        let shape = graph.shape(node);
        let n_pixels = shape.h * shape.w;
        let is_wide = wide.contains(&node) || has_few_rows(columns, groups.n_images(), n_pixels);
        let (sample, n_groups) = if is_wide {
            let n_rows = wide_rows_max(columns - 1);
            let sample = PixelSample::new(n_pixels, groups.n_images(), n_rows);
            (sample, n_rows.div_ceil(sample.per_image * groups.lanes()).min(groups.len()))
        } else {
            choose_pixels(&maps, n_pixels, groups, (aim.effort.rows_per_column() * columns).max(ROWS_MIN))
        };
        let values = vec![0.0; n_groups * sample.per_image * shape.c * groups.lanes()];
        Some(Self { sum, others, nonlinearity, is_wide, sample, n_groups, values })
    }
}

/// What the targets of a network's nodes depend on.
struct Scope<'a> {
    graph: &'a Graph,
    readers: &'a [Vec<NodeId>],
    images: &'a ImageGroups,
    wide: &'a BTreeSet<NodeId>,
    aim: RefitAim,
}

/// About `n_rows` rows for each of `maps`: some pixels of every image, or, where that takes less time, all pixels of
/// some images, and then more rows, since neighbouring pixels say nearly the same. Returns the pixels and the number of
/// groups of images, the first.
///
/// Measured on ResNet-20 with 18 candidates and thorough refits on 6,000 images: all pixels of a third of them for the
/// last stage's layers make a refit a fifth shorter, and accuracies on other images 0.0 to 0.1 points higher; those of
/// a quarter up to 0.2 lower.
fn choose_pixels(maps: &[LinearMap], n_pixels: usize, groups: &ImageGroups, n_rows: usize) -> (PixelSample, usize) {
    let of_every_image = (PixelSample::new(n_pixels, groups.n_images(), n_rows), groups.len());
    let n_all = groups.n_images() * n_pixels;
    let n_whole = (n_rows + n_rows / 4).max(n_all / 3);
    let is_shifted = maps.iter().all(|map| map.taps() > 1 && MapProducts::suits(map));
    if n_rows >= n_all || !is_shifted || 2 * n_whole > 3 * n_rows {
        return of_every_image;
    }
    let n_groups = n_whole.div_ceil(n_pixels * groups.lanes());
    (PixelSample::whole(n_pixels), n_groups.min(groups.len()))
}

/// The targets of all nodes from `first` on, from one run of the original network.
///
/// # Errors
/// As [`crate::NodeKernel::new`].
pub(crate) fn targets(
    pool: &rayon::ThreadPool,
    network: &Network,
    images: &ImageGroups,
    (first, wide): (NodeId, &BTreeSet<NodeId>),
    aim: RefitAim,
) -> Result<BTreeMap<NodeId, RefitTarget>, KernelError> {
    let graph = network.graph();
    let readers = graph.consumers();
    let (lanes, n_groups) = (images.lanes(), images.len());
    let scope = Scope { graph, readers: &readers, images, wide, aim };
    let nodes = first..graph.nodes().len();
    let with_target = nodes.filter_map(|node| Some((node, RefitTarget::of(&scope, node)?)));
    let mut targets: BTreeMap<NodeId, RefitTarget> = with_target.collect();
    let mut per_group: Vec<Vec<(NodeId, PixelSample, &mut [f32])>> = (0..n_groups).map(|_| Vec::new()).collect();
    for target in targets.values_mut() {
        let len = target.values.len() / target.n_groups;
        for (list, values) in per_group.iter_mut().zip(target.values.chunks_exact_mut(len.max(1))) {
            list.push((target.sum, target.sample, values));
        }
    }
    let segment = Segment::new(network, 1..graph.nodes().len())?;
    pool.install(|| {
        per_group.par_iter_mut().enumerate().try_for_each_init(SegmentBuffers::default, |buffers, (group, list)| {
            segment.run(buffers, &|_| images.group(group), |node, _, output| {
                for (_, sample, values) in list.iter_mut().filter(|(sum, ..)| *sum == node) {
                    let len = graph.shape(node).c * lanes;
                    for (pixel, to) in sample.pixels(group).zip(values.chunks_exact_mut(len)) {
                        to.copy_from_slice(&output[pixel * len..][..len]);
                    }
                }
            })
        })
    })?;
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Conv2d, GraphBuilder, Shape};

    /// Where a function is told apart from its limits on either side: by definition, sampled.
    #[test]
    fn a_function_hides_what_lies_beyond_its_range_and_nothing_within() {
        let narrow = [Pointwise::HardSigmoid { alpha: 0.25, beta: 0.5 }, Pointwise::Clip { min: 1.0, max: 1.0 }];
        let falling = Pointwise::HardSigmoid { alpha: -0.25, beta: 0.5 };
        for function in Pointwise::EACH.into_iter().chain(narrow).chain([falling]) {
            let Some([low, high]) = hidden_beyond(function) else { continue };
            let samples = (-400..400).map(|i| i as f32 / 32.0);
            let low_end = function.apply(-1e9);
            let high_end = function.apply(1e9);
            for x in samples {
                let hidden = x <= low && function.apply(x) == low_end || x >= high && function.apply(x) == high_end;
                assert_eq!(hidden, x <= low || x >= high, "{function:?}({x})");
                let next = function.apply(x + 1.0 / 32.0);
                let told_apart = function.apply(x) != next;
                assert!(told_apart || x + 1.0 / 32.0 <= low || x >= high, "{function:?}({x})");
            }
        }
        let hard = |alpha, beta| hidden_beyond(Pointwise::HardSigmoid { alpha, beta });
        assert_eq!(hard(0.25, 0.5), Some([-2.0, 2.0]));
        assert_eq!([hard(-0.25, 0.5), hard(0.0, 0.5), hard(1e-45, 0.5)], [None; 3]);
        assert_eq!(hidden_beyond(Pointwise::LeakyRelu { slope: 0.0 }), None);
    }

    fn maps(kernel: usize, stride: usize, size: usize) -> Vec<LinearMap> {
        let mut builder = GraphBuilder::new(Shape { c: 4, h: size, w: size });
        let node = builder.push("conv", Op::Conv2d(Conv2d::square(4, 4, kernel, stride, kernel / 2)), &[0]);
        LinearMap::of(&builder.finish().unwrap(), node)
    }

    #[test]
    fn all_pixels_of_some_images_replace_a_sample_of_all_images_where_that_is_less_work() {
        let groups = ImageGroups::new(&[0.0; 6000], 1, 16);
        let chosen = |kernel, stride, n_pixels, n_rows| {
            let (sample, n_groups) = choose_pixels(&maps(kernel, stride, 8), n_pixels, &groups, n_rows);
            (sample.per_image, n_groups)
        };
        assert_eq!(chosen(3, 1, 64, 100_000), (64, 128_000_usize.div_ceil(64 * 16)));
        assert_eq!(chosen(3, 1, 64, 300_000), (64, 375_000_usize.div_ceil(64 * 16)));
        assert_eq!(chosen(3, 1, 64, 384_000), (64, 375), "all there are");
        assert_eq!(
            chosen(3, 1, 64, 80_000),
            (80_000_usize.div_ceil(6000), 375),
            "a third would be far more than asked for"
        );
        assert_eq!(chosen(3, 2, 64, 100_000), (100_000_usize.div_ceil(6000), 375), "strides do not share products");
        assert_eq!(chosen(1, 1, 64, 100_000), (100_000_usize.div_ceil(6000), 375), "one tap has nothing to share");
    }
}
