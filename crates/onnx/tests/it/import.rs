//! Documents as networks: what becomes which operation, and what is refused rather than computed otherwise.

use secateur_net::{ChannelGroups, Cost, CostModel, GraphTail, Op, Protocol, Tap};
use secateur_onnx::schema::attribute_proto::AttributeType;
use secateur_onnx::schema::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use secateur_onnx::{DocumentGroups, Facts, ImportedNetwork, OnnxDocument, OnnxError};

use crate::hand_made::{filled, model, network, node, numbers, shaped, tensor, with_int, with_ints};

fn taken(graph: GraphProto) -> Result<ImportedNetwork, OnnxError> {
    let bytes = prost::Message::encode_to_vec(&model(graph));
    let document = OnnxDocument::from_bytes(bytes.into(), ".".as_ref())?;
    document.network(&Facts::of(&document, None)?)
}

/// Why a document is not computed to its end.
fn reason(graph: GraphProto) -> String {
    match taken(graph) {
        Ok(taken) => taken.ends_early.unwrap(),
        Err(refused) => refused.to_string(),
    }
}

fn opset(version: i64) -> Vec<OperatorSetIdProto> {
    vec![OperatorSetIdProto { domain: None, version: Some(version) }]
}

fn text(name: &str, value: &str) -> AttributeProto {
    let (name, r#type) = (Some(name.into()), Some(AttributeType::String.into()));
    AttributeProto { name, r#type, s: Some(value.as_bytes().to_vec()), ..Default::default() }
}

fn operations(network: &ImportedNetwork) -> Vec<&'static str> {
    network.network.graph().nodes().iter().map(|node| node.op.name()).collect()
}

#[test]
fn a_shuffle_of_three_nodes_becomes_one_and_a_matrix_is_turned() {
    let taken = taken(network()).unwrap();
    let wanted = ["Input", "Conv2d", "Pointwise", "ChannelShuffle", "Conv2d", "Flatten", "Linear"];
    assert_eq!(operations(&taken), wanted);
    assert_eq!(taken.network.graph().node(3).op, Op::ChannelShuffle { groups: 2 });
    assert_eq!(taken.outputs, ["y"]);
    // The document has [96, 2], counted from 1 row by row; Linear has [2, 96].
    let matrix = taken.network.parameter(&taken.network.graph().node(6).name, "weight");
    assert_eq!((matrix.shape(), &matrix.data()[..3], matrix.data()[96]), (&[2, 96][..], &[1.0, 3.0, 5.0][..], 2.0));
}

/// Convolution to 4 channels of 4x4 pixels, these nodes from `a` to `b`, and a convolution behind.
fn around(nodes: Vec<NodeProto>, b: &[i64]) -> GraphProto {
    GraphProto {
        node: [vec![node("Conv", &["x", "first"], &["a"])], nodes, vec![node("Conv", &["b", "last"], &["y"])]].concat(),
        initializer: vec![filled("first", &[4, 3, 1, 1]), filled("last", &[2, b[1], 1, 1])],
        input: vec![shaped("x", &[1, 3, 4, 4])],
        output: vec![shaped("y", &[1, 2, b[2], b[3]])],
        ..Default::default()
    }
}

/// `[1, 4]` times `[1, 4, 4, 4]` multiplies columns, not channels, though both are four.
#[test]
fn what_broadcasts_along_columns_is_no_gate() {
    let mean = with_int(with_ints(node("ReduceMean", &["a"], &["mean"]), "axes", &[2, 3]), "keepdims", 0);
    let refused = reason(around(vec![mean, node("Mul", &["a", "mean"], &["b"])], &[1, 4, 4, 4]));
    assert!(refused.contains("(Mul) combines tensors of unlike layouts"), "{refused}");
    let kept = with_int(with_ints(node("ReduceMean", &["a"], &["mean"]), "axes", &[2, 3]), "keepdims", 1);
    let gate = taken(around(vec![kept, node("Mul", &["a", "mean"], &["b"])], &[1, 4, 4, 4])).unwrap();
    assert_eq!(operations(&gate), ["Input", "Conv2d", "GlobalAvgPool", "Mul", "Conv2d", "Flatten"]);
}

/// As [`around`], with constants for the nodes between.
fn around_with(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, b: &[i64]) -> GraphProto {
    let graph = around(nodes, b);
    GraphProto { initializer: [graph.initializer, constants].concat(), ..graph }
}

/// The operations between the two convolutions.
fn between(graph: GraphProto) -> Vec<Op> {
    let taken = taken(graph).unwrap();
    let nodes = taken.network.graph().nodes();
    let last = nodes.iter().rposition(|node| matches!(node.op, Op::Conv2d(_))).unwrap();
    nodes[2..last].iter().map(|node| node.op.clone()).collect()
}

#[test]
fn a_softmax_over_branches_and_their_sum_are_one_operation_each() {
    let sum = with_int(node("ReduceSum", &["s", "axis"], &["b"]), "keepdims", 0);
    let nodes =
        vec![node("Reshape", &["a", "apart"], &["r"]), with_int(node("Softmax", &["r"], &["s"]), "axis", 1), sum];
    let constants = || vec![numbers("apart", &[1, 2, 2, 4, 4]), numbers("axis", &[1])];
    let made = between(around_with(nodes.clone(), constants(), &[1, 2, 4, 4]));
    assert_eq!(made, [Op::BranchSoftmax { branches: 2 }, Op::BranchSum { branches: 2 }]);
    // The second axis of channels: each part has branches of its own, of one channel, which are all its channels.
    let sum = with_int(node("ReduceSum", &["r", "axis"], &["b"]), "keepdims", 0);
    let nodes = vec![nodes[0].clone(), sum];
    let constants = vec![numbers("apart", &[1, 2, 2, 4, 4]), numbers("axis", &[2])];
    let names: Vec<&str> = between(around_with(nodes, constants, &[1, 2, 4, 4])).iter().map(Op::name).collect();
    assert_eq!(names, ["Slice", "ChannelMean", "Slice", "ChannelMean", "Concat", "BatchNorm"]);
}

#[test]
fn a_convolution_along_channels_and_one_of_several_filters() {
    let pooled = with_int(with_ints(node("ReduceMean", &["a"], &["m"]), "axes", &[2, 3]), "keepdims", 0);
    let conv = with_ints(node("Conv", &["r", "taps"], &["c"]), "pads", &[1, 1]);
    let nodes = vec![
        pooled,
        node("Reshape", &["m", "row"], &["r"]),
        conv,
        node("Reshape", &["c", "pixel"], &["g"]),
        node("Mul", &["a", "g"], &["b"]),
    ];
    let shapes = || vec![numbers("row", &[1, 1, 4]), numbers("pixel", &[1, 4, 1, 1])];
    let graph =
        |taps: &[i64]| around_with(nodes.clone(), [shapes(), vec![filled("taps", taps)]].concat(), &[1, 4, 4, 4]);
    let made = between(graph(&[1, 1, 3]));
    assert_eq!(made, [Op::GlobalAvgPool, Op::ChannelConv { taps: 3, front: 1, bias: false }, Op::Mul]);
    let refused = reason(graph(&[2, 1, 3]));
    assert!(refused.contains("(Conv) is a convolution over one axis with several filters"), "{refused}");
}

#[test]
fn a_transposed_convolution_keeps_its_weights_as_they_are_stored() {
    let conv = with_ints(node("ConvTranspose", &["a", "up"], &["b"]), "strides", &[2, 2]);
    let graph =
        around_with(vec![with_ints(conv, "pads", &[0, 1, 1, 0])], vec![filled("up", &[4, 3, 2, 2])], &[1, 3, 7, 7]);
    let taken = taken(graph).unwrap();
    let Op::ConvTranspose2d(conv) = &taken.network.graph().node(2).op else { panic!("{:?}", operations(&taken)) };
    assert_eq!((conv.padding, conv.stride, conv.groups), ([[0, 1], [1, 0]], [2, 2], 1));
    let weight = taken.network.parameter(&taken.network.graph().node(2).name, "weight");
    assert_eq!((weight.shape(), weight.data()[1]), (&[4, 3, 2, 2][..], 2.0));
}

/// A vector without a batch: the only image is the batch, and comes out again.
#[test]
fn a_batch_of_one_may_be_merged_into_the_channels_and_taken_out_again() {
    let nodes = vec![
        node("GlobalAveragePool", &["a"], &["p"]),
        node("Reshape", &["p", "all"], &["v"]),
        node("Gather", &["v", "places"], &["b"]),
    ];
    let places = |values: &[i64]| TensorProto { dims: vec![1, 4, 1, 1], ..numbers("places", values) };
    let graph = |values: &[i64]| around_with(nodes.clone(), vec![numbers("all", &[-1]), places(values)], &[1, 4, 1, 1]);
    assert_eq!(between(graph(&[0, 1, 2, 3])), [Op::GlobalAvgPool]);
    let names: Vec<&str> = between(graph(&[3, 0, 1, 2])).iter().map(Op::name).collect();
    assert_eq!(names, ["GlobalAvgPool", "Slice", "Slice", "Concat"]);
    // A batch of two has no such vector of one image.
    let two = GraphProto { input: vec![shaped("x", &[2, 3, 4, 4])], ..graph(&[0, 1, 2, 3]) };
    assert!(!reason(two).is_empty());
}

/// Rows and columns that are repeated say nothing of channels.
#[test]
fn a_reflected_border_keeps_channels_apart_and_free() {
    let pad = NodeProto { attribute: vec![text("mode", "reflect")], ..node("Pad", &["a", "border"], &["b"]) };
    let graph = around_with(vec![pad], vec![numbers("border", &[0, 0, 1, 2, 0, 0, 0, 1])], &[1, 4, 5, 7]);
    let rows: Vec<Tap> = [1, 0, 1, 2, 3].map(Tap::nearest).to_vec();
    let cols: Vec<Tap> = [2, 1, 0, 1, 2, 3, 2].map(Tap::nearest).to_vec();
    assert_eq!(between(graph.clone()), [Op::Resize { rows, cols }]);
    let bytes = prost::Message::encode_to_vec(&model(graph));
    let document = OnnxDocument::from_bytes(bytes.into(), ".".as_ref()).unwrap();
    let groups = DocumentGroups::of(&document, &Facts::of(&document, None).unwrap());
    let free: Vec<usize> = groups.groups().iter().filter(|g| g.frozen.is_none()).map(|g| g.n_channels).collect();
    assert_eq!(free, [4]);
}

/// Lists of rows and columns are no longer than those of any network, and all of them together no longer than what a
/// network may hold.
#[test]
fn cuts_of_many_rows_do_not_take_memory_without_end() {
    let nodes: Vec<NodeProto> = (0..2_000)
        .flat_map(|i| {
            let (part, sum) = (format!("part{i}"), format!("sum{i}"));
            let before = if i == 0 { "x".to_owned() } else { format!("sum{}", i - 1) };
            let slice = with_ints(with_ints(node("Slice", &["x"], &[&part]), "starts", &[1]), "ends", &[60_000]);
            [with_ints(slice, "axes", &[2]), node("Concat", &[&before, &part], &[&sum])]
        })
        .collect();
    let graph = GraphProto {
        node: nodes,
        input: vec![shaped("x", &[1, 1, 60_001, 1])],
        output: vec![shaped("part1999", &[1, 1, 59_999, 1])],
        ..Default::default()
    };
    let bytes = prost::Message::encode_to_vec(&ModelProto { opset_import: opset(9), ..model(graph) });
    let document = OnnxDocument::from_bytes(bytes.into(), ".".as_ref()).unwrap();
    let refused = document.network(&Facts::of(&document, None).unwrap());
    assert!(refused.is_err() || refused.is_ok_and(|taken| taken.network.graph().nodes().len() < 100));
}

/// The mean over the last two axes is one over columns and channels where channels lie behind.
#[test]
fn pooling_of_channels_that_lie_behind_is_refused() {
    let behind = with_ints(node("Transpose", &["a"], &["t"]), "perm", &[0, 2, 3, 1]);
    let pool = node("GlobalAveragePool", &["t"], &["b"]);
    let refused = reason(around(vec![behind, pool], &[1, 4, 1, 1]));
    assert!(refused.contains("pools channels, which lie behind"), "{refused}");
}

/// Worked out by hand: 3 x 4 weights for each of 16 pixels in front of what is not computed, 4 x 2 behind it.
#[test]
fn a_network_ends_where_it_is_no_longer_computed_and_counts_what_follows() {
    let strange = NodeProto { name: Some("odd one".into()), ..node("Sin", &["a"], &["b"]) };
    let taken = taken(around(vec![strange], &[1, 4, 4, 4])).unwrap();
    let why = taken.ends_early.unwrap();
    assert!(why.contains("node 'odd one' (Sin) is an operation that is not computed"), "{why}");
    assert_eq!(taken.outputs, ["a"]);
    let graph = taken.network.graph();
    assert_eq!(graph.tail(), GraphTail { macs: 8 * 16, params: 8 });
    let groups = ChannelGroups::derive(graph, Protocol::Full);
    let model = CostModel::new(graph, &groups);
    let costs = [Cost::Macs, Cost::Params].map(|cost| model.count(cost, &groups.full_widths()));
    assert_eq!(costs, [(12 + 8) * 16, 12 + 8]);
}

#[test]
fn a_network_most_of_which_is_not_computed_is_refused_by_the_first_such_node() {
    let strange = NodeProto { name: Some("odd one".into()), ..node("Sin", &["a"], &["b"]) };
    let mut graph = around(vec![strange], &[1, 4, 4, 4]);
    graph.initializer[1] = filled("last", &[6, 4, 1, 1]);
    let refused = taken(graph).unwrap_err().to_string();
    assert!(refused.contains("node 'odd one' (Sin) is an operation that is not computed"), "{refused}");
    assert!(refused.contains("66 % of the multiply-accumulates come from there on"), "{refused}");
}

/// Ten thousand nodes of 64 filters that share one parameter: a small file, but neither labels nor copies without end.
#[test]
fn what_a_small_file_multiplies_is_bounded() {
    let names: Vec<String> = (0..=10_000).map(|i| format!("x{i}")).collect();
    let conv = |i: usize| node("Conv", &[names[i].as_str(), "shared"], &[names[i + 1].as_str()]);
    let graph = GraphProto {
        node: (0..10_000).map(conv).collect(),
        initializer: vec![filled("shared", &[64, 64, 1, 1])],
        input: vec![shaped("x0", &[1, 64, 4, 4])],
        output: vec![shaped("x10000", &[1, 64, 4, 4])],
        ..Default::default()
    };
    let bytes = prost::Message::encode_to_vec(&model(GraphProto { initializer: padded(&graph), ..graph }));
    let document = OnnxDocument::from_bytes(bytes.into(), ".".as_ref()).unwrap();
    let facts = Facts::of(&document, None).unwrap();
    let refused = document.network(&facts).unwrap_err().to_string();
    assert!(refused.contains("copies would not fit in memory"), "{refused}");
    let groups = DocumentGroups::of(&document, &facts);
    let n_channels: usize = groups.groups().iter().map(|group| group.n_channels).sum();
    assert!(n_channels < 1 << 20, "{n_channels}");
    assert!(groups.frozen_nodes()[0].reason.contains("which are not followed"), "{}", groups.frozen_nodes()[0].reason);
}

/// With as many weights beside as a file of so many nodes has.
fn padded(graph: &GraphProto) -> Vec<TensorProto> {
    let beside = TensorProto { raw_data: Some(vec![0; 4_000_000].into()), ..tensor("beside", &[1_000_000]) };
    [graph.initializer.clone(), vec![beside]].concat()
}
