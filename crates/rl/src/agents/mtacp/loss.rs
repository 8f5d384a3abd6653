//! The loss of one gradient step.

use candle_core::{Device, Tensor, Var};

use super::batch::{UnrollBatch, deciding};
use super::frame::{Frame, PLANNED_LOG_PROB, VARIANCE_MIN};
use super::memory::TaskMemory;
use super::net::forward;
use super::settings::{PolicyObjective, SigmaRule};
use crate::error::{During, RlError, check_finite};
use crate::nn::gaussian::{entropy_tensor, log_prob_tensor, softplus_tensor};
use crate::returns::vtrace::{VtraceInput, VtraceReturns, vtrace};
use crate::unroll::Unroll;

/// Constants of the loss, `[T+1, B]` each; 0 where a step does not count.
pub(super) struct Targets {
    /// Weight of each step's log-probability, or ratio of densities.
    advantage: Vec<f32>,
    /// Log-probability of each step when it was taken; only ratios of densities need it.
    behaviour: Vec<f32>,
    /// Target of each step's value.
    value: Vec<f32>,
    /// 1 where a step of the fresh batch stands.
    fresh: Vec<f32>,
    /// 1 where a step of a remembered walk stands.
    imitated: Vec<f32>,
    importance_mean: f64,
}

/// What the loss needs of the network, `[T+1, B]` each.
pub(super) struct Heads {
    /// Log-probability of the action taken, or imitated.
    pub(super) log_prob: Tensor,
    /// Value.
    pub(super) value: Tensor,
    /// Variance of the raw action.
    pub(super) variance: Tensor,
}

/// Loss and its parts; parts are means per fresh step.
pub(super) struct Loss {
    pub(super) total: Tensor,
    pub(super) policy: f64,
    pub(super) value: f64,
    pub(super) imitation: f64,
    pub(super) entropy: f64,
    pub(super) importance_mean: f64,
    pub(super) sigma: f64,
}

/// What the loss depends on besides the weights.
pub(super) struct LossInput<'a> {
    pub(super) frame: &'a Frame,
    /// Fresh unrolls first, then remembered walks.
    pub(super) batch: &'a UnrollBatch<'a>,
    pub(super) n_fresh: usize,
    pub(super) memories: &'a [TaskMemory],
    /// Standard deviation under [`SigmaRule::Annealed`].
    pub(super) sigma: f32,
}

impl LossInput<'_> {
    pub(super) fn loss(&self, variables: &[Var]) -> Result<Loss, RlError> {
        let heads = self.heads(variables)?;
        let targets = self.targets(&heads)?;
        let loss = self.combine(&targets, &heads).during("loss")?;
        let parts = [loss.policy, loss.value, loss.imitation, loss.entropy, loss.importance_mean];
        check_finite("learn", "loss (policy, value, imitation, entropy, importance)", &parts)?;
        Ok(loss)
    }

    pub(super) fn heads(&self, variables: &[Var]) -> Result<Heads, RlError> {
        let weights: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        let output = forward(&self.frame.net, &weights, &self.batch.input)?;
        let variance = self.variance(&output.spread).during("variance")?;
        let action = self.batch.spread(|t, b| self.action(t, b));
        let log_prob = self.tensor(&action).and_then(|a| log_prob_tensor(&a, &output.mean, &variance));
        Ok(Heads { log_prob: log_prob.during("log-probability")?, value: output.value, variance })
    }

    fn action(&self, t: usize, b: usize) -> f32 {
        let unroll = self.batch.unrolls[b];
        if b < self.n_fresh {
            return unroll.raw_action[t];
        }
        // What was realised is what earned the reward, whatever the wall made of the sample.
        self.frame.raw_action(unroll.keep_ratio[t], deciding(unroll, t))
    }

    fn tensor(&self, values: &[f32]) -> candle_core::Result<Tensor> {
        Tensor::from_slice(values, values.len(), &Device::Cpu)
    }

    fn variance(&self, spread: &Tensor) -> candle_core::Result<Tensor> {
        match self.frame.settings.sigma {
            SigmaRule::Learned => softplus_tensor(spread)? + f64::from(VARIANCE_MIN),
            SigmaRule::Annealed { .. } => Tensor::full(self.sigma * self.sigma, spread.shape(), &Device::Cpu),
        }
    }

    pub(super) fn combine(&self, targets: &Targets, heads: &Heads) -> candle_core::Result<Loss> {
        let settings = &self.frame.settings;
        let Heads { log_prob, value, variance } = heads;
        let n_steps = targets.fresh.iter().sum::<f32>().max(1.0);
        let n_imitated = targets.imitated.iter().sum::<f32>().max(1.0);
        let fresh = self.tensor(&targets.fresh)?;
        let policy = self.policy_loss(targets, log_prob)?;
        let error = ((value - self.tensor(&targets.value)?)? * &fresh)?;
        let value = (error.sqr()?.sum_all()? * 0.5)?;
        let entropy = (entropy_tensor(variance)? * &fresh)?.sum_all()?;
        let imitation = (log_prob * self.tensor(&targets.imitated)?)?.sum_all()?.neg()?;
        let imitation_scale = settings.imitation_weight * f64::from(n_steps / n_imitated);
        let sum = ((&policy + (&value * settings.value_weight)?)? - (&entropy * settings.entropy_weight)?)?;
        let sum = (sum + (&imitation * imitation_scale)?)?;
        let total = if settings.mean_losses { (sum / f64::from(n_steps))? } else { sum };
        let mean = |t: &Tensor| Ok::<_, candle_core::Error>(f64::from(t.to_scalar::<f32>()? / n_steps));
        let sigma = ((variance.sqrt()? * &fresh)?.sum_all()?.to_scalar::<f32>()? / n_steps).into();
        Ok(Loss {
            policy: mean(&policy)?,
            value: mean(&value)?,
            imitation: mean(&imitation)?,
            entropy: mean(&entropy)?,
            importance_mean: targets.importance_mean,
            sigma,
            total,
        })
    }

    fn policy_loss(&self, targets: &Targets, log_prob: &Tensor) -> candle_core::Result<Tensor> {
        let advantage = self.tensor(&targets.advantage)?;
        let gain = match self.frame.settings.objective {
            PolicyObjective::Vtrace => (log_prob * advantage)?,
            PolicyObjective::Clipped { range } => {
                let ratio = (log_prob - self.tensor(&targets.behaviour)?)?.exp()?;
                let clipped = ratio.clamp(1.0 - range, 1.0 + range)?;
                (ratio * &advantage)?.minimum(&(clipped * &advantage)?)?
            }
        };
        gain.sum_all()?.neg()
    }

    pub(super) fn targets(&self, heads: &Heads) -> Result<Targets, RlError> {
        let read = |t: &Tensor| t.to_vec1::<f32>().during("read heads");
        let (log_prob, value) = (read(&heads.log_prob)?, read(&heads.value)?);
        let column = |values: &[f32], n: usize, b: usize| -> Vec<f64> {
            (0..n).map(|t| f64::from(values[self.batch.index(t, b)])).collect()
        };
        let mut returns = Vec::with_capacity(self.n_fresh);
        let (mut importance, mut n_steps) = (0.0, 0.0);
        for (b, unroll) in self.batch.unrolls[..self.n_fresh].iter().enumerate() {
            let n = unroll.n_steps();
            let target = column(&log_prob, n, b);
            let behaviour: Vec<f64> = unroll.log_prob.iter().map(|&l| f64::from(l)).collect();
            if !is_planned(unroll) {
                importance += target.iter().zip(&behaviour).map(|(t, b)| libm::exp(t - b)).sum::<f64>();
                n_steps += n as f64;
            }
            let stored: Vec<f64> = unroll.value.iter().map(|&v| f64::from(v)).collect();
            let is_stored = matches!(self.frame.settings.objective, PolicyObjective::Clipped { .. });
            let value_now = column(&value, n, b);
            let input = VtraceInput {
                n_batch: 1,
                behaviour_log_prob: &behaviour,
                target_log_prob: if is_stored { &behaviour } else { &target },
                discount: &self.discounts(b),
                reward: &self.rewards(b),
                value: if is_stored { &stored } else { &value_now },
                bootstrap_value: &[f64::from(value[self.batch.index(n, b)])],
            };
            let mut of_unroll = vtrace(&input, self.frame.settings.clip)?;
            if is_stored {
                // Of its own policy, V-trace is the value plus the generalised advantage.
                of_unroll.advantage = of_unroll.vs.iter().zip(&stored).map(|(vs, value)| vs - value).collect();
            }
            returns.push(of_unroll);
        }
        Ok(self.scatter(&returns, importance / f64::max(n_steps, 1.0)))
    }

    fn scatter(&self, returns: &[VtraceReturns], importance_mean: f64) -> Targets {
        let sampled = returns.iter().zip(&self.batch.unrolls).filter(|(_, unroll)| !is_planned(unroll));
        let scale = self.advantage_scale(sampled.flat_map(|(r, _)| &r.advantage));
        let fresh = |t: usize, b: usize| if b < self.n_fresh { Some((&returns[b], t)) } else { None };
        Targets {
            advantage: self.batch.spread(|t, b| fresh(t, b).map_or(0.0, |(r, t)| (scale * r.advantage[t]) as f32)),
            behaviour: self.batch.spread(|t, b| self.batch.unrolls[b].log_prob[t]),
            value: self.batch.spread(|t, b| fresh(t, b).map_or(0.0, |(r, t)| r.vs[t] as f32)),
            fresh: self.batch.spread(|t, b| if fresh(t, b).is_some() { 1.0 } else { 0.0 }),
            imitated: self.batch.spread(|t, b| if fresh(t, b).is_some() { 0.0 } else { 1.0 }),
            importance_mean,
        }
    }

    /// Standardised advantages have the scale 1, but keep their sign: a batch of bad walks stays bad.
    fn advantage_scale<'a>(&self, advantages: impl Iterator<Item = &'a f64>) -> f64 {
        if !self.frame.settings.standardise {
            return 1.0;
        }
        let (mut sum, mut count) = (0.0, 0.0);
        for advantage in advantages {
            sum += advantage * advantage;
            count += 1.0;
        }
        if sum > 0.0 { 1.0 / f64::sqrt(sum / count) } else { 1.0 }
    }

    fn discounts(&self, b: usize) -> Vec<f64> {
        let discount = self.frame.settings.discount;
        self.batch.unrolls[b].ends_walk.iter().map(|&ends| if ends { 0.0 } else { discount }).collect()
    }

    fn rewards(&self, b: usize) -> Vec<f64> {
        let unroll = self.batch.unrolls[b];
        let stats = &self.memories[unroll.task as usize].stats;
        let steps = unroll.reward.iter().zip(&unroll.ends_walk);
        steps
            .map(|(&reward, &ends)| {
                let reward = f64::from(reward);
                if self.frame.settings.standardise && ends { stats.standardise(reward) } else { reward }
            })
            .collect()
    }
}

/// Whether an unroll begins with what was planned, not sampled.
fn is_planned(unroll: &Unroll) -> bool {
    unroll.log_prob.first() == Some(&PLANNED_LOG_PROB)
}
