//! Operations that move, repeat or weigh values of a group of images, `[H, W, C, LANES]`.

use secateur_net::{Shape, Tap};

use crate::simd::isa::PlainLoops;

/// How operands become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    /// Of an Add.
    Sum,
    /// Of a Mul.
    Product,
    /// Of a Max; NaN wins.
    Largest,
    /// Of a Min; NaN wins.
    Smallest,
}

/// A value of a group of images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupValue<'a> {
    /// `[H, W, C, LANES]`
    pub values: &'a [f32],
    /// Of one image.
    pub shape: Shape,
    /// Images of a group.
    pub lanes: usize,
}

impl<'a> GroupValue<'a> {
    /// All channels of a pixel.
    fn pixel(&self, row: usize, col: usize) -> &'a [f32] {
        let len = self.shape.c * self.lanes;
        &self.values[(row * self.shape.w + col) * len..][..len]
    }
}

/// `out = x` (`how` is `None`), or `out` combined with `x`, where `x` may have one row, column or channel for all of
/// `to`, the shape of `out`.
pub(crate) struct Combine<'a> {
    pub how: Option<Combination>,
    pub x: GroupValue<'a>,
    pub out: &'a mut [f32],
    pub to: Shape,
}

impl PlainLoops for Combine<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { how, x, out, to } = self;
        let GroupValue { values, shape: from, lanes } = x;
        if from == to {
            return combine_values(how, values, out);
        }
        for (at, out) in out.chunks_exact_mut(to.c * lanes).enumerate() {
            let row = if from.h == 1 { 0 } else { at / to.w };
            let x = x.pixel(row, if from.w == 1 { 0 } else { at % to.w });
            if from.c == to.c {
                combine_values(how, x, out);
            } else {
                out.chunks_exact_mut(lanes).for_each(|out| combine_values(how, x, out));
            }
        }
    }
}

#[inline(always)]
fn combine_values(how: Option<Combination>, x: &[f32], out: &mut [f32]) {
    let pairs = out.iter_mut().zip(x);
    match how {
        None => out.copy_from_slice(x),
        Some(Combination::Sum) => pairs.for_each(|(o, x)| *o += x),
        Some(Combination::Product) => pairs.for_each(|(o, x)| *o *= x),
        Some(Combination::Largest) => pairs.for_each(|(o, &x)| *o = if x > *o || x.is_nan() { x } else { *o }),
        Some(Combination::Smallest) => pairs.for_each(|(o, &x)| *o = if x < *o || x.is_nan() { x } else { *o }),
    }
}

/// Channels of each pixel, seen as `[n_groups, c / n_groups]`, transposed.
pub(crate) fn shuffle(x: GroupValue<'_>, n_groups: usize, out: &mut [f32]) {
    let GroupValue { values, shape: Shape { c, .. }, lanes } = x;
    let per_group = c / n_groups;
    for (x, out) in values.chunks_exact(c * lanes).zip(out.chunks_exact_mut(c * lanes)) {
        for (o, out) in out.chunks_exact_mut(lanes).enumerate() {
            let from = o % n_groups * per_group + o / n_groups;
            out.copy_from_slice(&x[from * lanes..][..lanes]);
        }
    }
}

/// Every pixel becomes `block` rows and columns; see [`secateur_net::Op::DepthToSpace`].
pub(crate) fn depth_to_space(x: GroupValue<'_>, block: usize, columns_rows_depth: bool, out: &mut [f32]) {
    let lanes = x.lanes;
    let (c, w) = (x.shape.c / (block * block), x.shape.w * block);
    for (at, out) in out.chunks_exact_mut(c * lanes).enumerate() {
        let (row, col) = (at / w, at % w);
        let x = x.pixel(row / block, col / block);
        let place = row % block * block + col % block;
        for (o, out) in out.chunks_exact_mut(lanes).enumerate() {
            let from = if columns_rows_depth { o * block * block + place } else { place * c + o };
            out.copy_from_slice(&x[from * lanes..][..lanes]);
        }
    }
}

/// Weighs two rows and two columns for each pixel.
pub(crate) fn resize(x: GroupValue<'_>, rows: &[Tap], cols: &[Tap], out: &mut [f32]) {
    let places = rows.iter().flat_map(|row| cols.iter().map(move |col| (row, col)));
    for (out, (r, c)) in out.chunks_exact_mut(x.shape.c * x.lanes).zip(places) {
        out.copy_from_slice(x.pixel(r.first, c.first));
        // What has no share is not read: it may be infinite.
        if c.share > 0.0 {
            mix(out, x.pixel(r.first, c.second), c.share);
        }
        if r.share > 0.0 {
            let below = [c.first, c.second].map(|col| x.pixel(r.second, col));
            for (i, out) in out.iter_mut().enumerate() {
                let second = if c.share > 0.0 { between(below[0][i], below[1][i], c.share) } else { below[0][i] };
                *out = between(*out, second, r.share);
            }
        }
    }
}

fn mix(out: &mut [f32], second: &[f32], share: f32) {
    out.iter_mut().zip(second).for_each(|(out, &second)| *out = between(*out, second, share));
}

fn between(first: f32, second: f32, share: f32) -> f32 {
    if share == 1.0 { second } else { (1.0 - share) * first + share * second }
}

/// Largest value of every channel over all pixels; NaN wins.
#[inline(always)]
pub(crate) fn global_max(x: &[f32], pixel: usize, out: &mut [f32]) {
    out.fill(f32::NEG_INFINITY);
    for x in x.chunks_exact(pixel) {
        out.iter_mut().zip(x).for_each(|(o, &x)| *o = if x > *o || x.is_nan() { x } else { *o });
    }
}

/// Scale, shift and what is added to the variance of a LayerNorm.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    /// `[channels]`
    pub scale: Vec<f32>,
    /// `[channels]`
    pub shift: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises the channels of every pixel and lane.
    pub(crate) fn run(&self, x: &[f32], lanes: usize, out: &mut [f32]) {
        let n = self.scale.len();
        for (x, out) in x.chunks_exact(n * lanes).zip(out.chunks_exact_mut(n * lanes)) {
            for lane in 0..lanes {
                let values = || x[lane..].iter().step_by(lanes);
                let mean = values().sum::<f32>() / n as f32;
                let variance = values().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n as f32;
                let factor = 1.0 / (variance + self.eps).sqrt();
                let settings = self.scale.iter().zip(&self.shift);
                let outs = out[lane..].iter_mut().step_by(lanes);
                outs.zip(values()).zip(settings).for_each(|((o, x), (scale, shift))| {
                    *o = (x - mean) * factor * scale + shift;
                });
            }
        }
    }
}
