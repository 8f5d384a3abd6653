//! Documents of networks that were pruned and refitted: where new weights and biases go.

use secateur_net::random::with_random_weights;
use secateur_net::{ChannelGroups, KeptChannels, Network, Op, Protocol, fold_batch_norm, prune};
use secateur_onnx::schema::tensor_proto::DataType;
use secateur_onnx::schema::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use secateur_onnx::{
    Compacted, DocumentNetwork, Facts, ImportedNetwork, NormNodes, OnnxDocument, OnnxError, dims, floats,
};

use crate::hand_made::{filled, model, network, node, numbers, shaped, tensor, with_int, with_ints};

struct ReadModel {
    document: OnnxDocument,
    facts: Facts,
    imported: ImportedNetwork,
}

fn opened(model: &ModelProto) -> ReadModel {
    let document = OnnxDocument::from_bytes(prost::Message::encode_to_vec(model).into(), ".".as_ref()).unwrap();
    let facts = Facts::of(&document, None).unwrap();
    let imported = document.network(&facts).unwrap();
    ReadModel { document, facts, imported }
}

/// A document whose network keeps every channel of the prunable groups but the first two, and what the network is.
struct Refitted {
    opened: ReadModel,
    folded: Network,
    groups: ChannelGroups,
    kept: KeptChannels,
    cut: Network,
}

impl Refitted {
    fn new(model: ModelProto, n_gone: usize) -> Self {
        let opened = opened(&model);
        let folded = fold_batch_norm(&opened.imported.network).unwrap();
        let groups = ChannelGroups::derive(folded.graph(), Protocol::Full);
        let lists = groups.groups().iter().map(|group| {
            let from = if group.frozen.is_none() { n_gone.min(group.n_channels - 1) } else { 0 };
            (from..group.n_channels).collect()
        });
        let kept = KeptChannels::new(&groups, lists.collect()).unwrap();
        let cut = prune(&folded, &groups, &kept).unwrap();
        Self { opened, folded, groups, kept, cut }
    }

    /// The compact network with other weights everywhere, biases included.
    fn random(&self, seed: u64) -> Network {
        with_random_weights(self.cut.graph().clone(), seed)
    }

    fn written(&self, network: &Network, norms: NormNodes) -> Result<OnnxDocument, OnnxError> {
        let Self { folded, groups, kept, .. } = self;
        let ReadModel { document, facts, imported } = &self.opened;
        let source = DocumentNetwork::new(document.clone(), facts.clone(), imported);
        source.try_pruned(folded)?;
        source.pruned(&Compacted { folded, groups, kept, network }, norms)
    }
}

fn operations(document: &OnnxDocument) -> Vec<&str> {
    document.graph().node.iter().map(|node| node.op_type()).collect()
}

fn initialisers(document: &OnnxDocument) -> Vec<&str> {
    document.graph().initializer.iter().map(|tensor| tensor.name()).collect()
}

fn floats_of(document: &OnnxDocument, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = document.graph().initializer.iter().find(|tensor| tensor.name() == name).unwrap();
    (dims(tensor).unwrap().0, floats(tensor, document.external()).unwrap())
}

/// Numbers that are above 0 and differ from each other.
fn distinct(name: &str, dims: &[i64]) -> TensorProto {
    let values = filled(name, dims).float_data.iter().map(|v| 0.5 + v / 7.0).collect();
    TensorProto { float_data: values, ..tensor(name, dims) }
}

/// Convolution to 6 channels of 4x4 pixels, these nodes from `a` to `b`, and a convolution to the output behind.
fn around(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> ModelProto {
    let ends = vec![filled("first", &[6, 3, 1, 1]), filled("last", &[2, 6, 1, 1])];
    model(GraphProto {
        node: [vec![node("Conv", &["x", "first"], &["a"])], nodes, vec![node("Conv", &["b", "last"], &["y"])]].concat(),
        initializer: [constants, ends].concat(),
        input: vec![shaped("x", &[1, 3, 4, 4])],
        output: vec![shaped("y", &[1, 2, 4, 4])],
        ..Default::default()
    })
}

fn norm(inputs: &[&str], output: &str) -> NodeProto {
    node("BatchNormalization", inputs, &[output])
}

#[test]
fn weights_that_no_refit_changed_stay_as_they_are_stored() {
    let refitted = Refitted::new(model(network()), 0);
    let same = refitted.written(&refitted.cut, NormNodes::Kept).unwrap();
    assert_eq!(same.to_bytes(), refitted.opened.document.to_bytes());
    let refitted = Refitted::new(model(network()), 1);
    let cut = refitted.written(&refitted.cut, NormNodes::Kept).unwrap();
    assert_eq!(operations(&cut), operations(&refitted.opened.document));
    assert_eq!(floats_of(&cut, "bias").1.len(), 2);
}

/// The product by a matrix has no input for a bias: a node behind it adds one. The second convolution gets the input
/// that it may have.
#[test]
fn new_weights_turn_as_their_nodes_read_them_and_biases_find_a_place() {
    let refitted = Refitted::new(model(network()), 1);
    let network = refitted.random(3);
    let written = refitted.written(&network, NormNodes::Kept).unwrap();
    assert_eq!(
        operations(&written),
        ["Conv", "Relu", "Reshape", "Transpose", "Reshape", "Conv", "Reshape", "MatMul", "Add"]
    );
    assert_eq!(written.graph().node[8].output, ["y"]);
    assert_eq!(initialisers(&written)[..7], initialisers(&refitted.opened.document)[..]);
    let layer = |id: usize, parameter: &str| {
        let node = network
            .graph()
            .nodes()
            .iter()
            .filter(|node| matches!(node.op, Op::Conv2d(_) | Op::Linear { .. }))
            .nth(id)
            .unwrap();
        network.parameter(&node.name, parameter).data().to_vec()
    };
    assert_eq!(floats_of(&written, "first").1, layer(0, "weight"));
    assert_eq!(floats_of(&written, "bias").1, layer(0, "bias"));
    assert_eq!(floats_of(&written, &written.graph().node[5].input[2]).1, layer(1, "bias"));
    let (shape, matrix) = floats_of(&written, "matrix");
    // [inputs, outputs] there, [outputs, inputs] in the network.
    assert_eq!(shape, [80, 2]);
    let turned: Vec<f32> = (0..160).map(|at| layer(2, "weight")[at % 2 * 80 + at / 2]).collect();
    assert_eq!(matrix, turned);
    assert_eq!(floats_of(&written, &written.graph().node[8].input[1]).1, layer(2, "bias"));
}

#[test]
fn a_norm_behind_a_refitted_layer_only_adds_its_bias() {
    let constants = ["s", "t", "m", "v"].map(|name| distinct(name, &[6])).to_vec();
    let refitted = Refitted::new(around(vec![norm(&["a", "s", "t", "m", "v"], "b")], constants), 2);
    let network = refitted.random(4);
    let written = refitted.written(&network, NormNodes::Kept).unwrap();
    assert_eq!(operations(&written), ["Conv", "BatchNormalization", "Conv"]);
    assert_eq!(written.graph().node[0].input, ["x", "first"]);
    let layer = &network.graph().node(1).name;
    assert_eq!(floats_of(&written, "t").1, network.parameter(layer, "bias").data());
    assert_eq!((floats_of(&written, "s").1, floats_of(&written, "m").1), (vec![1.0; 4], vec![0.0; 4]));
    assert_eq!(floats_of(&written, "v").1, [1.0 - 1e-5; 4]);
    assert_eq!(floats_of(&written, "first").1, network.parameter(layer, "weight").data());
}

#[test]
fn norms_are_folded_away_where_they_may_cost_nothing() {
    let constants = ["s", "t", "m", "v"].map(|name| distinct(name, &[6])).to_vec();
    let refitted = Refitted::new(around(vec![norm(&["a", "s", "t", "m", "v"], "b")], constants), 2);
    for network in [&refitted.cut, &refitted.random(5)] {
        let written = refitted.written(network, NormNodes::Folded).unwrap();
        assert_eq!(operations(&written), ["Conv", "Conv"]);
        assert_eq!(written.graph().node[0].input.len(), 3);
        assert!(!initialisers(&written).contains(&"s") && !initialisers(&written).contains(&"v"));
        assert_eq!(written.graph().node[1].input[0], written.graph().node[0].output[0]);
    }
}

/// Two norms whose constants are the same tensors, one of which is behind a layer that stays as it was.
#[test]
fn constants_that_others_read_keep_their_numbers() {
    let constants = ["s", "t", "m", "v"].map(|name| distinct(name, &[6])).to_vec();
    let nodes = vec![
        norm(&["a", "s", "t", "m", "v"], "n"),
        node("Conv", &["n", "middle"], &["c"]),
        norm(&["c", "s", "t", "m", "v"], "b"),
    ];
    let constants = [constants, vec![distinct("middle", &[6, 6, 1, 1])]].concat();
    let refitted = Refitted::new(around(nodes, constants), 0);
    let mut network = refitted.cut.clone();
    let bias = network.parameter("a", "bias").clone();
    let moved = secateur_net::Tensor::new(vec![6], bias.data().iter().map(|b| b + 1.0).collect()).unwrap();
    network.set_parameter("a", "bias", moved.clone()).unwrap();
    let written = refitted.written(&network, NormNodes::Kept).unwrap();
    assert_eq!(floats_of(&written, "t"), floats_of(&refitted.opened.document, "t"));
    assert_eq!(written.graph().node[3].input, ["c", "s", "t", "m", "v"]);
    assert_eq!(floats_of(&written, &written.graph().node[1].input[2]).1, moved.data());
}

#[test]
fn whatever_was_folded_becomes_neutral_or_the_bias() {
    let scalar = |name: &str, value: f32| TensorProto { float_data: vec![value], ..tensor(name, &[]) };
    let plane = |name: &str| distinct(name, &[6, 1, 1]);
    let one = |op: &str, inputs: [&str; 2]| vec![node(op, &inputs, &["b"])];
    let scaled = vec![node("Mul", &["a", "k"], &["c"]), node("Add", &["c", "l"], &["b"])];
    let behind = vec![node("Identity", &["a"], &["c"]), node("Add", &["c", "l"], &["b"])];
    let assert_becomes = |nodes: Vec<NodeProto>, constants: Vec<TensorProto>, kept: &[&str], folded: &[&str]| {
        let refitted = Refitted::new(around(nodes, constants), 2);
        let network = refitted.random(6);
        for (norms, middle) in [(NormNodes::Kept, kept), (NormNodes::Folded, folded)] {
            let written = refitted.written(&network, norms).unwrap_or_else(|e| panic!("{kept:?}, {norms:?}: {e}"));
            assert_eq!(operations(&written), [&["Conv"], middle, &["Conv"]].concat(), "{norms:?}");
        }
    };
    assert_becomes(one("Add", ["a", "k"]), vec![plane("k")], &["Add"], &[]);
    assert_becomes(one("Add", ["k", "a"]), vec![plane("k")], &["Add"], &[]);
    assert_becomes(one("Sub", ["a", "k"]), vec![plane("k")], &["Sub"], &[]);
    // What is subtracted from a constant changes its sign, which no constant undoes.
    assert_becomes(one("Sub", ["k", "a"]), vec![plane("k")], &[], &[]);
    assert_becomes(one("Mul", ["a", "k"]), vec![plane("k")], &["Mul"], &[]);
    assert_becomes(one("Div", ["a", "k"]), vec![plane("k")], &["Div"], &[]);
    assert_becomes(one("Div", ["a", "k"]), vec![scalar("k", 255.0)], &["Div"], &[]);
    assert_becomes(scaled, vec![plane("k"), plane("l")], &["Mul", "Add"], &[]);
    assert_becomes(behind, vec![plane("l")], &["Identity", "Add"], &["Identity"]);
}

/// What leaves the network keeps its name.
#[test]
fn outputs_keep_their_names_when_the_norm_before_them_goes() {
    let graph = |outputs: &[&str]| {
        let constants = ["s", "t", "m", "v"].map(|name| distinct(name, &[6])).to_vec();
        model(GraphProto {
            node: vec![node("Conv", &["x", "first"], &["a"]), norm(&["a", "s", "t", "m", "v"], "y")],
            initializer: [vec![filled("first", &[6, 3, 1, 1])], constants].concat(),
            input: vec![shaped("x", &[1, 3, 4, 4])],
            output: outputs.iter().map(|name| shaped(name, &[1, 6, 4, 4])).collect(),
            value_info: vec![shaped("a", &[1, 6, 4, 4])],
            ..Default::default()
        })
    };
    let refitted = Refitted::new(graph(&["y"]), 0);
    let written = refitted.written(&refitted.cut, NormNodes::Folded).unwrap();
    assert_eq!((operations(&written), written.graph().node[0].output[0].as_str()), (vec!["Conv"], "y"));
    assert!(written.graph().value_info.is_empty(), "nothing is said of values that are gone");
    // Where the layer's own output leaves, too, nothing is folded.
    let both = Refitted::new(graph(&["y", "a"]), 0);
    let written = both.written(&both.cut, NormNodes::Folded).unwrap();
    assert_eq!(written.to_bytes(), both.opened.document.to_bytes());
}

#[test]
fn alpha_and_beta_of_a_product_become_one() {
    let float = |name: &str, f: f32| AttributeProto {
        name: Some(name.into()),
        r#type: Some(1),
        f: Some(f),
        ..Default::default()
    };
    let gemm = |inputs: &[&str], output: &str| {
        let node = with_int(node("Gemm", inputs, &[output]), "transB", 1);
        NodeProto { attribute: [node.attribute, vec![float("alpha", 0.5), float("beta", 0.25)]].concat(), ..node }
    };
    let graph = GraphProto {
        node: vec![gemm(&["x", "w", "c"], "h"), gemm(&["h", "u", "one"], "y")],
        initializer: vec![filled("w", &[6, 8]), filled("c", &[1, 6]), filled("u", &[3, 6]), filled("one", &[1])],
        input: vec![shaped("x", &[1, 8])],
        output: vec![shaped("y", &[1, 3])],
        ..Default::default()
    };
    let refitted = Refitted::new(model(graph), 2);
    let network = refitted.random(7);
    let written = refitted.written(&network, NormNodes::Kept).unwrap();
    let again = opened(written.model());
    assert_eq!(again.imported.network.parameter("h", "bias"), network.parameter("h", "bias"));
    assert_eq!(again.imported.network.parameter("y", "bias"), network.parameter("y", "bias"));
    assert_eq!(floats_of(&written, "c").0, [1, 4]);
    assert_eq!(floats_of(&written, "one").0, [3]);
}

/// 16-bit weights stay 16-bit; what they cannot hold is refused.
#[test]
fn weights_keep_their_type() {
    let half = |tensor: TensorProto| {
        let bits = |v: &f32| half::f16::from_f32(*v).to_le_bytes();
        let raw: Vec<u8> = tensor.float_data.iter().flat_map(bits).collect();
        let data_type = Some(DataType::Float16.into());
        TensorProto { data_type, raw_data: Some(raw.into()), float_data: Vec::new(), ..tensor }
    };
    let mut graph = around(vec![node("Relu", &["a"], &["b"])], vec![]);
    let stored = graph.graph.as_mut().unwrap();
    stored.initializer = std::mem::take(&mut stored.initializer).into_iter().map(half).collect();
    let refitted = Refitted::new(graph, 2);
    let mut network = refitted.random(8);
    let written = refitted.written(&network, NormNodes::Kept).unwrap();
    let is_half = |tensor: &TensorProto| tensor.data_type() == i32::from(DataType::Float16);
    assert!(written.graph().initializer.len() == 4 && written.graph().initializer.iter().all(is_half));
    let large = secateur_net::Tensor::new(vec![4], vec![1e6; 4]).unwrap();
    network.set_parameter("a", "bias", large).unwrap();
    let refused = refitted.written(&network, NormNodes::Kept).unwrap_err().to_string();
    assert!(refused.contains("16-bit floating point cannot hold its new numbers"), "{refused}");
}

/// Before IR 4, initialisers are inputs as well: new ones too, and none that is gone.
#[test]
fn old_documents_list_their_initialisers_as_inputs() {
    let constants = ["s", "t", "m", "v"].map(|name| distinct(name, &[6])).to_vec();
    let mut old = around(vec![norm(&["a", "s", "t", "m", "v"], "b")], constants);
    old.ir_version = Some(3);
    let graph = old.graph.as_mut().unwrap();
    graph.input.extend(graph.initializer.iter().map(|tensor| shaped(tensor.name(), &tensor.dims)));
    let refitted = Refitted::new(old, 2);
    let written = refitted.written(&refitted.random(9), NormNodes::Folded).unwrap();
    let mut inputs: Vec<&str> = written.graph().input.iter().map(|value| value.name()).collect();
    inputs.retain(|name| *name != "x");
    inputs.sort_unstable();
    let mut stored = initialisers(&written);
    stored.sort_unstable();
    assert_eq!(inputs, stored);
}

/// A weight that is turned or reshaped before it is read is written where it is stored, in the form that it has there.
#[test]
fn weights_behind_reshapes_and_transposes_are_written_where_they_are_stored() {
    let last = |shape: &[i64], between: NodeProto, sizes: Vec<TensorProto>| {
        model(GraphProto {
            node: vec![
                node("Conv", &["x", "first"], &["a"]),
                with_int(node("Flatten", &["a"], &["b"]), "axis", 1),
                between,
                node("MatMul", &["b", "w"], &["y"]),
            ],
            initializer: [vec![filled("first", &[4, 3, 4, 4]), distinct("stored", shape)], sizes].concat(),
            input: vec![shaped("x", &[1, 3, 4, 4])],
            output: vec![shaped("y", &[1, 5])],
            ..Default::default()
        })
    };
    let turned = last(&[5, 4], with_ints(node("Transpose", &["stored"], &["w"]), "perm", &[1, 0]), vec![]);
    let reshaped = last(&[4, 1, 5], node("Reshape", &["stored", "to"], &["w"]), vec![numbers("to", &[4, 5])]);
    for (model, shape) in [(turned, vec![5, 3]), (reshaped, vec![3, 1, 5])] {
        let refitted = Refitted::new(model, 1);
        let network = refitted.random(10);
        let written = refitted.written(&network, NormNodes::Kept).unwrap();
        assert_eq!(operations(&written)[2..], [operations(&refitted.opened.document)[2], "MatMul", "Add"]);
        let (stored, numbers) = floats_of(&written, "stored");
        assert_eq!(stored, shape);
        let weight = network.parameter("y", "weight").data();
        let at = |i: usize| if shape.len() == 2 { i } else { i % 5 * 3 + i / 5 };
        assert_eq!(numbers, (0..15).map(|i| weight[at(i)]).collect::<Vec<_>>());
    }
}

/// Two layers that read one tensor may come to differ: the second gets one of its own, and no third is left over.
#[test]
fn layers_that_shared_weights_get_their_own() {
    let nodes = vec![node("Conv", &["a", "shared"], &["c"]), node("Conv", &["c", "shared"], &["b"])];
    let refitted = Refitted::new(around(nodes, vec![distinct("shared", &[6, 6, 1, 1])]), 0);
    let written = refitted.written(&refitted.random(11), NormNodes::Kept).unwrap();
    let read: Vec<&str> = written.graph().node[1..3].iter().map(|node| node.input[1].as_str()).collect();
    assert_ne!(read[0], read[1]);
    let mut four_axes: Vec<&str> = initialisers(&written);
    four_axes.retain(|name| floats_of(&written, name).0.len() == 4);
    assert_eq!(four_axes.len(), 4);
}
