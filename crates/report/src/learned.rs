//! What the agents learned: their walks' rewards, and the numbers of their learners.

use std::collections::BTreeMap;

use crate::block::{DataTable, PageSection};
use crate::metrics::{LearnerUpdate, Metrics};
use crate::numbers::short;
use crate::plot::{Axis, Chart, Curve, CurveShape};
use crate::run_files::RunFiles;
use crate::search_curves::tasks;
use crate::style::Styles;
use crate::take_away::dash;

/// Walks that the running mean of rewards is over.
const MEAN_OVER: usize = 10;

/// What a learner tells, in the order in which it is shown, with an explanation; anything else follows by name.
pub(crate) const KNOWN: [(&str, &str); 12] = [
    ("entropy", "entropy of the policy: how open its choices are"),
    ("sigma", "exploration noise: standard deviation"),
    ("lag_mean", "updates that a batch's policy was behind, mean"),
    ("lag_max", "updates that a batch's policy was behind, most"),
    ("queue_depth", "unrolls that waited in the queue"),
    ("policy_loss", "policy loss"),
    ("value_loss", "value loss"),
    ("imitation_loss", "imitation loss"),
    ("importance_mean", "mean importance weight (V-trace)"),
    ("gradient_norm", "norm of the gradient"),
    ("learning_rate", "learning rate"),
    ("best_reward_mean", "mean over tasks of the best reward"),
];

pub(crate) fn learned(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "learned", "What the agents learned");
    let Some(metrics) = run.metrics.as_ref().filter(|metrics| !metrics.walks.is_empty()) else {
        section.text("There is no record of walks.");
        return section;
    };
    returns(&mut section, run, metrics, prefix);
    if metrics.updates.is_empty() {
        section.text("No agent of this run has a learner.");
    }
    for (at, (agent, updates)) in metrics.updates.iter().enumerate() {
        learner(&mut section, agent, updates, &format!("{prefix}learner-{}", at + 1));
    }
    against_random(&mut section, run);
    section
}

fn returns(section: &mut PageSection, run: &RunFiles, metrics: &Metrics, prefix: &str) {
    let names = tasks(metrics);
    let styles = Styles::of_names(names.iter().copied());
    let mut curves = Vec::new();
    let mut ends = Vec::new();
    for task in &names {
        let walks = metrics.walks.iter().filter(|walk| walk.agent == run.agent() && walk.task == *task);
        let noisy: Vec<f64> = walks.clone().filter(|walk| !walk.is_noise_free).map(|walk| walk.reward).collect();
        let free: Vec<[f64; 2]> = walks
            .enumerate()
            .filter(|(_, walk)| walk.is_noise_free)
            .map(|(at, walk)| [(at + 1) as f64, walk.reward])
            .collect();
        let mean: Vec<[f64; 2]> = (1..=noisy.len())
            .map(|n| {
                let last = &noisy[n.saturating_sub(MEAN_OVER)..n];
                [n as f64, last.iter().sum::<f64>() / last.len() as f64]
            })
            .collect();
        if let (Some(first), Some(last)) = (mean.get(MEAN_OVER.min(mean.len().max(1)) - 1), mean.last()) {
            ends.push(format!("{task} goes from {:.4} to {:.4}", first[1], last[1]));
        }
        let style = styles.of(task);
        if mean.len() > 1 {
            curves.push(Curve::new(*task, style, CurveShape::Line, mean));
        }
        if !free.is_empty() {
            curves.push(Curve::new(format!("{task}, noise-free"), style, CurveShape::Marks, free));
        }
    }
    let least = curves.iter().flat_map(|curve| curve.points.iter().skip(MEAN_OVER / 2)).map(|point| point[1]);
    let chart = Chart {
        name: format!("{prefix}returns"),
        title: format!("{}: reward of its walks, mean of the last {MEAN_OVER}", run.agent()),
        alternative: format!("{}.", ends.join("; ")),
        x: Axis::new("walks of the task"),
        y: Axis { least: least.reduce(f64::min), ..Axis::new("reward") },
        curves,
    };
    if !chart.is_empty() {
        section.figure(chart.draw(), DataTable::default());
    }
}

fn learner(section: &mut PageSection, agent: &str, updates: &[LearnerUpdate], prefix: &str) {
    let mut series: BTreeMap<(usize, &str), Vec<[f64; 2]>> = BTreeMap::new();
    for update in updates {
        for (name, &value) in &update.numbers {
            let rank = KNOWN.iter().position(|(known, _)| known == name).unwrap_or(KNOWN.len());
            series.entry((rank, name)).or_default().push([update.n_updates, value]);
        }
    }
    let heads = ["number", ">first", ">last", ">least", ">most"];
    let mut table = DataTable::new(format!("{agent}: numbers of its learner over {} updates", updates.len()), &heads);
    for (at, ((rank, name), points)) in series.iter().enumerate() {
        let values = || points.iter().map(|point| point[1]);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let spoken = KNOWN.get(*rank).map_or(*name, |(_, spoken)| spoken);
        let (first, last) = (points[0][1], points[points.len() - 1][1]);
        table.row([spoken.to_owned(), short(first), short(last), short(least), short(most)]);
        // What never changes is a number, not a curve.
        if least == most || points.len() < 3 {
            continue;
        }
        let chart = Chart {
            // Any text can be a name in `metrics.jsonl`; a file has only ours.
            name: match KNOWN.get(*rank) {
                Some((known, _)) => format!("{prefix}-{}", known.replace('_', "-")),
                None => format!("{prefix}-number-{}", at + 1),
            },
            title: format!("{agent}: {spoken}"),
            alternative: format!(
                "{spoken}: {} at first, {} at the end, from {} to {}.",
                short(first),
                short(last),
                short(least),
                short(most)
            ),
            x: Axis::new("updates of the learner"),
            y: Axis::new(*name),
            curves: vec![Curve::new(*name, 0, CurveShape::Line, points.clone())],
        };
        section.figure(chart.draw(), DataTable::default());
    }
    section.blocks.push(crate::block::Block::Table(table));
}

fn against_random(section: &mut PageSection, run: &RunFiles) {
    let heads =
        ["task", ">noise-free walks", ">their mean", ">random walks", ">their mean", ">standard error", "better"];
    let mut table =
        DataTable::new("The final policy's walks against random ones: rewards before the final refit", &heads);
    for task in run.task_summaries() {
        let judged = &task["against_random"];
        if judged.is_null() {
            continue;
        }
        let number = |key: &str| judged[key].as_f64().map_or_else(dash, |value| format!("{value:.4}"));
        let count = |key: &str| judged[key].as_u64().map_or_else(dash, |value| value.to_string());
        table.row([
            task["name"].as_str().unwrap_or("?").to_owned(),
            count("noise_free_walks"),
            number("noise_free_reward_mean"),
            count("random_walks"),
            number("random_reward_mean"),
            number("random_reward_standard_error"),
            match judged["beats_random"].as_bool() {
                Some(true) => "yes, by more than two standard errors".to_owned(),
                Some(false) => "no".to_owned(),
                None => dash(),
            },
        ]);
    }
    if !table.rows.is_empty() {
        section.blocks.push(crate::block::Block::Table(table));
    }
}
