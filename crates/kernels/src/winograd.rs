//! 3x3 convolution with stride 1 by minimal filtering, F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144
//! (Winograd 1980; Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.3).
#![allow(unsafe_code)]

use std::ops::Range;

use secateur_net::{Conv2d, Shape};

use crate::aligned::AlignedVec;
use crate::conv::Epilogue;
use crate::simd::Isa;
use crate::tile::TileJob;
use crate::tiling::{PixelRun, channel_blocks, pixel_runs};
use crate::winograd_transform::{FILTERS, InputJob, OutputJob, Transforms, transform_filters};

/// Output pixels along each side of a tile.
pub const TILE: usize = 4;
/// Points at which a tile is multiplied: a square of side `TILE + 2`.
pub const POINTS: usize = 36;
/// Tiles transformed together, so that the transformed weights are read once for all of them.
const TILES: usize = 4;

/// A 3x3 convolution with stride 1 and no groups, its weights transformed for one instruction set.
#[derive(Clone, Debug)]
pub struct WinogradKernel {
    shapes: [Shape; 2],
    padding: [usize; 2],
    lanes: usize,
    /// Tiles down and across.
    n_tiles: [usize; 2],
    /// Tiles transformed together.
    tiles: usize,
    blocks: Vec<Block>,
    /// `[POINTS, blocks, in, block's channels]`
    weights: AlignedVec,
    bias: Vec<f32>,
    zeros: AlignedVec,
    transforms: Transforms,
}

/// Output channels computed together.
#[derive(Clone, Debug)]
struct Block {
    first_output: usize,
    weights_at: usize,
    /// By number of tiles less one: how they are cut.
    runs: Vec<Vec<PixelRun>>,
}

/// Transformed inputs and outputs of some tiles.
#[derive(Debug, Default)]
pub struct WinogradScratch {
    inputs: AlignedVec,
    sums: AlignedVec,
}

/// Values from one point to the next of `len` values each: one vector more, since points a power of two apart would all fall
/// into the same few lines of the cache.
const fn point_step(len: usize, lanes: usize) -> usize {
    len + lanes
}

impl WinogradKernel {
    /// Whether this way is open to a convolution, and faster than the direct one by the operations it takes.
    pub fn suits(conv: &Conv2d, [input, output]: [Shape; 2]) -> bool {
        let is_open = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1;
        if !is_open {
            return false;
        }
        let n_tiles = (output.h.div_ceil(TILE) * output.w.div_ceil(TILE)) as f64;
        // Taps inside the image, of all outputs along an axis; cycles of two multiply-adds.
        let inside = |n_in: usize, n_out: usize, axis: usize| -> usize {
            crate::conv::valid_taps(conv, axis, n_in, n_out).iter().map(Range::len).sum()
        };
        let n_taps = (inside(input.h, output.h, 0) * inside(input.w, output.w, 1)) as f64;
        let (n_in, n_out) = (input.c as f64, output.c as f64);
        let direct = n_taps * n_in * n_out / 2.0;
        let transformed = n_tiles * (POINTS as f64 * n_in * n_out / 2.0 + 110.0 * n_in + 110.0 * n_out);
        transformed < 0.95 * direct
    }

    /// Transforms `weight` `[out, in, 3, 3]`; `bias` is `[out]`.
    pub fn new(isa: Isa, conv: &Conv2d, shapes: [Shape; 2], weight: &[f32], bias: Option<&[f32]>) -> Self {
        let [input, output] = shapes;
        assert_eq!(weight.len(), output.c * input.c * 9, "convolution weight length");
        let n_tiles = [output.h.div_ceil(TILE), output.w.div_ceil(TILE)];
        let tiles = TILES.min(n_tiles[0] * n_tiles[1]);
        let sizes = channel_blocks(isa, output.c, tiles);
        let mut weights = AlignedVec::zeros(POINTS * output.c * input.c);
        let mut blocks = Vec::new();
        let mut first_output = 0;
        for n_channels in sizes {
            let weights_at = first_output * input.c;
            let filters = &weight[weights_at * 9..][..n_channels * input.c * 9];
            pack_transformed(filters, [input.c, n_channels], output.c * input.c, &mut weights[weights_at..]);
            let runs = (1..=tiles).map(|n| pixel_runs(isa, n_channels, n).0).collect();
            blocks.push(Block { first_output, weights_at, runs });
            first_output += n_channels;
        }
        Self {
            shapes,
            padding: conv.padding,
            lanes: isa.lanes(),
            n_tiles,
            tiles,
            blocks,
            weights,
            bias: bias.map_or_else(|| vec![0.0; output.c], <[f32]>::to_vec),
            zeros: AlignedVec::zeros(input.c.max(output.c) * isa.lanes()),
            transforms: Transforms::of(isa),
        }
    }

    /// Convolves one group of images `[H, W, C, LANES]`.
    pub fn run(&self, x: &[f32], epilogue: Epilogue, out: &mut [f32], scratch: &mut WinogradScratch) {
        self.run_rows(x, 0..self.shapes[1].h, epilogue, out, scratch);
    }

    /// Computes the output rows `rows`, whose first is a multiple of `TILE`; `out` and the residual are theirs alone.
    pub fn run_rows(
        &self,
        x: &[f32],
        rows: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
        scratch: &mut WinogradScratch,
    ) {
        let ([input, output], lanes) = (&self.shapes, self.lanes);
        assert!(rows.start.is_multiple_of(TILE) && rows.end <= output.h, "convolution output rows");
        assert_eq!(x.len(), input.len() * lanes, "convolution input length");
        assert_eq!(out.len(), rows.len() * output.w * output.c * lanes, "convolution output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        scratch.inputs.grow(POINTS * point_step(self.tiles * input.c * lanes, lanes));
        scratch.sums.grow(POINTS * point_step(self.tiles * output.c * lanes, lanes));
        let all = rows.start / TILE * self.n_tiles[1]..rows.end.div_ceil(TILE) * self.n_tiles[1];
        for first in all.clone().step_by(self.tiles) {
            let tiles = first..(first + self.tiles).min(all.end);
            tiles.clone().for_each(|tile| self.transform_input(tile, tile - first, x, &mut scratch.inputs));
            self.multiply(tiles.len(), &scratch.inputs, &mut scratch.sums);
            for tile in tiles {
                self.transform_output((tile, tile - first), &scratch.sums, epilogue, &rows, out);
            }
        }
    }

    /// Top left output pixel of a tile.
    const fn corner(&self, tile: usize) -> [usize; 2] {
        [tile / self.n_tiles[1] * TILE, tile % self.n_tiles[1] * TILE]
    }

    fn transform_input(&self, tile: usize, at: usize, x: &[f32], inputs: &mut AlignedVec) {
        let (input, lanes) = (&self.shapes[0], self.lanes);
        let corner = self.corner(tile);
        let pixels = std::array::from_fn(|point| {
            let row = (corner[0] + point / 6).wrapping_sub(self.padding[0]);
            let column = (corner[1] + point % 6).wrapping_sub(self.padding[1]);
            let is_inside = row < input.h && column < input.w;
            let pixel = if is_inside { &x[(row * input.w + column) * input.c * lanes..] } else { &self.zeros[..] };
            pixel[..input.c * lanes].as_ptr()
        });
        let into = &mut inputs[at * input.c * lanes..];
        let step = point_step(self.tiles * input.c * lanes, lanes);
        assert!((POINTS - 1) * step + input.c * lanes <= into.len(), "transformed inputs");
        let job = InputJob { pixels, n_channels: input.c, out: into.as_mut_ptr(), point_step: step };
        // SAFETY: the instruction set was checked when the kernel was made; every pixel is a slice of `n_channels` vectors, and the
        // last point's vectors end inside `into` (asserted).
        unsafe { (self.transforms.input)(&job) }
    }

    fn multiply(&self, n_tiles: usize, inputs: &AlignedVec, sums: &mut AlignedVec) {
        let ([input, output], lanes) = (&self.shapes, self.lanes);
        let steps = [input.c, output.c].map(|c| point_step(self.tiles * c * lanes, lanes));
        assert!(steps[0] * POINTS <= inputs.len() && steps[1] * POINTS <= sums.len(), "transformed values");
        for point in 0..POINTS {
            for block in &self.blocks {
                for run in &block.runs[n_tiles - 1] {
                    let job = TileJob {
                        x: inputs[point * steps[0] + run.start * input.c * lanes..].as_ptr(),
                        pixel_step: input.c * lanes,
                        taps: [1, 1],
                        tap_steps: [0, 0],
                        n_in: input.c,
                        weights: self.weights[point * input.c * output.c + block.weights_at..].as_ptr(),
                        weights_step: 0,
                        bias: self.zeros.as_ptr(),
                        out: sums[point * steps[1] + (run.start * output.c + block.first_output) * lanes..]
                            .as_mut_ptr(),
                        out_step: output.c * lanes,
                        finish: None,
                    };
                    // SAFETY: the instruction set was checked when the kernel was made. A run's tiles are among the `self.tiles` that a
                    // point holds (lengths asserted above); weights were packed for the block; `zeros` holds at least as many values as
                    // there are output channels; `sums` is borrowed exclusively and each block writes its own channels.
                    unsafe { (run.run)(&job, run.n_tiles) }
                }
            }
        }
    }

    fn transform_output(
        &self,
        (tile, at): (usize, usize),
        sums: &AlignedVec,
        epilogue: Epilogue,
        rows: &Range<usize>,
        out: &mut [f32],
    ) {
        let (output, lanes) = (&self.shapes[1], self.lanes);
        let corner = self.corner(tile);
        let step = point_step(self.tiles * output.c * lanes, lanes);
        let from = &sums[at * output.c * lanes..];
        assert!((POINTS - 1) * step + output.c * lanes <= from.len(), "transformed sums");
        let to = ((corner[0] - rows.start) * output.w + corner[1]) * output.c * lanes;
        let job = OutputJob {
            sums: from.as_ptr(),
            point_step: step,
            n_channels: output.c,
            bias: self.bias.as_ptr(),
            size: [rows.end - corner[0], output.w - corner[1]].map(|n| n.min(TILE)),
            out: out[to..].as_mut_ptr(),
            row_step: output.w * output.c * lanes,
            finish: epilogue.from(to),
        };
        // SAFETY: the instruction set was checked when the kernel was made; the last point's vectors end inside `sums` (asserted);
        // `size` keeps to the pixels of `out`, whose length, like the residual's, is asserted in `run_rows`; bias holds all channels.
        unsafe { (self.transforms.output)(&job) }
    }
}

/// Transforms filters `[filters, n_in, 3, 3]` and writes them as `[POINTS, n_in, filters]`, points `point_step` values apart.
fn pack_transformed(filters: &[f32], [n_in, n_filters]: [usize; 2], point_step: usize, packed: &mut [f32]) {
    for (i, first) in (0..n_in).flat_map(|i| (0..n_filters).step_by(FILTERS).map(move |first| (i, first))) {
        let n = FILTERS.min(n_filters - first);
        let mut taps = [[0.0; FILTERS]; 9];
        for filter in 0..n {
            let values = &filters[((first + filter) * n_in + i) * 9..][..9];
            taps.iter_mut().zip(values).for_each(|(tap, &value)| tap[filter] = value);
        }
        for (point, values) in transform_filters(&taps).iter().enumerate() {
            packed[point * point_step + i * n_filters + first..][..n].copy_from_slice(&values[..n]);
        }
    }
}
