//! Networks that are recognised by their parameters. The state dicts are listed here as torchvision's constructors make
//! them, shapes only; parameters and multiply-accumulates are those that torchvision publishes with its weights
//! (`meta["num_params"]`, `meta["_ops"]`).

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;

use secateur_net::arch::{ParameterShapes, Recognised, recognise};
use secateur_net::{Graph, NetError, Op, Pointwise, parameter_shapes};

/// A state dict without its values.
#[derive(Clone, Default)]
struct Listing(BTreeMap<String, Vec<usize>>);

impl Listing {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        assert!(self.0.insert(name.into(), shape.to_vec()).is_none());
    }
    fn conv(&mut self, name: &str, shape: [usize; 4]) {
        self.add(format!("{name}.weight"), &shape);
    }
    fn conv_with_bias(&mut self, name: &str, shape: [usize; 4]) {
        self.conv(name, shape);
        self.add(format!("{name}.bias"), &shape[..1]);
    }
    fn norm(&mut self, name: &str, channels: usize) {
        for parameter in ["weight", "bias", "running_mean", "running_var"] {
            self.add(format!("{name}.{parameter}"), &[channels]);
        }
    }
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        self.add(format!("{name}.bias"), &[outputs]);
    }
    fn shapes(&self) -> ParameterShapes<'_> {
        self.0.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect()
    }
    fn recognised(&self) -> Option<Result<Recognised, NetError>> {
        recognise(&self.shapes(), None)
    }
    /// What it is recognised as, without doubt.
    #[track_caller]
    fn known(&self) -> Recognised {
        self.recognised().expect("the names are those of a family").expect("its parameters fit")
    }
}

/// `width` is of a group of the bottlenecks' middles, 0 for basic blocks.
fn resnet(blocks: [usize; 4], width: usize, groups: usize, stem: usize, names: [&str; 2]) -> Listing {
    let mut listing = Listing::default();
    listing.conv("conv1", [64, 3, stem, stem]);
    listing.norm("bn1", 64);
    let mut inputs = 64;
    for (stage, (n, planes)) in blocks.into_iter().zip([64, 128, 256, 512]).enumerate() {
        for block in 0..n {
            let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let middle = planes * width / 64 * groups;
            let convolutions = match width {
                0 => vec![[planes, inputs, 3], [planes, planes, 3]],
                _ => vec![[middle, inputs, 1], [middle, middle / groups, 3], [4 * planes, middle, 1]],
            };
            let outputs = convolutions.last().unwrap()[0];
            for (i, [o, c, k]) in convolutions.into_iter().enumerate() {
                listing.conv(&name(&format!("conv{}", i + 1)), [o, c, k, k]);
                listing.norm(&name(&format!("bn{}", i + 1)), o);
            }
            if block == 0 && (stage > 0 || inputs != outputs) {
                listing.conv(&name(&format!("{}.0", names[0])), [outputs, inputs, 1, 1]);
                listing.norm(&name(&format!("{}.1", names[0])), outputs);
            }
            inputs = outputs;
        }
    }
    listing.linear(names[1], 1000, inputs);
    listing
}

const TORCHVISION: [&str; 2] = ["downsample", "fc"];

/// `plan` has a 0 where a pool stands.
fn vgg(plan: &[usize], has_norm: bool) -> Listing {
    let (mut listing, mut at, mut inputs) = (Listing::default(), 0, 3);
    for &width in plan {
        if width > 0 {
            listing.conv_with_bias(&format!("features.{at}"), [width, inputs, 3, 3]);
            inputs = width;
            at += 1;
            if has_norm {
                listing.norm(&format!("features.{at}"), width);
                at += 1;
            }
        }
        at += 1;
    }
    for (at, outputs, inputs) in [(0, 4096, 7 * 7 * 512), (3, 4096, 4096), (6, 1000, 4096)] {
        listing.linear(&format!("classifier.{at}"), outputs, inputs);
    }
    listing
}

const VGG11: &[usize] = &[64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
const VGG13: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
const VGG16: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];
const VGG19: &[usize] = &[64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0];

fn alexnet() -> Listing {
    let mut listing = Listing::default();
    for (at, o, c, k) in [(0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)] {
        listing.conv_with_bias(&format!("features.{at}"), [o, c, k, k]);
    }
    for (at, outputs, inputs) in [(1, 4096, 9216), (4, 4096, 4096), (6, 1000, 4096)] {
        listing.linear(&format!("classifier.{at}"), outputs, inputs);
    }
    listing
}

fn mobilenet_v2() -> Listing {
    let mut listing = Listing::default();
    let mut unit = |name: String, shape: [usize; 4], norm: String| {
        listing.conv(&name, shape);
        listing.norm(&norm, shape[0]);
    };
    unit("features.0.0".into(), [32, 3, 3, 3], "features.0.1".into());
    let (mut inputs, mut at) = (32, 1);
    for (expansion, outputs, n) in
        [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    {
        for _ in 0..n {
            let (inner, mut part) = (inputs * expansion, 0);
            let name = |i: usize, rest: &str| format!("features.{at}.conv.{i}{rest}");
            if expansion > 1 {
                unit(name(0, ".0"), [inner, inputs, 1, 1], name(0, ".1"));
                part = 1;
            }
            unit(name(part, ".0"), [inner, 1, 3, 3], name(part, ".1"));
            unit(name(part + 1, ""), [outputs, inner, 1, 1], name(part + 2, ""));
            (inputs, at) = (outputs, at + 1);
        }
    }
    unit("features.18.0".into(), [1280, 320, 1, 1], "features.18.1".into());
    listing.linear("classifier.1", 1000, 1280);
    listing
}

fn densenet(blocks: [usize; 4], growth: usize, stem: usize) -> Listing {
    let mut listing = Listing::default();
    listing.conv("features.conv0", [stem, 3, 7, 7]);
    listing.norm("features.norm0", stem);
    let mut channels = stem;
    for (block, n) in blocks.into_iter().enumerate() {
        for layer in 0..n {
            let name = format!("features.denseblock{}.denselayer{}", block + 1, layer + 1);
            listing.norm(&format!("{name}.norm1"), channels);
            listing.conv(&format!("{name}.conv1"), [4 * growth, channels, 1, 1]);
            listing.norm(&format!("{name}.norm2"), 4 * growth);
            listing.conv(&format!("{name}.conv2"), [growth, 4 * growth, 3, 3]);
            channels += growth;
        }
        if block < 3 {
            let name = format!("features.transition{}", block + 1);
            listing.norm(&format!("{name}.norm"), channels);
            listing.conv(&format!("{name}.conv"), [channels / 2, channels, 1, 1]);
            channels /= 2;
        }
    }
    listing.norm("features.norm5", channels);
    listing.linear("classifier", 1000, channels);
    listing
}

fn squeezenet(stem: [usize; 2], fires: [usize; 8]) -> Listing {
    let mut listing = Listing::default();
    listing.conv_with_bias("features.0", [stem[0], 3, stem[1], stem[1]]);
    let mut inputs = stem[0];
    for (i, at) in fires.into_iter().enumerate() {
        let (squeeze, expand) = (16 * (i / 2 + 1), 64 * (i / 2 + 1));
        let part = |part: &str| format!("features.{at}.{part}");
        listing.conv_with_bias(&part("squeeze"), [squeeze, inputs, 1, 1]);
        listing.conv_with_bias(&part("expand1x1"), [expand, squeeze, 1, 1]);
        listing.conv_with_bias(&part("expand3x3"), [expand, squeeze, 3, 3]);
        inputs = 2 * expand;
    }
    listing.conv_with_bias("classifier.1", [1000, inputs, 1, 1]);
    listing
}

/// Names and shapes of the parameters that a graph needs.
fn parameters(graph: &Graph) -> Listing {
    let mut listing = Listing::default();
    for node in graph.nodes() {
        parameter_shapes(&node.op).iter().for_each(|(name, shape)| listing.add(format!("{}.{name}", node.name), shape));
    }
    listing
}

/// Multiply-accumulates of convolutions and Linear layers for one image.
fn macs(graph: &Graph) -> u64 {
    let of = |(id, node): (usize, &secateur_net::Node)| {
        node.op.as_conv2d().map_or(0, |conv| {
            let weights = conv.out_channels * (conv.in_channels / conv.groups) * conv.kernel[0] * conv.kernel[1];
            (weights * graph.shape(id).h * graph.shape(id).w) as u64
        })
    };
    graph.nodes().iter().enumerate().map(of).sum()
}

fn n_nodes(graph: &Graph, is_it: impl Fn(&Op) -> bool) -> usize {
    graph.nodes().iter().filter(|node| is_it(&node.op)).count()
}

#[test]
fn torchvision_networks_have_the_published_parameters_and_macs() {
    let bottlenecks = |blocks, width, groups| resnet(blocks, width, groups, 7, TORCHVISION);
    for (listing, name, n_parameters, giga_macs) in [
        (bottlenecks([2, 2, 2, 2], 0, 1), "resnet18", 11_689_512, "1.814"),
        (bottlenecks([3, 4, 6, 3], 0, 1), "resnet34", 21_797_672, "3.664"),
        (bottlenecks([3, 4, 6, 3], 64, 1), "resnet50", 25_557_032, "4.089"),
        (bottlenecks([3, 4, 23, 3], 64, 1), "resnet101", 44_549_160, "7.801"),
        (bottlenecks([3, 8, 36, 3], 64, 1), "resnet152", 60_192_808, "11.514"),
        (bottlenecks([3, 4, 6, 3], 128, 1), "wide_resnet50_2", 68_883_240, "11.398"),
        (bottlenecks([3, 4, 6, 3], 4, 32), "resnext50_32x4d", 25_028_904, "4.230"),
        (bottlenecks([3, 4, 23, 3], 8, 32), "resnext101_32x8d", 88_791_336, "16.414"),
        (vgg(VGG11, false), "vgg11", 132_863_336, "7.609"),
        (vgg(VGG13, false), "vgg13", 133_047_848, "11.308"),
        (vgg(VGG16, false), "vgg16", 138_357_544, "15.470"),
        (vgg(VGG19, false), "vgg19", 143_667_240, "19.632"),
        (vgg(VGG11, true), "vgg11_bn", 132_868_840, "7.609"),
        (vgg(VGG13, true), "vgg13_bn", 133_053_736, "11.308"),
        (vgg(VGG16, true), "vgg16_bn", 138_365_992, "15.470"),
        (vgg(VGG19, true), "vgg19_bn", 143_678_248, "19.632"),
        (alexnet(), "alexnet", 61_100_840, "0.714"),
        (mobilenet_v2(), "mobilenet_v2", 3_504_872, "0.301"),
        (densenet([6, 12, 24, 16], 32, 64), "densenet121", 7_978_856, "2.834"),
        (densenet([6, 12, 32, 32], 32, 64), "densenet169", 14_149_480, "3.360"),
        (densenet([6, 12, 48, 32], 32, 64), "densenet201", 20_013_928, "4.291"),
        (densenet([6, 12, 36, 24], 48, 96), "densenet161", 28_681_000, "7.728"),
        (squeezenet([96, 7], [3, 4, 5, 7, 8, 9, 10, 12]), "squeezenet1_0", 1_248_424, "0.819"),
        (squeezenet([64, 3], [3, 4, 6, 7, 9, 10, 11, 12]), "squeezenet1_1", 1_235_496, "0.349"),
    ] {
        let Recognised { name: told, graph, assumptions } = listing.known();
        assert_eq!(told, name);
        // PyTorch counts what is learned.
        let learned = listing.0.iter().filter(|(name, _)| !name.contains("running_"));
        assert_eq!(learned.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), n_parameters, "{name}");
        assert_eq!(parameters(&graph).0, listing.0, "{name}: every parameter is used, with its shape");
        assert_eq!(format!("{:.3}", macs(&graph) as f64 / 1e9), giga_macs, "{name}");
        assert_eq!((graph.input().to_string().as_str(), graph.n_classes()), ("3x224x224", 1000), "{name}");
        assert!(assumptions[0].contains("images of 3x224x224"), "{assumptions:?}");
        assert_eq!(parameters(&graph).known().graph, graph, "{name}: the graph's own parameters tell it again");
    }
}

#[test]
fn operations_without_parameters_are_as_many_as_in_the_papers() {
    let graph = resnet([3, 4, 6, 3], 64, 1, 7, TORCHVISION).known().graph;
    let is_relu = |op: &Op| *op == Op::Pointwise(Pointwise::Relu);
    // Three rectifiers and a sum in each of 16 blocks, a rectifier behind the stem.
    assert_eq!((n_nodes(&graph, is_relu), n_nodes(&graph, |op| *op == Op::Add)), (49, 16));
    assert_eq!(n_nodes(&graph, |op| matches!(op, Op::MaxPool(_))), 1);
    let graph = mobilenet_v2().known().graph;
    assert_eq!(n_nodes(&graph, |op| *op == Op::Pointwise(Pointwise::Relu6)), 35);
    assert_eq!(n_nodes(&graph, |op| *op == Op::Add), 10);
    let graph = densenet([6, 12, 24, 16], 32, 64).known().graph;
    assert_eq!(n_nodes(&graph, |op| *op == Op::Concat), 58);
    assert_eq!(n_nodes(&graph, |op| matches!(op, Op::AvgPool(_))), 3);
    for (listing, n_pools) in [(vgg(VGG19, true), 5), (alexnet(), 3)] {
        let graph = listing.known().graph;
        assert_eq!(n_nodes(&graph, |op| matches!(op, Op::MaxPool(_))), n_pools);
        // The adaptive pool is the identity at the usual size.
        assert_eq!(n_nodes(&graph, |op| matches!(op, Op::AvgPool(_))), 0);
    }
}

#[test]
fn a_stem_of_3x3_is_that_of_small_images_and_is_told() {
    for names in [TORCHVISION, ["shortcut", "linear"]] {
        let Recognised { name, graph, assumptions } = resnet([2, 2, 2, 2], 0, 1, 3, names).known();
        assert_eq!((name.as_str(), graph.input().to_string().as_str()), ("resnet18", "3x32x32"));
        assert_eq!(n_nodes(&graph, |op| matches!(op, Op::MaxPool(_))), 0);
        // 0.56 G with ten classes, in kuangliu/pytorch-cifar and elsewhere.
        assert_eq!(macs(&graph) / 10_000_000, 55);
        assert!(assumptions[1].contains("stride 1 and no max pool"), "{assumptions:?}");
    }
}

#[test]
fn widths_stems_and_classes_come_from_the_shapes() {
    // Half of every width, one input channel, three classes, three stages.
    let mut listing = Listing::default();
    for (name, shape) in resnet([3, 3, 3, 0], 0, 1, 3, TORCHVISION).0 {
        let halved = |axis: usize, n: usize| match (name.as_str(), axis) {
            ("conv1.weight", 1) => 1,
            ("fc.weight" | "fc.bias", 0) => 3,
            (_, 0 | 1) => n / 2,
            _ => n,
        };
        let shape: Vec<usize> = shape.into_iter().enumerate().map(|(axis, n)| halved(axis, n)).collect();
        listing.add(name, &shape);
    }
    let Recognised { name, graph, .. } = listing.known();
    assert_eq!((name.as_str(), graph.input().to_string().as_str(), graph.n_classes()), ("resnet20", "1x32x32", 3));
    assert_eq!(parameters(&graph).0, listing.0);
}

#[test]
fn another_size_of_images_can_be_given_where_the_parameters_leave_it_open() {
    let resnet = resnet([2, 2, 2, 2], 0, 1, 7, TORCHVISION);
    let small = recognise(&resnet.shapes(), Some([64, 48])).unwrap().unwrap();
    assert_eq!(small.graph.input().to_string(), "3x64x48");
    assert!(small.assumptions.is_empty(), "{:?}", small.assumptions);
    let vgg = vgg(VGG11, false);
    // Twice the size leaves 14x14 pixels, which the adaptive pool makes 7x7.
    let large = recognise(&vgg.shapes(), Some([448, 448])).unwrap().unwrap().graph;
    assert_eq!(n_nodes(&large, |op| matches!(op, Op::AvgPool(_))), 1);
    let odd = recognise(&vgg.shapes(), Some([256, 256])).unwrap().unwrap_err().to_string();
    assert!(odd.contains("'avgpool'") && odd.contains("7x7"), "{odd}");
}

#[test]
fn names_of_a_family_whose_parameters_do_not_fit_are_refused_by_the_node() {
    let check = |mut listing: Listing, name: &str, shape: Option<&[usize]>, parts: &[&str]| {
        let old = listing.0.remove(name).unwrap();
        if let Some(shape) = shape {
            listing.add(name, shape);
        }
        let error = listing.recognised().expect("the family is told all the same").unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{name} instead of {old:?}: {error}"));
    };
    let resnet18 = || resnet([2, 2, 2, 2], 0, 1, 7, TORCHVISION);
    check(resnet18(), "layer2.1.conv2.weight", None, &["'layer2.1.conv2'", "missing"]);
    check(resnet18(), "layer2.0.downsample.0.weight", None, &["'layer2.0'", "'downsample.0' or 'shortcut.0'"]);
    check(resnet18(), "layer2.0.conv1.weight", Some(&[128, 60, 3, 3]), &["'layer2.0.conv1'", "60", "64"]);
    check(resnet18(), "conv1.weight", Some(&[64, 3, 5, 5]), &["'conv1'", "3x3 or 7x7"]);
    check(resnet18(), "conv1.weight", Some(&[64]), &["conv1.weight", "four dimensions"]);
    check(resnet18(), "fc.weight", Some(&[10, 25_088]), &["'fc'", "25088"]);
    // A convolution that is missing leaves a place where two modules could stand.
    check(vgg(VGG16, true), "features.10.weight", None, &["'features'", "a pool or nothing"]);
    check(vgg(VGG16, false), "classifier.0.weight", Some(&[10, 1000]), &["'classifier'", "512 channels"]);
    check(mobilenet_v2(), "features.9.conv.2.weight", None, &["'features.9.conv.2'"]);
    check(densenet([6, 12, 24, 16], 32, 64), "features.norm5.running_var", None, &["'features.norm5'"]);
    check(
        squeezenet([64, 3], [3, 4, 6, 7, 9, 10, 11, 12]),
        "features.9.squeeze.weight",
        None,
        &["'features'", "8 to 10"],
    );
}

#[test]
fn names_of_other_networks_are_those_of_no_family() {
    let mut googlenet = Listing::default();
    googlenet.conv("conv1.conv", [64, 3, 7, 7]);
    googlenet.norm("conv1.bn", 64);
    googlenet.linear("fc", 1000, 1024);
    assert!(googlenet.recognised().is_none());
    let mut efficientnet = Listing::default();
    efficientnet.conv("features.0.0", [32, 3, 3, 3]);
    efficientnet.conv("features.1.0.block.0.0", [32, 1, 3, 3]);
    efficientnet.linear("classifier.1", 1000, 1280);
    assert!(efficientnet.recognised().is_none());
    assert!(Listing::default().recognised().is_none());
}
