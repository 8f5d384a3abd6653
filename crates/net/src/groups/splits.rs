//! Channels that are taken apart into equal parts.

use std::collections::{BTreeMap, BTreeSet};

use super::labels::{AxisLabels, Labels};
use super::maps::join_conv_groups;
use crate::{Graph, NodeId, Op};

/// Joins the same channel of each part wherever a tensor is read in two or more equal parts that make up all of it.
pub(super) fn join_equal_parts(graph: &Graph, labels: &mut Labels, tensors: &[AxisLabels]) {
    let mut parts: BTreeMap<NodeId, BTreeSet<[usize; 2]>> = BTreeMap::new();
    for node in graph.nodes() {
        if let Op::Slice { channels, .. } = &node.op {
            parts.entry(node.inputs[0]).or_default().insert(*channels);
        }
    }
    for (tensor, parts) in parts {
        let n = parts.len();
        let per_part = graph.shape(tensor).c / n;
        let are_equal = parts.iter().enumerate().all(|(i, part)| *part == [i * per_part, (i + 1) * per_part]);
        if n > 1 && are_equal && per_part * n == graph.shape(tensor).c {
            join_conv_groups(labels, &tensors[tensor], n);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{ChannelGroups, Conv2d, Graph, GraphBuilder, Op, Protocol, Shape};

    /// A convolution of 8 channels whose output is read in these parts, each by a convolution.
    fn graph(parts: &[[usize; 2]]) -> Graph {
        let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
        let conv = b.push("conv", Op::Conv2d(Conv2d::square(3, 8, 1, 1, 0)), &[0]);
        let mut ends = Vec::new();
        for (i, &channels) in parts.iter().enumerate() {
            let part = b.push(format!("part{i}"), Op::Slice { channels, step: [1; 2] }, &[conv]);
            let read = Op::Conv2d(Conv2d::square(channels[1] - channels[0], 4, 1, 1, 0));
            ends.push(b.push(format!("read{i}"), read, &[part]));
        }
        if ends.len() > 1 {
            b.push("sum", Op::Add, &ends);
        }
        b.finish().unwrap()
    }

    /// Channels of each group that the first convolution makes.
    fn widths(graph: &Graph, of: fn(&Graph, Protocol) -> ChannelGroups) -> Vec<usize> {
        let groups = of(graph, Protocol::Full);
        groups.groups().iter().filter(|group| group.producers == [1]).map(|group| group.n_channels).collect()
    }

    #[test]
    fn equal_parts_lose_the_same_channels() {
        let halves = graph(&[[0, 4], [4, 8]]);
        assert_eq!(widths(&halves, ChannelGroups::derive), [4]);
        assert_eq!(widths(&halves, ChannelGroups::derive_with_free_parts), [4, 4]);
        let groups = ChannelGroups::derive(&halves, Protocol::Full);
        let axis = groups.axis(1);
        assert!((0..4).all(|i| axis[i] == axis[i + 4] && axis[i] != axis[(i + 1) % 4]));
        // In any order, and read twice.
        assert_eq!(widths(&graph(&[[4, 8], [0, 4], [4, 8]]), ChannelGroups::derive), [4]);
        assert_eq!(widths(&graph(&[[0, 2], [2, 4], [4, 6], [6, 8]]), ChannelGroups::derive), [2]);
    }

    #[test]
    fn other_parts_stay_free() {
        for parts in [&[[0, 3], [3, 8]][..], &[[0, 4]], &[[0, 4], [3, 7]], &[[0, 2], [2, 4], [4, 6]], &[[0, 8], [0, 8]]]
        {
            let graph = graph(parts);
            let free = ChannelGroups::derive_with_free_parts(&graph, Protocol::Full);
            assert_eq!(ChannelGroups::derive(&graph, Protocol::Full), free, "{parts:?}");
        }
    }
}
