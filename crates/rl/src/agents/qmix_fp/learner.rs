//! The learning half of the team.

use std::sync::Arc;

use candle_core::Tensor;

use super::super::plan_search::TriedPlans;
use super::loss::EpisodeBatch;
use super::policy::TeamPolicy;
use super::replay::{Episode, EpisodeReplay};
use super::settings::{QmixFpSettings, TargetRule};
use super::team::TeamFrame;
use crate::agent::EnvironmentSpec;
use crate::error::{During, RlError, check_finite, check_length};
use crate::interface::{LearnReport, Learner, Policy};
use crate::nn::params::{Params, flat_gradient};
use crate::optim::{Optimizer, clip_gradient_norm};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::TaskPlans;
use crate::unroll::Unroll;

/// What changes, and is saved.
#[derive(Clone)]
struct TeamState {
    live: Params,
    target: Params,
    optimizer: Optimizer,
    replay: EpisodeReplay,
    tried: Vec<TriedPlans>,
    n_updates: u64,
    n_walks: u64,
    n_steps: u64,
    /// Episodes when the target networks were last copied.
    n_walks_copied: u64,
}

/// The learning half of a team of Q-learning agents.
pub struct QmixFpLearner {
    frame: Arc<TeamFrame>,
    state: TeamState,
    policy: Arc<TeamPolicy>,
}

/// Sums over the gradient steps of one call.
#[derive(Default)]
struct StepSums {
    n: u64,
    loss: f64,
    value: f64,
    norm: f64,
}

impl QmixFpLearner {
    /// A learner that has learned nothing; without plans there is only to be found out whether it can be built.
    ///
    /// # Errors
    /// A failure to copy the initial weights.
    pub fn new(
        settings: QmixFpSettings,
        environment: &EnvironmentSpec,
        plans: Option<&TaskPlans>,
    ) -> Result<Self, RlError> {
        let frame = Arc::new(TeamFrame::new(settings, environment, plans));
        let live = Params::new(frame.shape.specs(), environment.seed);
        let state = TeamState {
            target: live.clone(),
            optimizer: Optimizer::new(frame.settings.optimizer, live.values().len()),
            live,
            replay: EpisodeReplay::new(environment.n_tasks),
            tried: vec![TriedPlans::default(); environment.n_tasks],
            n_updates: 0,
            n_walks: 0,
            n_steps: 0,
            n_walks_copied: 0,
        };
        let policy = Arc::new(publish(&frame, &state)?);
        Ok(Self { frame, state, policy })
    }

    /// The weights that are learned, in the order of their arrays.
    pub fn weights(&self) -> &[f32] {
        self.state.live.values()
    }

    fn learn_or_fail(&mut self, fresh: &[Unroll]) -> Result<LearnReport, RlError> {
        let frame = Arc::clone(&self.frame);
        let settings = &frame.settings;
        let episodes: Vec<Episode> =
            fresh.iter().map(|unroll| Episode::of_walk(&frame, unroll)).collect::<Result<_, _>>()?;
        let mut sums = StepSums::default();
        for (unroll, episode) in fresh.iter().zip(episodes) {
            self.state.tried[unroll.task as usize].add(&unroll.keep_ratio);
            self.state.replay.add(episode, settings.replay);
            self.state.n_walks += 1;
        }
        let spreads = self.state.replay.spreads();
        for _ in 0..fresh.len() * settings.steps_per_walk {
            if self.state.replay.episodes.len() < settings.batch {
                break;
            }
            let drawn = self.state.replay.draw(settings.batch, frame.environment.seed, self.state.n_steps);
            self.gradient_step(&EpisodeBatch::new(&frame, &drawn, &spreads)?, &mut sums)?;
        }
        if let TargetRule::Copied(every) = settings.targets
            && self.state.n_walks - self.state.n_walks_copied >= every
        {
            self.state.target = self.state.live.clone();
            self.state.n_walks_copied = self.state.n_walks;
        }
        self.state.n_updates += 1;
        self.policy = Arc::new(publish(&frame, &self.state)?);
        Ok(self.report(&sums))
    }

    fn gradient_step(&mut self, batch: &EpisodeBatch<'_>, sums: &mut StepSums) -> Result<(), RlError> {
        let settings = &self.frame.settings;
        let variables = self.state.live.variables()?;
        let live: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let loss = batch.loss(&live, &self.state.target.tensors()?)?;
        let error = loss.total.to_scalar::<f32>().during("read loss")?;
        check_finite("learn", "loss", &[error])?;
        let gradients = loss.total.backward().during("backward pass")?;
        let mut gradient = flat_gradient(&variables, &gradients)?;
        check_finite("learn", "gradient", &gradient)?;
        let norm = clip_gradient_norm(&mut gradient, settings.gradient_norm_max);
        self.state.optimizer.step(self.state.live.values_mut(), &gradient, settings.learning_rate as f32)?;
        if let TargetRule::Soft(share) = settings.targets {
            let live = self.state.live.values();
            for (target, &live) in self.state.target.values_mut().iter_mut().zip(live) {
                *target += share * (live - *target);
            }
        }
        self.state.n_steps += 1;
        sums.n += 1;
        sums.loss += f64::from(error);
        sums.value += loss.value_mean;
        sums.norm += norm;
        Ok(())
    }

    /// `loss`, `value_mean` and `gradient_norm` (before clipping) are means over the gradient steps.
    fn report(&self, sums: &StepSums) -> LearnReport {
        let n = sums.n.max(1) as f64;
        let best: Vec<f64> = self.state.replay.best.iter().flatten().map(|best| best.score.into()).collect();
        let numbers = vec![
            ("loss", sums.loss / n),
            ("value_mean", sums.value / n),
            ("gradient_norm", sums.norm / n),
            ("gradient_steps", sums.n as f64),
            ("exploration", self.policy.chance),
            ("episodes", self.state.replay.episodes.len() as f64),
            ("best_reward_mean", best.iter().sum::<f64>() / best.len().max(1) as f64),
        ];
        LearnReport { numbers }
    }
}

fn publish(frame: &Arc<TeamFrame>, state: &TeamState) -> Result<TeamPolicy, RlError> {
    let done = state.n_walks as f64 / frame.environment.walks_planned.max(1) as f64;
    Ok(TeamPolicy {
        version: state.n_updates,
        frame: Arc::clone(frame),
        weights: state.live.tensors()?,
        chance: frame.settings.exploration.chance(done),
        best: state.replay.best.clone(),
        tried: state.tried.clone(),
    })
}

impl Learner for QmixFpLearner {
    fn unroll_length(&self, walk_length: usize) -> usize {
        walk_length
    }

    fn batch_size(&self) -> usize {
        self.frame.environment.n_actors.max(1)
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        if batch.is_empty() {
            let (what, expected) = ("batch size".to_owned(), "at least 1 unroll".to_owned());
            return Err(RlError::OutOfRange { op: "learn", what, expected, got: "0".to_owned() });
        }
        let before = self.state.clone();
        self.learn_or_fail(batch).inspect_err(|_| self.state = before)
    }

    fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.policy) as Arc<dyn Policy>
    }

    fn n_updates(&self) -> u64 {
        self.state.n_updates
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        let mut writer = StateWriter::default();
        let state = &self.state;
        let (mean, square, n_optimised) = state.optimizer.state();
        let counts = [state.n_updates, state.n_walks, state.n_steps, state.n_walks_copied, n_optimised];
        writer.put_u64("counts", &counts);
        writer.put_f32("weights", state.live.values());
        writer.put_f32("target", state.target.values());
        writer.put_f32("optimizer.mean", mean);
        writer.put_f32("optimizer.square", square);
        state.replay.save(self.frame.shape.n_actions, &mut writer);
        for (task, tried) in state.tried.iter().enumerate() {
            writer.put_u64(format!("task.{task}.tried"), &tried.save());
        }
        writer.finish()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        let reader = StateReader::new(bytes)?;
        let counts = reader.u64("counts")?;
        check_length("load learner state", "counts", 5, counts.len())?;
        let mut state = TeamState {
            n_updates: counts[0],
            n_walks: counts[1],
            n_steps: counts[2],
            n_walks_copied: counts[3],
            ..self.state.clone()
        };
        state.live.restore(reader.f32("weights")?)?;
        state.target.restore(reader.f32("target")?)?;
        state.optimizer.restore(reader.f32("optimizer.mean")?, reader.f32("optimizer.square")?, counts[4])?;
        state.replay = EpisodeReplay::load(&self.frame, &reader)?;
        for (task, tried) in state.tried.iter_mut().enumerate() {
            *tried = TriedPlans::load(reader.u64(&format!("task.{task}.tried"))?);
        }
        self.policy = Arc::new(publish(&self.frame, &state)?);
        self.state = state;
        Ok(())
    }
}
