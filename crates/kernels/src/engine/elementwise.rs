//! Operations on single values: activations, sums, per-channel scale and shift, softmax.

use secateur_net::Pointwise;

/// The function of an activation node. Unlike `f32::max`, rectifiers let NaN through, as PyTorch does: a broken image
/// must not look sound.
pub(crate) fn activate(function: Pointwise, x: f32) -> f32 {
    match function {
        Pointwise::Relu | Pointwise::Relu6 if x.is_nan() => x,
        _ => function.apply(x),
    }
}

/// Bounds that make a fused clamp equal to `function`; `None` when it is no clamp.
pub(crate) const fn clamp_bounds(function: Pointwise) -> Option<[f32; 2]> {
    match function {
        Pointwise::Relu => Some([0.0, f32::INFINITY]),
        Pointwise::Relu6 => Some([0.0, 6.0]),
        Pointwise::Clip { min, max } => Some([min, max]),
        _ => None,
    }
}

/// Applies `function` to every value in place.
pub(crate) fn activate_all(function: Pointwise, values: &mut [f32]) {
    match function {
        // Each in a loop of its own with its parameters outside, which becomes vector instructions.
        Pointwise::LeakyRelu { slope } => replace(values, |x| if x < 0.0 { slope * x } else { x }),
        Pointwise::HardSigmoid { alpha, beta } => replace(values, |x| clamp(alpha * x + beta, 0.0, 1.0)),
        Pointwise::Affine { scale, shift } => replace(values, |x| scale * x + shift),
        Pointwise::HardSwish => replace(values, |x| x * clamp(x + 3.0, 0.0, 6.0) / 6.0),
        _ => match clamp_bounds(function) {
            Some([low, high]) => replace(values, |x| clamp(x, low, high)),
            None => replace(values, |x| function.apply(x)),
        },
    }
}

#[inline(always)]
fn replace(values: &mut [f32], function: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|x| *x = function(*x));
}

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

/// `out += x`
pub(crate) fn add_to(out: &mut [f32], x: &[f32]) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += x);
}

/// `out = x * scale + shift` per channel.
pub(crate) fn scale_shift(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
    let c = scale.len();
    for (from, to) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
        for i in 0..c {
            to[i] = from[i] * scale[i] + shift[i];
        }
    }
}

/// `x` from 0 on, `slope * x` below, with a slope per channel.
pub(crate) fn slopes(x: &[f32], slopes: &[f32], out: &mut [f32]) {
    for (from, to) in x.chunks_exact(slopes.len()).zip(out.chunks_exact_mut(slopes.len())) {
        for ((to, &x), slope) in to.iter_mut().zip(from).zip(slopes) {
            *to = if x < 0.0 { slope * x } else { x };
        }
    }
}

/// Softmax over the `c` channels of every pixel and lane.
pub(crate) fn softmax(x: &[f32], c: usize, lanes: usize, out: &mut [f32]) {
    for (from, to) in x.chunks_exact(c * lanes).zip(out.chunks_exact_mut(c * lanes)) {
        for lane in 0..lanes {
            let values = || from[lane..].iter().step_by(lanes);
            let max = values().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = values().map(|x| (x - max).exp()).sum();
            to[lane..].iter_mut().step_by(lanes).zip(values()).for_each(|(t, x)| *t = (x - max).exp() / sum);
        }
    }
}
