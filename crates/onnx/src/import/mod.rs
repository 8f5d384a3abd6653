//! A document as a network that the engine computes.
//!
//! Nodes are taken over one by one; what a document says by reshaping and transposing (channels last, shuffled ones)
//! is kept as the [`Layout`] of a value and becomes an operation where it has an effect. Batches are left out.

mod arrays;
mod elementwise;
mod layers;
mod outputs;
mod reshaping;
mod resize;

use std::collections::{HashMap, HashSet};

pub use resize::Resized;
use secateur_net::{Network, Node, NodeId, Op, Shape, Tensor, Weights};

use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::facts::Facts;
use crate::names::{makers, node_name};
use crate::schema::tensor_proto::DataLocation;
use crate::schema::{NodeProto, TensorProto};
use crate::tensor::dims;

/// What the axes of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Images, channels, rows, columns.
    Image,
    /// Images, rows, columns, channels.
    ChannelsLast,
    /// Images, features.
    Flat,
    /// Images, groups, channels of a group, rows, columns; or, transposed, channels of a group before groups.
    Grouped { groups: usize, is_transposed: bool },
}

impl Layout {
    /// Along which axis channels lie.
    fn channel_axis(self) -> Result<usize, String> {
        match self {
            Self::Image | Self::Flat => Ok(1),
            Self::ChannelsLast => Ok(3),
            Self::Grouped { .. } => Err("works on channels in groups, which is not computed".into()),
        }
    }
}

/// A value of the document, as the network has it.
#[derive(Clone, Copy, Debug)]
struct Carried {
    node: NodeId,
    layout: Layout,
}

/// A network that a document describes, and where its tensors come from.
#[derive(Clone, Debug)]
pub struct ImportedNetwork {
    /// It, with weights; images are `[C, H, W]` whatever the document has.
    pub network: Network,
    /// Of every node, the value of the document that it computes; none of those that stand between.
    pub values: Vec<Option<String>>,
    /// The document's values that the network's output is, one behind the other: the document's outputs, or, where
    /// operations without weights follow that are not computed (box decoding and its like), what enters these.
    pub outputs: Vec<String>,
    /// Why the network ends in front of the document's outputs.
    pub ends_early: Option<String>,
}

/// A document while it is taken over.
struct Import<'a> {
    document: &'a OnnxDocument,
    facts: &'a Facts,
    /// Which node makes a value.
    makers: HashMap<&'a str, usize>,
    stored: HashMap<&'a str, &'a TensorProto>,
    nodes: Vec<Node>,
    shapes: Vec<Shape>,
    weights: Weights,
    names: HashSet<String>,
    carried: HashMap<String, Carried>,
    /// Values behind an operation that is not computed.
    beyond: HashSet<String>,
    /// Values that enter such operations.
    ends: Vec<String>,
    /// Why the first of them is not computed.
    ends_early: Option<String>,
    /// Numbers that parameters may still hold.
    numbers_left: usize,
}

/// Numbers that parameters may hold beyond twice those stored: nodes that share parameters get copies of them.
const NUMBERS_BEYOND: usize = 1 << 20;

/// Elements of a tensor of one image: no network has as many.
const ELEMENTS_MAX: usize = 1 << 28;

/// A shape that memory can hold.
fn checked(shape: Shape) -> Result<Shape, String> {
    let n = shape.c.checked_mul(shape.h).and_then(|n| n.checked_mul(shape.w));
    if n.is_some_and(|n| n <= ELEMENTS_MAX) {
        Ok(shape)
    } else {
        Err(format!("has {shape} values, more than any network"))
    }
}

impl OnnxDocument {
    /// The network that the document describes, for inputs of the shapes in `facts`.
    ///
    /// # Errors
    /// The first node that is not computed, by name and with the reason; several inputs.
    pub fn network(&self, facts: &Facts) -> Result<ImportedNetwork, OnnxError> {
        let mut import = Import::new(self, facts)?;
        for (number, node) in self.graph().node.iter().enumerate() {
            import.take(number, node).map_err(|why| OnnxError::graph(format!("cannot be computed: {why}")))?;
        }
        import.finish()
    }
}

/// Twice as many as the document stores, and some.
fn numbers_left(document: &OnnxDocument) -> Result<usize, OnnxError> {
    let graph = document.graph();
    let mut n = NUMBERS_BEYOND;
    for tensor in graph.initializer.iter().chain(graph.node.iter().filter_map(NodeProto::constant)) {
        // A tensor holds no more numbers than bytes, whatever its shape says.
        let lists =
            tensor.float_data.len() + tensor.double_data.len() + tensor.int32_data.len() + tensor.int64_data.len();
        let external = match tensor.data_location() {
            DataLocation::External => usize::try_from(document.external().n_bytes(tensor)).unwrap_or(usize::MAX),
            DataLocation::Default => 0,
        };
        let stored = tensor.raw_data.as_ref().map_or(lists, bytes::Bytes::len).max(external);
        n = n.saturating_add(dims(tensor)?.1.min(stored).saturating_mul(2));
    }
    Ok(n)
}

impl<'a> Import<'a> {
    fn new(document: &'a OnnxDocument, facts: &'a Facts) -> Result<Self, OnnxError> {
        let [input] = facts.inputs() else {
            let n = facts.inputs().len();
            return Err(OnnxError::graph(format!("has {n} inputs; networks of one image are computed")));
        };
        let (shape, layout) = match *input.shape.as_slice() {
            [_, h, w, c] if input.channel_axis() == 3 => (Shape { c, h, w }, Layout::ChannelsLast),
            [_, c, h, w] => (Shape { c, h, w }, Layout::Image),
            [_, c] => (Shape { c, h: 1, w: 1 }, Layout::Flat),
            _ => return Err(OnnxError::graph(format!("has an input '{}' that is no image", input.name))),
        };
        checked(shape).map_err(|problem| OnnxError::graph(format!("has an input '{}' that {problem}", input.name)))?;
        let node = Node { name: "input".into(), op: Op::Input, inputs: vec![] };
        Ok(Self {
            document,
            facts,
            makers: makers(document.graph()),
            stored: document.graph().initializer.iter().map(|tensor| (tensor.name(), tensor)).collect(),
            nodes: vec![node],
            shapes: vec![shape],
            weights: Weights::new(),
            names: HashSet::from(["input".to_owned()]),
            carried: HashMap::from([(input.name.clone(), Carried { node: 0, layout })]),
            beyond: HashSet::new(),
            ends: Vec::new(),
            ends_early: None,
            numbers_left: numbers_left(document)?,
        })
    }

    /// Takes over one node. Where that fails, the network ends in front of it, unless weights follow.
    fn take(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let is_beyond = node.input.iter().any(|name| self.beyond.contains(name));
        if !is_beyond {
            let taken = self.node(number, node).and_then(|()| self.check_shapes(node));
            let Err(why) = taken else { return Ok(()) };
            self.ends_early.get_or_insert(format!("{} {why}", node_name(number, node)));
        }
        let has_weights = matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul");
        if has_weights && node.input.iter().any(|name| self.facts.is_constant(name)) {
            return Err(self.ends_early.clone().unwrap_or_default());
        }
        for name in &node.input {
            if self.carried.contains_key(name) && !self.ends.contains(name) {
                self.ends.push(name.clone());
            }
        }
        self.beyond.extend(node.output.iter().filter(|name| !name.is_empty()).cloned());
        Ok(())
    }

    /// Takes over one node, if it works on what depends on the image.
    fn node(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let reads_image = node.input.iter().any(|name| self.carried.contains_key(name));
        if !reads_image
            || self.facts.is_constant_node(node)
            || (node.is_standard() && matches!(node.op_type(), "Shape" | "Size"))
        {
            return Ok(());
        }
        if !node.is_standard() {
            return Err(format!("is of the operator set '{}'", node.domain()));
        }
        if let Some(problem) = self.facts.problem(number) {
            return Err(problem.to_owned());
        }
        match node.op_type() {
            "Conv" => self.convolution(node),
            "Gemm" | "MatMul" => self.product(node),
            "BatchNormalization" => self.batch_norm(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" => self.global_pool(node),
            "Add" | "Sub" | "Mul" | "Div" | "Sum" | "Pow" | "Max" | "Min" => self.combination(node),
            "PRelu" => self.prelu(node),
            "Concat" => self.concatenation(node),
            "Split" | "Slice" => self.parts(node),
            "Pad" => self.pad(node),
            "Resize" | "Upsample" => self.resize(node),
            "Gather" => self.gathered(node),
            "DepthToSpace" => self.depth_to_space(node),
            "Softmax" => self.softmax(node),
            "LayerNormalization" => self.layer_norm(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" => self.reshaped(node),
            "Identity" | "Dropout" | "Cast" => {
                let x = self.input(node, 0)?;
                self.carry(&node.output[0], x);
                Ok(())
            }
            _ => self.pointwise(node),
        }
    }

    /// What was taken over has the shapes that the document gives it.
    fn check_shapes(&mut self, node: &NodeProto) -> Result<(), String> {
        for output in &node.output {
            let (Some(carried), Some(told)) = (self.carried.get(output), self.facts.shape(output)) else { continue };
            let Shape { c, h, w } = self.shapes[carried.node];
            let fits = match (carried.layout, told) {
                (Layout::Image, told) => told.get(1..) == Some(&[c, h, w]),
                (Layout::ChannelsLast, told) => told.get(1..) == Some(&[h, w, c]),
                (Layout::Flat, told) => told.get(1..) == Some(&[c]) && h * w == 1,
                (Layout::Grouped { groups, is_transposed }, told) => {
                    let (first, second) = if is_transposed { (c / groups, groups) } else { (groups, c / groups) };
                    told.get(1..) == Some(&[first, second, h, w])
                }
            };
            if !fits {
                self.carried.remove(output);
                return Err(format!("makes {told:?} in a way that is not computed"));
            }
        }
        Ok(())
    }

    /// The node's input, which must depend on the image.
    fn input(&self, node: &NodeProto, i: usize) -> Result<Carried, String> {
        let name = node.input.get(i).ok_or_else(|| format!("lacks input {i}"))?;
        self.carried.get(name).copied().ok_or_else(|| format!("needs '{name}' to depend on the image"))
    }

    fn carry(&mut self, value: &str, carried: Carried) {
        if !value.is_empty() {
            self.carried.insert(value.to_owned(), carried);
        }
    }

    /// Appends an operation, under the node's name or its output's.
    fn push(&mut self, node: &NodeProto, op: Op, inputs: &[NodeId]) -> Result<NodeId, String> {
        let base = if node.name().is_empty() { node.output.first().map_or("", String::as_str) } else { node.name() };
        let mut name = base.to_owned();
        let mut n = 1;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{base}#{n}");
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&id| self.shapes[id]).collect();
        let shape = checked(secateur_net::output_shape(&op, &shapes)?)?;
        self.nodes.push(Node { name, op, inputs: inputs.to_vec() });
        self.shapes.push(shape);
        Ok(self.nodes.len() - 1)
    }

    /// Gives the last operation a parameter.
    fn set(&mut self, parameter: &str, shape: Vec<usize>, data: Vec<f32>) -> Result<(), String> {
        let left = self.numbers_left.checked_sub(data.len());
        self.numbers_left = left.ok_or("shares parameters with so many others that copies would not fit in memory")?;
        let name = self.nodes.last().map(|node| format!("{}.{parameter}", node.name)).unwrap_or_default();
        let tensor = Tensor::new(shape, data).map_err(|e| e.to_string())?;
        self.weights.insert(name, tensor);
        Ok(())
    }
}
