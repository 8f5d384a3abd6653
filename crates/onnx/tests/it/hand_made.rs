//! Small models put together by hand.

use secateur_onnx::schema::attribute_proto::AttributeType;
use secateur_onnx::schema::tensor_proto::DataType;
use secateur_onnx::schema::tensor_shape_proto::Dimension;
use secateur_onnx::schema::tensor_shape_proto::dimension::Value;
use secateur_onnx::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
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

/// With its values.
pub fn filled(name: &str, dims: &[i64]) -> TensorProto {
    let n = dims.iter().product::<i64>();
    TensorProto { float_data: (0..n).map(|i| i as f32 + 1.0).collect(), ..tensor(name, dims) }
}

/// Of 64-bit integers.
pub fn numbers(name: &str, values: &[i64]) -> TensorProto {
    let data_type = Some(DataType::Int64.into());
    let dims = vec![values.len() as i64];
    TensorProto { name: Some(name.into()), dims, data_type, int64_data: values.to_vec(), ..Default::default() }
}

/// Of this shape.
pub fn shaped(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&n| Dimension { value: Some(Value::DimValue(n)), ..Default::default() });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float.into()), shape };
    let r#type = Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() });
    ValueInfoProto { r#type, ..value(name) }
}

/// An attribute of whole numbers.
pub fn with_ints(node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let attribute = AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints.into()),
        ints: ints.to_vec(),
        ..Default::default()
    };
    NodeProto { attribute: [node.attribute, vec![attribute]].concat(), ..node }
}

/// An attribute of one whole number.
pub fn with_int(node: NodeProto, name: &str, i: i64) -> NodeProto {
    let (name, r#type) = (Some(name.into()), Some(AttributeType::Int.into()));
    let attribute = AttributeProto { name, r#type, i: Some(i), ..Default::default() };
    NodeProto { attribute: [node.attribute, vec![attribute]].concat(), ..node }
}

/// A classifier: 3x4x4 -> conv 4 -> relu -> shuffled in two groups -> conv 6 -> flattened -> 2 classes, with a declared
/// shape in the middle.
pub fn network() -> GraphProto {
    GraphProto {
        node: vec![
            with_ints(node("Conv", &["x", "first", "bias"], &["a"]), "pads", &[1, 1, 1, 1]),
            node("Relu", &["a"], &["b"]),
            node("Reshape", &["b", "apart"], &["c"]),
            with_ints(node("Transpose", &["c"], &["d"]), "perm", &[0, 2, 1, 3, 4]),
            node("Reshape", &["d", "together"], &["e"]),
            node("Conv", &["e", "second"], &["f"]),
            node("Reshape", &["f", "flat"], &["g"]),
            node("MatMul", &["g", "matrix"], &["y"]),
        ],
        initializer: vec![
            filled("first", &[4, 3, 3, 3]),
            filled("bias", &[4]),
            numbers("apart", &[1, 2, 2, 4, 4]),
            numbers("together", &[1, 4, 4, 4]),
            filled("second", &[6, 4, 1, 1]),
            numbers("flat", &[1, 96]),
            filled("matrix", &[96, 2]),
        ],
        input: vec![shaped("x", &[1, 3, 4, 4])],
        output: vec![shaped("y", &[1, 2])],
        value_info: vec![shaped("c", &[1, 2, 2, 4, 4]), shaped("f", &[1, 6, 4, 4])],
        ..Default::default()
    }
}
