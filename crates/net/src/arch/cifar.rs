//! Builders that go by a name: networks for small images, with the parameter names of their released weights.

use super::BN_EPS;
use crate::{Conv2d, Graph, GraphBuilder, NetError, NodeId, Op, Pointwise, Shape, Weights, Window};

/// Names [`build`] knows.
pub const ARCHITECTURES: [&str; 8] =
    ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "vgg16", "mobilenet_v1", "lenet5"];

/// The graph of a known architecture for images of shape `input` and `n_classes` classes.
///
/// # Errors
/// An unknown name, or images too small for the architecture.
pub fn build(name: &str, input: Shape, n_classes: usize) -> Result<Graph, NetError> {
    match name {
        "resnet20" => resnet(3, input, n_classes),
        "resnet32" => resnet(5, input, n_classes),
        "resnet44" => resnet(7, input, n_classes),
        "resnet56" => resnet(9, input, n_classes),
        "resnet110" => resnet(18, input, n_classes),
        "vgg16" => vgg16(input, n_classes),
        "mobilenet_v1" => mobilenet_v1(input, n_classes),
        "lenet5" => lenet5(input, n_classes),
        _ => Err(NetError::UnknownArchitecture { name: name.into(), known: ARCHITECTURES.join(", ") }),
    }
}

/// The architecture whose parameter names are those of `weights`, and its number of classes.
pub fn infer(weights: &Weights) -> Option<(&'static str, usize)> {
    let has = |key: &str| weights.contains_key(key);
    let classes = |key: &str| weights.get(key).and_then(|t| t.shape().first().copied());
    if has("layer3.0.conv1.weight") && has("linear.weight") && !has("layer4.0.conv1.weight") {
        let n_blocks = (0..).take_while(|b| has(&format!("layer3.{b}.conv1.weight"))).count();
        let name = match n_blocks {
            3 => "resnet20",
            5 => "resnet32",
            7 => "resnet44",
            9 => "resnet56",
            18 => "resnet110",
            _ => return None,
        };
        return Some((name, classes("linear.weight")?));
    }
    if has("features.12.3.weight") && has("classifier.0.weight") {
        return Some(("mobilenet_v1", classes("classifier.0.weight")?));
    }
    if has("features.40.weight") && has("classifier.weight") {
        return Some(("vgg16", classes("classifier.weight")?));
    }
    None
}

fn conv_bn_relu(g: &mut GraphBuilder, conv: &str, bn: &str, relu: &str, op: Conv2d, input: NodeId) -> NodeId {
    let channels = op.out_channels;
    let c = g.push(conv, Op::Conv2d(op), &[input]);
    let b = g.push(bn, Op::BatchNorm { channels, eps: BN_EPS }, &[c]);
    g.push(relu, Op::Pointwise(Pointwise::Relu), &[b])
}

/// CIFAR ResNet of depth 6n + 2 (He et al. 2016, section 4.2) with parameter-free "option A" shortcuts.
fn resnet(n: usize, input: Shape, n_classes: usize) -> Result<Graph, NetError> {
    let mut g = GraphBuilder::new(input);
    let mut x = conv_bn_relu(&mut g, "conv1", "bn1", "relu1", Conv2d::square(input.c, 16, 3, 1, 1), 0);
    let mut width = 16;
    for (stage, out) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..n {
            let p = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = |s: &str| format!("{p}.{s}");
            let first = Conv2d::square(width, out, 3, stride, 1);
            let h = conv_bn_relu(&mut g, &name("conv1"), &name("bn1"), &name("relu1"), first, x);
            let h = g.push(name("conv2"), Op::Conv2d(Conv2d::square(out, out, 3, 1, 1)), &[h]);
            let h = g.push(name("bn2"), Op::BatchNorm { channels: out, eps: BN_EPS }, &[h]);
            let mut shortcut = x;
            if stride > 1 {
                let every_second = Op::Slice { channels: [0, width], step: [2, 2] };
                shortcut = g.push(name("shortcut.slice"), every_second, &[shortcut]);
                let front = (out - width) / 2;
                let pad = Op::Pad { channels: [front, out - width - front], rows: [0; 2], cols: [0; 2] };
                shortcut = g.push(name("shortcut.pad"), pad, &[shortcut]);
            }
            let sum = g.push(name("add"), Op::Add, &[h, shortcut]);
            x = g.push(name("relu2"), Op::Pointwise(Pointwise::Relu), &[sum]);
            width = out;
        }
    }
    let pooled = g.push("pool", Op::GlobalAvgPool, &[x]);
    g.push("linear", Op::Linear { in_features: width, out_features: n_classes, bias: true }, &[pooled]);
    g.finish()
}

/// VGG-16 for 32x32 images: 13 convolutions with bias and BatchNorm, one Linear (algorithms: 313.20 M MACs).
/// Parameter names count the modules of one `features` sequence, pooling included.
fn vgg16(input: Shape, n_classes: usize) -> Result<Graph, NetError> {
    let mut g = GraphBuilder::new(input);
    let (mut x, mut width, mut index) = (0, input.c, 0);
    for (stage, (out, repeat)) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)].into_iter().enumerate() {
        for _ in 0..repeat {
            let name = |i: usize| format!("features.{i}");
            let conv = Conv2d { bias: true, ..Conv2d::square(width, out, 3, 1, 1) };
            x = conv_bn_relu(&mut g, &name(index), &name(index + 1), &name(index + 2), conv, x);
            (width, index) = (out, index + 3);
        }
        let window = Window::new([2; 2], [2; 2], [0; 2]);
        x = g.push(format!("features.{index}"), Op::MaxPool(window), &[x]);
        debug_assert!(stage < 5);
        index += 1;
    }
    let pooled = g.push("pool", Op::GlobalAvgPool, &[x]);
    g.push("classifier", Op::Linear { in_features: width, out_features: n_classes, bias: true }, &[pooled]);
    g.finish()
}

/// LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998) with rectifiers, maxima and a Linear layer at the end, as it is
/// used today: on 28x28 images of one channel 61,706 parameters.
fn lenet5(input: Shape, n_classes: usize) -> Result<Graph, NetError> {
    let mut g = GraphBuilder::new(input);
    let (mut x, mut shape) = (0, input);
    for (name, out, padding) in [("conv1", 6, 2), ("conv2", 16, 0)] {
        x = g.push(name, Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(shape.c, out, 5, 1, padding) }), &[x]);
        x = g.push(name.replace("conv", "relu"), Op::Pointwise(Pointwise::Relu), &[x]);
        x = g.push(name.replace("conv", "pool"), Op::MaxPool(Window::new([2; 2], [2; 2], [0; 2])), &[x]);
        let halved = |n: usize| (n + 2 * padding).saturating_sub(4) / 2;
        shape = Shape { c: out, h: halved(shape.h), w: halved(shape.w) };
    }
    x = g.push("flatten", Op::Flatten, &[x]);
    let mut width = shape.len();
    for (name, out) in [("fc1", 120), ("fc2", 84), ("fc3", n_classes)] {
        x = g.push(name, Op::Linear { in_features: width, out_features: out, bias: true }, &[x]);
        if name != "fc3" {
            x = g.push(name.replace("fc", "relu_fc"), Op::Pointwise(Pointwise::Relu), &[x]);
        }
        width = out;
    }
    g.finish()
}

/// MobileNet V1 with its ImageNet strides (Howard et al. 2017, table 1); on 32x32 images the last map is 1x1.
fn mobilenet_v1(input: Shape, n_classes: usize) -> Result<Graph, NetError> {
    let mut g = GraphBuilder::new(input);
    let mut x = conv_bn_relu(&mut g, "conv1.0", "conv1.1", "conv1.2", Conv2d::square(input.c, 32, 3, 2, 1), 0);
    let mut width = 32;
    let blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)];
    let blocks = blocks.into_iter().chain([(512, 1); 5]).chain([(1024, 2), (1024, 1)]);
    for (i, (out, stride)) in blocks.enumerate() {
        let name = |j: usize| format!("features.{i}.{j}");
        let depthwise = Conv2d { groups: width, ..Conv2d::square(width, width, 3, stride, 1) };
        x = conv_bn_relu(&mut g, &name(0), &name(1), &name(2), depthwise, x);
        x = conv_bn_relu(&mut g, &name(3), &name(4), &name(5), Conv2d::square(width, out, 1, 1, 0), x);
        width = out;
    }
    let pooled = g.push("pool", Op::GlobalAvgPool, &[x]);
    g.push("classifier.0", Op::Linear { in_features: width, out_features: n_classes, bias: true }, &[pooled]);
    g.finish()
}
