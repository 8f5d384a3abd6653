//! Every operation, in odd shapes.

use secateur_net::{Conv2d, Graph, GraphBuilder, Op, Pointwise, Shape, Window};

use crate::check;

/// A graph whose operation under test reads a trained convolution: its input's gradient shows in that one's weights.
fn graph(shape: Shape, channels: usize, build: impl FnOnce(&mut GraphBuilder, usize)) -> Graph {
    let mut builder = GraphBuilder::new(shape);
    let first = Conv2d { bias: true, ..Conv2d::square(shape.c, channels, 1, 1, 0) };
    let first = builder.push("first", Op::Conv2d(first), &[0]);
    build(&mut builder, first);
    builder.finish().unwrap()
}

const SMALL: Shape = Shape { c: 2, h: 5, w: 7 };

#[test]
fn convolutions_of_any_kernel_stride_padding_dilation_and_groups() {
    let square = Conv2d::square;
    for (side, conv) in [
        ([5, 7], square(3, 4, 3, 1, 1)),
        ([9, 8], Conv2d { bias: true, ..square(7, 5, 3, 1, 1) }),
        ([8, 8], square(16, 9, 3, 1, 1)),
        // Large enough for minimal filtering.
        ([14, 15], square(12, 11, 3, 1, 1)),
        ([5, 7], square(3, 4, 3, 2, 1)),
        ([8, 6], square(3, 4, 3, 2, 1)),
        ([5, 7], square(3, 4, 1, 2, 0)),
        ([6, 5], square(2, 3, 2, 3, 1)),
        ([5, 6], square(3, 2, 1, 1, 1)),
        ([7, 7], square(2, 3, 5, 1, 0)),
        ([9, 9], Conv2d { dilation: [2, 3], ..square(2, 3, 3, 1, 2) }),
        ([9, 8], Conv2d { dilation: [2, 3], stride: [2, 2], padding: [1, 3], ..square(2, 3, 3, 1, 0) }),
        ([6, 9], Conv2d { kernel: [1, 5], stride: [1, 3], padding: [0, 2], ..square(4, 2, 1, 1, 0) }),
        ([6, 7], Conv2d { groups: 2, bias: true, ..square(4, 6, 3, 1, 1) }),
        ([7, 6], Conv2d { groups: 3, ..square(6, 3, 3, 2, 1) }),
        ([6, 7], Conv2d { groups: 5, bias: true, ..square(5, 5, 3, 1, 1) }),
        ([7, 8], Conv2d { groups: 9, ..square(9, 9, 3, 2, 1) }),
        ([6, 6], Conv2d { groups: 2, ..square(2, 4, 5, 1, 2) }),
        ([1, 1], square(5, 3, 3, 1, 1)),
        ([2, 1], square(5, 3, 3, 2, 1)),
    ] {
        let name = format!("{side:?} {conv:?}");
        let shape = Shape { c: 2, h: side[0], w: side[1] };
        check(
            &name,
            graph(shape, conv.in_channels, |builder, x| {
                builder.push("conv", Op::Conv2d(conv), &[x]);
            }),
        );
    }
}

#[test]
fn batch_norm_takes_the_statistics_of_the_batch() {
    check(
        "BatchNorm",
        graph(SMALL, 5, |builder, x| {
            let norm = builder.push("norm", Op::BatchNorm { channels: 5, eps: 1e-3 }, &[x]);
            let relu = builder.push("relu", Op::Pointwise(Pointwise::Relu), &[norm]);
            builder.push("conv", Op::Conv2d(Conv2d::square(5, 3, 3, 1, 1)), &[relu]);
        }),
    );
    // The same value normalised twice, as in a DenseNet, and a sum in front of the rectifier.
    check(
        "BatchNorm twice",
        graph(SMALL, 4, |builder, x| {
            let one = builder.push("one", Op::BatchNorm { channels: 4, eps: 1e-3 }, &[x]);
            let conv = builder.push("conv", Op::Conv2d(Conv2d::square(4, 4, 3, 1, 1)), &[one]);
            let two = builder.push("two", Op::BatchNorm { channels: 4, eps: 1e-3 }, &[conv]);
            let sum = builder.push("sum", Op::Add, &[two, x]);
            let relu = builder.push("relu", Op::Pointwise(Pointwise::Relu6), &[sum]);
            let all = builder.push("all", Op::Concat, &[x, relu, conv]);
            builder.push("three", Op::BatchNorm { channels: 12, eps: 1e-3 }, &[all]);
        }),
    );
}

#[test]
fn functions_of_single_values() {
    let checked_elsewhere = [Pointwise::Gelu { tanh: false }, Pointwise::Erf];
    for function in Pointwise::EACH.into_iter().filter(|f| !checked_elsewhere.contains(f)) {
        check(
            &format!("{function:?}"),
            graph(SMALL, 3, |builder, x| {
                // Where it is defined.
                let moved = Op::Pointwise(Pointwise::Affine { scale: 0.3, shift: 4.0 });
                let is_for_positives = matches!(function, Pointwise::Sqrt | Pointwise::Log | Pointwise::Reciprocal);
                let x = if is_for_positives { builder.push("moved", moved, &[x]) } else { x };
                let values = builder.push("function", Op::Pointwise(function), &[x]);
                builder.push("last", Op::Conv2d(Conv2d::square(3, 2, 1, 1, 0)), &[values]);
            }),
        );
    }
    check(
        "PRelu",
        graph(SMALL, 3, |builder, x| {
            builder.push("slopes", Op::PRelu { channels: 3 }, &[x]);
        }),
    );
    check(
        "Softmax inside",
        graph(SMALL, 3, |builder, x| {
            let softmax = builder.push("softmax", Op::Softmax, &[x]);
            builder.push("last", Op::Conv2d(Conv2d::square(3, 2, 1, 1, 0)), &[softmax]);
        }),
    );
}

#[test]
fn sums_and_products_with_gates() {
    for op in [Op::Add, Op::Mul] {
        check(
            &format!("{op:?}"),
            graph(SMALL, 3, |builder, x| {
                let other = builder.push("other", Op::Conv2d(Conv2d::square(2, 3, 3, 1, 1)), &[0]);
                let mean = builder.push("mean", Op::GlobalAvgPool, &[x]);
                let pixels = builder.push("pixels", Op::Conv2d(Conv2d::square(3, 1, 1, 1, 0)), &[x]);
                builder.push("all", op.clone(), &[x, other, mean, pixels]);
            }),
        );
        check(
            &format!("{op:?} with itself"),
            graph(SMALL, 3, |builder, x| {
                let one = builder.push("one", op.clone(), &[x, x]);
                builder.push("two", op.clone(), &[one, 0, x].map(|i| if i == 0 { one } else { i }));
            }),
        );
    }
    check(
        "sums of sums",
        graph(SMALL, 3, |builder, x| {
            let a = builder.push("a", Op::Conv2d(Conv2d::square(3, 3, 3, 1, 1)), &[x]);
            let b = builder.push("b", Op::Add, &[a, x]);
            let c = builder.push("c", Op::Pointwise(Pointwise::Relu), &[b]);
            let d = builder.push("d", Op::Conv2d(Conv2d::square(3, 3, 3, 1, 1)), &[c]);
            let e = builder.push("e", Op::Add, &[d, b]);
            builder.push("f", Op::Add, &[e, c, x]);
        }),
    );
}

#[test]
fn pools() {
    let uneven = Window { ceil: true, padding: [[1, 0], [0, 1]], ..Window::new([2, 3], [2, 2], [0, 0]) };
    for window in [Window::new([2, 2], [2, 2], [0, 0]), Window::new([3, 3], [2, 1], [1, 1]), uneven] {
        for window in [window.clone(), Window { counts_padding: false, ..window }] {
            check(
                &format!("max {window:?}"),
                graph(SMALL, 3, |builder, x| {
                    builder.push("pool", Op::MaxPool(window.clone()), &[x]);
                }),
            );
            check(
                &format!("mean {window:?}"),
                graph(SMALL, 3, |builder, x| {
                    builder.push("pool", Op::AvgPool(window.clone()), &[x]);
                }),
            );
        }
    }
    for op in [Op::GlobalAvgPool, Op::GlobalMaxPool] {
        check(
            &format!("{op:?}"),
            graph(SMALL, 3, |builder, x| {
                let pool = builder.push("pool", op.clone(), &[x]);
                builder.push("classify", Op::Linear { in_features: 3, out_features: 4, bias: true }, &[pool]);
            }),
        );
    }
}

#[test]
fn what_only_moves_values() {
    let of = |channels: usize, op: Op| {
        graph(SMALL, channels, |builder, x| {
            builder.push("moved", op, &[x]);
        })
    };
    check("shuffle", of(6, Op::ChannelShuffle { groups: 3 }));
    for columns_rows_depth in [false, true] {
        check("depth to space", of(8, Op::DepthToSpace { block: 2, columns_rows_depth }));
    }
    check("pad", of(3, Op::Pad { channels: [1, 2], rows: [0, 1], cols: [2, 0] }));
    check("slice", of(5, Op::Slice { channels: [1, 4], step: [2, 3] }));
    check("identity", of(3, Op::Identity));
    for op in [Op::Flatten, Op::FlattenPixels] {
        check(
            &format!("{op:?}"),
            graph(SMALL, 3, |builder, x| {
                let flat = builder.push("flat", op, &[x]);
                builder.push("classify", Op::Linear { in_features: 105, out_features: 4, bias: false }, &[flat]);
            }),
        );
    }
    check(
        "concat",
        graph(SMALL, 3, |builder, x| {
            let other = builder.push("other", Op::Conv2d(Conv2d::square(3, 2, 3, 1, 1)), &[x]);
            builder.push("all", Op::Concat, &[other, x, other]);
        }),
    );
}
