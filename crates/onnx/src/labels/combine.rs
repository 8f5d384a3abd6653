//! Operations that combine tensors: place by place, or side by side.

use ndarray::{Axis, IxDyn, Zip, concatenate};

use super::DocumentLabels;
use super::arrays::{LabelArray, compress, join_to_one_axis, varying, whole};
use super::parameters::aligned;
use crate::facts::axis_of;
use crate::schema::NodeProto;

/// A tensor that takes part in a combination, its labels with as many axes as what comes out.
struct CombinedTensor {
    labels: LabelArray,
    shape: Vec<usize>,
}

impl DocumentLabels<'_> {
    /// Add, Mul and their like: the same places join.
    pub(super) fn combination(&mut self, number: usize, node: &NodeProto) -> Result<(), String> {
        let out_shape = self.out_shape(node, 0)?;
        let mut operands = Vec::new();
        let mut parameters = Vec::new();
        for (i, name) in node.input.iter().enumerate() {
            if let Some(labels) = self.get(name) {
                operands.push(self.operand(node, i, labels, out_shape.len())?);
            } else if self.facts.is_constant(name) {
                parameters.push(i);
            } else {
                self.freeze_shapes(name, "its number of channels is computed with");
            }
        }
        if operands.len() > 1 && node.op_type() == "Pow" {
            return Err("has a power that is not constant".into());
        }
        let joined = self.join_operands(operands, &out_shape)?;
        let out = compress(joined, &mut self.classes);
        for i in parameters {
            self.constant_operand(number, node, i, &out)?;
        }
        self.set(&node.output[0], out);
        Ok(())
    }

    fn operand(&self, node: &NodeProto, i: usize, labels: LabelArray, rank: usize) -> Result<CombinedTensor, String> {
        let shape = self.shape(node, i)?;
        let lead = vec![1; rank.saturating_sub(shape.len())];
        let extents = [&lead[..], labels.shape()].concat();
        let labels = labels.into_shape_with_order(IxDyn(&extents)).map_err(|e| e.to_string())?;
        Ok(CombinedTensor { labels, shape: [&lead[..], &shape].concat() })
    }

    fn join_operands(&mut self, operands: Vec<CombinedTensor>, out_shape: &[usize]) -> Result<LabelArray, String> {
        let all: Vec<LabelArray> = operands.iter().map(|operand| operand.labels.clone()).collect();
        let mut out: Option<LabelArray> = None;
        for operand in operands {
            // One place that meets several channels is no channel of theirs: it stays, and they stay apart.
            let is_spread = (0..out_shape.len()).any(|axis| {
                operand.shape[axis] == 1 && out_shape[axis] > 1 && all.iter().any(|other| other.shape()[axis] > 1)
            });
            if is_spread {
                self.classes.freeze(operand.labels.iter().copied(), "meets all channels of another tensor");
                continue;
            }
            out = Some(match out {
                None => operand.labels,
                Some(out) => self.join_arrays(&out, &operand.labels)?,
            });
        }
        out.ok_or_else(|| "combines tensors that all meet channels of each other".into())
    }

    /// Joins places that meet, and gives the labels of what they make.
    pub(super) fn join_arrays(&mut self, a: &LabelArray, b: &LabelArray) -> Result<LabelArray, String> {
        let unlike = || "combines labels of unlike shapes".to_owned();
        let rank = a.ndim().max(b.ndim());
        let extent = |x: &LabelArray, axis: usize| (axis + x.ndim()).checked_sub(rank).map_or(1, |at| x.shape()[at]);
        let shape: Vec<usize> = (0..rank).map(|axis| extent(a, axis).max(extent(b, axis))).collect();
        let x = a.broadcast(IxDyn(&shape)).ok_or_else(unlike)?;
        let y = b.broadcast(IxDyn(&shape)).ok_or_else(unlike)?;
        Zip::from(&x).and(&y).for_each(|&a, &b| self.classes.join(a, b));
        Ok(x.to_owned())
    }

    /// A constant that is combined with a tensor of these labels has a row for each of its channels.
    pub(super) fn constant_operand(
        &mut self,
        number: usize,
        node: &NodeProto,
        i: usize,
        out: &LabelArray,
    ) -> Result<(), String> {
        let shape = self.constant_shape(node, i)?;
        let axes = varying(out);
        let meets = |axis: usize| axis + shape.len() >= out.ndim() && shape[axis + shape.len() - out.ndim()] > 1;
        if axes.len() > 1 && axes.iter().any(|&axis| meets(axis)) {
            return Err("has a constant for channels that lie along two axes".into());
        }
        self.parameter(number, i, aligned(out, out.ndim(), &shape))
    }

    /// Concat: side by side.
    pub(super) fn concatenation(&mut self, node: &NodeProto) -> Result<(), String> {
        let out_shape = self.out_shape(node, 0)?;
        let axis = axis_of(node.int("axis", 1), out_shape.len())?;
        let mut parts = Vec::with_capacity(node.input.len());
        for (i, name) in node.input.iter().enumerate() {
            let shape = self.shape(node, i)?;
            let labels = match self.get(name) {
                Some(labels) => labels,
                None => {
                    let label = self.classes.fresh(1, false);
                    self.classes.freeze(label.iter().copied(), "holds constants only");
                    self.freeze_shapes(name, "its number of channels is computed with");
                    LabelArray::from_elem(IxDyn(&vec![1; shape.len()]), label[0])
                }
            };
            parts.push((labels, shape));
        }
        // Axes along which no part differs stay short.
        let differs = |a: usize| a == axis || parts.iter().any(|(labels, _)| labels.shape()[a] > 1);
        let differing: Vec<bool> = (0..out_shape.len()).map(differs).collect();
        let mut arrays = Vec::with_capacity(parts.len());
        for (labels, shape) in &parts {
            let extents: Vec<usize> =
                shape.iter().zip(&differing).map(|(&d, &whole)| if whole { d } else { 1 }).collect();
            arrays.push(whole(labels, &extents)?);
        }
        let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
        let joined = concatenate(Axis(axis), &views).map_err(|e| e.to_string())?;
        let labels = join_to_one_axis(joined, &mut self.classes);
        self.set(&node.output[0], labels);
        Ok(())
    }
}
