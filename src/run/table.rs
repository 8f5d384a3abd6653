//! The closing table.

use std::path::Path;

use super::summary::Summary;

/// One row per task: budget, cost, accuracy before and after pruning, gain over each control.
pub(super) fn table(summary: &Summary, directory: &Path) -> String {
    let mut agents: Vec<&str> = Vec::new();
    for control in &summary.controls {
        if !agents.contains(&control.agent.as_str()) {
            agents.push(&control.agent);
        }
    }
    let mut header: Vec<String> =
        ["task", "budget", "MACs", "params", "reward %", "test % dense", "test % pruned"].map(str::to_owned).to_vec();
    header.extend(agents.iter().map(|a| format!("over {a}")));
    let mut rows = vec![header];
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
        rows.push(row);
    }
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(i, (cell, &w))| if i < 2 { format!("{cell:<w$}") } else { format!("{cell:>w$}") });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.push(format!(
        "{} walks, {} candidates scored, {} repeated; {:.0} s; test accuracy is before any fine-tuning, gains in points",
        summary.walks, summary.candidates_scored, summary.cache_hits, summary.wall_s
    ));
    lines.push(format!("networks, certificates and summary.json are in {}", directory.display()));
    lines.join("\n")
}
