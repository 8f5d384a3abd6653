//! Walks that the policy leaves to planning: what errors are found to cost, and swaps around the best walk, propose
//! widths for a task where a Gaussian around the policy's mean would only repeat what is known.

use super::frame::Frame;
use super::memory::is_whole_walk;
use crate::agents::plan_search::{PlanRule, TriedPlans, untried};
use crate::agents::value_of_error::{ValuedErrors, is_from_sources};
use crate::error::RlError;
use crate::interface::ActRequest;
use crate::rng::RngStream;
use crate::state::{StateReader, StateWriter};
use crate::task_plan::TaskPlan;
use crate::unroll::Unroll;

/// What is known of each task's walks. Empty where the settings leave no walk to planning.
#[derive(Clone)]
pub(super) struct PlannedWalks(Vec<TaskPlanning>);

#[derive(Clone)]
struct TaskPlanning {
    rule: ValuedErrors,
    tried: TriedPlans,
}

impl PlannedWalks {
    /// Before any walk.
    pub(super) fn new(frame: &Frame) -> Self {
        let n_tasks = if frame.settings.planned_share > 0.0 { frame.n_tasks } else { 0 };
        let planning = |task: usize| TaskPlanning {
            rule: ValuedErrors::new(frame.settings.planning, frame.plan(task as u32).map_or(0, TaskPlan::n_groups)),
            tried: TriedPlans::default(),
        };
        Self((0..n_tasks).map(planning).collect())
    }

    /// The keep ratios of a walk that is about to begin, if it is one to be planned.
    pub(super) fn draw(&self, frame: &Frame, request: &ActRequest) -> Result<Option<Vec<f32>>, RlError> {
        let (Some(known), Some(plan)) = (self.0.get(request.task as usize), frame.plan(request.task)) else {
            return Ok(None);
        };
        // The streams of the walk's layers are those of the policy's noise.
        let mut rng = RngStream::new(frame.seed, request.task.into(), request.walk, frame.walk_length_max as u64);
        let is_planned = request.explore
            && !frame.keeps_plan(request.walk)
            && plan.n_groups() == request.n_layers as usize
            && (rng.uniform() < frame.settings.planned_share || is_from_sources(plan, request.walk));
        if !is_planned {
            return Ok(None);
        }
        Ok(Some(untried(&known.rule, &known.tried, plan, request.walk, &mut rng)?.0))
    }

    /// Takes note of what a walk earned that came whole, whoever chose its widths.
    pub(super) fn add(&mut self, frame: &Frame, unroll: &Unroll) {
        let (Some(known), Some(plan)) = (self.0.get_mut(unroll.task as usize), frame.plan(unroll.task)) else {
            return;
        };
        if !is_whole_walk(unroll) || unroll.n_steps() != plan.n_groups() {
            return;
        }
        known.tried.add(&unroll.keep_ratio);
        let ratios = plan.widths.groups.iter().zip(&unroll.keep_ratio);
        let widths: Vec<f32> = ratios.map(|(group, ratio)| (ratio * group.n_channels as f32).round()).collect();
        known.rule.learn(&widths, unroll.reward.iter().sum());
    }

    pub(super) fn save(&self, writer: &mut StateWriter) {
        for (task, known) in self.0.iter().enumerate() {
            known.rule.save(&format!("task.{task}.planned"), writer);
            writer.put_u64(format!("task.{task}.tried"), &known.tried.save());
        }
    }

    pub(super) fn load(&mut self, reader: &StateReader<'_>) -> Result<(), RlError> {
        for (task, known) in self.0.iter_mut().enumerate() {
            known.rule.load(&format!("task.{task}.planned"), reader)?;
            known.tried = TriedPlans::load(reader.u64(&format!("task.{task}.tried"))?);
        }
        Ok(())
    }
}
