//! Parameters of a node, looked up and checked.

use std::borrow::Cow;

use secateur_net::{Conv2d, Graph, NodeId, Weights};

use crate::KernelError;
use crate::engine::maps::LayerNorm;
use crate::engine::mixing::Mixing;

/// Looks up and checks the parameters of one node.
pub(super) struct Parameters<'a> {
    pub(super) node: &'a str,
    pub(super) weights: &'a Weights,
}

impl<'a> Parameters<'a> {
    pub(super) fn get(&self, parameter: &str, expected: usize) -> Result<&'a [f32], KernelError> {
        let name = format!("{}.{parameter}", self.node);
        match self.weights.get(&name).map(|t| t.data()) {
            Some(data) if data.len() == expected => Ok(data),
            found => Err(KernelError::Parameter { name, expected, got: found.map(<[f32]>::len) }),
        }
    }
}

/// A convolution, or a linear layer as one of a single pixel, with its parameters.
pub(crate) struct Linear<'a> {
    /// What is computed.
    pub conv: Conv2d,
    /// `[out, in / groups, kh, kw]`
    pub weight: &'a [f32],
    /// `[out]`
    pub bias: Option<&'a [f32]>,
}

impl<'a> Linear<'a> {
    /// Of node `id`; `None` when it is something else.
    ///
    /// # Errors
    /// A missing or misshapen parameter.
    pub(crate) fn of(graph: &'a Graph, weights: &'a Weights, id: NodeId) -> Result<Option<Self>, KernelError> {
        let node = graph.node(id);
        let parameters = Parameters { node: &node.name, weights };
        let Some(conv) = node.op.as_conv2d().map(Cow::into_owned) else { return Ok(None) };
        let n_weights = conv.out_channels * (conv.in_channels / conv.groups) * conv.kernel[0] * conv.kernel[1];
        let weight = parameters.get("weight", n_weights)?;
        let bias = if conv.bias { Some(parameters.get("bias", conv.out_channels)?) } else { None };
        Ok(Some(Self { conv, weight, bias }))
    }
}

/// A LayerNorm with its parameters.
pub(super) fn layer_norm(parameters: &Parameters, channels: usize, eps: f32) -> Result<LayerNorm, KernelError> {
    let (scale, shift) = (parameters.get("weight", channels)?, parameters.get("bias", channels)?);
    Ok(LayerNorm { scale: scale.to_vec(), shift: shift.to_vec(), eps })
}

/// A convolution along channels with its parameters.
pub(super) fn channel_conv(
    parameters: &Parameters,
    taps: usize,
    front: usize,
    bias: bool,
) -> Result<Mixing, KernelError> {
    let bias = if bias { parameters.get("bias", 1)?[0] } else { 0.0 };
    Ok(Mixing::Convolution { weight: parameters.get("weight", taps)?.to_vec(), front, bias })
}

/// A GroupNorm with its parameters.
pub(super) fn group_norm(
    parameters: &Parameters,
    channels: usize,
    groups: usize,
    eps: f32,
) -> Result<Mixing, KernelError> {
    let (scale, shift) = (parameters.get("weight", channels)?, parameters.get("bias", channels)?);
    Ok(Mixing::GroupNorm { scale: scale.to_vec(), shift: shift.to_vec(), groups, eps })
}
