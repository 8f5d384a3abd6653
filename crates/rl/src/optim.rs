//! Optimisers over one flat parameter vector, with state that can be saved and continued bit for bit.

use serde::{Deserialize, Serialize};

use crate::error::{RlError, check_finite, check_length};
use crate::setting::RangeCheck;

/// Largest share of its memory that an optimiser keeps at a step.
const MEMORY_MAX: f64 = 0.999_999;

/// The rule by which gradients become steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum OptimizerRule {
    /// PyTorch's RMSProp: `v = decay v + (1 - decay) g^2`, `m = momentum m + g / (sqrt(v) + eps)`, `p -= rate m`.
    /// TensorFlow's, used by the first IMPALA, has `eps` under the root and starts `v` at 1.
    RmsProp {
        /// Memory of the squared gradient.
        decay: f32,
        /// Added to the root.
        eps: f32,
        /// Memory of the step.
        momentum: f32,
    },
    /// Adam with bias correction (Kingma and Ba 2015, algorithm 1).
    Adam {
        /// Memory of the gradient.
        beta1: f32,
        /// Memory of the squared gradient.
        beta2: f32,
        /// Added to the root.
        eps: f32,
    },
}

impl OptimizerRule {
    /// The settings of MTACP: decay .99, eps .01, momentum .5.
    pub const MTACP: Self = Self::RmsProp { decay: 0.99, eps: 0.01, momentum: 0.5 };
    /// The usual Adam.
    pub const ADAM: Self = Self::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 };

    /// Checks the numbers of a setting called `optimizer`.
    pub(crate) fn check(&self, ranges: &mut RangeCheck) {
        let (memories, eps) = match *self {
            Self::RmsProp { decay, eps, momentum } => ([("decay", decay), ("momentum", momentum)], eps),
            Self::Adam { beta1, beta2, eps } => ([("beta1", beta1), ("beta2", beta2)], eps),
        };
        for (name, memory) in memories {
            // A memory of 1 never learns of anything new.
            ranges.number(&format!("optimizer.{name}"), memory, 0.0..=MEMORY_MAX);
        }
        ranges.positive("optimizer.eps", eps, 1.0);
    }
}

/// A rule with its memory. `mean` holds RMSProp's step or Adam's gradient, `square` the squared gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    rule: OptimizerRule,
    mean: Vec<f32>,
    square: Vec<f32>,
    n_steps: u64,
}

impl Optimizer {
    /// An optimiser of `n_params` parameters that has taken no step.
    pub fn new(rule: OptimizerRule, n_params: usize) -> Self {
        Self { rule, mean: vec![0.0; n_params], square: vec![0.0; n_params], n_steps: 0 }
    }

    /// The memory: (mean, square, number of steps taken).
    pub fn state(&self) -> (&[f32], &[f32], u64) {
        (&self.mean, &self.square, self.n_steps)
    }

    /// Puts saved memory back.
    ///
    /// # Errors
    /// [`RlError::Length`] if it belongs to another number of parameters, [`RlError::NotFinite`] for NaN.
    pub fn restore(&mut self, mean: Vec<f32>, square: Vec<f32>, n_steps: u64) -> Result<(), RlError> {
        for (what, values) in [("mean", &mean), ("square", &square)] {
            check_length("restore optimiser", what, self.mean.len(), values.len())?;
            check_finite("restore optimiser", what, values)?;
        }
        (self.mean, self.square, self.n_steps) = (mean, square, n_steps);
        Ok(())
    }

    /// One descent step of `params` along `gradient`.
    ///
    /// # Errors
    /// [`RlError::Length`] if a length is not that of the optimiser, [`RlError::NotFinite`] for a NaN gradient;
    /// nothing has changed then.
    pub fn step(&mut self, params: &mut [f32], gradient: &[f32], rate: f32) -> Result<(), RlError> {
        check_length("optimiser step", "params", self.mean.len(), params.len())?;
        check_length("optimiser step", "gradient", self.mean.len(), gradient.len())?;
        check_finite("optimiser step", "gradient", gradient)?;
        self.n_steps += 1;
        let memory = self.mean.iter_mut().zip(&mut self.square);
        let slots = params.iter_mut().zip(gradient).zip(memory);
        match self.rule {
            OptimizerRule::RmsProp { decay, eps, momentum } => {
                for ((p, &g), (m, v)) in slots {
                    *v = decay * *v + (1.0 - decay) * g * g;
                    *m = momentum * *m + g / (v.sqrt() + eps);
                    *p -= rate * *m;
                }
            }
            OptimizerRule::Adam { beta1, beta2, eps } => {
                let unbias1 = (1.0 - libm::pow(f64::from(beta1), self.n_steps as f64)) as f32;
                let unbias2 = (1.0 - libm::pow(f64::from(beta2), self.n_steps as f64)) as f32;
                for ((p, &g), (m, v)) in slots {
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *p -= rate * (*m / unbias1) / ((*v / unbias2).sqrt() + eps);
                }
            }
        }
        Ok(())
    }
}

/// Scales `gradient` to a Euclidean norm of at most `norm_max`; returns the norm before, summed in order in f64.
pub fn clip_gradient_norm(gradient: &mut [f32], norm_max: f32) -> f64 {
    let norm = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
    if norm > f64::from(norm_max) {
        let factor = (f64::from(norm_max) / norm) as f32;
        gradient.iter_mut().for_each(|g| *g *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rule: OptimizerRule, rate: f32, gradients: &[f32]) -> Vec<f32> {
        let mut optimizer = Optimizer::new(rule, 1);
        let mut params = [1.0];
        gradients
            .iter()
            .map(|&g| {
                optimizer.step(&mut params, &[g], rate).unwrap();
                params[0]
            })
            .collect()
    }

    fn assert_close(got: &[f32], expected: &[f64]) {
        for (g, e) in got.iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() < 1e-6, "got {got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn rmsprop_follows_torch() {
        // v = .01 * 4 = .04, m = 2 / (.2 + .01) = 9.523810, p = 1 - .1 m = .0476190;
        // v = .99 * .04 + .01 = .0496, m = 4.761905 - 1 / (.2227106 + .01) = .4647211, p = .0011469.
        let rule = OptimizerRule::MTACP;
        assert_close(&run(rule, 0.1, &[2.0, -1.0]), &[0.047_619_05, 0.001_146_94]);
    }

    #[test]
    fn adam_follows_the_paper() {
        // First step is rate * sign(g). Second: m = .9 * .2 - .1 = .08, /.19 = .4210526;
        // v = .999 * .004 + .001 = .004996, / .001999 = 2.4992496, root 1.5808984; step .1 * .2663375.
        assert_close(&run(OptimizerRule::ADAM, 0.1, &[2.0, -1.0]), &[0.9, 0.873_366_25]);
    }

    #[test]
    fn restored_memory_continues_bit_for_bit() {
        for rule in [OptimizerRule::MTACP, OptimizerRule::ADAM] {
            let mut first = Optimizer::new(rule, 2);
            let mut params = [0.5, -0.5];
            first.step(&mut params, &[0.3, 0.1], 0.01).unwrap();
            let (mean, square, n_steps) = first.state();
            let mut second = Optimizer::new(rule, 2);
            second.restore(mean.to_vec(), square.to_vec(), n_steps).unwrap();
            let mut copy = params;
            first.step(&mut params, &[-0.2, 0.4], 0.01).unwrap();
            second.step(&mut copy, &[-0.2, 0.4], 0.01).unwrap();
            assert_eq!(params.map(f32::to_bits), copy.map(f32::to_bits));
        }
    }

    #[test]
    fn nan_gradient_is_refused_and_changes_nothing() {
        let mut optimizer = Optimizer::new(OptimizerRule::ADAM, 2);
        let mut params = [1.0, 2.0];
        assert!(optimizer.step(&mut params, &[0.0, f32::NAN], 0.1).is_err());
        assert_eq!((params, optimizer.n_steps), ([1.0, 2.0], 0));
    }

    #[test]
    fn long_gradients_are_shortened_and_short_ones_left() {
        let mut gradient = [3.0, 4.0];
        assert_eq!(clip_gradient_norm(&mut gradient, 1.0), 5.0);
        assert_close(&gradient, &[0.6, 0.8]);
        let before = gradient;
        clip_gradient_norm(&mut gradient, 40.0);
        assert_eq!(gradient, before);
    }
}
