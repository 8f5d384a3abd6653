//! Compiled networks against the reference, whatever is fused and however many threads run them.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use secateur_kernels::{Arithmetic, Isa, KernelError, NodeKernel, Plan, Scratch, interleave, run_reference, separate};
use secateur_net::random::{SplitMix, random_network, with_random_weights};
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape, Tensor};

fn pool(n_threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap()
}

fn images(net: &Network, n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..n * net.graph().input().len()).map(|_| 2.0 * rng.signed()).collect()
}

fn reference_logits(net: &Network, images: &[f32]) -> Vec<f32> {
    let outputs = images.chunks(net.graph().input().len()).map(|image| run_reference(net, image).unwrap());
    outputs.flat_map(|mut values| values.pop().unwrap()).collect()
}

fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, context: &str) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1.0f32, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{context}: element {i}: got {g}, expected {e}");
    }
}

/// Output of the network evaluated node by node, nothing fused.
fn node_by_node(net: &Network, image: &[f32], isa: Isa) -> Vec<f32> {
    let mut scratch = Scratch::new();
    let lanes = isa.lanes();
    let mut group = vec![0.0; image.len() * lanes];
    interleave(image, image.len(), lanes, &mut group);
    let mut values = vec![group];
    for (id, node) in net.graph().nodes().iter().enumerate().skip(1) {
        let kernel = NodeKernel::with_isa(net.graph(), net.weights(), id, isa).unwrap();
        let mut out = vec![0.0; kernel.out_len()];
        let inputs: Vec<&[f32]> = node.inputs.iter().map(|&i| &values[i][..]).collect();
        kernel.run(&inputs, &mut out, &mut scratch).unwrap();
        values.push(out);
    }
    let group = values.pop().unwrap();
    let mut out = vec![0.0; group.len() / lanes];
    separate(&group, out.len(), lanes, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_plan_agrees_with_the_reference_and_with_its_own_nodes(seed in any::<u64>()) {
        let net = random_network(seed);
        let images = images(&net, 3, seed);
        let expected = reference_logits(&net, &images);
        for isa in Isa::available() {
            let logits = Plan::compile(&net, isa).unwrap().logits(&pool(1), &images).unwrap();
            assert_close(&logits, &expected, 1e-4, &format!("{isa:?} against the reference"));
            let first = node_by_node(&net, &images[..net.graph().input().len()], isa);
            assert_close(&logits[..first.len()], &first, 1e-5, &format!("{isa:?} against its nodes"));
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits(seed in any::<u64>(), n in 0usize..40) {
        let net = random_network(seed);
        let images = images(&net, n, seed);
        let plan = Plan::compile(&net, Arithmetic::default()).unwrap();
        let bits = |n_threads| -> Vec<u32> {
            plan.logits(&pool(n_threads), &images).unwrap().into_iter().map(f32::to_bits).collect()
        };
        let one = bits(1);
        prop_assert_eq!(one.len(), n * plan.n_classes());
        prop_assert_eq!(&one, &bits(2));
        prop_assert_eq!(&one, &bits(3));
    }
}

/// Parameters outweigh activations, so several images pass through at a time.
fn heavy_network() -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    let a = b.push("a", Op::Conv2d(Conv2d::square(3, 64, 3, 2, 1)), &[0]);
    let depthwise = Conv2d { groups: 64, ..Conv2d::square(64, 64, 3, 1, 1) };
    let d = b.push("d", Op::Conv2d(depthwise), &[a]);
    let r = b.push("r", Op::Pointwise(Pointwise::Relu6), &[d]);
    let w = b.push("w", Op::Conv2d(Conv2d::square(64, 500, 3, 1, 1)), &[r]);
    let s = b.push("s", Op::Pointwise(Pointwise::Silu), &[w]);
    let m = b.push("m", Op::GlobalAvgPool, &[s]);
    let f = b.push("f", Op::Flatten, &[m]);
    b.push("l", Op::Linear { in_features: 500, out_features: 7, bias: true }, &[f]);
    with_random_weights(b.finish().unwrap(), 11)
}

#[test]
fn images_give_the_same_bits_alone_and_among_others() {
    let net = heavy_network();
    let images = images(&net, 37, 1);
    for isa in Isa::available() {
        let plan = Plan::compile(&net, isa).unwrap();
        let together = plan.logits(&pool(2), &images).unwrap();
        assert_close(&together, &reference_logits(&net, &images), 1e-4, "reference");
        for (i, image) in images.chunks(48).enumerate() {
            assert_eq!(plan.logits(&pool(1), image).unwrap(), together[i * 7..(i + 1) * 7], "{isa:?} image {i}");
        }
    }
}

/// Convolutions of all kinds, with residual, on a map of 13 rows, which no number of threads cuts evenly.
fn tall_network() -> Network {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: 13, w: 9 });
    let first = builder.push("first", Op::Conv2d(Conv2d::square(3, 16, 5, 1, 2)), &[0]);
    let second = builder.push("second", Op::Conv2d(Conv2d::square(16, 16, 3, 1, 1)), &[first]);
    let sum = builder.push("sum", Op::Add, &[first, second]);
    let relu = builder.push("relu", Op::Pointwise(Pointwise::Relu), &[sum]);
    let depthwise = Conv2d { groups: 16, bias: true, ..Conv2d::square(16, 16, 3, 1, 1) };
    let depthwise = builder.push("depthwise", Op::Conv2d(depthwise), &[relu]);
    let sum = builder.push("sum of both", Op::Add, &[relu, depthwise]);
    let third = builder.push("third", Op::Conv2d(Conv2d::square(16, 7, 3, 2, 1)), &[sum]);
    let silu = builder.push("silu", Op::Pointwise(Pointwise::Silu), &[third]);
    builder.push("pool", Op::GlobalAvgPool, &[silu]);
    with_random_weights(builder.finish().unwrap(), 3)
}

#[test]
fn an_image_whose_rows_are_shared_out_gives_the_same_bits() {
    let net = tall_network();
    let images = images(&net, 3, 5);
    for isa in Isa::available() {
        let plan = Plan::compile(&net, isa).unwrap();
        let expected = plan.logits(&pool(1), &images).unwrap();
        assert_close(&expected, &reference_logits(&net, &images), 1e-4, "reference");
        for n_threads in [2, 3, 4, 8] {
            assert_eq!(plan.logits(&pool(n_threads), &images).unwrap(), expected, "{isa:?} on {n_threads} threads");
        }
    }
}

/// `n` features pass through an identity: logits are the image itself.
fn pass_through(n: usize) -> Network {
    scaled(n, 1.0)
}

/// Logits are the image's `n` features times `factor`.
fn scaled(n: usize, factor: f32) -> Network {
    let mut b = GraphBuilder::new(Shape { c: n, h: 1, w: 1 });
    b.push("l", Op::Linear { in_features: n, out_features: n, bias: false }, &[0]);
    let mut net = with_random_weights(b.finish().unwrap(), 0);
    let diagonal = (0..n * n).map(|i| if i / n == i % n { factor } else { 0.0 }).collect();
    net.set_parameter("l", "weight", Tensor::new(vec![n, n], diagonal).unwrap()).unwrap();
    net
}

#[test]
fn the_first_of_equal_logits_is_predicted() {
    let plan = Plan::compile(&pass_through(3), Arithmetic::default()).unwrap();
    let images = [1.0, 2.0, 3.0, 5.0, 5.0, 4.0, -3.0, -2.0, -2.0, f32::NEG_INFINITY.max(-9.0), -9.0, -9.0];
    assert_eq!(plan.predictions(&pool(2), &images).unwrap(), [2, 0, 1, 0]);
    assert_eq!(plan.n_correct(&pool(2), &images, &[2, 1, 1, 0]).unwrap(), 3);
}

#[test]
fn a_nan_image_is_an_error_that_names_the_first_such_image() {
    for isa in Isa::available() {
        let net = random_network(8);
        let plan = Plan::compile(&net, isa).unwrap();
        let mut images = images(&net, 30, 2);
        let len = net.graph().input().len();
        images[17 * len + len / 2] = f32::NAN;
        images[29 * len + len / 2] = f32::NAN;
        let hears_it = reference_logits(&net, &images[17 * len..18 * len]).iter().any(|x| x.is_nan());
        assert!(hears_it, "choose a network whose output depends on the middle of the image");
        assert_eq!(plan.predictions(&pool(2), &images), Err(KernelError::NanLogits { image: 17 }));
        assert_eq!(plan.n_correct(&pool(2), &images, &[0; 30]), Err(KernelError::NanLogits { image: 17 }));
    }
}

#[test]
fn logits_that_overflow_are_no_prediction_either() {
    let plan = Plan::compile(&scaled(2, 10.0), Arithmetic::default()).unwrap();
    for bad in [3e38, -3e38] {
        let images = [1.0, 2.0, 2.0, 1.0, bad, 4.0];
        assert_eq!(plan.logits(&pool(1), &images).unwrap()[4], f32::INFINITY.copysign(bad));
        assert_eq!(plan.predictions(&pool(1), &images), Err(KernelError::NanLogits { image: 2 }));
    }
}

#[test]
fn buffers_of_the_wrong_length_are_refused() {
    let plan = Plan::compile(&pass_through(3), Arithmetic::default()).unwrap();
    let error = plan.logits(&pool(1), &[0.0; 7]).unwrap_err();
    assert_eq!(error.to_string(), "images: 7 values are not a multiple of the 3 values of one image");
    let error = plan.n_correct(&pool(1), &[0.0; 6], &[0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "labels: expected 2, one per image, got 3");
    assert_eq!(plan.logits(&pool(1), &[]).unwrap(), []);
}

#[test]
fn more_classes_than_a_prediction_can_name_are_refused() {
    let mut b = GraphBuilder::new(Shape { c: 1, h: 1, w: 1 });
    b.push("wide", Op::Pad { channels: [0, 65536], rows: [0, 0], cols: [0, 0] }, &[0]);
    let plan = Plan::compile(&with_random_weights(b.finish().unwrap(), 0), Arithmetic::default()).unwrap();
    let error = plan.predictions(&pool(1), &[1.0]).unwrap_err();
    assert_eq!(error, KernelError::TooManyClasses { max: 65536, got: 65537 });
}

#[test]
fn the_image_itself_can_be_read_by_several_steps() {
    let mut b = GraphBuilder::new(Shape { c: 4, h: 3, w: 3 });
    let a = b.push("a", Op::Conv2d(Conv2d::square(4, 4, 3, 1, 1)), &[0]);
    let sum = b.push("sum", Op::Add, &[0, a]);
    let same = b.push("same", Op::Identity, &[0]);
    let both = b.push("both", Op::Concat, &[sum, same, 0]);
    let twice = b.push("twice", Op::Add, &[both, both]);
    b.push("out", Op::Identity, &[twice]);
    let net = with_random_weights(b.finish().unwrap(), 4);
    let images = images(&net, 5, 4);
    let logits = Plan::compile(&net, Arithmetic::default()).unwrap().logits(&pool(2), &images).unwrap();
    assert_close(&logits, &reference_logits(&net, &images), 1e-5, "reference");
}
