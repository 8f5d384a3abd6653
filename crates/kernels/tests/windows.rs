//! Pooling windows: numbers of PyTorch, and plain loops over the definition.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;
use secateur_kernels::{Arithmetic, Isa, Plan, Precision, run_reference};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{GraphBuilder, Network, Op, Shape, Window};

/// `op` of an image, and another node behind it: the last step of a plan in bf16 is f32.
fn single(op: Op, input: Shape) -> Network {
    let mut b = GraphBuilder::new(input);
    let pool = b.push("pool", op, &[0]);
    b.push("same", Op::Pad { channels: [0, 0], rows: [0, 0], cols: [0, 0] }, &[pool]);
    with_random_weights(b.finish().unwrap(), 3)
}

fn run(network: &Network, arithmetic: impl Into<Arithmetic>, images: &[f32]) -> Vec<f32> {
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    Plan::compile(network, arithmetic).unwrap().logits(&pool, images).unwrap()
}

/// `torch.tensor([i * 7 % 36 - 10 for i in range(36)], dtype=torch.float64).reshape(1, 1, 6, 6)`, or its upper left.
fn image(size: usize) -> Vec<f32> {
    let at = |y: usize, x: usize| ((y * 6 + x) * 7 % 36) as f32 - 10.0;
    (0..size * size).map(|i| at(i / size, i % size)).collect()
}

fn check(size: usize, op: Op, expected: &[f32]) {
    let network = single(op.clone(), Shape { c: 1, h: size, w: size });
    let x = image(size);
    let close = |got: &[f32], by: &str| {
        assert_eq!(got.len(), expected.len(), "{op:?} by {by}");
        let apart = got.iter().zip(expected).map(|(g, e)| (g - e).abs()).fold(0.0, f32::max);
        assert!(apart <= 1e-5, "{op:?} by {by}: got {got:?}, expected {expected:?}");
    };
    close(&run_reference(&network, &x).unwrap()[1], "the reference");
    for isa in Isa::available() {
        close(&run(&network, isa, &x), isa.name());
    }
}

/// `F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=c)` with PyTorch 2.15, and the same of 4, 3, 2.
#[test]
fn averages_in_ceil_mode_divide_as_pytorch_does() {
    let window = |kernel, stride, padding, counts_padding| Window {
        ceil: true,
        counts_padding,
        ..Window::new([kernel; 2], [stride; 2], [padding; 2])
    };
    let third = 1.0 / 3.0;
    let of_image = [-3.5, 7.0, 15.0, 10.0, 5.5, 12.0, 6.0, 1.0, 11.5, 4.0, 6.0, 13.0, 5.5, -2.0, 12.0, 19.0];
    let with_padding = [
        -14.0 / 9.0,
        14.0 * third,
        10.0,
        10.0 * third,
        11.0 * third,
        12.0,
        6.0,
        0.5,
        23.0 * third,
        4.0,
        6.0,
        6.5,
        5.5 * third,
        -1.0,
        6.0,
        4.75,
    ];
    check(6, Op::AvgPool(window(3, 2, 1, false)), &of_image);
    check(6, Op::AvgPool(window(3, 2, 1, true)), &with_padding);
    let with_padding = [-0.875, 5.25, 3.875, 4.25, 9.0, 2.5, 2.875, 1.5, 3.125];
    check(6, Op::AvgPool(window(4, 3, 2, true)), &with_padding);
    check(6, Op::AvgPool(window(4, 3, 2, false)), &[-3.5, 10.5, 15.5, 8.5, 9.0, 5.0, 11.5, 3.0, 12.5]);
    // 5x5: the last windows have two pixels, or one.
    check(5, Op::AvgPool(window(2, 2, 0, true)), &[-3.5, 10.5, 21.0, 8.5, 13.5, -3.0, 17.5, -4.5, 6.0]);
}

/// `F.max_pool2d(x, 3, 2, 1, ceil_mode=True)` with PyTorch 2.15, and without padding, of 6x6 and of 2x2.
#[test]
fn maxima_in_ceil_mode_are_those_of_pytorch() {
    let window = |padding: usize| Op::MaxPool(Window { ceil: true, ..Window::new([3; 2], [2; 2], [padding; 2]) });
    let padded = [3.0, 17.0, 25.0, 25.0, 15.0, 23.0, 24.0, 7.0, 21.0, 22.0, 19.0, 19.0, 20.0, 5.0, 19.0, 19.0];
    check(6, window(1), &padded);
    check(6, window(0), &[16.0, 24.0, 25.0, 22.0, 23.0, 13.0, 21.0, 12.0, 19.0]);
    check(2, window(0), &[3.0]);
}

/// Two rows above, a column on the right: `F.avg_pool2d(F.pad(x, (0, 1, 2, 0)), 3, 2)` with PyTorch 2.15, and the same
/// divided by what it makes of ones.
#[test]
fn padding_may_differ_on_every_side() {
    let window = Window { padding: [[2, 0], [0, 1]], ..Window::new([3; 2], [2; 2], [0; 2]) };
    let third = 1.0 / 3.0;
    let counted = [-1.0, 11.0 * third, 43.0 / 9.0, 3.0, 13.0, 19.0 * third, 11.0, 5.0, 7.0 * third];
    check(6, Op::AvgPool(window.clone()), &counted);
    let image_only = Window { counts_padding: false, ..window };
    check(6, Op::AvgPool(image_only), &[-3.0, 11.0, 21.5, 3.0, 13.0, 9.5, 11.0, 5.0, 3.5]);
}

fn any_window() -> impl Strategy<Value = (Window, Shape)> {
    let axis = (1usize..5).prop_flat_map(|k| (Just(k), 1usize..5, 0..k, 0..k, 1usize..9));
    (axis.clone(), axis, 1usize..5, any::<bool>(), any::<bool>()).prop_filter_map(
        "no window fits",
        |((kh, sh, above, below, h), (kw, sw, left, right, w), c, ceil, counts_padding)| {
            let padding = [[above, below], [left, right]];
            let window = Window { kernel: [kh, kw], stride: [sh, sw], padding, ceil, counts_padding };
            let input = Shape { c, h, w };
            let mut b = GraphBuilder::new(input);
            b.push("pool", Op::MaxPool(window.clone()), &[0]);
            b.finish().is_ok().then_some((window, input))
        },
    )
}

/// All pixels of each window, one after the other, of an image that was padded beforehand; `None` is padding.
fn by_definition(window: &Window, input: Shape, x: &[f32], is_max: bool) -> Vec<f32> {
    let [[above, below], [left, right]] = window.padding;
    let (rows, cols) = (above + input.h + below, left + input.w + right);
    let pixel = |y: usize, x_at: usize, c: usize| {
        let inside = (above..above + input.h).contains(&y) && (left..left + input.w).contains(&x_at);
        inside.then(|| x[((y - above) * input.w + x_at - left) * input.c + c])
    };
    let starts = |axis: usize, padded: usize, image_end: usize| {
        let (k, s) = (window.kernel[axis], window.stride[axis]);
        let limit = if window.ceil { padded + s - 1 } else { padded };
        (0..image_end).step_by(s).filter(move |start| start + k <= limit).collect::<Vec<_>>()
    };
    let mut out = Vec::new();
    for y in starts(0, rows, above + input.h) {
        for x in starts(1, cols, left + input.w) {
            for c in 0..input.c {
                let ys = y..(y + window.kernel[0]).min(rows);
                let xs = x..(x + window.kernel[1]).min(cols);
                let taps: Vec<Option<f32>> =
                    ys.flat_map(|y| xs.clone().map(move |x| (y, x))).map(|(y, x)| pixel(y, x, c)).collect();
                let pixels: Vec<f64> = taps.iter().flatten().map(|&v| f64::from(v)).collect();
                let n = if window.counts_padding { taps.len() } else { pixels.len() };
                let average = pixels.iter().sum::<f64>() / n as f64;
                let most = pixels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                out.push(if is_max { most } else { average } as f32);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_window_is_pooled_by_the_definition((window, input) in any_window(), seed in any::<u64>()) {
        let mut rng = SplitMix(seed);
        // Multiples of 1/8 of few bits: bf16 holds them.
        let x: Vec<f32> = (0..input.len()).map(|_| (24.0 * rng.signed()).round() / 8.0 - 4.0).collect();
        for is_max in [true, false] {
            let op = if is_max { Op::MaxPool(window.clone()) } else { Op::AvgPool(window.clone()) };
            let network = single(op, input);
            let expected = by_definition(&window, input, &x, is_max);
            let apart = |got: &[f32]| {
                assert_eq!(got.len(), expected.len());
                got.iter().zip(&expected).map(|(g, e)| (g - e).abs() / e.abs().max(1.0)).fold(0.0, f32::max)
            };
            prop_assert!(apart(&run_reference(&network, &x).unwrap()[1]) <= 1e-6);
            for isa in Isa::available() {
                prop_assert!(apart(&run(&network, isa, &x)) <= 1e-5, "{isa:?} {window:?}");
            }
            if Precision::Bf16.is_available() {
                prop_assert!(apart(&run(&network, Precision::Bf16, &x)) <= 0.004, "bf16 {window:?}");
            }
        }
    }
}
