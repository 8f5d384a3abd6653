//! The graph of a document while it is written: nodes with names that nothing else has, and the shape of every value.

use std::collections::HashSet;

use crate::schema::attribute_proto::AttributeType;
use crate::schema::tensor_proto::DataType;
use crate::schema::tensor_shape_proto::Dimension;
use crate::schema::tensor_shape_proto::dimension::Value;
use crate::schema::type_proto;
use crate::schema::{AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto};

/// Name of the extent that stays open.
const BATCH: &str = "batch";

/// A node of operator set 17 before it has a name and an output.
pub struct NodeDraft {
    node: NodeProto,
    /// Of its output, without the batch.
    extents: Vec<usize>,
}

impl NodeDraft {
    /// `extents` are those of its output, without the batch: `[c, h, w]`, or `[n]` where it is flat.
    pub fn new(op: &str, input: Vec<String>, extents: Vec<usize>) -> Self {
        Self { node: NodeProto { op_type: Some(op.to_owned()), input, ..NodeProto::default() }, extents }
    }

    /// With further inputs.
    pub fn reading(mut self, inputs: impl IntoIterator<Item = String>) -> Self {
        self.node.input.extend(inputs);
        self
    }

    /// With whole numbers as an attribute.
    pub fn ints(self, name: &str, values: &[usize]) -> Self {
        let ints = values.iter().map(|&v| whole(v)).collect();
        self.with(AttributeProto { ints, ..attribute(name, AttributeType::Ints) })
    }

    /// With one whole number as an attribute.
    pub fn int(self, name: &str, value: usize) -> Self {
        self.with(AttributeProto { i: Some(whole(value)), ..attribute(name, AttributeType::Int) })
    }

    /// With a fraction as an attribute.
    pub fn float(self, name: &str, value: f32) -> Self {
        self.with(AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) })
    }

    /// With a word as an attribute.
    pub fn word(self, name: &str, value: &str) -> Self {
        let s = Some(value.as_bytes().to_vec());
        self.with(AttributeProto { s, ..attribute(name, AttributeType::String) })
    }

    fn with(mut self, attribute: AttributeProto) -> Self {
        self.node.attribute.push(attribute);
        self
    }

    /// Its operation.
    pub fn op(&self) -> &str {
        self.node.op_type()
    }

    /// Whether its output is `[batch, n]`.
    pub const fn is_flat(&self) -> bool {
        self.extents.len() == 1
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind.into()), ..AttributeProto::default() }
}

/// A size; what no tensor is as large as stays larger than all.
pub fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Names of a node and of the value that it makes.
pub struct NodeNames {
    /// Of the node.
    pub node: String,
    /// Of its output.
    pub value: String,
}

/// A graph while it is written.
pub struct GraphWriter {
    graph: GraphProto,
    names: HashSet<String>,
}

impl GraphWriter {
    /// An empty graph in which nothing is given one of `reserved` as its name.
    pub fn new(name: &str, reserved: impl IntoIterator<Item = String>) -> Self {
        let graph = GraphProto { name: Some(name.to_owned()), ..GraphProto::default() };
        Self { graph, names: reserved.into_iter().collect() }
    }

    /// `wanted`, or that with a number behind where it is taken; from now on it is.
    pub fn unused(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}#{n}");
        }
        name
    }

    /// Stores numbers under a name that nothing else has.
    pub fn floats(&mut self, name: &str, extents: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.store(name, extents, DataType::Float, bytes);
    }

    /// Stores a list of whole numbers under a name that nothing else has.
    pub fn integers(&mut self, name: &str, values: &[i64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.store(name, &[values.len()], DataType::Int64, bytes);
    }

    fn store(&mut self, name: &str, extents: &[usize], kind: DataType, bytes: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: extents.iter().map(|&n| whole(n)).collect(),
            data_type: Some(kind.into()),
            raw_data: Some(bytes.into()),
            ..TensorProto::default()
        });
    }

    /// Declares an input of the graph.
    pub fn input(&mut self, name: &str, extents: &[usize]) {
        self.graph.input.push(declared(name, extents));
    }

    /// Appends a node; its output is one inside the graph.
    pub fn push(&mut self, draft: NodeDraft, names: NodeNames) {
        self.graph.value_info.push(declared(&names.value, &draft.extents));
        self.append(draft.node, names);
    }

    /// Appends a node whose output is the graph's.
    pub fn push_output(&mut self, draft: NodeDraft, names: NodeNames) {
        self.graph.output.push(declared(&names.value, &draft.extents));
        self.append(draft.node, names);
    }

    fn append(&mut self, node: NodeProto, names: NodeNames) {
        self.graph.node.push(NodeProto { name: Some(names.node), output: vec![names.value], ..node });
    }

    /// The graph.
    pub fn finish(self) -> GraphProto {
        self.graph
    }
}

/// A value of floats for any number of images.
fn declared(name: &str, extents: &[usize]) -> ValueInfoProto {
    let open = Value::DimParam(BATCH.to_owned());
    let dims = std::iter::once(open).chain(extents.iter().map(|&n| Value::DimValue(whole(n))));
    let dim = dims.map(|value| Dimension { value: Some(value), ..Dimension::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float.into()), shape: Some(TensorShapeProto { dim }) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}
