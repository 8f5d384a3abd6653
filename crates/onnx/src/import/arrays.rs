//! Constant inputs of nodes.

use ndarray::ArrayD;

use super::Import;
use crate::schema::NodeProto;

impl Import<'_> {
    /// A constant input of the node.
    pub(super) fn constant(&self, node: &NodeProto, i: usize) -> Result<ArrayD<f32>, String> {
        let name = node.input.get(i).filter(|name| !name.is_empty()).ok_or_else(|| format!("lacks input {i}"))?;
        self.constants.array(name)
    }

    /// One number of a constant input, or the default where the node has none.
    pub(super) fn number(&self, node: &NodeProto, i: usize, default: f32) -> Result<f32, String> {
        if node.input.get(i).is_none_or(|name| name.is_empty()) {
            return Ok(default);
        }
        let array = self.constant(node, i)?;
        if array.len() == 1 {
            Ok(array.iter().copied().next().unwrap_or(default))
        } else {
            Err("needs one number".into())
        }
    }
}

/// The array's elements, row-major.
pub fn flat(array: &ArrayD<f32>) -> Vec<f32> {
    array.iter().copied().collect()
}
