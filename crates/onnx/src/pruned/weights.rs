//! Weights of layers, in the form in which a document's nodes read them.

use ndarray::{ArrayD, IxDyn};
use secateur_net::{Network, Tensor};

use super::{Compacted, DocumentNetwork, NormNodes, is_layer};
use crate::OnnxError;
use crate::edit::Change;
use crate::facts::Facts;
use crate::names::node_name;
use crate::schema::NodeProto;

/// A layer whose weights are written.
struct RefittedLayer<'a> {
    node: usize,
    weight: &'a Tensor,
    bias: &'a Tensor,
    /// Nodes behind it that its weights contain.
    absorbed: Vec<usize>,
}

/// Where a layer's bias goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BiasPlace {
    /// An input of its own.
    Own,
    /// What a node behind it adds.
    Absorbed(usize),
    /// A new node.
    New,
    /// There is none.
    Nowhere,
}

impl DocumentNetwork {
    /// What makes the cut document the one of the pruned network, whose layers differ from those of `cut` where they
    /// were refitted. `facts` are those of the cut document.
    pub(super) fn changes(
        &self,
        cut: &Network,
        pruned: &Compacted<'_>,
        facts: &Facts,
        norms: NormNodes,
    ) -> Result<Vec<Change>, OnnxError> {
        let (network, absorbed) = (pruned.network, self.absorbed(pruned.folded.graph()));
        let mut changes = Vec::new();
        for node in network.graph().nodes().iter().filter(|node| is_layer(&node.op)) {
            let parameter = |of: &Network, name: &str| of.weights().get(&format!("{}.{name}", node.name)).cloned();
            let behind = absorbed.get(&node.name).cloned().unwrap_or_default();
            let is_same = |name: &str| parameter(cut, name) == parameter(network, name);
            let is_folded = norms == NormNodes::Folded && !behind.is_empty();
            if is_same("weight") && is_same("bias") && !is_folded {
                continue;
            }
            let (weight, bias) = (network.parameter(&node.name, "weight"), network.parameter(&node.name, "bias"));
            let origin = self.origin(&node.name);
            let number = origin.ok_or_else(|| OnnxError::graph(format!("has no node '{}'", node.name)))?;
            let layer = RefittedLayer { node: number, weight, bias, absorbed: behind };
            let of_layer = self.layer(&layer, facts, norms);
            changes.extend(of_layer.map_err(|why| {
                let node = node_name(number, &self.document.graph().node[number]);
                OnnxError::graph(format!("cannot hold the weights of {node}: {why}"))
            })?);
        }
        Ok(changes)
    }

    fn node(&self, number: usize) -> &NodeProto {
        &self.document.graph().node[number]
    }

    fn layer(&self, layer: &RefittedLayer<'_>, facts: &Facts, norms: NormNodes) -> Result<Vec<Change>, String> {
        let node = self.node(layer.node);
        let is_known = node.is_standard() && matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul");
        if !is_known || !node.input.get(1).is_some_and(|name| self.facts.is_constant(name)) {
            return Err("it is no Conv, ConvTranspose, Gemm or MatMul with constant weights".into());
        }
        let weight = Change::Input { node: layer.node, input: 1, values: weight_as_read(node, layer.weight)? };
        let mut changes = vec![weight];
        if node.op_type() == "Gemm" {
            changes.extend(["alpha", "beta"].map(|name| Change::Attribute { node: layer.node, name, value: 1.0 }));
        }
        let place = self.bias_place(layer, facts, norms);
        let bias = layer.bias.data();
        match place {
            BiasPlace::Own => {
                changes.push(Change::Input { node: layer.node, input: 2, values: vector(bias, &[bias.len()])? });
            }
            BiasPlace::New => changes.push(Change::Added { node: layer.node, values: vector(bias, &[bias.len()])? }),
            BiasPlace::Absorbed(_) | BiasPlace::Nowhere => {}
        }
        for &number in &layer.absorbed {
            let is_bias = place == BiasPlace::Absorbed(number);
            let neutral = self.neutral(number, facts, is_bias.then_some(bias));
            match neutral {
                Some(neutral) if norms == NormNodes::Kept || is_bias => changes.extend(neutral?),
                Some(_) | None => changes.push(Change::Bypass { node: number, input: self.image_input(number) }),
            }
        }
        Ok(changes)
    }

    /// A layer's own bias where it has one, else what a node behind it adds to every channel.
    fn bias_place(&self, layer: &RefittedLayer<'_>, facts: &Facts, norms: NormNodes) -> BiasPlace {
        let node = self.node(layer.node);
        let takes_bias = node.op_type() != "MatMul";
        let is_given = takes_bias && node.input.get(2).is_some_and(|name| !name.is_empty());
        if is_given {
            return BiasPlace::Own;
        }
        if layer.bias.data().iter().all(|&b| b == 0.0) {
            return BiasPlace::Nowhere;
        }
        let n = layer.bias.data().len();
        let adds_to_all = |&&number: &&usize| {
            let node = self.node(number);
            let shift = match (node.op_type(), self.image_input(number)) {
                ("BatchNormalization", _) => 2,
                ("Add" | "Sum", image @ (0 | 1)) => 1 - image,
                ("Sub", 0) => 1,
                _ => return false,
            };
            let numbers = node.input.get(shift).and_then(|name| facts.shape(name));
            numbers.is_some_and(|shape| shape.iter().product::<usize>() == n)
        };
        let stays = |number: &&usize| norms == NormNodes::Kept || self.node(**number).op_type() != "BatchNormalization";
        let is_left = norms == NormNodes::Kept || !takes_bias;
        match layer.absorbed.iter().filter(|_| is_left).filter(stays).find(adds_to_all) {
            Some(&number) => BiasPlace::Absorbed(number),
            None if takes_bias => BiasPlace::Own,
            None => BiasPlace::New,
        }
    }

    /// Which input of a node behind a layer is the layer's.
    fn image_input(&self, number: usize) -> usize {
        let inputs = &self.node(number).input;
        inputs.iter().position(|name| !self.facts.is_constant(name)).unwrap_or(0)
    }

    /// What makes a node behind a layer change nothing, or only add the layer's bias; none where that cannot be said
    /// with its numbers.
    fn neutral(&self, number: usize, facts: &Facts, bias: Option<&[f32]>) -> Option<Result<Vec<Change>, String>> {
        let node = self.node(number);
        let image = self.image_input(number);
        let filled = |input: usize, value: f32| {
            let shape = facts.shape(node.input.get(input)?)?;
            Some(Change::Input { node: number, input, values: ArrayD::from_elem(IxDyn(shape), value) })
        };
        let shifted = |input: usize, sign: f32| match bias {
            None => filled(input, 0.0).map(Ok),
            Some(bias) => {
                let shape = facts.shape(node.input.get(input)?)?;
                let signed: Vec<f32> = bias.iter().map(|b| sign * b).collect();
                Some(vector(&signed, shape).map(|values| Change::Input { node: number, input, values }))
            }
        };
        let changes: Vec<Result<Change, String>> = match (node.op_type(), image) {
            ("BatchNormalization", _) => {
                let variance = 1.0 - node.float("epsilon", 1e-5);
                vec![Ok(filled(1, 1.0)?), shifted(2, 1.0)?, Ok(filled(3, 0.0)?), Ok(filled(4, variance)?)]
            }
            ("Add" | "Sum", image @ (0 | 1)) if node.input.len() == 2 => vec![shifted(1 - image, 1.0)?],
            ("Sub", 0) => vec![shifted(1, -1.0)?],
            ("Mul", image @ (0 | 1)) => vec![Ok(filled(1 - image, 1.0)?)],
            ("Div", 0) => vec![Ok(filled(1, 1.0)?)],
            _ => return None,
        };
        Some(changes.into_iter().collect())
    }
}

/// A layer's weight, `[out, in, ...]` unless it is a transposed convolution's, as its node reads it.
fn weight_as_read(node: &NodeProto, weight: &Tensor) -> Result<ArrayD<f32>, String> {
    let array = vector(weight.data(), weight.shape())?;
    if matches!(node.op_type(), "Conv" | "ConvTranspose") {
        return Ok(array);
    }
    let (out, n_in) = (weight.shape()[0], weight.data().len() / weight.shape()[0].max(1));
    let matrix = vector(weight.data(), &[out, n_in])?;
    let is_transposed = node.op_type() == "Gemm" && node.int("transB", 0) != 0;
    Ok(if is_transposed { matrix } else { matrix.reversed_axes().as_standard_layout().into_owned() })
}

fn vector(values: &[f32], shape: &[usize]) -> Result<ArrayD<f32>, String> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).map_err(|e| e.to_string())
}
