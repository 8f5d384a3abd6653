//! What is known of values, and how nodes ask for it.

use std::collections::HashMap;

use super::numbers::ShapeNumbers;
use crate::names::captured;
use crate::schema::{GraphProto, NodeProto};

/// An input of the network, and the extents that were chosen where the document leaves them open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// Its name.
    pub name: String,
    /// The shape that everything is derived for.
    pub shape: Vec<usize>,
    /// Axes whose extent the document leaves open.
    pub open: Vec<usize>,
    /// Whether an operation reads it that takes channels in front alone.
    pub(super) is_read_channels_first: bool,
}

/// Operations whose first input has its channels in front.
const CHANNELS_FIRST: [&str; 8] = [
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "GlobalMaxPool",
    "GlobalAveragePool",
    "BatchNormalization",
    "DepthToSpace",
];

/// Whether an operation reads `value` that takes channels in front alone.
pub fn is_read_channels_first(graph: &GraphProto, value: &str) -> bool {
    let reads = |node: &NodeProto| node.input.first().is_some_and(|input| input == value);
    graph.node.iter().any(|node| reads(node) && node.is_standard() && CHANNELS_FIRST.contains(&node.op_type()))
}

impl InputShape {
    /// Along which axis its channels lie: images with channels behind have few of them.
    pub(crate) fn channel_axis(&self) -> usize {
        let is_behind =
            matches!(*self.shape, [_, rows, cols, channels] if channels <= 4 && rows > 4 && cols > channels);
        if is_behind && !self.is_read_channels_first { 3 } else { 1.min(self.shape.len().saturating_sub(1)) }
    }
}

/// Of one value.
#[derive(Clone, Debug, Default)]
pub struct Fact {
    pub shape: Option<Vec<usize>>,
    pub numbers: Option<ShapeNumbers>,
    /// Follows from initialisers and Constant nodes alone.
    pub is_constant: bool,
}

/// Shapes of all values, and numbers that follow from shapes and constants.
#[derive(Clone, Debug)]
pub struct Facts {
    pub(super) known: HashMap<String, Fact>,
    pub(super) inputs: Vec<InputShape>,
    /// By node, why its outputs are not known.
    pub(super) problems: HashMap<usize, String>,
    pub(super) opset: i64,
    /// Of all values together.
    pub(super) n_numbers: usize,
}

/// What is known of the inputs of one node.
#[derive(Clone, Copy)]
pub struct NodeFacts<'a> {
    facts: &'a Facts,
    node: &'a NodeProto,
}

impl Facts {
    /// The network's own inputs.
    pub fn inputs(&self) -> &[InputShape] {
        &self.inputs
    }

    /// Rows and columns of an image input, wherever its channels are.
    pub(crate) fn rows_and_columns(&self, input: &InputShape) -> [usize; 2] {
        let first = if input.channel_axis() == 3 { 1 } else { 2 };
        [input.shape[first], input.shape[first + 1]]
    }

    /// Shape of a value, if it is known.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.known.get(name)?.shape.as_deref()
    }

    /// Why the outputs of a node are not known.
    pub fn problem(&self, number: usize) -> Option<&str> {
        self.problems.get(&number).map(String::as_str)
    }

    /// Whether a value follows from initialisers and Constant nodes alone.
    pub(crate) fn is_constant(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|fact| fact.is_constant)
    }

    pub(crate) fn numbers(&self, name: &str) -> Option<&ShapeNumbers> {
        self.known.get(name)?.numbers.as_ref()
    }

    pub(crate) const fn at<'a>(&'a self, node: &'a NodeProto) -> NodeFacts<'a> {
        NodeFacts { facts: self, node }
    }

    pub(crate) const fn opset(&self) -> i64 {
        self.opset
    }

    /// Whether all that a node reads is constant.
    pub(crate) fn is_constant_node(&self, node: &NodeProto) -> bool {
        // Of CastLike's second input only the type matters.
        let n = if node.op_type() == "CastLike" { 1 } else { node.input.len() };
        let inputs = node.input.iter().take(n).map(String::as_str).filter(|name| !name.is_empty());
        inputs.chain(captured(node)).all(|name| self.is_constant(name))
    }
}

impl<'a> NodeFacts<'a> {
    /// Shape of the node's input.
    ///
    /// # Errors
    /// An input that is missing or whose shape is not known.
    pub fn shape(&self, i: usize) -> Result<&'a [usize], String> {
        let name = self.node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        self.facts.shape(name).ok_or_else(|| format!("reads '{name}', whose shape is not known"))
    }

    /// Whole numbers of the node's input.
    ///
    /// # Errors
    /// An input that is missing or whose numbers are not known before the network runs.
    pub fn integers(&self, i: usize) -> Result<Vec<i64>, String> {
        let name = self.node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        let numbers = self.facts.numbers(name);
        let unknown = || format!("reads '{name}', which is not known before the network runs");
        numbers.map(ShapeNumbers::to_integers).ok_or_else(unknown)
    }

    pub(crate) fn numbers(&self, i: usize) -> Option<&'a ShapeNumbers> {
        self.node.input.get(i).and_then(|name| self.facts.numbers(name))
    }

    /// Whether the node has this input.
    pub fn is_given(&self, i: usize) -> bool {
        self.node.input.get(i).is_some_and(|name| !name.is_empty())
    }

    pub(crate) const fn node(&self) -> &'a NodeProto {
        self.node
    }

    pub(crate) const fn opset(&self) -> i64 {
        self.facts.opset
    }
}
