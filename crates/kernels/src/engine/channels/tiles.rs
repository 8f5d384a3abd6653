//! 3x3 convolution with stride 1 by minimal filtering, F(4x4, 3x3) (see [`crate::engine::winograd`]), on maps whose
//! vectors are channels: at each of the 36 points a product of tiles and filters.
#![allow(unsafe_code)]

use std::ops::Range;

use secateur_net::Conv2d;

use super::maps::ChannelMap;
use super::product::{PackedFilters, PixelRows, ProductOutput};
use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::direct::{Epilogue, set_bias};
use crate::engine::winograd::filters::{FILTERS, FilterTransform};
use crate::engine::winograd::geometry::{POINTS, TILE};
use crate::engine::winograd::jobs::{InputJob, OutputJob};
use crate::engine::winograd::transforms::Transforms;
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// Transformed inputs and sums of tiles that are transformed together take at most so many values, a good part of a
/// second-level cache...
const MAX_SCRATCH: usize = 192 << 10;
/// ... but there are at least so many tiles, if the image has them: the filters are read once for all of them.
const MIN_TILES: usize = 24;

/// A 3x3 convolution with stride 1 and no groups, its weights transformed.
#[derive(Clone, Debug)]
pub(crate) struct ChannelTilesKernel {
    maps: [ChannelMap; 2],
    padding: [usize; 2],
    lanes: usize,
    /// Tiles down and across.
    n_tiles: [usize; 2],
    /// Tiles transformed together.
    tiles: usize,
    filters: PackedFilters,
    /// `[pitch]`
    bias: Vec<f32>,
    zeros: AlignedVec,
    transforms: Transforms,
}

/// Tiles transformed together.
fn tiles_together(pitches: [usize; 2]) -> usize {
    (MAX_SCRATCH / (POINTS * (pitches[0] + pitches[1]))).max(MIN_TILES).next_multiple_of(12)
}

/// From one point to the next of `len` values each: one vector more, since points a power of two apart would all fall
/// into the same few lines of the cache.
const fn point_step(len: usize) -> usize {
    len + 16
}

impl ChannelTilesKernel {
    /// Transforms `weight` `[out, in, 3, 3]`; `bias` is `[out]`.
    pub(crate) fn new(isa: Isa, conv: &Conv2d, maps: [ChannelMap; 2], weight: &[f32], bias: Option<&[f32]>) -> Self {
        let [input, output] = maps;
        let [n_in, n_out] = [input.shape.c, output.shape.c];
        assert_eq!(weight.len(), n_in * n_out * 9, "convolution weight length");
        let mut filters = PackedFilters::zeros(isa, n_in, n_out, POINTS);
        let points = Arithmetic::F32(isa).finite_points();
        let mut transformed = vec![[[0.0; FILTERS]; POINTS]; n_out.div_ceil(FILTERS)];
        for i in 0..n_in {
            for (first, into) in (0..n_out).step_by(FILTERS).zip(&mut transformed) {
                let mut taps = [[0.0; FILTERS]; 9];
                for filter in 0..FILTERS.min(n_out - first) {
                    let values = &weight[((first + filter) * n_in + i) * 9..][..9];
                    taps.iter_mut().zip(values).for_each(|(tap, &value)| tap[filter] = value);
                }
                isa.vectorized(FilterTransform { taps: &taps, points, out: into });
            }
            let value = |point: usize, filter: usize| transformed[filter / FILTERS][point][filter % FILTERS];
            (0..POINTS).for_each(|point| filters.set(point, i..i + 1, |filter, _| value(point, filter)));
        }
        let mut of_output = vec![0.0; output.pitch];
        set_bias(&mut of_output[..n_out], bias);
        Self {
            maps,
            padding: conv.padding,
            lanes: isa.lanes(),
            n_tiles: [output.shape.h.div_ceil(TILE), output.shape.w.div_ceil(TILE)],
            tiles: tiles_together([input.pitch, output.pitch]),
            filters,
            bias: of_output,
            zeros: AlignedVec::zeros(input.pitch.max(output.pitch)),
            transforms: Transforms::by_channel(isa),
        }
    }

    /// Bytes that [`Self::new`] allocates, and those of the working memory of [`Self::run_rows`].
    pub(crate) fn bytes(isa: Isa, [input, output]: [ChannelMap; 2]) -> (u64, [u64; 2]) {
        let filters = PackedFilters::bytes(isa, input.shape.c, output.shape.c, POINTS);
        let pitches = [input.pitch, output.pitch];
        let zeros = AlignedVec::bytes(pitches[0].max(pitches[1]) as u64);
        let tiles = tiles_together(pitches);
        let working = pitches.map(|pitch| AlignedVec::bytes((POINTS * point_step(tiles * pitch)) as u64));
        (filters + zeros + 4 * output.pitch as u64, working)
    }

    /// Computes the output rows `rows` of a group of images, counted through all of them; within an image they begin
    /// at a multiple of `TILE`. `x` is the whole group, `out` and the residual are these rows alone.
    pub(crate) fn run_rows(
        &self,
        x: &[f32],
        rows: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
        [inputs, sums]: [&mut AlignedVec; 2],
    ) {
        let [input, output] = &self.maps;
        let h = output.shape.h;
        assert!(x.len().is_multiple_of(input.len()) && rows.end <= x.len() / input.len() * h, "convolution rows");
        assert!((rows.start % h).is_multiple_of(TILE), "convolution first row");
        assert_eq!(out.len(), rows.len() * output.shape.w * output.pitch, "convolution output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        let [input_step, sum_step] = [input, output].map(|map| point_step(self.tiles * map.pitch));
        inputs.grow(POINTS * input_step);
        sums.grow(POINTS * sum_step);
        let [down, across] = self.n_tiles;
        let first = (rows.start / h * down + rows.start % h / TILE) * across;
        let end = (rows.end / h * down + (rows.end % h).div_ceil(TILE)) * across;
        for first in (first..end).step_by(self.tiles) {
            let n = self.tiles.min(end - first);
            for at in 0..n {
                self.transform_input(first + at, x, &mut inputs[at * input.pitch..], input_step);
            }
            for point in 0..POINTS {
                let x = PixelRows::new(&inputs[point * input_step..], input.pitch, n);
                let values = &mut sums[point * sum_step..];
                let mut out = ProductOutput { values, step: output.pitch, epilogue: None };
                self.filters.multiply(point, x, &self.zeros, &mut out);
            }
            for at in 0..n {
                self.transform_output(first + at, &sums[at * output.pitch..], epilogue, &rows, out);
            }
        }
    }

    /// Image and top left output pixel of a tile.
    const fn corner(&self, tile: usize) -> (usize, [usize; 2]) {
        let [down, across] = self.n_tiles;
        (tile / (down * across), [tile / across % down * TILE, tile % across * TILE])
    }

    fn transform_input(&self, tile: usize, x: &[f32], into: &mut [f32], step: usize) {
        let ChannelMap { shape, pitch } = self.maps[0];
        let (image, corner) = self.corner(tile);
        let x = &x[image * self.maps[0].len()..][..self.maps[0].len()];
        let pixels = std::array::from_fn(|point| {
            let row = (corner[0] + point / 6).wrapping_sub(self.padding[0]);
            let column = (corner[1] + point % 6).wrapping_sub(self.padding[1]);
            let is_inside = row < shape.h && column < shape.w;
            let pixel = if is_inside { &x[(row * shape.w + column) * pitch..] } else { &self.zeros[..] };
            pixel[..pitch].as_ptr()
        });
        assert!((POINTS - 1) * step + pitch <= into.len(), "transformed inputs");
        let job = InputJob { pixels, n_words: pitch / self.lanes, out: into.as_mut_ptr(), point_step: step };
        // SAFETY: the instructions were checked when the plan was compiled; every pixel is a slice of `pitch` values,
        // and the last point's vectors end inside `into` (asserted).
        unsafe { (self.transforms.input)(&job) }
    }

    fn transform_output(&self, tile: usize, sums: &[f32], epilogue: Epilogue, rows: &Range<usize>, out: &mut [f32]) {
        let ChannelMap { shape, pitch } = self.maps[1];
        let (image, corner) = self.corner(tile);
        let first = image * shape.h + corner[0];
        let size = [TILE.min((image + 1) * shape.h - first).min(rows.end - first), TILE.min(shape.w - corner[1])];
        let row_step = shape.w * pitch;
        let step = point_step(self.tiles * pitch);
        let to = (first - rows.start) * row_step + corner[1] * pitch;
        let end = to + (size[0] - 1) * row_step + size[1] * pitch;
        assert!(end <= out.len() && (POINTS - 1) * step + pitch <= sums.len(), "tile of an output");
        let job = OutputJob {
            sums: sums.as_ptr(),
            point_step: step,
            n_channels: pitch / self.lanes,
            bias: self.bias.as_ptr(),
            size,
            out: out[to..].as_mut_ptr(),
            row_step,
            finish: epilogue.from(to),
        };
        // SAFETY: the instructions were checked when the plan was compiled. Points lie within `sums`, and the tile's
        // pixels within `out` (asserted) and the residual, which is as long (asserted in `run_rows`); `bias` holds
        // `pitch` values; `out` is borrowed exclusively.
        unsafe { (self.transforms.output)(&job) }
    }
}
