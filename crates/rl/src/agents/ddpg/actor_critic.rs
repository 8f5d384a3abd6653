//! One search: actor, critic, what they learn from, and how.

use candle_core::{Device, Tensor, Var};

use super::frame::DdpgFrame;
use super::net::{actor, critic};
use super::replay::{PastStep, Replay};
use super::settings::{CreditRule, DdpgSettings};
use super::task_reward::TaskReward;
use crate::error::{During, RlError, check_finite};
use crate::nn::params::{Params, flat_gradient};
use crate::optim::{Optimizer, OptimizerRule};
use crate::rng::{NO_TASK, RngStream};
use crate::state::{StateReader, StateWriter};

/// Walks of a task from which on walks of earlier runs are no longer learned from.
const EARLIER_WALKS: f64 = 100.0;

/// A network, the one that follows it, and its optimiser.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Followed {
    pub(super) now: Params,
    pub(super) target: Params,
    optimizer: Optimizer,
}

impl Followed {
    fn new(params: Params) -> Self {
        let optimizer = Optimizer::new(OptimizerRule::ADAM, params.values().len());
        Self { target: params.clone(), now: params, optimizer }
    }

    fn step(&mut self, gradient: &[f32], rate: f32) -> Result<(), RlError> {
        self.optimizer.step(self.now.values_mut(), gradient, rate)
    }

    /// The target becomes (1 - rate) times itself plus rate times what it follows.
    pub(super) fn follow(&mut self, rate: f32) {
        for (target, &now) in self.target.values_mut().iter_mut().zip(self.now.values()) {
            *target += rate * (now - *target);
        }
    }

    fn save(&self, prefix: &str, writer: &mut StateWriter) {
        let (mean, square, n_steps) = self.optimizer.state();
        writer.put_f32(format!("{prefix}.weights"), self.now.values());
        writer.put_f32(format!("{prefix}.target"), self.target.values());
        writer.put_f32(format!("{prefix}.mean"), mean);
        writer.put_f32(format!("{prefix}.square"), square);
        writer.put_u64(format!("{prefix}.n_steps"), &[n_steps]);
    }

    fn load(&mut self, prefix: &str, reader: &StateReader) -> Result<(), RlError> {
        let read = |name: &str| reader.f32(&format!("{prefix}.{name}"));
        let [n_steps] = reader.u64(&format!("{prefix}.n_steps"))?[..] else {
            return Err(RlError::State { what: format!("{prefix}.n_steps: expected one number") });
        };
        self.now.restore(read("weights")?)?;
        self.target.restore(read("target")?)?;
        self.optimizer.restore(read("mean")?, read("square")?, n_steps)
    }
}

/// A batch of steps, `[B]` or `[B, F]`.
pub(super) struct StepBatch {
    pub(super) features: Tensor,
    pub(super) actions: Tensor,
    pub(super) next_features: Tensor,
    /// Rewards as they are learned, before the baseline.
    pub(super) rewards: Vec<f64>,
    /// Discount after the step, 0 at the end of a walk.
    pub(super) discounts: Vec<f64>,
}

impl StepBatch {
    /// `rewards` is what is known of each task's; those of `earlier` steps are learned as they are.
    pub(super) fn new(
        settings: &DdpgSettings,
        n_features: usize,
        own: &[PastStep<'_>],
        earlier: &[PastStep<'_>],
        rewards: &[TaskReward],
    ) -> Result<Self, RlError> {
        let steps: Vec<PastStep<'_>> = own.iter().chain(earlier).copied().collect();
        let n = steps.len();
        let (mut now, mut next) = (Vec::with_capacity(n * n_features), Vec::with_capacity(n * n_features));
        for &PastStep { walk, step } in &steps {
            now.extend_from_slice(&walk.features[step * n_features..(step + 1) * n_features]);
            // What comes after the last step does not count.
            let after = (step + 1).min(walk.actions.len() - 1);
            next.extend_from_slice(&walk.features[after * n_features..(after + 1) * n_features]);
        }
        let actions: Vec<f32> = steps.iter().map(|past| past.walk.actions[past.step]).collect();
        let reward = |at: usize, past: &PastStep<'_>| {
            let learned = match rewards.get(past.walk.task as usize).filter(|_| at < own.len()) {
                Some(known) => known.learned(past.walk.reward.into(), settings.reward_scale),
                None => past.walk.reward.into(),
            };
            match settings.credit {
                CreditRule::Copied => learned,
                CreditRule::Divided => learned / past.walk.actions.len() as f64,
            }
        };
        let discount = |past: &PastStep<'_>| {
            if past.step + 1 == past.walk.actions.len() { 0.0 } else { settings.discount }
        };
        let rows = |values: &[f32]| Tensor::from_slice(values, (n, n_features), &Device::Cpu).during("replay batch");
        Ok(Self {
            features: rows(&now)?,
            next_features: rows(&next)?,
            actions: Tensor::from_slice(&actions, n, &Device::Cpu).during("replay batch")?,
            rewards: steps.iter().enumerate().map(|(at, past)| reward(at, past)).collect(),
            discounts: steps.iter().map(discount).collect(),
        })
    }
}

/// What one gradient step did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepLosses {
    /// Mean squared error of the values.
    pub(super) critic: f64,
    /// Mean value of the actor's actions, negated.
    pub(super) actor: f64,
}

/// One search.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ActorCritic {
    pub(super) actor: Followed,
    pub(super) critic: Followed,
    pub(super) replay: Replay,
    /// Walks of earlier runs, whose rewards are what was learned of them then.
    pub(super) earlier: Replay,
    /// The best walks of each task.
    pub(super) best: Replay,
    /// Moving mean of the batches' mean rewards; none before the first.
    pub(super) baseline: Option<f64>,
    /// Walks learned from.
    pub(super) n_walks: u64,
    n_gradient_steps: u64,
}

impl ActorCritic {
    /// The search at `place` of all searches of a run.
    pub(super) fn new(frame: &DdpgFrame, place: usize) -> Self {
        let seed = frame.environment.seed.wrapping_add((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            actor: Followed::new(Params::new(frame.sizes.actor(), seed)),
            // Another seed: the first weights of two networks of one shape would else be the same.
            critic: Followed::new(Params::new(frame.sizes.critic(), seed ^ u64::MAX)),
            replay: Replay::default(),
            earlier: Replay::default(),
            best: Replay::default(),
            baseline: None,
            n_walks: 0,
            n_gradient_steps: 0,
        }
    }

    /// One gradient step of critic and actor on a batch from the ring; targets follow. None as long as no step may be
    /// sampled.
    pub(super) fn gradient_step(
        &mut self,
        frame: &DdpgFrame,
        place: usize,
        rewards: &[TaskReward],
    ) -> Result<Option<StepLosses>, RlError> {
        let settings = &frame.settings;
        // Weights draw from the streams whose last part is 0.
        let mut rng = RngStream::new(frame.environment.seed, NO_TASK, self.n_gradient_steps, 1 + place as u64);
        let n_earlier = self.n_earlier(frame);
        let earlier = self.earlier.sample(n_earlier, settings.skip_first_steps, &mut rng);
        let steps = self.replay.sample(settings.batch - earlier.len(), settings.skip_first_steps, &mut rng);
        if steps.is_empty() && earlier.is_empty() {
            return Ok(None);
        }
        let batch = StepBatch::new(settings, frame.sizes.n_features, &steps, &earlier, rewards)?;
        self.n_gradient_steps += 1;
        let mean = batch.rewards.iter().sum::<f64>() / batch.rewards.len() as f64;
        let baseline = self.move_baseline(mean, settings.baseline_rate);
        let targets = self.targets(&batch, baseline)?;
        let (critic, gradient) = critic_loss(&self.critic.now, &batch, &targets)?;
        self.critic.step(&gradient, settings.critic_rate)?;
        let best: Vec<PastStep<'_>> = self.best.all().collect();
        let imitated = match &best[..] {
            [] => None,
            best => Some(StepBatch::new(settings, frame.sizes.n_features, best, &[], rewards)?),
        };
        let imitated = imitated.as_ref().map(|batch| (batch, settings.imitation_weight));
        let (actor, gradient) = actor_loss(&self.actor.now, &self.critic.now, &batch, imitated)?;
        self.actor.step(&gradient, settings.actor_rate)?;
        self.actor.follow(settings.target_rate);
        self.critic.follow(settings.target_rate);
        Ok(Some(StepLosses { critic, actor }))
    }

    /// Steps of a batch that are of earlier runs: half of them at first, fewer with every walk of a task, none after
    /// [`EARLIER_WALKS`].
    fn n_earlier(&self, frame: &DdpgFrame) -> usize {
        let walks_per_task = self.replay.walks().len() as f64 / frame.tasks_per_search().max(1) as f64;
        let left = (1.0 - walks_per_task / EARLIER_WALKS).max(0.0);
        if self.earlier.walks().len() == 0 { 0 } else { (0.5 * left * frame.settings.batch as f64).round() as usize }
    }

    /// The first mean reward is the baseline; it then follows. 0 at rate 0.
    pub(super) fn move_baseline(&mut self, mean: f64, rate: f64) -> f64 {
        if rate == 0.0 {
            return 0.0;
        }
        let moved = self.baseline.map_or(mean, |before| before + rate * (mean - before));
        self.baseline = Some(moved);
        moved
    }

    /// Targets of the critic: `(r - b) + gamma (1 - done) Q'(s', mu'(s'))`, `[B]`.
    pub(super) fn targets(&self, batch: &StepBatch, baseline: f64) -> Result<Vec<f32>, RlError> {
        let (of_actor, of_critic) = (self.actor.target.tensors()?, self.critic.target.tensors()?);
        let next = actor(&of_actor, &batch.next_features)
            .and_then(|actions| critic(&of_critic, &batch.next_features, &actions)?.to_vec1::<f32>())
            .during("targets")?;
        let target =
            |step: usize| (batch.rewards[step] - baseline + batch.discounts[step] * f64::from(next[step])) as f32;
        Ok((0..next.len()).map(target).collect())
    }

    pub(super) fn save(&self, prefix: &str, writer: &mut StateWriter) {
        self.actor.save(&format!("{prefix}.actor"), writer);
        self.critic.save(&format!("{prefix}.critic"), writer);
        self.replay.save(&format!("{prefix}.replay"), writer);
        self.earlier.save(&format!("{prefix}.earlier"), writer);
        self.best.save(&format!("{prefix}.best"), writer);
        writer.put_f64(format!("{prefix}.baseline"), self.baseline.as_slice());
        writer.put_u64(format!("{prefix}.counts"), &[self.n_walks, self.n_gradient_steps]);
    }

    /// Puts back what [`Self::save`] wrote.
    pub(super) fn load(&mut self, frame: &DdpgFrame, prefix: &str, reader: &StateReader) -> Result<(), RlError> {
        self.actor.load(&format!("{prefix}.actor"), reader)?;
        self.critic.load(&format!("{prefix}.critic"), reader)?;
        let (n_tasks, n_features) = (frame.environment.n_tasks, frame.sizes.n_features);
        let ring = |name: &str, n_walks: usize| {
            Replay::load(&format!("{prefix}.{name}"), [n_tasks, n_walks, n_features], reader)
        };
        self.replay = ring("replay", frame.settings.replay_walks)?;
        self.earlier = ring("earlier", frame.settings.replay_walks)?;
        self.best = ring("best", n_tasks.saturating_mul(frame.settings.imitated_walks))?;
        self.baseline = match reader.f64(&format!("{prefix}.baseline"))?[..] {
            [] => None,
            [baseline] if baseline.is_finite() => Some(baseline),
            _ => return Err(RlError::State { what: format!("{prefix}.baseline: expected a finite number, or none") }),
        };
        let [n_walks, n_gradient_steps] = reader.u64(&format!("{prefix}.counts"))?[..] else {
            return Err(RlError::State { what: format!("{prefix}.counts: expected two numbers") });
        };
        (self.n_walks, self.n_gradient_steps) = (n_walks, n_gradient_steps);
        Ok(())
    }
}

fn tensors_of(variables: &[Var]) -> Vec<Tensor> {
    variables.iter().map(|variable| variable.as_tensor().clone()).collect()
}

/// The loss, and its gradient in the weights.
fn with_gradient(what: &'static str, loss: &Tensor, variables: &[Var]) -> Result<(f64, Vec<f32>), RlError> {
    let value = f64::from(loss.to_scalar::<f32>().during(what)?);
    check_finite("learn", what, &[value])?;
    let gradient = flat_gradient(variables, &loss.backward().during(what)?)?;
    check_finite("learn", "gradient", &gradient)?;
    Ok((value, gradient))
}

/// Mean of `(Q(s, a) - y)^2` over the batch, and its gradient in the critic's weights.
pub(super) fn critic_loss(of_critic: &Params, batch: &StepBatch, targets: &[f32]) -> Result<(f64, Vec<f32>), RlError> {
    let variables = of_critic.variables()?;
    let loss = Tensor::from_slice(targets, targets.len(), &Device::Cpu)
        .and_then(|y| (critic(&tensors_of(&variables), &batch.features, &batch.actions)? - y)?.sqr()?.mean_all())
        .during("critic loss")?;
    with_gradient("critic loss", &loss, &variables)
}

/// Mean of `-Q(s, mu(s))` over the batch, plus the mean of `(mu(s) - a)^2` over imitated steps times their weight, and
/// its gradient in the actor's weights.
pub(super) fn actor_loss(
    of_actor: &Params,
    of_critic: &Params,
    batch: &StepBatch,
    imitated: Option<(&StepBatch, f64)>,
) -> Result<(f64, Vec<f32>), RlError> {
    let variables = of_actor.variables()?;
    let (of_actor, of_critic) = (tensors_of(&variables), of_critic.tensors()?);
    let mut loss = actor(&of_actor, &batch.features)
        .and_then(|actions| critic(&of_critic, &batch.features, &actions)?.mean_all()?.neg())
        .during("actor loss")?;
    if let Some((best, weight)) = imitated {
        loss = actor(&of_actor, &best.features)
            .and_then(|actions| &loss + ((actions - &best.actions)?.sqr()?.mean_all()? * weight)?)
            .during("actor loss")?;
    }
    with_gradient("actor loss", &loss, &variables)
}
