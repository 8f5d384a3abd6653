//! Operations that move, cut, repeat or sum places.

use ndarray::{Axis, IxDyn, concatenate};

use super::DocumentLabels;
use super::arrays::{LabelArray, PLACES_MAX, along, compress, join_to_one_axis, on_axis, varying, whole};
use crate::facts::{Movement, axes, axis_of, pads, part};
use crate::schema::NodeProto;

impl DocumentLabels<'_> {
    pub(super) fn movement(&mut self, node: &NodeProto) -> Result<(), String> {
        let shape = self.shape(node, 0)?;
        let labels = self.input(node, 0)?;
        let movement = Movement::of(node, &self.facts.at(node))?.ok_or("does not move places")?;
        if matches!(movement, Movement::Reshape(ref to) if *to == shape) {
            self.set(&node.output[0], labels);
            return Ok(());
        }
        let differing = varying(&labels);
        let moved = match &movement {
            Movement::Reshape(_) => movement.apply(whole(&labels, &shape)?.view())?,
            Movement::Transpose(_) => movement.apply(labels.view())?,
            Movement::Slice(ranges) => {
                let on_channels: Vec<_> =
                    ranges.iter().filter(|range| differing.contains(&range.axis)).copied().collect();
                if let Some(range) = on_channels.iter().find(|range| range.step != 1) {
                    return Err(format!("takes channels in steps of {}", range.step));
                }
                Movement::Slice(on_channels).apply(labels.view())?
            }
            Movement::Gather { axis, .. } => {
                let extents: Vec<usize> =
                    shape.iter().enumerate().map(|(a, &d)| if a == *axis { d } else { labels.shape()[a] }).collect();
                movement.apply(whole(&labels, &extents)?.view())?
            }
            Movement::Expand(to) => {
                let lead = vec![1; to.len() - shape.len()];
                let extents = [&lead[..], labels.shape()].concat();
                labels.into_shape_with_order(IxDyn(&extents)).map_err(|e| e.to_string())?
            }
            Movement::Tile(times) => {
                if times.iter().fold(labels.len(), |n, &t| n.saturating_mul(t)) > PLACES_MAX {
                    return Err("repeats more channels than any network has".into());
                }
                let times =
                    times.iter().enumerate().map(|(a, &n)| if differing.contains(&a) { n } else { 1 }).collect();
                Movement::Tile(times).apply(labels.view())?
            }
        };
        let labels = join_to_one_axis(moved, &mut self.classes);
        self.set(&node.output[0], labels);
        Ok(())
    }

    pub(super) fn split(&mut self, node: &NodeProto) -> Result<(), String> {
        let labels = self.input(node, 0)?;
        let axis = axis_of(node.int("axis", 0), labels.ndim())?;
        let mut from = 0;
        for (i, output) in node.output.iter().enumerate() {
            let n = self.out_shape(node, i)?[axis];
            let of_part = if labels.shape()[axis] > 1 { part(&labels, axis, from, n) } else { labels.clone() };
            self.set(output, of_part);
            from += n;
        }
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &NodeProto) -> Result<(), String> {
        let mut labels = self.input(node, 0)?;
        let shape = self.shape(node, 0)?;
        for (axis, [front, behind]) in pads(&self.facts.at(node))?.into_iter().enumerate() {
            if [front, behind] == [0, 0] || (labels.shape()[axis] == 1 && shape[axis] > 1) {
                continue;
            }
            if front < 0 || behind < 0 || !matches!(node.string("mode"), None | Some("constant")) {
                return Err("pads channels otherwise than by constants".into());
            }
            let mut extents = labels.shape().to_vec();
            if front.saturating_add(behind) > 1 << 20 {
                return Err("adds more channels than any network has".into());
            }
            let mut edge = |n: i64| -> Result<LabelArray, String> {
                let fresh = self.classes.fresh(n as usize, false);
                extents[axis] = n as usize;
                whole(&along(fresh, axis, labels.ndim()), &extents)
            };
            let (front, behind) = (edge(front)?, edge(behind)?);
            labels =
                concatenate(Axis(axis), &[front.view(), labels.view(), behind.view()]).map_err(|e| e.to_string())?;
        }
        self.set(&node.output[0], labels);
        Ok(())
    }

    pub(super) fn resize(&mut self, node: &NodeProto) -> Result<(), String> {
        let labels = self.input(node, 0)?;
        let (from, to) = (self.shape(node, 0)?, self.out_shape(node, 0)?);
        if varying(&labels).iter().any(|&axis| from[axis] != to[axis]) {
            return Err("changes the number of channels".into());
        }
        self.set(&node.output[0], labels);
        Ok(())
    }

    pub(super) fn reduction(&mut self, node: &NodeProto) -> Result<(), String> {
        let labels = self.input(node, 0)?;
        let rank = labels.ndim();
        let given = if node.op_type().starts_with("Arg") {
            Some(vec![node.int("axis", 0)])
        } else {
            axes(node, &self.facts.at(node))?
        };
        let out_shape = self.out_shape(node, 0)?;
        let gone: Vec<usize> = match given {
            Some(axes) if !axes.is_empty() => axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?,
            _ if node.int("noop_with_empty_axes", 0) == 1 => Vec::new(),
            _ => (0..rank).collect(),
        };
        if gone.iter().any(|&axis| labels.shape()[axis] > 1) {
            return Err("sums over channels".into());
        }
        let extents: Vec<usize> = if out_shape.len() == rank {
            labels.shape().to_vec()
        } else {
            (0..rank).filter(|axis| !gone.contains(axis)).map(|axis| labels.shape()[axis]).collect()
        };
        let labels = labels.into_shape_with_order(IxDyn(&extents)).map_err(|e| e.to_string())?;
        self.set(&node.output[0], labels);
        Ok(())
    }

    /// The places of a block come from as many channels, which go together.
    pub(super) fn depth_to_space(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.channels(node, 0, 1)?;
        let n_out = self.out_shape(node, 0)?[1];
        let per_channel = x.len() / n_out.max(1);
        let is_crd = node.string("mode") == Some("CRD");
        let source = |out: usize, i: usize| if is_crd { out * per_channel + i } else { i * n_out + out };
        for out in 0..n_out {
            (1..per_channel).for_each(|i| self.classes.join(x[source(out, 0)], x[source(out, i)]));
        }
        let labels = (0..n_out).map(|out| x[source(out, 0)]).collect();
        self.set(&node.output[0], along(labels, 1, 4));
        Ok(())
    }

    /// Every place of a block gets all channels.
    pub(super) fn space_to_depth(&mut self, node: &NodeProto) -> Result<(), String> {
        let labels = self.input(node, 0)?;
        let labels = compress(labels, &mut self.classes);
        let x = on_axis(&labels, 1, self.shape(node, 0)?[1])?;
        let n = self.out_shape(node, 0)?[1] / x.len().max(1);
        if x.len().saturating_mul(n) > PLACES_MAX {
            return Err("makes more channels than any network has".into());
        }
        self.set(&node.output[0], along(x.repeat(n), 1, 4));
        Ok(())
    }
}
