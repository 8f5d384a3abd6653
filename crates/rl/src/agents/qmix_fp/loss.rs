//! The loss of double Q-learning over replayed episodes.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::features::{Seen, TeamStage, seen};
use super::joint::Offered;
use super::net::{AgentInput, MixingWeights};
use super::replay::{Episode, ScoreSpread};
use super::settings::{TeamReward, ValueMixing};
use super::team::TeamFrame;
use crate::error::{During, RlError};

/// Replayed episodes, as the networks read them.
pub(super) struct EpisodeBatch<'a> {
    frame: &'a TeamFrame,
    episodes: &'a [Arc<Episode>],
    /// `[T][B]`.
    stages: Vec<Vec<TeamStage>>,
    seen: Vec<Vec<Seen>>,
    /// `[T][B]`.
    rewards: Vec<Vec<f32>>,
    /// `[B, N]`: 1 for agents that the episode's task has.
    present: Tensor,
}

/// A loss, and what is told of it.
pub(super) struct TdLoss {
    /// Mean squared error.
    pub(super) total: Tensor,
    /// Mean of the values that are learned.
    pub(super) value_mean: f64,
}

/// What one set of networks says of a batch, iteration by iteration.
struct Said {
    /// `[B * N, A]`.
    values: Vec<Tensor>,
    mixing: Vec<Option<MixingWeights>>,
}

impl<'a> EpisodeBatch<'a> {
    /// `spreads` are those of the tasks' scores.
    pub(super) fn new(
        frame: &'a TeamFrame,
        episodes: &'a [Arc<Episode>],
        spreads: &[ScoreSpread],
    ) -> Result<Self, RlError> {
        let n_iterations = frame.settings.iterations;
        let mut batch = Self {
            frame,
            episodes,
            stages: vec![Vec::new(); n_iterations],
            seen: vec![Vec::new(); n_iterations],
            rewards: vec![Vec::new(); n_iterations],
            present: Tensor::zeros((episodes.len(), frame.shape.n_agents), DType::F32, &Device::Cpu).during("batch")?,
        };
        let mut present = Vec::with_capacity(episodes.len() * frame.shape.n_agents);
        for episode in episodes {
            let team = frame.team("learn", episode.task)?;
            let stages = episode.stages(frame, team);
            let rewards = rewards(frame, episode, &stages, spreads[episode.task as usize]);
            for (t, (stage, reward)) in stages.into_iter().zip(rewards).enumerate() {
                batch.seen[t].push(seen(frame, team, &stage));
                batch.stages[t].push(stage);
                batch.rewards[t].push(reward);
            }
            present.extend((0..frame.shape.n_agents).map(|agent| if agent < team.n_agents() { 1.0f32 } else { 0.0 }));
        }
        let shape = (episodes.len(), frame.shape.n_agents);
        batch.present = Tensor::from_slice(&present, shape, &Device::Cpu).during("batch")?;
        Ok(batch)
    }

    /// The loss of `live` weights against targets of both: actions of the next iteration are chosen by the live values,
    /// and valued by the `target` weights.
    ///
    /// # Errors
    /// Values that are not finite.
    pub(super) fn loss(&self, live: &[Tensor], target: &[Tensor]) -> Result<TdLoss, RlError> {
        let said = self.said(live)?;
        let returns = self.returns(&said, target)?;
        self.error(&said, &returns).during("loss")
    }

    fn error(&self, said: &Said, returns: &[Tensor]) -> candle_core::Result<TdLoss> {
        let mut values = Vec::with_capacity(returns.len());
        let mut errors = Vec::with_capacity(returns.len());
        for (t, wanted) in returns.iter().enumerate() {
            let actions: Vec<&[u8]> = self.episodes.iter().map(|episode| &episode.actions[t][..]).collect();
            let value = self.team_value(&said.values[t], said.mixing[t].as_ref(), &actions)?;
            errors.push(self.counted((&value - wanted)?.sqr()?)?);
            values.push(value.mean_all()?);
        }
        let mean = |parts: &[Tensor]| Tensor::stack(parts, 0)?.mean_all();
        Ok(TdLoss { total: mean(&errors)?, value_mean: mean(&values)?.to_scalar::<f32>()?.into() })
    }

    /// The mean of squared errors: `[B]`, or `[B, N]` of agents that learn alone, of which absent ones do not count.
    fn counted(&self, squares: Tensor) -> candle_core::Result<Tensor> {
        match self.frame.settings.mixing {
            ValueMixing::Independent => (squares * &self.present)?.sum_all()?.broadcast_div(&self.present.sum_all()?),
            ValueMixing::Qmix | ValueMixing::Vdn => squares.mean_all(),
        }
    }

    /// What each iteration should be worth: `[B]`, or `[B, N]` of agents that learn alone.
    #[cfg(test)]
    pub(super) fn returns_of(&self, live: &[Tensor], target: &[Tensor]) -> Result<Vec<Tensor>, RlError> {
        self.returns(&self.said(live)?, target)
    }

    fn returns(&self, live: &Said, target: &[Tensor]) -> Result<Vec<Tensor>, RlError> {
        let n_iterations = self.stages.len();
        let frozen = if n_iterations > 1 { Some(self.said(target)?) } else { None };
        let mut returns = Vec::with_capacity(n_iterations);
        for t in 0..n_iterations {
            let next = match &frozen {
                Some(frozen) if t + 1 < n_iterations => Some(self.next_value(live, frozen, t + 1)?),
                _ => None,
            };
            returns.push(self.one_return(t, next).during("returns")?);
        }
        Ok(returns)
    }

    fn one_return(&self, t: usize, next: Option<Tensor>) -> candle_core::Result<Tensor> {
        let mut wanted = Tensor::from_slice(&self.rewards[t], self.rewards[t].len(), &Device::Cpu)?;
        if self.frame.settings.mixing == ValueMixing::Independent {
            wanted = wanted.unsqueeze(D::Minus1)?.broadcast_as(self.present.dims())?;
        }
        match next {
            Some(next) => Ok((wanted + (next * self.frame.settings.discount)?)?.detach()),
            None => Ok(wanted.detach()),
        }
    }

    /// What the frozen networks say the joint action is worth that the live ones choose at iteration `t`.
    fn next_value(&self, live: &Said, frozen: &Said, t: usize) -> Result<Tensor, RlError> {
        let n_actions = self.frame.shape.n_actions;
        let n_values = self.frame.shape.n_agents * n_actions;
        let values = live.values[t].flatten_all().and_then(|v| v.to_vec1::<f32>()).during("read values")?;
        let keeps_budget = self.frame.keeps_budget(t);
        let choose = |b: usize| {
            let (stage, seen) = (&self.stages[t][b], &self.seen[t][b]);
            let mixer = live.mixing[t].as_ref().filter(|_| keeps_budget).map(|mixing| mixing.at(b)).transpose()?;
            let offered = Offered {
                team: self.frame.team("learn", stage.task)?,
                widths: &stage.widths,
                values: &values[b * n_values..(b + 1) * n_values],
                allowed: &seen.available,
                n_actions,
            };
            offered.best(keeps_budget, mixer.as_ref())
        };
        let actions: Vec<Vec<u8>> = (0..self.episodes.len()).map(choose).collect::<Result<_, RlError>>()?;
        let actions: Vec<&[u8]> = actions.iter().map(|actions| &actions[..]).collect();
        self.team_value(&frozen.values[t], frozen.mixing[t].as_ref(), &actions).during("targets")
    }

    /// Of the actions taken, `[B]`; `[B, N]` of agents that learn alone.
    fn team_value(
        &self,
        values: &Tensor,
        mixing: Option<&MixingWeights>,
        actions: &[&[u8]],
    ) -> candle_core::Result<Tensor> {
        let n_agents = self.frame.shape.n_agents;
        let padded = |actions: &&[u8]| {
            let absent = n_agents - actions.len();
            actions.iter().map(|&action| u32::from(action)).chain(std::iter::repeat_n(0, absent)).collect::<Vec<_>>()
        };
        let taken: Vec<u32> = actions.iter().flat_map(padded).collect();
        let taken = Tensor::from_slice(&taken, (taken.len(), 1), &Device::Cpu)?;
        let chosen = values.gather(&taken, 1)?.reshape((actions.len(), n_agents))?;
        let chosen = (chosen * &self.present)?;
        match (self.frame.settings.mixing, mixing) {
            (ValueMixing::Qmix, Some(mixing)) => mixing.mix(&chosen),
            (ValueMixing::Independent, _) => Ok(chosen),
            (ValueMixing::Vdn | ValueMixing::Qmix, _) => chosen.sum(D::Minus1),
        }
    }

    fn said(&self, weights: &[Tensor]) -> Result<Said, RlError> {
        let shape = &self.frame.shape;
        let n_rows = self.episodes.len() * shape.n_agents;
        let mut hidden = shape.no_hidden(n_rows)?;
        let mut said = Said { values: Vec::new(), mixing: Vec::new() };
        for seen in &self.seen {
            let inputs: Vec<f32> = seen.iter().flat_map(|seen| &seen.inputs).copied().collect();
            let saved: Vec<f32> = seen.iter().flat_map(|seen| &seen.saved).copied().collect();
            let states: Vec<f32> = seen.iter().flat_map(|seen| &seen.state).copied().collect();
            let output =
                shape.values(weights, &AgentInput { n_rows, inputs: &inputs, saved: &saved }, hidden.as_ref())?;
            hidden = output.hidden;
            said.values.push(output.values);
            said.mixing.push(shape.mixing(weights, &states)?);
        }
        Ok(said)
    }
}

/// What the team is paid at each iteration.
pub(super) fn rewards(frame: &TeamFrame, episode: &Episode, stages: &[TeamStage], spread: ScoreSpread) -> Vec<f32> {
    let costs: Vec<f32> = stages.iter().map(|stage| stage.cost_share).chain([episode.cost_share]).collect();
    let score = match frame.settings.standardise {
        true => ((f64::from(episode.score) - spread.mean) / spread.sigma) as f32,
        false => episode.score,
    };
    let savings = |t: usize| match frame.settings.team_reward {
        TeamReward::Savings(weight) => weight as f32 * (costs[t] - costs[t + 1]),
        TeamReward::Score => 0.0,
    };
    (0..stages.len()).map(|t| savings(t) + if frame.is_last(t) { score } else { 0.0 }).collect()
}
