//! What becomes of the parameters of each layer.

use anyhow::Context;
use secateur_net::{Conv2d, Network, Node, NodeId, Op, parameter_shapes};
use secateur_onnx::{AbsorbedConstant, Compacted, LayerOrigin};
use serde::Serialize;

use super::check::OutputMark;
use crate::inputs::load::LoadedNetwork;

/// Weights of the original by which a layer is known where names do not tell.
const N_SAMPLES: usize = 4;

/// A layer, and what is kept of it. Lists of channels count those of the original, from 0, in ascending order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedLayer {
    /// Its name among the weights.
    pub name: String,
    /// `Conv2d`, `ConvTranspose2d`, `Linear`, `BatchNorm`, `PReLU`, `LayerNorm`, `GroupNorm` or `ChannelConv`.
    pub kind: &'static str,
    /// The path of the PyTorch module, if names tell.
    pub module: Option<String>,
    /// Name of the ONNX document's node, if there is one.
    pub node: Option<String>,
    /// The node's operation.
    pub op: Option<String>,
    /// The document's stored tensors that the node reads.
    pub parameters: Vec<String>,
    /// Stored tensors of products and sums that were folded into the layer, with the operation.
    pub absorbed: Vec<(String, Vec<String>)>,
    /// The layer in front, where that is the only operation between: the BatchNorm of this entry was not folded into
    /// it.
    pub behind: Option<String>,
    /// Shape of the original weight.
    pub shape: Vec<usize>,
    /// Shape of the pruned weight.
    pub cut_shape: Vec<usize>,
    /// Convolution groups (or groups of a GroupNorm) of the original; as many as channels in depthwise convolutions.
    pub groups: usize,
    /// The same of the pruned layer.
    pub cut_groups: usize,
    /// Norm and evenly spaced values of the original weight, BatchNorm folded in.
    pub original: Vec<f32>,
    /// What the pruned layer computes; null where PyTorch's module computes something else, since more was folded into
    /// it than BatchNorm.
    pub output: Option<OutputMark>,
    /// Input channels that are kept.
    pub keep_inputs: Vec<usize>,
    /// Output channels that are kept.
    pub keep_outputs: Vec<usize>,
}

/// A part of a tensor's channels that is read apart from the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedSplit {
    /// Name of the operation.
    pub name: String,
    /// Channels of the tensor.
    pub of: usize,
    /// First channel, and the one behind the last.
    pub channels: [usize; 2],
    /// The tensor's channels that are kept.
    pub cut_of: usize,
    /// First channel of the part in the pruned network, and the one behind the last.
    pub cut_channels: [usize; 2],
}

/// Every operation with parameters; `marks` are those of the pruned network's nodes.
///
/// # Errors
/// A pruned network that is not one of `pruned.folded`.
pub(super) fn layers(
    source: &LoadedNetwork,
    pruned: &Compacted<'_>,
    marks: &[OutputMark],
) -> anyhow::Result<Vec<PlannedLayer>> {
    let graph = pruned.network.graph();
    let origins = source.document.as_ref().map(|document| document.origins(graph));
    let mut out = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate() {
        let Some(kind) = kind(&node.op) else { continue };
        let origin = origins.as_ref().and_then(|origins| origins.get(&node.name));
        let before = before(source, pruned, &node.name)
            .with_context(|| format!("plan.json: the network that was pruned has no layer '{}'", node.name))?;
        let [keep_inputs, keep_outputs] = kept(pruned, before, node, id);
        let (original, cut) = (before.network.graph().node(before.id), node);
        let shape = weight_shape(&original.op);
        out.push(PlannedLayer {
            name: node.name.clone(),
            kind,
            module: if origins.is_some() { origin.and_then(|o| o.module.clone()) } else { Some(node.name.clone()) },
            node: origin.map(|origin| origin.node.clone()).filter(|name| !name.is_empty()),
            op: origin.map(|origin| origin.operation.clone()),
            parameters: origin.map_or_else(Vec::new, |origin| origin.parameters.clone()),
            absorbed: origin.map_or_else(Vec::new, absorbed),
            behind: behind(pruned.network, id),
            cut_shape: weight_shape(&cut.op),
            groups: groups(&original.op),
            cut_groups: groups(&cut.op),
            original: samples(before.network.parameter(&node.name, "weight").data()),
            output: origin.is_none_or(|origin| origin.absorbed.is_empty()).then(|| marks[id]),
            shape,
            keep_inputs,
            keep_outputs,
        });
    }
    Ok(out)
}

/// A node of a network.
#[derive(Clone, Copy)]
struct NodeOf<'a> {
    network: &'a Network,
    id: NodeId,
    /// Whether channels of this network are removed.
    is_pruned: bool,
}

/// A layer before it was pruned: with BatchNorm folded, unless the whole network was left as it is.
fn before<'a>(source: &'a LoadedNetwork, pruned: &Compacted<'a>, name: &str) -> Option<NodeOf<'a>> {
    let find = |network: &'a Network, is_pruned: bool| {
        let id = network.graph().nodes().iter().position(|node| node.name == name)?;
        Some(NodeOf { network, id, is_pruned })
    };
    find(pruned.folded, true).or_else(|| find(&source.original, false))
}

/// Input and output channels that are kept.
fn kept(pruned: &Compacted<'_>, before: NodeOf<'_>, node: &Node, id: NodeId) -> [Vec<usize>; 2] {
    if before.is_pruned {
        let positions = |of: NodeId| pruned.kept.positions(pruned.groups, of);
        let inputs = &before.network.graph().node(before.id).inputs;
        return [inputs.first().map_or_else(Vec::new, |&input| positions(input)), positions(before.id)];
    }
    let graph = pruned.network.graph();
    [node.inputs[0], id].map(|of| (0..graph.shape(of).c).collect())
}

fn absorbed(origin: &LayerOrigin) -> Vec<(String, Vec<String>)> {
    let of = |constant: &AbsorbedConstant| (constant.operation.clone(), constant.parameters.clone());
    origin.absorbed.iter().map(of).collect()
}

/// The layer that a BatchNorm reads.
fn behind(network: &Network, id: NodeId) -> Option<String> {
    let node = network.graph().node(id);
    let reads_layer = |input: &&Node| matches!(input.op, Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::Linear { .. });
    let input = Some(network.graph().node(*node.inputs.first()?)).filter(reads_layer)?;
    matches!(node.op, Op::BatchNorm { .. }).then(|| input.name.clone())
}

fn weight_shape(op: &Op) -> Vec<usize> {
    parameter_shapes(op).into_iter().next().map_or_else(Vec::new, |(_, shape)| shape)
}

/// Norm and evenly spaced values.
fn samples(weight: &[f32]) -> Vec<f32> {
    let norm = weight.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt() as f32;
    let at = |i: usize| weight[i * (weight.len() - 1) / (N_SAMPLES - 1)];
    std::iter::once(norm).chain((0..N_SAMPLES).filter(|_| !weight.is_empty()).map(at)).collect()
}

fn groups(op: &Op) -> usize {
    if let Op::Conv2d(Conv2d { groups, .. }) | Op::GroupNorm { groups, .. } = op {
        return *groups;
    }
    if let Op::ConvTranspose2d(conv) = op { conv.groups } else { 1 }
}

/// What PyTorch calls an operation with parameters.
fn kind(op: &Op) -> Option<&'static str> {
    match op {
        Op::Conv2d(_) => Some("Conv2d"),
        Op::ConvTranspose2d(_) => Some("ConvTranspose2d"),
        Op::Linear { .. } => Some("Linear"),
        Op::BatchNorm { .. } => Some("BatchNorm"),
        Op::PRelu { .. } => Some("PReLU"),
        Op::LayerNorm { .. } => Some("LayerNorm"),
        Op::GroupNorm { .. } => Some("GroupNorm"),
        Op::ChannelConv { .. } => Some("ChannelConv"),
        Op::Input
        | Op::Pointwise(_)
        | Op::Add
        | Op::Concat
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::Mul
        | Op::FlattenPixels
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::Resize { .. }
        | Op::GlobalMaxPool
        | Op::LocalResponseNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax
        | Op::Identity => None,
    }
}

/// Every part of channels that the pruned network reads apart.
pub(super) fn splits(pruned: &Compacted<'_>) -> Vec<PlannedSplit> {
    let (graph, cut) = (pruned.folded.graph(), pruned.network.graph());
    let mut out = Vec::new();
    for (node, cut_node) in graph.nodes().iter().zip(cut.nodes()) {
        let (Op::Slice { channels, .. }, Op::Slice { channels: cut_channels, .. }) = (&node.op, &cut_node.op) else {
            continue;
        };
        let (of, cut_of) = (graph.shape(node.inputs[0]).c, cut.shape(cut_node.inputs[0]).c);
        if node.name == cut_node.name && *channels != [0, of] {
            let (channels, cut_channels) = (*channels, *cut_channels);
            out.push(PlannedSplit { name: node.name.clone(), of, channels, cut_of, cut_channels });
        }
    }
    out
}
