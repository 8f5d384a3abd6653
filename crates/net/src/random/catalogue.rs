//! Networks that together have every operation in every variant, for tests of what carries networks elsewhere.

use super::with_random_weights;
use crate::{Conv2d, ConvTranspose2d, GraphBuilder, Network, NodeId, Op, Pointwise, Shape, Tap, Window};

/// A network of the catalogue.
#[derive(Clone, Debug)]
pub struct CataloguedNetwork {
    /// What it is about: lower-case letters and underscores.
    pub name: &'static str,
    /// With random weights.
    pub network: Network,
}

/// Puts one of them together.
type Build = fn() -> GraphBuilder;

/// Small networks that together have every operation and every function, windows and resizings of many kinds, and
/// outputs that are flat, one pixel or a map.
///
/// # Panics
/// Never: what it builds is valid by construction.
pub fn catalogue() -> Vec<CataloguedNetwork> {
    let builders: [(&str, Build); 13] = [
        ("convolutions", convolutions),
        ("functions", functions),
        ("flat_functions", flat_functions),
        ("gates", gates),
        ("windows", windows),
        ("moves", moves),
        ("resizings", resizings),
        ("norms", norms),
        ("mixing", mixing),
        ("channel_rows", channel_rows),
        ("even_window", even_window),
        ("pixel", pixel),
        ("map", map),
    ];
    let catalogued = builders.into_iter().zip(1..).map(|((name, build), seed)| {
        let graph = build().finish().expect("the catalogue's graphs are valid by construction");
        CataloguedNetwork { name, network: with_random_weights(graph, seed) }
    });
    catalogued.collect()
}

const INPUT: Shape = Shape { c: 3, h: 9, w: 7 };

fn conv(in_channels: usize, out_channels: usize, kernel: usize) -> Conv2d {
    Conv2d { bias: true, ..Conv2d::square(in_channels, out_channels, kernel, 1, kernel / 2) }
}

/// The mean of every channel, and five classes.
fn classify(b: &mut GraphBuilder, x: NodeId, channels: usize) {
    let mean = b.push("mean", Op::GlobalAvgPool, &[x]);
    b.push("classify", Op::Linear { in_features: channels, out_features: 5, bias: true }, &[mean]);
}

fn convolutions() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("wide", Op::Conv2d(Conv2d { kernel: [3, 5], padding: [1, 2], ..conv(3, 8, 1) }), &[0]);
    let x = b.push("wide.bn", Op::BatchNorm { channels: 8, eps: 1e-5 }, &[x]);
    let grouped = Conv2d { groups: 4, bias: false, dilation: [2, 1], padding: [2, 1], ..conv(8, 12, 3) };
    let x = b.push("grouped", Op::Conv2d(grouped), &[x]);
    let x = b.push("slopes", Op::PRelu { channels: 12 }, &[x]);
    let x = b.push("depthwise", Op::Conv2d(Conv2d { groups: 12, stride: [2, 1], ..conv(12, 24, 3) }), &[x]);
    let x = b.push("all.pixels", Op::Flatten, &[x]);
    let x = b.push("hidden", Op::Linear { in_features: 24 * 5 * 7, out_features: 6, bias: false }, &[x]);
    let x = b.push("hidden.bn", Op::BatchNorm { channels: 6, eps: 0.0 }, &[x]);
    let x = b.push("hidden.slopes", Op::PRelu { channels: 6 }, &[x]);
    let x = b.push("hidden.norm", Op::LayerNorm { channels: 6, eps: 1e-4 }, &[x]);
    let x = b.push("classify", Op::Linear { in_features: 6, out_features: 5, bias: true }, &[x]);
    b.push("probabilities", Op::Softmax, &[x]);
    b
}

/// Of values from 1/2 to 1: what Sqrt and Log take.
fn each_function(b: &mut GraphBuilder, x: NodeId) -> NodeId {
    let above = b.push("above", Op::Pointwise(Pointwise::Clip { min: -1.0, max: f32::INFINITY }), &[x]);
    let below = b.push("below", Op::Pointwise(Pointwise::Clip { min: f32::NEG_INFINITY, max: 1.0 }), &[above]);
    let all =
        b.push("unbounded", Op::Pointwise(Pointwise::Clip { min: f32::NEG_INFINITY, max: f32::INFINITY }), &[below]);
    let positive = b.push("positive", Op::Pointwise(Pointwise::Sigmoid), &[all]);
    let of_any = |function: &Pointwise| !matches!(function, Pointwise::Sqrt | Pointwise::Log | Pointwise::Reciprocal);
    let each: Vec<NodeId> = Pointwise::EACH
        .iter()
        .enumerate()
        .map(|(i, &f)| b.push(format!("f{i}"), Op::Pointwise(f), &[if of_any(&f) { x } else { positive }]))
        .collect();
    b.push("all", Op::Concat, &[each, vec![all]].concat())
}

fn functions() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 4, 3)), &[0]);
    let all = each_function(&mut b, x);
    classify(&mut b, all, 4 * (Pointwise::EACH.len() + 1));
    b
}

fn flat_functions() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("flat", Op::FlattenPixels, &[0]);
    let x = b.push("hidden", Op::Linear { in_features: INPUT.len(), out_features: 4, bias: true }, &[x]);
    let all = each_function(&mut b, x);
    let in_features = 4 * (Pointwise::EACH.len() + 1);
    b.push("classify", Op::Linear { in_features, out_features: 5, bias: true }, &[all]);
    b
}

/// Gates of one pixel, of one channel and of both, flat and not.
fn gates() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 6, 3)), &[0]);
    let most = b.push("most", Op::GlobalMaxPool, &[x]);
    let flat = b.push("reduce", Op::Linear { in_features: 6, out_features: 6, bias: true }, &[most]);
    let share = b.push("share", Op::Pointwise(Pointwise::Sigmoid), &[flat]);
    let places = b.push("places", Op::Conv2d(conv(6, 1, 1)), &[x]);
    let one = b.push("one", Op::GlobalAvgPool, &[places]);
    let product = b.push("product", Op::Mul, &[share, x, places, one]);
    let twice = b.push("twice", Op::Mul, &[flat, flat]);
    let both = b.push("both", Op::Add, &[twice, most]);
    let sum = b.push("sum", Op::Add, &[both, product, places, x]);
    let wide = b.push("wide", Op::Concat, &[sum, x]);
    let mean = b.push("mean", Op::GlobalAvgPool, &[wide]);
    let joined = b.push("joined", Op::Concat, &[mean, flat, share]);
    b.push("classify", Op::Linear { in_features: 24, out_features: 5, bias: true }, &[joined]);
    b
}

/// Windows that overlap, leave gaps, hang over and begin in uneven padding, counted and not.
fn windows() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let shapes = [
        Window::new([3, 2], [2, 1], [1, 0]),
        Window { padding: [[0, 1], [1, 0]], ..Window::new([2, 3], [2, 3], [0, 0]) },
        Window { padding: [[1, 0], [0, 2]], ..Window::new([4, 3], [3, 2], [0, 0]) },
        Window::new([2, 2], [3, 4], [0, 0]),
        Window::new([4, 4], [4, 4], [0, 0]),
        Window { padding: [[2, 1], [1, 2]], ..Window::new([3, 3], [5, 3], [0, 0]) },
    ];
    let mut means = Vec::new();
    for (i, window) in shapes.into_iter().enumerate() {
        for (ceil, counts_padding) in [(false, false), (false, true), (true, false), (true, true)] {
            let window = Window { ceil, counts_padding, ..window.clone() };
            let name = format!("{i}.{ceil}.{counts_padding}");
            let mean = b.push(format!("mean.{name}"), Op::AvgPool(window.clone()), &[0]);
            means.push(b.push(format!("mean.{name}.most"), Op::GlobalMaxPool, &[mean]));
            if counts_padding {
                let most = b.push(format!("most.{name}"), Op::MaxPool(window), &[0]);
                means.push(b.push(format!("most.{name}.mean"), Op::GlobalAvgPool, &[most]));
            }
        }
    }
    b.push("all", Op::Concat, &means);
    b
}

/// Padding, slices, shuffles, blocks of pixels.
fn moves() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 12, 3)), &[0]);
    let x = b.push("shuffle", Op::ChannelShuffle { groups: 3 }, &[x]);
    let x = b.push("same", Op::Identity, &[x]);
    let part = b.push("part", Op::Slice { channels: [2, 7], step: [2, 3] }, &[x]);
    let part = b.push("padded", Op::Pad { channels: [1, 2], rows: [3, 1], cols: [0, 4] }, &[part]);
    let part = b.push("unpadded", Op::Pad { channels: [0; 2], rows: [0; 2], cols: [0; 2] }, &[part]);
    let far = b.push("far", Op::Slice { channels: [0, 12], step: [1, 40] }, &[x]);
    let far = b.push("whole", Op::Slice { channels: [0, 12], step: [1, 1] }, &[far]);
    let far = b.push("rows", Op::Conv2d(conv(12, 8, 1)), &[far]);
    let blocks = b.push("blocks", Op::DepthToSpace { block: 2, columns_rows_depth: true }, &[x]);
    let others = b.push("others", Op::DepthToSpace { block: 2, columns_rows_depth: false }, &[x]);
    let pixels = b.push("pixels", Op::FlattenPixels, &[blocks]);
    let channels = b.push("channels", Op::Flatten, &[others]);
    let flat = b.push("flat", Op::Concat, &[pixels, channels]);
    let cut = b.push("cut", Op::Slice { channels: [100, 400], step: [2, 2] }, &[flat]);
    let longer = b.push("longer", Op::Pad { channels: [2, 3], rows: [0; 2], cols: [0; 2] }, &[cut]);
    let turned = b.push("turned", Op::ChannelShuffle { groups: 5 }, &[longer]);
    let again = b.push("again", Op::Flatten, &[turned]);
    let parts = [part, far].map(|x| {
        let name = format!("mean of {x}");
        b.push(name, Op::GlobalAvgPool, &[x])
    });
    let parts = b.push("parts", Op::Concat, &[parts[0], parts[1], again]);
    b.push("classify", Op::Linear { in_features: 8 + 8 + 305, out_features: 5, bias: true }, &[parts]);
    b
}

/// Each row `by` times.
fn neighbours(n: usize, by: usize) -> Vec<Tap> {
    (0..n * by).map(|i| Tap::nearest(i / by)).collect()
}

/// These rows.
fn places(list: &[usize]) -> Vec<Tap> {
    list.iter().map(|&i| Tap::nearest(i)).collect()
}

/// The row at `at`, between two where that is no whole number.
fn between(at: f64) -> Tap {
    let (first, share) = (at.floor() as usize, (at - at.floor()) as f32);
    if share == 0.0 { Tap::nearest(first) } else { Tap { first, second: first + 1, share } }
}

/// Coordinates of PyTorch's `align_corners=False`.
fn centred(from: usize, to: usize) -> Vec<Tap> {
    let source = |i: usize| ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, from as f64 - 1.0);
    (0..to).map(|i| between(source(i))).collect()
}

/// Coordinates of `align_corners=True`.
fn from_corner_to_corner(from: usize, to: usize) -> Vec<Tap> {
    (0..to).map(|i| between(i as f64 * (from as f64 - 1.0) / (to as f64 - 1.0))).collect()
}

/// Of four rows, in no order.
fn mixed() -> Vec<Tap> {
    let tap = |first: usize, second: usize, share: f32| Tap { first, second, share };
    vec![tap(3, 0, 0.25), Tap::nearest(1), tap(2, 1, 1.0), tap(0, 3, 0.7), tap(2, 2, 0.3)]
}

/// To twice and thrice the size and half of it, by neighbours and between them, and from places of no order.
fn resizings() -> GraphBuilder {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 6, w: 4 });
    let kinds = [
        ("twice", neighbours(6, 2), neighbours(4, 2)),
        ("thrice", neighbours(6, 1), neighbours(4, 3)),
        ("half", places(&[0, 2, 4]), places(&[0, 2])),
        ("finer", centred(6, 12), centred(4, 8)),
        ("odd", centred(6, 13), centred(4, 7)),
        ("coarser", centred(6, 4), centred(4, 3)),
        ("corners", from_corner_to_corner(6, 11), from_corner_to_corner(4, 9)),
        ("same", neighbours(6, 1), neighbours(4, 1)),
        ("places", places(&[5, 0, 0, 3, 1, 2, 5]), places(&[3, 2])),
        ("rows", places(&[1, 4]), neighbours(4, 1)),
        ("mixed", centred(6, 6), mixed()),
        ("both mixed", mixed(), mixed()),
    ];
    let weighed: Vec<NodeId> = kinds
        .into_iter()
        .map(|(name, rows, cols)| {
            let weigh = Conv2d { kernel: [rows.len(), cols.len()], padding: [0; 2], ..conv(3, 4, 1) };
            let x = b.push(name, Op::Resize { rows, cols }, &[0]);
            b.push(format!("{name} weighed"), Op::Conv2d(weigh), &[x])
        })
        .collect();
    b.push("all", Op::Concat, &weighed);
    b
}

fn norms() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 6, 3)), &[0]);
    let norm = b.push("norm", Op::LayerNorm { channels: 6, eps: 1e-6 }, &[x]);
    let shares = b.push("shares", Op::Softmax, &[norm]);
    let bn = b.push("bn", Op::BatchNorm { channels: 6, eps: 1e-3 }, &[shares]);
    let mean = b.push("mean", Op::GlobalAvgPool, &[bn]);
    let norm = b.push("pixel norm", Op::LayerNorm { channels: 6, eps: 0.1 }, &[mean]);
    let slopes = b.push("slopes", Op::PRelu { channels: 6 }, &[norm]);
    b.push("classify", Op::Conv2d(conv(6, 5, 1)), &[slopes]);
    b
}

/// Transposed convolutions, branches, and what works along channels: of maps, and of one pixel.
fn mixing() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 8, 3)), &[0]);
    let up = ConvTranspose2d {
        padding: [[1, 0], [0, 2]],
        output_padding: [1, 0],
        groups: 2,
        bias: true,
        ..ConvTranspose2d::square(8, 12, 3, 2, 0)
    };
    let up = b.push("up", Op::ConvTranspose2d(up), &[x]);
    let groups = b.push("groups", Op::GroupNorm { channels: 12, groups: 3, eps: 1e-4 }, &[up]);
    let instance = b.push("instance", Op::GroupNorm { channels: 12, groups: 12, eps: 1e-3 }, &[groups]);
    let local = Op::LocalResponseNorm { size: 5, alpha: 0.3, beta: 0.75, bias: 1.5 };
    let local = b.push("local", local, &[instance]);
    let shares = b.push("shares", Op::BranchSoftmax { branches: 3 }, &[local]);
    let sum = b.push("sum", Op::BranchSum { branches: 3 }, &[shares]);
    let mean = b.push("mean", Op::ChannelMean, &[local]);
    let most = b.push("most", Op::ChannelMax, &[local]);
    let largest = b.push("largest", Op::Max, &[sum, mean, most]);
    let smallest = b.push("smallest", Op::Min, &[sum, most]);
    let both = b.push("both", Op::Concat, &[largest, smallest]);
    let pooled = b.push("pooled", Op::GlobalAvgPool, &[both]);
    let gate = b.push("gate", Op::ChannelConv { taps: 3, front: 1, bias: false }, &[pooled]);
    let branches = b.push("branches", Op::BranchSoftmax { branches: 2 }, &[gate]);
    let one = b.push("one", Op::BranchSum { branches: 2 }, &[branches]);
    b.push("classify", Op::Linear { in_features: 4, out_features: 5, bias: true }, &[one]);
    b
}

/// A local response norm whose window is even.
fn even_window() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 6, 3)), &[0]);
    let norm = Op::LocalResponseNorm { size: 4, alpha: 0.3, beta: 0.75, bias: 1.5 };
    let norm = b.push("norm", norm, &[x]);
    classify(&mut b, norm, 6);
    b
}

/// A convolution along the channels of a map.
fn channel_rows() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("conv", Op::Conv2d(conv(3, 6, 3)), &[0]);
    let mixed = b.push("mixed", Op::ChannelConv { taps: 3, front: 2, bias: true }, &[x]);
    classify(&mut b, mixed, 6);
    b
}

/// One operation, whose output is one pixel.
fn pixel() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    b.push("output", Op::GlobalAvgPool, &[0]);
    b
}

/// Ends in a map; nodes have names that others have uses for.
fn map() -> GraphBuilder {
    let mut b = GraphBuilder::new(INPUT);
    let x = b.push("output", Op::Conv2d(conv(3, 4, 3)), &[0]);
    let x = b.push("output.weight", Op::Pointwise(Pointwise::Silu), &[x]);
    let x = b.push("output.weight/sigmoid", Op::Pointwise(Pointwise::Relu), &[x]);
    b.push("größer & <kleiner>\n\"x\"", Op::Conv2d(conv(4, 2, 1)), &[x]);
    b
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_and_function_is_in_the_catalogue() {
        let networks = catalogue();
        let ops = || networks.iter().flat_map(|catalogued| catalogued.network.graph().nodes()).map(|node| &node.op);
        let found: BTreeSet<&str> = ops().map(Op::name).collect();
        let known = crate::graph_file::OPERATIONS;
        assert_eq!(found, known.into_iter().collect());
        for function in Pointwise::EACH {
            assert!(ops().any(|op| *op == Op::Pointwise(function)), "{function:?}");
        }
    }
}
