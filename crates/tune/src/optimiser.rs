//! Any of the optimisers.

use secateur_kernels::TrainedParameter;
use serde::{Deserialize, Serialize};

use crate::{Adam, AdamSettings, Sgd, SgdSettings, TuneError};

/// Which optimiser, and how it is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum OptimiserSettings {
    /// Gradient descent with momentum.
    Sgd(SgdSettings),
    /// Adam.
    Adam(AdamSettings),
}

/// What moves weights along their gradient, with all that it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Optimiser {
    /// Gradient descent with momentum.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
}

impl Optimiser {
    /// Before the first step.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(parameters: &[TrainedParameter], settings: OptimiserSettings) -> Result<Self, TuneError> {
        Ok(match settings {
            OptimiserSettings::Sgd(settings) => Self::Sgd(Sgd::new(parameters, settings)?),
            OptimiserSettings::Adam(settings) => Self::Adam(Adam::new(parameters, settings)?),
        })
    }

    /// Moves `values` by `gradient` at the learning rate `rate`.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], rate: f32) {
        match self {
            Self::Sgd(sgd) => sgd.step(values, gradient, rate),
            Self::Adam(adam) => adam.step(values, gradient, rate),
        }
    }
}
