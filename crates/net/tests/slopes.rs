//! PRelu: one slope per channel, which goes with its channel.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_net::random::with_random_weights;
use secateur_net::{
    ChannelGroups, Conv2d, Cost, CostModel, GraphBuilder, KeptChannels, NetError, Network, Op, Protocol, Shape, Tensor,
    fold_batch_norm, prune,
};

fn network() -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    let first = b.push("first", Op::Conv2d(Conv2d::square(3, 4, 3, 1, 1)), &[0]);
    let norm = b.push("norm", Op::BatchNorm { channels: 4, eps: 1e-5 }, &[first]);
    let slopes = b.push("slopes", Op::PRelu { channels: 4 }, &[norm]);
    let mean = b.push("mean", Op::GlobalAvgPool, &[slopes]);
    b.push("last", Op::Linear { in_features: 4, out_features: 2, bias: true }, &[mean]);
    let mut network = with_random_weights(b.finish().unwrap(), 1);
    let slopes = Tensor::new(vec![4], vec![0.1, 0.2, 0.3, 0.4]).unwrap();
    network.set_parameter("slopes", "weight", slopes).unwrap();
    network
}

#[test]
fn slopes_stay_with_the_channels_that_are_kept() {
    let network = network();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let [group] = groups.prunable()[..] else { panic!("one group: that of the first convolution") };
    let mut kept = KeptChannels::all(&groups);
    kept.set(group, vec![1, 3]);
    let compact = prune(&network, &groups, &kept).unwrap();
    assert_eq!(compact.graph().node(3).op, Op::PRelu { channels: 2 });
    assert_eq!(compact.parameter("slopes", "weight").data(), [0.2, 0.4]);
    let folded = fold_batch_norm(&compact).unwrap();
    assert_eq!(folded.parameter("slopes", "weight").data(), [0.2, 0.4]);
}

#[test]
fn slopes_are_parameters_without_multiplications_and_take_no_memory_of_their_own() {
    let network = network();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let costs = CostModel::new(network.graph(), &groups);
    let count = |cost| costs.count(cost, &groups.full_widths());
    // Weights of the first convolution, scales and shifts, slopes, weights and biases of the last layer.
    assert_eq!(count(Cost::Params), 3 * 4 * 9 + 2 * 4 + 4 + (4 * 2 + 2));
    assert_eq!(count(Cost::Macs), 3 * 4 * 9 * 16 + 4 * 2);
    // The image and what the first convolution makes of it.
    assert_eq!(count(Cost::ActivationBytes), 4 * (3 + 4) * 16);
}

#[test]
fn slopes_of_another_number_of_channels_are_refused() {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    b.push("slopes", Op::PRelu { channels: 4 }, &[0]);
    let error = b.finish().unwrap_err();
    assert_eq!(error.to_string(), "node 'slopes': PRelu: has slopes of 4 channels, its input 3x4x4 has 3");
    let mut network = network();
    let error = network.set_parameter("slopes", "weight", Tensor::new(vec![4], vec![f32::NAN; 4]).unwrap());
    assert!(matches!(error, Err(NetError::NotFinite { .. })));
}
