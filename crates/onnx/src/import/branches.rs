//! Channels seen as several axes: what sums, weighs, moves or picks along one of them.

use ndarray::{ArrayD, IxDyn};
use secateur_net::{NodeId, Op};

use super::layout::by_channel;
use super::{Carried, Import, Layout};
use crate::facts::{Movement, axes, axis_of};
use crate::schema::NodeProto;

/// Most pieces that channels are cut into, to be put together in another order.
const PIECES_MAX: usize = 64;
/// Most channels that are looked at one by one.
const CHANNELS_MAX: usize = 1 << 16;
/// No network has as many operations: what a small file could multiply its nodes to.
const OPERATIONS_MAX: usize = 1 << 18;

/// Parts of the channels, one behind the other, each seen as `branches` equal ones.
struct Branches {
    n_parts: usize,
    branches: usize,
}

impl Import<'_> {
    /// Softmax along one of the axes that channels are seen as.
    pub(super) fn branch_softmax(&mut self, node: &NodeProto, x: Carried, axis: usize) -> Result<(), String> {
        let (branches, inner) = along(x.layout, axis)?;
        let op = if inner == 1 { Op::Softmax } else { Op::BranchSoftmax { branches: branches.branches } };
        let id = self.by_parts(node, x.node, &branches, &op)?;
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    /// ReduceSum and ReduceMean over one of the axes that channels are seen as.
    pub(super) fn branch_sum(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let facts = self.facts.at(node);
        let rank = facts.shape(0)?.len();
        let given = axes(node, &facts)?.unwrap_or_default();
        let [axis] = given[..] else { return Err(format!("reduces axes {given:?}, of which one is computed")) };
        let (branches, inner) = along(x.layout, axis_of(axis, rank)?)?;
        let op = if inner == 1 { Op::ChannelMean } else { Op::BranchSum { branches: branches.branches } };
        let id = self.by_parts(node, x.node, &branches, &op)?;
        let n = branches.branches as f32;
        let factor = match (node.op_type(), inner) {
            ("ReduceSum", 1) => n,
            ("ReduceSum", _) | ("ReduceMean", 1) => 1.0,
            ("ReduceMean", _) => 1.0 / n,
            _ => return Err("over one of several axes of channels is not computed".into()),
        };
        let to = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let layout = by_channel(self.shapes[id], to.get(1..).unwrap_or_default());
        let x =
            Carried { node: id, layout: layout.ok_or_else(|| format!("makes {to:?} in a way that is not computed"))? };
        if factor == 1.0 {
            self.carry(&node.output[0], x);
            return Ok(());
        }
        let c = self.shapes[id].c;
        self.scale_shift(node, x, vec![factor; c], vec![0.0; c])
    }

    /// `op` on each part of the channels.
    fn by_parts(&mut self, node: &NodeProto, x: NodeId, branches: &Branches, op: &Op) -> Result<NodeId, String> {
        if branches.n_parts == 1 {
            return self.push(node, op.clone(), &[x]);
        }
        if branches.n_parts > PIECES_MAX {
            return Err(format!("works on {} parts of the channels, more than {PIECES_MAX}", branches.n_parts));
        }
        self.check_room()?;
        let n = self.shapes[x].c / branches.n_parts;
        let mut parts = Vec::with_capacity(branches.n_parts);
        for i in 0..branches.n_parts {
            let part = self.push(node, Op::Slice { channels: [i * n, (i + 1) * n], step: [1, 1] }, &[x])?;
            parts.push(self.push(node, op.clone(), &[part])?);
        }
        self.push(node, Op::Concat, &parts)
    }

    /// Transpose, Slice, Gather and their like on channels: which of them come out, in which order.
    pub(super) fn channels_moved(&mut self, node: &NodeProto, x: Carried, movement: &Movement) -> Result<(), String> {
        let shape = self.shapes[x.node];
        if shape.c > CHANNELS_MAX {
            return Err(format!("moves more than {CHANNELS_MAX} channels"));
        }
        let numbers = ArrayD::from_shape_vec(IxDyn(&x.layout.of_channels(shape.c)), (0..shape.c).collect());
        let moved = movement.apply(numbers.map_err(|e| e.to_string())?.view())?;
        let from: Vec<usize> = moved.iter().copied().collect();
        let id = self.picked(node, x.node, &from)?;
        let to = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let layout = match *to {
            [n] if self.shapes[id].len() == n => Some(Layout::Merged),
            _ => by_channel(self.shapes[id], to.get(1..).unwrap_or_default()),
        };
        // What keeps channels behind pixels keeps them there.
        let layout = if to.len() == 4 && x.layout == Layout::ChannelsLast { Some(x.layout) } else { layout };
        let layout = layout.ok_or_else(|| format!("makes {to:?} in a way that is not computed"))?;
        self.carry(&node.output[0], Carried { node: id, layout });
        Ok(())
    }

    /// A node that becomes several operations may not do so without end.
    pub(super) fn check_room(&self) -> Result<(), String> {
        if self.nodes.len() < OPERATIONS_MAX {
            Ok(())
        } else {
            Err(format!("becomes several operations behind {OPERATIONS_MAX} others, more than any network has"))
        }
    }

    /// These channels, in this order.
    fn picked(&mut self, node: &NodeProto, x: NodeId, from: &[usize]) -> Result<NodeId, String> {
        let n = self.shapes[x].c;
        if from.iter().copied().eq(0..n) {
            return Ok(x);
        }
        if let Some(groups) = shuffled(from, n) {
            return self.push(node, Op::ChannelShuffle { groups }, &[x]);
        }
        self.check_room()?;
        let mut pieces: Vec<[usize; 2]> = Vec::new();
        for &channel in from {
            match pieces.last_mut() {
                Some([_, end]) if *end == channel => *end += 1,
                _ => pieces.push([channel, channel + 1]),
            }
            if pieces.len() > PIECES_MAX {
                return Err(format!("cuts channels into more than {PIECES_MAX} pieces"));
            }
        }
        let mut parts = Vec::with_capacity(pieces.len());
        for channels in pieces {
            parts.push(self.push(node, Op::Slice { channels, step: [1, 1] }, &[x])?);
        }
        match parts[..] {
            [] => Err("leaves no channel".into()),
            [only] => Ok(only),
            _ => self.push(node, Op::Concat, &parts),
        }
    }
}

/// Into how many parts an axis cuts the channels, how many branches it makes of each, and how many channels these have.
fn along(layout: Layout, axis: usize) -> Result<(Branches, usize), String> {
    let Layout::Grouped(grouped) = layout else { return Err(format!("works on one axis of {layout:?}")) };
    let axis = axis.checked_sub(1).filter(|&axis| axis < grouped.extents().len());
    let axis = axis.ok_or("works on another axis than those of channels, which is not computed")?;
    let [n_parts, inner] = grouped.around(axis);
    Ok((Branches { n_parts, branches: grouped.extents()[axis] }, inner))
}

/// In how many groups `n` channels are that come out in this order if they are shuffled.
fn shuffled(from: &[usize], n: usize) -> Option<usize> {
    let per_group = *from.get(1)?;
    if from.len() != n || per_group < 2 || !n.is_multiple_of(per_group) {
        return None;
    }
    let groups = n / per_group;
    let place = |o: usize| o % groups * per_group + o / groups;
    from.iter().copied().eq((0..n).map(place)).then_some(groups)
}
