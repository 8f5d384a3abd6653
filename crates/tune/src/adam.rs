//! Adam with decoupled weight decay (Kingma and Ba 2015; Loshchilov and Hutter 2019).

use std::ops::Range;

use secateur_kernels::TrainedParameter;
use serde::{Deserialize, Serialize};

use crate::TuneError;
use crate::error::checked;
use crate::sgd::{by_value, decayed, n_values};

/// How Adam is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamSettings {
    /// Shares of the means of gradients and of their squares that are kept at each step, from 0 to below 1.
    pub betas: [f32; 2],
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Share of each weight that is taken away at each step, times the learning rate; not of biases and BatchNorm.
    pub weight_decay: f32,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Adam, as PyTorch's `AdamW` does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    settings: AdamSettings,
    decayed: Vec<Range<usize>>,
    means: Vec<f32>,
    squares: Vec<f32>,
    n_steps: i32,
}

impl Adam {
    /// Before the first step.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(parameters: &[TrainedParameter], settings: AdamSettings) -> Result<Self, TuneError> {
        for beta in settings.betas {
            checked("beta of Adam", beta, (0.0..1.0).contains(&beta), "from 0 to below 1")?;
        }
        let AdamSettings { eps, weight_decay, .. } = settings;
        checked("eps of Adam", eps, eps > 0.0 && eps.is_finite(), "above 0 and finite")?;
        checked("weight decay", weight_decay, (0.0..=1.0).contains(&weight_decay), "from 0 to 1")?;
        let zeros = vec![0.0; n_values(parameters)];
        Ok(Self { settings, decayed: decayed(parameters), means: zeros.clone(), squares: zeros, n_steps: 0 })
    }

    /// Moves `values` by `gradient` at the learning rate `rate`.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], rate: f32) {
        let AdamSettings { betas: [first, second], eps, weight_decay } = self.settings;
        self.n_steps = self.n_steps.saturating_add(1);
        // Both means start at zero.
        let [of_mean, of_square] = [first, second].map(|beta| 1.0 - f64::from(beta).powi(self.n_steps));
        let step = (f64::from(rate) / of_mean) as f32;
        let root = of_square.sqrt() as f32;
        let decay = by_value(&self.decayed, weight_decay, values.len());
        let moments = self.means.iter_mut().zip(&mut self.squares).zip(gradient);
        for ((value, ((mean, square), &g)), decay) in values.iter_mut().zip(moments).zip(decay) {
            *mean = first * *mean + (1.0 - first) * g;
            *square = second * *square + (1.0 - second) * g * g;
            *value -= rate * decay * *value;
            *value -= step * *mean / (square.sqrt() / root + eps);
        }
    }
}
