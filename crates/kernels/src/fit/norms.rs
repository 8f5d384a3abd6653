//! Filter norms of the channels of a group.

use secateur_net::{ChannelGroups, GroupId, Network, Op};

use crate::LinearMap;

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Sum of absolute values.
    L1,
    /// Euclidean norm.
    L2,
}

/// Norm of every channel of a group over all weights that go when it goes: its filters in every producer and its inputs
/// in every consumer (the group norm of DepGraph, Fang et al. 2023). Depthwise filters count once.
pub fn channel_norms(network: &Network, groups: &ChannelGroups, group: GroupId, norm: Norm) -> Vec<f64> {
    let graph = network.graph();
    let mut sums = vec![0.0f64; groups.group(group).n_channels];
    let term = |w: f32| match norm {
        Norm::L1 => f64::from(w.abs()),
        Norm::L2 => f64::from(w) * f64::from(w),
    };
    for (id, node) in graph.nodes().iter().enumerate() {
        if network.weights().get(&format!("{}.weight", node.name)).is_none_or(|w| w.shape().len() < 2) {
            continue;
        }
        let weight = network.parameter(&node.name, "weight");
        if let Op::ConvTranspose2d(conv) = &node.op {
            let [_, per_group, kh, kw] = conv.weight_shape();
            for (at, kernel) in weight.data().chunks_exact(kh * kw).enumerate() {
                let (input, within) = (at / per_group, at % per_group);
                let output = input / (conv.in_channels / conv.groups) * per_group + within;
                let made = groups.axis(id)[output];
                let read = groups.axis(node.inputs[0])[input];
                for slot in [Some(made), (!conv.is_depthwise()).then_some(read)].into_iter().flatten() {
                    if slot.group == group {
                        sums[slot.channel] += kernel.iter().map(|&w| term(w)).sum::<f64>();
                    }
                }
            }
            continue;
        }
        let per_filter: usize = weight.shape()[1..].iter().product();
        let taps: usize = weight.shape()[2..].iter().product();
        for (position, slot) in groups.axis(id).iter().enumerate().filter(|(_, s)| s.group == group) {
            sums[slot.channel] +=
                weight.data()[position * per_filter..][..per_filter].iter().map(|&w| term(w)).sum::<f64>();
        }
        for map in LinearMap::of(graph, id) {
            let axis = &groups.axis(node.inputs[0])[map.inputs.first..][..map.inputs.len];
            for (i, slot) in axis.iter().enumerate().filter(|(_, s)| s.group == group) {
                for o in map.outputs.range() {
                    let from = o * per_filter + i * taps;
                    sums[slot.channel] += weight.data()[from..from + taps].iter().map(|&w| term(w)).sum::<f64>();
                }
            }
        }
    }
    match norm {
        Norm::L1 => sums,
        Norm::L2 => sums.into_iter().map(f64::sqrt).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Conv2d, GraphBuilder, Op, Protocol, Shape, Tensor, Weights};

    /// A 1x2 convolution to two channels, a depthwise one, a mean, and a Linear node with one output; weights 1, -2, 3,
    /// …
    fn network() -> Network {
        let mut b = GraphBuilder::new(Shape { c: 1, h: 2, w: 3 });
        let conv = b.push("a", Op::Conv2d(Conv2d { kernel: [1, 2], ..Conv2d::square(1, 2, 1, 1, 0) }), &[0]);
        let depthwise = b.push("b", Op::Conv2d(Conv2d { groups: 2, ..Conv2d::square(2, 2, 1, 1, 0) }), &[conv]);
        let mean = b.push("c", Op::GlobalAvgPool, &[depthwise]);
        b.push("d", Op::Linear { in_features: 2, out_features: 1, bias: false }, &[mean]);
        let mut next = 0.0f32;
        let mut tensor = |shape: Vec<usize>| {
            let n = shape.iter().product();
            let value = || {
                next = if next > 0.0 { -next - 1.0 } else { 1.0 - next };
                next
            };
            Tensor::new(shape, std::iter::repeat_with(value).take(n).collect()).unwrap()
        };
        let mut weights = Weights::new();
        weights.insert("a.weight".into(), tensor(vec![2, 1, 1, 2]));
        weights.insert("b.weight".into(), tensor(vec![2, 1, 1, 1]));
        weights.insert("d.weight".into(), tensor(vec![1, 2]));
        Network::new(b.finish().unwrap(), weights).unwrap()
    }

    #[test]
    fn norms_sum_over_producers_depthwise_filters_and_consumers() {
        let net = network();
        let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
        let group = groups.prunable()[0];
        // Channel 0: filter (1, -2), depthwise 5, consumer 7; channel 1: (3, -4), -6, -8.
        assert_eq!(channel_norms(&net, &groups, group, Norm::L1), [15.0, 21.0]);
        let squares = [1.0 + 4.0 + 25.0 + 49.0, 9.0 + 16.0 + 36.0 + 64.0f64];
        assert_eq!(channel_norms(&net, &groups, group, Norm::L2), squares.map(f64::sqrt));
    }
}
