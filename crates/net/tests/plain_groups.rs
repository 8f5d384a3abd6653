//! Channel groups against the plain derivation they were first defined by: every class of channels scans every tensor
//! for what reads it. Slow, but each rule stands there once.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use secateur_net::random::{random_graph, random_graph_of_every_operation};
use secateur_net::{
    ChannelGroup, ChannelGroups, Conv2d, Graph, GraphBuilder, GroupChannel, GroupId, NodeId, Op, Pointwise, Protocol,
    Shape, arch,
};

/// What a derivation yields.
struct Plain {
    groups: Vec<ChannelGroup>,
    axes: Vec<Vec<GroupChannel>>,
}

fn plain(graph: &Graph, protocol: Protocol) -> Plain {
    let mut labels = Labels::default();
    let tensors = follow(graph, &mut labels, protocol);
    group(graph, &mut labels, &tensors)
}

#[track_caller]
fn check(graph: &Graph, context: &str) {
    for protocol in [Protocol::Inner, Protocol::Full] {
        let (got, expected) = (ChannelGroups::derive(graph, protocol), plain(graph, protocol));
        assert_eq!(got.groups(), expected.groups, "{context}");
        for (node, axis) in expected.axes.iter().enumerate() {
            assert_eq!(got.axis(node), axis, "{context}, node {node}");
        }
    }
}

#[test]
fn groups_are_those_of_the_plain_derivation() {
    for seed in 0..300 {
        check(&random_graph(seed), &format!("seed {seed}"));
        check(&random_graph_of_every_operation(seed), &format!("every operation, seed {seed}"));
    }
    for name in ["resnet20", "vgg16", "mobilenet_v1"] {
        check(&arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap(), name);
    }
}

#[test]
fn shuffled_repeated_and_frozen_channels_are_told_apart() {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    let conv = |i, o| Op::Conv2d(Conv2d::square(i, o, 1, 1, 0));
    let first = b.push("first", conv(3, 6), &[0]);
    let slice = |from, to| Op::Slice { channels: [from, to], step: [1, 1] };
    let parts: Vec<NodeId> =
        [(0, 2), (1, 4), (3, 6)].map(|(from, to)| b.push(format!("s{from}"), slice(from, to), &[first])).to_vec();
    let joined = b.push("joined", Op::Concat, &[parts[2], parts[0], parts[1], parts[0]]);
    let soft = b.push("soft", Op::Softmax, &[parts[1]]);
    let padded = b.push("padded", Op::Pad { channels: [3, 4], rows: [0; 2], cols: [0; 2] }, &[soft]);
    let sum = b.push("sum", Op::Add, &[padded, joined]);
    let act = b.push("act", Op::Pointwise(Pointwise::Relu), &[sum]);
    let grouped = Conv2d { groups: 2, ..Conv2d::square(10, 4, 1, 1, 0) };
    let wide = b.push("grouped", Op::Conv2d(grouped), &[act]);
    let deep = Conv2d { groups: 4, ..Conv2d::square(4, 8, 1, 1, 0) };
    let deep = b.push("depthwise", Op::Conv2d(deep), &[wide]);
    let flat = b.push("flat", Op::Flatten, &[deep]);
    b.push("last", Op::Linear { in_features: 128, out_features: 2, bias: false }, &[flat]);
    check(&b.finish().unwrap(), "by hand");
}

#[test]
fn thousands_of_groups_and_nodes_take_no_longer_than_their_number() {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
    let mut x = b.push("first", Op::Conv2d(Conv2d::square(3, 2, 1, 1, 0)), &[0]);
    for i in 0..50_000 {
        x = b.push(format!("c{i}"), Op::Conv2d(Conv2d::square(2, 2, 1, 1, 0)), &[x]);
    }
    let graph = b.finish().unwrap();
    let start = Instant::now();
    let groups = ChannelGroups::derive(&graph, Protocol::Inner);
    assert_eq!(groups.groups().len(), 50_002);
    // A tenth of a second where this was measured; the plain derivation takes minutes.
    assert!(start.elapsed().as_secs_f64() < 10.0, "{:?}", start.elapsed());
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
            Op::Add | Op::Mul | Op::Max | Op::Min => {
                let n = graph.shape(id).c;
                let full = (0..node.inputs.len()).find(|&i| input(i).len() == n).unwrap();
                for i in 0..node.inputs.len() {
                    if input(i).len() < n {
                        labels.freeze(input(i), "one channel that is added to or multiplied with many");
                        continue;
                    }
                    for (&a, &b) in input(full).iter().zip(input(i)) {
                        labels.join(a, b);
                    }
                }
                if node.op == Op::Add && protocol == Protocol::Inner {
                    labels.freeze(input(full), "residual stream frozen by protocol `inner`");
                }
                input(full).to_vec()
            }
            Op::FlattenPixels => {
                let pixels = graph.shape(node.inputs[0]);
                input(0).repeat(pixels.h * pixels.w)
            }
            Op::ChannelShuffle { groups } => {
                let per_group = input(0).len() / groups;
                let mut out = Vec::new();
                for i in 0..per_group {
                    for g in 0..*groups {
                        labels.join(input(0)[i], input(0)[g * per_group + i]);
                        out.push(input(0)[g * per_group + i]);
                    }
                }
                out
            }
            Op::DepthToSpace { block, columns_rows_depth } => {
                let (n, per_channel) = (graph.shape(id).c, block * block);
                let mut out = Vec::new();
                for o in 0..n {
                    let source = |i| if *columns_rows_depth { o * per_channel + i } else { i * n + o };
                    (1..per_channel).for_each(|i| labels.join(input(0)[source(0)], input(0)[source(i)]));
                    out.push(input(0)[source(0)]);
                }
                out
            }
            Op::ConvTranspose2d(c) if c.is_depthwise() => input(0).to_vec(),
            Op::ConvTranspose2d(c) => {
                let out = labels.fresh(c.out_channels, true);
                join_conv_groups(labels, input(0), c.groups);
                join_conv_groups(labels, &out, c.groups);
                out
            }
            Op::GroupNorm { channels, groups, .. } if groups == channels => input(0).to_vec(),
            Op::GroupNorm { .. } | Op::LocalResponseNorm { .. } | Op::ChannelConv { .. } => {
                labels.freeze(input(0), &format!("channels coupled by {}", node.op.name()));
                input(0).to_vec()
            }
            Op::ChannelMean | Op::ChannelMax => {
                let reason = "channels reduced to one by ChannelMean or ChannelMax";
                labels.freeze(input(0), reason);
                let out = labels.fresh(1, true);
                labels.freeze(&out, reason);
                out
            }
            Op::BranchSum { branches } => {
                join_conv_groups(labels, input(0), *branches);
                input(0)[..input(0).len() / branches].to_vec()
            }
            Op::BranchSoftmax { branches } => {
                join_conv_groups(labels, input(0), *branches);
                input(0).to_vec()
            }
            Op::LayerNorm { .. } => {
                labels.freeze(input(0), "channels coupled by LayerNorm");
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
            | Op::PRelu { .. }
            | Op::Pointwise(_)
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Resize { .. }
            | Op::GlobalMaxPool
            | Op::Identity => input(0).to_vec(),
        };
        tensors.push(out);
    }
    labels.freeze(&tensors[graph.output()], "network output");
    tensors
}

/// In an ordinary grouped convolution the same position of every conv group goes together, so that the groups stay
/// equal.
fn join_conv_groups(labels: &mut Labels, axis: &[usize], n_groups: usize) {
    let per_group = axis.len() / n_groups;
    for (position, &label) in axis.iter().enumerate().skip(per_group) {
        labels.join(axis[position % per_group], label);
    }
}

/// Number of positions in each tensor a channel occupies, in graph order.
type Footprint = Vec<(NodeId, usize)>;

fn group(graph: &Graph, labels: &mut Labels, tensors: &[Vec<usize>]) -> Plain {
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
    let mut slots: BTreeMap<usize, GroupChannel> = BTreeMap::new();
    for (root, footprint) in footprints {
        let constant = (!labels.produced[root]).then(|| "zero channels without a producer".to_owned());
        let frozen = labels.frozen.get(&root).cloned().or(constant);
        let next = groups.len();
        let id = *index.entry((footprint.clone(), frozen.clone())).or_insert(next);
        if id == next {
            groups.push(describe(graph, labels, tensors, root, &footprint, frozen));
        }
        slots.insert(root, GroupChannel { group: id, channel: groups[id].n_channels });
        groups[id].n_channels += 1;
    }
    let axes = tensors.iter().map(|axis| axis.iter().map(|&l| slots[&labels.root(l)]).collect()).collect();
    let mut out = Plain { groups, axes };
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
        Op::ConvTranspose2d(c) => !c.is_depthwise(),
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
fn sort_by_first_producer(out: &mut Plain) {
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
