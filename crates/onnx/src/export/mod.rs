//! A network of our own as a new document, in operations of operator set 17.
//!
//! Every operation becomes one node where the set has one that computes the same, else the fewest that do. Values of a
//! single pixel may be `[batch, n]` or `[batch, n, 1, 1]`: each node takes the one that it needs.

mod functions;
mod layers;
mod maps;
mod mixing;
mod pools;
mod resize;
mod writer;

use std::collections::HashMap;
use std::path::Path;

use prost::Message;
use secateur_net::{Network, Node, NodeId, Op, Shape};

use self::mixing::LocalResponse;
use self::writer::{GraphWriter, NodeDraft, NodeNames};
use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::schema::{GraphProto, ModelProto, OperatorSetIdProto};

/// The oldest set with LayerNormalization; runtimes have it since 2022.
const OPSET: i64 = 17;
/// Version of the format that came with it.
const IR_VERSION: i64 = 8;
/// Names of the image and of what is computed of it.
const INPUT: &str = "input";
const OUTPUT: &str = "output";

impl OnnxDocument {
    /// The network as a document whose graph is called `name`.
    ///
    /// Its input `input` is `[batch, C, H, W]`, its output `output` is `[batch, classes]`, or `[batch, C, H, W]` where
    /// the network ends in a map; how many images a batch has stays open. Nodes have the names that they have in the
    /// network, initialisers are called `<node>.<parameter>`; what has no counterpart there is called `<node>/<what>`.
    /// The same network gives the same bytes.
    ///
    /// # Errors
    /// An empty `name`, which other programs refuse; a network of more than [`OnnxDocument::BYTES_MAX`] bytes.
    ///
    /// # Example
    /// ```
    /// use secateur_net::random::with_random_weights;
    /// use secateur_net::{Shape, arch};
    /// use secateur_onnx::OnnxDocument;
    ///
    /// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
    /// let document = OnnxDocument::of_network(&with_random_weights(graph, 1), "resnet20")?;
    /// assert_eq!(document.graph().node[0].name(), "conv1");
    /// assert_eq!(document.graph().initializer[0].name(), "conv1.weight");
    /// let bytes = document.to_bytes();
    /// assert_eq!(OnnxDocument::from_bytes(bytes.into(), ".".as_ref())?.opset(), 17);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_network(network: &Network, name: &str) -> Result<Self, OnnxError> {
        if name.is_empty() {
            return Err(OnnxError::graph("has no name, and other programs refuse graphs without one: give it one"));
        }
        let n_numbers: usize = network.weights().values().map(|tensor| tensor.data().len()).sum();
        // Before they are copied.
        check_size(4 * n_numbers as u64)?;
        let model = model_of(NetworkExport::new(network, name).run());
        check_size(model.encoded_len() as u64)?;
        Ok(Self::new(model, Path::new("")))
    }
}

fn check_size(n_bytes: u64) -> Result<(), OnnxError> {
    let most = OnnxDocument::BYTES_MAX;
    if n_bytes <= most {
        return Ok(());
    }
    Err(OnnxError::graph(format!(
        "takes {n_bytes} bytes, and other programs read files of at most {most}: keep fewer channels, or write the network as \
         safetensors"
    )))
}

fn model_of(graph: GraphProto) -> ModelProto {
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("secateur".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![opset],
        ..ModelProto::default()
    }
}

/// A value of the document.
#[derive(Clone, Debug)]
struct WrittenValue {
    name: String,
    /// Whether it is `[batch, n]`.
    is_flat: bool,
}

/// Constants of a node.
struct FloatList<'a> {
    extents: &'a [usize],
    values: &'a [f32],
}

/// A network while it is written.
struct NetworkExport<'a> {
    network: &'a Network,
    writer: GraphWriter,
    /// What the outputs of nodes inside the network are called.
    value_names: Vec<String>,
    /// Outputs of the nodes so far.
    values: Vec<WrittenValue>,
    /// The same with the other number of axes, where a node needed that.
    other_ranks: HashMap<NodeId, String>,
}

impl<'a> NetworkExport<'a> {
    fn new(network: &'a Network, name: &str) -> Self {
        let parameters = network.weights().keys().cloned();
        let mut writer = GraphWriter::new(name, parameters.chain([INPUT, OUTPUT].map(str::to_owned)));
        let nodes = network.graph().nodes();
        // Before anything else is called, so that no helper takes the name of a node.
        let value_names = nodes.iter().map(|node| writer.unused(&node.name)).collect();
        Self { network, writer, value_names, values: Vec::new(), other_ranks: HashMap::new() }
    }

    fn run(mut self) -> GraphProto {
        let graph = self.network.graph();
        let Shape { c, h, w } = graph.input();
        self.writer.input(INPUT, &[c, h, w]);
        self.values.push(WrittenValue { name: INPUT.to_owned(), is_flat: false });
        for id in 1..graph.nodes().len() {
            let draft = self.draft(id);
            self.take(id, draft);
        }
        self.writer.finish()
    }

    /// Appends the node that makes the output of an operation.
    fn take(&mut self, id: NodeId, draft: NodeDraft) {
        let node = self.node(id).name.clone();
        let is_output = id == self.network.graph().output();
        let is_flat = draft.is_flat();
        if is_output && (is_flat || !self.is_pixel(id)) {
            self.writer.push_output(draft, NodeNames { node, value: OUTPUT.to_owned() });
            return;
        }
        let name = self.value_names[id].clone();
        self.writer.push(draft, NodeNames { node, value: name.clone() });
        self.values.push(WrittenValue { name, is_flat });
        if is_output {
            let flat = self.flattening(id);
            let node = self.called(id, "flat");
            self.writer.push_output(flat, NodeNames { node, value: OUTPUT.to_owned() });
        }
    }

    /// The node that makes the output of an operation; what has to be computed for it is written first.
    fn draft(&mut self, id: NodeId) -> NodeDraft {
        match &self.node(id).op {
            Op::Conv2d(conv) => self.convolution(id, conv),
            Op::BatchNorm { eps, .. } => self.batch_norm(id, *eps),
            Op::Linear { bias, .. } => self.linear(id, *bias),
            Op::PRelu { channels } => self.prelu(id, *channels),
            Op::Pointwise(function) => self.function(id, *function),
            Op::Add => self.sum(id),
            Op::Mul => self.product(id),
            Op::Concat => self.concatenation(id),
            Op::MaxPool(window) => self.max_pool(id, window),
            Op::AvgPool(window) => self.average_pool(id, window),
            Op::GlobalAvgPool => self.of_image(id, "GlobalAveragePool"),
            Op::GlobalMaxPool => self.of_image(id, "GlobalMaxPool"),
            Op::Flatten => self.flattening(self.node(id).inputs[0]),
            Op::FlattenPixels => self.pixel_flattening(id),
            Op::ChannelShuffle { groups } => self.shuffle(id, *groups),
            Op::DepthToSpace { block, columns_rows_depth } => {
                let mode = if *columns_rows_depth { "CRD" } else { "DCR" };
                self.of_image(id, "DepthToSpace").int("blocksize", *block).word("mode", mode)
            }
            Op::Resize { rows, cols } => self.resize(id, [rows, cols]),
            Op::LayerNorm { eps, .. } => self.layer_norm(id, *eps),
            Op::Pad { channels, rows, cols } => self.pad(id, [*channels, *rows, *cols]),
            Op::Slice { channels, step } => self.slice(id, *channels, *step),
            Op::ConvTranspose2d(conv) => self.transposed_convolution(id, conv),
            Op::ChannelConv { taps, front, bias } => {
                self.channel_convolution(id, [*front, taps.saturating_sub(front + 1)], *bias)
            }
            Op::GroupNorm { groups, eps, .. } => self.group_norm(id, *groups, *eps),
            Op::LocalResponseNorm { size, alpha, beta, bias } => {
                self.local_response_norm(id, LocalResponse { size: *size, alpha: *alpha, beta: *beta, bias: *bias })
            }
            Op::Max => self.extreme(id, "Max"),
            Op::Min => self.extreme(id, "Min"),
            Op::ChannelMean => self.over_channels(id, "ReduceMean"),
            Op::ChannelMax => self.over_channels(id, "ReduceMax"),
            Op::BranchSum { branches } => self.branch_sum(id, *branches),
            Op::BranchSoftmax { branches } => self.branch_softmax(id, *branches),
            Op::Softmax => self.same(id, "Softmax").int("axis", 1),
            Op::Input | Op::Identity => self.same(id, "Identity"),
        }
    }

    fn node(&self, id: NodeId) -> &'a Node {
        self.network.graph().node(id)
    }

    fn shape(&self, id: NodeId) -> Shape {
        self.network.graph().shape(id)
    }

    fn is_pixel(&self, id: NodeId) -> bool {
        let Shape { h, w, .. } = self.shape(id);
        h * w == 1
    }

    /// A name for something that belongs to a node.
    fn called(&mut self, id: NodeId, what: &str) -> String {
        self.writer.unused(&format!("{}/{what}", self.network.graph().node(id).name))
    }

    /// Appends a node that computes something for the output of another.
    fn inner(&mut self, id: NodeId, draft: NodeDraft) -> String {
        let name = self.called(id, &draft.op().to_lowercase());
        self.writer.push(draft, NodeNames { node: name.clone(), value: name.clone() });
        name
    }

    /// Stores a parameter of a node with these extents, and gives its name.
    fn parameter(&mut self, id: NodeId, parameter: &str, extents: &[usize]) -> String {
        let node = &self.node(id).name;
        let name = format!("{node}.{parameter}");
        self.writer.floats(&name, extents, self.network.parameter(node, parameter).data());
        name
    }

    /// Stores fractions that a node needs, and gives their name; without extents it is a single one.
    fn floats(&mut self, id: NodeId, what: &str, numbers: &FloatList<'_>) -> String {
        let name = self.called(id, what);
        self.writer.floats(&name, numbers.extents, numbers.values);
        name
    }

    /// Stores a list of whole numbers that a node needs, and gives its name.
    fn integers(&mut self, id: NodeId, what: &str, values: &[i64]) -> String {
        let name = self.called(id, what);
        self.writer.integers(&name, values);
        name
    }

    /// The output of a node as `[batch, c, h, w]`.
    fn image(&mut self, id: NodeId) -> String {
        self.ranked(id, false)
    }

    /// The output of a node, which is one pixel, as `[batch, c]`.
    fn flat(&mut self, id: NodeId) -> String {
        self.ranked(id, true)
    }

    fn ranked(&mut self, id: NodeId, is_flat: bool) -> String {
        let value = self.values[id].clone();
        if value.is_flat == is_flat {
            return value.name;
        }
        if let Some(name) = self.other_ranks.get(&id) {
            return name.clone();
        }
        let draft = if is_flat { self.flattening(id) } else { self.unflattening(id) };
        let name = self.called(id, if is_flat { "flat" } else { "image" });
        self.writer.push(draft, NodeNames { node: name.clone(), value: name.clone() });
        self.other_ranks.insert(id, name.clone());
        name
    }

    /// Extents of a node's output, flat or not.
    fn extents(&self, id: NodeId, is_flat: bool) -> Vec<usize> {
        let Shape { c, h, w } = self.shape(id);
        if is_flat { vec![c * h * w] } else { vec![c, h, w] }
    }

    /// An operation on the node's first input, whose output has as many axes.
    fn same(&self, id: NodeId, op: &str) -> NodeDraft {
        let WrittenValue { name, is_flat } = self.values[self.node(id).inputs[0]].clone();
        NodeDraft::new(op, vec![name], self.extents(id, is_flat))
    }

    /// An operation on the node's first input as an image, whose output is one.
    fn of_image(&mut self, id: NodeId, op: &str) -> NodeDraft {
        let x = self.image(self.node(id).inputs[0]);
        NodeDraft::new(op, vec![x], self.extents(id, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_protocol_buffer_holds_is_refused() {
        assert!(check_size(OnnxDocument::BYTES_MAX).is_ok());
        let error = check_size(OnnxDocument::BYTES_MAX + 1).unwrap_err().to_string();
        assert!(error.contains("takes 2147483648 bytes") && error.contains("at most 2147483647"), "{error}");
    }
}
