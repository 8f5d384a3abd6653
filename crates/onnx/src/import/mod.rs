//! A document as a network that the engine computes.
//!
//! Nodes are taken over one by one; what a document says by reshaping and transposing (channels last, shuffled ones)
//! is kept as the [`Layout`] of a value and becomes an operation where it has an effect. Batches are left out.

mod arrays;
mod branches;
mod cutting;
mod elementwise;
mod filters;
mod inputs;
mod layers;
mod layout;
mod norms;
mod outputs;
mod pooling;
mod reshaping;
mod resize;

use std::collections::{HashMap, HashSet};

use inputs::{image, only_input};
use layout::Layout;
pub use resize::Resized;
use secateur_net::{Network, Node, NodeId, Op, Shape, Tensor, Weights};

use crate::OnnxError;
use crate::constants::Constants;
use crate::document::OnnxDocument;
use crate::facts::Facts;
use crate::names::{node_name, reads};
use crate::schema::NodeProto;
use crate::unknown::unknown;

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
    /// Of every node, the number of the document's node that it stands for; none of those that join the outputs.
    pub nodes: Vec<Option<usize>>,
    /// The document's values that the network's output is, one behind the other: the document's outputs, or, where
    /// operations follow that are not computed (box decoding, attention and their like), what enters these. What these
    /// cost is the tail of the network's graph.
    pub outputs: Vec<String>,
    /// Why the network ends in front of the document's outputs.
    pub ends_early: Option<String>,
}

impl ImportedNetwork {
    /// Numbers of one image that each of the outputs has, in their order.
    pub fn output_lens(&self) -> Vec<usize> {
        let graph = self.network.graph();
        match self.outputs.len() {
            1 => vec![graph.n_classes()],
            _ => graph.node(graph.output()).inputs.iter().map(|&input| graph.shape(input).len()).collect(),
        }
    }
}

/// A document while it is taken over.
struct Import<'a> {
    document: &'a OnnxDocument,
    facts: &'a Facts,
    constants: Constants<'a>,
    /// How many nodes and outputs read a value.
    n_readers: HashMap<&'a str, usize>,
    nodes: Vec<Node>,
    /// Which node of the document is being taken over, and which one each node stands for.
    current: Option<usize>,
    origins: Vec<Option<usize>>,
    shapes: Vec<Shape>,
    weights: Weights,
    names: HashSet<String>,
    carried: HashMap<String, Carried>,
    /// Values behind an operation that is not computed.
    beyond: HashSet<String>,
    /// The nodes that make these.
    beyond_nodes: HashSet<usize>,
    /// Values that enter such operations.
    ends: Vec<String>,
    /// Why the first of them is not computed.
    ends_early: Option<String>,
    /// Numbers that parameters may still hold.
    numbers_left: usize,
}

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
    /// The first node that is not computed, by name and with the reason, where two thirds of the multiply-accumulates
    /// come from there on; several inputs.
    pub fn network(&self, facts: &Facts) -> Result<ImportedNetwork, OnnxError> {
        let mut import = Import::new(self, facts)?;
        for (number, node) in self.graph().node.iter().enumerate() {
            import.take(number, node);
        }
        import.finish()
    }
}

impl<'a> Import<'a> {
    fn new(document: &'a OnnxDocument, facts: &'a Facts) -> Result<Self, OnnxError> {
        let input = only_input(document, facts)?;
        let (shape, layout) = image(input)?;
        let node = Node { name: "input".into(), op: Op::Input, inputs: vec![] };
        let constants = Constants::new(document, facts);
        let mut n_readers: HashMap<&str, usize> = HashMap::new();
        let outputs = document.graph().output.iter().map(|output| output.name());
        let read = document.graph().node.iter().flat_map(reads).chain(outputs);
        read.for_each(|name| *n_readers.entry(name).or_default() += 1);
        Ok(Self {
            document,
            facts,
            nodes: vec![node],
            current: None,
            origins: vec![None],
            shapes: vec![shape],
            weights: Weights::new(),
            names: HashSet::from(["input".to_owned()]),
            carried: HashMap::from([(input.name.clone(), Carried { node: 0, layout })]),
            beyond: HashSet::new(),
            beyond_nodes: HashSet::new(),
            ends: Vec::new(),
            ends_early: None,
            numbers_left: constants.numbers_max,
            constants,
            n_readers,
        })
    }

    /// Takes over one node. Where that fails, the network ends in front of it.
    fn take(&mut self, number: usize, node: &NodeProto) {
        let is_beyond = reads(node).any(|name| self.beyond.contains(name));
        if !is_beyond {
            self.current = Some(number);
            let taken = self.node(number, node).and_then(|()| self.check_shapes(node));
            let Err(why) = taken else { return };
            self.ends_early.get_or_insert(format!("{} {why}", node_name(number, node)));
        }
        for name in reads(node) {
            if self.carried.contains_key(name) && !self.ends.iter().any(|end| end == name) {
                self.ends.push(name.to_owned());
            }
        }
        self.beyond.extend(node.output.iter().filter(|name| !name.is_empty()).cloned());
        self.beyond_nodes.insert(number);
    }

    /// Takes over one node, if it works on what depends on the image.
    fn node(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let reads_image = reads(node).any(|name| self.carried.contains_key(name));
        if !reads_image
            || self.facts.is_constant_node(node)
            || (node.is_standard() && matches!(node.op_type(), "Shape" | "Size"))
        {
            return Ok(());
        }
        if let Some(problem) = self.facts.problem(number) {
            return Err(self.cause(number, node, problem));
        }
        if !node.is_standard() {
            return Err(unknown(node, &self.document.model().functions));
        }
        match node.op_type() {
            "Conv" => self.convolution(node),
            "ConvTranspose" => self.transposed_convolution(node),
            "Gemm" | "MatMul" => self.product(node),
            "BatchNormalization" => self.batch_norm(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" | "ReduceSum" | "ReduceL2"
            | "ReduceSumSquare" => self.global_pool(node),
            "Add" | "Sub" | "Mul" | "Div" | "Sum" | "Pow" | "Max" | "Min" => self.combination(node),
            "PRelu" => self.prelu(node),
            "Concat" => self.concatenation(node),
            "Split" | "Slice" => self.parts(node),
            "Pad" => self.pad(node),
            "Resize" | "Upsample" => self.resize(node),
            "DepthToSpace" => self.depth_to_space(node),
            "Softmax" | "LogSoftmax" => self.softmax(node),
            "LRN" => self.local_response(node),
            "InstanceNormalization" => self.instance_norm(node),
            "GroupNormalization" => self.norm_of_groups(node),
            "SpaceToDepth" => self.space_to_depth(node),
            "LayerNormalization" => self.layer_norm(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Gather" | "Expand" => self.reshaped(node),
            "Identity" | "Dropout" | "Cast" => {
                let x = self.input(node, 0)?;
                self.carry(&node.output[0], x);
                Ok(())
            }
            _ => self.pointwise(node),
        }
    }

    /// Why nothing is known of what the node makes: a parameter that is computed in a way that is not known, or its own
    /// problem, without its name.
    fn cause(&self, number: usize, node: &NodeProto, problem: &str) -> String {
        let computed = node.input.iter().filter(|name| self.facts.is_constant(name));
        let of_parameter = computed.filter_map(|name| {
            let problem = self.facts.problem(*self.constants.makers.get(name.as_str())?)?;
            Some(format!("reads '{name}': {problem}"))
        });
        let own = || problem.strip_prefix(&format!("{} ", node_name(number, node))).unwrap_or(problem).to_owned();
        of_parameter.into_iter().next().unwrap_or_else(own)
    }

    /// What was taken over has the shapes that the document gives it.
    fn check_shapes(&mut self, node: &NodeProto) -> Result<(), String> {
        for output in &node.output {
            let (Some(carried), Some(told)) = (self.carried.get(output), self.facts.shape(output)) else { continue };
            let shape = self.shapes[carried.node];
            let extents = carried.layout.extents(shape);
            let fits = match carried.layout {
                Layout::Merged => told == extents,
                Layout::Flat => told.get(1..) == Some(&extents) && shape.h * shape.w == 1,
                _ => told.get(1..) == Some(&extents),
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
        self.origins.push(self.current);
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
