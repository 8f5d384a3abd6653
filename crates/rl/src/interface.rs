//! What actors and schedulers see of an agent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{RlError, check_finite, check_length};

/// One decision to take: the state of one actor before one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActRequest {
    /// The task, counted from 0.
    pub task: u32,
    /// Number of the walk within its task, counted from 0; keys the noise.
    pub walk: u64,
    /// The group to decide, counted from 0.
    pub layer: u32,
    /// Groups in this walk.
    pub n_layers: u32,
    /// Features of group and task, `[F]`, in [0, 1].
    pub observation: Vec<f32>,
    /// The keep ratio that, applied to this and every later group, would just spend the remaining budget,
    /// in [`keep_ratio_min`, 1].
    pub even_ratio: f32,
    /// Realised keep ratio of the previous group; 0 at the start of a walk.
    pub last_action: f32,
    /// Reward of the previous decision; 0 at the start of a walk.
    pub last_reward: f32,
    /// What the policy returned with the previous decision of this walk; empty at the start of a walk.
    pub recurrent: Vec<f32>,
    /// Whether to add exploration noise; false gives the policy's mean.
    pub explore: bool,
}

/// One decision taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Wanted share of the group's channels, in [`keep_ratio_min`, 1]; the environment clamps and rounds it.
    pub keep_ratio: f32,
    /// The sample before it was squashed to a keep ratio.
    pub raw_action: f32,
    /// Log-density of `raw_action` under the acting policy; 0 for policies without one.
    pub log_prob: f32,
    /// The acting policy's estimate of the return; 0 for policies without one.
    pub value: f32,
    /// To be handed back with this walk's next request.
    pub recurrent: Vec<f32>,
}

/// An immutable, published policy. Cheap to share between threads.
pub trait Policy: Send + Sync {
    /// The number of `learn` calls that made it.
    fn version(&self) -> u64;

    /// One decision per request, in order. A decision depends on its own request only, never on the others.
    ///
    /// # Errors
    /// A request whose arrays have the wrong length or hold NaN.
    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError>;
}

/// `T` consecutive steps of one actor on one task, as a struct of arrays. Arrays of `T+1` also hold the step
/// after the last, whose value ends the return; its contents do not matter where the last step ends a walk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unroll {
    /// The task.
    pub task: u32,
    /// Recurrent state before the first step; empty means zero.
    pub first_recurrent: Vec<f32>,
    /// `[T+1, F]`.
    pub observation: Vec<f32>,
    /// `[T+1]`.
    pub layer: Vec<u32>,
    /// `[T+1]`.
    pub even_ratio: Vec<f32>,
    /// `[T+1]`.
    pub last_action: Vec<f32>,
    /// `[T+1]`.
    pub last_reward: Vec<f32>,
    /// `[T+1]`; the recurrent state is zeroed before such a step.
    pub starts_walk: Vec<bool>,
    /// `[T]`, the sample before it was squashed.
    pub raw_action: Vec<f32>,
    /// `[T]`, realised (clamped and rounded).
    pub keep_ratio: Vec<f32>,
    /// `[T]`.
    pub log_prob: Vec<f32>,
    /// `[T]`.
    pub value: Vec<f32>,
    /// `[T]`; accuracy at the last step of a walk, else 0.
    pub reward: Vec<f32>,
    /// `[T]`; the learner's discount becomes 0 there.
    pub ends_walk: Vec<bool>,
    /// `[T]`.
    pub policy_version: Vec<u64>,
}

impl Unroll {
    /// An empty unroll with room for `n_steps` steps of `n_features` features.
    pub fn with_capacity(n_steps: usize, n_features: usize) -> Self {
        let (floats, after) = (|| Vec::with_capacity(n_steps), || Vec::with_capacity(n_steps + 1));
        Self {
            task: 0,
            first_recurrent: Vec::new(),
            observation: Vec::with_capacity((n_steps + 1) * n_features),
            layer: Vec::with_capacity(n_steps + 1),
            even_ratio: after(),
            last_action: after(),
            last_reward: after(),
            starts_walk: Vec::with_capacity(n_steps + 1),
            raw_action: floats(),
            keep_ratio: floats(),
            log_prob: floats(),
            value: floats(),
            reward: floats(),
            ends_walk: Vec::with_capacity(n_steps),
            policy_version: Vec::with_capacity(n_steps),
        }
    }

    /// `T`.
    pub fn n_steps(&self) -> usize {
        self.raw_action.len()
    }

    /// Checks every length and that every number is finite.
    ///
    /// # Errors
    /// The first array that is wrong, by name.
    pub fn check(&self, n_features: usize) -> Result<(), RlError> {
        const OP: &str = "unroll";
        let n = self.n_steps();
        if n == 0 {
            return Err(RlError::OutOfRange {
                op: OP,
                what: "number of steps".into(),
                expected: "at least 1".into(),
                got: "0".into(),
            });
        }
        let floats: [(&str, &[f32], usize); 9] = [
            ("observation", &self.observation, (n + 1) * n_features),
            ("even_ratio", &self.even_ratio, n + 1),
            ("last_action", &self.last_action, n + 1),
            ("last_reward", &self.last_reward, n + 1),
            ("raw_action", &self.raw_action, n),
            ("keep_ratio", &self.keep_ratio, n),
            ("log_prob", &self.log_prob, n),
            ("value", &self.value, n),
            ("reward", &self.reward, n),
        ];
        for (what, values, expected) in floats {
            check_length(OP, what, expected, values.len())?;
            check_finite(OP, what, values)?;
        }
        check_finite(OP, "first_recurrent", &self.first_recurrent)?;
        check_length(OP, "layer", n + 1, self.layer.len())?;
        check_length(OP, "starts_walk", n + 1, self.starts_walk.len())?;
        check_length(OP, "ends_walk", n, self.ends_walk.len())?;
        check_length(OP, "policy_version", n, self.policy_version.len())
    }
}

/// What one call of [`Learner::learn`] did. Losses are means per step over the call's gradient steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LearnReport {
    /// Environment steps in the batch.
    pub n_steps: u64,
    /// Gradient steps taken.
    pub n_gradient_steps: u64,
    /// Policy-gradient loss.
    pub policy_loss: f64,
    /// Half the squared error of the value.
    pub value_loss: f64,
    /// Negative log-likelihood of remembered good walks; 0 where the agent has none.
    pub imitation_loss: f64,
    /// Entropy of the policy, nats per decision.
    pub entropy: f64,
    /// Importance weight of the batch under the newest policy at the first gradient step, 1 if acted by it.
    pub importance_mean: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Step size of the optimiser.
    pub learning_rate: f64,
    /// Mean standard deviation of the raw action.
    pub sigma: f64,
}

/// The learning half of an agent.
pub trait Learner: Send {
    /// Steps an unroll must have on a task whose walks have `walk_length` steps.
    fn unroll_length(&self, walk_length: usize) -> usize;

    /// Unrolls wanted per [`learn`](Self::learn).
    fn batch_size(&self) -> usize;

    /// Learns from a batch (any size but 0; unrolls may differ in length), possibly in several gradient steps.
    ///
    /// # Errors
    /// A malformed batch, NaN in batch or loss: the message names it, the learner is as it was before the call
    /// and the batch is still the caller's.
    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError>;

    /// The policy as it is now; later updates do not change it.
    fn policy(&self) -> Arc<dyn Policy>;

    /// `learn` calls so far.
    fn n_updates(&self) -> u64;

    /// Everything needed to continue bit for bit, as a safetensors file.
    ///
    /// # Errors
    /// A failure of the serialiser.
    fn save(&self) -> Result<Vec<u8>, RlError>;

    /// Continues from what [`save`](Self::save) returned under the same settings.
    ///
    /// # Errors
    /// [`RlError::State`] if the bytes are damaged or belong to other settings; the learner is unchanged then.
    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError>;
}
