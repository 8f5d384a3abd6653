//! Maps whose vectors are channels, and operations that only move their values.

use secateur_net::Shape;

/// How one image's value lies in memory: `[H, W, pitch]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelMap {
    /// Rows, columns and channels.
    pub shape: Shape,
    /// From one pixel to the next: at least the channels.
    pub pitch: usize,
}

impl ChannelMap {
    /// With channels rounded up to whole vectors.
    pub(crate) const fn padded(shape: Shape, lanes: usize) -> Self {
        Self { shape, pitch: shape.c.next_multiple_of(lanes) }
    }
    /// Without anything between channels of one pixel and the next, as images are given.
    pub(crate) const fn dense(shape: Shape) -> Self {
        Self { shape, pitch: shape.c }
    }
    /// Values of an image.
    pub(crate) const fn len(&self) -> usize {
        self.shape.h * self.shape.w * self.pitch
    }
    /// The same with what lies behind the last channel counted as channels.
    pub(crate) const fn whole(&self) -> Shape {
        Shape { c: self.pitch, ..self.shape }
    }
}

/// Copies channels `from .. from + c` of every pixel of `x` to channels `to .. to + c` of every pixel of `out`.
pub(crate) fn copy_channels(x: &[f32], out: &mut [f32], c: usize, [from, to]: [usize; 2], pitches: [usize; 2]) {
    for (x, out) in x.chunks_exact(pitches[0]).zip(out.chunks_exact_mut(pitches[1])) {
        out[to..to + c].copy_from_slice(&x[from..from + c]);
    }
}

/// Channels of each pixel, seen as `[n_groups, c / n_groups]`, transposed.
pub(crate) fn shuffle(x: &[f32], out: &mut [f32], c: usize, n_groups: usize, pitches: [usize; 2]) {
    let per_group = c / n_groups;
    for (x, out) in x.chunks_exact(pitches[0]).zip(out.chunks_exact_mut(pitches[1])) {
        if n_groups == 2 {
            // ShuffleNet's: neighbours in pairs, which become vectors.
            let (first, second) = x[..c].split_at(per_group);
            let (pairs, _) = out[..c].as_chunks_mut();
            pairs.iter_mut().zip(first).zip(second).for_each(|((pair, &a), &b)| *pair = [a, b]);
            continue;
        }
        for (group, x) in x[..c].chunks_exact(per_group).enumerate() {
            out[group..c].iter_mut().step_by(n_groups).zip(x).for_each(|(o, &x)| *o = x);
        }
    }
}
