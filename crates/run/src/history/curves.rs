//! Error curves of a run's tasks, which are written to its directory for later runs to learn from.

use secateur_history::CurveRecord;
use secateur_rl::{TaskPlan, TaskPlans};
use serde::{Deserialize, Serialize};

/// The curves of a task, its groups in walk order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskCurves {
    pub(crate) task: String,
    pub(crate) curves: Vec<CurveRecord>,
}

impl TaskCurves {
    pub(crate) fn of_all(plans: &TaskPlans) -> Vec<Self> {
        let of = |plan: &TaskPlan| Self { task: plan.widths.name.clone(), curves: curves_of(plan) };
        plans.all().iter().map(of).collect()
    }
}

/// What the groups of a task lose.
pub(super) fn curves_of(plan: &TaskPlan) -> Vec<CurveRecord> {
    let groups = plan.widths.groups.iter().zip(&plan.errors).zip(&plan.weights);
    groups
        .map(|((group, errors), &weight)| CurveRecord {
            name: group.name.clone(),
            channels: group.n_channels,
            widths: group.allowed.clone(),
            errors: errors.clone(),
            weight,
        })
        .collect()
}
