//! Expansion of a scene's lists into tasks.

use super::parsed::{BoundSpec, BudgetBound, BudgetSpec, DatasetSpec, NetworkSpec, TaskSpec};

/// Most tasks of one scene; three lists of a thousand entries would otherwise be a thousand million.
pub(super) const TASKS_MAX: usize = 4096;

/// Number of tasks that [`expand_tasks`] would make.
pub(super) fn count_tasks(networks: &[NetworkSpec], budgets: &[BudgetSpec]) -> usize {
    networks.iter().fold(0usize, |sum, n| sum.saturating_add(n.datasets.len().saturating_mul(budgets.len())))
}

/// Every network x (its data sets) x budget, in that order.
pub(super) fn expand_tasks(
    networks: &[NetworkSpec],
    datasets: &[DatasetSpec],
    budgets: &[BudgetSpec],
) -> Vec<TaskSpec> {
    let mut tasks = Vec::with_capacity(count_tasks(networks, budgets));
    for (network, spec) in networks.iter().enumerate() {
        for &dataset in &spec.datasets {
            for (budget, bound) in budgets.iter().enumerate() {
                let name = format!("{}-{}-{}", spec.name, datasets[dataset].name, budget_name(bound));
                tasks.push(TaskSpec { name, network, dataset, budget });
            }
        }
    }
    tasks
}

/// The names of its bounds: `macs0.5-params120000`.
fn budget_name(budget: &BudgetSpec) -> String {
    budget.bounds.iter().map(bound_name).collect::<Vec<_>>().join("-")
}

/// `macs0.5` or `macs20000000`; a ratio always has a point or an exponent, so the two never look alike.
pub(super) fn bound_name(bound: &BoundSpec) -> String {
    let kind = bound.kind.name();
    match bound.bound {
        BudgetBound::Ratio(ratio) => format!("{kind}{ratio:?}"),
        BudgetBound::Max(max) => format!("{kind}{max}"),
    }
}
