//! What an actor sees before a decision: the 13 features of MTACP (algorithms 4.1), and which network and data set it
//! is on.

use secateur_net::{ChannelGroups, Cost, CostModel, Graph, GroupId};

use crate::network::IndexOf;

/// Number of features before the task embedding.
pub const N_FEATURES: usize = 13;

/// What one prunable group is, before scaling: `n, c, h, w, k, stride` of its first consumer, and the
/// multiply-accumulates of every operation that touches it, all at full width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupShape {
    /// Output channels of the first consumer.
    pub n: usize,
    /// Its input channels.
    pub c: usize,
    /// Rows of its input.
    pub h: usize,
    /// Columns of its input.
    pub w: usize,
    /// Kernel rows.
    pub kernel: usize,
    /// Row stride.
    pub stride: usize,
    /// Multiply-accumulates per image of every operation that reads or writes the group.
    pub macs: u64,
}

impl GroupShape {
    /// The shape of a prunable group. A group nobody reads is described by its producer.
    pub fn of(graph: &Graph, groups: &ChannelGroups, model: &CostModel, id: GroupId) -> Self {
        let group = groups.group(id);
        let node = group.consumers.first().or(group.producers.first()).copied().unwrap_or(0);
        let source = graph.node(node).inputs.first().copied().unwrap_or(node);
        let (input, output) = (graph.shape(source), graph.shape(node));
        let conv = graph.node(node).op.as_conv2d();
        let (kernel, stride) = conv.map_or((1, 1), |conv| (conv.kernel[0], conv.stride[0]));
        let full = groups.full_widths();
        let touches = |n: usize| {
            let on = |node: usize| groups.axis(node).iter().any(|s| s.group == id);
            on(n) || graph.node(n).inputs.iter().any(|&i| on(i))
        };
        let macs = (0..graph.nodes().len()).filter(|&n| touches(n)).map(|n| model.node_macs(n, &full)).sum();
        Self { n: output.c, c: input.c, h: input.h, w: input.w, kernel, stride, macs }
    }
}

/// Largest value of every static column over all networks of a run; dividing by it brings each into [0, 1], a constant
/// column to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureScale([f32; 7]);

impl FeatureScale {
    /// The scale of all groups of all networks.
    pub fn of<'a>(shapes: impl Iterator<Item = &'a GroupShape>) -> Self {
        let mut most = [1.0f32; 7];
        for shape in shapes {
            for (m, x) in most.iter_mut().zip(columns(shape)) {
                *m = m.max(x);
            }
        }
        Self(most)
    }
}

fn columns(s: &GroupShape) -> [f32; 7] {
    [s.c as f32, s.n as f32, s.h as f32, s.w as f32, s.stride as f32, s.kernel as f32, s.macs as f32]
}

/// Where a walk stands when it observes.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Which decision of the walk.
    pub layer: IndexOf,
    /// Shapes of the walk's groups, in walk order.
    pub shapes: &'a [GroupShape],
    /// Multiply-accumulates per image at full width.
    pub macs_full: u64,
    /// Bound over original cost, α.
    pub budget_ratio: f32,
    /// Which of the run's networks.
    pub network: IndexOf,
    /// Which of the run's data sets, β.
    pub dataset: IndexOf,
    /// Realised keep ratio of the previous group; 0 at the start.
    pub last_action: f32,
}

/// Writes the observation: `(l, c, n, h, w, stride, k, α, β, FLOPs[l], Reduced, Rest, a_{l-1})`, then a one-hot network
/// and a one-hot data set where a run has several. `widths` holds the decisions so far, for `Reduced`.
pub fn observe(at: &Standing<'_>, scale: &FeatureScale, model: &CostModel, widths: &[usize], out: &mut Vec<f32>) {
    let IndexOf { index: layer, of: n_layers } = at.layer;
    let mut scaled = columns(&at.shapes[layer]);
    scaled.iter_mut().zip(scale.0).for_each(|(x, most)| *x /= most);
    let reduced = 1.0 - model.count(Cost::Macs, widths) as f64 / at.macs_full.max(1) as f64;
    let rest: u64 = at.shapes[layer + 1..].iter().map(|s| s.macs).sum();
    let all: u64 = at.shapes.iter().map(|s| s.macs).sum();
    out.clear();
    out.push((layer + 1) as f32 / n_layers as f32);
    out.extend_from_slice(&scaled[..6]);
    out.push(at.budget_ratio.clamp(0.0, 1.0));
    out.push((at.dataset.index + 1) as f32 / at.dataset.of as f32);
    out.push(scaled[6]);
    out.push(reduced as f32);
    out.push((rest as f64 / all.max(1) as f64) as f32);
    out.push(at.last_action);
    debug_assert_eq!(out.len(), N_FEATURES);
    for IndexOf { index, of: n } in [at.network, at.dataset] {
        if n > 1 {
            out.extend((0..n).map(|i| if i == index { 1.0 } else { 0.0 }));
        }
    }
}

/// Length of an observation in a run of so many networks and data sets.
pub const fn observation_len(n_networks: usize, n_datasets: usize) -> usize {
    let networks = if n_networks > 1 { n_networks } else { 0 };
    let datasets = if n_datasets > 1 { n_datasets } else { 0 };
    N_FEATURES + networks + datasets
}
