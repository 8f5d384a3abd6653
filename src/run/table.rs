//! The closing table.

use std::path::Path;

use super::summary::Summary;
use crate::table::Table;

/// One row per task: budget, cost, accuracy before and after pruning, gain over each control.
pub(super) fn table(summary: &Summary, directory: &Path) -> String {
    let mut agents: Vec<&str> = Vec::new();
    for control in &summary.controls {
        if !agents.contains(&control.agent.as_str()) {
            agents.push(&control.agent);
        }
    }
    let over: Vec<String> = agents.iter().map(|agent| format!(">over {agent}")).collect();
    let mut header = vec!["task", "budget", ">MACs", ">params", ">reward %", ">test % dense", ">test % pruned"];
    header.extend(over.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for task in &summary.tasks {
        let mut row = vec![
            task.name.clone(),
            format!("{} <= {}", task.budget.kind, task.budget.max),
            task.macs.to_string(),
            task.params.to_string(),
            format!("{:.2} of {:.2}", 100.0 * task.reward_accuracy, 100.0 * task.reward_accuracy_original),
            format!("{:.2}", 100.0 * task.test_accuracy_original),
            format!("{:.2}", 100.0 * task.test_accuracy_before_tuning),
        ];
        row.extend(agents.iter().map(|agent| {
            let control = summary.controls.iter().find(|c| c.task == task.name && c.agent == *agent);
            control.map_or_else(String::new, |c| {
                format!("{:+.2}", 100.0 * (task.test_accuracy_before_tuning - c.test_accuracy_before_tuning))
            })
        }));
        table.row(row);
    }
    format!(
        "{table}\n{} walks, {} candidates scored, {} repeated; {:.0} s; test accuracy is before any fine-tuning, gains in \
         points\nnetworks, certificates and summary.json are in {}",
        summary.walks,
        summary.candidates_scored,
        summary.cache_hits,
        summary.wall_s,
        directory.display()
    )
}
