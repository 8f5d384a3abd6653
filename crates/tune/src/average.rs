//! Averages of weights over steps.

use serde::{Deserialize, Serialize};

use crate::TuneError;
use crate::error::checked;

/// An exponential moving average of all weights, which counts none but those that it has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightAverage {
    keep: f64,
    /// What the weights so far add up to.
    total: f64,
    values: Vec<f32>,
}

impl WeightAverage {
    /// Of nothing yet; `half_life` steps halve what a step counts.
    ///
    /// # Errors
    /// A half-life that is not above 0.
    pub fn new(n_values: usize, half_life: f32) -> Result<Self, TuneError> {
        checked("half-life of the average", half_life, half_life > 0.0 && half_life.is_finite(), "above 0 and finite")?;
        Ok(Self { keep: 0.5f64.powf(1.0 / f64::from(half_life)), total: 0.0, values: vec![0.0; n_values] })
    }

    /// Takes in the weights behind a step, all of them.
    pub fn add<'a>(&mut self, values: impl Iterator<Item = &'a f32>) {
        self.total = self.keep * self.total + 1.0;
        let share = (1.0 / self.total) as f32;
        self.values.iter_mut().zip(values).for_each(|(average, value)| *average += share * (value - *average));
    }

    /// The average.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_half_as_much_after_each_half_life() {
        let mut average = WeightAverage::new(1, 2.0).unwrap();
        average.add([3.0].iter());
        assert_eq!(average.values(), [3.0]);
        for value in [0.0, 4.0] {
            average.add([value].iter());
        }
        let half = 0.5f64.sqrt();
        let expected = (3.0 * half * half + 4.0) / (half * half + half + 1.0);
        assert!((f64::from(average.values()[0]) - expected).abs() < 1e-6);
        assert!(WeightAverage::new(1, 0.0).is_err());
    }
}
