//! 3x3 convolution with stride 1 by minimal filtering, F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144
//! (Winograd 1980; Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.3).
#![allow(unsafe_code)]

use std::ops::Range;

use secateur_net::{Conv2d, Shape};

use super::filters::{FILTERS, FilterTransform};
use super::geometry::{POINTS, TILE};
use super::jobs::{InputJob, OutputJob};
use super::transforms::Transforms;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::direct::{Epilogue, set_bias};
use crate::engine::conv::tile::TileJob;
use crate::engine::conv::tiling::{PixelRun, channel_blocks, pixel_runs, runs_bytes};
use crate::simd::aligned::AlignedVec;

/// Tiles transformed together, so that the transformed weights are read once for all of them.
const TILES: usize = 4;

/// A 3x3 convolution with stride 1 and no groups, its weights transformed for one arithmetic.
#[derive(Clone, Debug)]
pub(crate) struct WinogradKernel {
    shapes: [Shape; 2],
    padding: [usize; 2],
    arithmetic: Arithmetic,
    /// Tiles down and across.
    n_tiles: [usize; 2],
    /// Tiles transformed together.
    tiles: usize,
    blocks: Vec<TileBlock>,
    /// `[POINTS, blocks, in words, block's channels]`
    weights: AlignedVec,
    bias: Vec<f32>,
    zeros: AlignedVec,
    transforms: Transforms,
}

/// Output channels computed together.
#[derive(Clone, Debug)]
struct TileBlock {
    first_output: usize,
    n_channels: usize,
    weights_at: usize,
    /// By number of tiles less one: how they are cut.
    runs: Vec<Vec<PixelRun>>,
}

/// Where a tile is.
#[derive(Clone, Copy, Debug)]
struct TilePlace {
    /// Its number in the image, row by row.
    tile: usize,
    /// Its number among those transformed together.
    at: usize,
}

/// Transformed inputs and outputs of some tiles.
#[derive(Debug, Default)]
pub(crate) struct WinogradScratch {
    inputs: AlignedVec,
    sums: AlignedVec,
}

impl WinogradScratch {
    /// Whether any kernel has worked with it.
    #[cfg(test)]
    pub(crate) fn is_used(&self) -> bool {
        !self.sums.is_empty()
    }
}

/// Values from one point to the next of `len` values each: one vector more, since points a power of two apart would all
/// fall into the same few lines of the cache.
const fn point_step(len: usize, lanes: usize) -> usize {
    len + lanes
}

impl WinogradKernel {
    /// Transforms `weight` `[out, in, 3, 3]`; `bias` is `[out]`.
    pub(crate) fn new(
        arithmetic: Arithmetic,
        conv: &Conv2d,
        shapes: [Shape; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let [input, output] = shapes;
        let n_tiles = [output.h.div_ceil(TILE), output.w.div_ceil(TILE)];
        let tiles = TILES.min(n_tiles[0] * n_tiles[1]);
        let sizes = channel_blocks(arithmetic, output.c, tiles);
        let in_words = arithmetic.words(input.c);
        let mut blocks = Vec::with_capacity(sizes.len());
        let mut first_output = 0;
        for n_channels in sizes {
            let weights_at = first_output * in_words;
            let runs = (1..=tiles).map(|n| pixel_runs(arithmetic, n_channels, n).0).collect();
            blocks.push(TileBlock { first_output, n_channels, weights_at, runs });
            first_output += n_channels;
        }
        let mut kernel = Self {
            shapes,
            padding: conv.padding,
            arithmetic,
            n_tiles,
            tiles,
            blocks,
            weights: AlignedVec::zeros(POINTS * output.c * in_words),
            bias: vec![0.0; output.c],
            zeros: AlignedVec::zeros(input.c.max(output.c) * arithmetic.lanes()),
            transforms: Transforms::of(arithmetic),
        };
        kernel.set_weights(weight, bias);
        kernel
    }

    /// Transforms other weights, and takes another bias, of the same shapes; allocates nothing.
    pub(crate) fn set_weights(&mut self, weight: &[f32], bias: Option<&[f32]>) {
        let [input, output] = self.shapes;
        assert_eq!(weight.len(), output.c * input.c * 9, "convolution weight length");
        let point_step = output.c * self.arithmetic.words(input.c);
        for block in &self.blocks {
            let filters = &weight[block.first_output * input.c * 9..][..block.n_channels * input.c * 9];
            let sizes = [input.c, block.n_channels];
            pack_transformed(self.arithmetic, filters, sizes, point_step, &mut self.weights[block.weights_at..]);
        }
        set_bias(&mut self.bias, bias);
    }

    /// Bytes that [`Self::new`] allocates, and those of the working memory of [`Self::run`].
    pub(crate) fn bytes(arithmetic: Arithmetic, [input, output]: [Shape; 2]) -> (u64, [u64; 2]) {
        let tiles = TILES.min(output.h.div_ceil(TILE) * output.w.div_ceil(TILE));
        let (in_words, lanes) = (arithmetic.words(input.c), arithmetic.lanes());
        let runs =
            |c: usize| (1..=tiles).map(move |n| runs_bytes(arithmetic, c, n) + size_of::<Vec<PixelRun>>() as u64);
        let blocks = channel_blocks(arithmetic, output.c, tiles);
        let blocks: u64 = blocks.iter().map(|&c| size_of::<TileBlock>() as u64 + runs(c).sum::<u64>()).sum();
        let aligned = |n: usize| AlignedVec::bytes(n as u64);
        let weights = AlignedVec::bytes((POINTS as u64 * output.c as u64).saturating_mul(in_words as u64));
        let zeros = aligned(input.c.max(output.c) * lanes);
        let scratch = [in_words, output.c].map(|c| aligned(POINTS * point_step(tiles * c * lanes, lanes)));
        (weights + zeros + 4 * output.c as u64 + blocks, scratch)
    }

    /// Convolves one group of images `[H, W, words, LANES]`.
    pub(crate) fn run(&self, x: &[f32], epilogue: Epilogue, out: &mut [f32], scratch: &mut WinogradScratch) {
        self.run_rows(x, 0..self.shapes[1].h, epilogue, out, scratch);
    }

    /// Computes the output rows `rows`, whose first is a multiple of `TILE`; `out` and the residual are theirs alone.
    pub(crate) fn run_rows(
        &self,
        x: &[f32],
        rows: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
        scratch: &mut WinogradScratch,
    ) {
        let [input, output] = self.shapes;
        let row_len = output.w * self.arithmetic.words(output.c) * self.arithmetic.lanes();
        assert!(rows.start.is_multiple_of(TILE) && rows.end <= output.h, "convolution output rows");
        assert_eq!(x.len(), self.arithmetic.group_words(input), "convolution input length");
        assert_eq!(out.len(), rows.len() * row_len, "convolution output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        let [input_step, sum_step] = self.point_steps();
        scratch.inputs.grow(POINTS * input_step);
        scratch.sums.grow(POINTS * sum_step);
        let all = rows.start / TILE * self.n_tiles[1]..rows.end.div_ceil(TILE) * self.n_tiles[1];
        for first in all.clone().step_by(self.tiles) {
            let tiles = first..(first + self.tiles).min(all.end);
            let place = |tile| TilePlace { tile, at: tile - first };
            tiles.clone().map(place).for_each(|tile| self.transform_input(tile, x, &mut scratch.inputs));
            self.multiply(tiles.len(), &scratch.inputs, &mut scratch.sums);
            for tile in tiles.map(place) {
                self.transform_output(tile, &scratch.sums, epilogue, &rows, out);
            }
        }
    }

    /// From one point to the next: of transformed inputs, of sums, which are f32 in every arithmetic.
    const fn point_steps(&self) -> [usize; 2] {
        let ([input, output], lanes) = (&self.shapes, self.arithmetic.lanes());
        let input_len = self.tiles * self.arithmetic.words(input.c) * lanes;
        [point_step(input_len, lanes), point_step(self.tiles * output.c * lanes, lanes)]
    }

    /// Top left output pixel of a tile.
    const fn corner(&self, tile: usize) -> [usize; 2] {
        [tile / self.n_tiles[1] * TILE, tile % self.n_tiles[1] * TILE]
    }

    fn transform_input(&self, TilePlace { tile, at }: TilePlace, x: &[f32], inputs: &mut AlignedVec) {
        let input = &self.shapes[0];
        let n_words = self.arithmetic.words(input.c);
        let pixel_len = n_words * self.arithmetic.lanes();
        let corner = self.corner(tile);
        let pixels = std::array::from_fn(|point| {
            let row = (corner[0] + point / 6).wrapping_sub(self.padding[0]);
            let column = (corner[1] + point % 6).wrapping_sub(self.padding[1]);
            let is_inside = row < input.h && column < input.w;
            let pixel = if is_inside { &x[(row * input.w + column) * pixel_len..] } else { &self.zeros[..] };
            pixel[..pixel_len].as_ptr()
        });
        let into = &mut inputs[at * pixel_len..];
        let step = self.point_steps()[0];
        assert!((POINTS - 1) * step + pixel_len <= into.len(), "transformed inputs");
        let job = InputJob { pixels, n_words, out: into.as_mut_ptr(), point_step: step };
        // SAFETY: the instructions were checked when the kernel was made; every pixel is a slice of `n_words` vectors,
        // and the last point's vectors end inside `into` (asserted).
        unsafe { (self.transforms.input)(&job) }
    }

    fn multiply(&self, n_tiles: usize, inputs: &AlignedVec, sums: &mut AlignedVec) {
        let (output, lanes) = (&self.shapes[1], self.arithmetic.lanes());
        let n_words = self.arithmetic.words(self.shapes[0].c);
        let steps = self.point_steps();
        assert!(steps[0] * POINTS <= inputs.len() && steps[1] * POINTS <= sums.len(), "transformed values");
        for point in 0..POINTS {
            for block in &self.blocks {
                for run in &block.runs[n_tiles - 1] {
                    let job = TileJob {
                        x: inputs[point * steps[0] + run.start * n_words * lanes..].as_ptr(),
                        pixel_step: n_words * lanes,
                        taps: [1, 1],
                        tap_steps: [0, 0],
                        n_in: n_words,
                        weights: self.weights[point * n_words * output.c + block.weights_at..].as_ptr(),
                        weights_step: 0,
                        bias: self.zeros.as_ptr(),
                        out: sums[point * steps[1] + (run.start * output.c + block.first_output) * lanes..]
                            .as_mut_ptr(),
                        out_step: output.c * lanes,
                        finish: None,
                    };
                    // SAFETY: the instructions were checked when the kernel was made. A run's tiles are among the
                    // `self.tiles` that a point holds (lengths asserted above); weights were packed for the block;
                    // `zeros` holds at least as many values as there are output channels; `sums` is borrowed
                    // exclusively and each block writes its own channels.
                    unsafe { (run.run)(&job, run.n_tiles) }
                }
            }
        }
    }

    fn transform_output(
        &self,
        TilePlace { tile, at }: TilePlace,
        sums: &AlignedVec,
        epilogue: Epilogue,
        rows: &Range<usize>,
        out: &mut [f32],
    ) {
        let (output, lanes) = (&self.shapes[1], self.arithmetic.lanes());
        let out_words = self.arithmetic.words(output.c) * lanes;
        let corner = self.corner(tile);
        let step = self.point_steps()[1];
        let from = &sums[at * output.c * lanes..];
        assert!((POINTS - 1) * step + output.c * lanes <= from.len(), "transformed sums");
        let to = ((corner[0] - rows.start) * output.w + corner[1]) * out_words;
        let job = OutputJob {
            sums: from.as_ptr(),
            point_step: step,
            n_channels: output.c,
            bias: self.bias.as_ptr(),
            size: [rows.end - corner[0], output.w - corner[1]].map(|n| n.min(TILE)),
            out: out[to..].as_mut_ptr(),
            row_step: output.w * out_words,
            finish: epilogue.from(to),
        };
        // SAFETY: the instructions were checked when the kernel was made; the last point's vectors end inside `sums`
        // (asserted); `size` keeps to the pixels of `out`, whose length, like the residual's, is asserted in
        // `run_rows`; bias holds all channels.
        unsafe { (self.transforms.output)(&job) }
    }
}

/// Words that are written side by side to each point: those of all points together stay in the nearest cache, while
/// points of large layers lie a power of two apart, where few of their lines fit at once.
const RUN: usize = 64;

/// Transforms filters `[filters, n_in, 3, 3]` and writes them as words `[POINTS, in words, filters]`, points
/// `point_step` words apart.
fn pack_transformed(
    arithmetic: Arithmetic,
    filters: &[f32],
    [n_in, n_filters]: [usize; 2],
    point_step: usize,
    packed: &mut [f32],
) {
    let points = arithmetic.finite_points();
    let per_word = arithmetic.channels_per_word();
    // `[channel of the word][point][filter]`
    let mut transformed = [[[0.0; FILTERS]; POINTS]; 2];
    let mut run = [[0.0; RUN]; POINTS];
    let n_words = n_in.div_ceil(per_word) * n_filters;
    for first in (0..n_words).step_by(RUN) {
        let len = RUN.min(n_words - first);
        for at in (0..len).step_by(FILTERS) {
            for (of_word, out) in transformed.iter_mut().enumerate().take(per_word) {
                let mut taps = [[0.0; FILTERS]; 9];
                for word in 0..FILTERS.min(len - at) {
                    let place = first + at + word;
                    let (i, filter) = (place / n_filters * per_word + of_word, place % n_filters);
                    if i < n_in {
                        let values = &filters[(filter * n_in + i) * 9..][..9];
                        taps.iter_mut().zip(values).for_each(|(tap, &value)| tap[word] = value);
                    }
                }
                arithmetic.isa().vectorized(FilterTransform { taps: &taps, points, out });
            }
            for point in 0..POINTS {
                let to = &mut run[point][at..][..FILTERS];
                arithmetic.join(&transformed[0][point], &transformed[1][point], to);
            }
        }
        for (point, words) in run.iter().enumerate() {
            packed[point * point_step + first..][..len].copy_from_slice(&words[..len]);
        }
    }
}
