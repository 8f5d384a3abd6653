//! Walks that a policy leaves to planning: what errors are found to cost, and swaps around the best walk, propose
//! widths for a task where a policy's noise would only repeat what is known.

use super::plan_search::{PlanRule, TriedPlans, untried};
use super::value_of_error::{ValueOfErrorSettings, ValuedErrors, is_from_sources};
use crate::error::RlError;
use crate::interface::ActRequest;
use crate::rng::RngStream;
use crate::state::{StateReader, StateWriter};
use crate::task_plan::{TaskPlan, TaskPlans};
use crate::unroll::Unroll;

/// Which walks are planned, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanningShare {
    /// Of the walks that explore.
    pub(super) share: f64,
    pub(super) settings: ValueOfErrorSettings,
    /// Whether the first walk of a task is the knapsack's whoever decides, and so is not planned.
    pub(super) keeps_first: bool,
    pub(super) seed: u64,
    /// Of a walk's streams of noise one that the policy draws nothing from.
    pub(super) stream: u64,
}

/// What is known of each task's walks. Empty where no walk is left to planning.
#[derive(Clone)]
pub(super) struct PlannedWalks {
    planning: PlanningShare,
    plans: Option<TaskPlans>,
    tasks: Vec<TaskPlanning>,
}

#[derive(Clone)]
struct TaskPlanning {
    rule: ValuedErrors,
    tried: TriedPlans,
}

impl PlannedWalks {
    /// Before any walk of so many tasks.
    pub(super) fn new(planning: PlanningShare, plans: Option<&TaskPlans>, n_tasks: usize) -> Self {
        let n_groups = |task: usize| plans.and_then(|plans| plans.all().get(task)).map_or(0, TaskPlan::n_groups);
        let of_task = |task: usize| TaskPlanning {
            rule: ValuedErrors::new(planning.settings, n_groups(task)),
            tried: TriedPlans::default(),
        };
        let n_planned = if planning.share > 0.0 { n_tasks } else { 0 };
        Self { planning, plans: plans.cloned(), tasks: (0..n_planned).map(of_task).collect() }
    }

    fn plan(&self, task: u32) -> Option<&TaskPlan> {
        self.plans.as_ref()?.all().get(task as usize)
    }

    /// The keep ratios of a walk that is about to begin, if it is one to be planned.
    pub(super) fn draw(&self, request: &ActRequest) -> Result<Option<Vec<f32>>, RlError> {
        let (Some(known), Some(plan)) = (self.tasks.get(request.task as usize), self.plan(request.task)) else {
            return Ok(None);
        };
        let PlanningShare { share, keeps_first, seed, stream, .. } = self.planning;
        let mut rng = RngStream::new(seed, request.task.into(), request.walk, stream);
        let is_planned = request.explore
            && !(keeps_first && request.walk == 0)
            && plan.n_groups() == request.n_layers as usize
            && (rng.uniform() < share || is_from_sources(plan, request.walk));
        if !is_planned {
            return Ok(None);
        }
        Ok(Some(untried(&known.rule, &known.tried, plan, request.walk, &mut rng)?.0))
    }

    /// Takes note of what a walk earned that came whole, whoever chose its widths.
    pub(super) fn add(&mut self, unroll: &Unroll) {
        let plan = self.plans.as_ref().and_then(|plans| plans.all().get(unroll.task as usize));
        let (Some(known), Some(plan)) = (self.tasks.get_mut(unroll.task as usize), plan) else { return };
        if !unroll.is_whole_walk() || unroll.n_steps() != plan.n_groups() {
            return;
        }
        known.tried.add(&unroll.keep_ratio);
        let ratios = plan.widths.groups.iter().zip(&unroll.keep_ratio);
        let widths: Vec<f32> = ratios.map(|(group, ratio)| (ratio * group.n_channels as f32).round()).collect();
        known.rule.learn(&widths, unroll.reward.iter().sum());
    }

    pub(super) fn save(&self, writer: &mut StateWriter) {
        for (task, known) in self.tasks.iter().enumerate() {
            known.rule.save(&format!("task.{task}.planned"), writer);
            writer.put_u64(format!("task.{task}.tried"), &known.tried.save());
        }
    }

    pub(super) fn load(&mut self, reader: &StateReader<'_>) -> Result<(), RlError> {
        for (task, known) in self.tasks.iter_mut().enumerate() {
            known.rule.load(&format!("task.{task}.planned"), reader)?;
            known.tried = TriedPlans::load(reader.u64(&format!("task.{task}.tried"))?);
        }
        Ok(())
    }
}
