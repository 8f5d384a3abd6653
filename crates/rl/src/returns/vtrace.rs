//! V-trace returns: L. Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted
//! Actor-Learner Architectures", ICML 2018, equation 1, section 4.1 and remark 2.
//!
//! Axes: `T` steps, `B` unrolls, all arrays `[T, B]` with the step slowest.

use serde::{Deserialize, Serialize};

use crate::error::{RlError, check_finite, check_length};
use crate::setting::RangeCheck;

const OP: &str = "vtrace";

/// What the returns are computed from.
#[derive(Clone, Copy, Debug)]
pub struct VtraceInput<'a> {
    /// `B`, the number of unrolls.
    pub n_batch: usize,
    /// Log-probability of the action under the policy that acted, `[T, B]`.
    pub behaviour_log_prob: &'a [f64],
    /// Log-probability of the same action under the policy that learns, `[T, B]`.
    pub target_log_prob: &'a [f64],
    /// Discount after the step, 0 at the end of a walk, `[T, B]`.
    pub discount: &'a [f64],
    /// Reward of the step, `[T, B]`.
    pub reward: &'a [f64],
    /// `V(x_s)` under the learning policy, `[T, B]`.
    pub value: &'a [f64],
    /// `V` of the state after the last step, `[B]`.
    pub bootstrap_value: &'a [f64],
}

/// Truncation of the importance weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VtraceClip {
    /// Bound on the weight of a temporal difference, `rho-bar`.
    pub rho: f64,
    /// Bound on the trace coefficients, `c-bar`.
    pub c: f64,
    /// Bound on the weight in the policy gradient.
    pub policy_rho: f64,
    /// Factor on the trace coefficients (remark 2), 1 in the paper's experiments.
    pub lambda: f64,
}

impl Default for VtraceClip {
    fn default() -> Self {
        Self { rho: 1.0, c: 1.0, policy_rho: 1.0, lambda: 1.0 }
    }
}

impl VtraceClip {
    /// Checks the numbers of a setting called `clip`.
    pub(crate) fn check(&self, ranges: &mut RangeCheck) {
        for (name, bound) in [("rho", self.rho), ("c", self.c), ("policy_rho", self.policy_rho)] {
            ranges.number(&format!("clip.{name}"), bound, 0.0..=1e6);
        }
        ranges.number("clip.lambda", self.lambda, 0.0..=1.0);
    }
}

/// Value targets and advantages, `[T, B]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct VtraceReturns {
    /// Target of the value at each step, `v_s`.
    pub vs: Vec<f64>,
    /// `rho_s (r_s + gamma_s v_{s+1} - V(x_s))`, the weight of the policy's log-probability gradient.
    pub advantage: Vec<f64>,
}

/// V-trace targets and policy-gradient advantages.
///
/// # Errors
/// [`RlError::Length`] if an array is not `[T, B]`, [`RlError::NotFinite`] if a number is NaN or infinite.
pub fn vtrace(input: &VtraceInput, clip: VtraceClip) -> Result<VtraceReturns, RlError> {
    let (n_steps, n_batch) = check(input)?;
    let mut vs = vec![0.0; n_steps * n_batch];
    let mut advantage = vec![0.0; n_steps * n_batch];
    for b in 0..n_batch {
        let mut value_next = input.bootstrap_value[b];
        let mut vs_next = value_next;
        for t in (0..n_steps).rev() {
            let i = t * n_batch + b;
            let ratio = libm::exp(input.target_log_prob[i] - input.behaviour_log_prob[i]);
            let (reward, discount, value) = (input.reward[i], input.discount[i], input.value[i]);
            let delta = ratio.min(clip.rho) * (reward + discount * value_next - value);
            let c = clip.lambda * ratio.min(clip.c);
            advantage[i] = ratio.min(clip.policy_rho) * (reward + discount * vs_next - value);
            vs[i] = value + delta + discount * c * (vs_next - value_next);
            value_next = value;
            vs_next = vs[i];
        }
    }
    check_finite(OP, "vs", &vs)?;
    check_finite(OP, "advantage", &advantage)?;
    Ok(VtraceReturns { vs, advantage })
}

fn check(input: &VtraceInput) -> Result<(usize, usize), RlError> {
    let n_batch = input.n_batch;
    let n_steps = input.reward.len().checked_div(n_batch).unwrap_or(0);
    for (what, values) in [
        ("behaviour_log_prob", input.behaviour_log_prob),
        ("target_log_prob", input.target_log_prob),
        ("discount", input.discount),
        ("reward", input.reward),
        ("value", input.value),
    ] {
        check_length(OP, what, n_steps * n_batch, values.len())?;
        check_finite(OP, what, values)?;
    }
    check_length(OP, "bootstrap_value", n_batch, input.bootstrap_value.len())?;
    check_finite(OP, "bootstrap_value", input.bootstrap_value)?;
    Ok((n_steps, n_batch))
}
