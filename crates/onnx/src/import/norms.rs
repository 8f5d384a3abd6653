//! Norms, and what else mixes channels.

use secateur_net::{NodeId, Op, Pointwise};

use super::arrays::flat;
use super::{Carried, Import, Layout};
use crate::schema::NodeProto;

impl Import<'_> {
    pub(super) fn local_response(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        if x.layout.channel_axis()? != 1 {
            return Err("normalises otherwise than over channels".into());
        }
        let size = usize::try_from(node.int("size", 0)).map_err(|_| "has a negative size")?;
        let [alpha, beta, bias] =
            [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)].map(|(name, default)| node.float(name, default));
        let id = self.push(node, Op::LocalResponseNorm { size, alpha, beta, bias }, &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    /// InstanceNormalization of channels, or of groups of them that were folded into one axis.
    pub(super) fn instance_norm(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let channels = self.shapes[x.node].c;
        let groups = match x.layout {
            Layout::Image | Layout::Pixels => channels,
            Layout::Folded(groups) => groups,
            layout => return Err(format!("normalises {layout:?}")),
        };
        self.group_norm(node, x, groups)
    }

    /// GroupNormalization.
    pub(super) fn norm_of_groups(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        if !matches!(x.layout, Layout::Image | Layout::Pixels) {
            return Err(format!("normalises {:?}", x.layout));
        }
        let groups = usize::try_from(node.int("num_groups", 0)).map_err(|_| "has a negative number of groups")?;
        self.group_norm(node, x, groups)
    }

    /// Scale and shift are one number for each channel, or for each group.
    fn group_norm(&mut self, node: &NodeProto, x: Carried, groups: usize) -> Result<(), String> {
        let channels = self.shapes[x.node].c;
        let op = Op::GroupNorm { channels, groups, eps: node.float("epsilon", 1e-5) };
        let each = |i: usize| -> Result<Vec<f32>, String> {
            let values = flat(&self.constant(node, i)?);
            let n = values.len();
            if n == 0 || (n != channels && n != groups) || !channels.is_multiple_of(n) {
                return Err(format!("has {n} numbers as input {i}, for {channels} channels in {groups} groups"));
            }
            Ok((0..channels).map(|c| values[c / (channels / n)]).collect())
        };
        let (scale, shift) = (each(1)?, each(2)?);
        let id = self.push(node, op, &[x.node])?;
        self.set("weight", vec![channels], scale)?;
        self.set("bias", vec![channels], shift)?;
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    /// `x - max - log(sum(exp(x - max)))` over channels.
    pub(super) fn log_softmax(&mut self, node: &NodeProto, x: Carried) -> Result<(), String> {
        let max = self.push(node, Op::ChannelMax, &[x.node])?;
        let below = self.difference(node, x.node, max)?;
        let exp = self.push(node, Op::Pointwise(Pointwise::Exp), &[below])?;
        let mean = self.push(node, Op::ChannelMean, &[exp])?;
        let n = self.shapes[x.node].c as f32;
        let sum = self.scaled(node, mean, vec![n], vec![0.0])?;
        let log = self.push(node, Op::Pointwise(Pointwise::Log), &[sum])?;
        let id = self.difference(node, below, log)?;
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    fn difference(&mut self, node: &NodeProto, a: NodeId, b: NodeId) -> Result<NodeId, String> {
        let negative = self.push(node, Op::Pointwise(Pointwise::Neg), &[b])?;
        self.push(node, Op::Add, &[a, negative])
    }
}
