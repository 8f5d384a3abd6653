//! Polishing and fine-tuning of the winners, epoch by epoch.

use crate::block::{Block, DataTable, PageSection};
use crate::metrics::TrainingEpoch;
use crate::numbers::{counted, short, whole};
use crate::plot::{Axis, Chart, Curve, CurveShape};
use crate::run_files::RunFiles;
use crate::style::Styles;
use crate::take_away::dash;

/// A number of an epoch.
type OfEpoch = fn(&TrainingEpoch) -> Option<f64>;

pub(crate) fn training_curves(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "training", "Polishing and fine-tuning");
    let epochs = run.metrics.as_ref().map_or(&[][..], |metrics| &metrics.epochs);
    let mut labels: Vec<String> = Vec::new();
    for epoch in epochs {
        let label = format!("{}, {}", epoch.task, epoch.agent);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let styles = Styles::of_names(labels.iter().map(String::as_str));
    for (stage, spoken) in [("polish", "Polishing towards the dense network"), ("tune", "Fine-tuning")] {
        let measures: [(&str, &str, OfEpoch); 3] = [
            ("held-out", "reward on held-out training images", |epoch| epoch.held_out),
            ("loss", "loss, mean over the epoch", |epoch| epoch.loss),
            ("accuracy", "share of the epoch's images told right", |epoch| epoch.accuracy),
        ];
        for (name, axis, value) in measures {
            let mut curves: Vec<Curve> = Vec::new();
            for epoch in epochs.iter().filter(|epoch| epoch.stage == stage) {
                let Some(value) = value(epoch) else { continue };
                let label = format!("{}, {}", epoch.task, epoch.agent);
                match curves.iter_mut().find(|curve| curve.label == label) {
                    Some(curve) => curve.points.push([epoch.epoch, value]),
                    None => {
                        let style = styles.of(&label);
                        curves.push(Curve::new(label, style, CurveShape::MarkedLine, vec![[epoch.epoch, value]]));
                    }
                }
            }
            let ends = curves.iter().filter_map(|curve| {
                let (first, last) = (curve.points.first()?[1], curve.points.last()?[1]);
                Some(format!("{}: {} after the first epoch, {} after the last", curve.label, short(first), short(last)))
            });
            let chart = Chart {
                name: format!("{prefix}{stage}-{name}"),
                title: format!("{spoken}: {axis}"),
                alternative: format!("{}.", ends.collect::<Vec<_>>().join("; ")),
                x: Axis::new("epochs"),
                y: Axis::new(axis),
                curves,
            };
            if !chart.is_empty() {
                section.figure(chart.draw(), DataTable::default());
            }
        }
    }
    let table = trainings(run);
    if !table.rows.is_empty() {
        section.blocks.push(Block::Table(table));
    }
    if section.blocks.is_empty() {
        section
            .text("The winners were not trained. A scene's `polish` and `tune` do that (`secateur check --template`).");
    }
    section
}

fn trainings(run: &RunFiles) -> DataTable {
    let heads =
        ["task", "stage", ">images", ">epochs", ">held-out reward before", ">after", ">test gain, points", "outcome"];
    let mut table = DataTable::new("Trainings of the run's agent's winners", &heads);
    for task in run.task_summaries() {
        for (key, stage) in [("polish", "polished"), ("tuning", "tuned")] {
            let training = &task[key];
            if training.is_null() {
                continue;
            }
            let count = |key: &str| training[key].as_u64().map_or_else(dash, whole);
            let number = |key: &str| training[key].as_f64().map_or_else(dash, |value| format!("{value:.4}"));
            let paired = &training["test_paired"];
            table.row([
                task["name"].as_str().unwrap_or("?").to_owned(),
                stage.to_owned(),
                count("images"),
                count("epochs"),
                number("held_out_before"),
                number("held_out_after"),
                paired["gain"].as_f64().map_or_else(dash, crate::numbers::points),
                match (training["failure"].as_str(), training["kept"].as_bool()) {
                    (Some(failure), _) => failure.to_owned(),
                    (None, Some(true)) => "better on held-out images, kept".to_owned(),
                    (None, Some(false)) => "not better on held-out images, thrown away".to_owned(),
                    (None, None) => dash(),
                },
            ]);
        }
    }
    table.caption = format!("{} of the winners of {}", counted(table.rows.len(), "training"), run.agent());
    table
}
