//! What of a pruned network is held against the dense network when it is polished.

use rayon::ThreadPool;
use secateur_kernels::{Arithmetic, KernelError, MatchedValue, OutputMatch, Plan};
use secateur_net::{ChannelGroups, Graph, KeptChannels, NodeId, Op};
use secateur_sim::{DenseOutputs, Prepared, RewardKind};

/// What the errors of all matched values together count, beside the divergence of the outputs.
const VALUES_WEIGHT: f32 = 1.0;
/// Images that tell how large outputs are.
const OUTPUT_IMAGES: usize = 256;

/// The outputs of residual additions: they carry all that later layers read, and no refit has given their channels
/// another meaning.
pub(super) fn matched_values(graph: &Graph, groups: &ChannelGroups, kept: &KeptChannels) -> Vec<MatchedValue> {
    let is_sum = |&node: &NodeId| {
        let of = graph.node(node);
        let shape = graph.shape(node);
        matches!(of.op, Op::Add) && of.inputs.len() > 1 && of.inputs.iter().all(|&input| graph.shape(input) == shape)
    };
    let sums: Vec<NodeId> = (1..graph.nodes().len()).filter(is_sum).collect();
    let weight = VALUES_WEIGHT / sums.len().max(1) as f32;
    let matched = |&node: &NodeId| MatchedValue { nodes: [node; 2], channels: kept.positions(groups, node), weight };
    sums.iter().map(matched).collect()
}

/// How outputs are held against the dense network's: logits by their divergence, others by squared errors as a share of
/// their variance, by weight.
pub(super) fn output_match(prepared: &Prepared, pool: &ThreadPool) -> Result<OutputMatch, KernelError> {
    if prepared.reward.kind != RewardKind::OutputError {
        return Ok(OutputMatch::Divergence { temperature: 1.0, weight: 1.0 });
    }
    let (outputs, image_len) = (&prepared.reward.outputs, prepared.network.graph().input().len());
    let images = &prepared.refit_images[..prepared.refit_images.len().min(OUTPUT_IMAGES * image_len)];
    let n_outputs = prepared.network.graph().n_classes();
    let plan = Plan::compile(&prepared.network, Arithmetic::default())?;
    let mut dense = DenseOutputs::new(outputs);
    for images in images.chunks(16 * image_len) {
        plan.logits(pool, images)?.chunks_exact(n_outputs).for_each(|outputs| dense.add(outputs));
    }
    let n_images = (images.len() / image_len) as f64;
    let weights: f64 = outputs.iter().map(|part| part.weight).sum();
    let share = |weight: f64| if weights > 0.0 { weight / weights } else { 0.0 };
    let parts = outputs.iter().zip(dense.scales());
    let parts = parts.map(|(part, scale)| (part.len, (share(part.weight) * n_images / scale.sum) as f32));
    Ok(OutputMatch::SquaredError { parts: parts.collect() })
}
