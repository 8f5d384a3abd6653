//! Transposed convolutions, as convolutions of the image with zeros between its pixels.

use secateur_net::{Conv2d, ConvTranspose2d, Shape};

use crate::Isa;
use crate::engine::op_kernel::{OpKernel, Scratch, Tail};

/// A transposed convolution of a group of images, `[H, W, C, LANES]`.
#[derive(Clone, Debug)]
pub(crate) struct TransposedKernel {
    /// Over the image with zeros between.
    convolution: OpKernel,
    stride: [usize; 2],
    /// In the image with zeros, rows above and columns left of the first pixel; negative where it begins further on.
    front: [isize; 2],
    input: Shape,
    spread: Shape,
}

/// The image with zeros between its pixels and around, and the convolution over it that has no padding.
pub(crate) fn spread(conv: &ConvTranspose2d, out: Shape) -> (Shape, Conv2d) {
    let reach = |axis: usize| (conv.kernel[axis] - 1) * conv.dilation[axis];
    let over = Conv2d {
        in_channels: conv.in_channels,
        out_channels: conv.out_channels,
        kernel: conv.kernel,
        stride: [1; 2],
        padding: [0; 2],
        dilation: conv.dilation,
        groups: conv.groups,
        bias: conv.bias,
    };
    (Shape { c: conv.in_channels, h: out.h + reach(0), w: out.w + reach(1) }, over)
}

impl TransposedKernel {
    /// With weights `[in, out / groups, kh, kw]` and bias `[out]`.
    pub(crate) fn new(
        isa: Isa,
        conv: &ConvTranspose2d,
        [input, out]: [Shape; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let (spread, over) = spread(conv, out);
        let weight = turned(conv, weight);
        let front = [0, 1]
            .map(|axis| ((conv.kernel[axis] - 1) * conv.dilation[axis]) as isize - conv.padding[axis][0] as isize);
        let convolution = OpKernel::convolution(isa, &over, [spread, out], &weight, bias);
        Self { convolution, stride: conv.stride, front, input, spread }
    }

    /// As [`OpKernel::run`].
    pub(crate) fn run(&self, x: &[f32], tail: Tail, out: &mut [f32], scratch: &mut Scratch) {
        let lanes = self.convolution.lanes();
        let pixel = self.input.c * lanes;
        let mut image = std::mem::take(&mut scratch.spread);
        image.grow(self.spread.len() * lanes);
        let values = &mut image[..self.spread.len() * lanes];
        values.fill(0.0);
        let place = |axis: usize, at: usize, n: usize| {
            usize::try_from((at * self.stride[axis]) as isize + self.front[axis]).ok().filter(|&at| at < n)
        };
        for (row, x) in x.chunks_exact(self.input.w * pixel).enumerate() {
            let Some(row) = place(0, row, self.spread.h) else { continue };
            for (col, x) in x.chunks_exact(pixel).enumerate() {
                let Some(col) = place(1, col, self.spread.w) else { continue };
                values[(row * self.spread.w + col) * pixel..][..pixel].copy_from_slice(x);
            }
        }
        self.convolution.run(&|_| &*values, tail, out, scratch);
        scratch.spread = image;
    }
}

/// The weights of the convolution, `[out, in / groups, kh, kw]`: taps in the other order.
fn turned(conv: &ConvTranspose2d, weight: &[f32]) -> Vec<f32> {
    let [n_in, per_group, kh, kw] = conv.weight_shape();
    let in_group = n_in / conv.groups;
    let mut out = Vec::with_capacity(weight.len());
    for (o, i) in (0..conv.out_channels).flat_map(|o| (0..in_group).map(move |i| (o, i))) {
        let from = (o / per_group * in_group + i) * per_group + o % per_group;
        out.extend(weight[from * kh * kw..][..kh * kw].iter().rev());
    }
    out
}
