//! Gates, shuffles, resizing and norms: values worked out by hand, whole networks against the reference, pruned ones
//! against masked ones.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_kernels::{Arithmetic, Isa, Plan, run_reference};
use secateur_net::random::{SplitMix, random_network_of_every_operation, with_random_weights};
use secateur_net::{
    ChannelGroups, Conv2d, Graph, GraphBuilder, KeptChannels, Network, Op, Pointwise, Protocol, Shape, Tap, Tensor,
    Weights, prune,
};

fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, context: &str) {
    assert_eq!(got.len(), expected.len(), "{context}");
    let scale = expected.iter().fold(1.0f32, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{context}: element {i}: got {g}, expected {e}");
    }
}

/// What the reference and every plan make of one image.
fn check(graph: Graph, weights: Weights, image: &[f32], expected: &[f32]) {
    let net = Network::new(graph, weights).unwrap();
    let context = format!("{:?}", net.graph().node(net.graph().output()).op);
    assert_close(&run_reference(&net, image).unwrap().pop().unwrap(), expected, 1e-6, &context);
    for isa in Isa::available() {
        let got = Plan::compile(&net, isa).unwrap().logits(&pool(), image).unwrap();
        assert_close(&got, expected, 1e-6, &format!("{isa:?} {context}"));
    }
}

fn check_single(op: Op, input: [usize; 3], image: &[f32], expected: &[f32]) {
    let [c, h, w] = input;
    let mut b = GraphBuilder::new(Shape { c, h, w });
    b.push("op", op, &[0]);
    check(b.finish().unwrap(), Weights::new(), image, expected);
}

#[test]
fn a_gate_of_one_pixel_or_one_channel_counts_for_all() {
    // Two channels in two pixels: (1, 10), (2, 20). The largest of each is 2, 20; the first channel alone is 1, 2.
    let image = [1.0, 10.0, 2.0, 20.0];
    for (op, per_pixel, per_channel, all) in [
        (Op::Mul, [2.0, 200.0, 4.0, 400.0], [1.0, 10.0, 4.0, 40.0], [2.0, 200.0, 8.0, 800.0]),
        (Op::Add, [3.0, 30.0, 4.0, 40.0], [2.0, 11.0, 4.0, 22.0], [4.0, 31.0, 6.0, 42.0]),
    ] {
        // In either order, and three at a time.
        for (order, expected) in
            [(vec![0, 1], per_pixel), (vec![1, 0], per_pixel), (vec![2, 0], per_channel), (vec![1, 2, 0], all)]
        {
            let mut b = GraphBuilder::new(Shape { c: 2, h: 1, w: 2 });
            b.push("most", Op::GlobalMaxPool, &[0]);
            b.push("first", Op::Slice { channels: [0, 1], step: [1, 1] }, &[0]);
            let unread: Vec<usize> = [1, 2].into_iter().filter(|i| !order.contains(i)).collect();
            let last = b.push("gated", op.clone(), &order);
            // What the order leaves out is read and taken away again, as every node must be read.
            let mut parts = vec![last];
            parts.extend(unread);
            let joined = if parts.len() > 1 && parts[1] == 2 {
                b.push("join", Op::Concat, &parts)
            } else if parts.len() > 1 {
                let wide = Op::Resize { rows: vec![Tap::nearest(0)], cols: vec![Tap::nearest(0); 2] };
                let wide = b.push("wide", wide, &[1]);
                b.push("join", Op::Concat, &[last, wide])
            } else {
                last
            };
            b.push("cut", Op::Slice { channels: [0, 2], step: [1, 1] }, &[joined]);
            check(b.finish().unwrap(), Weights::new(), &image, &expected);
        }
    }
}

#[test]
fn channels_and_pixels_go_where_the_operations_put_them() {
    let channels = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let op = |groups| Op::ChannelShuffle { groups };
    check_single(op(2), [6, 1, 1], &channels, &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    check_single(op(3), [6, 1, 1], &channels, &[0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
    // Two channels of 1x2 pixels, pixel by pixel.
    check_single(Op::FlattenPixels, [2, 1, 2], &[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 4.0]);
    check_single(Op::Flatten, [2, 1, 2], &[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]);
    check_single(Op::GlobalMaxPool, [2, 1, 2], &[1.0, -2.0, -3.0, -4.0], &[1.0, -2.0]);
    // One pixel of eight channels becomes 2x2 pixels of two.
    let eight: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let op = |columns_rows_depth| Op::DepthToSpace { block: 2, columns_rows_depth };
    check_single(op(false), [8, 1, 1], &eight, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    check_single(op(true), [8, 1, 1], &eight, &[0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
}

#[test]
fn resizing_is_nearest_or_linear_as_its_taps_say() {
    let image = [1.0, 2.0, 3.0, 4.0];
    let twice: Vec<Tap> = [0, 0, 1, 1].map(Tap::nearest).to_vec();
    let nearest = Op::Resize { rows: twice.clone(), cols: twice };
    let rows = [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0], [3.0, 3.0, 4.0, 4.0]];
    check_single(nearest, [1, 2, 2], &image, &rows.concat());
    // Pixel centres of the output at -0.25, 0.25, 0.75 and 1.25 of the input.
    let linear = |share| Tap { first: 0, second: 1, share };
    let taps = vec![Tap::nearest(0), linear(0.25), linear(0.75), Tap::nearest(1)];
    let rows = [[1.0, 1.25, 1.75, 2.0], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3.0, 3.25, 3.75, 4.0]];
    check_single(Op::Resize { rows: taps.clone(), cols: taps }, [1, 2, 2], &image, &rows.concat());
    // Values without a share are not multiplied by zero.
    let whole = vec![Tap { first: 0, second: 1, share: 1.0 }];
    check_single(
        Op::Resize { rows: whole.clone(), cols: whole },
        [1, 2, 2],
        &[f32::INFINITY, f32::NAN, 3.0, 4.0],
        &[4.0],
    );
}

#[test]
fn a_layer_norm_works_on_the_channels_of_each_pixel() {
    let mut b = GraphBuilder::new(Shape { c: 2, h: 1, w: 2 });
    b.push("norm", Op::LayerNorm { channels: 2, eps: 3.0 }, &[0]);
    let vector = |values: [f32; 2]| Tensor::new(vec![2], values.to_vec()).unwrap();
    let weights =
        Weights::from([("norm.weight".into(), vector([1.0, 2.0])), ("norm.bias".into(), vector([0.0, 10.0]))]);
    // Means 4 and 7, variances 1 and 0: deviations of -1 and 1 over sqrt(1 + 3).
    check(b.finish().unwrap(), weights, &[3.0, 5.0, 7.0, 7.0], &[-0.5, 11.0, 0.0, 10.0]);
}

fn images(net: &Network, n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..n * net.graph().input().len()).map(|_| rng.signed()).collect()
}

fn outputs(net: &Network, images: &[f32]) -> Vec<f32> {
    let images = images.chunks(net.graph().input().len());
    images.flat_map(|image| run_reference(net, image).unwrap().pop().unwrap()).collect()
}

#[test]
fn plans_of_random_networks_agree_with_the_reference() {
    for seed in 0..150 {
        let net = random_network_of_every_operation(seed);
        let images = images(&net, 3, seed);
        let expected = outputs(&net, &images);
        for isa in Isa::available() {
            let got = Plan::compile(&net, isa).unwrap().logits(&pool(), &images).unwrap();
            assert_close(&got, &expected, 2e-3, &format!("seed {seed}, {isa:?}"));
        }
        let got = Plan::compile(&net, Arithmetic::default()).unwrap().logits(&pool(), &images).unwrap();
        assert_close(&got, &expected, 2e-3, &format!("seed {seed}"));
    }
}

/// A convolution whose channels a squeeze-and-excite gate weighs, and a classifier.
fn gated() -> Network {
    let conv = |i, o| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(i, o, 1, 1, 0) });
    let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    let x = b.push("x", conv(3, 8), &[0]);
    let mean = b.push("mean", Op::GlobalAvgPool, &[x]);
    let reduce = b.push("reduce", conv(8, 4), &[mean]);
    let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[reduce]);
    let expand = b.push("expand", conv(4, 8), &[relu]);
    let gate = b.push("gate", Op::Pointwise(Pointwise::Sigmoid), &[expand]);
    let gated = b.push("gated", Op::Mul, &[gate, x]);
    let flat = b.push("flat", Op::FlattenPixels, &[gated]);
    b.push("fc", Op::Linear { in_features: 128, out_features: 3, bias: true }, &[flat]);
    with_random_weights(b.finish().unwrap(), 5)
}

#[test]
fn the_gate_of_a_channel_goes_with_it_and_the_width_inside_the_gate_is_free() {
    let net = gated();
    for protocol in Protocol::ALL {
        let groups = ChannelGroups::derive(net.graph(), protocol);
        let prunable: Vec<_> = groups.prunable().iter().map(|&g| groups.group(g)).collect();
        let found: Vec<(&str, usize)> = prunable.iter().map(|g| (g.name.as_str(), g.n_channels)).collect();
        assert_eq!(found, [("x", 8), ("reduce", 4)]);
        assert_eq!(prunable[0].producers, [1, 5]);
    }
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    kept.set(groups.prunable()[0], vec![1, 2, 6]);
    kept.set(groups.prunable()[1], vec![0, 3]);
    let compact = prune(&net, &groups, &kept).unwrap();
    assert_eq!(compact.graph().shape(7), Shape { c: 3, h: 4, w: 4 });
    // By hand: the readers of what is removed get zeros.
    let mut masked = net.clone();
    for (node, n_in, there) in [("reduce", 8, &[1, 2, 6][..]), ("expand", 4, &[0, 3]), ("fc", 8, &[1, 2, 6])] {
        let mut weight = net.parameter(node, "weight").clone();
        let of_removed = weight.data_mut().iter_mut().enumerate().filter(|(i, _)| !there.contains(&(i % n_in)));
        of_removed.for_each(|(_, w)| *w = 0.0);
        masked.set_parameter(node, "weight", weight).unwrap();
    }
    let images = images(&net, 3, 1);
    assert_close(&outputs(&compact, &images), &outputs(&masked, &images), 1e-5, "gated");
}
