//! Operations that only move values: padding, slicing, concatenation, flattening.

use secateur_net::Shape;

/// Copies one image `[H, W, C]` into the middle of `out`, which has `rows`, `cols` and `channels` zeros before and
/// behind.
pub(crate) fn pad(x: &[f32], shape: Shape, channels: [usize; 2], rows: [usize; 2], cols: [usize; 2], out: &mut [f32]) {
    let width = channels[0] + shape.c + channels[1];
    let row = (cols[0] + shape.w + cols[1]) * width;
    let (top, rest) = out.split_at_mut(rows[0] * row);
    let (body, bottom) = rest.split_at_mut(shape.h * row);
    top.fill(0.0);
    bottom.fill(0.0);
    let [front, back] = channels;
    for (from, to) in x.chunks_exact(shape.w * shape.c).zip(body.chunks_exact_mut(row)) {
        let (left, rest) = to.split_at_mut(cols[0] * width);
        let (middle, right) = rest.split_at_mut(shape.w * width);
        left.fill(0.0);
        right.fill(0.0);
        if front + back == 0 {
            middle.copy_from_slice(from);
        } else {
            for (from, to) in from.chunks_exact(shape.c).zip(middle.chunks_exact_mut(width)) {
                to[..front].fill(0.0);
                to[front..front + shape.c].copy_from_slice(from);
                to[front + shape.c..].fill(0.0);
            }
        }
    }
}

/// Keeps channels `channels[0]..channels[1]` and every `step`-th row and column of one image.
pub(crate) fn slice(x: &[f32], shape: Shape, channels: [usize; 2], step: [usize; 2], out: &mut [f32]) {
    let kept = channels[1] - channels[0];
    let rows = x.chunks_exact(shape.w * shape.c).step_by(step[0]);
    let pixels = rows.flat_map(|row| row.chunks_exact(shape.c).step_by(step[1]));
    for (from, to) in pixels.zip(out.chunks_exact_mut(kept)) {
        to.copy_from_slice(&from[channels[0]..channels[1]]);
    }
}

/// Writes the `c` channels of every pixel of `x` to channels `at..at + c` of `out`, which has `width` channels.
pub(crate) fn copy_channels(x: &[f32], c: usize, at: usize, width: usize, out: &mut [f32]) {
    for (from, to) in x.chunks_exact(c).zip(out.chunks_exact_mut(width)) {
        to[at..at + c].copy_from_slice(from);
    }
}

/// `[H, W, C, lanes]` to channel-major `[C, H, W, lanes]`, the order of PyTorch's flatten.
pub(crate) fn flatten(x: &[f32], shape: Shape, lanes: usize, out: &mut [f32]) {
    let n_pixels = shape.h * shape.w;
    for (i, from) in x.chunks_exact(lanes).enumerate() {
        let (pixel, c) = (i / shape.c, i % shape.c);
        out[(c * n_pixels + pixel) * lanes..][..lanes].copy_from_slice(from);
    }
}
