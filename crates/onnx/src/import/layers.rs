//! Layers with weights.

use secateur_net::{Conv2d, NodeId, Op};

use super::arrays::flat;
use super::{Carried, Import, Layout};
use crate::facts::{Pads, axis_of};
use crate::schema::NodeProto;

impl Import<'_> {
    /// An input with channels in front of rows and columns.
    pub(super) fn image(&self, node: &NodeProto) -> Result<NodeId, String> {
        match self.input(node, 0)? {
            Carried { node, layout: Layout::Image } => Ok(node),
            Carried { layout, .. } => Err(format!("reads {layout:?} where an image is computed")),
        }
    }

    pub(super) fn convolution(&mut self, node: &NodeProto) -> Result<(), String> {
        let weight = self.constant(node, 1)?;
        if weight.ndim() == 3 {
            return self.channel_convolution(node, &weight);
        }
        let x = self.image(node)?;
        let &[out_channels, per_group, kh, kw] = weight.shape() else {
            return Err(format!("is a convolution over {} axes; those over two are computed", weight.ndim() - 2));
        };
        let groups = usize::try_from(node.int("group", 1)).map_err(|_| "has a negative group")?;
        let pads = Pads::of(&self.facts.at(node), Some(&[kh, kw]))?;
        let bias = self.bias(node)?;
        let is_even = pads.begin == pads.end;
        let x = if is_even {
            x
        } else {
            let (rows, cols) = ([pads.begin[0], pads.end[0]], [pads.begin[1], pads.end[1]]);
            self.push(node, Op::Pad { channels: [0; 2], rows, cols }, &[x])?
        };
        let conv = Conv2d {
            in_channels: per_group * groups,
            out_channels,
            kernel: [kh, kw],
            stride: [pads.strides[0], pads.strides[1]],
            padding: if is_even { [pads.begin[0], pads.begin[1]] } else { [0; 2] },
            dilation: [pads.dilations[0], pads.dilations[1]],
            groups,
            bias: bias.is_some(),
        };
        let id = self.push(node, Op::Conv2d(conv), &[x])?;
        self.set("weight", weight.shape().to_vec(), flat(&weight))?;
        if let Some(bias) = bias {
            self.set("bias", vec![out_channels], flat(&bias))?;
        }
        self.carry(&node.output[0], Carried { node: id, layout: Layout::Image });
        Ok(())
    }

    pub(super) fn product(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let mut weight = self.constant(node, 1)?;
        let is_gemm = node.op_type() == "Gemm";
        if weight.ndim() != 2 || (is_gemm && node.int("transA", 0) != 0) {
            return Err("multiplies otherwise than rows of its input by a matrix".into());
        }
        if !(is_gemm && node.int("transB", 0) != 0) {
            weight = weight.reversed_axes();
        }
        let (out, n_in) = (weight.shape()[0], weight.shape()[1]);
        let scale = if is_gemm { node.float("alpha", 1.0) } else { 1.0 };
        let bias = if is_gemm && node.input.get(2).is_some_and(|name| !name.is_empty()) {
            let beta = node.float("beta", 1.0);
            let bias: Vec<f32> = self.constant(node, 2)?.iter().map(|v| v * beta).collect();
            Some(if bias.len() == 1 { vec![bias[0]; out] } else { bias })
        } else {
            None
        };
        let (op, shape) = match x.layout {
            Layout::Flat => {
                (Op::Linear { in_features: n_in, out_features: out, bias: bias.is_some() }, vec![out, n_in])
            }
            Layout::ChannelsLast | Layout::PixelsFirst => {
                let conv = Conv2d { bias: bias.is_some(), ..Conv2d::square(n_in, out, 1, 1, 0) };
                (Op::Conv2d(conv), vec![out, n_in, 1, 1])
            }
            layout => return Err(format!("multiplies {layout:?} by a matrix")),
        };
        let id = self.push(node, op, &[x.node])?;
        self.set("weight", shape, weight.iter().map(|v| v * scale).collect())?;
        if let Some(bias) = bias {
            self.set("bias", vec![out], bias)?;
        }
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    pub(super) fn batch_norm(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        if x.layout.channel_axis()? != 1 {
            return Err("normalises rows".into());
        }
        let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|i| self.constant(node, i));
        let channels = self.shapes[x.node].c;
        let id = self.push(node, Op::BatchNorm { channels, eps: node.float("epsilon", 1e-5) }, &[x.node])?;
        for (name, array) in [("weight", scale?), ("bias", shift?), ("running_mean", mean?), ("running_var", variance?)]
        {
            self.set(name, vec![channels], flat(&array))?;
        }
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    /// Channels times `scale` plus `shift`: a BatchNorm whose statistics change nothing.
    pub(super) fn scaled(
        &mut self,
        node: &NodeProto,
        x: NodeId,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<NodeId, String> {
        let channels = self.shapes[x].c;
        let id = self.push(node, Op::BatchNorm { channels, eps: 0.0 }, &[x])?;
        let (zeros, ones) = (vec![0.0; channels], vec![1.0; channels]);
        for (name, values) in [("weight", scale), ("bias", shift), ("running_mean", zeros), ("running_var", ones)] {
            self.set(name, vec![channels], values)?;
        }
        Ok(id)
    }

    /// The same as what the node makes.
    pub(super) fn scale_shift(
        &mut self,
        node: &NodeProto,
        x: Carried,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<(), String> {
        let id = self.scaled(node, x.node, scale, shift)?;
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    pub(super) fn prelu(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let slopes = self.per_channel(node, 1, x)?;
        let channels = self.shapes[x.node].c;
        let id = self.push(node, Op::PRelu { channels }, &[x.node])?;
        self.set("weight", vec![channels], slopes)?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    pub(super) fn layer_norm(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let rank = self.facts.at(node).shape(0)?.len();
        let axis = axis_of(node.int("axis", -1), rank)?;
        if axis != x.layout.channel_axis()? || axis != rank - 1 {
            return Err("normalises otherwise than over the channels of each pixel".into());
        }
        let channels = self.shapes[x.node].c;
        let scale = self.per_channel(node, 1, x)?;
        let shift = if self.facts.at(node).is_given(2) { self.per_channel(node, 2, x)? } else { vec![0.0; channels] };
        let id = self.push(node, Op::LayerNorm { channels, eps: node.float("epsilon", 1e-5) }, &[x.node])?;
        self.set("weight", vec![channels], scale)?;
        self.set("bias", vec![channels], shift)?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }

    pub(super) fn softmax(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let rank = self.facts.at(node).shape(0)?.len();
        let is_old = self.document.opset() < 13;
        let axis = axis_of(node.int("axis", if is_old { 1 } else { -1 }), rank)?;
        let shape = self.shapes[x.node];
        if let (Layout::Grouped(_), false, "Softmax") = (x.layout, is_old, node.op_type()) {
            return self.branch_softmax(node, x, axis);
        }
        if axis != x.layout.channel_axis()? || (is_old && shape.h * shape.w > 1) {
            return Err("is a softmax otherwise than over channels".into());
        }
        if node.op_type() == "LogSoftmax" {
            return self.log_softmax(node, x);
        }
        let id = self.push(node, Op::Softmax, &[x.node])?;
        self.carry(&node.output[0], Carried { node: id, layout: x.layout });
        Ok(())
    }
}
