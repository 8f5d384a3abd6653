//! Derivatives of functions of single values. Where there is none, at a corner, they are those that PyTorch takes.

use secateur_net::Pointwise;

/// The derivative of `function` at `x`.
pub(crate) fn derivative(function: Pointwise, x: f32) -> f32 {
    match function {
        Pointwise::Relu => step(x > 0.0),
        Pointwise::Relu6 => step(x > 0.0 && x < 6.0),
        Pointwise::Sigmoid => {
            let s = sigmoid(x);
            s * (1.0 - s)
        }
        Pointwise::Tanh => 1.0 - x.tanh().powi(2),
        Pointwise::Silu => {
            let s = sigmoid(x);
            // Minus infinity times 0 is 0 here, the limit.
            if s == 0.0 { 0.0 } else { s * (1.0 + x * (1.0 - s)) }
        }
        Pointwise::HardSwish if x <= -3.0 => 0.0,
        Pointwise::HardSwish if x >= 3.0 => 1.0,
        Pointwise::HardSwish => (2.0 * x + 3.0) / 6.0,
        Pointwise::LeakyRelu { .. } if x > 0.0 => 1.0,
        Pointwise::LeakyRelu { slope } => slope,
        Pointwise::HardSigmoid { alpha, beta } => {
            let value = alpha * x + beta;
            alpha * step(value > 0.0 && value < 1.0)
        }
        Pointwise::Affine { scale, .. } => scale,
        Pointwise::Clip { min, max } => step(x >= min && x <= max),
        Pointwise::Gelu { tanh: false } => {
            let (x, share) = (f64::from(x), f64::from(Pointwise::Erf.apply(x * std::f32::consts::FRAC_1_SQRT_2)));
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            (0.5 * (1.0 + share) + x * density) as f32
        }
        Pointwise::Gelu { tanh: true } => {
            let x = f64::from(x);
            let factor = std::f64::consts::FRAC_2_PI.sqrt();
            let t = (factor * (x + 0.044_715 * x.powi(3))).tanh();
            (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * factor * (1.0 + 3.0 * 0.044_715 * x * x)) as f32
        }
        Pointwise::Elu { alpha } if x < 0.0 => alpha * x.exp(),
        Pointwise::Elu { .. } => 1.0,
        Pointwise::Softplus => sigmoid(x),
        Pointwise::Mish => {
            let t = Pointwise::Softplus.apply(x).tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        Pointwise::Exp => x.exp(),
        Pointwise::Sqrt => 0.5 / x.sqrt(),
        Pointwise::Abs => step(x > 0.0) - step(x < 0.0),
        Pointwise::Neg => -1.0,
        Pointwise::Erf => std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp(),
        Pointwise::Log => x.recip(),
        Pointwise::Reciprocal => -(x * x).recip(),
    }
}

fn step(is_on: bool) -> f32 {
    f32::from(u8::from(is_on))
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_are_differences_of_the_functions() {
        for function in Pointwise::EACH {
            for i in 0..80 {
                let x = 0.1 * (i as f32) - 3.95;
                let apply = |x: f64| f64::from(function.apply(x as f32));
                // A power of two, so that both arguments are f32.
                let h = 2.0f64.powi(-8);
                let (at, below, above) = (f64::from(x), apply(f64::from(x) - h), apply(f64::from(x) + h));
                if !(below.is_finite() && above.is_finite()) {
                    continue;
                }
                let is_corner = [-3.0, -2.5, -1.0, 0.0, 2.5, 3.0, 6.0].iter().any(|c: &f64| (at - c).abs() < 2.0 * h);
                let (got, wanted) = (f64::from(derivative(function, x)), (above - below) / (2.0 * h));
                let tolerance = 3e-4 * (1.0 + wanted.abs()) * if x.abs() < 0.2 { 30.0 } else { 1.0 };
                assert!(is_corner || (got - wanted).abs() <= tolerance, "{function:?} at {x}: {got}, not {wanted}");
            }
        }
    }
}
