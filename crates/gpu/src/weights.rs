//! Weights of the layers of many candidates, as they are sent to the card and as they lie there once packed.

use std::borrow::Cow;

use secateur_net::{KeptChannels, Network, NodeId, Op, filter_inputs};

use crate::candidates::{Candidates, LayerKind, Widths};
use crate::layout::{Candidate, NONE, PackJob, PackLayer, quads};
use crate::program::{Kernel, Program};

/// One layer of all candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights<'a> {
    /// Index of its dispatch.
    pub dispatch: usize,
    /// What all candidates share.
    pub layer: PackLayer,
    /// By candidate. Masks count from the first mask of the batch.
    pub jobs: Vec<PackJob>,
    /// Weights where networks hold them, in the order in which they are sent: every candidate's, or those that all
    /// share.
    pub source: Vec<Values<'a>>,
    /// How many numbers those are.
    pub n_values: usize,
    /// Quads that all candidates take once packed.
    pub packed_quads: usize,
    /// The most that one candidate takes.
    pub packed_quads_max: usize,
}

/// All layers of a batch, and the bit masks that their jobs point into.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchWeights<'a> {
    /// In the order of the dispatches.
    pub layers: Vec<LayerWeights<'a>>,
    /// Masks, 32 channels to a word.
    pub masks: Vec<u32>,
}

/// Gathers the weights of every layer of `program`; what the networks hold is not copied.
pub fn gather<'a>(program: &Program, candidates: &Candidates<'a>, widths: &[Widths]) -> BatchWeights<'a> {
    let mut out = BatchWeights::default();
    for (dispatch, d) in program.dispatches.iter().enumerate() {
        let Kernel::Layer(kind) = d.kernel else { continue };
        let taps = (d.uniforms.kernel_h * d.uniforms.kernel_w) as usize;
        let mut layer = LayerWeights {
            dispatch,
            layer: PackLayer {
                taps: taps as u32,
                in_multiple: in_multiple(kind) as u32,
                block: d.block as u32,
                ..PackLayer::default()
            },
            jobs: Vec::with_capacity(widths.len()),
            source: Vec::new(),
            n_values: 0,
            packed_quads: 0,
            packed_quads_max: 0,
        };
        let node = d.node;
        for (i, candidate) in d.candidates.iter().enumerate() {
            let job = match candidates {
                Candidates::Repaired(networks) => own(&mut layer, networks[i], node),
                Candidates::Masked { network, groups, kept } => {
                    let shared = if i == 0 { own(&mut layer, network, node) } else { layer.jobs[0] };
                    let positions = |node| KeptChannels::positions(&kept[i], groups, node);
                    masked(&mut out.masks, shared, network, node, positions)
                }
            };
            let n_quads = packed_quads(kind, taps, d.block, candidate);
            let packed = layer.packed_quads as u32;
            layer.packed_quads += n_quads;
            layer.packed_quads_max = layer.packed_quads_max.max(n_quads);
            layer.jobs.push(PackJob { n_in: filter_in(kind, candidate) as u32, n_out: candidate.n_out, packed, ..job });
        }
        out.layers.push(layer);
    }
    out
}

const fn in_multiple(kind: LayerKind) -> usize {
    if matches!(kind, LayerKind::Dense) { 4 } else { 1 }
}

/// Inputs of one filter.
fn filter_in(kind: LayerKind, candidate: &Candidate) -> usize {
    match kind {
        LayerKind::Dense => candidate.n_in as usize,
        LayerKind::Depthwise | LayerKind::Multiplied | LayerKind::Slopes => 1,
        LayerKind::Grouped(groups) => candidate.n_in as usize / groups,
    }
}

/// Quads that one candidate's weights and biases take once packed, in whole blocks.
pub fn packed_quads(kind: LayerKind, taps: usize, block: usize, candidate: &Candidate) -> usize {
    let n_rows = taps * filter_in(kind, candidate).next_multiple_of(in_multiple(kind)) + 1;
    n_rows * quads(candidate.n_out as usize).next_multiple_of(block.max(1))
}

/// Appends the weights of a node; the job says where they are and that all of them stay.
fn own<'a>(layer: &mut LayerWeights<'a>, network: &'a Network, node: NodeId) -> PackJob {
    let (weight, bias, full_in) = parameters(network, node);
    let mut push = |values: Values<'a>| {
        let at = layer.n_values as u32;
        layer.n_values += values.len();
        layer.source.push(values);
        at
    };
    let at = push(weight);
    let bias = bias.map(push);
    PackJob {
        weight: at,
        bias: bias.unwrap_or(NONE),
        full_in: full_in as u32,
        in_mask: NONE,
        out_mask: NONE,
        ..PackJob::default()
    }
}

/// Numbers where a network holds them, or computed from those.
pub type Values<'a> = Cow<'a, [f32]>;

/// Weight `[out, in of a group, taps]`, bias, and inputs of a filter. BatchNorm is one scale and one shift per channel.
fn parameters(network: &Network, node: NodeId) -> (Values<'_>, Option<Values<'_>>, usize) {
    let n = network.graph().node(node);
    let get = |name: &str| network.parameter(&n.name, name).data();
    match &n.op {
        Op::Conv2d(c) => {
            (Cow::Borrowed(get("weight")), c.bias.then(|| Cow::Borrowed(get("bias"))), c.in_channels / c.groups)
        }
        Op::Linear { in_features, bias, .. } => {
            (Cow::Borrowed(get("weight")), bias.then(|| Cow::Borrowed(get("bias"))), *in_features)
        }
        Op::BatchNorm { eps, .. } => {
            let scale = |(&w, &v): (&f32, &f32)| f64::from(w) / (f64::from(v) + f64::from(*eps)).sqrt();
            let scale: Vec<f64> = get("weight").iter().zip(get("running_var")).map(scale).collect();
            let shifted = get("bias").iter().zip(get("running_mean")).zip(&scale);
            let shift = shifted.map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32).collect();
            (Cow::Owned(scale.iter().map(|&s| s as f32).collect()), Some(Cow::Owned(shift)), 1)
        }
        Op::PRelu { .. } => (Cow::Borrowed(get("weight")), None, 1),
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
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::ConvTranspose2d(_)
        | Op::ChannelConv { .. }
        | Op::GroupNorm { .. }
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
        | Op::Identity => (Cow::Borrowed(&[]), None, 0),
    }
}

/// The job of a candidate that keeps some channels of shared weights.
fn masked(
    masks: &mut Vec<u32>,
    shared: PackJob,
    network: &Network,
    node: NodeId,
    positions: impl Fn(NodeId) -> Vec<usize>,
) -> PackJob {
    let n = network.graph().node(node);
    let input = || positions(n.inputs[0]);
    let inputs = match &n.op {
        Op::Conv2d(c) => filter_inputs(c, &input()),
        Op::Linear { .. } => input(),
        Op::Input
        | Op::BatchNorm { .. }
        | Op::PRelu { .. }
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
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::ConvTranspose2d(_)
        | Op::ChannelConv { .. }
        | Op::GroupNorm { .. }
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
        | Op::Identity => vec![0],
    };
    let in_mask = push_mask(masks, &inputs, shared.full_in as usize);
    let outputs = positions(node);
    let n_full = network.graph().shape(node).c;
    PackJob { in_mask, out_mask: push_mask(masks, &outputs, n_full), ..shared }
}

/// Appends a bit mask over `n` channels; its first word.
fn push_mask(masks: &mut Vec<u32>, kept: &[usize], n: usize) -> u32 {
    let at = masks.len();
    masks.resize(at + n.div_ceil(32).max(1), 0);
    for &channel in kept {
        masks[at + channel / 32] |= 1 << (channel % 32);
    }
    at as u32
}
