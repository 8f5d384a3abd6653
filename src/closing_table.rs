//! What a run prints at its end: one row per task, who beat the agent, and what the agent learned.

use secateur_run::{ControlSummary, PairedAccuracy, PairedError, RewardSummary, RunResult, Summary, TaskSummary};

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
        "{out}\n\n{} walks, {} candidates scored{precision}, {} repeated; {:.0} s; {}\nnetworks, certificates, plans for PyTorch (cut.py) \
         and summary.json are in {}",
        summary.walks,
        summary.candidates_scored,
        summary.cache_hits,
        summary.wall_s,
        what_is_told(summary),
        directory.display()
    )
}

/// How to read the columns.
fn what_is_told(summary: &Summary) -> String {
    let mut told = Vec::new();
    if summary.tasks.iter().any(has_accuracy) {
        told.push("test accuracy is before any fine-tuning, gains in points".to_owned());
        if summary.tasks.iter().any(|task| task.test_accuracy_after_polish.is_some()) {
            told.push("polished: by gradients without labels, on the test split".to_owned());
        }
    }
    let any = |is_chance: fn(&ControlSummary) -> bool| summary.controls.iter().any(is_chance);
    if any(|control| control.test_paired.is_some_and(|paired| !paired.is_distinguishable)) {
        told.push("~: not distinguishable on the test images (McNemar, p >= 0.05)".to_owned());
    } else if any(|control| control.test_paired_error.is_some_and(|paired| !paired.is_distinguishable)) {
        told.push("~: not distinguishable on the test images (their bootstrap interval holds 0)".to_owned());
    }
    if summary.tasks.iter().any(|task| task.test_output_error.is_some()) {
        let RewardSummary { kind, formula, .. } = &summary.reward;
        told.push(format!(
            "an output error is the share of the dense outputs' variance over the images that is lost: 0 is the dense network, 1 \
             one that answers every image alike; over a control, how much less is lost; reward {kind}: {formula}"
        ));
    }
    told.join("; ")
}

fn has_accuracy(task: &TaskSummary) -> bool {
    task.test_accuracy_before_tuning.is_some()
}

/// One row per task: budget, cost, accuracy before and after pruning (or what outputs lost, and how often the class is
/// the dense network's), gain over each control.
fn tasks(summary: &Summary) -> Table {
    let mut agents: Vec<&str> = Vec::new();
    for control in &summary.controls {
        if !agents.contains(&control.agent.as_str()) {
            agents.push(&control.agent);
        }
    }
    let over: Vec<String> = agents.iter().map(|agent| format!(">over {agent}: reward, test")).collect();
    let mut header = vec!["task", "budget", ">MACs", ">params"];
    let with = summary.tasks.iter().any(has_accuracy);
    let error = summary.tasks.iter().any(|task| task.test_output_error.is_some());
    let same_class = summary.tasks.iter().any(|task| task.test_same_class.is_some());
    let with_memory = summary.tasks.iter().any(bounds_memory);
    header.extend(with_memory.then_some(">activation bytes"));
    header.extend(with.then_some([">reward %", ">test % dense", ">test % pruned"]).into_iter().flatten());
    let polished = summary.tasks.iter().any(|task| task.test_accuracy_after_polish.is_some());
    let tuned = summary.tasks.iter().any(|task| task.test_accuracy_after_tuning.is_some());
    header.extend(polished.then_some(">polished"));
    header.extend(tuned.then_some(">tuned"));
    header.extend(error.then_some([">output error: reward", ">test"]).into_iter().flatten());
    header.extend(same_class.then_some(">test % same class"));
    header.extend(over.iter().map(String::as_str));
    let mut table = Table::new(&header);
    let percent = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{:.2}", 100.0 * share));
    let number = |error: Option<f64>| error.map_or_else(String::new, |error| format!("{error:.4}"));
    for task in &summary.tasks {
        let mut row = vec![task.name.clone(), budget(task), task.macs.to_string(), task.params.to_string()];
        row.extend(with_memory.then(|| task.activation_bytes.to_string()));
        if with {
            let of = task.reward_accuracy_original.map(|of| format!(" of {:.2}", 100.0 * of)).unwrap_or_default();
            row.push(format!("{}{of}", percent(task.reward_accuracy)));
            row.extend([task.test_accuracy_original, task.test_accuracy_before_tuning].map(percent));
        }
        row.extend(polished.then(|| percent(task.test_accuracy_after_polish)));
        row.extend(tuned.then(|| percent(task.test_accuracy_after_tuning)));
        row.extend([task.reward_output_error, task.test_output_error].into_iter().filter(|_| error).map(number));
        row.extend(same_class.then(|| percent(task.test_same_class)));
        row.extend(agents.iter().map(|agent| gains(summary, task, agent)));
        table.row(row);
    }
    table
}

/// Every bound of a task.
fn budget(task: &TaskSummary) -> String {
    match task.bounds.as_slice() {
        [] => format!("{} <= {}", task.budget.kind, task.budget.max),
        bounds => {
            let told: Vec<String> = bounds.iter().map(|bound| format!("{} <= {}", bound.kind, bound.max)).collect();
            told.join(", ")
        }
    }
}

fn bounds_memory(task: &TaskSummary) -> bool {
    let kinds = task.bounds.iter().map(|bound| &bound.kind).chain([&task.budget.kind]);
    kinds.into_iter().any(|kind| kind == "activation_bytes")
}

/// How much better a task is than a control on the reward images and on the test split: points of accuracy, else how
/// much less its outputs lose.
fn gains(summary: &Summary, task: &TaskSummary, agent: &str) -> String {
    let Some(control) = summary.controls.iter().find(|c| c.task == task.name && c.agent == agent) else {
        return String::new();
    };
    if let (Some(reward), Some(test)) = (control.reward_accuracy_gain, control.test_accuracy_gain) {
        let is_chance = control.test_paired.is_some_and(|paired| !paired.is_distinguishable);
        return format!("{:+.2}, {:+.2}{}", 100.0 * reward, 100.0 * test, if is_chance { "~" } else { "" });
    }
    let less = |ours: Option<f64>, theirs: Option<f64>| Some(theirs? - ours?);
    let on_reward = less(task.reward_output_error, control.reward_output_error);
    let on_test = less(task.test_output_error, control.test_output_error);
    let is_chance = control.test_paired_error.is_some_and(|paired| !paired.is_distinguishable);
    let mark = if is_chance { "~" } else { "" };
    on_reward.zip(on_test).map_or_else(String::new, |(reward, test)| format!("{reward:+.4}, {test:+.4}{mark}"))
}

/// A line for a control that is better than the agent on the reward images, which both chose on.
fn defeat(summary: &Summary, control: &ControlSummary) -> Option<String> {
    let task = summary.tasks.iter().find(|task| task.name == control.task)?;
    let what = match (control.reward_accuracy_gain, control.reward_gain) {
        (Some(gain), _) if gain < 0.0 => {
            let (theirs, ours) = (100.0 * control.reward_accuracy?, 100.0 * task.reward_accuracy?);
            format!("{theirs:.2} against {ours:.2} % of the reward images")
        }
        (None, Some(gain)) if gain < 0.0 => format!("by {:.4} of reward", -gain),
        _ => return None,
    };
    let on_test = match (control.test_paired, control.test_paired_error) {
        (Some(PairedAccuracy { is_distinguishable: true, gain, p_value, .. }), _) => {
            format!("; {:+.2} points on the test images, p = {p_value:.1e}", -100.0 * gain)
        }
        (_, Some(PairedError { is_distinguishable: true, gain, .. })) => format!("; {:+.4} on the test images", -gain),
        (None, None) => String::new(),
        _ => "; not distinguishable on the test images".to_owned(),
    };
    Some(format!("note: {} beats {} on {}: {what}{on_test}", control.agent, summary.agent, control.task))
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
