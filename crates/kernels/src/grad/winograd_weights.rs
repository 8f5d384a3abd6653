//! The gradient of a 3x3 convolution's weights by minimal filtering: the transpose of F(4x4, 3x3), with 36
//! multiplications for a tile's 9 taps and 16 outputs instead of 144. With the matrices of Lavin and Gray (2016) it is
//! `G^T [(A g A^T) * (B^T d B)] G`, summed over tiles and images in the middle.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are rows and columns of tiles, and also make up addresses")]

use secateur_net::{Conv2d, Shape};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::winograd::filters::FILTERS;
use crate::engine::winograd::geometry::{POINTS, TILE};
use crate::engine::winograd::jobs::InputJob;
use crate::engine::winograd::transforms::Transforms;
use crate::grad::channels::on_lanes;
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};
use crate::simd::products::{Columns, add_products};

/// Most and fewest tiles that are transformed before they are multiplied: many, since lanes are added up each time;
/// few, so that they stay in a core's own cache.
const TILES: [usize; 2] = [8, 64];
/// Tiles times channels, of input and output, that fit that cache.
const TILE_CHANNELS: usize = 544;

/// Gives the gradient of one 3x3 convolution's weights.
#[derive(Debug)]
pub(crate) struct WinogradWeights {
    isa: Isa,
    padding: [usize; 2],
    shapes: [Shape; 2],
    /// Tiles down and across.
    n_tiles: [usize; 2],
    at_a_time: usize,
    transforms: Transforms,
    zeros: AlignedVec,
}

/// Transformed inputs and gradients of some tiles, and sums of their products.
#[derive(Debug, Default)]
pub(crate) struct TransformScratch {
    inputs: AlignedVec,
    gradients: AlignedVec,
    sums: Vec<f64>,
}

/// The gradient of one tile's output, `[TILE, TILE]` pixels of channels, and where its points go.
pub(crate) struct GradientJob {
    pixels: [*const f32; TILE * TILE],
    n_channels: usize,
    out: *mut f32,
    point_step: usize,
}

impl WinogradWeights {
    /// Of `conv` between these shapes, if this way takes fewer operations than going tap by tap.
    pub(crate) fn new(isa: Isa, conv: &Conv2d, shapes: [Shape; 2]) -> Option<Self> {
        let is_filtered = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1;
        let [input, output] = shapes;
        let n_tiles = [output.h.div_ceil(TILE), output.w.div_ceil(TILE)];
        // In cycles of two multiply-adds, for a pair of input and output channels: products, adding up lanes, the
        // transform of the result; and the transforms of tiles, shared by all channels of the other side.
        let (tiles, pixels) = ((n_tiles[0] * n_tiles[1]) as f64, (output.h * output.w) as f64);
        let adding_up = 4.0;
        let by_taps = 9.0 * (pixels / 2.0 + adding_up);
        let transforms = 130.0 * tiles * (1.0 / input.c as f64 + 1.0 / output.c as f64);
        let at_a_time = (TILE_CHANNELS / (input.c + output.c)).clamp(TILES[0], TILES[1]).min(n_tiles[0] * n_tiles[1]);
        let n_times = (tiles / at_a_time as f64).ceil();
        let by_tiles = POINTS as f64 * (tiles / 2.0 + n_times * adding_up) + 50.0 + transforms;
        (is_filtered && by_tiles < by_taps).then(|| Self {
            isa,
            padding: conv.padding,
            shapes,
            n_tiles,
            at_a_time,
            transforms: Transforms::of(Arithmetic::F32(isa)),
            zeros: AlignedVec::zeros(input.c.max(output.c) * isa.lanes()),
        })
    }

    /// Adds to `gradient` `[out, in, 3, 3]` that of one group of images, given its input `x` and its output's gradient
    /// `g`.
    pub(crate) fn add(&self, [x, g]: [&[f32]; 2], gradient: &mut [f32], scratch: &mut TransformScratch) {
        let ([input, output], lanes) = (&self.shapes, self.isa.lanes());
        assert_eq!([x.len(), g.len()], [input, output].map(|shape| shape.len() * lanes), "values of a group");
        let n_pairs = input.c * output.c;
        scratch.sums.clear();
        scratch.sums.resize(POINTS * n_pairs, 0.0);
        let n_tiles = self.n_tiles[0] * self.n_tiles[1];
        let at_a_time = self.at_a_time;
        // A vector more between points, which would else fall into the same few lines of the cache.
        let steps = [input.c, output.c].map(|c| (at_a_time * c + 1) * lanes);
        scratch.inputs.grow(POINTS * steps[0]);
        scratch.gradients.grow(POINTS * steps[1]);
        for first in (0..n_tiles).step_by(at_a_time) {
            let tiles = first..(first + at_a_time).min(n_tiles);
            for tile in tiles.clone() {
                self.transform_input(tile, x, &mut scratch.inputs[(tile - first) * input.c * lanes..], steps[0]);
                let to = &mut scratch.gradients[(tile - first) * output.c * lanes..];
                self.transform_gradient(tile, g, to, steps[1]);
            }
            for (point, sums) in scratch.sums.chunks_exact_mut(n_pairs).enumerate() {
                let [x, g] = [(&scratch.inputs, steps[0], input.c), (&scratch.gradients, steps[1], output.c)]
                    .map(|(values, step, c)| Columns::of_rows(&values[point * step..(point + 1) * step], c, 0, c));
                add_products(self.isa, [x, g], [1, 1, tiles.len()], false, sums, output.c);
            }
        }
        for i in 0..input.c {
            for first in (0..output.c).step_by(FILTERS) {
                let n = FILTERS.min(output.c - first);
                let mut points = [[0.0; FILTERS]; POINTS];
                for (values, sums) in points.iter_mut().zip(scratch.sums.chunks_exact(n_pairs)) {
                    // In a loop: a call to copy so few values would take longer.
                    let sums = &sums[i * output.c + first..][..n];
                    values.iter_mut().zip(sums).for_each(|(value, sum)| *value = *sum);
                }
                let taps = weights_of(&points);
                for filter in 0..n {
                    let to = &mut gradient[((first + filter) * input.c + i) * 9..][..9];
                    to.iter_mut().zip(&taps).for_each(|(to, tap)| *to += tap[filter] as f32);
                }
            }
        }
    }

    /// Addresses of the pixels of a tile, `SIDE` along each side, whose first row and column are those given; zeros
    /// outside.
    fn pixels<const N: usize>(&self, values: &[f32], shape: Shape, first: [usize; 2], side: usize) -> [*const f32; N] {
        let pixel_len = shape.c * self.isa.lanes();
        std::array::from_fn(|at| {
            // Wraps around where it lies in front of the image.
            let [row, column] = [first[0].wrapping_add(at / side), first[1].wrapping_add(at % side)];
            let is_inside = row < shape.h && column < shape.w;
            let pixel = if is_inside { &values[(row * shape.w + column) * pixel_len..] } else { &self.zeros[..] };
            pixel[..pixel_len].as_ptr()
        })
    }

    fn transform_input(&self, tile: usize, x: &[f32], out: &mut [f32], point_step: usize) {
        let input = self.shapes[0];
        let corner = [tile / self.n_tiles[1] * TILE, tile % self.n_tiles[1] * TILE];
        let first = [0, 1].map(|axis| corner[axis].wrapping_sub(self.padding[axis]));
        let pixels = self.pixels(x, input, first, TILE + 2);
        assert!((POINTS - 1) * point_step + input.c * self.isa.lanes() <= out.len(), "transformed inputs");
        let job = InputJob { pixels, n_words: input.c, out: out.as_mut_ptr(), point_step };
        // SAFETY: the instruction set was checked where the plan was compiled; every pixel is a slice of a vector for
        // each channel, and the last point's vectors end inside `out` (asserted).
        unsafe { (self.transforms.input)(&job) }
    }

    fn transform_gradient(&self, tile: usize, g: &[f32], out: &mut [f32], point_step: usize) {
        let output = self.shapes[1];
        let corner = [tile / self.n_tiles[1] * TILE, tile % self.n_tiles[1] * TILE];
        let pixels = self.pixels(g, output, corner, TILE);
        assert!((POINTS - 1) * point_step + output.c * self.isa.lanes() <= out.len(), "transformed gradients");
        let job = GradientJob { pixels, n_channels: output.c, out: out.as_mut_ptr(), point_step };
        transform(self.isa, &job);
    }
}

on_lanes! {
    /// Transforms a tile; the job's pixels and points must hold its channels.
    transform = transformed(job: &GradientJob)
}

#[inline(always)]
unsafe fn transformed<L: Lanes>(job: &GradientJob) {
    for channel in 0..job.n_channels {
        let at = channel * L::LANES;
        // SAFETY: `transform_gradient` makes all pixels slices of as many channels, and asserts as much of the points.
        unsafe {
            let mut columns = [[L::splat(0.0); 6]; TILE];
            for j in 0..TILE {
                let mut g = [L::splat(0.0); TILE];
                for i in 0..TILE {
                    g[i] = L::load(job.pixels[i * TILE + j].add(at));
                }
                columns[j] = gradient_line::<L>(g);
            }
            for i in 0..6 {
                let mut g = [L::splat(0.0); TILE];
                for j in 0..TILE {
                    g[j] = columns[j][i];
                }
                let row = gradient_line::<L>(g);
                for j in 0..6 {
                    L::store(job.out.add((i * 6 + j) * job.point_step + at), row[j]);
                }
            }
        }
    }
}

/// A g of one line: values of the polynomial with these coefficients at 0, 1, -1, 2, -2 and infinity.
#[inline(always)]
unsafe fn gradient_line<L: Lanes>(g: [L::V; TILE]) -> [L::V; 6] {
    // SAFETY: arithmetic only; the caller's function has the instructions of `L`.
    unsafe {
        let four = L::splat(4.0);
        let (even, odd) = (L::add(g[0], g[2]), L::add(g[1], g[3]));
        let (even_of_two, half_odd_of_two) = (L::fma(g[2], four, g[0]), L::fma(g[3], four, g[1]));
        [
            g[0],
            L::add(even, odd),
            L::sub(even, odd),
            L::fma(half_odd_of_two, L::splat(2.0), even_of_two),
            L::fma(half_odd_of_two, L::splat(-2.0), even_of_two),
            g[3],
        ]
    }
}

/// G^T m G of some filters: the gradients of their nine weights.
fn weights_of(points: &[[f64; FILTERS]; POINTS]) -> [[f64; FILTERS]; 9] {
    let mut rows = [[[0.0; FILTERS]; 3]; 6];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = weight_line(std::array::from_fn(|j| &points[i * 6 + j]));
    }
    let columns: [_; 3] = std::array::from_fn(|j| weight_line(std::array::from_fn(|i| &rows[i][j])));
    std::array::from_fn(|tap| columns[tap % 3][tap / 3])
}

/// G^T m of one line.
fn weight_line(m: [&[f64; FILTERS]; 6]) -> [[f64; FILTERS]; 3] {
    let mut out = [[0.0; FILTERS]; 3];
    for f in 0..FILTERS {
        let (sum, difference) = ((m[1][f] + m[2][f]) * (1.0 / 6.0), (m[1][f] - m[2][f]) * (1.0 / 6.0));
        let (sum_of_two, difference_of_two) = ((m[3][f] + m[4][f]) * (1.0 / 24.0), (m[3][f] - m[4][f]) * (1.0 / 24.0));
        out[0][f] = 0.25 * m[0][f] - sum + sum_of_two;
        out[1][f] = 2.0 * difference_of_two - difference;
        out[2][f] = 4.0 * sum_of_two - sum + m[5][f];
    }
    out
}
