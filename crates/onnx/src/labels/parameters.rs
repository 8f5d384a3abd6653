//! Parameters: which rows of an initialiser or Constant node belong to which channels, through what stands between.

use std::sync::Arc;

use ndarray::ArrayD;

use super::DocumentLabels;
use super::arrays::{along, join_to_one_axis, on_axis, varying, whole};
use crate::facts::Movement;
use crate::schema::NodeProto;

/// Labels of a parameter's rows along one axis, shared by all who need the same; none where all rows stay.
pub type RowLabels = Option<Arc<[u32]>>;

/// A parameter as one node reads it.
#[derive(Clone, Debug)]
pub struct ParameterUse {
    /// The node that multiplies or adds it.
    pub node: usize,
    /// Which of its inputs.
    pub input: usize,
    /// The initialiser, or the output of the Constant node, that holds it; where its numbers are computed from others,
    /// what the node that computes them makes.
    pub source: String,
    /// Nodes from the source to the reader, the last first: Identity, Reshape, Transpose and their like.
    pub chain: Vec<ChainNode>,
    /// Labels along the axes of the source; none along axes that stay whole.
    pub source_axes: Vec<RowLabels>,
    /// Labels along the axes as the node reads them.
    pub axes: Vec<RowLabels>,
}

/// A node that moves a parameter, and the labels along the axes of what it makes.
#[derive(Clone, Debug)]
pub struct ChainNode {
    /// Its number.
    pub node: usize,
    /// As [`ParameterUse::axes`].
    pub axes: Vec<RowLabels>,
}

/// Labels along one axis of a tensor.
struct OnAxis {
    axis: usize,
    labels: Vec<u32>,
}

impl<'a> DocumentLabels<'a> {
    /// The node's parameter has a row along these axes for each label.
    ///
    /// # Errors
    /// A parameter that is computed, rows that do not lie side by side where it is stored.
    pub(super) fn parameter(&mut self, number: usize, input: usize, axes: Vec<RowLabels>) -> Result<(), String> {
        let node = &self.document.graph().node[number];
        let Some(name) = node.input.get(input).filter(|name| !name.is_empty()) else { return Ok(()) };
        let mut source = name.clone();
        let mut is_captured = self.captured.contains(source.as_str());
        let mut source_axes = axes.clone();
        let mut chain = Vec::new();
        while let Some((maker, node)) = self.maker(&source).filter(|(_, node)| node.op_type() != "Constant") {
            if self.is_computed(node)? {
                break;
            }
            let before = self.before(node, source_axes.clone())?;
            chain.push(ChainNode { node: maker, axes: std::mem::replace(&mut source_axes, before) });
            source.clone_from(&node.input[0]);
            is_captured |= self.captured.contains(source.as_str());
        }
        if is_captured {
            let labels = axes.iter().flatten().flat_map(|labels| labels.iter().copied());
            self.classes.freeze(labels, "a parameter is read inside a branch or a loop, too");
        }
        if source_axes.len() > 1 {
            self.join_uses(&source, &mut source_axes);
        }
        self.uses.push(ParameterUse { node: number, input, source, chain, source_axes, axes });
        Ok(())
    }

    /// The node that makes a value.
    fn maker(&self, name: &str) -> Option<(usize, &'a NodeProto)> {
        let number = *self.constants.makers.get(name)?;
        Some((number, &self.document.graph().node[number]))
    }

    /// Whether a node makes other numbers of constants, rather than move them.
    ///
    /// # Errors
    /// Numbers that it makes in a way that is not known.
    fn is_computed(&self, node: &NodeProto) -> Result<bool, String> {
        let moves = ["Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand"];
        let is_moved = moves.contains(&node.op_type()) || matches!(node.op_type(), "Cast" | "CastLike");
        if is_moved || !node.is_standard() || !self.facts.is_constant_node(node) {
            return Ok(false);
        }
        // What is filled with one number is cut by its shape.
        if node.op_type() != "ConstantOfShape" {
            self.constants.array(&node.output[0])?;
        }
        Ok(true)
    }

    /// Labels of the axes in front of a node that moves the elements of a parameter.
    fn before(&mut self, node: &NodeProto, axes: Vec<RowLabels>) -> Result<Vec<RowLabels>, String> {
        let computed = || format!("reads a parameter that '{}' ({}) computes", node.name(), node.op_type());
        if !node.is_standard() || !self.facts.is_constant_node(node) {
            return Err(computed());
        }
        if matches!(node.op_type(), "Cast" | "CastLike") {
            return Ok(axes);
        }
        let facts = self.facts.at(node);
        let from = facts.shape(0)?.to_vec();
        let to = self.facts.shape(&node.output[0]).ok_or_else(computed)?.to_vec();
        let back = match Movement::of(node, &facts)? {
            Some(Movement::Expand(_)) => {
                let lead = to.len() - from.len();
                let repeated = |axis: usize| from[axis] == 1 && to[axis + lead] > 1;
                let kept = axes.into_iter().skip(lead).enumerate();
                return Ok(kept.map(|(axis, labels)| labels.filter(|_| !repeated(axis))).collect());
            }
            Some(Movement::Reshape(_)) => Movement::Reshape(from.clone()),
            Some(Movement::Transpose(perm)) => {
                let mut inverse = vec![0; perm.len()];
                perm.iter().enumerate().for_each(|(to, &axis)| inverse[axis] = to);
                Movement::Transpose(inverse)
            }
            _ => return Err(computed()),
        };
        let mut before: Vec<RowLabels> = vec![None; from.len()];
        for (axis, labels) in axes.into_iter().enumerate() {
            let Some(labels) = labels.filter(|labels| !labels.is_empty()).map(|labels| labels.to_vec()) else {
                continue;
            };
            let found = self.moved_back(OnAxis { axis, labels }, &to, &back)?;
            let Some(OnAxis { axis, labels }) = found else { continue };
            if before[axis].replace(labels.into()).is_some() {
                return Err(format!("reads a parameter whose rows '{}' mixes", node.name()));
            }
        }
        Ok(before)
    }

    fn moved_back(&mut self, on: OnAxis, shape: &[usize], back: &Movement) -> Result<Option<OnAxis>, String> {
        let array = whole(&along(on.labels, on.axis, shape.len()), shape)?;
        let moved = join_to_one_axis(back.apply(array.view())?, &mut self.classes);
        // Rows that all belong to one channel stay while the channel does.
        let Some(&axis) = varying(&moved).first() else { return Ok(None) };
        let n = moved.shape()[axis];
        Ok(Some(OnAxis { axis, labels: on_axis(&moved, axis, n)? }))
    }

    /// Two uses of a parameter with several axes lose the same rows.
    fn join_uses(&mut self, source: &str, axes: &mut [RowLabels]) {
        let is_matrix = self.facts.shape(source).is_some_and(|shape| shape.iter().filter(|&&d| d > 1).count() > 1);
        if !is_matrix {
            return;
        }
        let known = self.parameters.entry(source.to_owned()).or_insert_with(|| axes.to_vec());
        for (known, new) in known.iter().zip(axes) {
            match (known, new) {
                (Some(known), Some(new)) => known.iter().zip(new.iter()).for_each(|(&a, &b)| self.classes.join(a, b)),
                (Some(one), None) => {
                    self.classes.freeze(one.iter().copied(), "a parameter is used in another way, too")
                }
                (None, Some(one)) => {
                    self.classes.freeze(one.iter().copied(), "a parameter is used in another way, too")
                }
                (None, None) => {}
            }
        }
    }
}

/// Labels along all axes of a parameter that is combined with a tensor of these labels, its axes counted from behind.
pub fn aligned(labels: &ArrayD<u32>, out_rank: usize, parameter: &[usize]) -> Vec<RowLabels> {
    let axes = varying(labels);
    (0..parameter.len())
        .map(|axis| {
            let at = axis + out_rank - parameter.len();
            (parameter[axis] > 1 && axes == [at]).then(|| labels.iter().copied().collect())
        })
        .collect()
}
