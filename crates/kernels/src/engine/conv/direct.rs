//! Direct convolution of a group of images on register tiles. Taps outside the image are skipped, so there is no padded
//! copy.
#![allow(unsafe_code)]

use std::ops::Range;

use secateur_net::{Conv2d, Shape};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::tile::{Finish, TileJob};
use crate::engine::conv::tiling::{PixelRun, channel_blocks, pixel_runs, runs_bytes};
use crate::simd::aligned::AlignedVec;

/// Weights up to this many values stay in the first-level cache while all rows pass.
const RESIDENT: usize = 6 << 10;

/// What is added to and done with the sums before they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    /// Added to the output, same layout.
    pub residual: Option<&'a [f32]>,
    /// Smallest and largest output.
    pub clamp: [f32; 2],
}

impl Epilogue<'_> {
    /// The same for the values `part` of the output alone.
    pub(crate) fn part(&self, part: Range<usize>) -> Self {
        Self { residual: self.residual.map(|r| &r[part]), clamp: self.clamp }
    }
    /// The same for output from `at` on.
    pub(crate) fn from(&self, at: usize) -> Finish {
        let residual = self.residual.map_or(std::ptr::null(), |r| r[at..].as_ptr());
        Finish { residual, clamp: self.clamp }
    }
}

/// A convolution (any kernel, stride, padding, dilation, groups) with its weights packed for one arithmetic.
#[derive(Clone, Debug)]
pub(crate) struct ConvKernel {
    conv: Conv2d,
    shapes: [Shape; 2],
    arithmetic: Arithmetic,
    /// Rows and columns of taps inside the image, for every output row and column.
    valid: [Vec<Range<usize>>; 2],
    /// Output rows and columns all of whose taps are inside.
    inner: [Range<usize>; 2],
    blocks: Vec<ChannelBlock>,
    weights: AlignedVec,
    bias: Vec<f32>,
}

/// Output channels computed together; offsets in words.
#[derive(Clone, Debug)]
struct ChannelBlock {
    n_channels: usize,
    first_input: usize,
    first_output: usize,
    weights_at: usize,
    /// Down the inner rows of a column, along the inner columns of a row, one pixel.
    inner: [Vec<PixelRun>; 2],
    single: PixelRun,
}

/// Some rows of the output.
struct OutputRows<'a> {
    first_row: usize,
    epilogue: Epilogue<'a>,
    out: &'a mut [f32],
}

/// For every output index along one axis, the taps that lie inside the input.
pub(crate) fn valid_taps(conv: &Conv2d, axis: usize, n_in: usize, n_out: usize) -> Vec<Range<usize>> {
    taps_inside(conv, axis, n_in, n_out).collect()
}

/// As [`valid_taps`], one after the other.
pub(crate) fn taps_inside(conv: &Conv2d, axis: usize, n_in: usize, n_out: usize) -> impl Iterator<Item = Range<usize>> {
    let (stride, padding, dilation) = (conv.stride[axis], conv.padding[axis], conv.dilation[axis]);
    let kernel = conv.kernel[axis];
    (0..n_out).map(move |o| {
        let start = padding.saturating_sub(o * stride).div_ceil(dilation);
        let end = n_in.saturating_add(padding).saturating_sub(o * stride).div_ceil(dilation).min(kernel);
        start.min(end)..end
    })
}

/// The longest stretch of outputs that have all `kernel` taps.
pub(crate) fn inner_outputs(valid: impl IntoIterator<Item = Range<usize>>, kernel: usize) -> Range<usize> {
    let mut whole = valid.into_iter().map(|taps| taps.len() == kernel);
    let Some(start) = whole.position(|is_whole| is_whole) else { return 0..0 };
    start..start + 1 + whole.take_while(|&is_whole| is_whole).count()
}

impl ConvKernel {
    /// Packs `weight` `[out, in / groups, kh, kw]` and `bias` `[out]`.
    pub(crate) fn new(
        arithmetic: impl Into<Arithmetic>,
        conv: &Conv2d,
        shapes: [Shape; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let arithmetic = arithmetic.into();
        let [input, output] = shapes;
        let in_group = conv.in_channels / conv.groups;
        let out_group = conv.out_channels / conv.groups;
        let valid = [valid_taps(conv, 0, input.h, output.h), valid_taps(conv, 1, input.w, output.w)];
        let inner = [0, 1].map(|axis| inner_outputs(valid[axis].iter().cloned(), conv.kernel[axis]));
        let sizes = channel_blocks(arithmetic, out_group, inner[1].len().max(1));
        let mut blocks = Vec::with_capacity(conv.groups * sizes.len());
        let in_words = arithmetic.words(in_group);
        for group in 0..conv.groups {
            let mut first_output = group * out_group;
            for &n_channels in &sizes {
                let weights_at = first_output * in_words * taps(conv);
                let runs = |n: usize| pixel_runs(arithmetic, n_channels, n).0;
                blocks.push(ChannelBlock {
                    n_channels,
                    first_input: group * in_words,
                    first_output,
                    weights_at,
                    inner: [0, 1].map(|axis| runs(inner[axis].len())),
                    single: runs(1)[0],
                });
                first_output += n_channels;
            }
        }
        let weights = AlignedVec::zeros(conv.out_channels * in_words * taps(conv));
        let bias_zeros = vec![0.0; conv.out_channels];
        let mut kernel =
            Self { conv: conv.clone(), shapes, arithmetic, valid, inner, blocks, weights, bias: bias_zeros };
        kernel.set_weights(weight, bias);
        kernel
    }

    /// Packs other weights and another bias, of the same shapes; allocates nothing.
    pub(crate) fn set_weights(&mut self, weight: &[f32], bias: Option<&[f32]>) {
        let in_group = self.conv.in_channels / self.conv.groups;
        let n_taps = taps(&self.conv);
        assert_eq!(weight.len(), self.conv.out_channels * in_group * n_taps, "convolution weight length");
        for block in &self.blocks {
            let filters = &weight[block.first_output * in_group * n_taps..][..block.n_channels * in_group * n_taps];
            let to = &mut self.weights[block.weights_at..];
            self.arithmetic.pack_filters(filters, [in_group, n_taps], block.n_channels, to);
        }
        set_bias(&mut self.bias, bias);
    }

    /// Bytes that [`Self::new`] allocates; it builds nothing as large.
    pub(crate) fn bytes(arithmetic: Arithmetic, conv: &Conv2d, [input, output]: [Shape; 2]) -> u64 {
        let [in_group, out_group] = [conv.in_channels, conv.out_channels].map(|c| c / conv.groups);
        let n_weights = [arithmetic.words(in_group), conv.kernel[0], conv.kernel[1]];
        let n_weights = n_weights.iter().fold(conv.out_channels as u64, |n, &factor| n.saturating_mul(factor as u64));
        let inner = [(0, input.h, output.h), (1, input.w, output.w)]
            .map(|(axis, n_in, n_out)| inner_outputs(taps_inside(conv, axis, n_in, n_out), conv.kernel[axis]).len());
        let runs = |c: usize| inner.iter().map(|&n| runs_bytes(arithmetic, c, n)).sum::<u64>();
        let sizes = channel_blocks(arithmetic, out_group, inner[1].max(1));
        let blocks: u64 = sizes.iter().map(|&c| size_of::<ChannelBlock>() as u64 + runs(c)).sum();
        let tables = size_of::<Range<usize>>() as u64 * (output.h + output.w) as u64;
        AlignedVec::bytes(n_weights) + 4 * conv.out_channels as u64 + tables + blocks * conv.groups as u64
    }

    /// Convolves one group of images `[H, W, words, LANES]`.
    pub(crate) fn run(&self, x: &[f32], epilogue: Epilogue, out: &mut [f32]) {
        self.run_rows(x, 0..self.shapes[1].h, epilogue, out);
    }

    /// Computes the output rows `rows`; `out` and the residual are theirs alone.
    pub(crate) fn run_rows(&self, x: &[f32], rows: Range<usize>, epilogue: Epilogue, out: &mut [f32]) {
        let [input, output] = self.shapes;
        let row_len = output.w * self.arithmetic.words(output.c) * self.arithmetic.lanes();
        assert!(rows.end <= output.h, "convolution output rows");
        assert_eq!(x.len(), self.arithmetic.group_words(input), "convolution input length");
        assert_eq!(out.len(), rows.len() * row_len, "convolution output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        // Columns at the edge are tiled downwards where all rows with all taps are there, for which they were cut.
        let is_column_whole = rows.start <= self.inner[0].start && self.inner[0].end <= rows.end;
        let mut part = OutputRows { first_row: rows.start, epilogue, out };
        // Light weights: all channels row by row, the rows of the input are read once. Heavy ones: block by block.
        let rows_at_a_time = if self.weights.len() <= RESIDENT { 1 } else { output.h };
        for first in rows.clone().step_by(rows_at_a_time) {
            for block in &self.blocks {
                for row in first..(first + rows_at_a_time).min(rows.end) {
                    if !(is_column_whole && self.inner[0].contains(&row)) {
                        self.run_edge_pixels(block, row, x, &mut part);
                    }
                    if !self.inner[1].is_empty() {
                        self.run_pixels(block, [row, self.inner[1].start], (&block.inner[1], 1), x, &mut part);
                    }
                }
            }
        }
        if is_column_whole && !self.inner[0].is_empty() {
            for block in &self.blocks {
                for column in self.edge_columns() {
                    let (at, runs) = ([self.inner[0].start, column], &block.inner[0]);
                    self.run_pixels(block, at, (runs, 0), x, &mut part);
                }
            }
        }
    }

    fn edge_columns(&self) -> impl Iterator<Item = usize> {
        (0..self.inner[1].start).chain(self.inner[1].end..self.shapes[1].w)
    }

    /// The pixels of a row that lack taps beside the image, one by one.
    fn run_edge_pixels(&self, block: &ChannelBlock, row: usize, x: &[f32], part: &mut OutputRows<'_>) {
        let single = std::slice::from_ref(&block.single);
        for column in self.edge_columns() {
            self.run_pixels(block, [row, column], (single, 1), x, part);
        }
    }

    /// Computes the `runs` of output pixels from `at` on down a column (axis 0) or along a row (1), all of which have
    /// the same taps inside the image.
    fn run_pixels(
        &self,
        block: &ChannelBlock,
        at: [usize; 2],
        (runs, axis): (&[PixelRun], usize),
        x: &[f32],
        part: &mut OutputRows<'_>,
    ) {
        let (conv, [input, output], lanes) = (&self.conv, &self.shapes, self.arithmetic.lanes());
        let [in_words, out_words] = [input, output].map(|s| self.arithmetic.words(s.c) * lanes);
        let [rows, columns] = [self.valid[0][at[0]].clone(), self.valid[1][at[1]].clone()];
        let n_in = self.arithmetic.words(conv.in_channels / conv.groups);
        let has_taps = !rows.is_empty() && !columns.is_empty();
        let weights = block.weights_at + (rows.start * conv.kernel[1] + columns.start) * n_in * block.n_channels;
        let tap =
            |axis: usize, first: usize| at[axis] * conv.stride[axis] + first * conv.dilation[axis] - conv.padding[axis];
        let pixel = if has_taps { tap(0, rows.start) * input.w + tap(1, columns.start) } else { 0 };
        let row_step = input.w * conv.dilation[0] * in_words;
        let in_step = conv.stride[axis] * [input.w, 1][axis] * in_words;
        let out_step = [output.w, 1][axis] * out_words;
        for run in runs {
            let first_output = self.arithmetic.words(block.first_output) * lanes;
            let to = ((at[0] - part.first_row) * output.w + at[1]) * out_words + run.start * out_step + first_output;
            let from = pixel * in_words + run.start * in_step + block.first_input * lanes;
            let job = TileJob {
                x: if has_taps { x[from..].as_ptr() } else { x.as_ptr() },
                pixel_step: in_step,
                taps: if has_taps { [rows.len(), columns.len()] } else { [0, 0] },
                tap_steps: [row_step, conv.dilation[1] * in_words],
                n_in,
                weights: if has_taps { self.weights[weights..].as_ptr() } else { self.weights.as_ptr() },
                weights_step: conv.kernel[1] * n_in * block.n_channels,
                bias: self.bias[block.first_output..].as_ptr(),
                out: part.out[to..].as_mut_ptr(),
                out_step,
                finish: Some(part.epilogue.from(to)),
            };
            // SAFETY: the instructions were checked when the kernel was made. `valid_taps` names only taps inside `x`,
            // whose length, like that of `out` and the residual, is asserted in `run_rows`; runs stay within the part's
            // rows and the pixels that have these taps; each block writes its own channels, and weights and bias were
            // packed for it; `out` is borrowed exclusively.
            unsafe { (run.run)(&job, run.n_tiles) }
        }
    }
}

/// `bias`, or zeros where there is none.
pub(crate) fn set_bias(to: &mut [f32], bias: Option<&[f32]>) {
    match bias {
        Some(bias) => to.copy_from_slice(bias),
        None => to.fill(0.0),
    }
}

const fn taps(conv: &Conv2d) -> usize {
    conv.kernel[0] * conv.kernel[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_taps_are_those_inside_the_input() {
        let conv = Conv2d { stride: [2, 1], padding: [1, 3], dilation: [1, 2], ..Conv2d::square(1, 1, 3, 1, 1) };
        for (axis, n_in) in [(0, 7), (1, 4), (1, 1)] {
            let reach = conv.dilation[axis] * 2 + 1;
            let n_out = (n_in + 2 * conv.padding[axis] - reach) / conv.stride[axis] + 1;
            for (o, taps) in valid_taps(&conv, axis, n_in, n_out).into_iter().enumerate() {
                let inside = |k: &usize| {
                    let at = (o * conv.stride[axis] + k * conv.dilation[axis]).checked_sub(conv.padding[axis]);
                    at.is_some_and(|at| at < n_in)
                };
                let expected: Vec<usize> = (0..3).filter(inside).collect();
                assert_eq!(taps.collect::<Vec<_>>(), expected, "axis {axis}, output {o}");
            }
        }
    }
}
