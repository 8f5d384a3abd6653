//! Channel groups: which channels must be removed together, derived by following channel axes through the graph.
//!
//! Every channel position of every tensor gets a label; operations copy labels (BatchNorm, pooling, padding, …), repeat
//! them (Flatten), join them (Add, depthwise and grouped convolutions) or start new ones (convolution, Linear). A
//! *channel* of the pruning problem is a class of joined labels; channels with the same footprint (the same number of
//! positions in the same tensors) form a group, and any subset of a group may be removed.

mod footprints;
mod frozen;
mod labels;
mod maps;
mod splits;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use footprints::Footprints;
use frozen::Frozen;
use labels::{AxisLabels, Labels};
use maps::{frozen, join_conv_groups};
use serde::{Deserialize, Serialize};

use crate::{Graph, NodeId, Op};

/// Which groups may be pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Channels inside each residual block; the streams that Add nodes join stay whole. The published protocol.
    #[default]
    Inner,
    /// Residual streams too.
    Full,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 2] = [Self::Inner, Self::Full];

    /// As reports and the command line name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inner => "inner",
            Self::Full => "full",
        }
    }
}

/// Peak of [`ChannelGroups::derive`] per channel of every node's output: its label and what is known of it (26), its
/// place in its tensor and in its group (4 + 16), its class's footprint (8), the same once more while lists grow and
/// groups are told apart.
const BYTES_PER_POSITION: u64 = 96;
/// Beside that, per node: lists of readers, a group's names and lists.
const BYTES_PER_NODE: u64 = 1024;

/// Index into [`ChannelGroups::groups`].
pub type GroupId = usize;

/// Where one channel position of a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupChannel {
    /// The group.
    pub group: GroupId,
    /// The channel within the group.
    pub channel: usize,
}

/// Channels that share a footprint and are removed one by one, each everywhere at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelGroup {
    /// Name of the first node that produces it.
    pub name: String,
    /// Channels in the unpruned network.
    pub n_channels: usize,
    /// Why it may not be pruned.
    pub frozen: Option<String>,
    /// Convolutions (transposed ones too) and Linear nodes whose output filters belong to the group, in graph order.
    pub producers: Vec<NodeId>,
    /// Dense, grouped and transposed convolutions and Linear nodes that read it, in graph order (depthwise convolutions
    /// pass it on).
    pub consumers: Vec<NodeId>,
}

/// All groups of a graph, in graph order of their first producer, and the channel axis of every tensor.
///
/// # Example
/// ```
/// use secateur_net::{ChannelGroups, Protocol, Shape, arch};
///
/// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// let groups = ChannelGroups::derive(&graph, Protocol::Inner);
/// // One group inside each of the nine residual blocks; the streams between blocks stay whole.
/// assert_eq!(groups.prunable().len(), 9);
/// let first = groups.group(groups.prunable()[0]);
/// assert_eq!((first.n_channels, first.consumers.len()), (16, 1));
/// let frozen = groups.groups().iter().find_map(|group| group.frozen.as_deref());
/// assert_eq!(frozen, Some("network input"));
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelGroups {
    groups: Vec<ChannelGroup>,
    /// Shared by tensors with the same channels in the same places.
    axes: Vec<Arc<[GroupChannel]>>,
}

impl ChannelGroups {
    /// Derives the groups of `graph` under `protocol`. Where channels are taken apart into equal parts, the same
    /// channel
    /// of each part goes together, so that the parts stay equal: code that takes halves (`chunk` in PyTorch) computes
    /// the pruned network, too. Time and memory grow with [`ChannelGroups::bytes_to_derive`].
    ///
    /// # Panics
    /// When those bytes are beyond 2^38, hundreds of GiB: a graph can declare that many channels in a few hundred
    /// bytes.
    pub fn derive(graph: &Graph, protocol: Protocol) -> Self {
        Self::derived(graph, protocol, true)
    }
    /// As [`ChannelGroups::derive`], but parts may become unequal.
    ///
    /// # Panics
    /// As there.
    pub fn derive_with_free_parts(graph: &Graph, protocol: Protocol) -> Self {
        Self::derived(graph, protocol, false)
    }
    fn derived(graph: &Graph, protocol: Protocol, keeps_parts_equal: bool) -> Self {
        assert!(Self::bytes_to_derive(graph) < 1 << 38, "positions are counted in 32 bits");
        let mut labels = Labels::default();
        let tensors = follow(graph, &mut labels, protocol);
        if keeps_parts_equal {
            splits::join_equal_parts(graph, &mut labels, &tensors);
        }
        group(graph, labels, &tensors)
    }
    /// Bytes that [`ChannelGroups::derive`] takes for `graph` at its peak, at most: channels without weights cost no
    /// byte of a file.
    pub fn bytes_to_derive(graph: &Graph) -> u64 {
        let n_positions: u64 = (0..graph.nodes().len()).map(|id| graph.shape(id).c as u64).sum();
        n_positions * BYTES_PER_POSITION + graph.nodes().len() as u64 * BYTES_PER_NODE
    }
    /// All groups, frozen ones included.
    pub fn groups(&self) -> &[ChannelGroup] {
        &self.groups
    }
    /// Group by index.
    pub fn group(&self, id: GroupId) -> &ChannelGroup {
        &self.groups[id]
    }
    /// Groups that may be pruned, in walk order.
    pub fn prunable(&self) -> Vec<GroupId> {
        (0..self.groups.len()).filter(|&g| self.groups[g].frozen.is_none()).collect()
    }
    /// The channel axis of a node's output: one slot per position.
    pub fn axis(&self, node: NodeId) -> &[GroupChannel] {
        &self.axes[node]
    }
    /// Widths of the unpruned network, one per group.
    pub fn full_widths(&self) -> Vec<usize> {
        self.groups.iter().map(|g| g.n_channels).collect()
    }
    /// Positions of every channel of `group` on the axis of `node`'s output: `[channel][occurrence]`.
    pub fn positions(&self, node: NodeId, group: GroupId) -> Vec<Vec<usize>> {
        let mut out = vec![Vec::new(); self.groups[group].n_channels];
        for (position, slot) in self.axes[node].iter().enumerate() {
            if slot.group == group {
                out[slot.channel].push(position);
            }
        }
        out
    }
}

/// Labels of every channel position of every node's output.
fn follow(graph: &Graph, labels: &mut Labels, protocol: Protocol) -> Vec<AxisLabels> {
    let mut tensors: Vec<AxisLabels> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes().iter().enumerate() {
        let input = |i: usize| -> &AxisLabels { &tensors[node.inputs[i]] };
        let out: AxisLabels = match &node.op {
            Op::Input => {
                let all = labels.fresh(graph.shape(id).c, true);
                labels.freeze(all.clone(), Frozen::Input);
                all.collect()
            }
            Op::Conv2d(c) if c.is_depthwise() => {
                let multiplier = c.out_channels / c.in_channels;
                (0..c.out_channels).map(|o| input(0)[o / multiplier]).collect()
            }
            Op::Conv2d(c) => {
                let out: AxisLabels = labels.fresh(c.out_channels, true).collect();
                join_conv_groups(labels, input(0), c.groups);
                join_conv_groups(labels, &out, c.groups);
                out
            }
            Op::Linear { out_features, .. } => labels.fresh(*out_features, true).collect(),
            Op::Add => {
                let inputs: Vec<&AxisLabels> = node.inputs.iter().map(|&i| &tensors[i]).collect();
                let out = maps::broadcast(labels, &inputs, graph.shape(id).c);
                if protocol == Protocol::Inner {
                    labels.freeze(out.iter().copied(), Frozen::Stream);
                }
                out
            }
            Op::Mul | Op::Max | Op::Min => {
                let inputs: Vec<&AxisLabels> = node.inputs.iter().map(|&i| &tensors[i]).collect();
                maps::broadcast(labels, &inputs, graph.shape(id).c)
            }
            Op::FlattenPixels => {
                let pixels = graph.shape(node.inputs[0]);
                maps::flatten_pixels(input(0), pixels.h * pixels.w)
            }
            Op::ChannelShuffle { groups } => maps::shuffle(labels, input(0), *groups),
            &Op::DepthToSpace { block, columns_rows_depth } => {
                maps::depth_to_space(labels, input(0), block * block, columns_rows_depth)
            }
            Op::LayerNorm { .. } => frozen(labels, input(0), Frozen::LayerNorm),
            // An instance norm keeps channels apart.
            Op::GroupNorm { channels, groups, .. } if groups < channels => frozen(labels, input(0), Frozen::GroupNorm),
            Op::LocalResponseNorm { .. } => frozen(labels, input(0), Frozen::LocalResponseNorm),
            Op::ChannelConv { .. } => frozen(labels, input(0), Frozen::ChannelConv),
            Op::ChannelMean | Op::ChannelMax => {
                frozen(labels, input(0), Frozen::ChannelReduction);
                let out: AxisLabels = labels.fresh(1, true).collect();
                frozen(labels, &out, Frozen::ChannelReduction)
            }
            Op::BranchSum { branches } => {
                join_conv_groups(labels, input(0), *branches);
                input(0)[..input(0).len() / branches].into()
            }
            Op::BranchSoftmax { branches } => {
                join_conv_groups(labels, input(0), *branches);
                input(0).clone()
            }
            Op::ConvTranspose2d(c) if c.is_depthwise() => input(0).clone(),
            Op::ConvTranspose2d(c) => {
                let out: AxisLabels = labels.fresh(c.out_channels, true).collect();
                join_conv_groups(labels, input(0), c.groups);
                join_conv_groups(labels, &out, c.groups);
                out
            }
            Op::Concat => {
                let mut out = Vec::with_capacity(graph.shape(id).c);
                (0..node.inputs.len()).for_each(|i| out.extend_from_slice(input(i)));
                out.into()
            }
            Op::Flatten => {
                let pixels = graph.shape(node.inputs[0]);
                let mut out = Vec::with_capacity(graph.shape(id).c);
                input(0).iter().for_each(|&l| out.extend(std::iter::repeat_n(l, pixels.h * pixels.w)));
                out.into()
            }
            Op::Pad { channels: [0, 0], .. } => input(0).clone(),
            Op::Pad { channels: [front, behind], .. } => {
                let mut out = Vec::with_capacity(graph.shape(id).c);
                out.extend(labels.fresh(*front, false));
                out.extend_from_slice(input(0));
                out.extend(labels.fresh(*behind, false));
                out.into()
            }
            Op::Slice { channels: [from, to], .. } => input(0)[*from..*to].into(),
            Op::Softmax => frozen(labels, input(0), Frozen::Softmax),
            Op::BatchNorm { .. }
            | Op::PRelu { .. }
            | Op::Pointwise(_)
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::GlobalMaxPool
            | Op::GroupNorm { .. }
            | Op::Resize { .. }
            | Op::Identity => input(0).clone(),
        };
        tensors.push(out);
    }
    labels.freeze(tensors[graph.output()].iter().copied(), Frozen::Output);
    tensors
}

/// What the channels of a group have in common: footprint, and why they may not be removed.
type ClassKey<'a> = (&'a [(u32, u32)], Option<Frozen>);

fn group(graph: &Graph, labels: Labels, tensors: &[AxisLabels]) -> ChannelGroups {
    let (roots, frozen) = labels.into_roots();
    let footprints = Footprints::new(&roots, tensors);
    let readers = graph.consumers();
    let mut groups: Vec<ChannelGroup> = Vec::new();
    let mut known: HashMap<ClassKey<'_>, GroupId> = HashMap::new();
    let mut slots = vec![GroupChannel { group: 0, channel: 0 }; roots.len()];
    for root in (0..roots.len()).filter(|&label| roots[label] as usize == label) {
        let footprint = footprints.of(root);
        let id = *known.entry((footprint, frozen[root])).or_insert(groups.len());
        if id == groups.len() {
            groups.push(describe(graph, &readers, footprint, frozen[root]));
        }
        slots[root] = GroupChannel { group: id, channel: groups[id].n_channels };
        groups[id].n_channels += 1;
    }
    drop(known);
    drop(footprints);
    let place = sort_by_first_producer(&mut groups);
    slots.iter_mut().for_each(|slot| slot.group = place[slot.group]);
    let mut axes: Vec<Arc<[GroupChannel]>> = Vec::with_capacity(tensors.len());
    for (node, axis) in graph.nodes().iter().zip(tensors) {
        let shared = node.inputs.first().filter(|&&input| Rc::ptr_eq(axis, &tensors[input]));
        let slot = |&label: &u32| slots[roots[label as usize] as usize];
        axes.push(shared.map_or_else(|| axis.iter().map(slot).collect(), |&input| axes[input].clone()));
    }
    ChannelGroups { groups, axes }
}

/// A group without its channel count, from the footprint of its channels; `readers` are every node's.
fn describe(graph: &Graph, readers: &[Vec<NodeId>], footprint: &[(u32, u32)], frozen: Option<Frozen>) -> ChannelGroup {
    let makes_channels = |node: &NodeId| {
        let op = &graph.node(*node).op;
        let is_transposed = matches!(op, Op::ConvTranspose2d(conv) if !conv.is_depthwise());
        is_transposed || op.as_conv2d().is_some_and(|conv| !conv.is_depthwise())
    };
    let touched = || footprint.iter().map(|&(node, _)| node as NodeId);
    let producers: Vec<NodeId> = touched().filter(makes_channels).collect();
    let mut consumers: Vec<NodeId> =
        touched().flat_map(|node| readers[node].iter().copied()).filter(makes_channels).collect();
    consumers.sort_unstable();
    consumers.dedup();
    let first = producers.first().copied().or_else(|| touched().next()).unwrap_or(0);
    let frozen = frozen.map(|why| why.reason().to_owned());
    ChannelGroup { name: graph.node(first).name.clone(), n_channels: 0, frozen, producers, consumers }
}

/// Walk order: by first producer, then by name of appearance; several groups of one producer get a number. Returns
/// where each went.
fn sort_by_first_producer(groups: &mut Vec<ChannelGroup>) -> Vec<GroupId> {
    let mut order: Vec<(GroupId, ChannelGroup)> = std::mem::take(groups).into_iter().enumerate().collect();
    // Stable: groups of one producer stay as they appeared.
    order.sort_by_key(|(_, group)| group.producers.first().copied().unwrap_or(0));
    let mut place = vec![0; order.len()];
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (to, (from, mut group)) in order.into_iter().enumerate() {
        place[from] = to;
        let n = seen.entry(group.name.clone()).or_insert(0);
        *n += 1;
        if *n > 1 {
            group.name = format!("{}#{n}", group.name);
        }
        groups.push(group);
    }
    place
}
