//! Whether an agent's settings fit the groups and budgets of a scene's tasks.

use std::sync::Arc;

use secateur_net::CostModel;
use secateur_rl::TaskWidths;
use secateur_sim::{BudgetWall, WidthRules};

use super::budgets::ResolvedBudget;
use super::reachable::Reachable;
use super::task_widths::task_widths;
use crate::scene::Scene;

/// Paths of settings that do not fit, and what is wrong with each. Budgets are those of the tasks, all reachable.
pub(super) fn misfits<'a>(
    scene: &Scene,
    budgets: &[ResolvedBudget],
    of_network: impl Fn(usize) -> Option<(&'a Reachable, WidthRules)>,
) -> Vec<(String, String)> {
    let searched = scene.tasks.iter().zip(budgets).filter(|(_, budget)| budget.whole().is_none());
    let tasks: Vec<TaskWidths> = searched
        .filter_map(|(task, budget)| {
            let (reachable, rules) = of_network(task.network)?;
            let model = Arc::new(CostModel::clone(reachable.model()));
            let wall = BudgetWall::new(&reachable.groups, model, &rules, &budget.limits()).ok()?;
            Some(task_widths(&task.name, &reachable.groups, &wall))
        })
        .collect();
    let controls = scene.controls.iter().enumerate().map(|(i, control)| (format!("controls[{i}]"), &control.agent));
    let all = std::iter::once(("agent".to_owned(), &scene.agent)).chain(controls);
    all.flat_map(|(path, agent)| {
        let bad = agent.settings.check_tasks(&tasks);
        bad.into_iter().map(move |bad| {
            let path = format!("{path}.{}", bad.path);
            (path.clone(), format!("`{path}` {}", bad.problem))
        })
    })
    .collect()
}
