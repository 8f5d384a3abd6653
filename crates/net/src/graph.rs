//! The network as a graph of operations. Every architecture, built in or imported, is this one graph.

use serde::Serialize;

use crate::error::NetError;
use crate::op::Op;
use crate::shape::Shape;

/// Index of a node in [`Graph::nodes`]. Nodes stand in topological order.
pub type NodeId = usize;

/// One operation and where its inputs come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Unique name; prefix of its parameters.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// Producing nodes, all earlier in the list.
    pub inputs: Vec<NodeId>,
}

/// What a part of a network costs that follows its graph, is not computed, and stays as it is: box decoding with
/// weights of its own, and the like, of a network that came in another format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GraphTail {
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Parameters.
    pub params: u64,
}

impl GraphTail {
    /// Whether there is nothing to count.
    pub const fn is_nothing(&self) -> bool {
        self.macs == 0 && self.params == 0
    }
}

/// A network's operations in topological order: node 0 is the input, the last node is the output.
///
/// A `Graph` is always well formed: shapes are inferred and checked by [`Graph::new`], the only way in (deserialising
/// included).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graph {
    input: Shape,
    nodes: Vec<Node>,
    #[serde(skip_serializing_if = "GraphTail::is_nothing")]
    tail: GraphTail,
    #[serde(skip_serializing)]
    shapes: Vec<Shape>,
}

impl Graph {
    /// Checks order, names, arity and shapes of `nodes` for images of shape `input`.
    ///
    /// # Errors
    /// The first malformed node, with what was expected and found.
    pub fn new(input: Shape, nodes: Vec<Node>) -> Result<Self, NetError> {
        let shapes = crate::shapes::infer(input, &nodes)?;
        Ok(Self { input, nodes, tail: GraphTail::default(), shapes })
    }
    /// The same graph with another tail.
    #[must_use]
    pub const fn with_tail(mut self, tail: GraphTail) -> Self {
        self.tail = tail;
        self
    }
    /// What follows the graph, and counts in its costs.
    pub const fn tail(&self) -> GraphTail {
        self.tail
    }
    /// Shape of one input image.
    pub const fn input(&self) -> Shape {
        self.input
    }
    /// All nodes in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// Node by index.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }
    /// Output shape of a node.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.shapes[id]
    }
    /// The node whose output is the network's output.
    pub fn output(&self) -> NodeId {
        self.nodes.len() - 1
    }
    /// Length of the output vector.
    pub fn n_classes(&self) -> usize {
        self.shapes[self.output()].len()
    }
    /// For every node, the nodes that read its output, in order.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut out = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            for &input in &node.inputs {
                out[input].push(id);
            }
        }
        out
    }
}

/// Appends nodes one after the other; each call returns the new node's id.
///
/// # Example
/// ```
/// use secateur_net::{Conv2d, GraphBuilder, Op, Pointwise, Shape};
///
/// let mut builder = GraphBuilder::new(Shape { c: 3, h: 8, w: 8 });
/// // Node 0 is the image.
/// let conv = builder.push("conv", Op::Conv2d(Conv2d::square(3, 16, 3, 1, 1)), &[0]);
/// let relu = builder.push("relu", Op::Pointwise(Pointwise::Relu), &[conv]);
/// let mean = builder.push("mean", Op::GlobalAvgPool, &[relu]);
/// builder.push("classify", Op::Linear { in_features: 16, out_features: 10, bias: true }, &[mean]);
/// let graph = builder.finish()?;
/// assert_eq!(graph.shape(conv), Shape { c: 16, h: 8, w: 8 });
/// assert_eq!(graph.n_classes(), 10);
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Debug)]
pub struct GraphBuilder {
    input: Shape,
    nodes: Vec<Node>,
}

impl GraphBuilder {
    /// Starts with the input node.
    pub fn new(input: Shape) -> Self {
        Self { input, nodes: vec![Node { name: "input".into(), op: Op::Input, inputs: vec![] }] }
    }
    /// Appends a node.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[NodeId]) -> NodeId {
        self.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec() });
        self.nodes.len() - 1
    }
    /// Checks and closes the graph.
    ///
    /// # Errors
    /// As [`Graph::new`].
    pub fn finish(self) -> Result<Graph, NetError> {
        Graph::new(self.input, self.nodes)
    }
}
