//! Gradient-free searches over whole plans: what they share. A walk's plan is drawn before its first group, from what
//! was published of the walks before; later groups read it from the recurrent state. A plan is a list of *genes*, one
//! number for each group, and the widths that they stand for, which the budget always allows.

mod swap;
mod tried;

use std::sync::Arc;

pub(super) use self::swap::swapped;
pub(super) use self::tried::TriedPlans;
use crate::agent::{Agent, EnvironmentSpec};
use crate::error::{RlError, check_length};
use crate::interface::{ActRequest, Decision, LearnReport, Learner, Policy};
use crate::rng::RngStream;
use crate::state::{StateReader, StateWriter};
use crate::task_plan::{TaskPlan, TaskPlans};
use crate::unroll::Unroll;

/// Proposals for one walk, as long as they were tried before.
const PROPOSALS_MAX: usize = 8;

/// How one task's plans are proposed, and what is remembered of those that were scored.
pub(super) trait PlanRule: Clone + Send + Sync + 'static {
    /// The genes of a plan, one for each group; `walk` counts the task's walks. The first plan is the knapsack's.
    fn propose(&self, task: &TaskPlan, walk: u64, rng: &mut RngStream) -> Vec<f32>;

    /// The widths that genes stand for, within the task's budget.
    ///
    /// # Errors
    /// A budget that cannot be allocated.
    fn widths(&self, task: &TaskPlan, genes: &[f32]) -> Result<Vec<usize>, RlError>;

    /// Takes note of what a plan earned.
    fn learn(&mut self, genes: &[f32], reward: f32);

    /// The best reward so far.
    fn best_reward(&self) -> Option<f32>;

    /// Writes what it remembers, every array's name beginning with `prefix`.
    fn save(&self, prefix: &str, writer: &mut StateWriter);

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`RlError::State`]: the state of other settings or tasks, or a damaged one.
    fn load(&mut self, prefix: &str, reader: &StateReader<'_>) -> Result<(), RlError>;
}

/// Learner and policy alike.
#[derive(Clone)]
pub(super) struct PlanSearch<R> {
    environment: EnvironmentSpec,
    /// None as long as there is only to be found out whether the agent can be built.
    plans: Option<TaskPlans>,
    /// By task.
    rules: Vec<R>,
    tried: Vec<TriedPlans>,
    n_updates: u64,
}

impl<R: PlanRule> PlanSearch<R> {
    /// A search that has learned nothing; `rule` is what one task begins with, given its number of groups.
    pub(super) fn agent(environment: &EnvironmentSpec, plans: Option<&TaskPlans>, rule: impl Fn(usize) -> R) -> Agent {
        let n_groups = |task: usize| plans.and_then(|plans| plans.all().get(task)).map_or(0, TaskPlan::n_groups);
        Agent::Learning(Box::new(Self {
            environment: *environment,
            plans: plans.cloned(),
            rules: (0..environment.n_tasks).map(|task| rule(n_groups(task))).collect(),
            tried: vec![TriedPlans::default(); environment.n_tasks],
            n_updates: 0,
        }))
    }

    /// Walks of one task.
    pub(super) fn walks_per_task(environment: &EnvironmentSpec) -> u64 {
        environment.walks_planned / environment.n_tasks.max(1) as u64
    }

    /// Keep ratios, then genes, of a walk's plan.
    fn draw(&self, request: &ActRequest) -> Result<Vec<f32>, RlError> {
        let out_of_range = |expected: &str| RlError::OutOfRange {
            op: "act",
            what: format!("task {}", request.task),
            expected: expected.to_owned(),
            got: "none".to_owned(),
        };
        let plans = self.plans.as_ref().ok_or_else(|| out_of_range("a plan"))?;
        let (task, place) = (plans.of(request.task)?, request.task as usize);
        check_length("act", "groups of the plan", task.n_groups(), request.n_layers as usize)?;
        let mut rng = RngStream::new(self.environment.seed, request.task.into(), request.walk, 0);
        let (mut ratios, genes) = untried(&self.rules[place], &self.tried[place], task, request.walk, &mut rng)?;
        ratios.extend(genes);
        Ok(ratios)
    }
}

/// Keep ratios and genes of a plan that was not tried before, if a few proposals find one.
pub(super) fn untried<R: PlanRule>(
    rule: &R,
    tried: &TriedPlans,
    task: &TaskPlan,
    walk: u64,
    rng: &mut RngStream,
) -> Result<(Vec<f32>, Vec<f32>), RlError> {
    let mut propose = || {
        let genes = rule.propose(task, walk, rng);
        Ok((task.widths.keep_ratios(&rule.widths(task, &genes)?), genes))
    };
    let mut plan = propose()?;
    for _ in 1..PROPOSALS_MAX {
        if walk == 0 || !tried.contains(&plan.0) {
            break;
        }
        plan = propose()?;
    }
    Ok(plan)
}

impl<R: PlanRule> Policy for PlanSearch<R> {
    fn version(&self) -> u64 {
        self.n_updates
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let (layer, n) = (request.layer as usize, request.n_layers as usize);
            let plan = if layer == 0 { self.draw(request)? } else { request.recurrent.clone() };
            check_length("act", "plan", 2 * n, plan.len())?;
            let (Some(&keep_ratio), Some(&raw_action)) = (plan.get(layer), plan.get(n + layer)) else {
                return Err(RlError::OutOfRange {
                    op: "act",
                    what: "layer".to_owned(),
                    expected: format!("less than {n}"),
                    got: layer.to_string(),
                });
            };
            Ok(Decision { keep_ratio, raw_action, recurrent: plan, ..Decision::default() })
        };
        batch.iter().map(decide).collect()
    }
}

impl<R: PlanRule> Learner for PlanSearch<R> {
    fn unroll_length(&self, walk_length: usize) -> usize {
        walk_length
    }

    fn batch_size(&self) -> usize {
        self.environment.n_actors.max(1)
    }

    fn policy(&self) -> Arc<dyn Policy> {
        Arc::new(self.clone())
    }

    fn n_updates(&self) -> u64 {
        self.n_updates
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        for unroll in batch {
            unroll.check(self.environment.n_features)?;
            if unroll.task as usize >= self.rules.len() {
                let (what, expected) = ("task".to_owned(), format!("less than {}", self.rules.len()));
                return Err(RlError::OutOfRange { op: "learn", what, expected, got: unroll.task.to_string() });
            }
            let plan = self.plans.as_ref().and_then(|plans| plans.all().get(unroll.task as usize));
            let n_groups = plan.map_or(0, TaskPlan::n_groups);
            check_length("learn", "walk", n_groups, unroll.n_steps())?;
        }
        for unroll in batch {
            let task = unroll.task as usize;
            self.tried[task].add(&unroll.keep_ratio);
            self.rules[task].learn(&unroll.raw_action, unroll.reward.iter().sum());
        }
        self.n_updates += 1;
        let best: Vec<f64> = self.rules.iter().filter_map(|rule| rule.best_reward().map(f64::from)).collect();
        let mean = best.iter().sum::<f64>() / best.len().max(1) as f64;
        Ok(LearnReport { numbers: vec![("best_reward_mean", mean)] })
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        let mut writer = StateWriter::default();
        writer.put_u64("counts", &[self.n_updates, self.rules.len() as u64]);
        for (task, (rule, tried)) in self.rules.iter().zip(&self.tried).enumerate() {
            rule.save(&format!("task.{task}"), &mut writer);
            writer.put_u64(format!("task.{task}.tried"), &tried.save());
        }
        writer.finish()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        let reader = StateReader::new(bytes)?;
        let n_tasks = self.rules.len() as u64;
        let n_updates = match reader.u64("counts")?[..] {
            [n_updates, n] if n == n_tasks => n_updates,
            _ => return Err(RlError::State { what: format!("counts: expected two numbers, the second {n_tasks}") }),
        };
        let mut read = self.clone();
        read.n_updates = n_updates;
        for (task, (rule, tried)) in read.rules.iter_mut().zip(&mut read.tried).enumerate() {
            rule.load(&format!("task.{task}"), &reader)?;
            *tried = TriedPlans::load(reader.u64(&format!("task.{task}.tried"))?);
        }
        *self = read;
        Ok(())
    }
}

/// The best plan of a task so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BestPlan {
    /// Empty as long as there is none.
    pub(super) genes: Vec<f32>,
    pub(super) reward: f32,
}

impl BestPlan {
    /// Whether the plan is better than all before; of equals the earlier stays.
    pub(super) fn offer(&mut self, genes: &[f32], reward: f32) -> bool {
        let is_better = self.genes.is_empty() || reward > self.reward;
        if is_better {
            *self = Self { genes: genes.to_vec(), reward };
        }
        is_better
    }

    pub(super) fn reward(&self) -> Option<f32> {
        (!self.genes.is_empty()).then_some(self.reward)
    }

    pub(super) fn save(&self, prefix: &str, writer: &mut StateWriter) {
        writer.put_f32(format!("{prefix}.best"), &self.genes);
        writer.put_f32(format!("{prefix}.best_reward"), &[self.reward]);
    }

    /// `n_groups` is the number of genes that a plan has.
    pub(super) fn load(prefix: &str, n_groups: usize, reader: &StateReader<'_>) -> Result<Self, RlError> {
        let genes = finite(&format!("{prefix}.best"), reader)?;
        let reward = finite(&format!("{prefix}.best_reward"), reader)?;
        match reward[..] {
            [reward] if genes.is_empty() || genes.len() == n_groups => Ok(Self { genes, reward }),
            _ => Err(RlError::State {
                what: format!("{prefix}.best: expected {n_groups} numbers or none, and a reward"),
            }),
        }
    }
}

/// An array of numbers, none of them NaN or infinite.
pub(super) fn finite(name: &str, reader: &StateReader<'_>) -> Result<Vec<f32>, RlError> {
    let numbers = reader.f32(name)?;
    match numbers.iter().all(|x| x.is_finite()) {
        true => Ok(numbers),
        false => Err(RlError::State { what: format!("{name}: expected finite numbers") }),
    }
}

/// Draws one of `0..n`; `n` is at least 1.
pub(super) fn below(rng: &mut RngStream, n: usize) -> usize {
    ((rng.uniform() * n as f64) as usize).min(n.saturating_sub(1))
}

#[cfg(test)]
pub(super) mod tests;
