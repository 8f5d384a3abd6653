//! Documents as networks: what becomes which operation, and what is refused rather than computed otherwise.

use secateur_net::Op;
use secateur_onnx::schema::{GraphProto, NodeProto, TensorProto};
use secateur_onnx::{DocumentGroups, Facts, ImportedNetwork, OnnxDocument, OnnxError};

use crate::hand_made::{filled, model, network, node, shaped, tensor, with_int, with_ints};

fn taken(graph: GraphProto) -> Result<ImportedNetwork, OnnxError> {
    let bytes = prost::Message::encode_to_vec(&model(graph));
    let document = OnnxDocument::from_bytes(bytes.into(), ".".as_ref())?;
    document.network(&Facts::of(&document, None)?)
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
    let refused = taken(around(vec![mean, node("Mul", &["a", "mean"], &["b"])], &[1, 4, 4, 4])).unwrap_err();
    assert!(refused.to_string().contains("(Mul) combines tensors of unlike layouts"), "{refused}");
    let kept = with_int(with_ints(node("ReduceMean", &["a"], &["mean"]), "axes", &[2, 3]), "keepdims", 1);
    let gate = taken(around(vec![kept, node("Mul", &["a", "mean"], &["b"])], &[1, 4, 4, 4])).unwrap();
    assert_eq!(operations(&gate), ["Input", "Conv2d", "GlobalAvgPool", "Mul", "Conv2d", "Flatten"]);
}

/// The mean over the last two axes is one over columns and channels where channels lie behind.
#[test]
fn pooling_of_channels_that_lie_behind_is_refused() {
    let behind = with_ints(node("Transpose", &["a"], &["t"]), "perm", &[0, 2, 3, 1]);
    let pool = node("GlobalAveragePool", &["t"], &["b"]);
    let refused = taken(around(vec![behind, pool], &[1, 4, 1, 1])).unwrap_err();
    assert!(refused.to_string().contains("pools channels, which lie behind"), "{refused}");
}

#[test]
fn a_node_with_weights_behind_one_that_is_not_computed_names_the_latter() {
    let strange = NodeProto { name: Some("odd one".into()), ..node("Sin", &["a"], &["b"]) };
    let refused = taken(around(vec![strange], &[1, 4, 4, 4])).unwrap_err();
    assert!(refused.to_string().contains("node 'odd one' (Sin) is an operation that is not computed"), "{refused}");
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
