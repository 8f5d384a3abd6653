//! What is no model, and what to do about it.

use std::path::Path;

use prost::Message;
use secateur_onnx::schema::{GraphProto, ModelProto, OperatorSetIdProto};
use secateur_onnx::{Fidelity, OnnxDocument};

use crate::hand_made::{model, node, relu, tensor, value};

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
