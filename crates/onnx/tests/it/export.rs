//! Networks as documents: taken back, they are the same networks; nothing in them fixes how many images there are.

use std::collections::{HashMap, HashSet};

use secateur_kernels::run_reference;
use secateur_net::random::{
    SplitMix, catalogue, random_network, random_network_of_every_operation, with_random_weights,
};
use secateur_net::{
    ChannelGroups, Conv2d, Graph, GraphBuilder, GroupChannel, Network, Node, Op, Pointwise, Protocol, Shape, Tap,
    Tensor, Weights, Window, arch,
};
use secateur_onnx::schema::tensor_shape_proto::dimension::Value;
use secateur_onnx::schema::{NodeProto, ValueInfoProto, type_proto};
use secateur_onnx::{DocumentChannel, DocumentGroups, Facts, Fidelity, ImportedNetwork, OnnxDocument};

fn written(network: &Network) -> OnnxDocument {
    let bytes = OnnxDocument::of_network(network, "net").unwrap().to_bytes();
    let document = OnnxDocument::from_bytes(bytes.into(), ".".as_ref()).unwrap();
    assert_eq!(*document.fidelity(), Fidelity::Exact);
    document
}

fn taken_back(network: &Network) -> ImportedNetwork {
    let document = written(network);
    let imported = document.network(&Facts::of(&document, None).unwrap()).unwrap();
    assert_eq!((imported.ends_early.as_deref(), imported.outputs.as_slice()), (None, &["output".to_owned()][..]));
    imported
}

/// What the network makes of an image, channel after channel.
fn output(network: &Network, image: &[f32]) -> Vec<f32> {
    let values = run_reference(network, image).unwrap().pop().unwrap();
    let Shape { c, h, w } = network.graph().shape(network.graph().output());
    (0..c * h * w).map(|i| values[i % (h * w) * c + i / (h * w)]).collect()
}

/// Both compute the same but for rounding: what has no counterpart in the other is written with other operations.
#[track_caller]
fn assert_same_function(what: &str, ours: &Network, theirs: &Network) {
    let mut rng = SplitMix(ours.graph().nodes().len() as u64);
    for _ in 0..2 {
        let image: Vec<f32> = (0..ours.graph().input().len()).map(|_| 2.0 * rng.signed()).collect();
        let (a, b) = (output(ours, &image), output(theirs, &image));
        let size = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        assert!(a.len() == b.len() && size.is_finite(), "{what}: {} and {} values, up to {size}", a.len(), b.len());
        let worst = a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(worst <= 2e-5 * size, "{what}: largest difference is {worst}, largest value {size}");
    }
}

/// The network with the first row in place of two that are weighed, which documents say with several nodes.
fn without_weighed_rows(network: Network, is_weighed: impl Fn(&Node) -> bool) -> Network {
    let (graph, weights) = network.into_parts();
    let nearest = |taps: &[Tap]| taps.iter().map(|tap| Tap::nearest(tap.first)).collect();
    let nodes = graph.nodes().iter().map(|node| match &node.op {
        Op::Resize { rows, cols } if is_weighed(node) => {
            Node { op: Op::Resize { rows: nearest(rows), cols: nearest(cols) }, ..node.clone() }
        }
        _ => node.clone(),
    });
    Network::new(Graph::new(graph.input(), nodes.collect()).unwrap(), weights).unwrap()
}

/// Convolutions along the channels of maps, and local response norms of even windows, are written, and are not read.
fn mixes_channels_of_maps(network: &Network) -> bool {
    let graph = network.graph();
    let is_map = |id: usize| graph.shape(id).h * graph.shape(id).w > 1;
    let is_written_out = |id: usize| {
        let op = &graph.node(id).op;
        matches!(op, Op::ChannelConv { .. } if is_map(id))
            || matches!(op, Op::LocalResponseNorm { size, .. } if size % 2 == 0)
    };
    (0..graph.nodes().len()).any(is_written_out)
}

#[test]
fn every_operation_is_taken_back_as_the_same_function() {
    for catalogued in catalogue() {
        if mixes_channels_of_maps(&catalogued.network) {
            continue;
        }
        let network = without_weighed_rows(catalogued.network, |node| node.name.contains("mixed"));
        assert_same_function(catalogued.name, &network, &taken_back(&network).network);
    }
}

#[test]
fn random_networks_are_taken_back_as_the_same_function() {
    for seed in 0..150 {
        let network = random_network(seed);
        assert_same_function(&format!("seed {seed}"), &network, &taken_back(&network).network);
        let network = without_weighed_rows(random_network_of_every_operation(seed), |_| true);
        if mixes_channels_of_maps(&network) {
            continue;
        }
        assert_same_function(&format!("every operation, seed {seed}"), &network, &taken_back(&network).network);
    }
}

/// Node by node and bit by bit.
#[test]
fn built_in_architectures_are_taken_back_as_they_were() {
    for name in arch::ARCHITECTURES {
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let network = with_random_weights(graph, 5);
        assert!(taken_back(&network).network == network, "{name}");
    }
}

#[test]
fn nodes_and_initialisers_are_called_as_in_the_network() {
    let network = with_random_weights(arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap(), 3);
    let document = written(&network);
    let (model, graph) = (document.model(), document.graph());
    assert_eq!((document.opset(), model.ir_version(), model.opset_import.len()), (17, 8, 1));
    assert_eq!((model.producer_name(), model.producer_version()), ("secateur", env!("CARGO_PKG_VERSION")));
    assert_eq!(graph.name(), "net");
    let of_ours: Vec<&str> = graph.node.iter().map(NodeProto::name).filter(|name| !name.contains('/')).collect();
    let wanted: Vec<&str> = network.graph().nodes()[1..].iter().map(|node| node.name.as_str()).collect();
    assert_eq!(of_ours, wanted);
    let keys: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    for (key, tensor) in network.weights() {
        assert!(keys.contains(key.as_str()), "{key}");
        let stored = graph.initializer.iter().find(|stored| stored.name() == key).unwrap();
        let bytes: Vec<u8> = tensor.data().iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
        assert!(stored.raw_data.as_deref() == Some(bytes.as_slice()) && stored.dims == dims, "{key}");
    }
}

#[test]
fn extreme_weights_keep_their_bits() {
    let mut b = GraphBuilder::new(Shape { c: 6, h: 1, w: 1 });
    b.push("classify", Op::Linear { in_features: 6, out_features: 1, bias: false }, &[0]);
    let values = vec![-0.0, f32::MIN_POSITIVE / 4.0, f32::MAX, f32::MIN, 1.0 / 3.0, -1e-45];
    let weights = Weights::from([("classify.weight".into(), Tensor::new(vec![1, 6], values.clone()).unwrap())]);
    let document = written(&Network::new(b.finish().unwrap(), weights).unwrap());
    let stored = secateur_onnx::floats(&document.graph().initializer[0], document.external()).unwrap();
    assert!(stored.iter().map(|v| v.to_bits()).eq(values.iter().map(|v| v.to_bits())), "{stored:?}");
}

fn dims(value: &ValueInfoProto) -> Vec<Option<Value>> {
    let Some(type_proto::Value::TensorType(tensor)) = &value.r#type.as_ref().unwrap().value else { panic!() };
    tensor.shape.as_ref().unwrap().dim.iter().map(|dim| dim.value.clone()).collect()
}

/// Declared shapes are those that follow from the operations, whatever the batch.
#[test]
fn batches_of_every_size_pass_and_declared_shapes_are_right() {
    let random = (0..40).flat_map(|seed| [random_network(seed), random_network_of_every_operation(seed)]);
    for network in catalogue().into_iter().map(|catalogued| catalogued.network).chain(random) {
        let document = written(&network);
        let graph = document.graph();
        let declared = || graph.value_info.iter().chain(&graph.input).chain(&graph.output);
        assert_eq!(declared().count(), graph.node.len() + 1);
        for n in [1, 3] {
            let mut model = document.model().clone();
            let input = &mut model.graph.as_mut().unwrap().input[0];
            let Some(type_proto::Value::TensorType(tensor)) = &mut input.r#type.as_mut().unwrap().value else {
                panic!()
            };
            tensor.shape.as_mut().unwrap().dim[0].value = Some(Value::DimValue(n));
            let bytes = prost::Message::encode_to_vec(&model);
            let facts = Facts::of(&OnnxDocument::from_bytes(bytes.into(), ".".as_ref()).unwrap(), None).unwrap();
            for value in declared() {
                let mut extents = dims(value).into_iter();
                assert_eq!(extents.next().unwrap(), Some(Value::DimParam("batch".into())), "{}", value.name());
                let shape = facts.shape(value.name()).unwrap().iter().map(|&n| Some(Value::DimValue(n as i64)));
                let followed: Vec<Option<Value>> = shape.collect();
                assert_eq!(followed[0], Some(Value::DimValue(n)), "{}", value.name());
                assert!(extents.eq(followed[1..].iter().cloned()), "{}: {followed:?}", value.name());
            }
        }
    }
}

#[test]
fn the_same_network_gives_the_same_bytes() {
    for seed in 0..20 {
        let bytes = || OnnxDocument::of_network(&random_network_of_every_operation(seed), "net").unwrap().to_bytes();
        assert!(bytes() == bytes(), "seed {seed}");
    }
}

#[test]
fn every_operation_may_stand_alone() {
    let ops = [
        Op::Pointwise(Pointwise::Relu),
        Op::Pointwise(Pointwise::Silu),
        Op::Pointwise(Pointwise::Clip { min: f32::NEG_INFINITY, max: f32::INFINITY }),
        Op::BatchNorm { channels: 4, eps: 1e-5 },
        Op::PRelu { channels: 4 },
        Op::LayerNorm { channels: 4, eps: 1e-5 },
        Op::MaxPool(Window::new([2, 2], [2, 2], [1, 1])),
        Op::AvgPool(Window { ceil: true, ..Window::new([2, 2], [2, 2], [1, 1]) }),
        Op::GlobalAvgPool,
        Op::GlobalMaxPool,
        Op::Flatten,
        Op::FlattenPixels,
        Op::ChannelShuffle { groups: 2 },
        Op::DepthToSpace { block: 2, columns_rows_depth: false },
        Op::Pad { channels: [1, 0], rows: [0, 1], cols: [2, 0] },
        Op::Slice { channels: [1, 3], step: [1, 2] },
        Op::Softmax,
        Op::Identity,
    ];
    for op in ops {
        let mut b = GraphBuilder::new(Shape { c: 4, h: 5, w: 6 });
        b.push("output", op.clone(), &[0]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        assert_same_function(op.name(), &network, &taken_back(&network).network);
    }
    for op in [Op::Add, Op::Mul, Op::Concat] {
        let mut b = GraphBuilder::new(Shape { c: 4, h: 5, w: 6 });
        b.push("input.weight", op.clone(), &[0, 0]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        assert_same_function(op.name(), &network, &taken_back(&network).network);
    }
}

/// Steps that no image is as large as take its first place, like any other step that is too long.
#[test]
fn steps_beyond_any_image_are_written_as_what_they_do() {
    let most = usize::MAX;
    for op in [
        Op::Slice { channels: [0, 4], step: [most, 1 << 63] },
        Op::Slice { channels: [1, 3], step: [5, 1] },
        Op::MaxPool(Window::new([2, 3], [most, 1 << 63], [1, 0])),
        Op::AvgPool(Window::new([5, 6], [most, 1 << 40], [4, 3])),
        Op::Conv2d(Conv2d { stride: [most, 1 << 63], ..Conv2d::square(4, 2, 3, 1, 1) }),
        Op::Conv2d(Conv2d { dilation: [1 << 40, 1], kernel: [1, 3], ..Conv2d::square(4, 2, 3, 1, 0) }),
    ] {
        let mut b = GraphBuilder::new(Shape { c: 4, h: 5, w: 6 });
        b.push("far", op.clone(), &[0]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        assert_same_function(&format!("{op:?}"), &network, &taken_back(&network).network);
    }
}

/// Ten rows of three channels would be images with channels behind, if no convolution read them.
#[test]
fn narrow_maps_are_not_taken_for_images_with_channels_behind() {
    for input in [Shape { c: 8, h: 10, w: 3 }, Shape { c: 9, h: 1, w: 1 }, Shape { c: 16, h: 4, w: 4 }] {
        let mut b = GraphBuilder::new(input);
        let x = b.push("conv", Op::Conv2d(Conv2d::square(input.c, 4, 1, 1, 0)), &[0]);
        b.push("mean", Op::GlobalAvgPool, &[x]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        assert!(taken_back(&network).network == network, "{input}");
    }
}

/// What has several axes is `[batch, C, H, W]`, what is one pixel `[batch, n]`, however it was made.
#[test]
fn outputs_of_one_pixel_are_flat() {
    for catalogued in catalogue() {
        let document = written(&catalogued.network);
        let graph = catalogued.network.graph();
        let Shape { c, h, w } = graph.shape(graph.output());
        let [output] = document.graph().output.as_slice() else { panic!() };
        let extents: &[usize] = if h * w == 1 { &[c] } else { &[c, h, w] };
        let wanted: Vec<Option<Value>> = extents.iter().map(|&n| Some(Value::DimValue(n as i64))).collect();
        assert_eq!(dims(output)[1..], wanted, "{}", catalogued.name);
        assert_eq!((document.graph().input[0].name(), output.name()), ("input", "output"));
    }
}

#[test]
fn a_graph_without_a_name_is_refused() {
    let error = OnnxDocument::of_network(&random_network(1), "").unwrap_err().to_string();
    assert!(error.contains("has no name"), "{error}");
    let odd = "größer\n\"x\"/\u{1f600}";
    assert_eq!(OnnxDocument::of_network(&random_network(1), odd).unwrap().graph().name(), odd);
}

/// Every channel that may be removed from the network may be removed from its document, together with the same others.
/// What mixes channels is frozen in both.
/// Of shuffles a document may lose groups where a network loses a channel of each: both are right.
#[test]
fn channels_hang_together_as_in_the_network() {
    let is_regrouped = |node: &Node| {
        matches!(
            node.op,
            Op::ChannelShuffle { .. }
                | Op::DepthToSpace { .. }
                | Op::GroupNorm { .. }
                | Op::LocalResponseNorm { .. }
                | Op::ChannelConv { .. }
                | Op::ChannelMean
                | Op::ChannelMax
                | Op::BranchSum { .. }
                | Op::BranchSoftmax { .. }
        )
    };
    let random = (0..150).flat_map(|seed| [random_network(seed), random_network_of_every_operation(seed)]);
    let mut n_compared = 0;
    for network in catalogue().into_iter().map(|catalogued| catalogued.network).chain(random) {
        if network.graph().nodes().iter().any(is_regrouped) {
            continue;
        }
        let document = written(&network);
        let facts = Facts::of(&document, None).unwrap();
        let ours = ChannelGroups::derive(network.graph(), Protocol::Full);
        let theirs = DocumentGroups::of(&document, &facts);
        assert_eq!(theirs.frozen_nodes(), [], "all operations are followed");
        let mut there: HashMap<GroupChannel, DocumentChannel> = HashMap::new();
        let mut back: HashMap<DocumentChannel, GroupChannel> = HashMap::new();
        for (id, node) in network.graph().nodes().iter().enumerate() {
            // The value of that name is the document's output.
            let Some(channels) = theirs.channels(&node.name).filter(|_| node.name != "output") else { continue };
            // All places of a value that come from one channel are one channel.
            assert!(ours.axis(id).len() == channels.len() || channels.len() == 1, "{}", node.name);
            for (&network, &document) in ours.axis(id).iter().zip(&channels) {
                let group = &theirs.groups()[document.group];
                let is_free = ours.group(network.group).frozen.is_none();
                assert!(is_free == group.frozen.is_none() || group.n_channels == 1, "{}", node.name);
                if is_free && group.n_channels > 1 {
                    assert_eq!(*there.entry(network).or_insert(document), document, "{}", node.name);
                    assert_eq!(*back.entry(document).or_insert(network), network, "{}", node.name);
                    n_compared += 1;
                }
            }
        }
    }
    assert!(n_compared > 1000, "{n_compared} channels were compared");
}
