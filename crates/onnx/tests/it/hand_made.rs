//! Small models put together by hand.

use secateur_onnx::schema::tensor_proto::DataType;
use secateur_onnx::schema::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};

pub fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..Default::default() }
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto { op_type: Some(op.into()), input: names(inputs), output: names(outputs), ..Default::default() }
}

/// Of 32-bit floats, without values.
pub fn tensor(name: &str, dims: &[i64]) -> TensorProto {
    let data_type = Some(DataType::Float.into());
    TensorProto { name: Some(name.into()), dims: dims.to_vec(), data_type, ..Default::default() }
}

/// Kept in another file.
pub fn external(tensor: TensorProto, entries: &[(&str, &str)]) -> TensorProto {
    let entry =
        |&(key, value): &(&str, &str)| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    TensorProto { external_data: entries.iter().map(entry).collect(), data_location: Some(1), ..tensor }
}

pub fn model(graph: GraphProto) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }];
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }
}

/// `y = relu(x)`.
pub fn relu() -> GraphProto {
    let node = vec![node("Relu", &["x"], &["y"])];
    GraphProto { node, input: vec![value("x")], output: vec![value("y")], ..Default::default() }
}
