//! Any of the optimisers.

use serde::{Deserialize, Serialize};

use crate::{Adam, Sgd};

/// What moves weights along their gradient, with all that it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Optimiser {
    /// Gradient descent with momentum.
    Sgd(Sgd),
    /// Adam.
    Adam(Adam),
}

impl Optimiser {
    /// Moves `values` by `gradient` at the learning rate `rate`.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32], rate: f32) {
        match self {
            Self::Sgd(sgd) => sgd.step(values, gradient, rate),
            Self::Adam(adam) => adam.step(values, gradient, rate),
        }
    }
}
