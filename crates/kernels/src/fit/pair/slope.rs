//! Slopes of element-wise functions.

use secateur_net::Pointwise;

/// Half the distance over which a slope is measured.
const REACH: f32 = 1.0 / 256.0;

/// Multiplies `values` by the slopes of `functions`, one after the other, at `inputs`. Where a function bends within
/// [`REACH`], the slope is between those on either side.
pub(crate) fn multiply_by_slopes(functions: &[Pointwise], inputs: &[f32], values: &mut [f32]) {
    match functions {
        [] => {}
        [Pointwise::Relu] => {
            for (value, &x) in values.iter_mut().zip(inputs) {
                *value = if x > 0.0 { *value } else { 0.0 };
            }
        }
        _ => {
            for (value, &x) in values.iter_mut().zip(inputs) {
                let mut at = x;
                for function in functions {
                    *value *= (function.apply(at + REACH) - function.apply(at - REACH)) / (2.0 * REACH);
                    at = function.apply(at);
                }
            }
        }
    }
}
