//! The gradient of a convolution's input: convolutions of its output's gradient with turned weights, one for every
//! remainder that a pixel's row and column leave when divided by the stride.

use secateur_net::{Conv2d, Shape};

use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// Gives the gradient of one convolution's input.
#[derive(Debug)]
pub(crate) struct InputGradient {
    conv: Conv2d,
    input: Shape,
    lanes: usize,
    parts: Vec<RemainderPart>,
}

/// What comes back to a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassedBack<'a> {
    /// Gradient of its output.
    pub g: &'a [f32],
    /// What other readers of its input have added to the input's gradient.
    pub previous: Option<&'a [f32]>,
}

/// Working memory.
#[derive(Debug, Default)]
pub(crate) struct GradientScratch {
    /// Of the kernels.
    pub kernel: Scratch,
    /// Pixels of one remainder.
    part: AlignedVec,
}

/// The pixels whose rows and columns leave certain remainders.
#[derive(Debug)]
struct RemainderPart {
    /// First row and column.
    first: [usize; 2],
    shape: Shape,
    /// `None` where no tap reaches.
    turned: Option<Turned>,
}

#[derive(Debug)]
struct Turned {
    kernel: OpKernel,
    /// Taps of the convolution along each axis, in the order of this one's; `None` for taps that stand in for padding
    /// that would be negative.
    taps: [Vec<Option<usize>>; 2],
    /// `[in, out / groups, taps]`
    weight: Vec<f32>,
}

/// The taps that reach the pixels of one remainder along an axis.
struct AxisTaps {
    taps: Vec<Option<usize>>,
    padding: usize,
    dilation: usize,
}

impl InputGradient {
    /// Of `conv` between these shapes; weights come with [`Self::set_weights`].
    pub(crate) fn new(isa: Isa, conv: &Conv2d, [input, output]: [Shape; 2]) -> Self {
        let mut parts = Vec::with_capacity(conv.stride[0] * conv.stride[1]);
        for row in 0..conv.stride[0].min(input.h) {
            for column in 0..conv.stride[1].min(input.w) {
                let shape = Shape {
                    c: input.c,
                    h: (input.h - row).div_ceil(conv.stride[0]),
                    w: (input.w - column).div_ceil(conv.stride[1]),
                };
                let turned = Turned::new(isa, conv, [row, column], [output, shape]);
                parts.push(RemainderPart { first: [row, column], shape, turned });
            }
        }
        Self { conv: conv.clone(), input, lanes: isa.lanes(), parts }
    }

    /// Takes the convolution's weights `[out, in / groups, kh, kw]`; allocates nothing.
    pub(crate) fn set_weights(&mut self, weight: &[f32]) {
        for turned in self.parts.iter_mut().filter_map(|part| part.turned.as_mut()) {
            turned.set_weights(&self.conv, weight);
        }
    }

    /// Writes to `out` the gradient of one group's input, given that of its output, `g`, and what other readers of the
    /// input have added before, `previous`.
    pub(crate) fn run(
        &self,
        PassedBack { g, previous }: PassedBack<'_>,
        out: &mut [f32],
        scratch: &mut GradientScratch,
    ) {
        if let [RemainderPart { turned: Some(turned), .. }] = &self.parts[..] {
            let tail = Tail { residual: previous, activation: None };
            return turned.kernel.run(&|_| g, tail, out, &mut scratch.kernel);
        }
        match previous {
            Some(previous) => out.copy_from_slice(previous),
            None => out.fill(0.0),
        }
        let pixel_len = self.input.c * self.lanes;
        for RemainderPart { first, shape, turned } in &self.parts {
            let Some(turned) = turned else { continue };
            scratch.part.grow(shape.len() * self.lanes);
            let values = &mut scratch.part[..shape.len() * self.lanes];
            turned.kernel.run(&|_| g, Tail::default(), values, &mut scratch.kernel);
            for (at, from) in values.chunks_exact(pixel_len).enumerate() {
                let row = first[0] + at / shape.w * self.conv.stride[0];
                let column = first[1] + at % shape.w * self.conv.stride[1];
                let to = &mut out[(row * self.input.w + column) * pixel_len..][..pixel_len];
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    }
}

impl Turned {
    /// Of the pixels that leave `remainders`; `output` is the shape of the convolution's output, `part` that of these
    /// pixels.
    fn new(isa: Isa, conv: &Conv2d, remainders: [usize; 2], [output, part]: [Shape; 2]) -> Option<Self> {
        let [rows, columns] = [axis_taps(conv, 0, remainders[0])?, axis_taps(conv, 1, remainders[1])?];
        let over = Conv2d {
            in_channels: conv.out_channels,
            out_channels: conv.in_channels,
            kernel: [rows.taps.len(), columns.taps.len()],
            stride: [1; 2],
            padding: [rows.padding, columns.padding],
            dilation: [rows.dilation, columns.dilation],
            groups: conv.groups,
            bias: false,
        };
        let weight = vec![0.0; conv.in_channels * (conv.out_channels / conv.groups) * over.kernel[0] * over.kernel[1]];
        let kernel = OpKernel::convolution(isa, &over, [output, part], &weight, None);
        Some(Self { kernel, taps: [rows.taps, columns.taps], weight })
    }

    fn set_weights(&mut self, conv: &Conv2d, weight: &[f32]) {
        let [in_group, out_group] = [conv.in_channels, conv.out_channels].map(|n| n / conv.groups);
        let n_taps = conv.kernel[0] * conv.kernel[1];
        let mut to = self.weight.iter_mut();
        for (input, output) in (0..conv.in_channels).flat_map(|i| (0..out_group).map(move |o| (i, o))) {
            let filter = input / in_group * out_group + output;
            let from = &weight[(filter * in_group + input % in_group) * n_taps..][..n_taps];
            for row in &self.taps[0] {
                for (column, to) in self.taps[1].iter().zip(&mut to) {
                    *to = match (row, column) {
                        (Some(row), Some(column)) => from[row * conv.kernel[1] + column],
                        _ => 0.0,
                    };
                }
            }
        }
        self.kernel.set_weights(&self.weight, None);
    }
}

/// Pixel `remainder + stride * i` is read by output `i + (remainder + padding - tap * dilation) / stride` where that is
/// a whole number: taps a fixed number apart, whose outputs are a fixed number apart, too.
fn axis_taps(conv: &Conv2d, axis: usize, remainder: usize) -> Option<AxisTaps> {
    let (stride, dilation) = (conv.stride[axis] as isize, conv.dilation[axis] as isize);
    let offset = |tap: usize| (remainder + conv.padding[axis]) as isize - tap as isize * dilation;
    let mut taps: Vec<Option<usize>> =
        (0..conv.kernel[axis]).rev().filter(|&tap| offset(tap) % stride == 0).map(Some).collect();
    let first = offset(taps.first().copied().flatten()?) / stride;
    let apart = match taps[..] {
        [Some(a), Some(b), ..] => (offset(b) - offset(a)) / stride,
        _ => 1,
    };
    // More padding in front of the output than the convolution has reach: taps that see nothing.
    while first > apart * (taps.len() as isize - taps.iter().flatten().count() as isize) {
        taps.insert(0, None);
    }
    let n_added = (taps.len() - taps.iter().flatten().count()) as isize;
    let padding = usize::try_from(apart * n_added - first).expect("as many taps were added as are needed");
    Some(AxisTaps { taps, padding, dilation: apart as usize })
}
