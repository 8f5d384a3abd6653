//! What is no model, and what to do about it.

use std::path::Path;

use prost::Message;
use secateur_onnx::schema::attribute_proto::AttributeType;
use secateur_onnx::schema::tensor_proto::DataType;
use secateur_onnx::schema::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto,
    TensorProto, type_proto,
};
use secateur_onnx::{DocumentGroups, Facts, Fidelity, OnnxDocument};

use crate::hand_made::{filled, model, node, numbers, relu, shaped, tensor, value};

fn error(bytes: Vec<u8>) -> String {
    OnnxDocument::from_bytes(bytes.into(), Path::new(".")).unwrap_err().to_string()
}

fn graph_error(graph: GraphProto) -> String {
    error(model(graph).encode_to_vec())
}

#[test]
fn bytes_that_are_no_model_are_refused_with_the_place() {
    assert!(error(Vec::new()).contains("empty"));
    assert!(error(b"PK\x03\x04 a zip file, as PyTorch writes it".to_vec()).contains("at byte"));
    let whole = model(relu()).encode_to_vec();
    for n in 1..whole.len() {
        // Some cuts fall between fields: then something is missing.
        let error = OnnxDocument::from_bytes(whole[..n].to_vec().into(), Path::new("."));
        assert!(error.is_err() || n >= whole.len() - 6, "cut after {n} of {} bytes", whole.len());
    }
    let text = error(ModelProto { graph: None, ..model(relu()) }.encode_to_vec());
    assert!(text.contains("the graph is missing"), "{text}");
}

#[test]
fn operator_sets_outside_what_is_known_are_refused_with_one_to_export() {
    let with = |version| {
        let opset_import = vec![OperatorSetIdProto { domain: None, version }];
        ModelProto { opset_import, ..model(relu()) }.encode_to_vec()
    };
    for version in [Some(6), Some(99), Some(-1), None] {
        let text = error(with(version));
        assert!(text.contains("operator set") && text.contains("opset_version=17"), "{text}");
    }
    assert!(OnnxDocument::from_bytes(with(Some(7)).into(), Path::new(".")).is_ok());
    let other = vec![OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(3) }];
    assert!(error(ModelProto { opset_import: other, ..model(relu()) }.encode_to_vec()).contains("operator set 0"));
}

#[test]
fn names_that_are_missing_or_there_twice_are_told_with_their_nodes() {
    let with = |nodes| GraphProto { node: nodes, ..relu() };
    let text = graph_error(with(vec![node("Relu", &["z"], &["y"])]));
    assert!(text.contains("lacks the value 'z', which node 0 (Relu) reads"), "{text}");
    let circle =
        with(vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"]), node("Relu", &["b"], &["y"])]);
    let text = graph_error(circle);
    assert!(text.contains("node 0 (Add) reads 'b', which node 1 (Relu) makes"), "{text}");
    let text = graph_error(with(vec![node("Relu", &["x"], &["y"]), node("Relu", &["x"], &["y"])]));
    assert!(text.contains("'y' twice: node 1 (Relu)"), "{text}");
    let text = graph_error(GraphProto { output: vec![value("other")], ..relu() });
    assert!(text.contains("lacks its output 'other'"), "{text}");
    let text = graph_error(GraphProto { input: vec![value("x"), value("x")], ..relu() });
    assert!(text.contains("two inputs 'x'"), "{text}");
    let initializer = vec![tensor("w", &[1]), tensor("w", &[1])];
    let text = graph_error(GraphProto { initializer, ..relu() });
    assert!(text.contains("two initialisers 'w'"), "{text}");
}

#[test]
fn initialisers_may_be_listed_among_the_inputs_and_inputs_left_out() {
    let graph = GraphProto {
        node: vec![node("Clip", &["x", "", "w"], &["y"])],
        input: vec![value("x"), value("w")],
        initializer: vec![tensor("w", &[1])],
        ..relu()
    };
    assert!(OnnxDocument::from_bytes(model(graph).encode_to_vec().into(), Path::new(".")).is_ok());
}

/// A field of a later version of the schema: read, but it cannot be written again.
#[test]
fn unknown_fields_are_told_by_the_place_where_they_begin() {
    let mut bytes = model(relu()).encode_to_vec();
    let known = bytes.len();
    bytes.extend([0xc2, 12, 1, 0]);
    let document = OnnxDocument::from_bytes(bytes.into(), Path::new(".")).unwrap();
    assert_eq!(*document.fidelity(), Fidelity::Differs { at: known });
    assert_eq!(document.to_bytes().len(), known);
}

/// Whatever bytes are changed, the answer is a document or an error.
#[test]
fn changed_bytes_never_panic() {
    let whole = model(GraphProto { initializer: vec![tensor("w", &[2, 3])], ..relu() }).encode_to_vec();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            let _ = OnnxDocument::from_bytes(bytes.into(), Path::new("."));
        }
    }
}

/// A convolution, these nodes from `a` to `b`, and a product behind.
fn around(nodes: Vec<NodeProto>) -> ModelProto {
    let first = vec![node("Conv", &["x", "w"], &["a"])];
    let last = vec![node("GlobalAveragePool", &["b"], &["c"]), node("Flatten", &["c"], &["d"])];
    model(GraphProto {
        node: [first, nodes, last, vec![node("MatMul", &["d", "matrix"], &["y"])]].concat(),
        initializer: vec![filled("w", &[4, 3, 1, 1]), filled("matrix", &[4, 2])],
        input: vec![shaped("x", &[1, 3, 4, 4])],
        output: vec![value("y")],
        ..Default::default()
    })
}

/// Why channels stay.
fn reasons(model: &ModelProto) -> Vec<String> {
    let document = OnnxDocument::from_bytes(model.encode_to_vec().into(), Path::new(".")).unwrap();
    let groups = DocumentGroups::of(&document, &Facts::of(&document, None).unwrap());
    groups.groups().iter().filter_map(|group| group.frozen.clone()).collect()
}

/// What is said of a model that is read and not computed, and the reasons for which its channels stay.
fn refused(model: &ModelProto) -> (String, Vec<String>) {
    let document = OnnxDocument::from_bytes(model.encode_to_vec().into(), Path::new(".")).unwrap();
    let facts = Facts::of(&document, None).unwrap();
    (document.network(&facts).unwrap_err().to_string(), reasons(model))
}

/// `node` is not computed, and what enters it stays, for a reason that has these parts.
fn check_unknown(model: &ModelProto, parts: &[&str]) {
    let (problem, reasons) = refused(model);
    for part in parts {
        assert!(problem.contains(part), "'{part}' is not in: {problem}");
        assert!(reasons.iter().any(|reason| reason.contains(part)), "'{part}' is not in: {reasons:?}");
    }
    assert_eq!(problem.matches("node '").count() + problem.matches("node 1").count(), 1, "named once: {problem}");
}

fn graph_attribute(name: &str, g: GraphProto) -> AttributeProto {
    let (name, r#type) = (Some(name.into()), Some(AttributeType::Graph.into()));
    AttributeProto { name, r#type, g: Some(g), ..Default::default() }
}

/// A branch that computes `z` of what it takes from around it.
fn branch(inner: NodeProto) -> AttributeProto {
    graph_attribute("then_branch", GraphProto { node: vec![inner], output: vec![value("z")], ..Default::default() })
}

#[test]
fn operations_that_are_not_known_are_told_by_kind_with_what_to_do() {
    for op in ["Loop", "Scan"] {
        let body = graph_attribute("body", GraphProto::default());
        let looped = NodeProto { attribute: vec![body], ..node(op, &["a"], &["b"]) };
        check_unknown(&around(vec![looped]), &["node 1", op, "fixed control flow", "onnxsim"]);
    }
    for op in ["QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "DequantizeLinear"] {
        let quantised = around(vec![node(op, &["a", "w"], &["b"])]);
        check_unknown(&quantised, &[op, "prune the network in floating point first", "afterwards"]);
    }
    for op in ["LSTM", "GRU", "RNN"] {
        check_unknown(&around(vec![node(op, &["a"], &["b"])]), &[op, "is recurrent"]);
    }
    let custom = NodeProto { domain: Some("com.acme".into()), ..node("Relu", &["a"], &["b"]) };
    check_unknown(&around(vec![custom.clone()]), &["(Relu)", "operator set 'com.acme'", "operations of ONNX itself"]);
    let function = FunctionProto { name: custom.op_type.clone(), domain: custom.domain.clone(), ..Default::default() };
    let own = ModelProto { functions: vec![function], ..around(vec![custom]) };
    check_unknown(&own, &["function 'com.acme.Relu' of the file itself", "inline_local_functions"]);
    check_unknown(&around(vec![node("Unheard", &["a"], &["b"])]), &["(Unheard)", "is not known"]);
}

/// Weights that are quantised alone: the convolution that reads them is named, and the node that makes them.
#[test]
fn quantised_weights_are_told_with_their_reader() {
    let mut model = around(vec![node("Relu", &["a"], &["b"])]);
    let graph = model.graph.as_mut().unwrap();
    let bytes = Some(DataType::Int8.into());
    graph.initializer[0] =
        TensorProto { data_type: bytes, raw_data: Some(vec![1; 12].into()), ..tensor("q", &[4, 3, 1, 1]) };
    graph.node.insert(0, node("DequantizeLinear", &["q", "matrix"], &["w"]));
    let (problem, _) = refused(&model);
    for part in ["(Conv) reads 'w'", "(DequantizeLinear) is of a quantised network"] {
        assert!(problem.contains(part), "{problem}");
    }
}

/// Branches read what is around them without naming it among the node's inputs: an activation, a parameter.
#[test]
fn what_a_branch_reads_stays_whole_though_its_condition_is_constant() {
    let choice = |inner: NodeProto| NodeProto { attribute: vec![branch(inner)], ..node("If", &["matrix"], &["b"]) };
    let model = around(vec![choice(node("Relu", &["a"], &["z"]))]);
    check_unknown(&model, &["(If)", "fixed control flow"]);
    // The branch reads the first convolution's weight, the rectifier that convolution's channels.
    let shared = choice(node("Conv", &["x", "w"], &["z"]));
    let shared = around(vec![NodeProto { output: vec!["other".into()], ..shared }, node("Relu", &["a"], &["b"])]);
    let reasons = reasons(&shared);
    assert!(reasons.iter().any(|reason| reason.contains("inside a branch or a loop")), "{reasons:?}");
    let lost = around(vec![choice(node("Relu", &["nowhere"], &["z"]))]);
    let text = error(lost.encode_to_vec());
    assert!(text.contains("lacks the value 'nowhere', which node 1 (If) reads"), "{text}");
}

#[test]
fn inputs_that_are_no_image_are_told_with_their_shape_or_type() {
    let with = |input| model(GraphProto { input, ..relu() });
    for dims in [&[][..], &[20], &[1, 3, 32], &[1, 3, 8, 32, 32]] {
        let (problem, _) = refused(&with(vec![shaped("x", dims)]));
        assert!(
            problem.contains(&format!("'x' of shape {dims:?}")) && problem.contains("rows and columns"),
            "{problem}"
        );
    }
    let (problem, _) = refused(&with(vec![shaped("x", &[1, 3, 4, 4]), shaped("second", &[1, 3, 4, 4])]));
    assert!(problem.contains("2 inputs ('x', 'second')") && problem.contains("as constants"), "{problem}");
    let none = GraphProto { input: vec![], initializer: vec![filled("x", &[1, 2])], ..relu() };
    assert!(refused(&model(none)).0.contains("no input"));
    let empty = GraphProto { node: vec![], output: vec![value("x")], input: vec![shaped("x", &[1, 2])], ..relu() };
    assert!(refused(&model(empty)).0.contains("nothing to compute or to prune"));
    let mut integers = shaped("x", &[1, 3, 4, 4]);
    let Some(type_proto::Value::TensorType(kind)) = &mut integers.r#type.as_mut().unwrap().value else {
        unreachable!()
    };
    kind.elem_type = Some(DataType::Uint8.into());
    let (problem, _) = refused(&with(vec![integers]));
    assert!(problem.contains("'x' of type UINT8") && problem.contains("floating point"), "{problem}");
}

#[test]
fn convolutions_over_one_or_three_axes_inside_are_told() {
    let reshape = |to: &str| node("Reshape", &["a", to], &["r"]);
    let mut model = around(vec![reshape("rows"), node("Conv", &["r", "line"], &["b"])]);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(numbers("rows", &[1, 4, 16]));
    graph.initializer.push(filled("line", &[4, 4, 3]));
    let (problem, _) = refused(&model);
    assert!(problem.contains("node 2 (Conv)") && problem.contains("over one axis"), "{problem}");
}

#[test]
fn sparse_and_impossible_tensors_are_refused_by_name() {
    let facts = |graph: GraphProto| {
        let document = OnnxDocument::from_bytes(model(graph).encode_to_vec().into(), Path::new(".")).unwrap();
        Facts::of(&document, None).unwrap_err().to_string()
    };
    let image = || GraphProto { input: vec![shaped("x", &[1, 3, 4, 4])], ..relu() };
    let sparse = SparseTensorProto { values: Some(filled("s", &[2])), ..Default::default() };
    let text = facts(GraphProto { sparse_initializer: vec![sparse], ..image() });
    assert!(text.contains("'s'") && text.contains("stored sparsely") && text.contains("export it"), "{text}");
    for dims in [&[1 << 62, 4][..], &[-1], &[i64::MAX, 0]] {
        let text = facts(GraphProto { initializer: vec![tensor("w", dims)], ..image() });
        assert!(text.contains("tensor 'w'") && text.contains("export it again"), "{text}");
    }
    let text = facts(GraphProto { input: vec![shaped("x", &[1, 3, 1 << 40, 1 << 40])], ..relu() });
    assert!(text.contains("input 'x'") && text.contains("export it again"), "{text}");
}
