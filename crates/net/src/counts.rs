//! Exact integer costs as functions of the group widths.

mod live;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{ChannelGroups, Graph, GraphTail, GroupId, NodeId, Op};

/// A cost with an upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// Multiply-accumulates per image of convolutions and Linear nodes (the papers' "FLOPs").
    Macs,
    /// Weights, biases, slopes of PRelu, and scales and shifts of norms (running statistics do not count).
    Params,
    /// Peak bytes of live f32 activations of one image, in graph order, the input included, BatchNorm, PRelu and
    /// pointwise in place.
    ActivationBytes,
}

impl Cost {
    /// Name as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Macs => "macs",
            Self::Params => "params",
            Self::ActivationBytes => "activation_bytes",
        }
    }
}

/// Counts of one network as functions of the widths of its groups. All three are monotone in every width, which the
/// budget wall relies on.
///
/// # Example
/// ```
/// use secateur_net::{ChannelGroups, Cost, CostModel, Protocol, Shape, arch};
///
/// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// let groups = ChannelGroups::derive(&graph, Protocol::Inner);
/// let model = CostModel::new(&graph, &groups);
/// let mut widths = groups.full_widths();
/// assert_eq!(model.count(Cost::Macs, &widths), 40_551_040);
/// assert_eq!(model.count(Cost::Params, &widths), 269_722);
/// // One channel fewer: 3x3 filters over 32x32 pixels, 16 of them that read it and one that makes it.
/// widths[groups.prunable()[0]] -= 1;
/// assert_eq!(model.count(Cost::Macs, &widths), 40_551_040 - 2 * 16 * 9 * 32 * 32);
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CostModel {
    nodes: Vec<NodeCost>,
    /// Multiply-accumulates: counted at every decision, many times over.
    products: Vec<Product>,
    /// Sums of widths that the products are made of, one after the other: (group, positions per channel).
    sums: Vec<(GroupId, usize)>,
    /// What follows the graph.
    tail: GraphTail,
}

/// Multiply-accumulates of one node: `out * (input / divisor) * factor`.
#[derive(Clone, Debug)]
struct Product {
    /// Output channels, as a range of `sums`.
    out: Range<usize>,
    /// Input channels; none for depthwise convolutions, whose filters have one input channel.
    input: Option<Range<usize>>,
    /// Groups of a convolution.
    divisor: u64,
    /// Kernel elements times output pixels.
    factor: u64,
}

#[derive(Clone, Debug)]
struct NodeCost {
    op: Op,
    inputs: Vec<NodeId>,
    /// Output channels as a sum of widths: (group, positions per channel).
    channels: Vec<(GroupId, usize)>,
    pixels: u64,
    last_reader: NodeId,
}

impl CostModel {
    /// Prepares the counts of `graph` for `groups` derived from it.
    pub fn new(graph: &Graph, groups: &ChannelGroups) -> Self {
        let consumers = graph.consumers();
        let nodes = graph.nodes().iter().enumerate().map(|(id, node)| {
            let mut counts = std::collections::BTreeMap::new();
            for slot in groups.axis(id) {
                *counts.entry(slot.group).or_insert(0) += 1;
            }
            let channels = counts.into_iter().map(|(g, n)| (g, n / groups.group(g).n_channels)).collect();
            let shape = graph.shape(id);
            NodeCost {
                op: node.op.clone(),
                inputs: node.inputs.clone(),
                channels,
                pixels: (shape.h * shape.w) as u64,
                last_reader: consumers[id].iter().copied().max().unwrap_or(usize::MAX),
            }
        });
        let mut model = Self { nodes: nodes.collect(), products: Vec::new(), sums: Vec::new(), tail: graph.tail() };
        (0..model.nodes.len()).for_each(|id| model.add_product(id));
        model
    }

    /// Prepares the multiply-accumulates of a node, if it has any.
    fn add_product(&mut self, node: NodeId) {
        let Self { nodes, products, sums, .. } = self;
        let mut sum = |node: NodeId| {
            let start = sums.len();
            sums.extend(&nodes[node].channels);
            start..sums.len()
        };
        let NodeCost { op, inputs, pixels, .. } = &nodes[node];
        let product = match op {
            Op::Conv2d(c) => Product {
                out: sum(node),
                input: (!c.is_depthwise()).then(|| sum(inputs[0])),
                divisor: c.groups as u64,
                factor: (c.kernel[0] * c.kernel[1]) as u64 * pixels,
            },
            Op::Linear { .. } => Product { out: sum(node), input: Some(sum(inputs[0])), divisor: 1, factor: *pixels },
            Op::ConvTranspose2d(c) => {
                let pixels = nodes[inputs[0]].pixels;
                Product {
                    out: sum(node),
                    input: (!c.is_depthwise()).then(|| sum(inputs[0])),
                    divisor: c.groups as u64,
                    factor: (c.kernel[0] * c.kernel[1]) as u64 * pixels,
                }
            }
            Op::ChannelConv { taps, .. } => {
                Product { out: sum(node), input: None, divisor: 1, factor: *taps as u64 * pixels }
            }
            Op::Input
            | Op::BatchNorm { .. }
            | Op::PRelu { .. }
            | Op::Pointwise(_)
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
            | Op::Identity => return,
        };
        products.push(product);
    }

    fn macs(&self, widths: &[usize]) -> u64 {
        let sum = |range: &Range<usize>| self.sums[range.clone()].iter().map(|&(g, n)| (widths[g] * n) as u64).sum();
        let macs = |p: &Product| {
            let (out, input): (u64, u64) = (sum(&p.out), p.input.as_ref().map_or(p.divisor, sum));
            // Most have a divisor of 1, and a division costs more than all the rest.
            let per_filter = if p.divisor == 1 { input } else { input / p.divisor };
            out * per_filter * p.factor
        };
        self.products.iter().map(macs).sum::<u64>() + self.tail.macs
    }

    /// The cost of the network with `widths[g]` channels in group `g`, its tail included.
    pub fn count(&self, cost: Cost, widths: &[usize]) -> u64 {
        match cost {
            Cost::Macs => self.macs(widths),
            Cost::Params => (0..self.nodes.len()).map(|i| self.node_params(i, widths)).sum::<u64>() + self.tail.params,
            Cost::ActivationBytes => self.activation_bytes(widths),
        }
    }

    fn channels(&self, node: NodeId, widths: &[usize]) -> u64 {
        self.nodes[node].channels.iter().map(|&(g, n)| (widths[g] * n) as u64).sum()
    }

    /// Multiply-accumulates of one node per image.
    pub fn node_macs(&self, node: NodeId, widths: &[usize]) -> u64 {
        let n = &self.nodes[node];
        match n.op {
            Op::Conv2d(_) | Op::Linear { .. } => self.weight_elements(node, widths) * n.pixels,
            Op::ConvTranspose2d(_) => self.weight_elements(node, widths) * self.nodes[n.inputs[0]].pixels,
            Op::ChannelConv { taps, .. } => self.channels(node, widths) * taps as u64 * n.pixels,
            Op::Input
            | Op::BatchNorm { .. }
            | Op::PRelu { .. }
            | Op::Pointwise(_)
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
            | Op::Identity => 0,
        }
    }

    /// Parameters of one node.
    pub fn node_params(&self, node: NodeId, widths: &[usize]) -> u64 {
        let out = self.channels(node, widths);
        match &self.nodes[node].op {
            Op::Conv2d(c) => self.weight_elements(node, widths) + if c.bias { out } else { 0 },
            Op::Linear { bias, .. } => self.weight_elements(node, widths) + if *bias { out } else { 0 },
            Op::ConvTranspose2d(c) => self.weight_elements(node, widths) + if c.bias { out } else { 0 },
            Op::ChannelConv { taps, bias, .. } => *taps as u64 + u64::from(*bias),
            Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::GroupNorm { .. } => 2 * out,
            Op::PRelu { .. } => out,
            Op::Input
            | Op::Pointwise(_)
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
            | Op::GlobalMaxPool
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
            | Op::Identity => 0,
        }
    }

    fn weight_elements(&self, node: NodeId, widths: &[usize]) -> u64 {
        let n = &self.nodes[node];
        let (input, out) = (self.channels(n.inputs[0], widths), self.channels(node, widths));
        match &n.op {
            Op::Conv2d(c) => {
                let per_filter = if c.is_depthwise() { 1 } else { input / c.groups as u64 };
                out * per_filter * (c.kernel[0] * c.kernel[1]) as u64
            }
            Op::ConvTranspose2d(c) => {
                let per_input = if c.is_depthwise() { 1 } else { out / c.groups as u64 };
                input * per_input * (c.kernel[0] * c.kernel[1]) as u64
            }
            Op::Linear { .. } => input * out,
            Op::Input
            | Op::BatchNorm { .. }
            | Op::PRelu { .. }
            | Op::Pointwise(_)
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
            | Op::Identity => 0,
        }
    }

    fn activation_bytes(&self, widths: &[usize]) -> u64 {
        let bytes = |node: NodeId| 4 * self.channels(node, widths) * self.nodes[node].pixels;
        let mut live = bytes(0);
        let mut peak = live;
        for id in 1..self.nodes.len() {
            if self.is_in_place(id) {
                continue;
            }
            live += bytes(id);
            peak = peak.max(live);
            live -= self.freed_by(id).into_iter().map(bytes).sum::<u64>();
        }
        peak
    }

    /// Whether a node writes over its input.
    fn is_in_place(&self, node: NodeId) -> bool {
        let NodeCost { op, inputs, .. } = &self.nodes[node];
        let keeps_place = matches!(op, Op::BatchNorm { .. } | Op::PRelu { .. } | Op::Pointwise(_) | Op::Identity);
        keeps_place && self.nodes[inputs[0]].last_reader == node
    }

    /// The tensors whose memory is free behind a node, each once.
    fn freed_by(&self, node: NodeId) -> Vec<NodeId> {
        let mut read: Vec<NodeId> = self.nodes[node].inputs.clone();
        read.sort_unstable();
        read.dedup();
        read.retain(|&input| self.frees(input, node));
        read
    }

    /// Whether the memory of `tensor` is free after `reader`. An in-place node hands its memory on, so what counts is
    /// the last reader of the last tensor in that memory, which is `tensor` itself: the earlier ones were skipped.
    fn frees(&self, tensor: NodeId, reader: NodeId) -> bool {
        self.nodes[tensor].last_reader == reader
    }
}
