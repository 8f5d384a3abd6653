//! Multiply-accumulates and parameters of a document.

use std::collections::HashSet;

use super::known::Facts;
use crate::document::OnnxDocument;
use crate::schema::NodeProto;
use crate::tensor::floats;

impl Facts {
    /// Multiply-accumulates of all convolutions and products with constant weights, for inputs of the shapes that were
    /// followed.
    pub fn macs(&self, document: &OnnxDocument) -> u64 {
        self.macs_of(document, |_| true)
    }

    /// [`Facts::macs`] of some of the nodes.
    pub(crate) fn macs_of(&self, document: &OnnxDocument, is_counted: impl Fn(usize) -> bool) -> u64 {
        let product = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
        let of_node = |node: &NodeProto| {
            let facts = self.at(node);
            let weight = node.input.get(1).filter(|name| self.is_constant(name)).and_then(|name| self.shape(name))?;
            let out = self.shape(node.output.first()?)?;
            match node.op_type() {
                "Conv" => Some(product(weight) * product(out.get(2..)?) * out[0] as u64),
                "ConvTranspose" => {
                    let x = facts.shape(0).ok()?;
                    Some(product(weight) * product(x.get(2..)?) * x[0] as u64)
                }
                "Gemm" | "MatMul" => Some(product(weight) * product(&out[..out.len().saturating_sub(1)])),
                _ => None,
            }
        };
        let nodes = document.graph().node.iter().enumerate().filter(|(number, _)| is_counted(*number));
        nodes.filter_map(|(_, node)| of_node(node)).sum()
    }

    /// Multiply-accumulates of one image: those of [`Facts::macs`], by the number of images in the network's input.
    pub fn macs_of_one_image(&self, document: &OnnxDocument) -> u64 {
        let batch = self.inputs().first().and_then(|input| input.shape.first()).map_or(1, |&n| n as u64);
        self.macs(document) / batch.max(1)
    }

    /// Parameters: weights and biases, slopes of PRelu, scales and shifts of normalisations, and constants of more than
    /// one number that tensors are combined with. What several nodes read is counted once.
    pub fn params(&self, document: &OnnxDocument) -> u64 {
        self.params_of(document, |_| true)
    }

    /// [`Facts::params`] of some of the nodes.
    pub(crate) fn params_of(&self, document: &OnnxDocument, is_counted: impl Fn(usize) -> bool) -> u64 {
        let mut counted: HashSet<&str> = HashSet::new();
        let mut n_params = 0;
        // Numbers are known of what counts sizes.
        let is_of_sizes = |node: &NodeProto| node.output.first().is_some_and(|name| self.numbers(name).is_some());
        let works_on_images =
            |node: &&NodeProto| node.is_standard() && !self.is_constant_node(node) && !is_of_sizes(node);
        let nodes = document.graph().node.iter().enumerate().filter(|(number, _)| is_counted(*number));
        for node in nodes.map(|(_, node)| node).filter(works_on_images) {
            let (first, last, least) = match node.op_type() {
                "Conv"
                | "ConvTranspose"
                | "BatchNormalization"
                | "InstanceNormalization"
                | "GroupNormalization"
                | "LayerNormalization" => (1, 2, 1),
                "PRelu" => (1, 1, 1),
                "Gemm" => (0, 2, 1),
                "MatMul" => (0, 1, 1),
                "Add" | "Sub" | "Mul" | "Div" | "Sum" => (0, node.input.len().saturating_sub(1), 2),
                _ => continue,
            };
            let inputs = node.input.iter().enumerate().filter(|(i, _)| (first..=last).contains(i));
            for (i, name) in inputs.filter(|(_, name)| self.is_constant(name)) {
                // A norm of groups of channels is written with scales and shifts that change nothing.
                let idle = if i == 1 { 1.0 } else { 0.0 };
                if node.op_type() == "InstanceNormalization" && is_filled(document, name, idle) {
                    continue;
                }
                let n: u64 = self.shape(name).map_or(0, |shape| shape.iter().map(|&n| n as u64).product());
                if n >= least && counted.insert(name) {
                    n_params += n;
                }
            }
        }
        n_params
    }
}

/// Whether a stored tensor holds one number alone.
fn is_filled(document: &OnnxDocument, name: &str, number: f32) -> bool {
    let stored = document.graph().initializer.iter().find(|tensor| tensor.name() == name);
    let values = stored.and_then(|tensor| floats(tensor, document.external()).ok());
    values.is_some_and(|values| values.iter().all(|&v| v == number))
}
