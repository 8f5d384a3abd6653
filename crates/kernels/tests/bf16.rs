//! Plans in bf16 against the plain loops of the reference, on inputs and weights that were rounded here, by other
//! arithmetic. Without AVX512-BF16 the tests say so and pass.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod convolutions;

use convolutions::any_conv;
use proptest::prelude::*;
use secateur_kernels::{Arithmetic, KernelError, Plan, Precision, run_reference};
use secateur_net::random::{SplitMix, random_network, with_random_weights};
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape, Tap, Tensor, Weights, Window};

/// Largest error of a rounding to 8 significant bits.
const ROUNDING: f32 = 1.0 / 256.0;

fn pool(n: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

/// To 8 significant bits, ties to even.
fn rounded(x: f32) -> f32 {
    if x == 0.0 {
        return x;
    }
    let unit = 2f64.powi(f64::from(x).abs().log2().floor() as i32 - 7);
    ((f64::from(x) / unit).round_ties_even() * unit) as f32
}

fn is_there() -> bool {
    let is_there = Precision::Bf16.is_available();
    if !is_there {
        eprintln!("SKIPPED: this processor does not have AVX512-BF16");
    }
    is_there
}

fn images(n: usize, len: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..n * len).map(|_| rounded(3.0 * rng.signed())).collect()
}

/// `op` with rounded random weights, then a padding by nothing: the last step of a plan is f32, here it only shows the
/// pairs.
fn single(op: Op, input: Shape, then: Option<Pointwise>) -> Network {
    let mut b = GraphBuilder::new(input);
    let node = b.push("op", op, &[0]);
    let node = then.map_or(node, |function| b.push("then", Op::Pointwise(function), &[node]));
    b.push("same", Op::Pad { channels: [0, 0], rows: [0, 0], cols: [0, 0] }, &[node]);
    let net = with_random_weights(b.finish().unwrap(), 3);
    let round = |t: &Tensor| Tensor::new(t.shape().to_vec(), t.data().iter().map(|&w| rounded(w)).collect()).unwrap();
    let weights = net.weights().iter().map(|(name, t)| (name.clone(), round(t))).collect();
    Network::new(net.graph().clone(), weights).unwrap()
}

/// Outputs of `n` images, which must be within `relative` of each reference value, and `overall` of the largest.
fn check(net: &Network, n: usize, [relative, overall]: [f32; 2], context: &str) {
    let len = net.graph().input().len();
    let images = images(n, len, 5);
    let got = Plan::compile(net, Precision::Bf16).unwrap().logits(&pool(1), &images).unwrap();
    for (image, (x, got)) in images.chunks(len).zip(got.chunks(net.graph().n_classes())).enumerate() {
        let expected = run_reference(net, x).unwrap().pop().unwrap();
        let largest = expected.iter().fold(0.0f32, |m, e| m.max(e.abs()));
        for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
            let bound = relative * e.abs() + overall * largest;
            assert!((g - e).abs() <= bound, "{context}: image {image}, value {i}: got {g}, expected {e}");
        }
    }
}

/// A convolution that no tile suits is exact but for one rounding of the output.
const DIRECT: [f32; 2] = [1.01 * ROUNDING, 1e-5];
/// Winograd's products are rounded themselves, 36 for 16 outputs.
const WINOGRAD: [f32; 2] = [1.01 * ROUNDING, 0.05];

#[test]
fn direct_convolutions_of_every_width_are_exact_but_for_the_output() {
    if !is_there() {
        return;
    }
    for c_in in 1..=17 {
        for c_out in (1..=17).chain([31, 33, 48]) {
            let conv = Conv2d { bias: c_out % 2 == 1, ..Conv2d::square(c_in, c_out, 3, 2, 1) };
            check(
                &single(Op::Conv2d(conv), Shape { c: c_in, h: 5, w: 7 }, None),
                1,
                DIRECT,
                &format!("{c_in} -> {c_out}"),
            );
        }
    }
}

#[test]
fn winograd_of_every_width_is_near() {
    if !is_there() {
        return;
    }
    for c_in in [1, 2, 7, 8, 16, 17, 29] {
        for c_out in [7, 8, 9, 16, 17, 33] {
            for size in [[8, 8], [5, 7], [1, 9]] {
                let conv = Conv2d { bias: c_out % 2 == 1, ..Conv2d::square(c_in, c_out, 3, 1, 1) };
                let net = single(Op::Conv2d(conv), Shape { c: c_in, h: size[0], w: size[1] }, Some(Pointwise::Relu));
                check(&net, 1, WINOGRAD, &format!("{c_in} -> {c_out} at {size:?}"));
            }
        }
    }
}

#[test]
fn tall_maps_of_narrow_layers_are_near_with_what_is_added_to_them() {
    if !is_there() {
        return;
    }
    for [c_in, c_out] in [[16, 8], [8, 16], [7, 13], [13, 7], [1, 4]] {
        for (h, w) in [(16, 16), (17, 5), (33, 9), (50, 2)] {
            for padding in [0, 1, 2] {
                let mut b = GraphBuilder::new(Shape { c: c_in, h, w: w + 2 });
                let conv = |i, o, padding| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(i, o, 3, 1, padding) });
                let first = b.push("first", conv(c_in, c_out, padding), &[0]);
                let shortcut = b.push("relu", Op::Pointwise(Pointwise::Relu), &[first]);
                let second = b.push("second", conv(c_out, c_out, 1), &[shortcut]);
                let sum = b.push("sum", Op::Add, &[second, shortcut]);
                let relu6 = b.push("relu6", Op::Pointwise(Pointwise::Relu6), &[sum]);
                b.push("same", Op::Pad { channels: [0, 0], rows: [0, 0], cols: [0, 0] }, &[relu6]);
                let net = with_random_weights(b.finish().unwrap(), 3);
                let context = format!("{c_in} -> {c_out} at {h} x {w}, padding {padding}");
                check(&net, 2, [2.0 * ROUNDING, 0.02], &context);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_convolution_is_near((conv, input) in any_conv()) {
        if is_there() {
            let may_be_winograd = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1];
            let bounds = if may_be_winograd { WINOGRAD } else { DIRECT };
            check(&single(Op::Conv2d(conv.clone()), input, None), 3, bounds, &format!("{conv:?} of {input}"));
        }
    }

    #[test]
    fn any_network_is_near_and_the_same_on_any_number_of_threads(seed in any::<u64>(), n in 0usize..40) {
        if !is_there() {
            return Ok(());
        }
        let net = random_network(seed);
        let images = images(n, net.graph().input().len(), seed);
        let plan = Plan::compile(&net, Precision::Bf16).unwrap();
        let logits = plan.logits(&pool(1), &images).unwrap();
        let expected = Plan::compile(&net, Arithmetic::default()).unwrap().logits(&pool(1), &images).unwrap();
        let energy = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let error = energy(&mut logits.iter().zip(&expected).map(|(g, e)| g - e));
        // Outputs that nearly cancel lose digits: of 8,000 random networks three are off by more than 3 %. What is
        // computed wrongly is off by all of it.
        prop_assert!(error <= 0.1f64.powi(2) * energy(&mut expected.iter().copied()), "{error}");
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&logits), bits(&plan.logits(&pool(3), &images).unwrap()));
    }
}

#[test]
fn what_is_no_convolution_is_exact_but_for_the_output() {
    if !is_there() {
        return;
    }
    let window = Window::new([3, 2], [2, 1], [1, 1]);
    for c in [1, 2, 7, 8] {
        let depthwise = Conv2d { groups: c, ..Conv2d::square(c, c, 3, 1, 1) };
        let ops = [
            Op::Conv2d(depthwise),
            Op::MaxPool(window.clone()),
            Op::AvgPool(window.clone()),
            Op::GlobalAvgPool,
            Op::Pointwise(Pointwise::Silu),
            Op::Pointwise(Pointwise::LeakyRelu { slope: 0.1 }),
            Op::Pointwise(Pointwise::Clip { min: -0.5, max: f32::INFINITY }),
            Op::Pad { channels: [1, 2], rows: [1, 0], cols: [0, 2] },
            Op::Slice { channels: [c / 2, c], step: [2, 3] },
            Op::BatchNorm { channels: c, eps: 1e-5 },
            Op::PRelu { channels: c },
            Op::Flatten,
        ];
        for op in ops {
            let context = format!("{op:?} of {c} channels");
            check(&single(op, Shape { c, h: 5, w: 6 }, None), 17, DIRECT, &context);
        }
    }
}

#[test]
fn a_flattened_image_of_one_channel_is_read_as_its_pixels() {
    if !is_there() {
        return;
    }
    let mut b = GraphBuilder::new(Shape { c: 1, h: 3, w: 5 });
    let flat = b.push("flat", Op::Flatten, &[0]);
    let linear = b.push("linear", Op::Linear { in_features: 15, out_features: 15, bias: true }, &[flat]);
    b.push("sum", Op::Add, &[linear, flat]);
    let net = with_random_weights(b.finish().unwrap(), 3);
    // The last step computes in f32 what was given in bf16.
    check(&net, 5, [1e-5, 1e-5], "last step");
    let mut b = GraphBuilder::new(Shape { c: 1, h: 3, w: 5 });
    let flat = b.push("flat", Op::Flatten, &[0]);
    let first = b.push("first", Op::Linear { in_features: 15, out_features: 15, bias: true }, &[flat]);
    let sum = b.push("sum", Op::Add, &[first, flat]);
    b.push("last", Op::Linear { in_features: 15, out_features: 3, bias: true }, &[sum]);
    check(&with_random_weights(b.finish().unwrap(), 3), 5, [0.0, 0.01], "step in between");
}

#[test]
fn not_finite_values_stay_so_and_stay_in_their_image() {
    if !is_there() {
        return;
    }
    let conv = |stride| Op::Conv2d(Conv2d::square(3, 5, 3, stride, 1));
    for op in [conv(1), conv(2), Op::Pointwise(Pointwise::Relu)] {
        let net = single(op.clone(), Shape { c: 3, h: 8, w: 8 }, None);
        let plan = Plan::compile(&net, Precision::Bf16).unwrap();
        let mut images = images(20, 192, 4);
        let clean = plan.logits(&pool(1), &images).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            images[7 * 192 + 90] = bad;
            let n = clean.len() / 20;
            let logits = plan.logits(&pool(1), &images).unwrap();
            let is_finite = |image: usize| logits[image * n..(image + 1) * n].iter().all(|x| x.is_finite());
            // A rectifier makes zero of minus infinity, and NaN must not become a number.
            let vanishes = matches!(op, Op::Pointwise(_)) && bad == f32::NEG_INFINITY;
            assert!((0..20).all(|image| is_finite(image) == (image != 7 || vanishes)), "{op:?}, {bad}");
            assert!((0..20).filter(|&i| i != 7).all(|i| logits[i * n..(i + 1) * n] == clean[i * n..(i + 1) * n]));
        }
    }
}

#[test]
fn denormals_count_as_zero() {
    if !is_there() {
        return;
    }
    let net = single(Op::Pointwise(Pointwise::Relu), Shape { c: 3, h: 1, w: 1 }, None);
    let images = [f32::from_bits(3), f32::MIN_POSITIVE / 2.0, f32::MIN_POSITIVE];
    let logits = Plan::compile(&net, Precision::Bf16).unwrap().logits(&pool(1), &images).unwrap();
    assert_eq!(logits, [0.0, 0.0, f32::MIN_POSITIVE]);
}

#[test]
fn f32_is_the_default_and_the_same_as_ever() {
    let net = random_network(12);
    let images = images(20, net.graph().input().len(), 1);
    let f32 = Plan::compile(&net, Precision::default()).unwrap().logits(&pool(1), &images).unwrap();
    assert_eq!(f32, Plan::compile(&net, Arithmetic::default()).unwrap().logits(&pool(1), &images).unwrap());
}

#[test]
fn a_processor_without_the_instructions_is_told_so() {
    let result = Plan::compile(&random_network(1), Precision::Bf16);
    if Precision::Bf16.is_available() {
        assert!(result.is_ok());
    } else {
        assert_eq!(result.unwrap_err(), KernelError::Bf16Unavailable);
    }
    let message = "precision bf16: this processor does not have AVX512-BF16; use precision f32";
    assert_eq!(KernelError::Bf16Unavailable.to_string(), message);
}

#[test]
fn operations_that_move_or_weigh_values_are_exact_but_for_the_output() {
    if !is_there() {
        return;
    }
    let taps = |n: usize, of: usize| {
        (0..n).map(|i| Tap { first: i % of, second: (i + 1) % of, share: 0.25 * (i % 5) as f32 }).collect::<Vec<_>>()
    };
    for c in [4, 12, 20] {
        let shape = Shape { c, h: 3, w: 5 };
        let mapped = [
            Op::ChannelShuffle { groups: 4 },
            Op::FlattenPixels,
            Op::DepthToSpace { block: 2, columns_rows_depth: true },
            Op::DepthToSpace { block: 2, columns_rows_depth: false },
            Op::Resize { rows: taps(7, 3), cols: taps(4, 5) },
            Op::LayerNorm { channels: c, eps: 1e-3 },
            Op::GlobalMaxPool,
        ];
        for op in mapped {
            check(&single(op.clone(), shape, None), 3, [1.01 * ROUNDING, 1e-4], &format!("{c} channels, {op:?}"));
        }
        for op in [Op::Mul, Op::Add] {
            let mut b = GraphBuilder::new(shape);
            let most = b.push("most", Op::GlobalMaxPool, &[0]);
            let one = b.push("one", Op::Slice { channels: [1, 2], step: [1, 1] }, &[0]);
            let gated = b.push("gated", op.clone(), &[most, 0, one]);
            b.push("same", Op::Pad { channels: [0, 0], rows: [0, 0], cols: [0, 0] }, &[gated]);
            let net = Network::new(b.finish().unwrap(), Weights::new()).unwrap();
            check(&net, 3, DIRECT, &format!("{c} channels, {op:?}"));
        }
    }
}
