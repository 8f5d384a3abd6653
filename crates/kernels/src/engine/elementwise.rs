//! Operations on single values: activations, sums, per-channel scale and shift, softmax.

use secateur_net::Pointwise;

use crate::simd::isa::Isa;

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
pub(crate) fn activate_all(isa: Isa, function: Pointwise, values: &mut [f32]) {
    match function {
        // Each in a loop of its own with its parameters outside, which becomes vector instructions.
        Pointwise::LeakyRelu { slope } => replace(isa, values, |x| if x < 0.0 { slope * x } else { x }),
        Pointwise::HardSigmoid { alpha, beta } => replace(isa, values, |x| clamp(alpha * x + beta, 0.0, 1.0)),
        Pointwise::Affine { scale, shift } => replace(isa, values, |x| scale * x + shift),
        Pointwise::Sigmoid => replace(isa, values, |x| 1.0 / (1.0 + exp(-x))),
        Pointwise::Silu => replace(isa, values, |x| x / (1.0 + exp(-x))),
        Pointwise::HardSwish => replace(isa, values, |x| x * clamp(x + 3.0, 0.0, 6.0) / 6.0),
        _ => match clamp_bounds(function) {
            Some([low, high]) => replace(isa, values, |x| clamp(x, low, high)),
            None => replace(isa, values, |x| function.apply(x)),
        },
    }
}

/// One short loop for each instruction set: a longer one, of all functions, would not be inlined there and keep the
/// instructions of any processor.
#[inline(always)]
fn replace(isa: Isa, values: &mut [f32], function: impl Fn(f32) -> f32) {
    isa.vectorized(|| values.iter_mut().for_each(|x| *x = function(*x)));
}

/// e^x within three units in the last place, without a branch: 2^n times a polynomial of the rest (Cody and Waite 1980,
/// "Software Manual for the Elementary Functions", chapter 6; coefficients of Cephes' `expf`). Not below 1e-38.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it leaves a whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // Of the logarithm of 2: a part of few bits, whose multiples are exact, and what is left.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const FIRST: f32 = 1.987_569_1e-4;
    const OTHERS: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5];
    let raised = if x < -87.0 { -87.0 } else { x };
    let shifted = raised * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let rest = (raised - n * LN_2[0]) - n * LN_2[1];
    let polynomial = OTHERS.iter().fold(FIRST, |sum, &c| sum * rest + c);
    let power = polynomial * rest * rest + rest + 1.0;
    let scaled = f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23));
    let finite = if x > 88.7 { f32::INFINITY } else { scaled };
    if x.is_nan() { x } else { finite }
}

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let raised = if x < low { low } else { x };
    if raised > high { high } else { raised }
}

/// `out += x`
#[inline(always)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_e_are_exact_to_three_units_in_the_last_place() {
        for i in 0..=2_000_000 {
            let x = -87.0 + i as f32 * (88.6 + 87.0) / 2e6;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3.0 * f64::from(f32::EPSILON) / 2.0, "exp({x}): {error:e}");
        }
        assert_eq!([exp(0.0), exp(1e30), exp(f32::INFINITY)], [1.0, f32::INFINITY, f32::INFINITY]);
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(-1e30) < 2e-38);
        assert!(exp(f32::NAN).is_nan() && exp(f32::from_bits(0x7fc0_01ff)).is_nan());
    }

    #[test]
    fn activations_of_many_values_are_those_of_each() {
        let values: Vec<f32> = (-3000..3000).map(|i| i as f32 * 0.02).chain([1e30, -1e30, f32::NAN, 0.0]).collect();
        for (isa, function) in Isa::available().into_iter().flat_map(|isa| Pointwise::EACH.map(|f| (isa, f))) {
            let mut got = values.clone();
            activate_all(isa, function, &mut got);
            for (&x, got) in values.iter().zip(got) {
                let expected = activate(function, x);
                let close = (got - expected).abs() <= 1e-6 * expected.abs().max(1e-3);
                assert!(close || got == expected || got.is_nan() && expected.is_nan(), "{function:?}({x}): {got}");
            }
        }
    }
}
