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

/// Pools one image of `shape` into one of `out_shape`.
pub(crate) struct PoolImage<'a> {
    pub kind: Pooling,
    pub window: &'a Window,
    /// `[H, W, C]`
    pub x: &'a [f32],
    pub shape: Shape,
    pub out: &'a mut [f32],
    pub out_shape: Shape,
}

impl PlainLoops for PoolImage<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { kind, window, x, shape, out, out_shape } = self;
        for (at, to) in out.chunks_exact_mut(shape.c).enumerate() {
            let [row, col] = [at / out_shape.w, at % out_shape.w];
            let rows = window.inside(0, row, shape.h);
            let cols = window.inside(1, col, shape.w);
            let pixels = WindowPixels { x, width: shape.w, rows: rows.clone(), cols: cols.clone() };
            let n_wide = to.len() - to.len() % 64;
            let (wide, rest) = to.split_at_mut(n_wide);
            let (narrow, single) = rest.split_at_mut(rest.len() - rest.len() % 16);
            pool_channels::<64>(kind, &pixels, shape.c, 0, wide);
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
        let mut pooled = [if kind == Pooling::Max { f32::NEG_INFINITY } else { 0.0 }; N];
        for y in pixels.rows.clone() {
            for x in pixels.cols.clone() {
                accumulate(kind, &pixels.x[(y * pixels.width + x) * c + at..][..N], &mut pooled);
            }
        }
        to.copy_from_slice(&pooled);
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
