//! Learning rates over a training's steps.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::TuneError;
use crate::error::checked;

/// How a rate falls behind its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decay {
    /// Not at all.
    Constant,
    /// In a straight line to 0.
    Linear,
    /// Along half a cosine to 0.
    Cosine,
}

/// A rate that rises in a straight line from 0 to its peak, then falls. With a warm-up over a third or so of the steps
/// and [`Decay::Cosine`] or [`Decay::Linear`] it is a one-cycle schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateSchedule {
    peak: f32,
    warm_up: f32,
    decay: Decay,
}

impl RateSchedule {
    /// A schedule with this peak, whose share `warm_up` of all steps rises.
    ///
    /// # Errors
    /// A peak that is not above 0, or a share that is not from 0 to 1.
    pub fn new(peak: f32, warm_up: f32, decay: Decay) -> Result<Self, TuneError> {
        checked("learning rate", peak, peak > 0.0 && peak.is_finite(), "above 0 and finite")?;
        checked("warm-up", warm_up, (0.0..=1.0).contains(&warm_up), "a share from 0 to 1")?;
        Ok(Self { peak, warm_up, decay })
    }

    /// The rate of step number `step` of `n_steps`: of the middle of the step, so that neither the first nor the last
    /// is 0.
    pub fn rate(&self, step: usize, n_steps: usize) -> f32 {
        let at = (step as f64 + 0.5) / n_steps.max(1) as f64;
        let (peak, warm_up) = (f64::from(self.peak), f64::from(self.warm_up));
        if at < warm_up {
            return (peak * at / warm_up) as f32;
        }
        let done = ((at - warm_up) / (1.0 - warm_up)).clamp(0.0, 1.0);
        let left = match self.decay {
            Decay::Constant => 1.0,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (PI * done).cos()),
        };
        (peak * left) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_to_the_peak_and_fall() {
        let rates = |warm_up: f32, decay: Decay| -> Vec<f32> {
            let schedule = RateSchedule::new(0.8, warm_up, decay).unwrap();
            (0..8).map(|step| schedule.rate(step, 8)).collect()
        };
        let close = |got: Vec<f32>, expected: [f32; 8]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, not {expected:?}");
        };
        close(rates(0.5, Decay::Linear), [0.1, 0.3, 0.5, 0.7, 0.7, 0.5, 0.3, 0.1]);
        close(rates(0.25, Decay::Constant), [0.2, 0.6, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]);
        let cosine = [0.7923141, 0.7325878, 0.6222281, 0.4780361, 0.3219639, 0.1777719, 0.0674122, 0.0076859];
        close(rates(0.0, Decay::Cosine), cosine);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let error = |peak: f32, warm_up: f32| RateSchedule::new(peak, warm_up, Decay::Linear).unwrap_err().to_string();
        assert_eq!(error(0.0, 0.1), "learning rate is 0, expected above 0 and finite");
        assert_eq!(error(f32::NAN, 0.1), "learning rate is NaN, expected above 0 and finite");
        assert_eq!(error(0.1, 1.5), "warm-up is 1.5, expected a share from 0 to 1");
    }
}
