//! Channels that BatchNorm scales least go first (Network Slimming; Liu, Li, Shen, Huang, Yan and Zhang 2017, without
//! its training).

use secateur_net::{ChannelGroups, GroupId, Network, NodeId, Op};

use super::criterion::{Criterion, RankedGroup};

/// The absolute scale of the BatchNorm behind each channel's producers, summed over them.
pub(crate) struct BatchNormScale {
    /// The network as given, before its BatchNorm was folded.
    pub(crate) original: Option<Network>,
}

impl Criterion for BatchNormScale {
    fn name(&self) -> &str {
        "bn_scale"
    }

    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        let original = self.original.as_ref().ok_or("the network as given, with its BatchNorm, is not known")?;
        batch_norm_scales(original, of.network, of.groups, of.group)
    }
}

/// The absolute scales of the channels of a group of `folded`, from the BatchNorm of the network that it was folded of.
///
/// # Errors
/// A group without BatchNorm behind any layer that makes its channels.
pub fn batch_norm_scales(
    original: &Network,
    folded: &Network,
    groups: &ChannelGroups,
    group: GroupId,
) -> Result<Vec<f64>, String> {
    let mut scales = vec![0.0; groups.group(group).n_channels];
    let mut is_known = false;
    for (id, node) in folded.graph().nodes().iter().enumerate() {
        let axis = groups.axis(id);
        if axis.iter().all(|slot| slot.group != group) {
            continue;
        }
        let Some(layer) = original.graph().nodes().iter().position(|known| known.name == node.name) else { continue };
        for norm in norms_behind(original, layer) {
            let name = &original.graph().node(norm).name;
            let Some(scale) = original.weights().get(&format!("{name}.weight")) else { continue };
            is_known = true;
            for (slot, gamma) in axis.iter().zip(scale.data()).filter(|(slot, _)| slot.group == group) {
                scales[slot.channel] += f64::from(gamma.abs());
            }
        }
    }
    let name = &groups.group(group).name;
    is_known.then_some(scales).ok_or_else(|| {
        format!("group \"{name}\" has no BatchNorm behind the layers that make its channels; choose L2, Fpgm or Reconstruction")
    })
}

/// BatchNorm nodes that read a layer and nothing else between.
fn norms_behind(network: &Network, layer: NodeId) -> impl Iterator<Item = NodeId> {
    let graph = network.graph();
    let is_layer = matches!(graph.node(layer).op, Op::Conv2d(_) | Op::Linear { .. } | Op::ConvTranspose2d(_));
    let reads = move |id: &NodeId| {
        let node = graph.node(*id);
        is_layer && matches!(node.op, Op::BatchNorm { .. }) && node.inputs.first() == Some(&layer)
    };
    (0..graph.nodes().len()).filter(reads)
}
