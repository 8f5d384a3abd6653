//! Running mean and variance of the rewards of one task.

use crate::error::RlError;
use crate::state::{StateReader, StateWriter};

/// The mean forgets rewards older than about this many walks, because the policy that earned them is gone.
const MEMORY_WALKS: f64 = 64.0;
/// Least standard deviation assumed, in accuracy: one image of a thousand.
const SIGMA_MIN: f64 = 1e-3;

/// Running mean and variance of a task's rewards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewardStats {
    count: f64,
    mean: f64,
    variance: f64,
}

impl RewardStats {
    /// Takes note of the reward of a walk.
    pub fn add(&mut self, reward: f64) {
        self.count += 1.0;
        let rate = self.count.min(MEMORY_WALKS).recip();
        let deviation = reward - self.mean;
        self.mean += rate * deviation;
        self.variance = (1.0 - rate) * (self.variance + rate * deviation * deviation);
    }

    /// The reward of a walk's end in units of standard deviations from the mean.
    pub fn standardise(&self, reward: f64) -> f64 {
        (reward - self.mean) / self.variance.sqrt().max(SIGMA_MIN)
    }

    /// Writes three numbers as the array `name`.
    pub(crate) fn save(&self, name: &str, writer: &mut StateWriter) {
        writer.put_f64(name, &[self.count, self.mean, self.variance]);
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`RlError::State`] if it is damaged.
    pub(crate) fn load(name: &str, reader: &StateReader) -> Result<Self, RlError> {
        match reader.f64(name)?[..] {
            [count, mean, variance] if [count, mean, variance].iter().all(|x| x.is_finite()) => {
                Ok(Self { count, mean, variance })
            }
            _ => Err(RlError::State { what: format!("{name}: expected three finite numbers") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RewardStats;

    #[test]
    fn reward_statistics_are_the_mean_and_variance_of_few_rewards() {
        let mut stats = RewardStats::default();
        [0.5, 0.7, 0.6].into_iter().for_each(|reward| stats.add(reward));
        // Mean .6, population variance .02 / 3.
        assert!((stats.standardise(0.6)).abs() < 1e-12);
        assert!((stats.standardise(0.7) - 0.1 / (0.02f64 / 3.0).sqrt()).abs() < 1e-9);
    }
}
