//! What actors and schedulers see of an agent.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::error::RlError;
use crate::inheritance::Inheritance;
use crate::unroll::Unroll;

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

/// What one call of [`Learner::learn`] did, as named numbers in a fixed order; they go to `metrics.jsonl` as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnReport {
    /// Losses and the like.
    pub numbers: Vec<(&'static str, f64)>,
}

impl LearnReport {
    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }
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

    /// Begins with the policy that one of its kind, under the same settings, learned on other tasks.
    ///
    /// # Errors
    /// [`RlError::State`] for an agent that cannot, and as [`Self::load`]; the learner is unchanged then.
    fn inherit(&mut self, _from: &Inheritance<'_>) -> Result<(), RlError> {
        Err(RlError::State { what: "this agent cannot take over what was learned on other tasks".to_owned() })
    }
}
