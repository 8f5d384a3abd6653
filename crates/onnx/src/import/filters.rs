//! Convolutions of other kinds: transposed ones, and those along channels.

use ndarray::ArrayD;
use secateur_net::{ConvTranspose2d, Op};

use super::arrays::flat;
use super::{Carried, Import, Layout};
use crate::facts::Pads;
use crate::schema::NodeProto;

impl Import<'_> {
    /// The constant that a convolution adds, if it adds one.
    pub(super) fn bias(&self, node: &NodeProto) -> Result<Option<ArrayD<f32>>, String> {
        let is_given = node.input.get(2).is_some_and(|name| !name.is_empty());
        if is_given { self.constant(node, 2).map(Some) } else { Ok(None) }
    }

    /// A convolution of rank 3 over the axis of channels, all other axes being one.
    pub(super) fn channel_convolution(&mut self, node: &NodeProto, weight: &ArrayD<f32>) -> Result<(), String> {
        let x = self.input(node, 0)?;
        let is_row = matches!(x.layout, Layout::Grouped(axes) if axes.extents() == [1, self.shapes[x.node].c]);
        let &[1, 1, taps] = weight.shape() else {
            return Err("is a convolution over one axis with several filters, which is not computed".into());
        };
        let pads = Pads::of(&self.facts.at(node), Some(&[taps]))?;
        let keeps_length = pads.begin[0] + pads.end[0] + 1 == taps && [pads.strides[0], pads.dilations[0]] == [1, 1];
        if !is_row || !keeps_length || node.int("group", 1) != 1 {
            return Err("is a convolution over one axis otherwise than over all channels of a pixel".into());
        }
        let bias = self.bias(node)?;
        let op = Op::ChannelConv { taps, front: pads.begin[0], bias: bias.is_some() };
        let id = self.push(node, op, &[x.node])?;
        self.set("weight", vec![taps], flat(weight))?;
        if let Some(bias) = bias {
            self.set("bias", vec![1], flat(&bias))?;
        }
        self.carry(&node.output[0], Carried { node: id, ..x });
        Ok(())
    }

    pub(super) fn transposed_convolution(&mut self, node: &NodeProto) -> Result<(), String> {
        let x = self.image(node)?;
        let weight = self.constant(node, 1)?;
        let &[in_channels, per_group, kh, kw] = weight.shape() else {
            return Err(format!("is a convolution over {} axes; those over two are computed", weight.ndim() - 2));
        };
        let groups = usize::try_from(node.int("group", 1)).map_err(|_| "has a negative group")?;
        let pads = Pads::of(&self.facts.at(node), Some(&[kh, kw]))?;
        let bias = self.bias(node)?;
        let shape = self.shapes[x];
        let to = self.facts.shape(&node.output[0]).ok_or("makes an unknown shape")?;
        let given = node.ints("output_padding").unwrap_or(&[]);
        let out_channels = per_group.checked_mul(groups).ok_or("has more filters than any network")?;
        let mut conv = ConvTranspose2d {
            kernel: [kh, kw],
            stride: [pads.strides[0], pads.strides[1]],
            dilation: [pads.dilations[0], pads.dilations[1]],
            groups,
            bias: bias.is_some(),
            ..ConvTranspose2d::square(in_channels, out_channels, 1, 1, 0)
        };
        for (axis, n) in [shape.h, shape.w].into_iter().enumerate() {
            let extra = given.get(axis).map_or(Ok(0), |&n| usize::try_from(n)).map_err(|_| "has a negative padding")?;
            let n_out = *to.get(axis + 2).ok_or("makes no image")?;
            [conv.padding[axis], [conv.output_padding[axis], _]] = cut(node, &pads, axis, [n, extra, n_out])?;
        }
        let id = self.push(node, Op::ConvTranspose2d(conv), &[x])?;
        self.set("weight", weight.shape().to_vec(), flat(&weight))?;
        if let Some(bias) = bias {
            self.set("bias", vec![out_channels], flat(&bias))?;
        }
        self.carry(&node.output[0], Carried { node: id, layout: Layout::Image });
        Ok(())
    }
}

/// What is cut off at both ends of an axis, and what is there besides.
type CutAndExtra = [[usize; 2]; 2];

/// Of an axis with `n` places, `extra` ones besides and `n_out` in the end.
fn cut(node: &NodeProto, pads: &Pads, axis: usize, [n, extra, n_out]: [usize; 3]) -> Result<CutAndExtra, String> {
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    let is_given = node.ints("output_shape").is_some();
    if !is_given && !auto.starts_with("SAME") {
        return Ok([[pads.begin[axis], pads.end[axis]], [extra, 0]]);
    }
    let reach = pads.kernel[axis].checked_sub(1).and_then(|k| k.checked_mul(pads.dilations[axis]));
    let last = n.checked_sub(1).and_then(|n| n.checked_mul(pads.strides[axis]));
    let whole = last.zip(reach).and_then(|(last, reach)| last.checked_add(reach)?.checked_add(extra)?.checked_add(1));
    let whole = whole.ok_or("makes more than 64 bits count")?;
    let gone = whole.saturating_sub(n_out);
    // The odd one goes behind where the node says so.
    let front = if auto == "SAME_UPPER" { gone / 2 } else { gone - gone / 2 };
    Ok([[front, gone - front], [extra + n_out.saturating_sub(whole), 0]])
}
