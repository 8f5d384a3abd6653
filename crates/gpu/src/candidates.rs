//! Candidates of one network: the same topology, other widths.

use secateur_net::{ChannelGroups, Conv2d, ConvTranspose2d, Graph, KeptChannels, Network, NodeId, Op};

use crate::GpuError;

/// What is to be scored together. All candidates share the operations and how they are wired, and differ in widths and
/// weights.
///
/// # Example
/// ```
/// use secateur_gpu::Candidates;
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{ChannelGroups, KeptChannels, Protocol, Shape, arch};
///
/// let network = with_random_weights(arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?, 1);
/// let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
/// let kept = vec![KeptChannels::all(&groups); 3];
/// let candidates = Candidates::Masked { network: &network, groups: &groups, kept: &kept };
/// assert_eq!(candidates.len(), 3);
/// assert_eq!(Candidates::Repaired(&[&network]).len(), 1);
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Candidates<'a> {
    /// Compact networks, each with weights of its own (repaired, as a rule).
    Repaired(&'a [&'a Network]),
    /// One network's weights for all, and the channels that each keeps: only masks travel to the card.
    Masked {
        /// The network whose weights are shared.
        network: &'a Network,
        /// Its groups.
        groups: &'a ChannelGroups,
        /// What each candidate keeps.
        kept: &'a [KeptChannels],
    },
}

impl<'a> Candidates<'a> {
    /// Number of candidates.
    pub const fn len(&self) -> usize {
        match self {
            Self::Repaired(networks) => networks.len(),
            Self::Masked { kept, .. } => kept.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Self {
        match *self {
            Self::Repaired(networks) => Self::Repaired(&networks[range]),
            Self::Masked { network, groups, kept } => Self::Masked { network, groups, kept: &kept[range] },
        }
    }

    /// The topology; widths are the first candidate's or the shared network's. None without candidates.
    pub(crate) fn graph(&self) -> Option<&'a Graph> {
        match *self {
            Self::Repaired(networks) => networks.first().map(|n| n.graph()),
            Self::Masked { network, kept, .. } => (!kept.is_empty()).then(|| network.graph()),
        }
    }

    /// Widths of every candidate.
    ///
    /// # Errors
    /// The first node that differs in more than widths.
    pub(crate) fn widths(&self) -> Result<Vec<Widths>, GpuError> {
        match *self {
            Self::Repaired(networks) => {
                let all = networks.iter().enumerate();
                all.map(|(i, n)| same_topology(networks[0].graph(), n.graph(), i).map(|()| Widths::of(n.graph())))
                    .collect()
            }
            Self::Masked { network, groups, kept } => {
                Ok(kept.iter().map(|kept| Widths::kept(network.graph(), groups, kept)).collect())
            }
        }
    }
}

/// Numbers of channels of one candidate, by node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Channels of every node's output.
    pub channels: Vec<usize>,
    /// Channels in front (Pad), or left out in front (Slice, negative).
    pub shifts: Vec<i32>,
    /// Convolution groups; 1 for other nodes.
    pub groups: Vec<usize>,
}

impl Widths {
    fn of(graph: &Graph) -> Self {
        let nodes = graph.nodes();
        Self {
            channels: (0..nodes.len()).map(|id| graph.shape(id).c).collect(),
            shifts: nodes.iter().map(|n| shift(&n.op)).collect(),
            groups: nodes.iter().map(|n| if let Op::Conv2d(c) = &n.op { c.groups } else { 1 }).collect(),
        }
    }

    /// As surgery would make them; see `prune` of `secateur-net`.
    fn kept(graph: &Graph, groups: &ChannelGroups, kept: &KeptChannels) -> Self {
        let positions: Vec<Vec<usize>> = (0..graph.nodes().len()).map(|id| kept.positions(groups, id)).collect();
        let nodes = graph.nodes().iter().enumerate();
        let shifts = nodes.map(|(id, node)| match node.op {
            Op::Pad { channels: [front, _], .. } => positions[id].partition_point(|&p| p < front) as i32,
            Op::Slice { channels: [first, _], .. } => {
                -(positions[node.inputs[0]].partition_point(|&p| p < first) as i32)
            }
            Op::Input
            | Op::Conv2d(_)
            | Op::BatchNorm { .. }
            | Op::Linear { .. }
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
            | Op::Softmax
            | Op::Identity => 0,
        });
        let conv_groups = graph.nodes().iter().map(|node| match &node.op {
            Op::Conv2d(c) if c.is_depthwise() => positions[node.inputs[0]].len(),
            Op::Conv2d(c) => c.groups,
            Op::Input
            | Op::BatchNorm { .. }
            | Op::Linear { .. }
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
            | Op::Identity => 1,
        });
        Self {
            shifts: shifts.collect(),
            groups: conv_groups.collect(),
            channels: positions.iter().map(Vec::len).collect(),
        }
    }
}

const fn shift(op: &Op) -> i32 {
    match op {
        Op::Pad { channels: [front, _], .. } => *front as i32,
        Op::Slice { channels: [first, _], .. } => -(*first as i32),
        Op::Input
        | Op::Conv2d(_)
        | Op::BatchNorm { .. }
        | Op::Linear { .. }
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
        | Op::Softmax
        | Op::Identity => 0,
    }
}

fn same_topology(first: &Graph, other: &Graph, candidate: usize) -> Result<(), GpuError> {
    let alike = |id: NodeId| {
        let (Some(a), Some(b)) = (first.nodes().get(id), other.nodes().get(id)) else { return false };
        let size = |graph: &Graph| (graph.shape(id).h, graph.shape(id).w);
        a.inputs == b.inputs && size(first) == size(other) && skeleton(&a.op) == skeleton(&b.op)
    };
    let describe = |graph: &Graph, id: NodeId| {
        graph.nodes().get(id).map_or_else(
            || "no node".to_owned(),
            |n| format!("{:?} of {:?} to {}x{}", skeleton(&n.op), n.inputs, graph.shape(id).h, graph.shape(id).w),
        )
    };
    let n = first.nodes().len().max(other.nodes().len());
    let Some(id) = (0..n).find(|&id| !alike(id)) else { return Ok(()) };
    let node = first.nodes().get(id).or_else(|| other.nodes().get(id)).map_or("", |n| &n.name).to_owned();
    Err(GpuError::Topology { candidate, node, expected: describe(first, id), got: describe(other, id) })
}

/// The operation without its numbers of channels.
fn skeleton(op: &Op) -> Op {
    match op {
        Op::Conv2d(c) => Op::Conv2d(Conv2d { in_channels: 0, out_channels: 0, groups: 0, bias: false, ..c.clone() }),
        Op::BatchNorm { .. } => Op::BatchNorm { channels: 0, eps: 0.0 },
        Op::PRelu { .. } => Op::PRelu { channels: 0 },
        Op::LayerNorm { .. } => Op::LayerNorm { channels: 0, eps: 0.0 },
        Op::ConvTranspose2d(c) => Op::ConvTranspose2d(ConvTranspose2d {
            in_channels: 0,
            out_channels: 0,
            groups: 0,
            bias: false,
            ..c.clone()
        }),
        Op::GroupNorm { .. } => Op::GroupNorm { channels: 0, groups: 0, eps: 0.0 },
        Op::Linear { .. } => Op::Linear { in_features: 0, out_features: 0, bias: false },
        Op::Pad { rows, cols, .. } => Op::Pad { channels: [0; 2], rows: *rows, cols: *cols },
        Op::Slice { step, .. } => Op::Slice { channels: [0; 2], step: *step },
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
        | Op::ChannelConv { .. }
        | Op::LocalResponseNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::Softmax
        | Op::Identity => op.clone(),
    }
}

/// Most rows and columns of a dense kernel: one bit each says whether it lies inside the image.
const KERNEL_MAX: usize = 16;

/// How a node with weights is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// Every output reads every input, through a kernel of at most 16 rows and columns.
    Dense,
    /// One filter per channel; BatchNorm too.
    Depthwise,
    /// Groups, as many in every candidate.
    Grouped(usize),
    /// Several filters per channel.
    Multiplied,
    /// One slope per channel: PRelu.
    Slopes,
}

/// The kind of a node, the same for all candidates: by its shape alone, a grouped convolution with one input left per
/// group cannot be told from a depthwise one, nor a depthwise one with one channel left from a dense one.
///
/// # Errors
/// Numbers of groups that differ although the convolution is not depthwise.
pub(crate) fn layer_kind(graph: &Graph, node: NodeId, widths: &[Widths]) -> Result<LayerKind, GpuError> {
    if matches!(graph.node(node).op, Op::BatchNorm { .. }) {
        return Ok(LayerKind::Depthwise);
    }
    if matches!(graph.node(node).op, Op::PRelu { .. }) {
        return Ok(LayerKind::Slopes);
    }
    let input = graph.node(node).inputs[0];
    let groups = widths[0].groups[node];
    if widths.iter().all(|w| w.groups[node] == 1) {
        let is_large = matches!(&graph.node(node).op, Op::Conv2d(c) if c.kernel.iter().any(|&k| k > KERNEL_MAX));
        return Ok(if is_large { LayerKind::Grouped(1) } else { LayerKind::Dense });
    }
    if widths.iter().all(|w| w.groups[node] == w.channels[input]) {
        let one_each = widths.iter().all(|w| w.channels[node] == w.channels[input]);
        return Ok(if one_each { LayerKind::Depthwise } else { LayerKind::Multiplied });
    }
    match widths.iter().position(|w| w.groups[node] != groups) {
        None => Ok(LayerKind::Grouped(groups)),
        Some(candidate) => Err(GpuError::Topology {
            candidate,
            node: graph.node(node).name.clone(),
            expected: format!("{groups} groups"),
            got: format!("{} groups", widths[candidate].groups[node]),
        }),
    }
}
