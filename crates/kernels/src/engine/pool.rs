//! Pooling over windows or over the whole image.

use std::ops::Range;

use secateur_net::{Shape, Window};

use crate::simd::isa::{Isa, PlainLoops};

/// Which mean or maximum a window yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Maximum of the pixels inside the image; NaN wins.
    Max,
    /// Sum divided by the pixels that the window counts, padding being zeros.
    Average,
}

/// Channels that are pooled together where there are so many.
const WIDE: usize = 64;

/// Rows of an image `[H, W, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageRows<'a> {
    /// From row `first` on.
    pub values: &'a [f32],
    pub first: usize,
}

/// Pools rows of an image of `shape` into rows of one of `out_shape`.
pub(crate) struct PoolRows<'a> {
    pub kind: Pooling,
    pub window: &'a Window,
    /// All that the windows see.
    pub x: ImageRows<'a>,
    pub shape: Shape,
    /// Output rows from `first_out` on.
    pub out: &'a mut [f32],
    pub first_out: usize,
    pub out_shape: Shape,
}

impl PlainLoops for PoolRows<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { kind, window, x: ImageRows { values: x, first }, shape, out, first_out, out_shape } = self;
        for (at, to) in out.chunks_exact_mut(shape.c).enumerate() {
            let [row, col] = [first_out + at / out_shape.w, at % out_shape.w];
            let rows = window.inside(0, row, shape.h);
            let rows = rows.start - first..rows.end - first;
            let cols = window.inside(1, col, shape.w);
            let pixels = WindowPixels { x, width: shape.w, rows: rows.clone(), cols: cols.clone() };
            let n_wide = to.len() - to.len() % WIDE;
            let (wide, rest) = to.split_at_mut(n_wide);
            let (narrow, single) = rest.split_at_mut(rest.len() - rest.len() % 16);
            pool_channels::<WIDE>(kind, &pixels, shape.c, 0, wide);
            pool_channels::<16>(kind, &pixels, shape.c, n_wide, narrow);
            pool_channels::<1>(kind, &pixels, shape.c, n_wide + narrow.len(), single);
            if kind == Pooling::Average {
                let n_counted = window.n_counted(0, row, shape.h) * window.n_counted(1, col, shape.w);
                let scale = 1.0 / n_counted as f32;
                to.iter_mut().for_each(|t| *t *= scale);
                let pixels = || rows.clone().flat_map(|y| cols.clone().map(move |x| y * shape.w + x));
                mend_overflow(to, n_counted, |c| pixels().map(|pixel| f64::from(x[pixel * shape.c + c])).sum());
            }
        }
    }
}

/// The pixels of a map under a window.
struct WindowPixels<'a> {
    x: &'a [f32],
    width: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// Pools `c` channels' pixels under a window, those from `first` on, `N` at a time so that they stay in registers.
#[inline(always)]
fn pool_channels<const N: usize>(kind: Pooling, pixels: &WindowPixels, c: usize, first: usize, out: &mut [f32]) {
    for (at, to) in (first..).step_by(N).zip(out.chunks_exact_mut(N)) {
        match kind {
            // Of fewer values the search for NaN is compiled to several times the work.
            Pooling::Max if N >= WIDE => to.copy_from_slice(&largest::<N>(pixels, c, at)),
            Pooling::Max | Pooling::Average => {
                let mut pooled = [if kind == Pooling::Max { f32::NEG_INFINITY } else { 0.0 }; N];
                pixels.for_each(c, at, |values: &[f32; N]| accumulate(kind, values, &mut pooled));
                to.copy_from_slice(&pooled);
            }
        }
    }
}

/// The largest of `N` channels' values from `at` on. NaN is looked for apart: to select by it value by value would take
/// several times as long as the maximum itself.
#[inline(always)]
fn largest<const N: usize>(pixels: &WindowPixels, c: usize, at: usize) -> [f32; N] {
    let (mut most, mut largest_bits) = ([f32::NEG_INFINITY; N], [0; N]);
    pixels.for_each(c, at, |values: &[f32; N]| {
        for i in 0..N {
            most[i] = if values[i] > most[i] { values[i] } else { most[i] };
            // Without their sign, NaN has more bits than any other value.
            largest_bits[i] = (values[i].to_bits() & !SIGN).max(largest_bits[i]);
        }
    });
    if largest_bits.iter().fold(false, |any, &bits| any | (bits > f32::INFINITY.to_bits())) {
        most = [f32::NEG_INFINITY; N];
        pixels.for_each(c, at, |values: &[f32; N]| accumulate(Pooling::Max, values, &mut most));
    }
    most
}

const SIGN: u32 = 1 << 31;

impl WindowPixels<'_> {
    /// Calls `take` with `N` channels' values from `at` on of each pixel.
    #[inline(always)]
    fn for_each<const N: usize>(&self, c: usize, at: usize, mut take: impl FnMut(&[f32; N])) {
        for y in self.rows.clone() {
            for x in self.cols.clone() {
                let values = &self.x[(y * self.width + x) * c + at..][..N];
                take(values.try_into().expect("so many"));
            }
        }
    }
}

/// Mean over all pixels of one image, per channel.
pub(crate) fn global_average(isa: Isa, x: &[f32], shape: Shape, out: &mut [f32]) {
    out.fill(0.0);
    isa.vectorized(|| x.chunks_exact(shape.c).for_each(|from| accumulate(Pooling::Average, from, out)));
    let scale = 1.0 / (shape.h * shape.w) as f32;
    out.iter_mut().for_each(|t| *t *= scale);
    mend_overflow(out, shape.h * shape.w, |c| x.iter().skip(c).step_by(shape.c).map(|&v| f64::from(v)).sum());
}

/// Averages of `n` values whose f32 sums are not finite, from `sum(channel)` in f64: a sum may overflow where the
/// average does not.
fn mend_overflow(averages: &mut [f32], n: usize, sum: impl Fn(usize) -> f64) {
    let overflown = averages.iter_mut().enumerate().filter(|(_, average)| !average.is_finite());
    overflown.for_each(|(c, average)| *average = (sum(c) / n as f64) as f32);
}

#[inline(always)]
fn accumulate(kind: Pooling, from: &[f32], to: &mut [f32]) {
    let pairs = to.iter_mut().zip(from);
    match kind {
        Pooling::Max => pairs.for_each(|(t, &v)| *t = if v > *t || v.is_nan() { v } else { *t }),
        Pooling::Average => pairs.for_each(|(t, &v)| *t += v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::random::SplitMix;

    #[test]
    fn nan_wins_wherever_it_is_and_infinity_is_a_value() {
        let window = Window::new([3, 3], [2, 2], [1, 1]);
        // Wide, narrow and single channels.
        let (shape, out_shape) = (Shape { c: 64 + 16 + 3, h: 7, w: 5 }, Shape { c: 64 + 16 + 3, h: 4, w: 3 });
        let mut rng = SplitMix(1);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x: Vec<f32> = (0..shape.len()).map(|_| rng.signed()).collect();
            (0..60).for_each(|_| x[rng.below(shape.len())] = bad);
            for isa in Isa::available() {
                let mut out = vec![0.0; out_shape.len()];
                let (kind, rows) = (Pooling::Max, ImageRows { values: &x, first: 0 });
                isa.vectorized(PoolRows {
                    kind,
                    window: &window,
                    x: rows,
                    shape,
                    out: &mut out,
                    first_out: 0,
                    out_shape,
                });
                for (at, got) in out.iter().enumerate() {
                    let (pixel, c) = (at / shape.c, at % shape.c);
                    let [rows, cols] = [(0, pixel / out_shape.w, shape.h), (1, pixel % out_shape.w, shape.w)]
                        .map(|(axis, at, size)| window.inside(axis, at, size));
                    let seen = rows.flat_map(|y| cols.clone().map(move |x| (y * shape.w + x) * shape.c + c));
                    let seen: Vec<f32> = seen.map(|at| x[at]).collect();
                    let expected = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let is_right = if seen.iter().any(|x| x.is_nan()) { got.is_nan() } else { *got == expected };
                    assert!(is_right, "{isa:?}, {bad}, pixel {pixel}, channel {c}: {got} of {seen:?}");
                }
            }
        }
    }
}
