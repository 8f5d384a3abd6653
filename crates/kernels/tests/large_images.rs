//! Networks on images so large that the lanes of a vector are channels, through what everyone calls.
#![allow(clippy::unwrap_used, reason = "tests")]

use rayon::{ThreadPool, ThreadPoolBuilder};
use secateur_kernels::{Isa, Plan, run_reference};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape, Window, arch, fold_batch_norm};

fn pool(n_threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap()
}

fn images(net: &Network, n: usize) -> Vec<f32> {
    let mut rng = SplitMix(3);
    (0..n * net.graph().input().len()).map(|_| 2.0 * rng.signed()).collect()
}

/// A residual block, an inverted bottleneck with squeeze and excitation, a shuffled pair of branches; wide where maps
/// are small.
fn network() -> Network {
    let square = Conv2d::square;
    let mut b = GraphBuilder::new(Shape { c: 3, h: 98, w: 99 });
    let conv = |b: &mut GraphBuilder, name: &str, conv: Conv2d, at| {
        b.push(name.to_owned(), Op::Conv2d(Conv2d { bias: true, ..conv }), &[at])
    };
    let act = |b: &mut GraphBuilder, name: &str, f, at| b.push(name.to_owned(), Op::Pointwise(f), &[at]);
    let stem = conv(&mut b, "stem", square(3, 20, 7, 2, 3), 0);
    let stem = act(&mut b, "stem relu", Pointwise::Relu, stem);
    let pooled = b.push("pool", Op::MaxPool(Window::new([3, 3], [2, 2], [1, 1])), &[stem]);
    let first = conv(&mut b, "first", square(20, 20, 3, 1, 1), pooled);
    let first = act(&mut b, "first relu", Pointwise::Relu, first);
    let second = conv(&mut b, "second", square(20, 20, 3, 1, 1), first);
    let sum = b.push("sum", Op::Add, &[second, pooled]);
    let sum = act(&mut b, "sum relu", Pointwise::Relu, sum);
    let wide = conv(&mut b, "wide", square(20, 75, 1, 1, 0), sum);
    let wide = act(&mut b, "wide silu", Pointwise::Silu, wide);
    let depthwise = Conv2d { groups: 75, ..square(75, 75, 5, 2, 2) };
    let deep = conv(&mut b, "deep", depthwise, wide);
    let sigmoid = act(&mut b, "deep sigmoid", Pointwise::Sigmoid, deep);
    let deep = b.push("deep silu", Op::Mul, &[deep, sigmoid]);
    let mean = b.push("squeeze", Op::GlobalAvgPool, &[deep]);
    let gate = conv(&mut b, "gate down", square(75, 6, 1, 1, 0), mean);
    let gate = act(&mut b, "gate silu", Pointwise::Silu, gate);
    let gate = conv(&mut b, "gate up", square(6, 75, 1, 1, 0), gate);
    let gate = act(&mut b, "gate sigmoid", Pointwise::Sigmoid, gate);
    let gated = b.push("gated", Op::Mul, &[deep, gate]);
    let narrow = conv(&mut b, "narrow", square(75, 40, 1, 1, 0), gated);
    let left = b.push("left", Op::Slice { channels: [0, 20], step: [1, 1] }, &[narrow]);
    let right = b.push("right", Op::Slice { channels: [20, 40], step: [1, 1] }, &[narrow]);
    let right = conv(&mut b, "right conv", square(20, 20, 3, 1, 1), right);
    let both = b.push("both", Op::Concat, &[left, right]);
    let shuffled = b.push("shuffled", Op::ChannelShuffle { groups: 2 }, &[both]);
    let last = conv(&mut b, "last", square(40, 300, 3, 2, 1), shuffled);
    let last = act(&mut b, "last relu", Pointwise::HardSwish, last);
    let mean = b.push("mean", Op::GlobalAvgPool, &[last]);
    let flat = b.push("flat", Op::Flatten, &[mean]);
    b.push("classes", Op::Linear { in_features: 300, out_features: 11, bias: true }, &[flat]);
    with_random_weights(b.finish().unwrap(), 9)
}

#[test]
fn a_large_image_agrees_with_the_reference_alone_among_others_and_on_any_number_of_threads() {
    let net = network();
    let (images, len) = (images(&net, 19), net.graph().input().len());
    let expected: Vec<f32> = images.chunks(len).flat_map(|x| run_reference(&net, x).unwrap().pop().unwrap()).collect();
    let scale = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for isa in Isa::available() {
        let plan = Plan::compile(&net, isa).unwrap();
        let together = plan.logits(&pool(1), &images).unwrap();
        for (i, (got, expected)) in together.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() <= 1e-4 * scale, "{isa:?}, value {i}: got {got}, expected {expected}");
        }
        for n_threads in [2, 3, 8] {
            assert_eq!(plan.logits(&pool(n_threads), &images).unwrap(), together, "{isa:?} on {n_threads} threads");
        }
        for (i, image) in images.chunks(len).enumerate() {
            let alone = plan.logits(&pool(1 + i % 3), image).unwrap();
            assert_eq!(alone, together[i * 11..(i + 1) * 11], "{isa:?}: image {i} alone");
        }
    }
}

#[test]
fn first_convolutions_of_any_kernel_stride_padding_and_dilation_agree_with_the_reference() {
    let square = Conv2d::square(3, 21, 3, 2, 1);
    let variants = [
        square.clone(),
        Conv2d { kernel: [7, 7], padding: [3, 3], ..square.clone() },
        Conv2d { kernel: [2, 5], stride: [1, 3], padding: [0, 2], ..square.clone() },
        Conv2d { kernel: [5, 2], stride: [3, 1], padding: [4, 1], dilation: [2, 1], ..square.clone() },
        Conv2d { kernel: [3, 3], padding: [2, 2], dilation: [1, 2], ..square.clone() },
        Conv2d { kernel: [4, 4], stride: [4, 4], padding: [0, 0], ..square },
    ];
    for conv in variants {
        let mut b = GraphBuilder::new(Shape { c: 3, h: 99, w: 104 });
        let stem = b.push("stem".to_owned(), Op::Conv2d(Conv2d { bias: true, ..conv.clone() }), &[0]);
        let stem = b.push("relu".to_owned(), Op::Pointwise(Pointwise::Relu), &[stem]);
        b.push("flat".to_owned(), Op::Flatten, &[stem]);
        let net = with_random_weights(b.finish().unwrap(), 5);
        let images = images(&net, 3);
        let expected =
            images.chunks(net.graph().input().len()).flat_map(|x| run_reference(&net, x).unwrap().pop().unwrap());
        let expected: Vec<f32> = expected.collect();
        let scale = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for isa in Isa::available() {
            let got = Plan::compile(&net, isa).unwrap().logits(&pool(2), &images).unwrap();
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let is_close = (got - expected).abs() <= 1e-5 * scale;
                assert!(is_close, "{conv:?} on {isa:?}, value {i}: got {got}, expected {expected}");
            }
        }
    }
}

#[test]
fn a_network_of_plain_convolutions_in_small_calls_agrees_with_the_reference_however_many_images_come() {
    let shape = Shape { c: 3, h: 96, w: 97 };
    let net = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10).unwrap(), 4)).unwrap();
    let (images, len) = (images(&net, 11), shape.len());
    let expected: Vec<f32> = images.chunks(len).flat_map(|x| run_reference(&net, x).unwrap().pop().unwrap()).collect();
    let scale = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for isa in Isa::available() {
        let plan = Plan::compile_for_calls(&net, isa, 2).unwrap();
        let together = plan.logits(&pool(2), &images).unwrap();
        for (i, (got, expected)) in together.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() <= 1e-4 * scale, "{isa:?}, value {i}: got {got}, expected {expected}");
        }
        for (i, pair) in images.chunks(2 * len).enumerate() {
            let alone = plan.logits(&pool(1 + i % 3), pair).unwrap();
            assert_eq!(alone, together[i * 20..i * 20 + alone.len()], "{isa:?}: images from {} on", 2 * i);
        }
    }
}

#[test]
fn the_times_of_all_steps_are_told_by_node() {
    let net = network();
    let plan = Plan::compile(&net, Isa::detect()).unwrap();
    let times = plan.step_times(&pool(2), &images(&net, 3)).unwrap();
    let names: Vec<&str> = times.iter().map(|time| &*net.graph().node(time.node).name).collect();
    assert_eq!(names[..4], ["stem", "pool", "first", "second"]);
    assert_eq!(names.last(), Some(&"classes"));
    assert!(times.iter().all(|time| time.seconds > 0.0));
    assert!(plan.step_times(&pool(1), &[0.5; 7]).is_err());
}
