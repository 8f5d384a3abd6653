//! What a run prints at its end: one row per task, who beat the agent, and what the agent learned.

use secateur_run::{ControlSummary, RunResult, Summary};

use crate::table::Table;

/// The closing table, and below it what is to be said about controls and learning.
pub(crate) fn closing_table(result: &RunResult) -> String {
    let RunResult { directory, summary } = result;
    let mut out = tasks(summary).to_string();
    for task in summary.tasks.iter().filter(|task| task.walk_of_best.is_none()) {
        out.push_str(&format!(
            "\nnote: the budget of {} allows {}: nothing was pruned",
            task.name,
            if task.unchanged { "the whole network" } else { "every channel once BatchNorm is folded" }
        ));
    }
    for control in &summary.controls {
        out.extend(defeat(summary, control).map(|line| format!("\n{line}")));
    }
    out.extend(learning(summary).map(|table| format!("\n\n{table}")));
    let precision = if summary.precision == "f32" { String::new() } else { format!(" in {}", summary.precision) };
    format!(
        "{out}\n\n{} walks, {} candidates scored{precision}, {} repeated; {:.0} s; test accuracy is before any fine-tuning, gains in \
         points\nnetworks, certificates, plans for PyTorch (cut.py) and summary.json are in {}",
        summary.walks,
        summary.candidates_scored,
        summary.cache_hits,
        summary.wall_s,
        directory.display()
    )
}

/// One row per task: budget, cost, accuracy before and after pruning, gain over each control in reward and test
/// accuracy.
fn tasks(summary: &Summary) -> Table {
    let mut agents: Vec<&str> = Vec::new();
    for control in &summary.controls {
        if !agents.contains(&control.agent.as_str()) {
            agents.push(&control.agent);
        }
    }
    let over: Vec<String> = agents.iter().map(|agent| format!(">over {agent}: reward, test")).collect();
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
            let gains = control.and_then(|c| Some((c.reward_accuracy_gain?, c.test_accuracy_gain?)));
            gains.map_or_else(String::new, |(reward, test)| format!("{:+.2}, {:+.2}", 100.0 * reward, 100.0 * test))
        }));
        table.row(row);
    }
    table
}

/// A line for a control that is better than the agent on the reward images, which both chose on.
fn defeat(summary: &Summary, control: &ControlSummary) -> Option<String> {
    control.reward_accuracy_gain.filter(|&gain| gain < 0.0)?;
    let task = summary.tasks.iter().find(|task| task.name == control.task)?;
    let (theirs, ours) = (100.0 * control.reward_accuracy, 100.0 * task.reward_accuracy);
    Some(format!(
        "note: {} beats {} on {}: {theirs:.2} against {ours:.2} % of the reward images",
        control.agent, summary.agent, control.task
    ))
}

/// One row per task whose final policy can be held against random walks.
fn learning(summary: &Summary) -> Option<Table> {
    let header = ["reward of a walk", ">final policy, noise-free", ">random", "better by two standard errors"];
    let mut table = Table::new(&header);
    let mut is_empty = true;
    for task in &summary.tasks {
        let Some(judged) = &task.against_random else { continue };
        is_empty = false;
        table.row([
            task.name.clone(),
            format!("{:.4} ({} walks)", judged.noise_free_reward_mean, judged.noise_free_walks),
            format!(
                "{:.4} ± {:.4} ({} walks)",
                judged.random_reward_mean, judged.random_reward_standard_error, judged.random_walks
            ),
            if judged.beats_random { "yes" } else { "no" }.to_owned(),
        ]);
    }
    (!is_empty).then_some(table)
}
