//! Operations that mix channels, and transposed convolutions: values worked out by hand, and pruned networks against
//! masked ones. Random networks of all of them are compared in `gates_and_maps.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_kernels::{Isa, Norm, Plan, PlanNeeds, channel_norms, run_reference};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{
    ChannelGroups, Conv2d, ConvTranspose2d, Cost, CostModel, GraphBuilder, KeptChannels, Network, Op, Protocol, Shape,
    Tensor, Weights, fold_batch_norm, output_shape, prune,
};

fn assert_close(got: &[f32], expected: &[f32], context: &str) {
    assert_eq!(got.len(), expected.len(), "{context}");
    let scale = expected.iter().fold(1.0f32, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= 2e-6 * scale, "{context}: element {i}: got {g}, expected {e}");
    }
}

/// What the reference and every plan make of one image, `[H, W, C]`, with one operation and its parameters.
fn check(op: Op, input: [usize; 3], parameters: &[(&str, &[usize], &[f32])], image: &[f32], expected: &[f32]) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let [c, h, w] = input;
    let context = format!("{op:?}");
    let mut b = GraphBuilder::new(Shape { c, h, w });
    b.push("op", op, &[0]);
    let tensor = |&(name, shape, data): &(&str, &[usize], &[f32])| {
        (format!("op.{name}"), Tensor::new(shape.to_vec(), data.to_vec()).unwrap())
    };
    let net = Network::new(b.finish().unwrap(), parameters.iter().map(tensor).collect::<Weights>()).unwrap();
    assert_close(&run_reference(&net, image).unwrap().pop().unwrap(), expected, &context);
    for isa in Isa::available() {
        let got = Plan::compile(&net, isa).unwrap().logits(&pool, image).unwrap();
        assert_close(&got, expected, &format!("{isa:?} {context}"));
    }
}

#[test]
fn every_pixel_adds_its_kernel_a_stride_further() {
    let kernel: (&str, &[usize], &[f32]) = ("weight", &[1, 1, 1, 3], &[1.0, 10.0, 100.0]);
    let conv = |stride: usize| ConvTranspose2d {
        kernel: [1, 3],
        stride: [1, stride],
        ..ConvTranspose2d::square(1, 1, 1, 1, 0)
    };
    let row = [1.0, 2.0];
    let run = |conv: ConvTranspose2d, expected: &[f32]| {
        check(Op::ConvTranspose2d(conv), [1, 1, 2], &[kernel], &row, expected);
    };
    run(conv(1), &[1.0, 12.0, 120.0, 200.0]);
    run(conv(2), &[1.0, 10.0, 102.0, 20.0, 200.0]);
    // Further apart than the kernel is wide.
    run(conv(4), &[1.0, 10.0, 100.0, 0.0, 2.0, 20.0, 200.0]);
    run(ConvTranspose2d { padding: [[0; 2], [1, 2]], ..conv(2) }, &[10.0, 102.0]);
    // More is cut off than the kernel reaches.
    run(ConvTranspose2d { padding: [[0; 2], [4, 0]], ..conv(4) }, &[2.0, 20.0, 200.0]);
    run(ConvTranspose2d { output_padding: [0, 1], ..conv(2) }, &[1.0, 10.0, 102.0, 20.0, 200.0, 0.0]);
    run(ConvTranspose2d { dilation: [1, 2], ..conv(1) }, &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0]);
}

#[test]
fn conv_groups_of_a_transposed_convolution_read_their_own_channels() {
    // Four channels, two to each conv group, which makes one: 1 + 20 and 3·100 + 4·1000.
    let conv = ConvTranspose2d { groups: 2, bias: true, ..ConvTranspose2d::square(4, 2, 1, 1, 0) };
    let parameters: [(&str, &[usize], &[f32]); 2] =
        [("weight", &[4, 1, 1, 1], &[1.0, 10.0, 100.0, 1000.0]), ("bias", &[2], &[0.5, 0.25])];
    check(Op::ConvTranspose2d(conv), [4, 1, 1], &parameters, &[1.0, 2.0, 3.0, 4.0], &[21.5, 4300.25]);
}

#[test]
fn a_convolution_along_channels_has_the_same_taps_for_all() {
    let parameters: [(&str, &[usize], &[f32]); 2] = [("weight", &[3], &[1.0, 10.0, 100.0]), ("bias", &[1], &[0.5])];
    let op = |front| Op::ChannelConv { taps: 3, front, bias: true };
    let channels = [1.0, 2.0, 3.0, 4.0];
    check(op(1), [4, 1, 1], &parameters, &channels, &[210.5, 321.5, 432.5, 43.5]);
    check(op(0), [4, 1, 1], &parameters, &channels, &[321.5, 432.5, 43.5, 4.5]);
}

#[test]
fn norms_of_groups_of_channels_and_of_near_ones() {
    // Two pixels of two channels, (1, 10) and (3, 10). All: mean 6, variance (25 + 16 + 9 + 16) / 4 = 16.5.
    let image = [1.0, 10.0, 3.0, 10.0];
    let parameters: [(&str, &[usize], &[f32]); 2] = [("weight", &[2], &[1.0, 2.0]), ("bias", &[2], &[0.0, 5.0])];
    let op = |groups, eps| Op::GroupNorm { channels: 2, groups, eps };
    check(op(1, 8.5), [2, 1, 2], &parameters, &image, &[-1.0, 6.6, -0.6, 6.6]);
    // Each channel alone: mean 2 and variance 1; no variance.
    check(op(2, 3.0), [2, 1, 2], &parameters, &image, &[-0.5, 5.0, 0.5, 5.0]);
    // An even size looks one further behind: 1 + 4, 4 + 9, 9.
    let op = Op::LocalResponseNorm { size: 2, alpha: 2.0, beta: 1.0, bias: 1.0 };
    check(op, [3, 1, 1], &[], &[1.0, 2.0, 3.0], &[1.0 / 6.0, 2.0 / 14.0, 3.0 / 10.0]);
}

#[test]
fn means_largest_values_and_sums_over_channels_and_branches() {
    let image = [1.0, 4.0, 3.0, 8.0, -1.0, -2.0, -3.0, -6.0];
    check(Op::ChannelMean, [4, 1, 2], &[], &image, &[4.0, -3.0]);
    check(Op::ChannelMax, [4, 1, 2], &[], &image, &[8.0, -1.0]);
    check(Op::BranchSum { branches: 2 }, [4, 1, 2], &[], &image, &[4.0, 12.0, -4.0, -8.0]);
    check(Op::BranchSum { branches: 4 }, [4, 1, 2], &[], &image, &[16.0, -12.0]);
    // Channels 0 and 2, 1 and 3: apart by ln 3 and by nothing.
    let gates = [0.0, 5.0, 3.0f32.ln(), 5.0];
    check(Op::BranchSoftmax { branches: 2 }, [4, 1, 1], &[], &gates, &[0.25, 0.5, 0.75, 0.5]);
}

#[test]
fn the_largest_and_the_smallest_of_several_tensors() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    // The mean of the channels is 1, which counts for both.
    let image = [-2.0, 4.0];
    for (op, expected) in [(Op::Max, [1.0, 4.0]), (Op::Min, [-2.0, 1.0])] {
        let mut b = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
        b.push("mean", Op::ChannelMean, &[0]);
        b.push("most", op, &[1, 0]);
        let net = Network::new(b.finish().unwrap(), Weights::new()).unwrap();
        assert_close(&run_reference(&net, &image).unwrap().pop().unwrap(), &expected, "reference");
        for isa in Isa::available() {
            assert_close(&Plan::compile(&net, isa).unwrap().logits(&pool, &image).unwrap(), &expected, "plan");
        }
    }
}

/// Convolutions, a transposed one with a norm behind, and one that reads it.
fn upsampling(groups: usize) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 5 });
    let conv = |i, o| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(i, o, 3, 1, 1) });
    let first = b.push("first", conv(3, 8), &[0]);
    let up = ConvTranspose2d { groups, output_padding: [1, 0], ..ConvTranspose2d::square(8, 4, 3, 2, 1) };
    let up = b.push("up", Op::ConvTranspose2d(up), &[first]);
    let norm = b.push("norm", Op::BatchNorm { channels: 4, eps: 1e-3 }, &[up]);
    b.push("last", conv(4, 2), &[norm]);
    with_random_weights(b.finish().unwrap(), 11)
}

fn outputs(net: &Network, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    let image: Vec<f32> = (0..net.graph().input().len()).map(|_| rng.signed()).collect();
    run_reference(net, &image).unwrap().pop().unwrap()
}

#[test]
fn a_norm_is_folded_into_the_transposed_convolution_in_front_of_it() {
    for groups in [1, 2, 4] {
        let net = upsampling(groups);
        let folded = fold_batch_norm(&net).unwrap();
        assert_eq!(folded.graph().nodes().len(), 4);
        assert_close(&outputs(&folded, 1), &outputs(&net, 1), &format!("{groups} conv groups"));
    }
}

#[test]
fn channels_around_a_transposed_convolution_are_removed_as_if_they_were_zero() {
    for groups in [1, 2] {
        let net = fold_batch_norm(&upsampling(groups)).unwrap();
        let all = ChannelGroups::derive(net.graph(), Protocol::Full);
        let found: Vec<_> =
            all.prunable().iter().map(|&g| (all.group(g).name.clone(), all.group(g).n_channels)).collect();
        assert_eq!(found, [("first".to_owned(), 8 / groups), ("up".to_owned(), 4 / groups)]);
        assert_eq!(all.group(all.prunable()[0]).consumers, [2]);
        // What goes with a channel counts: one that weighs more is more important.
        let norms = channel_norms(&net, &all, all.prunable()[1], Norm::L1);
        assert!(norms.iter().all(|n| *n > 0.0), "{norms:?}");
        let mut kept = KeptChannels::all(&all);
        kept.set(all.prunable()[0], (0..8 / groups).filter(|c| c % 2 == 1).collect());
        kept.set(all.prunable()[1], vec![0]);
        let compact = prune(&net, &all, &kept).unwrap();
        // By hand: whoever reads a removed channel gets zeros for it.
        let mut masked = net.clone();
        let mut weight = masked.parameter("up", "weight").clone();
        let per_input = weight.data().len() / 8;
        weight.data_mut().chunks_mut(per_input).step_by(2).for_each(|input| input.fill(0.0));
        masked.set_parameter("up", "weight", weight).unwrap();
        let mut weight = masked.parameter("last", "weight").clone();
        let is_removed = |i: usize| !i.is_multiple_of(4 / groups);
        weight.data_mut().chunks_mut(9).enumerate().filter(|(i, _)| is_removed(i % 4)).for_each(|(_, w)| w.fill(0.0));
        masked.set_parameter("last", "weight", weight).unwrap();
        assert_close(&outputs(&compact, 2), &outputs(&masked, 2), &format!("{groups} conv groups"));
        let model = CostModel::new(net.graph(), &all);
        let [one, two] = [kept.widths(), all.full_widths()].map(|widths| model.count(Cost::Macs, &widths));
        // 20 pixels in front, 72 behind; dense weights of 27, 9 and 9 a pair of channels.
        let by_hand = |first: u64, up: u64| 20 * 27 * first + 20 * 9 * first * up / groups as u64 + 72 * 9 * up * 2;
        assert_eq!([one, two], [by_hand(4, groups as u64), by_hand(8, 4)]);
        let own = ChannelGroups::derive(compact.graph(), Protocol::Full);
        assert_eq!(CostModel::new(compact.graph(), &own).count(Cost::Macs, &own.full_widths()), one);
        assert!(PlanNeeds::of(net.graph(), Isa::detect()).unwrap().scratch > 0);
    }
}

/// A convolution to 8 channels, `op`, and a convolution of what it makes.
fn behind_a_convolution(op: Op) -> ChannelGroups {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 2, w: 2 });
    b.push("first", Op::Conv2d(Conv2d::square(3, 8, 1, 1, 0)), &[0]);
    let n = output_shape(&op, &[Shape { c: 8, h: 2, w: 2 }]).unwrap().c;
    b.push("mixed", op, &[1]);
    b.push("last", Op::Conv2d(Conv2d::square(n, 2, 1, 1, 0)), &[2]);
    ChannelGroups::derive(&b.finish().unwrap(), Protocol::Inner)
}

#[test]
fn what_mixes_channels_freezes_them() {
    for (op, reason) in [
        (Op::ChannelConv { taps: 3, front: 1, bias: false }, "coupled by ChannelConv"),
        (Op::GroupNorm { channels: 8, groups: 2, eps: 1e-5 }, "coupled by GroupNorm"),
        (Op::LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 }, "coupled by LocalResponseNorm"),
        (Op::ChannelMean, "reduced to one"),
        (Op::ChannelMax, "reduced to one"),
    ] {
        let groups = behind_a_convolution(op.clone());
        let frozen = groups.group(groups.axis(1)[0].group).frozen.clone();
        assert!(groups.prunable().is_empty() && frozen.is_some_and(|why| why.contains(reason)), "{op:?}");
    }
}

/// A sum of branches is no stream between blocks: the same channel of every branch goes, under either protocol.
#[test]
fn the_same_channel_of_every_branch_goes_together() {
    for op in [Op::BranchSum { branches: 2 }, Op::BranchSoftmax { branches: 2 }] {
        let groups = behind_a_convolution(op);
        let [only] = groups.prunable()[..] else { panic!("{:?}", groups.groups()) };
        assert_eq!((groups.group(only).n_channels, groups.positions(1, only)[1].as_slice()), (4, &[1, 5][..]));
    }
    let instances = Op::GroupNorm { channels: 8, groups: 8, eps: 1e-5 };
    let groups = behind_a_convolution(instances);
    assert_eq!(groups.group(groups.prunable()[0]).n_channels, 8);
}
