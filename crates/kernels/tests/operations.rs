//! Every operation, on every instruction set of this processor, against the plain loops of the reference.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod convolutions;

use std::sync::Once;

use convolutions::any_conv;
use proptest::prelude::*;
use secateur_kernels::{Isa, KernelError, NodeKernel, Plan, Scratch, interleave, run_reference, separate};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{Conv2d, Graph, GraphBuilder, Network, Op, Pointwise, Shape, Weights, Window};

/// Largest difference from the f64 reference, relative to the magnitudes that f32 rounding acts on: the largest output,
/// and 1.
const TOLERANCE: f32 = 2e-5;

/// The instruction sets of this processor; says which ones go untested.
fn isas() -> Vec<Isa> {
    static TOLD: Once = Once::new();
    let available = Isa::available();
    let missing = [Isa::Avx512, Isa::Avx2].into_iter().filter(|isa| !available.contains(isa));
    TOLD.call_once(|| missing.for_each(|isa| eprintln!("SKIPPED {isa:?}: this processor does not have it")));
    available
}

fn shape(c: usize, h: usize, w: usize) -> Shape {
    Shape { c, h, w }
}

fn single(op: Op, input: Shape) -> Network {
    let mut builder = GraphBuilder::new(input);
    builder.push("op", op, &[0]);
    with_random_weights(builder.finish().unwrap(), 3)
}

fn image(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..len).map(|_| 3.0 * rng.signed()).collect()
}

fn assert_close(got: &[f32], expected: &[f32], context: &str) {
    assert_eq!(got.len(), expected.len(), "{context}");
    let largest = expected.iter().filter(|e| e.is_finite()).fold(1.0f32, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let same = g == e || (g.is_nan() && e.is_nan()) || (g - e).abs() <= TOLERANCE * largest;
        assert!(same, "{context}: element {i}: got {g}, expected {e}");
    }
}

/// Output of one node for one image, which shares its group with images of noise and must not hear them.
fn run_among_others(kernel: &NodeKernel, inputs: &[&[f32]], scratch: &mut Scratch) -> Vec<f32> {
    let lanes = kernel.lanes();
    let lane = inputs[0].len() % lanes;
    let groups: Vec<Vec<f32>> = inputs
        .iter()
        .map(|input| {
            let mut images = image(input.len() * lanes, 77);
            images[lane * input.len()..][..input.len()].copy_from_slice(input);
            let mut group = vec![0.0; images.len()];
            interleave(&images, input.len(), lanes, &mut group);
            group
        })
        .collect();
    let mut group = vec![f32::NAN; kernel.out_len()];
    let inputs: Vec<&[f32]> = groups.iter().map(|g| &g[..]).collect();
    kernel.run(&inputs, &mut group, scratch).unwrap();
    let len = group.len() / lanes;
    let mut out = vec![f32::NAN; group.len()];
    separate(&group, len, lanes, &mut out);
    out[lane * len..][..len].to_vec()
}

/// Runs all nodes of `net` one by one, each fed with the reference values of its inputs.
fn check(net: &Network, image: &[f32]) {
    let expected = run_reference(net, image).unwrap();
    let mut scratch = Scratch::new();
    for isa in isas() {
        for (id, node) in net.graph().nodes().iter().enumerate().skip(1) {
            let kernel = NodeKernel::with_isa(net.graph(), net.weights(), id, isa).unwrap();
            let inputs: Vec<&[f32]> = node.inputs.iter().map(|&i| &expected[i][..]).collect();
            let out = run_among_others(&kernel, &inputs, &mut scratch);
            assert_close(&out, &expected[id], &format!("{isa:?} {:?}", node.op));
        }
    }
}

fn check_single(op: Op, input: Shape) {
    let net = single(op, input);
    check(&net, &image(input.len(), 5));
}

#[test]
fn convolutions_of_every_width_match_the_reference() {
    for c_in in [1, 3, 7, 13, 16, 29] {
        for c_out in [1, 7, 8, 9, 13, 16, 17, 29, 33, 48, 65] {
            let conv = Conv2d { bias: c_out % 2 == 1, ..Conv2d::square(c_in, c_out, 3, 1, 1) };
            check_single(Op::Conv2d(conv), shape(c_in, 5, 7));
        }
    }
}

#[test]
fn convolutions_of_every_map_size_match_the_reference() {
    for (h, w) in [(1, 1), (1, 9), (2, 2), (4, 4), (3, 5), (8, 8), (11, 13), (16, 16), (9, 32)] {
        for stride in [1, 2] {
            check_single(Op::Conv2d(Conv2d::square(6, 20, 3, stride, 1)), shape(6, h, w));
            check_single(Op::Conv2d(Conv2d::square(6, 40, 1, stride, 0)), shape(6, h, w));
        }
    }
}

#[test]
fn linear_layers_match_the_reference() {
    for (in_features, out_features, bias) in [(1, 1, true), (64, 10, true), (37, 100, false), (256, 129, true)] {
        check_single(Op::Linear { in_features, out_features, bias }, shape(in_features, 1, 1));
    }
}

#[test]
fn depthwise_convolutions_match_the_reference() {
    for c in [2, 7, 8, 13, 16, 29, 40] {
        for (stride, multiplier) in [(1, 1), (2, 1), (1, 2)] {
            let conv = Conv2d { groups: c, bias: c % 2 == 0, ..Conv2d::square(c, c * multiplier, 3, stride, 1) };
            check_single(Op::Conv2d(conv), shape(c, 7, 9));
        }
    }
}

#[test]
fn operations_without_parameters_match_the_reference() {
    let x = shape(7, 6, 5);
    for function in Pointwise::EACH {
        check_single(Op::Pointwise(function), x);
    }
    for kernel in [[1, 1], [2, 2], [3, 2], [4, 5]] {
        for stride in [[1, 1], [2, 3]] {
            for padding in [[0, 0], [kernel[0] / 2, kernel[1] / 2]] {
                let window = Window::new(kernel, stride, padding);
                check_single(Op::MaxPool(window.clone()), x);
                check_single(Op::AvgPool(window), x);
            }
        }
    }
    check_single(Op::BatchNorm { channels: 7, eps: 1e-5 }, x);
    check_single(Op::PRelu { channels: 7 }, x);
    check_single(Op::GlobalAvgPool, x);
    check_single(Op::Flatten, x);
    check_single(Op::Softmax, x);
    check_single(Op::Identity, x);
    check_single(Op::Pad { channels: [2, 3], rows: [1, 0], cols: [0, 2] }, x);
    check_single(Op::Pad { channels: [0, 0], rows: [0, 1], cols: [2, 1] }, x);
    check_single(Op::Slice { channels: [2, 6], step: [2, 3] }, x);
    check_single(Op::Slice { channels: [0, 7], step: [1, 2] }, x);
}

#[test]
fn flatten_is_channel_major() {
    let net = single(Op::Flatten, shape(2, 1, 3));
    // HWC (c0, c1) of three pixels; PyTorch flattens CHW.
    let values = run_reference(&net, &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]).unwrap();
    assert_eq!(values[1], [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
}

#[test]
fn a_convolution_worked_out_by_hand() {
    // One channel, 2x2 image, 3x3 kernel of ones with padding 1: every output sees the whole image.
    let mut builder = GraphBuilder::new(shape(1, 2, 2));
    builder.push("op", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(1, 1, 3, 1, 1) }), &[0]);
    let mut net = with_random_weights(builder.finish().unwrap(), 0);
    net.set_parameter("op", "weight", secateur_net::Tensor::new(vec![1, 1, 3, 3], vec![1.0; 9]).unwrap()).unwrap();
    net.set_parameter("op", "bias", secateur_net::Tensor::new(vec![1], vec![0.5]).unwrap()).unwrap();
    for isa in isas() {
        let kernel = NodeKernel::with_isa(net.graph(), net.weights(), 1, isa).unwrap();
        let out = run_among_others(&kernel, &[&[1.0, 2.0, 3.0, 4.0]], &mut Scratch::new());
        assert_eq!(out, [10.5; 4]);
    }
}

#[test]
fn nan_and_infinity_spread_as_in_the_reference() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 40, 104] {
            let x = shape(3, 5, 7);
            let mut values = image(x.len(), 9);
            values[at] = bad;
            let conv = |groups, out| Op::Conv2d(Conv2d { groups, ..Conv2d::square(3, out, 3, 1, 1) });
            let window = Window::new([2, 2], [1, 1], [1, 1]);
            let ops = [conv(1, 17), conv(3, 3), Op::MaxPool(window.clone()), Op::AvgPool(window), Op::GlobalAvgPool];
            let more = Pointwise::EACH.map(Op::Pointwise).into_iter().chain([Op::PRelu { channels: 3 }, Op::Softmax]);
            ops.into_iter().chain(more).for_each(|op| check(&single(op, x), &values));
        }
    }
}

#[test]
fn averages_of_huge_values_are_as_finite_as_in_the_reference() {
    let x = shape(3, 5, 7);
    let window = Window::new([3, 3], [2, 2], [1, 1]);
    for op in [Op::AvgPool(window), Op::GlobalAvgPool] {
        let huge: Vec<f32> = (0..x.len()).map(|i| [3.4e38, -1.0, 3e38][i % 3] * (1.0 - i as f32 * 1e-3)).collect();
        let net = single(op, x);
        let expected = run_reference(&net, &huge).unwrap().swap_remove(1);
        assert!(expected.iter().all(|v| v.is_finite()) && expected.iter().any(|&v| v > 1e38));
        check(&net, &huge);
    }
}

/// 8x8 outputs in tiles of 4x4, which this layer is computed in: what a tile reads reaches one pixel beyond it.
#[test]
fn what_is_not_finite_stays_in_its_tile_and_image_and_becomes_no_number() {
    let (x, n_out, among) = (shape(40, 8, 8), 23, 5);
    let mut builder = GraphBuilder::new(x);
    let conv = builder.push("conv", Op::Conv2d(Conv2d::square(x.c, n_out, 3, 1, 1)), &[0]);
    builder.push("relu", Op::Pointwise(Pointwise::Relu), &[conv]);
    let net = with_random_weights(builder.finish().unwrap(), 3);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for isa in isas() {
        let plan = Plan::compile(&net, isa).unwrap();
        let clean = image(x.len() * isa.lanes(), 9);
        let clean_out = plan.logits(&pool, &clean).unwrap();
        for (row, column) in [(1, 2), (1, 6), (5, 0), (3, 4), (7, 7), (4, 1)] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut images = clean.clone();
                images[among * x.len() + (row * 8 + column) * x.c + 17] = bad;
                let out = plan.logits(&pool, &images).unwrap();
                let expected = run_reference(&net, &images[among * x.len()..][..x.len()]).unwrap().swap_remove(2);
                let reads = |tile: usize, at: usize| (4 * tile..4 * tile + 6).contains(&(at + 1));
                for (i, (&got, &was)) in out.iter().zip(&clean_out).enumerate() {
                    let (at, pixel) = (i % expected.len(), i % expected.len() / n_out);
                    let context = format!("{isa:?}: {bad} at {row}, {column}: value {i}: {got}, was {was}");
                    if i / expected.len() != among || !reads(pixel / 32, row) || !reads(pixel % 8 / 4, column) {
                        assert!(got.is_finite() && got == was, "{context}");
                    } else {
                        assert!(!got.is_finite() || expected[at].is_finite(), "{context}");
                        assert!(got.is_nan() || !expected[at].is_nan(), "{context}");
                    }
                }
            }
        }
    }
}

#[test]
fn buffers_may_begin_anywhere() {
    let conv = |i, o, k, stride, groups| Op::Conv2d(Conv2d { groups, ..Conv2d::square(i, o, k, stride, k / 2) });
    let window = Window::new([3, 2], [2, 1], [1, 1]);
    let maps = [conv(40, 23, 3, 1, 1), conv(40, 23, 3, 2, 1), conv(40, 40, 3, 1, 40), conv(40, 24, 5, 1, 4)];
    let more = [Op::MaxPool(window.clone()), Op::AvgPool(window), Op::GlobalAvgPool, Op::Pointwise(Pointwise::Silu)];
    for op in maps.into_iter().chain(more) {
        let net = single(op.clone(), shape(40, 8, 8));
        for isa in isas() {
            let kernel = NodeKernel::with_isa(net.graph(), net.weights(), 1, isa).unwrap();
            let len = net.graph().input().len() * kernel.lanes();
            let run = |offset: usize| {
                // A line more than is needed, so that some place in it is where a line of the cache begins.
                let (mut x, mut out) = (vec![0.0; len + 32], vec![0.0; kernel.out_len() + 32]);
                let [from, to] = [&x, &out].map(|buffer| buffer.as_ptr().align_offset(64) + offset);
                x[from..from + len].copy_from_slice(&image(len, 4));
                let to = to..to + kernel.out_len();
                kernel.run(&[&x[from..from + len]], &mut out[to.clone()], &mut Scratch::new()).unwrap();
                out[to].iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let aligned = run(0);
            for offset in [1, 7, 15] {
                assert!(run(offset) == aligned, "{isa:?} {op:?}: {offset} values beyond a line of the cache");
            }
        }
    }
}

#[test]
fn denormal_inputs_are_not_flushed() {
    let tiny = f32::from_bits(3);
    let net = single(Op::Pointwise(Pointwise::Relu), shape(5, 1, 1));
    let kernel = NodeKernel::new(net.graph(), net.weights(), 1).unwrap();
    let out = run_among_others(&kernel, &[&[tiny, -tiny, tiny, 0.0, 1.0]], &mut Scratch::new());
    assert_eq!(out, [tiny, 0.0, tiny, 0.0, 1.0]);
    let conv = single(Op::Conv2d(Conv2d::square(4, 9, 3, 1, 1)), shape(4, 3, 3));
    let values: Vec<f32> = (0..36).map(|i| f32::from_bits(i * 1000)).collect();
    for isa in isas() {
        let kernel = NodeKernel::with_isa(conv.graph(), conv.weights(), 1, isa).unwrap();
        let out = run_among_others(&kernel, &[&values], &mut Scratch::new());
        let expected = run_reference(&conv, &values).unwrap();
        // Each of the 36 additions may round to the next denormal.
        let apart = out.iter().zip(&expected[1]).map(|(g, e)| (g - e).abs()).fold(0.0, f32::max);
        assert!(out.iter().any(|&x| x != 0.0) && apart <= f32::from_bits(40), "{isa:?}: {apart:e}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let net = single(Op::Conv2d(Conv2d::square(3, 4, 3, 1, 1)), shape(3, 4, 4));
    let kernel = NodeKernel::with_isa(net.graph(), net.weights(), 1, Isa::Portable).unwrap();
    let (mut out, mut scratch) = (vec![0.0; 64 * 8], Scratch::new());
    let error = kernel.run(&[&[0.0; 48 * 8 - 1]], &mut out, &mut scratch).unwrap_err();
    assert_eq!(error.to_string(), "input 0 of node 'op': expected 384 values, got 383");
    let error = kernel.run(&[&[0.0; 48 * 8]], &mut out[1..], &mut scratch).unwrap_err();
    assert_eq!(error.to_string(), "output of node 'op': expected 512 values, got 511");
    let error = kernel.run(&[], &mut out, &mut scratch).unwrap_err();
    assert_eq!(error, KernelError::InputCount { node: "op".into(), expected: 1, got: 0 });
    let error = NodeKernel::new(net.graph(), net.weights(), 2).unwrap_err();
    assert_eq!(error, KernelError::NoSuchNode { node: 2, n_nodes: 2 });
    let error = NodeKernel::new(net.graph(), &Weights::new(), 1).unwrap_err();
    assert_eq!(error.to_string(), "parameter 'op.weight': expected 108 values, got none");
    let error = run_reference(&net, &[0.0; 3]).unwrap_err();
    assert_eq!(error.to_string(), "image of shape 3x4x4: expected 48 values, got 3");
}

#[test]
fn an_output_beyond_memory_is_refused_and_any_padding_is_not() {
    for groups in [1, 2] {
        let conv = |stride, padding| Conv2d {
            groups,
            in_channels: groups,
            out_channels: groups,
            ..Conv2d::square(1, 1, 1, stride, padding)
        };
        let net = single(Op::Conv2d(conv(1, 1 << 12)), shape(groups, 2, 2));
        let error = NodeKernel::new(net.graph(), net.weights(), 1).unwrap_err();
        assert!(matches!(error, KernelError::OutputTooLarge { .. }), "{error}");
        // All windows but the middle one lie in the padding.
        check_single(Op::Conv2d(conv(1 << 40, 1 << 40)), shape(groups, 2, 2));
    }
}

#[test]
fn a_stride_one_3x3_convolution_matches_the_reference_at_every_size() {
    for (h, w) in [(1, 1), (3, 4), (4, 4), (5, 9), (8, 8), (13, 6), (16, 17)] {
        for padding in [1, 0, 2] {
            if h + 2 * padding >= 3 && w + 2 * padding >= 3 {
                check_single(Op::Conv2d(Conv2d::square(40, 23, 3, 1, padding)), shape(40, h, w));
            }
        }
    }
}

#[test]
fn the_input_node_copies_its_image() {
    let net = single(Op::Identity, shape(2, 2, 1));
    let kernel = NodeKernel::new(net.graph(), net.weights(), 0).unwrap();
    let out = run_among_others(&kernel, &[&[1.0, 2.0, 3.0, 4.0]], &mut Scratch::new());
    assert_eq!(out, [1.0, 2.0, 3.0, 4.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_convolution_matches_the_reference((conv, input) in any_conv(), seed in any::<u64>()) {
        let net = single(Op::Conv2d(conv), input);
        check(&net, &image(input.len(), seed));
    }

    #[test]
    fn every_node_of_a_random_network_matches_the_reference(seed in any::<u64>()) {
        let net = secateur_net::random::random_network(seed);
        check(&net, &image(net.graph().input().len(), seed));
    }
}

#[test]
fn one_scratch_serves_nodes_of_all_sizes() {
    let graphs: Vec<Graph> = (0..20).map(secateur_net::random::random_graph).collect();
    assert!(graphs.iter().any(|g| g.nodes().len() > 5));
    for (seed, graph) in graphs.into_iter().enumerate() {
        let net = with_random_weights(graph, seed as u64);
        check(&net, &image(net.graph().input().len(), seed as u64));
    }
}
