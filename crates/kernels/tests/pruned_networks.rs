//! Surgery, folding and sequential refit on random networks.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use proptest::prelude::*;
use secateur_kernels::{
    Arithmetic, Effort, Isa, KernelError, LinearMap, NormalEquations, Plan, RefitData, SequentialRefit, calibrate,
    repair, run_reference, write_refit,
};
use secateur_net::random::{SplitMix, random_network, random_network_of_every_operation, with_random_weights};
use secateur_net::{
    ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, NodeId, Op, Pointwise, Protocol, Shape,
    fold_batch_norm, prune,
};

fn pool(n: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

fn images(net: &Network, n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed ^ 77);
    (0..n * net.graph().input().len()).map(|_| rng.signed()).collect()
}

fn refit_data(pool: &rayon::ThreadPool, net: &Network, groups: &ChannelGroups, images: &[f32]) -> RefitData {
    RefitData::new(pool, net, groups, images, Effort::Thorough).unwrap()
}

/// Output of one node for all images, by the reference.
fn node_outputs(net: &Network, node: NodeId, images: &[f32]) -> Vec<f32> {
    let images = images.chunks(net.graph().input().len());
    images.flat_map(|image| run_reference(net, image).unwrap().swap_remove(node)).collect()
}

fn outputs(net: &Network, images: &[f32]) -> Vec<f32> {
    node_outputs(net, net.graph().output(), images)
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f32, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "element {i}: got {g}, expected {e}");
    }
}

/// A random non-empty subset of every prunable group.
fn random_kept(groups: &ChannelGroups, seed: u64) -> KeptChannels {
    let mut rng = SplitMix(seed);
    let list = |n: usize, frozen: bool, rng: &mut SplitMix| -> Vec<usize> {
        let must = rng.below(n);
        (0..n).filter(|&c| frozen || c == must || rng.below(2) == 0).collect()
    };
    let lists = groups.groups().iter().map(|g| list(g.n_channels, g.frozen.is_some(), &mut rng));
    KeptChannels::new(groups, lists.collect()).unwrap()
}

/// The full network with the weights that read removed channels set to zero.
fn masked(net: &Network, groups: &ChannelGroups, kept: &KeptChannels) -> Network {
    let mut out = net.clone();
    for (id, node) in net.graph().nodes().iter().enumerate() {
        if let Op::ConvTranspose2d(conv) = &node.op
            && !conv.is_depthwise()
        {
            let there = kept.positions(groups, node.inputs[0]);
            let mut weight = out.parameter(&node.name, "weight").clone();
            let per_input = weight.data().len() / conv.in_channels;
            let inputs = weight.data_mut().chunks_mut(per_input).enumerate();
            inputs.filter(|(i, _)| !there.contains(i)).for_each(|(_, input)| input.fill(0.0));
            out.set_parameter(&node.name, "weight", weight).unwrap();
        }
        for map in LinearMap::of(net.graph(), id) {
            let there = kept.positions(groups, node.inputs[0]);
            let mut weight = out.parameter(&node.name, "weight").clone();
            let per_filter = map.inputs.len * map.taps();
            for i in (0..map.inputs.len).filter(|i| there.binary_search(&(map.inputs.first + i)).is_err()) {
                for o in map.outputs.range() {
                    weight.data_mut()[o * per_filter + i * map.taps()..][..map.taps()].fill(0.0);
                }
            }
            out.set_parameter(&node.name, "weight", weight).unwrap();
        }
    }
    out
}

/// Every other one with gates, shuffles and the like.
fn any_network(seed: u64) -> Network {
    if seed.is_multiple_of(2) { random_network(seed) } else { random_network_of_every_operation(seed) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_compact_network_computes_what_the_masked_one_does(seed in any::<u64>(), full in any::<bool>()) {
        let net = any_network(seed);
        let protocol = if full { Protocol::Full } else { Protocol::Inner };
        let groups = ChannelGroups::derive(net.graph(), protocol);
        let kept = random_kept(&groups, seed);
        let images = images(&net, 2, seed);
        let compact = prune(&net, &groups, &kept).unwrap();
        assert_close(&outputs(&compact, &images), &outputs(&masked(&net, &groups, &kept), &images), 1e-4);
    }

    #[test]
    fn folding_batch_norm_keeps_the_function(seed in any::<u64>()) {
        let net = any_network(seed);
        let images = images(&net, 2, seed);
        assert_close(&outputs(&fold_batch_norm(&net).unwrap(), &images), &outputs(&net, &images), 1e-4);
    }
}

/// Largest difference of two networks' outputs, as a share of the largest output.
fn moved(from: &Network, to: &Network, images: &[f32]) -> f32 {
    let (before, after) = (outputs(from, images), outputs(to, images));
    let scale = before.iter().fold(f32::MIN_POSITIVE, |m, e| m.max(e.abs()));
    before.iter().zip(&after).map(|(b, a)| (b - a).abs()).fold(0.0, f32::max) / scale
}

/// `net` after every way of repairing it that there is.
fn repaired(net: &Network, groups: &ChannelGroups, kept: &KeptChannels, images: &[f32]) -> Vec<(String, Network)> {
    let pool = pool(2);
    let mut all = Vec::new();
    for effort in [Effort::Quick, Effort::Thorough] {
        let data = RefitData::new(&pool, net, groups, images, effort).unwrap();
        for reselect in [false, true] {
            let (network, _) = SequentialRefit::new(&pool, net, groups, &data).run(kept, reselect).unwrap();
            all.push((format!("{effort:?}, reselect {reselect}"), network));
        }
    }
    let equations = calibrate(&pool, net, groups, images, |_| ()).unwrap().equations;
    let equations: Vec<Arc<NormalEquations>> = equations.into_iter().map(Arc::new).collect();
    let solve = |_: usize, e: &NormalEquations, kept: Vec<usize>| e.refit(&kept).map(Arc::new);
    all.push(("original activations".into(), repair(net, groups, &equations, kept, solve).unwrap()));
    all
}

/// Two convolutions with rectifiers and a classifier, whose channels 1 and 4 of both do not depend on the image. No
/// padding, at whose pixels a constant channel is none.
fn with_constant_channels(seed: u64) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
    let mut last = 0;
    for (name, c) in [("a", 3), ("b", 6)] {
        let conv = Conv2d { bias: true, ..Conv2d::square(c, 6, 3, 1, 0) };
        last = b.push(name, Op::Conv2d(conv), &[last]);
        last = b.push(format!("{name}.relu"), Op::Pointwise(Pointwise::Relu), &[last]);
    }
    last = b.push("mean", Op::GlobalAvgPool, &[last]);
    b.push("fc", Op::Linear { in_features: 6, out_features: 4, bias: true }, &[last]);
    let mut net = with_random_weights(b.finish().unwrap(), seed);
    for node in ["a", "b"] {
        let mut weight = net.parameter(node, "weight").clone();
        let mut bias = net.parameter(node, "bias").clone();
        let per_filter = weight.data().len() / 6;
        for constant in [1, 4] {
            weight.data_mut()[constant * per_filter..][..per_filter].fill(0.0);
            bias.data_mut()[constant] = 0.3 + constant as f32;
        }
        net.set_parameter(node, "weight", weight).unwrap();
        net.set_parameter(node, "bias", bias).unwrap();
    }
    net
}

#[test]
fn removing_constant_channels_moves_their_constants_into_biases_and_nothing_else() {
    for seed in 0..4 {
        let net = with_constant_channels(seed);
        let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
        let mut kept = KeptChannels::all(&groups);
        groups.prunable().into_iter().for_each(|g| kept.set(g, vec![0, 2, 3, 5]));
        let images = images(&net, 60, seed);
        for (how, network) in repaired(&net, &groups, &kept, &images) {
            assert_eq!(network.graph().node(1).op, Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(3, 4, 3, 1, 0) }));
            let moved = moved(&net, &network, &images);
            assert!(moved < 1e-3, "seed {seed}, {how}: the outputs moved by {moved} of their size");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]

    #[test]
    fn removing_channels_that_nothing_heeds_leaves_the_function_where_it_was(seed in any::<u64>(), full in any::<bool>()) {
        let net = fold_batch_norm(&any_network(seed)).unwrap();
        let protocol = if full { Protocol::Full } else { Protocol::Inner };
        let groups = ChannelGroups::derive(net.graph(), protocol);
        let kept = random_kept(&groups, seed);
        let net = masked(&net, &groups, &kept);
        let images = images(&net, 40, seed);
        for (how, network) in repaired(&net, &groups, &kept, &images) {
            let moved = moved(&net, &network, &images);
            // Channels are chosen by errors of sums in f32: where a map's outputs hardly vary, others than those kept
            // may be chosen, which do nearly as well. Of 6,000 networks one moved by 1.8 %, and one whose
            // outputs nearly cancel by 0.3 % in every way; all others stay below 0.1 %.
            let bound = if how.contains("reselect true") { 0.1 } else { 1e-2 };
            prop_assert!(moved < bound, "{how}: the outputs moved by {moved} of their size");
        }
    }

    #[test]
    fn a_sequential_refit_keeps_widths_and_runs(seed in any::<u64>(), full in any::<bool>(), reselect in any::<bool>()) {
        let net = fold_batch_norm(&any_network(seed)).unwrap();
        let protocol = if full { Protocol::Full } else { Protocol::Inner };
        let groups = ChannelGroups::derive(net.graph(), protocol);
        let kept = random_kept(&groups, seed);
        let images = images(&net, 40, seed);
        let refit = |n| {
            let pool = pool(n);
            SequentialRefit::new(&pool, &net, &groups, &refit_data(&pool, &net, &groups, &images)).run(&kept, reselect).unwrap()
        };
        let (compact, chosen) = refit(1);
        prop_assert_eq!(chosen.widths(), kept.widths());
        prop_assert!(reselect || chosen == kept);
        let pruned = prune(&net, &groups, &chosen).unwrap();
        prop_assert_eq!(compact.graph(), pruned.graph());
        let logits = Plan::compile(&compact, Arithmetic::default()).unwrap().logits(&pool(2), &images).unwrap();
        prop_assert!(logits.iter().all(|l| l.is_finite()));
        prop_assert!(refit(2) == (compact.clone(), chosen.clone()) && refit(3) == (compact, chosen));
    }
}

/// Residual blocks of 16 channels with 32 inside, one of each kernel size, and a classifier.
fn blocks_of_kernels(kernels: &[usize]) -> Network {
    let conv = |i, o, k| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(i, o, k, 1, k / 2) });
    let mut b = GraphBuilder::new(Shape { c: 3, h: 12, w: 10 });
    let mut x = b.push("stem", conv(3, 16, 3), &[0]);
    for (block, &k) in kernels.iter().enumerate() {
        let y = b.push(format!("{block}.conv1"), conv(16, 32, k), &[x]);
        let y = b.push(format!("{block}.relu1"), Op::Pointwise(Pointwise::Relu), &[y]);
        let y = b.push(format!("{block}.conv2"), conv(32, 16, k), &[y]);
        let sum = b.push(format!("{block}.add"), Op::Add, &[y, x]);
        x = b.push(format!("{block}.relu2"), Op::Pointwise(Pointwise::Relu), &[sum]);
    }
    let mean = b.push("mean", Op::GlobalAvgPool, &[x]);
    b.push("fc", Op::Linear { in_features: 16, out_features: 10, bias: true }, &[mean]);
    with_random_weights(b.finish().unwrap(), 21)
}

#[test]
fn a_compiled_compact_network_of_odd_widths_computes_what_the_masked_one_does() {
    let net = blocks_of_kernels(&[3, 3, 3, 5, 1]);
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    let widths = [7, 13, 29, 13, 7];
    assert_eq!(groups.prunable().len(), widths.len());
    for (g, width) in groups.prunable().into_iter().zip(widths) {
        // Steps of 5 around 32 channels meet each once.
        let mut channels: Vec<usize> = (0..width).map(|i| (3 + 5 * i) % 32).collect();
        channels.sort_unstable();
        kept.set(g, channels);
    }
    let images = images(&net, 19, 6);
    let expected = outputs(&masked(&net, &groups, &kept), &images);
    let compact = prune(&net, &groups, &kept).unwrap();
    for isa in Isa::available() {
        let plan = Plan::compile(&compact, isa).unwrap();
        assert_close(&plan.logits(&pool(2), &images).unwrap(), &expected, 2e-5);
    }
}

/// Two residual blocks of `c` channels with `inner` channels inside, and a classifier.
fn two_blocks() -> Network {
    let (c, inner) = (4, 6);
    let conv = |i, o| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(i, o, 3, 1, 1) });
    let mut b = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
    let mut x = b.push("stem", conv(3, c), &[0]);
    for block in 0..2 {
        let y = b.push(format!("{block}.conv1"), conv(c, inner), &[x]);
        let y = b.push(format!("{block}.relu1"), Op::Pointwise(Pointwise::Relu), &[y]);
        let y = b.push(format!("{block}.conv2"), conv(inner, c), &[y]);
        let sum = b.push(format!("{block}.add"), Op::Add, &[y, x]);
        x = b.push(format!("{block}.relu2"), Op::Pointwise(Pointwise::Relu), &[sum]);
    }
    let mean = b.push("mean", Op::GlobalAvgPool, &[x]);
    b.push("fc", Op::Linear { in_features: c, out_features: 3, bias: true }, &[mean]);
    with_random_weights(b.finish().unwrap(), 11)
}

/// Mean squared difference of a node's output between two networks of the same nodes.
fn difference(a: &Network, b: &Network, node: NodeId, images: &[f32]) -> f64 {
    let [a, b] = [a, b].map(|net| node_outputs(net, node, images));
    a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64
}

/// Widths 3 of 6 inside both blocks.
fn halved(groups: &ChannelGroups) -> KeptChannels {
    let lists = groups.groups().iter().map(|g| match g.frozen {
        None => vec![0, 2, 5],
        Some(_) => (0..g.n_channels).collect(),
    });
    KeptChannels::new(groups, lists.collect()).unwrap()
}

/// The compact network with every consumer refitted on original activations.
fn repaired_in_parallel(net: &Network, groups: &ChannelGroups, kept: &KeptChannels, images: &[f32]) -> Network {
    let mut work = net.clone();
    for equations in calibrate(&pool(1), net, groups, images, |_| ()).unwrap().equations {
        let inputs = kept.positions(groups, net.graph().node(equations.map.node).inputs[0]);
        let outputs: Vec<usize> = (0..equations.map.outputs.len).collect();
        write_refit(&mut work, equations.map.node, &equations.refit(&inputs).unwrap(), &outputs, &inputs).unwrap();
    }
    prune(&work, groups, kept).unwrap()
}

#[test]
fn a_sequential_refit_is_closer_to_the_original_than_a_parallel_one_and_reselection_closer_still() {
    let net = two_blocks();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let kept = halved(&groups);
    let images = images(&net, 60, 4);
    let parallel = repaired_in_parallel(&net, &groups, &kept, &images);
    let pool = pool(2);
    let data = refit_data(&pool, &net, &groups, &images);
    let refit = SequentialRefit::new(&pool, &net, &groups, &data);
    let (sequential, _) = refit.run(&kept, false).unwrap();
    let (reselected, _) = refit.run(&kept, true).unwrap();
    let (first, second) = (6, 11);
    assert!(
        matches!(net.graph().node(first).op, Op::Pointwise(_))
            && matches!(net.graph().node(second).op, Op::Pointwise(_))
    );
    for block in [first, second] {
        let error = |other: &Network| difference(&net, other, block, &images);
        assert!(error(&parallel) < error(&prune(&net, &groups, &kept).unwrap()));
        assert!(error(&sequential) < error(&parallel), "{} {}", error(&sequential), error(&parallel));
        assert!(error(&reselected) < error(&sequential), "{} {}", error(&reselected), error(&sequential));
    }
}

#[test]
fn repairs_side_by_side_are_those_made_one_after_the_other() {
    let net = two_blocks();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let (kept, images) = (halved(&groups), images(&net, 40, 9));
    let expected = repaired_in_parallel(&net, &groups, &kept, &images);
    for n_threads in [1, 3] {
        let pool = pool(n_threads);
        let equations = calibrate(&pool, &net, &groups, &images, |_| ()).unwrap().equations;
        let equations: Vec<Arc<NormalEquations>> = equations.into_iter().map(Arc::new).collect();
        let solve = |_: usize, e: &NormalEquations, kept: Vec<usize>| e.refit(&kept).map(Arc::new);
        let got = pool.install(|| repair(&net, &groups, &equations, &kept, solve)).unwrap();
        assert!(got == expected, "{n_threads} threads");
        let failing =
            |_: usize, _: &NormalEquations, _: Vec<usize>| Err(KernelError::NotFinite { what: "test".into() });
        assert!(pool.install(|| repair(&net, &groups, &equations, &kept, failing)).is_err());
    }
}

#[test]
fn a_refit_with_nothing_removed_is_the_original() {
    let net = two_blocks();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let images = images(&net, 5, 4);
    let pool = pool(1);
    let all = KeptChannels::all(&groups);
    let (same, kept) =
        SequentialRefit::new(&pool, &net, &groups, &refit_data(&pool, &net, &groups, &images)).run(&all, true).unwrap();
    assert_eq!((same, kept), (net, all));
}

#[test]
fn a_second_candidate_is_refitted_as_if_it_were_the_first() {
    let net = two_blocks();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let images = images(&net, 30, 4);
    let pool = pool(2);
    let data = refit_data(&pool, &net, &groups, &images);
    let refit = SequentialRefit::new(&pool, &net, &groups, &data);
    let first = refit.run(&halved(&groups), true).unwrap();
    refit.run(&KeptChannels::all(&groups), true).unwrap();
    assert!(refit.run(&halved(&groups), true).unwrap() == first);
}

#[test]
fn refit_refuses_images_that_are_cut_missing_or_not_finite() {
    let net = two_blocks();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut images = images(&net, 3, 4);
    let pool = pool(1);
    let refuse = |images: &[f32]| RefitData::new(&pool, &net, &groups, images, Effort::Quick).unwrap_err();
    assert!(matches!(refuse(&images[5..]), KernelError::PartialImage { per_image: 192, .. }));
    assert!(matches!(refuse(&[]), KernelError::PartialImage { got: 0, .. }));
    images[7] = f32::NAN;
    assert!(matches!(refuse(&images), KernelError::NotFinite { .. }));
}
