//! The parameters that training changes, one after the other in a single slice.

use std::ops::Range;

use secateur_net::{Graph, Network, Op};

/// What a trained parameter does: optimisers decay weights only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Multiplied with several inputs: of convolutions and linear layers.
    Weight,
    /// Added to an output.
    Bias,
    /// BatchNorm's factors and addends, slopes of rectifiers.
    Channel,
}

/// A parameter and where its values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainedParameter {
    /// `<node>.<parameter>`
    pub name: String,
    /// What it does.
    pub kind: ParameterKind,
    /// Its place among all values.
    pub range: Range<usize>,
}

/// The trained parameters of `network`, of the nodes that `is_used`, in the order of nodes, and their values.
pub(crate) fn trained_parameters(
    network: &Network,
    is_used: impl Fn(usize) -> bool,
) -> (Vec<TrainedParameter>, Vec<f32>) {
    let (mut parameters, mut values) = (Vec::new(), Vec::new());
    for (id, node) in network.graph().nodes().iter().enumerate().filter(|(id, _)| is_used(*id)) {
        for (parameter, kind) in kinds(network.graph(), id) {
            let data = network.parameter(&node.name, parameter).data();
            let range = values.len()..values.len() + data.len();
            parameters.push(TrainedParameter { name: format!("{}.{parameter}", node.name), kind, range });
            values.extend_from_slice(data);
        }
    }
    (parameters, values)
}

/// The parameters of a node that training changes.
fn kinds(graph: &Graph, id: usize) -> Vec<(&'static str, ParameterKind)> {
    let op = &graph.node(id).op;
    if let Some(conv) = op.as_conv2d() {
        let bias = conv.bias.then_some(("bias", ParameterKind::Bias));
        return [("weight", ParameterKind::Weight)].into_iter().chain(bias).collect();
    }
    if matches!(op, Op::BatchNorm { .. }) {
        return vec![("weight", ParameterKind::Channel), ("bias", ParameterKind::Channel)];
    }
    if matches!(op, Op::PRelu { .. }) {
        return vec![("weight", ParameterKind::Channel)];
    }
    Vec::new()
}
