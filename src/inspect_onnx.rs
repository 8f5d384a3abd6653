//! `inspect` of an ONNX file: what its document holds.

use std::collections::BTreeMap;
use std::path::Path;

use secateur_onnx::schema::tensor_proto::DataLocation;
use secateur_onnx::schema::tensor_shape_proto::dimension::Value;
use secateur_onnx::schema::{GraphProto, TensorProto, ValueInfoProto, type_proto};
use secateur_onnx::{
    DocumentGroup, DocumentGroups, ElementType, Facts, Fidelity, FrozenNode, InputShape, OnnxDocument, OnnxError, dims,
};
use secateur_run::open_document;
use serde::Serialize;

use crate::inspect::shortened;
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
    /// Shapes that everything below is derived for, and the axes that the file leaves open.
    derived_for: Vec<DerivedFor>,
    /// Multiply-accumulates of convolutions and products with constant weights.
    macs: u64,
    groups: Vec<GroupReport>,
    /// Why the engine does not compute all of it; none where it does.
    not_computed: Option<String>,
    /// Nodes that channels cannot be followed through.
    frozen_nodes: Vec<FrozenNodeReport>,
    /// Offset of the first byte that would be written otherwise; none where the file is written byte for byte.
    differs_at: Option<usize>,
}

/// An input, and what was chosen where the file leaves sizes open.
#[derive(Serialize)]
struct DerivedFor {
    input: String,
    shape: Vec<usize>,
    open_axes: Vec<usize>,
}

#[derive(Serialize)]
struct GroupReport {
    name: String,
    channels: usize,
    made_by: Vec<String>,
    frozen: Option<String>,
}

#[derive(Serialize)]
struct FrozenNodeReport {
    node: String,
    operation: String,
    reason: String,
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
    /// Reads the file, for images of `size` rows and columns where it leaves them open.
    ///
    /// # Errors
    /// What is no regular file of at most 2 GiB, what is no ONNX model, a shape that no tensor has.
    pub(crate) fn new(path: &Path, size: Option<[usize; 2]>) -> anyhow::Result<Self> {
        let document = open_document(path)?;
        let (graph, model) = (document.graph(), document.model());
        let facts = Facts::of(&document, size)?;
        // Before there are groups, so that memory holds one of both at a time.
        let not_computed = not_computed(&document, &facts);
        let groups = DocumentGroups::of(&document, &facts);
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
            derived_for: facts.inputs().iter().map(DerivedFor::new).collect(),
            macs: facts.macs(&document),
            not_computed,
            groups: groups.groups().iter().map(|group| GroupReport::new(group, graph)).collect(),
            frozen_nodes: groups.frozen_nodes().iter().map(FrozenNodeReport::new).collect(),
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
        lines.extend(self.group_lines());
        let is_whole = self.not_computed.is_none();
        let advice = "give it to a scene as `network`; results are written as model.onnx and model.safetensors";
        lines.extend(is_whole.then(|| format!("\n{advice}")));
        lines.join("\n")
    }

    /// What may be pruned, and what not and why.
    fn group_lines(&self) -> Vec<String> {
        let shown = |input: &DerivedFor| {
            let open = if input.open_axes.is_empty() { "" } else { " (sizes that the file leaves open were chosen)" };
            let shape = input.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            format!("{} {shape}{open}", input.input)
        };
        let inputs = self.derived_for.iter().map(shown).collect::<Vec<_>>().join(", ");
        let mut lines = vec![format!("\n{} MACs for {inputs}", self.macs)];
        lines.push(match &self.not_computed {
            None => "the engine computes all of it".to_owned(),
            Some(why) => format!("the engine does not compute all of it: {why}"),
        });
        let free: Vec<&GroupReport> = self.groups.iter().filter(|group| group.frozen.is_none()).collect();
        let n_channels: usize = free.iter().map(|group| group.channels).sum();
        lines.push(format!("\n{} groups of {n_channels} channels may be pruned:", free.len()));
        let mut table = Table::new(&["group", ">channels", "made by"]);
        for group in free {
            table.row([group.name.clone(), group.channels.to_string(), shortened(&group.made_by)]);
        }
        lines.push(table.to_string());
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for group in &self.groups {
            if let Some(reason) = &group.frozen {
                *reasons.entry(reason).or_default() += group.channels;
            }
        }
        lines.push("\nchannels that stay whole:".to_owned());
        let mut table = Table::new(&[">channels", "reason"]);
        for (reason, channels) in reasons {
            table.row([channels.to_string(), reason.to_owned()]);
        }
        lines.push(table.to_string());
        lines
    }
}

/// Why the engine does not compute all of a document, if so.
fn not_computed(document: &OnnxDocument, facts: &Facts) -> Option<String> {
    match document.network(facts) {
        Ok(imported) => imported.ends_early.map(|why| format!("what comes from there on is left as it is: {why}")),
        Err(problem) => Some(problem.to_string()),
    }
}

impl DerivedFor {
    fn new(input: &InputShape) -> Self {
        Self { input: input.name.clone(), shape: input.shape.clone(), open_axes: input.open.clone() }
    }
}

impl GroupReport {
    fn new(group: &DocumentGroup, graph: &GraphProto) -> Self {
        let name = |&number: &usize| {
            let node = &graph.node[number];
            if node.name().is_empty() {
                node.output.first().cloned().unwrap_or_default()
            } else {
                node.name().to_owned()
            }
        };
        let made_by = group.producers.iter().map(name).collect();
        Self { name: group.name.clone(), channels: group.n_channels, made_by, frozen: group.frozen.clone() }
    }
}

impl FrozenNodeReport {
    fn new(node: &FrozenNode) -> Self {
        Self { node: node.name.clone(), operation: node.operation.clone(), reason: node.reason.clone() }
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
