//! What of a task's rewards is learned.

use super::settings::RewardScale;
use crate::error::RlError;
use crate::returns::reward_stats::RewardStats;
use crate::state::{StateReader, StateWriter};

/// What is remembered of the rewards of one task: the baseline of its budget.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TaskReward {
    n_walks: f64,
    mean: f64,
    stats: RewardStats,
}

impl TaskReward {
    /// Takes note of the reward of a walk. CACP's constants to start the mean from are for one network; here it is that
    /// of the walks so far, until they are more than the rate remembers.
    pub(super) fn add(&mut self, reward: f64, scale: RewardScale) {
        self.n_walks += 1.0;
        if let RewardScale::AboveMean(rate) = scale {
            self.mean += rate.max(self.n_walks.recip()) * (reward - self.mean);
        }
        self.stats.add(reward);
    }

    /// What is learned of a reward of the task.
    pub(super) fn learned(&self, reward: f64, scale: RewardScale) -> f64 {
        match scale {
            RewardScale::AsPaid => reward,
            RewardScale::AboveMean(_) => reward - self.mean,
            RewardScale::Standardised => self.stats.standardise(reward),
        }
    }

    pub(super) fn save(&self, name: &str, writer: &mut StateWriter) {
        writer.put_f64(name, &[self.n_walks, self.mean]);
        self.stats.save(&format!("{name}.stats"), writer);
    }

    pub(super) fn load(name: &str, reader: &StateReader) -> Result<Self, RlError> {
        let stats = RewardStats::load(&format!("{name}.stats"), reader)?;
        match reader.f64(name)?[..] {
            [n_walks, mean] if n_walks.is_finite() && mean.is_finite() => Ok(Self { n_walks, mean, stats }),
            _ => Err(RlError::State { what: format!("{name}: expected two finite numbers") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three walks are the mean of three; from the fourth on the rate is 0.4: 0.3 + 0.4 (0.8 - 0.3) = 0.5.
    #[test]
    fn the_mean_of_a_budget_is_that_of_few_walks_and_then_moves_at_its_rate() {
        let scale = RewardScale::AboveMean(0.4);
        let mut task = TaskReward::default();
        task.add(0.2, scale);
        assert!((task.learned(0.2, scale)).abs() < 1e-12);
        task.add(0.4, scale);
        assert!((task.mean - 0.3).abs() < 1e-12);
        task.add(0.3, scale);
        assert!((task.mean - 0.3).abs() < 1e-12, "0.4 is faster than a third, and 0.3 is what the mean was");
        task.add(0.8, scale);
        assert!((task.learned(0.9, scale) - 0.4).abs() < 1e-12);
        assert_eq!(task.learned(0.9, RewardScale::AsPaid), 0.9);
    }
}
