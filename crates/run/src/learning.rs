//! Whether an agent learned: what its final policy earns without noise, against what random walks earn on the same
//! task.

use serde::{Deserialize, Serialize};

/// Standard errors by which a final policy must lie above random walks to count as better.
const STANDARD_ERRORS: f64 = 2.0;

/// The final policy of a task against random walks on it. Rewards of walks, before the final refit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgainstRandom {
    /// The last noise-free walks.
    pub noise_free_walks: usize,
    /// Mean of their rewards.
    pub noise_free_reward_mean: f64,
    /// Random walks on the task.
    pub random_walks: usize,
    /// Mean of their rewards.
    pub random_reward_mean: f64,
    /// Standard error of that mean.
    pub random_reward_standard_error: f64,
    /// Whether the mean of the noise-free walks lies more than two of the standard errors above the mean of the random
    /// ones.
    pub beats_random: bool,
}

impl AgainstRandom {
    /// None where there is nothing to judge: without noise-free walks (agents that do not learn, searches that were
    /// stopped) or with fewer than two random ones.
    pub(crate) fn judge(noise_free: &[f64], random: &[f64]) -> Option<Self> {
        let noise_free_reward_mean = mean(noise_free)?;
        let (random_reward_mean, random_reward_standard_error) = (mean(random)?, standard_error(random)?);
        Some(Self {
            noise_free_walks: noise_free.len(),
            noise_free_reward_mean,
            random_walks: random.len(),
            random_reward_mean,
            random_reward_standard_error,
            beats_random: noise_free_reward_mean > random_reward_mean + STANDARD_ERRORS * random_reward_standard_error,
        })
    }
}

/// None for no values.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard error of the mean, from the variance over n - 1; None for fewer than two values.
pub(crate) fn standard_error(values: &[f64]) -> Option<f64> {
    let (n, mean) = (values.len() as f64, mean(values)?);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean 5, squares 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32, so a variance of 32/7 and a standard error of √(4/7) =
    /// 0.7559.
    const RANDOM: [f64; 8] = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];

    #[test]
    fn means_and_standard_errors_are_those_worked_out_by_hand() {
        assert_eq!(mean(&RANDOM), Some(5.0));
        let error = standard_error(&RANDOM).unwrap();
        assert!((error - 0.755_928_946_018_454_4).abs() < 1e-15, "{error}");
        assert_eq!((mean(&[]), standard_error(&[]), standard_error(&[3.0])), (None, None, None));
        assert_eq!((standard_error(&[1.0, 1.0]), standard_error(&[0.0, 2.0])), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn a_policy_beats_random_only_by_more_than_two_standard_errors() {
        // The bar: 5 + 2 · 0.7559 = 6.5119.
        let beats = |noise_free: &[f64]| AgainstRandom::judge(noise_free, &RANDOM).unwrap().beats_random;
        assert!(beats(&[6.512]) && beats(&[6.0, 7.1]));
        assert!(!beats(&[6.511]) && !beats(&[6.0, 7.0]) && !beats(&[5.0]));
        // Mean 1, standard error 1: exactly two above is not more than two above.
        assert!(!AgainstRandom::judge(&[3.0], &[0.0, 2.0]).unwrap().beats_random);
        // Random walks that all earn the same: any more is better, the same is not.
        assert!(AgainstRandom::judge(&[0.5001], &[0.5, 0.5]).unwrap().beats_random);
        assert!(!AgainstRandom::judge(&[0.5], &[0.5, 0.5]).unwrap().beats_random);
    }

    #[test]
    fn nothing_is_judged_without_noise_free_walks_or_with_a_single_random_one() {
        assert_eq!(AgainstRandom::judge(&[], &RANDOM), None);
        assert_eq!(AgainstRandom::judge(&[9.0], &[1.0]), None);
        assert_eq!(AgainstRandom::judge(&[9.0], &[]), None);
        let judged = AgainstRandom::judge(&[7.0, 8.0], &RANDOM).unwrap();
        assert_eq!((judged.noise_free_walks, judged.random_walks, judged.noise_free_reward_mean), (2, 8, 7.5));
    }
}
