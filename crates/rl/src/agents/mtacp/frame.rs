//! What policy and learner share and never change.

use super::errors::{N_ERROR_FEATURES, error_features};
use super::net::NetShape;
use super::settings::{MtacpSettings, ObserveRule, StartRule};
use crate::agents::planned_walks::PlanningShare;
use crate::error::{RlError, check_length};
use crate::task_plan::{TaskPlan, TaskPlans};

/// Added to softplus, which can round to 0.
pub(super) const VARIANCE_MIN: f32 = 1e-6;

/// Log-probability of what was planned. A plan is one of few, so its density is a spike: its importance weight is 0,
/// and neither policy nor value learns from it as from a sample of the policy.
pub(super) const PLANNED_LOG_PROB: f32 = 1e4;

/// What is decided, and what the budget leaves for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deciding {
    pub(super) task: u32,
    pub(super) layer: u32,
    pub(super) even_ratio: f32,
}

/// What policy and learner share and never change.
pub(super) struct Frame {
    pub(super) settings: MtacpSettings,
    /// What is known of the tasks, if the settings ask for it.
    pub(super) plans: Option<TaskPlans>,
    pub(super) net: NetShape,
    pub(super) n_features: usize,
    pub(super) n_tasks: usize,
    pub(super) walk_length_max: usize,
    pub(super) keep_ratio_min: f32,
    pub(super) seed: u64,
}

impl Frame {
    pub(super) fn push_features(&self, features: &mut Vec<f32>, observation: &[f32], at: Deciding) {
        features.extend(observation);
        if self.settings.table_gain != 0.0 {
            features.push(at.even_ratio);
        }
        if self.settings.observe == ObserveRule::Errors {
            let plan = self.plan(at.task).filter(|plan| (at.layer as usize) < plan.n_groups());
            features.extend(plan.map_or([0.0; N_ERROR_FEATURES], |plan| error_features(plan, at.layer as usize)));
        }
    }

    pub(super) fn plan(&self, task: u32) -> Option<&TaskPlan> {
        self.plans.as_ref()?.all().get(task as usize)
    }

    /// The keep ratio that a raw action of 0 stands for.
    fn centre(&self, at: Deciding) -> f32 {
        let place = at.layer as usize;
        match (self.settings.start, self.plan(at.task)) {
            (StartRule::Knapsack, Some(plan)) if place < plan.n_groups() => {
                plan.shifted_ratio(place, at.even_ratio, self.keep_ratio_min)
            }
            _ => at.even_ratio,
        }
    }

    pub(super) fn table_row(&self, task: u32, layer: u32) -> Result<u32, RlError> {
        let (task, layer) = (task as usize, layer as usize);
        for (what, got, bound) in [("task", task, self.n_tasks), ("layer", layer, self.walk_length_max)] {
            if got >= bound {
                let (what, expected) = (what.to_owned(), format!("less than {bound}"));
                return Err(RlError::OutOfRange { op: "mtacp", what, expected, got: got.to_string() });
            }
        }
        Ok((task * self.walk_length_max + layer) as u32)
    }

    pub(super) fn keep_ratio(&self, raw_action: f32, at: Deciding) -> f32 {
        let centre = self.centre(at);
        // Without an offset these are the planned widths, whole groups included.
        if raw_action == 0.0 && self.settings.start == StartRule::Knapsack {
            return centre;
        }
        self.settings.squash.keep_ratio(raw_action, centre, self.keep_ratio_min)
    }

    pub(super) fn raw_action(&self, keep_ratio: f32, at: Deciding) -> f32 {
        self.settings.squash.raw_action(keep_ratio, self.centre(at), self.keep_ratio_min)
    }

    /// Of a recurrent state the LSTM's; behind it stand the keep ratios of a walk that was planned.
    /// `op` and `what` name it where it is too short.
    pub(super) fn lstm_state<'a>(
        &self,
        op: &'static str,
        what: &str,
        recurrent: &'a [f32],
    ) -> Result<&'a [f32], RlError> {
        let n_recurrent = self.net.n_recurrent();
        check_length(op, what, n_recurrent, recurrent.len().min(n_recurrent))?;
        Ok(&recurrent[..n_recurrent])
    }

    /// Which walks are planned: the streams of a walk's layers are those of the policy's noise, the one behind is free.
    pub(super) fn planning(&self) -> PlanningShare {
        PlanningShare {
            share: self.settings.planned_share,
            settings: self.settings.planning,
            keeps_first: self.keeps_plan(0),
            seed: self.seed,
            stream: self.walk_length_max as u64,
        }
    }

    /// Whether a walk keeps the policy's means although it may explore: the first, where they are the planned widths.
    pub(super) fn keeps_plan(&self, walk: u64) -> bool {
        walk == 0 && self.settings.start == StartRule::Knapsack
    }
}
