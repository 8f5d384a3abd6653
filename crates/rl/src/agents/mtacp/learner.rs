//! The learning half of MTACP.

use std::sync::Arc;

use super::batch::UnrollBatch;
use super::errors;
use super::frame::Frame;
use super::loss::{Loss, LossInput};
use super::memory::{self, TaskMemory};
use super::net::NetShape;
use super::policy::MtacpPolicy;
use super::report::GradientStepSums;
use super::settings::{MtacpSettings, SigmaRule, UnrollRule};
use crate::agent::EnvironmentSpec;
use crate::agents::planned_walks::PlannedWalks;
use crate::error::{During, RlError, check_finite};
use crate::inheritance::Inheritance;
use crate::interface::{LearnReport, Learner, Policy};
use crate::nn::params::{Params, flat_gradient};
use crate::optim::{Optimizer, clip_gradient_norm};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::TaskPlans;
use crate::unroll::Unroll;

/// What changes, and is saved.
#[derive(Clone)]
pub(super) struct State {
    pub(super) params: Params,
    pub(super) optimizer: Optimizer,
    pub(super) memories: Vec<TaskMemory>,
    pub(super) planned: PlannedWalks,
    pub(super) n_updates: u64,
    pub(super) n_walks: u64,
}

/// The learning half of MTACP.
pub struct MtacpLearner {
    pub(super) frame: Arc<Frame>,
    pub(super) walks_planned: u64,
    pub(super) batch_size: usize,
    pub(super) state: State,
    pub(super) policy: Arc<MtacpPolicy>,
}

impl MtacpLearner {
    /// A learner that has learned nothing.
    ///
    /// # Errors
    /// A failure to copy the initial weights.
    pub fn new(settings: MtacpSettings, agent: &EnvironmentSpec) -> Result<Self, RlError> {
        Self::with_plans(settings, agent, None)
    }

    /// As [`Self::new`], in a run whose tasks have these plans, if the settings ask for them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_plans(
        settings: MtacpSettings,
        agent: &EnvironmentSpec,
        plans: Option<TaskPlans>,
    ) -> Result<Self, RlError> {
        let has_table = settings.table_gain != 0.0;
        let net = NetShape {
            n_inputs: agent.n_features + usize::from(has_table) + errors::n_features(settings.observe),
            trunk: settings.trunk.clone(),
            n_hidden: settings.lstm_units,
            n_table: if has_table { agent.n_tasks * agent.walk_length_max } else { 0 },
            table_gain: settings.table_gain,
            zero_mean: settings.zero_mean,
        };
        let batch_size = if settings.batch_size == 0 { agent.n_actors.max(1) } else { settings.batch_size };
        let frame = Arc::new(Frame {
            settings,
            plans,
            net,
            n_features: agent.n_features,
            n_tasks: agent.n_tasks,
            walk_length_max: agent.walk_length_max,
            keep_ratio_min: agent.keep_ratio_min,
            seed: agent.seed,
        });
        let params = Params::new(frame.net.specs(), agent.seed);
        let state = State {
            optimizer: Optimizer::new(frame.settings.optimizer, params.values().len()),
            params,
            memories: vec![TaskMemory::default(); agent.n_tasks],
            planned: PlannedWalks::new(frame.planning(), frame.plans.as_ref(), frame.n_tasks),
            n_updates: 0,
            n_walks: 0,
        };
        let walks_planned = agent.walks_planned;
        let policy = Arc::new(publish(&frame, &state, walks_planned)?);
        Ok(Self { frame, walks_planned, batch_size, state, policy })
    }

    /// The weights, in the order of their specs.
    pub fn weights(&self) -> &[f32] {
        self.state.params.values()
    }

    fn gradient_step(&mut self, input: &LossInput, totals: &mut GradientStepSums) -> Result<(), RlError> {
        let (loss, mut gradient) = loss_and_gradient(&self.state.params, input)?;
        let norm = clip_gradient_norm(&mut gradient, self.frame.settings.gradient_norm_max);
        let rate = self.rate();
        self.state.optimizer.step(self.state.params.values_mut(), &gradient, rate as f32)?;
        totals.add(&loss, norm, rate);
        Ok(())
    }

    fn rate(&self) -> f64 {
        let settings = &self.frame.settings;
        let share = progress(self.state.n_walks, self.walks_planned);
        let last = settings.learning_rate * settings.learning_rate_end;
        settings.learning_rate + share * (last - settings.learning_rate)
    }

    fn learn_or_fail(&mut self, fresh: &[Unroll]) -> Result<LearnReport, RlError> {
        let frame = Arc::clone(&self.frame);
        let settings = &frame.settings;
        let sigma = sigma(&frame, self.state.n_walks, self.walks_planned);
        let n_best = settings.imitated_walks;
        for unroll in fresh {
            unroll.check(frame.n_features)?;
            frame.table_row(unroll.task, 0)?;
            self.state.memories[unroll.task as usize].add(unroll, n_best);
            self.state.planned.add(unroll);
        }
        let memories = self.state.memories.clone();
        let remembered = memories.iter().flat_map(|memory| &memory.best);
        let batch = UnrollBatch::new(&frame, fresh.iter().chain(remembered).collect())?;
        let input = LossInput { frame: &frame, batch: &batch, n_fresh: fresh.len(), memories: &memories, sigma };
        let mut totals = GradientStepSums::default();
        for _ in 0..settings.passes {
            self.gradient_step(&input, &mut totals)?;
        }
        self.state.n_updates += 1;
        self.state.n_walks += fresh.iter().flat_map(|u| &u.ends_walk).filter(|&&ends| ends).count() as u64;
        self.policy = Arc::new(publish(&frame, &self.state, self.walks_planned)?);
        Ok(totals.finish())
    }
}

pub(super) fn loss_and_gradient(params: &Params, input: &LossInput) -> Result<(Loss, Vec<f32>), RlError> {
    let variables = params.variables()?;
    let loss = input.loss(&variables)?;
    let gradients = loss.total.backward().during("backward pass")?;
    let gradient = flat_gradient(&variables, &gradients)?;
    check_finite("learn", "gradient", &gradient)?;
    Ok((loss, gradient))
}

/// Share of the planned walks that is done, [0, 1].
fn progress(n_walks: u64, walks_planned: u64) -> f64 {
    (n_walks as f64 / walks_planned.max(1) as f64).min(1.0)
}

fn sigma(frame: &Frame, n_walks: u64, walks_planned: u64) -> f32 {
    match frame.settings.sigma {
        SigmaRule::Learned => 1.0,
        SigmaRule::Annealed { first, last } => {
            let share = progress(n_walks, walks_planned);
            (f64::from(first) * libm::pow(f64::from(last) / f64::from(first), share)) as f32
        }
    }
}

fn publish(frame: &Arc<Frame>, state: &State, walks_planned: u64) -> Result<MtacpPolicy, RlError> {
    Ok(MtacpPolicy {
        version: state.n_updates,
        frame: Arc::clone(frame),
        weights: state.params.tensors()?,
        sigma: sigma(frame, state.n_walks, walks_planned),
        planned: state.planned.clone(),
    })
}

impl Learner for MtacpLearner {
    fn unroll_length(&self, walk_length: usize) -> usize {
        match self.frame.settings.unroll {
            UnrollRule::Fixed(n_steps) => n_steps,
            UnrollRule::Walk => walk_length,
        }
    }

    fn batch_size(&self) -> usize {
        self.batch_size
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
        let (mean, square, n_steps) = state.optimizer.state();
        writer.put_u64("counts", &[state.n_updates, state.n_walks, n_steps]);
        writer.put_f32("weights", state.params.values());
        writer.put_f32("optimizer.mean", mean);
        writer.put_f32("optimizer.square", square);
        memory::save(&state.memories, &mut writer);
        state.planned.save(&mut writer);
        writer.finish()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        let reader = StateReader::new(bytes)?;
        let [n_updates, n_walks, n_steps] = reader.u64("counts")?[..] else {
            return Err(RlError::State { what: "counts: expected three numbers".to_owned() });
        };
        let mut state = State { n_updates, n_walks, ..self.state.clone() };
        state.params.restore(reader.f32("weights")?)?;
        state.optimizer.restore(reader.f32("optimizer.mean")?, reader.f32("optimizer.square")?, n_steps)?;
        let n_best = self.frame.settings.imitated_walks;
        state.memories = memory::load(self.frame.n_tasks, n_best, self.frame.n_features, &reader)?;
        state.planned.load(&reader)?;
        self.policy = Arc::new(publish(&self.frame, &state, self.walks_planned)?);
        self.state = state;
        Ok(())
    }

    /// The weights, and for the table's row of a group the mean of the rows that it is like. The exploration is that of
    /// the share of a search that is taken for done; what was remembered of tasks and walks stays behind.
    fn inherit(&mut self, from: &Inheritance<'_>) -> Result<(), RlError> {
        let reader = StateReader::new(from.state)?;
        let mut values = reader.f32("weights")?;
        let n_table = self.frame.net.n_table;
        let n_table_then = if n_table == 0 { 0 } else { from.n_tasks_then.saturating_mul(from.walk_length_max_then) };
        let n_others = self.state.params.values().len() - n_table;
        if values.len() != n_others + n_table_then {
            let (got, expected) = (values.len(), n_others + n_table_then);
            return Err(RlError::State {
                what: format!(
                    "it has {got} weights, expected {expected}: other settings, or other numbers of networks or data sets"
                ),
            });
        }
        let table = values.split_off(n_others);
        let row = |task: usize, group: usize| table.get(task * from.walk_length_max_then + group).copied();
        for origin in from.origins.iter().filter(|_| n_table > 0) {
            for group in 0..self.frame.walk_length_max {
                let then = origin.group_then(group.min(origin.walk_length.saturating_sub(1)));
                let rows = origin.shares.iter().map(|&(task, share)| Some(share * row(task, then)?));
                let sum = rows.sum::<Option<f32>>();
                values.push(sum.ok_or_else(|| RlError::State { what: "it has no row of such a task".to_owned() })?);
            }
        }
        let n_walks = (from.progress * self.walks_planned as f64).round() as u64;
        let mut state = State { n_walks, ..self.state.clone() };
        state.params.restore(values)?;
        self.policy = Arc::new(publish(&self.frame, &state, self.walks_planned)?);
        self.state = state;
        Ok(())
    }
}
