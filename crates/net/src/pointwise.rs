//! Functions of single values.

use serde::Serialize;

/// An element-wise function. Every one gives NaN for NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Pointwise {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x * sigmoid(x)`
    Silu,
    /// `x * relu6(x + 3) / 6`
    HardSwish,
    /// `x` from 0 on, `slope * x` below
    LeakyRelu {
        /// Factor of negative values, finite.
        slope: f32,
    },
    /// `min(max(alpha * x + beta, 0), 1)`
    HardSigmoid {
        /// Factor, finite.
        alpha: f32,
        /// Addend, finite.
        beta: f32,
    },
    /// `scale * x + shift`
    Affine {
        /// Factor, finite.
        scale: f32,
        /// Addend, finite.
        shift: f32,
    },
    /// `min(max(x, min), max)`
    Clip {
        /// Lower bound, at most `max`; minus infinity, which files leave out, where there is none.
        #[serde(skip_serializing_if = "is_infinite")]
        min: f32,
        /// Upper bound; infinity, which files leave out, where there is none.
        #[serde(skip_serializing_if = "is_infinite")]
        max: f32,
    },
    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu {
        /// Whether it is `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))` instead, which is near it.
        tanh: bool,
    },
    /// `x` from 0 on, `alpha * (exp(x) - 1)` below
    Elu {
        /// Factor of negative values, finite.
        alpha: f32,
    },
    /// `ln(1 + exp(x))`
    Softplus,
    /// `x * tanh(softplus(x))`
    Mish,
    /// `exp(x)`
    Exp,
    /// Square root; NaN of negative values
    Sqrt,
    /// `|x|`
    Abs,
    /// `-x`
    Neg,
    /// Error function
    Erf,
    /// Natural logarithm; NaN of negative values
    Log,
    /// `1 / x`
    Reciprocal,
}

impl Pointwise {
    /// One function of every kind, with parameters that are in use: for listings and tests.
    pub const EACH: [Self; 22] = [
        Self::Relu,
        Self::Relu6,
        Self::Sigmoid,
        Self::Tanh,
        Self::Silu,
        Self::HardSwish,
        Self::LeakyRelu { slope: 0.1 },
        Self::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Self::Affine { scale: 0.5, shift: -0.25 },
        Self::Clip { min: -1.0, max: 2.5 },
        Self::Gelu { tanh: false },
        Self::Gelu { tanh: true },
        Self::Elu { alpha: 1.0 },
        Self::Softplus,
        Self::Mish,
        Self::Exp,
        Self::Sqrt,
        Self::Abs,
        Self::Neg,
        Self::Erf,
        Self::Log,
        Self::Reciprocal,
    ];

    /// The function itself.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            // Not `max`: NaN must stay NaN.
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Self::LeakyRelu { slope } => {
                if x < 0.0 {
                    slope * x
                } else {
                    x
                }
            }
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::Affine { scale, shift } => scale * x + shift,
            // Not `clamp`, which panics where the bounds are in the wrong order.
            Self::Clip { min, max } => {
                let raised = if x < min { min } else { x };
                if raised > max { max } else { raised }
            }
            Self::Gelu { tanh: false } => gelu(x),
            Self::Gelu { tanh: true } => gelu_by_tanh(x),
            Self::Elu { alpha } if x < 0.0 => alpha * x.exp_m1(),
            Self::Elu { .. } => x,
            Self::Softplus => softplus(x),
            Self::Mish => x * softplus(x).tanh(),
            Self::Exp => x.exp(),
            Self::Sqrt => x.sqrt(),
            Self::Abs => x.abs(),
            Self::Neg => -x,
            Self::Erf => libm::erff(x),
            Self::Log => x.ln(),
            Self::Reciprocal => x.recip(),
        }
    }

    /// Whether its parameters make sense.
    ///
    /// # Errors
    /// The first that does not: which function, which parameter, what was expected.
    pub(crate) fn check(self) -> Result<(), String> {
        let finite = |function: &str, parameter: &str, value: f32| {
            let problem = || format!("{function}: {parameter} is {value}, expected a finite number");
            if value.is_finite() { Ok(()) } else { Err(problem()) }
        };
        match self {
            Self::LeakyRelu { slope } => finite("LeakyRelu", "slope", slope),
            Self::Elu { alpha } => finite("Elu", "alpha", alpha),
            Self::HardSigmoid { alpha, beta } => {
                finite("HardSigmoid", "alpha", alpha)?;
                finite("HardSigmoid", "beta", beta)
            }
            Self::Affine { scale, shift } => {
                finite("Affine", "scale", scale)?;
                finite("Affine", "shift", shift)
            }
            // NaN is at most nothing.
            Self::Clip { min, max } if !(min <= max && min < f32::INFINITY && max > f32::NEG_INFINITY) => {
                Err(format!("Clip: min is {min} and max {max}, expected min to be at most max"))
            }
            _ => Ok(()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_infinite(bound: &f32) -> bool {
    bound.is_infinite()
}

/// In f64, and with what is beside 1: a sum of 1 and nearly -1 keeps no digit of small results.
fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    let share = 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    // Minus infinity times 0 is 0 here, the limit.
    if share == 0.0 { 0.0 } else { (x * share) as f32 }
}

fn gelu_by_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x);
    // (1 + tanh(z)) / 2 without its cancellation.
    let share = 1.0 / (1.0 + (-2.0 * inner).exp());
    if share == 0.0 { 0.0 } else { (x * share) as f32 }
}

/// `exp` of a large value is infinite, its logarithm is not.
fn softplus(x: f32) -> f32 {
    // Not `max`: NaN must stay NaN.
    let above = if x < 0.0 { 0.0 } else { x };
    above + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of [`GOLDEN`], in its order.
    #[test]
    fn functions_are_those_of_pytorch() {
        let functions = [
            Pointwise::Gelu { tanh: false },
            Pointwise::Gelu { tanh: true },
            Pointwise::Elu { alpha: 1.5 },
            Pointwise::Softplus,
            Pointwise::Mish,
            Pointwise::Erf,
            Pointwise::LeakyRelu { slope: 0.2 },
        ];
        for (x, expected) in GOLDEN {
            for (function, &wanted) in functions.iter().zip(&expected) {
                let got = f64::from(function.apply(x));
                let close = (got - wanted).abs() <= 3e-7 * wanted.abs();
                assert!(close, "{function:?}({x}): got {got:e}, expected {wanted:e}");
            }
        }
    }

    /// From PyTorch 2.15 in double precision, `F` being torch.nn.functional, for each x: `F.gelu(x)`,
    /// `F.gelu(x, approximate="tanh")`, `F.elu(x, alpha=1.5)`, `F.softplus(x)`, `F.mish(x)`, `torch.erf(x)`,
    /// `F.leaky_relu(x, 0.2)`
    const GOLDEN: [(f32, [f64; 7]); 8] = [
        (
            -4.0,
            [
                -0.00012668496733247991,
                -7.024594819227126e-05,
                -1.4725265416668987,
                0.018149927917809738,
                -0.07259174079202535,
                -0.9999999845827421,
                -0.800000011920929,
            ],
        ),
        (
            -3.0,
            [
                -0.00404969409489031,
                -0.0036373920817729943,
                -1.4253193974482041,
                0.04858735157374206,
                -0.1456474612756246,
                -0.9999779095030014,
                -0.6000000089406967,
            ],
        ),
        (
            -1.0,
            [
                -0.15865525393145702,
                -0.15880800939172324,
                -0.9481808382428365,
                0.31326168751822286,
                -0.30340146137410895,
                -0.8427007929497149,
                -0.20000000298023224,
            ],
        ),
        (
            -0.25,
            [
                -0.10032341857926907,
                -0.100324649298315,
                -0.3317988253928927,
                0.5759394198788436,
                -0.129926963679141,
                -0.27632639016823696,
                -0.05000000074505806,
            ],
        ),
        (0.0, [0.0, 0.0, 0.0, std::f64::consts::LN_2, 0.0, 0.0, 0.0]),
        (
            0.5,
            [
                0.34573123063700656,
                0.34571400982514394,
                0.5,
                0.9740769841801067,
                0.3752452113048951,
                0.5204998778130465,
                0.5,
            ],
        ),
        (
            2.0,
            [
                1.9544997361036416,
                1.954597694087775,
                2.0,
                2.1269280110429727,
                1.9439589595339946,
                0.9953222650189527,
                2.0,
            ],
        ),
        (
            5.0,
            [4.999998566742141, 4.999999770820381, 5.0, 5.006715348489118, 4.999552077529406, 0.9999999999984626, 5.0],
        ),
    ];

    #[test]
    fn nan_stays_nan_and_limits_are_no_nan() {
        for function in Pointwise::EACH {
            assert!(function.apply(f32::NAN).is_nan(), "{function:?}");
            let of_negative = matches!(function, Pointwise::Sqrt | Pointwise::Log);
            assert!(of_negative || !function.apply(-1e30).is_nan(), "{function:?}");
            assert!(!function.apply(1e30).is_nan(), "{function:?}");
        }
    }

    #[test]
    fn functions_that_are_clamps_keep_what_lies_between() {
        let clip = |min, max| Pointwise::Clip { min, max };
        assert_eq!([-9.0, 0.5, 9.0].map(|x| clip(-1.0, 2.0).apply(x)), [-1.0, 0.5, 2.0]);
        assert_eq!([-9.0, 9.0].map(|x| clip(f32::NEG_INFINITY, 2.0).apply(x)), [-9.0, 2.0]);
        assert_eq!([-9.0, 9.0].map(|x| clip(-1.0, f32::INFINITY).apply(x)), [-1.0, 9.0]);
        let hard = Pointwise::HardSigmoid { alpha: 0.25, beta: 0.5 };
        assert_eq!([-3.0, -1.0, 0.0, 1.0, 3.0].map(|x| hard.apply(x)), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn parameters_without_sense_are_named() {
        let nan = f32::NAN;
        for (function, part) in [
            (Pointwise::LeakyRelu { slope: nan }, "LeakyRelu: slope is NaN"),
            (Pointwise::Elu { alpha: f32::INFINITY }, "Elu: alpha is inf"),
            (Pointwise::HardSigmoid { alpha: nan, beta: 0.0 }, "HardSigmoid: alpha is NaN"),
            (Pointwise::Affine { scale: nan, shift: 0.0 }, "Affine: scale is NaN"),
            (Pointwise::Affine { scale: 1.0, shift: f32::INFINITY }, "Affine: shift is inf"),
            (Pointwise::HardSigmoid { alpha: 0.0, beta: f32::NEG_INFINITY }, "HardSigmoid: beta is -inf"),
            (Pointwise::Clip { min: 2.0, max: 1.0 }, "Clip: min is 2 and max 1"),
            (Pointwise::Clip { min: nan, max: 1.0 }, "Clip: min is NaN"),
            (Pointwise::Clip { min: f32::INFINITY, max: f32::INFINITY }, "Clip: min is inf"),
        ] {
            let error = function.check().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for function in Pointwise::EACH {
            assert_eq!(function.check(), Ok(()), "{function:?}");
        }
        let open = Pointwise::Clip { min: 0.0, max: f32::INFINITY };
        assert_eq!(open.check(), Ok(()));
    }
}
