//! Removing channels: a smaller graph and its weights.

use std::hash::{Hash, Hasher};

use crate::{ChannelGroups, Conv2d, ConvTranspose2d, Graph, NetError, Network, Node, NodeId, Op, Tensor, Weights};

/// Kept channels of every group, each list ascending: `[group][i]`.
///
/// # Example
/// ```
/// use secateur_net::{ChannelGroups, KeptChannels, Protocol, Shape, arch};
///
/// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// let groups = ChannelGroups::derive(&graph, Protocol::Inner);
/// let group = groups.prunable()[0];
/// let mut lists = KeptChannels::all(&groups).lists().to_vec();
/// lists[group] = vec![0, 3, 5];
/// assert_eq!(KeptChannels::new(&groups, lists.clone())?.widths()[group], 3);
/// // Lists are checked: in order, in range, not empty, whole where a group is frozen.
/// lists[group] = vec![5, 3];
/// assert!(KeptChannels::new(&groups, lists).is_err());
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptChannels(Vec<Vec<usize>>);

/// One word per group goes to the hasher: scores are looked up by kept channels, and hashing every index would cost
/// more than all the rest of it.
impl Hash for KeptChannels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for list in &self.0 {
            let mix = |word: u64, &channel: &usize| {
                (word.rotate_left(7) ^ channel as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            };
            state.write_u64(list.iter().fold(list.len() as u64, mix));
        }
    }
}

impl KeptChannels {
    /// Everything kept.
    pub fn all(groups: &ChannelGroups) -> Self {
        Self(groups.groups().iter().map(|g| (0..g.n_channels).collect()).collect())
    }
    /// Checks one list per group: ascending, in range, not empty, and whole for frozen groups.
    ///
    /// # Errors
    /// The first group whose list breaks a rule.
    pub fn new(groups: &ChannelGroups, kept: Vec<Vec<usize>>) -> Result<Self, NetError> {
        let fail = |group: &str, problem: String| NetError::KeptSet { group: group.into(), problem };
        if kept.len() != groups.groups().len() {
            return Err(fail("all", format!("expected {} kept sets, got {}", groups.groups().len(), kept.len())));
        }
        for (group, list) in groups.groups().iter().zip(&kept) {
            if list.is_empty() || list.windows(2).any(|w| w[0] >= w[1]) {
                return Err(fail(&group.name, format!("kept channels must be ascending and not empty, got {list:?}")));
            }
            if list[list.len() - 1] >= group.n_channels {
                return Err(fail(&group.name, format!("has {} channels, asked to keep {list:?}", group.n_channels)));
            }
            if let (Some(reason), true) = (&group.frozen, list.len() < group.n_channels) {
                return Err(fail(&group.name, format!("is frozen ({reason})")));
            }
        }
        Ok(Self(kept))
    }
    /// Kept channels of one group.
    pub fn group(&self, group: usize) -> &[usize] {
        &self.0[group]
    }
    /// Replaces the kept channels of one group by a list the caller knows to be ascending, in range and not empty.
    pub fn set(&mut self, group: usize, kept: Vec<usize>) {
        debug_assert!(!kept.is_empty() && kept.windows(2).all(|w| w[0] < w[1]));
        self.0[group] = kept;
    }
    /// Number kept in each group.
    pub fn widths(&self) -> Vec<usize> {
        self.0.iter().map(Vec::len).collect()
    }
    /// The lists themselves.
    pub fn lists(&self) -> &[Vec<usize>] {
        &self.0
    }
    /// Positions of `node`'s output that stay, ascending.
    pub fn positions(&self, groups: &ChannelGroups, node: NodeId) -> Vec<usize> {
        let axis = groups.axis(node);
        (0..axis.len()).filter(|&p| self.0[axis[p].group].binary_search(&axis[p].channel).is_ok()).collect()
    }
}

/// The network with only the `kept` channels: no weight is changed, only left out.
///
/// # Errors
/// When the kept sets do not belong to this network's groups.
pub fn prune(network: &Network, groups: &ChannelGroups, kept: &KeptChannels) -> Result<Network, NetError> {
    let graph = network.graph();
    let positions: Vec<Vec<usize>> = (0..graph.nodes().len()).map(|id| kept.positions(groups, id)).collect();
    let nodes = graph.nodes().iter().enumerate();
    let nodes: Vec<Node> =
        nodes.map(|(id, node)| Node { op: prune_op(node, id, &positions), ..node.clone() }).collect();
    let mut weights = Weights::new();
    for (id, node) in graph.nodes().iter().enumerate() {
        for (parameter, _) in crate::parameter_shapes(&node.op) {
            let tensor = network.parameter(&node.name, parameter);
            let sliced = match &node.op {
                Op::Conv2d(c) if parameter == "weight" => {
                    slice_weight(tensor, &positions[id], &filter_inputs(c, &positions[node.inputs[0]]))
                }
                Op::Linear { .. } if parameter == "weight" => {
                    slice_weight(tensor, &positions[id], &positions[node.inputs[0]])
                }
                Op::ConvTranspose2d(c) if parameter == "weight" => {
                    slice_weight(tensor, &positions[node.inputs[0]], &transposed_outputs(c, &positions[id]))
                }
                // The same for all channels.
                Op::ChannelConv { .. } => Ok(tensor.clone()),
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
                | Op::Identity => slice_vector(tensor, &positions[id]),
            };
            weights.insert(format!("{}.{parameter}", node.name), sliced?);
        }
    }
    Network::new(Graph::new(graph.input(), nodes)?.with_tail(graph.tail()), weights)
}

fn prune_op(node: &Node, id: NodeId, positions: &[Vec<usize>]) -> Op {
    let out = positions[id].len();
    let input = node.inputs.first().map_or(&[][..], |&i| &positions[i]);
    match &node.op {
        Op::Conv2d(c) => Op::Conv2d(Conv2d {
            in_channels: input.len(),
            out_channels: out,
            groups: if c.is_depthwise() { input.len() } else { c.groups },
            ..c.clone()
        }),
        Op::BatchNorm { eps, .. } => Op::BatchNorm { channels: out, eps: *eps },
        Op::PRelu { .. } => Op::PRelu { channels: out },
        Op::LayerNorm { eps, .. } => Op::LayerNorm { channels: out, eps: *eps },
        Op::ConvTranspose2d(c) => Op::ConvTranspose2d(ConvTranspose2d {
            in_channels: input.len(),
            out_channels: out,
            groups: if c.is_depthwise() { out } else { c.groups },
            ..c.clone()
        }),
        // Only instance norms lose channels, which have a group each.
        Op::GroupNorm { channels, groups, eps } => {
            Op::GroupNorm { channels: out, groups: if groups == channels { out } else { *groups }, eps: *eps }
        }
        Op::Linear { bias, .. } => Op::Linear { in_features: input.len(), out_features: out, bias: *bias },
        Op::Pad { channels: [front, _], rows, cols } => {
            let kept_front = positions[id].partition_point(|&p| p < *front);
            Op::Pad { channels: [kept_front, out - kept_front - input.len()], rows: *rows, cols: *cols }
        }
        Op::Slice { channels: [from, _], step } => {
            let kept_from = input.partition_point(|&p| p < *from);
            Op::Slice { channels: [kept_from, kept_from + out], step: *step }
        }
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
        | Op::Identity => node.op.clone(),
    }
}

/// Input positions within one conv group that each filter keeps (the same in every conv group; one for depthwise).
pub fn filter_inputs(conv: &Conv2d, input_kept: &[usize]) -> Vec<usize> {
    if conv.is_depthwise() {
        return vec![0];
    }
    let per_group = conv.in_channels / conv.groups;
    input_kept.iter().copied().take_while(|&p| p < per_group).collect()
}

/// Output positions within one conv group that each input of a transposed convolution keeps (the same in every conv
/// group; one for depthwise).
fn transposed_outputs(conv: &ConvTranspose2d, kept: &[usize]) -> Vec<usize> {
    let per_group = conv.out_channels / conv.groups;
    if conv.is_depthwise() { vec![0] } else { kept.iter().copied().take_while(|&p| p < per_group).collect() }
}

/// Rows `out` and columns `input` of a weight `[out, in, ...]`.
///
/// # Errors
/// Never for positions within the tensor.
pub fn slice_weight(weight: &Tensor, out: &[usize], input: &[usize]) -> Result<Tensor, NetError> {
    let tap: usize = weight.shape()[2..].iter().product();
    let n_in = weight.shape()[1];
    let mut data = Vec::with_capacity(out.len() * input.len() * tap);
    for &o in out {
        for &i in input {
            data.extend_from_slice(&weight.data()[(o * n_in + i) * tap..][..tap]);
        }
    }
    let mut shape = weight.shape().to_vec();
    (shape[0], shape[1]) = (out.len(), input.len());
    Tensor::new(shape, data)
}

fn slice_vector(vector: &Tensor, kept: &[usize]) -> Result<Tensor, NetError> {
    Tensor::new(vec![kept.len()], kept.iter().map(|&p| vector.data()[p]).collect())
}
