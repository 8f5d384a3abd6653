//! Multiply-accumulates of a document.

use super::known::Facts;
use crate::document::OnnxDocument;

impl Facts {
    /// Multiply-accumulates of all convolutions and products with constant weights, for inputs of the shapes that were
    /// followed.
    pub fn macs(&self, document: &OnnxDocument) -> u64 {
        let product = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
        let of_node = |node: &crate::schema::NodeProto| {
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
        document.graph().node.iter().filter_map(of_node).sum()
    }
}
