//! Channel groups: which channels must be removed together, derived by following channel axes through the graph.
//!
//! Every channel position of every tensor gets a label; operations copy labels (BatchNorm, pooling, padding, …), repeat them
//! (Flatten), join them (Add, depthwise and grouped convolutions) or start new ones (convolution, Linear). A *channel* of the
//! pruning problem is a class of joined labels; channels with the same footprint (the same number of positions in the same
//! tensors) form a group, and any subset of a group may be removed.

use std::collections::{BTreeMap, BTreeSet};

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

/// Index into [`ChannelGroups::groups`].
pub type GroupId = usize;

/// Where one channel position of a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
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
    /// Convolutions and Linear nodes whose output filters belong to the group, in graph order.
    pub producers: Vec<NodeId>,
    /// Dense and grouped convolutions and Linear nodes that read it, in graph order (depthwise convolutions pass it on).
    pub consumers: Vec<NodeId>,
}

/// All groups of a graph, in graph order of their first producer, and the channel axis of every tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelGroups {
    groups: Vec<ChannelGroup>,
    axes: Vec<Vec<Slot>>,
}

impl ChannelGroups {
    /// Derives the groups of `graph` under `protocol`.
    pub fn derive(graph: &Graph, protocol: Protocol) -> Self {
        let mut labels = Labels::default();
        let tensors: Vec<Vec<usize>> = follow(graph, &mut labels, protocol);
        group(graph, &mut labels, &tensors)
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
    pub fn axis(&self, node: NodeId) -> &[Slot] {
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

/// Union-find over channel labels, with what is known of each class at its root.
#[derive(Default)]
struct Labels {
    parent: Vec<usize>,
    produced: Vec<bool>,
    frozen: BTreeMap<usize, String>,
}

impl Labels {
    fn fresh(&mut self, n: usize, produced: bool) -> Vec<usize> {
        let from = self.parent.len();
        self.parent.extend(from..from + n);
        self.produced.extend(std::iter::repeat_n(produced, n));
        (from..from + n).collect()
    }
    fn root(&mut self, mut a: usize) -> usize {
        while self.parent[a] != a {
            self.parent[a] = self.parent[self.parent[a]];
            a = self.parent[a];
        }
        a
    }
    /// The smaller root wins, so a class is named by its earliest label.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parent[high] = low;
        self.produced[low] |= self.produced[high];
        if let Some(reason) = self.frozen.remove(&high) {
            self.frozen.entry(low).or_insert(reason);
        }
    }
    fn freeze(&mut self, labels: &[usize], reason: &str) {
        for &label in labels {
            let root = self.root(label);
            self.frozen.entry(root).or_insert_with(|| reason.to_owned());
        }
    }
}

/// Labels of every channel position of every node's output.
fn follow(graph: &Graph, labels: &mut Labels, protocol: Protocol) -> Vec<Vec<usize>> {
    let mut tensors: Vec<Vec<usize>> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes().iter().enumerate() {
        let input = |i: usize| -> &[usize] { &tensors[node.inputs[i]] };
        let out = match &node.op {
            Op::Input => {
                let all = labels.fresh(graph.shape(id).c, true);
                labels.freeze(&all, "network input");
                all
            }
            Op::Conv2d(c) if c.is_depthwise() => {
                let multiplier = c.out_channels / c.in_channels;
                (0..c.out_channels).map(|o| input(0)[o / multiplier]).collect()
            }
            Op::Conv2d(c) => {
                let out = labels.fresh(c.out_channels, true);
                join_conv_groups(labels, input(0), c.groups);
                join_conv_groups(labels, &out, c.groups);
                out
            }
            Op::Linear { out_features, .. } => labels.fresh(*out_features, true),
            Op::Add => {
                for i in 1..node.inputs.len() {
                    for (&a, &b) in input(0).iter().zip(input(i)) {
                        labels.join(a, b);
                    }
                }
                if protocol == Protocol::Inner {
                    labels.freeze(input(0), "residual stream frozen by protocol `inner`");
                }
                input(0).to_vec()
            }
            Op::Concat => (0..node.inputs.len()).flat_map(|i| input(i).to_vec()).collect(),
            Op::Flatten => {
                let pixels = graph.shape(node.inputs[0]);
                input(0).iter().flat_map(|&l| std::iter::repeat_n(l, pixels.h * pixels.w)).collect()
            }
            Op::Pad { channels: [front, behind], .. } => {
                let mut out = labels.fresh(*front, false);
                out.extend_from_slice(input(0));
                out.extend(labels.fresh(*behind, false));
                out
            }
            Op::Slice { channels: [from, to], .. } => input(0)[*from..*to].to_vec(),
            Op::Softmax => {
                labels.freeze(input(0), "channels coupled by Softmax");
                input(0).to_vec()
            }
            Op::BatchNorm { .. }
            | Op::Pointwise(_)
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Identity => input(0).to_vec(),
        };
        tensors.push(out);
    }
    labels.freeze(&tensors[graph.output()], "network output");
    tensors
}

/// In an ordinary grouped convolution the same position of every conv group goes together, so that the groups stay equal.
fn join_conv_groups(labels: &mut Labels, axis: &[usize], n_groups: usize) {
    let per_group = axis.len() / n_groups;
    for (position, &label) in axis.iter().enumerate().skip(per_group) {
        labels.join(axis[position % per_group], label);
    }
}

/// Number of positions in each tensor a channel occupies, in graph order.
type Footprint = Vec<(NodeId, usize)>;

fn group(graph: &Graph, labels: &mut Labels, tensors: &[Vec<usize>]) -> ChannelGroups {
    // Footprint of each class: (tensor, positions) in graph order.
    let mut footprints: BTreeMap<usize, Footprint> = BTreeMap::new();
    for (node, axis) in tensors.iter().enumerate() {
        for &label in axis {
            let footprint = footprints.entry(labels.root(label)).or_default();
            match footprint.last_mut() {
                Some((last, n)) if *last == node => *n += 1,
                _ => footprint.push((node, 1)),
            }
        }
    }
    let mut groups: Vec<ChannelGroup> = Vec::new();
    let mut index: BTreeMap<(Footprint, Option<String>), GroupId> = BTreeMap::new();
    let mut slots: BTreeMap<usize, Slot> = BTreeMap::new();
    for (root, footprint) in footprints {
        let constant = (!labels.produced[root]).then(|| "zero channels without a producer".to_owned());
        let frozen = labels.frozen.get(&root).cloned().or(constant);
        let next = groups.len();
        let id = *index.entry((footprint.clone(), frozen.clone())).or_insert(next);
        if id == next {
            groups.push(describe(graph, labels, tensors, root, &footprint, frozen));
        }
        slots.insert(root, Slot { group: id, channel: groups[id].n_channels });
        groups[id].n_channels += 1;
    }
    let axes = tensors.iter().map(|axis| axis.iter().map(|&l| slots[&labels.root(l)]).collect()).collect();
    let mut out = ChannelGroups { groups, axes };
    sort_by_first_producer(&mut out);
    out
}

/// A group without its channel count, from the class `root` of one of its channels.
fn describe(
    graph: &Graph,
    labels: &mut Labels,
    tensors: &[Vec<usize>],
    root: usize,
    footprint: &[(NodeId, usize)],
    frozen: Option<String>,
) -> ChannelGroup {
    let touched: BTreeSet<NodeId> = footprint.iter().map(|&(node, _)| node).collect();
    let makes_channels = |node: &NodeId| match &graph.node(*node).op {
        Op::Conv2d(c) => !c.is_depthwise(),
        Op::Linear { .. } => true,
        _ => false,
    };
    let producers: Vec<NodeId> = touched.iter().copied().filter(makes_channels).collect();
    let mut reads = |node: &NodeId| {
        let axis = &tensors[graph.node(*node).inputs[0]];
        axis.iter().any(|&l| labels.root(l) == root)
    };
    let consumers = (0..graph.nodes().len()).filter(makes_channels).filter(|n| reads(n)).collect();
    let first = producers.first().or(touched.first()).copied().unwrap_or(0);
    ChannelGroup { name: graph.node(first).name.clone(), n_channels: 0, frozen, producers, consumers }
}

/// Walk order: by first producer, then by name of appearance; several groups of one producer get a number.
fn sort_by_first_producer(out: &mut ChannelGroups) {
    let mut order: Vec<GroupId> = (0..out.groups.len()).collect();
    order.sort_by_key(|&g| (out.groups[g].producers.first().copied().unwrap_or(0), g));
    let mut place = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        place[from] = to;
    }
    out.groups = order.iter().map(|&g| out.groups[g].clone()).collect();
    for slot in out.axes.iter_mut().flatten() {
        slot.group = place[slot.group];
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for group in &mut out.groups {
        let n = seen.entry(group.name.clone()).or_insert(0);
        *n += 1;
        if *n > 1 {
            group.name = format!("{}#{n}", group.name);
        }
    }
}
