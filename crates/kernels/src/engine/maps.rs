//! Operations that move, repeat or weigh values of a group of images, `[H, W, C, LANES]`.

use secateur_net::{Shape, Tap};

/// How operands become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    /// Of an Add.
    Sum,
    /// Of a Mul.
    Product,
}

/// `out = x` (`how` is `None`), `out + x` or `out * x`, where `x` of shape `from` may have one row, column or channel
/// for all of `to`.
pub(crate) fn combine(
    how: Option<Combination>,
    (x, from): (&[f32], Shape),
    (out, to): (&mut [f32], Shape),
    lanes: usize,
) {
    let into = |out: &mut [f32], x: &[f32]| match how {
        None => out.copy_from_slice(x),
        Some(Combination::Sum) => out.iter_mut().zip(x).for_each(|(o, x)| *o += x),
        Some(Combination::Product) => out.iter_mut().zip(x).for_each(|(o, x)| *o *= x),
    };
    if from == to {
        return into(out, x);
    }
    for (pixel, out) in out.chunks_exact_mut(to.c * lanes).enumerate() {
        let (row, col) = (pixel / to.w, pixel % to.w);
        let at = if from.h == 1 { 0 } else { row } * from.w + if from.w == 1 { 0 } else { col };
        let x = &x[at * from.c * lanes..][..from.c * lanes];
        if from.c == to.c {
            into(out, x);
        } else {
            out.chunks_exact_mut(lanes).for_each(|out| into(out, x));
        }
    }
}

/// Channels of each pixel of `c`, seen as `[n_groups, c / n_groups]`, transposed.
pub(crate) fn shuffle(x: &[f32], c: usize, n_groups: usize, lanes: usize, out: &mut [f32]) {
    let per_group = c / n_groups;
    for (x, out) in x.chunks_exact(c * lanes).zip(out.chunks_exact_mut(c * lanes)) {
        for (o, out) in out.chunks_exact_mut(lanes).enumerate() {
            let from = o % n_groups * per_group + o / n_groups;
            out.copy_from_slice(&x[from * lanes..][..lanes]);
        }
    }
}

/// Every pixel of an image of `from` becomes `block` rows and columns of one of `to`.
pub(crate) fn depth_to_space(
    (x, from): (&[f32], Shape),
    (block, columns_rows_depth): (usize, bool),
    (out, to): (&mut [f32], Shape),
    lanes: usize,
) {
    for (pixel, out) in out.chunks_exact_mut(to.c * lanes).enumerate() {
        let (row, col) = (pixel / to.w, pixel % to.w);
        let x = &x[(row / block * from.w + col / block) * from.c * lanes..][..from.c * lanes];
        let place = row % block * block + col % block;
        for (c, out) in out.chunks_exact_mut(lanes).enumerate() {
            let from = if columns_rows_depth { c * block * block + place } else { place * to.c + c };
            out.copy_from_slice(&x[from * lanes..][..lanes]);
        }
    }
}

/// Weighs two rows and two columns of an image of `w` columns of `pixel` values for each pixel.
pub(crate) fn resize(x: &[f32], (w, pixel): (usize, usize), rows: &[Tap], cols: &[Tap], out: &mut [f32]) {
    let at = |row: usize, col: usize| &x[(row * w + col) * pixel..][..pixel];
    let mut out = out.chunks_exact_mut(pixel);
    for (r, c) in rows.iter().flat_map(|r| cols.iter().map(move |c| (r, c))) {
        let Some(out) = out.next() else { return };
        out.copy_from_slice(at(r.first, c.first));
        // What has no share is not read: it may be infinite.
        if c.share > 0.0 {
            mix(out, at(r.first, c.second), c.share);
        }
        if r.share > 0.0 {
            let below = (at(r.second, c.first), at(r.second, c.second));
            for (i, out) in out.iter_mut().enumerate() {
                let second = if c.share > 0.0 { between(below.0[i], below.1[i], c.share) } else { below.0[i] };
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
