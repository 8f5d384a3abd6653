//! `inspect` of an ONNX file: what its document holds.

use std::collections::BTreeMap;
use std::path::Path;

use secateur_formats::read_regular_file;
use secateur_onnx::schema::tensor_proto::DataLocation;
use secateur_onnx::schema::tensor_shape_proto::dimension::Value;
use secateur_onnx::schema::{GraphProto, TensorProto, ValueInfoProto, type_proto};
use secateur_onnx::{ElementType, Fidelity, OnnxDocument, OnnxError, dims};
use serde::Serialize;

use crate::table::Table;

/// What a document holds.
#[derive(Serialize)]
pub(crate) struct DocumentReport {
    file: String,
    producer: String,
    ir_version: i64,
    opset: i64,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    operations: BTreeMap<String, usize>,
    /// Floating-point numbers in initialisers and Constant nodes.
    weights: usize,
    storage: Storage,
    /// Offset of the first byte that would be written otherwise; none where the file is written byte for byte.
    differs_at: Option<usize>,
}

/// An input or an output of the whole network.
#[derive(Serialize)]
struct Port {
    name: String,
    /// Numbers, symbols, or `?`.
    shape: Vec<String>,
}

/// Tensors by where their values are.
#[derive(Default, Serialize)]
struct Storage {
    raw: usize,
    typed: usize,
    external: usize,
    constant_nodes: usize,
}

impl DocumentReport {
    /// Reads the file.
    ///
    /// # Errors
    /// What is no regular file of at most 2 GiB, what is no ONNX model, a shape that no tensor has.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let bytes = read_regular_file(path, OnnxDocument::BYTES_MAX)?;
        // The folder of a bare name is the current one.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let document = OnnxDocument::from_bytes(bytes.into(), folder)?;
        let (graph, model) = (document.graph(), document.model());
        let mut operations: BTreeMap<String, usize> = BTreeMap::new();
        for node in &graph.node {
            *operations.entry(operation(node.domain(), node.op_type())).or_default() += 1;
        }
        // Before IR 4, initialisers are listed among the inputs as well.
        let is_given = |port: &&ValueInfoProto| graph.initializer.iter().all(|tensor| tensor.name() != port.name());
        Ok(Self {
            file: path.display().to_string(),
            producer: format!("{} {}", model.producer_name(), model.producer_version()).trim().to_owned(),
            ir_version: model.ir_version(),
            opset: document.opset(),
            inputs: graph.input.iter().filter(is_given).map(Port::new).collect(),
            outputs: graph.output.iter().map(Port::new).collect(),
            operations,
            weights: n_weights(graph)?,
            storage: Storage::new(graph),
            differs_at: match document.fidelity() {
                Fidelity::Exact => None,
                Fidelity::Differs { at } => Some(*at),
            },
        })
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let by = if self.producer.is_empty() { String::new() } else { format!(", written by {}", self.producer) };
        let mut lines = vec![format!("'{}': ONNX, operator set {}, IR {}{by}", self.file, self.opset, self.ir_version)];
        let ports = |kind: &str, ports: &[Port]| {
            ports.iter().map(|port| format!("  {kind} {}: {}", port.name, port.shape.join("x"))).collect::<Vec<_>>()
        };
        lines.extend(ports("input", &self.inputs));
        lines.extend(ports("output", &self.outputs));
        let Storage { raw, typed, external, constant_nodes } = self.storage;
        lines.push(format!(
            "  {} weights: {raw} tensors as bytes, {typed} as lists, {external} in other files; {constant_nodes} of them in Constant nodes",
            self.weights
        ));
        lines.push(match self.differs_at {
            None => "  can be written again byte for byte".to_owned(),
            Some(at) => format!("  has something from byte {at} on that cannot be written again byte for byte"),
        });
        let mut table = Table::new(&["operation", ">nodes"]);
        let mut operations: Vec<_> = self.operations.iter().collect();
        operations.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        for (operation, n) in operations {
            table.row([operation.clone(), n.to_string()]);
        }
        lines.push(format!("\n{table}"));
        lines.push(
            "\nONNX files can be looked at, not pruned yet: prune the weights as .safetensors or .pth".to_owned(),
        );
        lines.join("\n")
    }
}

/// With its domain, where that is not ONNX's own.
fn operation(domain: &str, name: &str) -> String {
    if domain.is_empty() || domain == "ai.onnx" { name.to_owned() } else { format!("{domain}.{name}") }
}

impl Port {
    fn new(value: &ValueInfoProto) -> Self {
        let tensor = value.r#type.as_ref().and_then(|kind| match &kind.value {
            Some(type_proto::Value::TensorType(tensor)) => tensor.shape.as_ref(),
            _ => None,
        });
        let dimension = |value: Option<&Value>| match value {
            Some(Value::DimValue(n)) => n.to_string(),
            Some(Value::DimParam(symbol)) if !symbol.is_empty() => symbol.clone(),
            _ => "?".to_owned(),
        };
        let shape =
            tensor.map_or_else(Vec::new, |shape| shape.dim.iter().map(|d| dimension(d.value.as_ref())).collect());
        Self { name: value.name().to_owned(), shape }
    }
}

/// Tensors of Constant nodes.
fn constants(graph: &GraphProto) -> impl Iterator<Item = &TensorProto> {
    let nodes = graph.node.iter().filter(|node| node.op_type() == "Constant");
    nodes.flat_map(|node| &node.attribute).filter_map(|attribute| attribute.t.as_ref())
}

fn n_weights(graph: &GraphProto) -> Result<usize, OnnxError> {
    let mut n_weights = 0;
    for tensor in graph.initializer.iter().chain(constants(graph)) {
        let kind = ElementType::of(tensor);
        let is_float = !matches!(kind, Ok(ElementType::Int64 | ElementType::Int32 | ElementType::Bool) | Err(_));
        n_weights += if is_float { dims(tensor)?.1 } else { 0 };
    }
    Ok(n_weights)
}

impl Storage {
    fn new(graph: &GraphProto) -> Self {
        let mut storage = Self { constant_nodes: constants(graph).count(), ..Self::default() };
        for tensor in graph.initializer.iter().chain(constants(graph)) {
            let place = match (tensor.data_location(), &tensor.raw_data) {
                (DataLocation::External, _) => &mut storage.external,
                (DataLocation::Default, Some(_)) => &mut storage.raw,
                (DataLocation::Default, None) => &mut storage.typed,
            };
            *place += 1;
        }
        storage
    }
}
