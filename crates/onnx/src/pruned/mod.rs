//! A document for a network that was imported from it and pruned: cut, with the weights that a refit changed.

mod absorbed;
mod origins;
mod weights;

use std::collections::HashMap;

pub use origins::{AbsorbedConstant, LayerOrigin};
use secateur_net::{
    ChannelGroups, Graph, KeptChannels, NetError, Network, Node, NodeId, Op, Protocol, Tensor, fold_batch_norm,
    parameter_shapes, prune,
};

use crate::OnnxError;
use crate::document::OnnxDocument;
use crate::edit::Removal;
use crate::facts::Facts;
use crate::import::ImportedNetwork;
use crate::labels::{DocumentGroups, KeptFlags};

/// What becomes of the nodes that scale and shift channels behind a layer (BatchNorm and its like), which the engine
/// has folded into the layer's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormNodes {
    /// They stay. Behind a layer that was refitted they change nothing any more, or only add its bias.
    Kept,
    /// They are folded into the weights, and left out, so that they cost no parameters.
    Folded,
}

/// A document, what is known of it, and how the network that was imported from it belongs to it.
///
/// # Example
/// ```no_run
/// use secateur_net::{ChannelGroups, KeptChannels, Protocol, fold_batch_norm, prune};
/// use secateur_onnx::{DocumentNetwork, Facts, NormNodes, OnnxDocument, Compacted};
///
/// let document = OnnxDocument::from_bytes(std::fs::read("network.onnx")?.into(), ".".as_ref())?;
/// let facts = Facts::of(&document, None)?;
/// let imported = document.network(&facts)?;
/// let folded = fold_batch_norm(&imported.network)?;
/// let groups = ChannelGroups::derive(folded.graph(), Protocol::Full);
/// let mut lists = KeptChannels::all(&groups).lists().to_vec();
/// lists[groups.prunable()[0]].pop();
/// let kept = KeptChannels::new(&groups, lists)?;
/// let network = prune(&folded, &groups, &kept)?;
///
/// let source = DocumentNetwork::new(document, facts, &imported);
/// let pruned = Compacted { folded: &folded, groups: &groups, kept: &kept, network: &network };
/// std::fs::write("pruned.onnx", source.pruned(&pruned, NormNodes::Kept)?.to_bytes())?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DocumentNetwork {
    document: OnnxDocument,
    facts: Facts,
    /// The imported network, without its weights.
    graph: Graph,
    values: Vec<Option<String>>,
    /// Of every node, the document's.
    nodes: Vec<Option<usize>>,
    /// By name, the imported network's nodes.
    ids: HashMap<String, NodeId>,
}

/// What was removed from an imported network, and what it became.
#[derive(Clone, Copy, Debug)]
pub struct Compacted<'a> {
    /// The imported network with BatchNorm folded into weights ([`fold_batch_norm`]): what is run and pruned.
    pub folded: &'a Network,
    /// Its channel groups.
    pub groups: &'a ChannelGroups,
    /// Channels that stay.
    pub kept: &'a KeptChannels,
    /// The compact network, refitted or not.
    pub network: &'a Network,
}

/// Weights that differ by more than this share of the largest of their tensor are other weights: the neutral variance
/// of a BatchNorm is exact but for rounding.
const TOLERANCE: f32 = 1e-5;
/// The same, where weights are stored in 16 bits.
const TOLERANCE_OF_16_BITS: f32 = 8e-3;

impl DocumentNetwork {
    /// `imported` must be the document's, by the same facts.
    pub fn new(document: OnnxDocument, facts: Facts, imported: &ImportedNetwork) -> Self {
        let graph = imported.network.graph().clone();
        let ids = graph.nodes().iter().enumerate().map(|(id, node)| (node.name.clone(), id)).collect();
        Self { document, facts, graph, values: imported.values.clone(), nodes: imported.nodes.clone(), ids }
    }

    /// The document.
    pub const fn document(&self) -> &OnnxDocument {
        &self.document
    }

    /// Rows and columns that the network was imported for, where the document has images.
    pub fn size(&self) -> Option<[usize; 2]> {
        let input = self.facts.inputs().first().filter(|input| input.shape.len() == 4);
        input.map(|input| self.facts.rows_and_columns(input))
    }

    /// Whether rows or columns of its images could be others.
    pub fn leaves_size_open(&self) -> bool {
        self.facts.inputs().iter().any(|input| input.open.iter().any(|&axis| axis > 0))
    }

    /// The document of a pruned network. It is read again, and the network that it describes is compared with the
    /// pruned one.
    ///
    /// # Errors
    /// Sizes that cannot be written down, channels that the document cannot lose, a layer whose weights it cannot
    /// hold: all by name.
    pub fn pruned(&self, pruned: &Compacted<'_>, norms: NormNodes) -> Result<OnnxDocument, OnnxError> {
        let groups = DocumentGroups::of(&self.document, &self.facts);
        let kept = self.kept_flags(&groups, pruned)?;
        let removal = Removal { document: &self.document, facts: &self.facts, groups: &groups, kept: &kept };
        let cut = prune(pruned.folded, pruned.groups, pruned.kept).map_err(|e| OnnxError::graph(e.to_string()))?;
        let written = removal.cut_and_change(|facts| self.changes(&cut, pruned, facts, norms))?;
        self.check(&written, pruned.network)?;
        Ok(written)
    }

    /// Whether a network with half of every group, and other biases, can be written.
    ///
    /// # Errors
    /// As [`DocumentNetwork::pruned`].
    pub fn try_pruned(&self, folded: &Network) -> Result<(), OnnxError> {
        let of_net = |e: NetError| OnnxError::graph(e.to_string());
        let groups = ChannelGroups::derive(folded.graph(), Protocol::Full);
        let half = groups.groups().iter().map(|group| {
            let step = if group.frozen.is_none() { 2 } else { 1 };
            (0..group.n_channels).step_by(step).collect()
        });
        let kept = KeptChannels::new(&groups, half.collect()).map_err(of_net)?;
        let mut network = prune(folded, &groups, &kept).map_err(of_net)?;
        let layers: Vec<String> =
            network.graph().nodes().iter().filter(|node| is_layer(&node.op)).map(|node| node.name.clone()).collect();
        for layer in layers {
            let bias = network.parameter(&layer, "bias");
            let moved = bias.data().iter().map(|b| b + 1.0).collect();
            let moved = Tensor::new(bias.shape().to_vec(), moved).map_err(of_net)?;
            network.set_parameter(&layer, "bias", moved).map_err(of_net)?;
        }
        let pruned = Compacted { folded, groups: &groups, kept: &kept, network: &network };
        self.pruned(&pruned, NormNodes::Kept).map(|_| ())
    }

    /// Which channels of the document stay.
    fn kept_flags(&self, groups: &DocumentGroups, pruned: &Compacted<'_>) -> Result<KeptFlags, OnnxError> {
        let mut flags = groups.keep_all();
        let mut stays: Vec<Vec<bool>> = flags.iter().map(|group| vec![false; group.len()]).collect();
        for (id, node) in pruned.folded.graph().nodes().iter().enumerate() {
            let value = self.ids.get(&node.name).and_then(|&original| self.values[original].as_deref());
            let Some(channels) = value.and_then(|value| groups.channels(value)) else { continue };
            let axis = pruned.groups.axis(id);
            if axis.len() != channels.len() {
                continue;
            }
            for (place, at) in axis.iter().zip(channels) {
                let is_kept = pruned.kept.group(place.group).binary_search(&place.channel).is_ok();
                if is_kept {
                    stays[at.group][at.channel] = true;
                } else {
                    flags[at.group][at.channel] = false;
                }
            }
        }
        let contradicts =
            |group: &usize| flags[*group].iter().zip(&stays[*group]).any(|(&kept, &stays)| stays && !kept);
        match (0..flags.len()).find(contradicts) {
            None => Ok(flags),
            Some(group) => Err(OnnxError::graph(format!(
                "joins channels of '{}' that the network removes one by one",
                groups.groups()[group].name
            ))),
        }
    }

    /// Whether the written document describes the pruned network.
    fn check(&self, written: &OnnxDocument, network: &Network) -> Result<(), OnnxError> {
        let facts = Facts::of(written, self.size())?;
        let of_net = |e: NetError| OnnxError::graph(e.to_string());
        let folded = |network: &Network| without_idle(network).and_then(|network| fold_batch_norm(&network));
        let again = folded(&written.network(&facts)?.network).map_err(of_net)?;
        let wanted = folded(network).map_err(of_net)?;
        let (nodes, wanted_nodes) = (again.graph().nodes(), wanted.graph().nodes());
        if nodes.len() != wanted_nodes.len() {
            let (got, n) = (nodes.len(), wanted_nodes.len());
            return Err(OnnxError::graph(format!("would describe a network of {got} operations instead of {n}")));
        }
        let unlike = |node: &Node, what: &str| OnnxError::graph(format!("would have {what} at '{}'", node.name));
        for (node, wanted_node) in nodes.iter().zip(wanted_nodes) {
            if node.op != wanted_node.op || node.inputs != wanted_node.inputs {
                return Err(unlike(wanted_node, "another operation"));
            }
            for (parameter, _) in parameter_shapes(&node.op) {
                let wanted = wanted.parameter(&wanted_node.name, parameter);
                if !self.is_alike(again.parameter(&node.name, parameter), wanted) {
                    return Err(unlike(wanted_node, "other weights"));
                }
            }
        }
        Ok(())
    }

    fn is_alike(&self, got: &Tensor, wanted: &Tensor) -> bool {
        let largest = wanted.data().iter().fold(f32::MIN_POSITIVE, |max, v| max.max(v.abs()));
        let tolerance = if self.has_16_bits() { TOLERANCE_OF_16_BITS } else { TOLERANCE };
        let close = |(&a, &b)| f32::to_bits(a) == f32::to_bits(b) || f32::abs(a - b) <= tolerance * largest;
        got.shape() == wanted.shape() && got.data().iter().zip(wanted.data()).all(close)
    }

    fn has_16_bits(&self) -> bool {
        use crate::schema::tensor_proto::DataType;
        let is_short = |kind: i32| [DataType::Float16, DataType::Bfloat16].into_iter().any(|t| kind == i32::from(t));
        let graph = self.document.graph();
        let constants = graph.node.iter().filter_map(crate::schema::NodeProto::constant);
        graph.initializer.iter().chain(constants).any(|tensor| is_short(tensor.data_type()))
    }
}

/// The network with Identity nodes for what does nothing once channels are gone, which documents leave out.
fn without_idle(network: &Network) -> Result<Network, NetError> {
    let graph = network.graph();
    let is_idle = |node: &Node| {
        let n_channels = node.inputs.first().map_or(0, |&input| graph.shape(input).c);
        matches!(&node.op, Op::ChannelShuffle { groups } if *groups == 1 || *groups == n_channels)
            || matches!(&node.op, Op::Pad { channels, rows, cols } if [channels, rows, cols] == [&[0; 2]; 3])
            || matches!(&node.op, Op::Slice { channels, step } if *channels == [0, n_channels] && *step == [1; 2])
    };
    let nodes = graph.nodes().iter().map(|node| {
        let op = if is_idle(node) { Op::Identity } else { node.op.clone() };
        Node { op, ..node.clone() }
    });
    Network::new(Graph::new(graph.input(), nodes.collect())?.with_tail(graph.tail()), network.weights().clone())
}

/// Whether a node is a layer with weights and, once BatchNorm is folded, a bias.
fn is_layer(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Linear { .. })
}
