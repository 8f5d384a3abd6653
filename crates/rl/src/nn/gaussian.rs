//! The normal distribution of raw actions.

use candle_core::Tensor;

/// ln(sqrt(2 pi)).
pub(crate) const LN_SQRT_TAU: f64 = 0.918_938_533_204_672_8;

/// Log-density of `x` under N(`mean`, `sigma`^2).
pub fn log_prob(x: f32, mean: f32, sigma: f32) -> f32 {
    let z = f64::from(x - mean) / f64::from(sigma);
    (-0.5 * z * z - libm::log(f64::from(sigma)) - LN_SQRT_TAU) as f32
}

/// The same, elementwise, given the variance.
pub(crate) fn log_prob_tensor(x: &Tensor, mean: &Tensor, variance: &Tensor) -> candle_core::Result<Tensor> {
    let scaled = ((x - mean)?.sqr()? / variance)?;
    ((scaled + variance.log()?)? * -0.5)? - LN_SQRT_TAU
}

/// Entropy in nats, elementwise, given the variance.
pub(crate) fn entropy_tensor(variance: &Tensor) -> candle_core::Result<Tensor> {
    (variance.log()? * 0.5)? + (LN_SQRT_TAU + 0.5)
}

/// ln(1 + e^x) without overflow.
pub(crate) fn softplus_tensor(x: &Tensor) -> candle_core::Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

/// ln(1 + e^x) without overflow.
pub(crate) fn softplus(x: f32) -> f32 {
    let x = f64::from(x);
    (x.max(0.0) + libm::log1p(libm::exp(-x.abs()))) as f32
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// (1 / (sigma sqrt(2 pi))) exp(-(x - mean)^2 / (2 sigma^2)), integrated to check that it is a density.
    #[test]
    fn log_prob_is_the_normal_density_and_integrates_to_one() {
        let density = |x: f64| (-(x - 0.3).powi(2) / (2.0 * 0.49)).exp() / (0.7 * std::f64::consts::TAU.sqrt());
        let mut mass = 0.0;
        for i in 0..2000 {
            let x = -5.0 + 0.005 * f64::from(i);
            let got = f64::from(log_prob(x as f32, 0.3, 0.7)).exp();
            assert!((got - density(x)).abs() < 1e-6);
            mass += got * 0.005;
        }
        assert!((mass - 1.0).abs() < 1e-4);
    }

    #[test]
    fn tensor_forms_agree_with_scalars() {
        let tensor = |v: &[f32]| Tensor::from_slice(v, v.len(), &Device::Cpu).unwrap();
        let got = log_prob_tensor(&tensor(&[0.2, -3.0]), &tensor(&[0.1, 0.5]), &tensor(&[0.25, 2.25])).unwrap();
        for (g, e) in got.to_vec1::<f32>().unwrap().iter().zip([log_prob(0.2, 0.1, 0.5), log_prob(-3.0, 0.5, 1.5)]) {
            assert!((g - e).abs() < 1e-5);
        }
        let x = [-80.0f32, -1.0, 0.0, 2.0, 80.0];
        for (g, &x) in softplus_tensor(&tensor(&x)).unwrap().to_vec1::<f32>().unwrap().iter().zip(&x) {
            assert!((g - softplus(x)).abs() <= 1e-6 * g.abs().max(1.0));
        }
        // Entropy of the unit normal: ln(2 pi e) / 2 = 1.4189385.
        let entropy = entropy_tensor(&tensor(&[1.0])).unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((entropy - 1.418_938_5).abs() < 1e-6);
    }
}
