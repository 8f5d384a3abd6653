//! Stochastic gradient descent with momentum.

use std::ops::Range;

use secateur_kernels::{ParameterKind, TrainedParameter};
use serde::{Deserialize, Serialize};

use crate::TuneError;
use crate::error::checked;

/// How gradient descent is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SgdSettings {
    /// Share of the velocity that is kept at each step, from 0 to below 1.
    pub momentum: f32,
    /// Whether the step looks ahead along the velocity (Nesterov).
    pub nesterov: bool,
    /// Added to the gradient of each weight, times the weight; not of biases and BatchNorm.
    pub weight_decay: f32,
}

impl Default for SgdSettings {
    /// Nesterov momentum 0.9, weight decay 5e-4.
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: true, weight_decay: 5e-4 }
    }
}

/// Gradient descent with momentum, as PyTorch's `SGD` does it without dampening.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    settings: SgdSettings,
    decayed: Vec<Range<usize>>,
    velocity: Vec<f32>,
}

impl Sgd {
    /// At rest.
    ///
    /// # Errors
    /// A momentum or weight decay out of range.
    pub fn new(parameters: &[TrainedParameter], settings: SgdSettings) -> Result<Self, TuneError> {
        let SgdSettings { momentum, weight_decay, .. } = settings;
        checked("momentum", momentum, (0.0..1.0).contains(&momentum), "from 0 to below 1")?;
        checked("weight decay", weight_decay, (0.0..=1.0).contains(&weight_decay), "from 0 to 1")?;
        Ok(Self { settings, decayed: decayed(parameters), velocity: vec![0.0; n_values(parameters)] })
    }

    /// Moves `values` along `gradient` at the learning rate `rate`.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], rate: f32) {
        let SgdSettings { momentum, nesterov, weight_decay } = self.settings;
        let decay = by_value(&self.decayed, weight_decay, values.len());
        let velocities = self.velocity.iter_mut().zip(gradient);
        for ((value, (velocity, &g)), decay) in values.iter_mut().zip(velocities).zip(decay) {
            let slope = g + decay * *value;
            *velocity = momentum * *velocity + slope;
            *value -= rate * if nesterov { slope + momentum * *velocity } else { *velocity };
        }
    }
}

/// Values of all parameters.
pub(crate) fn n_values(parameters: &[TrainedParameter]) -> usize {
    parameters.iter().map(|parameter| parameter.range.end).max().unwrap_or(0)
}

/// Where the weights are, which alone decay.
pub(crate) fn decayed(parameters: &[TrainedParameter]) -> Vec<Range<usize>> {
    let weights = parameters.iter().filter(|parameter| parameter.kind == ParameterKind::Weight);
    weights.map(|parameter| parameter.range.clone()).collect()
}

/// `decay` for values in the ranges, which ascend, and 0 for the others.
pub(crate) fn by_value(ranges: &[Range<usize>], decay: f32, n: usize) -> impl Iterator<Item = f32> + '_ {
    let mut ranges = ranges.iter().peekable();
    (0..n).map(move |at| {
        while ranges.next_if(|range| range.end <= at).is_some() {}
        if ranges.peek().is_some_and(|range| range.contains(&at)) { decay } else { 0.0 }
    })
}
