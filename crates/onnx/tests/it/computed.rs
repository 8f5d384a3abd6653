//! Weights that nodes compute from constants: standardised, normalised, filled with one number.

use secateur_net::{ChannelGroups, KeptChannels, Protocol, prune};
use secateur_onnx::schema::attribute_proto::AttributeType;
use secateur_onnx::schema::{AttributeProto, GraphProto, NodeProto, TensorProto};
use secateur_onnx::{DocumentGroups, Facts, ImportedNetwork, KeptFlags, OnnxDocument, Removal};

use crate::hand_made::{filled, model, node, numbers, shaped, tensor, with_int, with_ints};

fn open(graph: GraphProto) -> OnnxDocument {
    OnnxDocument::from_bytes(prost::Message::encode_to_vec(&model(graph)).into(), ".".as_ref()).unwrap()
}

fn network(document: &OnnxDocument) -> ImportedNetwork {
    document.network(&Facts::of(document, None).unwrap()).unwrap()
}

/// Convolution to 4 channels by the weights that these nodes make, and one to 2 channels behind it.
fn with_weight(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> GraphProto {
    let layers = [node("Conv", &["x", "weight"], &["a"]), node("Conv", &["a", "last"], &["y"])];
    GraphProto {
        node: [&nodes[..], &layers].concat(),
        initializer: [constants, vec![filled("last", &[2, 4, 1, 1])]].concat(),
        input: vec![shaped("x", &[1, 3, 4, 4])],
        output: vec![shaped("y", &[1, 2, 4, 4])],
        ..Default::default()
    }
}

/// Without the channels of `a` that are not `kept`.
fn cut(document: &OnnxDocument, kept: &[usize]) -> OnnxDocument {
    let facts = &Facts::of(document, None).unwrap();
    let groups = &DocumentGroups::of(document, facts);
    let free: Vec<_> = groups.groups().iter().filter(|group| group.frozen.is_none()).collect();
    assert_eq!(free.iter().map(|group| (group.name.as_str(), group.n_channels)).collect::<Vec<_>>(), [("a", 4)]);
    let flags = |frozen: bool, n: usize| (0..n).map(|i| frozen || kept.contains(&i)).collect();
    let kept: &KeptFlags = &groups.groups().iter().map(|g| flags(g.frozen.is_some(), g.n_channels)).collect();
    Removal { document, facts, groups, kept }.cut().unwrap()
}

/// The cut document is the network of the whole one without the channels, as `net` removes them.
fn check_cut(document: &OnnxDocument, kept: &[usize]) -> OnnxDocument {
    let cut = cut(document, kept);
    let whole = network(document).network;
    let groups = ChannelGroups::derive(whole.graph(), Protocol::Full);
    let mut channels = KeptChannels::all(&groups);
    channels.set(groups.prunable()[0], kept.to_vec());
    let pruned = prune(&whole, &groups, &channels).unwrap();
    let own = network(&cut).network;
    let data = |network: &secateur_net::Network| {
        network.weights().values().map(|t| (t.shape().to_vec(), t.data().to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(data(&own), data(&pruned));
    cut
}

fn weight_of(document: &OnnxDocument) -> Vec<f32> {
    let network = network(document).network;
    let first = network.graph().nodes()[1].name.clone();
    network.parameter(&first, "weight").data().to_vec()
}

/// As scaled and standardised weights are exported: each filter of 1, 2, 3 has the mean 2 and the variance 2/3.
#[test]
fn weights_that_a_batch_norm_standardises_are_computed_and_written_down_when_they_are_cut() {
    let norm = node("BatchNormalization", &["rows", "scale", "shift", "zeros", "ones"], &["normal"]);
    let epsilon = AttributeProto {
        name: Some("epsilon".into()),
        r#type: Some(AttributeType::Float.into()),
        f: Some(0.0),
        ..Default::default()
    };
    let norm = with_int(NodeProto { attribute: vec![epsilon], ..norm }, "training_mode", 1);
    let nodes = vec![
        node("Reshape", &["stored", "as rows"], &["rows"]),
        norm,
        node("Reshape", &["normal", "as filters"], &["weight"]),
    ];
    let constants = vec![
        filled("stored", &[4, 3, 1, 1]),
        numbers("as rows", &[1, 4, 3]),
        numbers("as filters", &[4, 3, 1, 1]),
        filled("scale", &[4]),
        filled("shift", &[4]),
        filled("zeros", &[4]),
        filled("ones", &[4]),
    ];
    let document = open(with_weight(nodes, constants));
    let step = 1.5f32.sqrt();
    let by_hand: Vec<f32> = (1..5).flat_map(|i| [-1.0, 0.0, 1.0].map(|x| (x * step + 1.0) * i as f32)).collect();
    for (got, expected) in weight_of(&document).iter().zip(&by_hand) {
        assert!((got - expected).abs() < 1e-6, "got {got}, expected {expected}");
    }
    let cut = check_cut(&document, &[1, 2]);
    let left: Vec<&str> = cut.graph().node.iter().map(NodeProto::op_type).collect();
    assert_eq!(left, ["Conv", "Conv"], "nobody needs what had computed the weights");
    assert_eq!(open(cut.graph().clone()).to_bytes(), cut.to_bytes());
    assert_eq!(self::cut(&document, &[0, 1, 2, 3]).to_bytes(), document.to_bytes());
}

/// g v / |v|, with filters (1, 2, 3), (4, 5, 6)...
#[test]
fn weights_of_unit_length_are_computed() {
    let length = with_ints(node("ReduceL2", &["stored"], &["length"]), "axes", &[1, 2, 3]);
    let nodes = vec![
        length,
        node("Div", &["stored", "length"], &["direction"]),
        node("Mul", &["direction", "gain"], &["weight"]),
    ];
    let document = open(with_weight(nodes, vec![filled("stored", &[4, 3, 1, 1]), filled("gain", &[4, 1, 1, 1])]));
    let first = weight_of(&document)[..4].to_vec();
    let expected = [1.0, 2.0, 3.0].map(|v: f32| v / 14f32.sqrt());
    let second = 2.0 * 4.0 / 77f32.sqrt();
    for (got, expected) in first.iter().zip(expected.iter().chain([&second])) {
        assert!((got - expected).abs() < 1e-6, "got {got}, expected {expected}");
    }
    check_cut(&document, &[0, 3]);
}

fn constant_of_shape(shape: &[i64], value: f32) -> (NodeProto, TensorProto) {
    let attribute = AttributeProto {
        name: Some("value".into()),
        r#type: Some(AttributeType::Tensor.into()),
        t: Some(TensorProto { float_data: vec![value], ..tensor("", &[1]) }),
        ..Default::default()
    };
    let fill = NodeProto { attribute: vec![attribute], ..node("ConstantOfShape", &["extents"], &["weight"]) };
    (fill, numbers("extents", shape))
}

#[test]
fn weights_filled_with_one_number_are_cut_by_the_shape_that_is_written_down() {
    let (fill, extents) = constant_of_shape(&[4, 3, 1, 1], 0.5);
    let document = open(with_weight(vec![fill], vec![extents]));
    assert_eq!(weight_of(&document), [0.5; 12]);
    let cut = check_cut(&document, &[2]);
    assert_eq!(cut.graph().node, document.graph().node);
    let extents = cut.graph().initializer.iter().find(|tensor| tensor.name() == "extents").unwrap();
    assert_eq!(extents.int64_data, [1, 3, 1, 1]);
}

/// 4 x 300 x 64 x 64 numbers from a file of a few hundred bytes.
#[test]
fn what_few_bytes_fill_is_cut_but_not_computed() {
    let (fill, extents) = constant_of_shape(&[4, 300, 64, 64], 0.5);
    let mut graph = with_weight(vec![fill], vec![extents]);
    (graph.input, graph.output) = (vec![shaped("x", &[1, 300, 64, 64])], vec![shaped("y", &[1, 2, 1, 1])]);
    let document = open(graph);
    let refused = document.network(&Facts::of(&document, None).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("'weight', a constant of more than"), "{refused}");
    let cut = cut(&document, &[0, 1]);
    assert_eq!(Facts::of(&cut, None).unwrap().shape("weight"), Some(&[2, 300, 64, 64][..]));
}

#[test]
fn weights_computed_in_a_way_that_is_not_known_stay_whole_and_are_named() {
    let nodes = vec![node("Atan", &["stored"], &["weight"])];
    let document = open(with_weight(nodes, vec![filled("stored", &[4, 3, 1, 1])]));
    let facts = Facts::of(&document, None).unwrap();
    let groups = DocumentGroups::of(&document, &facts);
    assert!(groups.groups().iter().all(|group| group.frozen.is_some()), "{:?}", groups.groups());
    let reason = &groups.frozen_nodes()[0].reason;
    assert!(reason.contains("'weight', a constant that Atan makes, which is not computed"), "{reason}");
}
