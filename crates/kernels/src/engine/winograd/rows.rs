//! 3x3 convolution with stride 1 by minimal filtering along rows alone, F(4, 3): half of the multiplications, for
//! transforms that take a third of those of square tiles. In bf16, where multiplications are cheap, this is best for
//! the narrow layers.
#![allow(unsafe_code)]

use std::ops::Range;

use secateur_net::{Conv2d, Shape};

use super::filters::filter_line;
use super::geometry::{ROW_POINTS, TILE};
use super::jobs::{InputRowsFn, InputRowsJob, OutputRowsFn, OutputRowsJob};
use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::direct::Epilogue;
use crate::engine::conv::tile::TileJob;
use crate::engine::conv::tiling::{PixelRun, channel_blocks, pixel_runs, runs_bytes};
use crate::simd::aligned::AlignedVec;
use crate::simd::pairs::pair;

/// Output rows that are computed together, for their values to stay in the nearer caches.
const STRIP: usize = 16;

/// A 3x3 convolution in bf16 with stride 1 and no groups, its weights transformed along their rows.
#[derive(Clone, Debug)]
pub(crate) struct WinogradRowsKernel {
    shapes: [Shape; 2],
    padding: [usize; 2],
    /// From one point to the next: of all rows of transformed inputs, of a strip's sums of a block. One vector more
    /// than they hold, since points a power of two apart would all fall into the same few lines of the cache.
    point_steps: [usize; 2],
    blocks: Vec<RowBlock>,
    /// `[ROW_POINTS, blocks, rows of taps, in words, block's channels]`
    weights: AlignedVec,
    bias: Vec<f32>,
    zeros: AlignedVec,
}

/// Output channels computed together.
#[derive(Clone, Debug)]
struct RowBlock {
    n_channels: usize,
    first_output: usize,
    weights_at: usize,
    /// By number of rows less one: how they are cut.
    runs: Vec<Vec<PixelRun>>,
}

/// Transformed inputs and outputs of some tiles.
#[derive(Debug, Default)]
pub(crate) struct WinogradRowsScratch {
    inputs: AlignedVec,
    sums: AlignedVec,
}

#[cfg(target_arch = "x86_64")]
const TRANSFORMS: (InputRowsFn, OutputRowsFn) =
    (super::transform_bf16::transform_input_rows, super::transform_bf16::transform_output_rows);
#[cfg(not(target_arch = "x86_64"))]
const TRANSFORMS: (InputRowsFn, OutputRowsFn) =
    (|_| unreachable!("no plan is made in bf16"), |_| unreachable!("no plan is made in bf16"));

const BF16: Arithmetic = Arithmetic::Bf16;
const LANES: usize = BF16.lanes();

/// Of transformed inputs of `n_words` and of sums of a block of `widest` channels.
const fn point_steps(n_rows: usize, [n_words, widest]: [usize; 2], out_rows: usize) -> [usize; 2] {
    [((out_rows + 2) * n_words + 1) * LANES, (n_rows * widest + 1) * LANES]
}

impl WinogradRowsKernel {
    /// Transforms `weight` `[out, in, 3, 3]`; `bias` is `[out]`.
    pub(crate) fn new(conv: &Conv2d, shapes: [Shape; 2], weight: &[f32], bias: Option<&[f32]>) -> Self {
        let [input, output] = shapes;
        assert_eq!(weight.len(), output.c * input.c * 9, "convolution weight length");
        let n_rows = STRIP.min(output.h);
        let in_words = BF16.words(input.c);
        let mut weights = AlignedVec::zeros(ROW_POINTS * output.c * in_words * 3);
        let sizes = channel_blocks(BF16, output.c, n_rows);
        let mut blocks = Vec::with_capacity(sizes.len());
        let mut first_output = 0;
        for n_channels in sizes {
            let weights_at = first_output * in_words * 3;
            let filters = &weight[first_output * input.c * 9..][..n_channels * input.c * 9];
            pack_transformed(filters, [input.c, n_channels], output.c * in_words * 3, &mut weights[weights_at..]);
            let runs = (1..=n_rows).map(|n| pixel_runs(BF16, n_channels, n).0).collect();
            blocks.push(RowBlock { n_channels, first_output, weights_at, runs });
            first_output += n_channels;
        }
        let widest = blocks.iter().map(|block: &RowBlock| block.n_channels).max().unwrap_or(0);
        Self {
            shapes,
            padding: conv.padding,
            point_steps: point_steps(n_rows, [in_words, widest], output.h),
            blocks,
            weights,
            bias: bias.map_or_else(|| vec![0.0; output.c], <[f32]>::to_vec),
            zeros: AlignedVec::zeros(input.c.max(output.c) * LANES),
        }
    }

    /// Bytes that [`Self::new`] allocates, and those of the working memory of [`Self::run`].
    pub(crate) fn bytes([input, output]: [Shape; 2]) -> [u64; 2] {
        let (n_rows, in_words) = (STRIP.min(output.h), BF16.words(input.c));
        let runs = |c: usize| (1..=n_rows).map(move |n| runs_bytes(BF16, c, n) + size_of::<Vec<PixelRun>>() as u64);
        let sizes = channel_blocks(BF16, output.c, n_rows);
        let blocks: u64 = sizes.iter().map(|&c| size_of::<RowBlock>() as u64 + runs(c).sum::<u64>()).sum();
        let aligned = |n: usize| AlignedVec::bytes(n as u64);
        let weights = AlignedVec::bytes((ROW_POINTS as u64 * 3 * output.c as u64).saturating_mul(in_words as u64));
        let zeros = aligned(input.c.max(output.c) * LANES);
        let widest = sizes.iter().copied().max().unwrap_or(0);
        let scratch = point_steps(n_rows, [in_words, widest], output.h).map(|step| aligned(ROW_POINTS * step));
        [weights + zeros + 4 * output.c as u64 + blocks, scratch[0] + scratch[1]]
    }

    /// Convolves one group of images `[H, W, words, LANES]`.
    pub(crate) fn run(&self, x: &[f32], epilogue: Epilogue, out: &mut [f32], scratch: &mut WinogradRowsScratch) {
        let [input, output] = self.shapes;
        assert_eq!(x.len(), BF16.group_words(input), "convolution input length");
        assert_eq!(out.len(), BF16.group_words(output), "convolution output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        let [input_step, sum_step] = self.point_steps;
        scratch.inputs.grow(ROW_POINTS * input_step);
        scratch.sums.grow(ROW_POINTS * sum_step);
        for column in (0..output.w).step_by(TILE) {
            let columns = column..(column + TILE).min(output.w);
            let mut n_transformed = 0;
            for first in (0..output.h).step_by(STRIP) {
                let rows = first..(first + STRIP).min(output.h);
                self.transform_input(column, n_transformed..rows.end + 2, x, &mut scratch.inputs);
                n_transformed = rows.end + 2;
                for block in &self.blocks {
                    self.multiply(block, &rows, &scratch.inputs, &mut scratch.sums);
                    self.transform_output(block, [&rows, &columns], &scratch.sums, epilogue, out);
                }
            }
        }
    }

    /// Transforms the rows `rows`, counted from the first of the padding, under the tiles that begin at output column
    /// `column`.
    fn transform_input(&self, column: usize, rows: Range<usize>, x: &[f32], inputs: &mut AlignedVec) {
        let [top, bottom] = [self.padding[0], self.padding[0] + self.shapes[0].h];
        self.transform_rows(column, rows.start..rows.end.min(top), None, inputs);
        self.transform_rows(column, rows.start.max(top)..rows.end.min(bottom), Some(x), inputs);
        self.transform_rows(column, rows.start.max(bottom)..rows.end, None, inputs);
    }

    /// Transforms rows all of which are inside the image, or in its padding when there is no `x`.
    fn transform_rows(&self, column: usize, rows: Range<usize>, x: Option<&[f32]>, inputs: &mut AlignedVec) {
        if rows.is_empty() {
            return;
        }
        let input = &self.shapes[0];
        let n_words = BF16.words(input.c);
        let pixel_len = n_words * LANES;
        let inside = |point: usize| {
            let column = (column + point).wrapping_sub(self.padding[1]);
            x.filter(|_| column < input.w).map(|x| {
                let first = (rows.start - self.padding[0]) * input.w + column;
                let last = first + (rows.len() - 1) * input.w;
                x[first * pixel_len..(last + 1) * pixel_len].as_ptr()
            })
        };
        let inside: [_; ROW_POINTS] = std::array::from_fn(inside);
        let step = self.point_steps[0];
        let into = &mut inputs[rows.start * pixel_len..];
        assert!((ROW_POINTS - 1) * step + rows.len() * pixel_len <= into.len(), "transformed inputs");
        let job = InputRowsJob {
            pixels: inside.map(|pixel| pixel.unwrap_or(self.zeros.as_ptr())),
            row_steps: inside.map(|pixel| if pixel.is_some() { input.w * pixel_len } else { 0 }),
            n_rows: rows.len(),
            n_words,
            out: into.as_mut_ptr(),
            point_step: step,
        };
        // SAFETY: the instructions were checked before the kernel was made; every pixel is a slice up to the last
        // row's, or `zeros`, which holds a pixel's words; the last point's rows end inside `into` (asserted).
        unsafe { (TRANSFORMS.0)(&job) }
    }

    /// Sums of a block's channels of the output rows `rows`, `[ROW_POINTS, rows, channels, LANES]`.
    fn multiply(&self, block: &RowBlock, rows: &Range<usize>, inputs: &AlignedVec, sums: &mut AlignedVec) {
        let [input, output] = &self.shapes;
        let n_words = BF16.words(input.c);
        let steps = self.point_steps;
        assert!(steps[0] * ROW_POINTS <= inputs.len() && steps[1] * ROW_POINTS <= sums.len(), "transformed values");
        for point in 0..ROW_POINTS {
            for run in &block.runs[rows.len() - 1] {
                let job = TileJob {
                    x: inputs[point * steps[0] + (rows.start + run.start) * n_words * LANES..].as_ptr(),
                    pixel_step: n_words * LANES,
                    // A pixel's words and those of the two pixels below it follow each other.
                    taps: [1, 1],
                    tap_steps: [0, 0],
                    n_in: 3 * n_words,
                    weights: self.weights[point * n_words * output.c * 3 + block.weights_at..].as_ptr(),
                    weights_step: 0,
                    // The first and the last point hold the bias.
                    bias: if point % (ROW_POINTS - 1) == 0 {
                        self.bias[block.first_output..].as_ptr()
                    } else {
                        self.zeros.as_ptr()
                    },
                    out: sums[point * steps[1] + run.start * block.n_channels * LANES..].as_mut_ptr(),
                    out_step: block.n_channels * LANES,
                    finish: None,
                };
                // SAFETY: the instructions were checked before the kernel was made. A run's rows are among `rows`, and
                // those and the two below them are among the `output.h + 2` of a point (lengths asserted above);
                // weights were packed for the block; `zeros` holds at least as many values as there are output
                // channels; `sums` is borrowed exclusively, a point of it holds the channels of the widest block in as
                // many rows as a strip has.
                unsafe { (run.run)(&job, run.n_tiles) }
            }
        }
    }

    fn transform_output(
        &self,
        block: &RowBlock,
        [rows, columns]: [&Range<usize>; 2],
        sums: &AlignedVec,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        let output = &self.shapes[1];
        let pixel_len = BF16.words(output.c) * LANES;
        let step = self.point_steps[1];
        assert!((ROW_POINTS - 1) * step + rows.len() * block.n_channels * LANES <= sums.len(), "transformed sums");
        let to = (rows.start * output.w + columns.start) * pixel_len + BF16.words(block.first_output) * LANES;
        let job = OutputRowsJob {
            sums: sums.as_ptr(),
            point_step: step,
            n_rows: rows.len(),
            n_columns: columns.len(),
            n_channels: block.n_channels,
            bias: self.bias[block.first_output..].as_ptr(),
            out: out[to..].as_mut_ptr(),
            pixel_step: pixel_len,
            row_step: output.w * pixel_len,
            finish: epilogue.from(to),
        };
        // SAFETY: the instructions were checked before the kernel was made; the last point's rows end inside `sums`
        // (asserted); `rows` and `columns` are pixels of `out`, whose length, like the residual's, is asserted in
        // `run`; bias and every pixel hold the block's channels, which begin at a whole word.
        unsafe { (TRANSFORMS.1)(&job) }
    }
}

/// Transforms filters `[filters, n_in, 3, 3]` and writes them as words `[ROW_POINTS, 3, in words, filters]`, points
/// `point_step` words apart.
fn pack_transformed(filters: &[f32], [n_in, n_filters]: [usize; 2], point_step: usize, packed: &mut [f32]) {
    let n_words = n_in.div_ceil(2);
    let line = |filter: usize, i: usize, row: usize| {
        let taps = |taps: &[f32]| filter_line([0, 1, 2].map(|t| [f64::from(taps[t])]).each_ref(), BF16.finite_points());
        if i < n_in { taps(&filters[(filter * n_in + i) * 9 + row * 3..][..3]) } else { [[0.0]; ROW_POINTS] }
    };
    for filter in 0..n_filters {
        for (word, row) in (0..n_words).flat_map(|word| (0..3).map(move |row| (word, row))) {
            let [even, odd] = [2 * word, 2 * word + 1].map(|i| line(filter, i, row));
            for point in 0..ROW_POINTS {
                packed[point * point_step + (row * n_words + word) * n_filters + filter] =
                    pair(even[point][0] as f32, odd[point][0] as f32);
            }
        }
    }
}
