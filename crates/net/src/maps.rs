//! Shapes of operations that move, repeat or weigh values.

use crate::Shape;
use crate::tap::Tap;

/// Output shape of a sum or product of tensors of which one has the full shape, while others may have one row, one
/// column or one channel for all.
///
/// # Errors
/// Shapes that do not go together.
pub(crate) fn broadcast_shape(ins: &[Shape]) -> Result<Shape, String> {
    let most = |of: fn(&Shape) -> usize| ins.iter().map(of).max().unwrap_or(0);
    let full = Shape { c: most(|s| s.c), h: most(|s| s.h), w: most(|s| s.w) };
    let spreads = |n: usize, of: usize| n == of || n == 1;
    let fits = |s: &Shape| spreads(s.c, full.c) && spreads(s.h, full.h) && spreads(s.w, full.w);
    if ins.contains(&full) && ins.iter().all(fits) {
        return Ok(full);
    }
    Err("one input must have the full shape, and each other one either as many channels, rows and columns or 1".into())
}

/// Output shape of [`crate::Op::DepthToSpace`].
///
/// # Errors
/// Blocks that do not divide the channels, or too large an output.
pub(crate) fn depth_to_space_shape(block: usize, x: Shape) -> Result<Shape, String> {
    let grown = |a: usize| a.checked_mul(block).ok_or_else(|| format!("64 bits are too few, of input {x}"));
    let per_channel = grown(block)?;
    if per_channel == 0 || !x.c.is_multiple_of(per_channel) {
        return Err(format!("blocks of {block}x{block} do not divide the {} channels of its input", x.c));
    }
    Ok(Shape { c: x.c / per_channel, h: grown(x.h)?, w: grown(x.w)? })
}

/// Output shape of [`crate::Op::Resize`].
///
/// # Errors
/// Rows or columns that the input lacks, shares beyond 0 to 1.
pub(crate) fn resized_shape(rows: &[Tap], cols: &[Tap], x: Shape) -> Result<Shape, String> {
    check_taps("rows", rows, x.h)?;
    check_taps("columns", cols, x.w)?;
    Ok(Shape { c: x.c, h: rows.len(), w: cols.len() })
}

fn check_taps(what: &str, taps: &[Tap], n: usize) -> Result<(), String> {
    for (at, tap) in taps.iter().enumerate() {
        let Tap { first, second, share } = tap;
        if *first >= n || *second >= n {
            return Err(format!("{what}: output {at} reads {first} and {second}, its input has {n}"));
        }
        if !(0.0..=1.0).contains(share) {
            return Err(format!("{what}: output {at} has the share {share}, expected a number from 0 to 1"));
        }
    }
    Ok(())
}

/// Output shape of [`crate::Op::ChannelConv`].
///
/// # Errors
/// More zeros in front than the taps reach.
pub(crate) fn channel_conv_shape(taps: usize, front: usize, x: Shape) -> Result<Shape, String> {
    if front >= taps {
        return Err(format!("has {front} channels of zeros in front of {taps} taps, expected fewer than taps"));
    }
    Ok(x)
}

/// Output shape of [`crate::Op::GroupNorm`].
///
/// # Errors
/// Groups that do not divide the channels, or a number that may be added to no variance.
pub(crate) fn group_norm_shape(channels: usize, groups: usize, eps: f32, x: Shape) -> Result<Shape, String> {
    if channels != x.c {
        return Err(format!("normalises {channels} channels, its input {x} has {}", x.c));
    }
    // A group whose values are all the same has no variance.
    if !(eps > 0.0 && eps.is_finite()) {
        return Err(format!("eps is {eps}, expected a finite number above 0"));
    }
    part_shape("groups", groups, x).map(|_| x)
}

/// Output shape of [`crate::Op::LocalResponseNorm`] with these `[alpha, beta, bias]`.
///
/// # Errors
/// No channels to sum over, or numbers that could make what is divided by zero.
pub(crate) fn local_response_shape(size: usize, numbers: [f32; 3], x: Shape) -> Result<Shape, String> {
    let [alpha, beta, bias] = numbers;
    if size == 0 {
        return Err("sums over 0 channels, expected at least 1".into());
    }
    if !(alpha >= 0.0 && beta >= 0.0 && bias > 0.0 && numbers.iter().all(|v| v.is_finite())) {
        let expected = "expected finite numbers, alpha and beta from 0 and bias above 0";
        return Err(format!("has alpha {alpha}, beta {beta} and bias {bias}, {expected}"));
    }
    Ok(x)
}

/// Shape of one of `n` equal parts of the channels, which messages call `parts`.
///
/// # Errors
/// Parts that would not be equal.
pub(crate) fn part_shape(parts: &str, n: usize, x: Shape) -> Result<Shape, String> {
    if n == 0 || !x.c.is_multiple_of(n) {
        return Err(format!("{n} {parts} do not divide the {} channels of its input", x.c));
    }
    Ok(Shape { c: x.c / n, ..x })
}
