//! What beat what, by the paired test on the same test images.

use serde_json::Value;

use crate::block::{Block, DataTable, PageSection};
use crate::numbers::{points, short, whole};
use crate::run_files::RunFiles;
use crate::take_away::dash;

pub(crate) fn paired_tests(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "paired", "What beat what");
    let mut after_refit = table(format!("{} against each control, after the final refit", run.agent()));
    let mut after_training = table(format!("{} against each control, both trained", run.agent()));
    for control in run.control_summaries() {
        let add = |table: &mut DataTable, test: &Value| {
            if !test.is_null() {
                table.rows.push(row(control, test, run.agent()));
            }
        };
        match control["test_paired"].is_null() {
            true => add(&mut after_refit, &control["test_paired_error"]),
            false => add(&mut after_refit, &control["test_paired"]),
        }
        add(&mut after_training, &control["test_paired_after_training"]);
    }
    if after_refit.rows.is_empty() && after_training.rows.is_empty() {
        section.text("Nothing was compared: the run has no controls, or did not come to its test images.");
        return section;
    }
    section.text(
        "Both networks saw the same test images. McNemar's exact test counts only those that one of them alone gets right; below a \
         p-value of 0.05 the difference is taken for more than chance. Differences of output errors are judged by a paired bootstrap.",
    );
    section.blocks.extend([after_refit, after_training].into_iter().filter(|t| !t.rows.is_empty()).map(Block::Table));
    section
}

fn table(caption: String) -> DataTable {
    let heads = [
        "task",
        "control",
        ">gain",
        ">95 % interval",
        ">only ours right",
        ">only its right",
        ">images",
        ">p",
        "verdict",
    ];
    DataTable::new(caption, &heads)
}

fn row(control: &Value, test: &Value, agent: &str) -> Vec<String> {
    // Shares of images in points, errors as they are.
    let of_images = test["only_first"].is_u64();
    let written = |value: f64| if of_images { points(value) } else { short(value) };
    let count = |key: &str| test[key].as_u64().map_or_else(dash, whole);
    let interval = match (test["gain_interval"][0].as_f64(), test["gain_interval"][1].as_f64()) {
        (Some(least), Some(most)) => format!("{} to {}", written(least), written(most)),
        _ => dash(),
    };
    let other = control["agent"].as_str().unwrap_or("?");
    let verdict = match (test["is_distinguishable"].as_bool(), test["gain"].as_f64()) {
        (Some(true), Some(gain)) if gain > 0.0 => format!("{agent} is better"),
        (Some(true), Some(_)) => format!("{other} is better"),
        (Some(false), _) => "not distinguishable".to_owned(),
        _ => dash(),
    };
    vec![
        control["task"].as_str().unwrap_or("?").to_owned(),
        other.to_owned(),
        test["gain"].as_f64().map_or_else(dash, written),
        interval,
        count("only_first"),
        count("only_second"),
        count("images"),
        test["p_value"].as_f64().map_or_else(dash, p_value),
        verdict,
    ]
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}
