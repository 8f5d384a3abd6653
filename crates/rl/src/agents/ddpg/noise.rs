//! Exploration noise: the normal distribution truncated to [0, 1].

use crate::rng::RngStream;

/// Draws before the mean is taken. With a deviation of at most 1 and a mean in [0, 1] a third of all draws are inside,
/// so this never happens.
const DRAWS_MAX: usize = 256;

/// A number in [0, 1] from N(`mean`, `sigma`^2), given that it is in there; `mean` in [0, 1], `sigma` at most 1.
pub(super) fn truncated_normal(mean: f32, sigma: f32, rng: &mut RngStream) -> f32 {
    let draws = std::iter::repeat_with(|| f64::from(mean) + f64::from(sigma) * rng.normal());
    let inside = draws.take(DRAWS_MAX).find(|draw| (0.0..=1.0).contains(draw));
    inside.map_or(mean, |draw| draw as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of the truncated normal, by integrating its density.
    fn moments(mean: f64, sigma: f64) -> [f64; 2] {
        let mut sums = [0.0; 3];
        for i in 0..100_000 {
            let x = (f64::from(i) + 0.5) / 100_000.0;
            let density = (-0.5 * ((x - mean) / sigma).powi(2)).exp();
            [1.0, x, x * x].into_iter().zip(&mut sums).for_each(|(power, sum)| *sum += power * density);
        }
        let first = sums[1] / sums[0];
        [first, sums[2] / sums[0] - first * first]
    }

    #[test]
    fn draws_have_the_moments_of_the_truncated_normal_and_never_leave_it() {
        for (place, (mean, sigma)) in [(0.5, 0.5), (0.0, 0.5), (0.95, 0.1), (1.0, 1.0), (0.3, 0.001)].iter().enumerate()
        {
            let mut rng = RngStream::new(4, place as u64, 0, 0);
            let draws: Vec<f64> = (0..40_000).map(|_| truncated_normal(*mean, *sigma, &mut rng).into()).collect();
            assert!(draws.iter().all(|x| (0.0..=1.0).contains(x)));
            let n = draws.len() as f64;
            let first = draws.iter().sum::<f64>() / n;
            let second = draws.iter().map(|x| (x - first).powi(2)).sum::<f64>() / n;
            let [expected_mean, expected_variance] = moments((*mean).into(), (*sigma).into());
            assert!((first - expected_mean).abs() < 5.0 * (expected_variance / n).sqrt(), "{mean} {sigma}: {first}");
            assert!((second - expected_variance).abs() < 0.04 * expected_variance, "{mean} {sigma}: {second}");
        }
    }
}
