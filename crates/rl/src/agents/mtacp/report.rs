//! What the gradient steps of one `learn` add up to.

use super::loss::Loss;
use crate::interface::LearnReport;

/// Sums over gradient steps; `finish` makes means of them.
#[derive(Default)]
pub(super) struct GradientStepSums {
    n_gradient_steps: u64,
    policy_loss: f64,
    value_loss: f64,
    imitation_loss: f64,
    entropy: f64,
    gradient_norm: f64,
    /// At the first gradient step, where the weights are still those that acted, or newer ones by the policy lag.
    importance_mean: f64,
    /// Of the last gradient step.
    learning_rate: f64,
    sigma: f64,
}

impl GradientStepSums {
    pub(super) fn add(&mut self, loss: &Loss, gradient_norm: f64, learning_rate: f64) {
        if self.n_gradient_steps == 0 {
            self.importance_mean = loss.importance_mean;
        }
        self.n_gradient_steps += 1;
        self.policy_loss += loss.policy;
        self.value_loss += loss.value;
        self.imitation_loss += loss.imitation;
        self.entropy += loss.entropy;
        self.gradient_norm += gradient_norm;
        self.learning_rate = learning_rate;
        self.sigma = loss.sigma;
    }

    /// Losses are means per step over the gradient steps; `entropy` is in nats per decision, `gradient_norm` before
    /// clipping, `importance_mean` the weight of the batch under the newest policy, 1 if that acted.
    pub(super) fn finish(self) -> LearnReport {
        let n = self.n_gradient_steps.max(1) as f64;
        let numbers = vec![
            ("policy_loss", self.policy_loss / n),
            ("value_loss", self.value_loss / n),
            ("imitation_loss", self.imitation_loss / n),
            ("entropy", self.entropy / n),
            ("importance_mean", self.importance_mean),
            ("gradient_norm", self.gradient_norm / n),
            ("learning_rate", self.learning_rate),
            ("sigma", self.sigma),
        ];
        LearnReport { numbers }
    }
}
