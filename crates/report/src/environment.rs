//! What a run was warned of, what it ran on, and how to repeat it.

use std::path::Path;

use serde_json::Value;

use crate::block::{Block, DataTable, PageSection};
use crate::numbers::{seconds, whole};
use crate::run_files::RunFiles;
use crate::take_away::dash;

pub(crate) fn warnings(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "warnings", "Warnings");
    let mut all: Vec<String> = run.problems.clone();
    let of_summary = run.summary["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    all.extend(of_summary.map(str::to_owned));
    // Lines begin with seconds.
    let logged = run.log.iter().filter_map(|line| line.split_once("warning: ")).map(|(_, warning)| warning.to_owned());
    for warning in logged {
        if !all.contains(&warning) {
            all.push(warning);
        }
    }
    if let Some(n) = run.metrics.as_ref().map(|metrics| metrics.n_restarted).filter(|n| *n > 0) {
        all.push(format!("{n} walks were done again because a candidate failed; metrics.jsonl says why"));
    }
    match all.is_empty() {
        true => section.text("There were none."),
        false => section.blocks.push(Block::Warnings(all)),
    }
    section
}

pub(crate) fn environment(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "environment", "Environment");
    let summary = &run.summary;
    let text = |key: &str| summary[key].as_str().map(str::to_owned);
    let count = |key: &str| summary[key].as_u64().map(whole);
    let mut table = DataTable::new("The run", &["", ""]);
    let rows = [
        ("scene", text("scene")),
        ("seed", summary["seed"].as_u64().map(|seed| seed.to_string())),
        ("program", run.program.clone()),
        ("agent", text("agent")),
        ("reward", summary["reward"]["formula"].as_str().map(str::to_owned)),
        ("which measures", summary["reward"]["measures"].as_str().map(str::to_owned)),
        ("scheduler", text("scheduler")),
        ("executor", text("executor")),
        ("walks were scored on", text("device")),
        ("in numbers of", text("precision")),
        ("walks", count("walks")),
        ("decisions", count("env_steps")),
        ("updates of the learner", count("learner_updates")),
        ("candidates scored", count("candidates_scored")),
        ("scores that were known", count("cache_hits")),
        ("whole run", summary["wall_s"].as_f64().map(seconds)),
        ("directory", Some(run.path.display().to_string())),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            table.row([name.to_owned(), value]);
        }
    }
    section.blocks.push(Block::Table(table));
    let mut times = DataTable::new("Where the searches' time went", &["agent", ">whole search", ">repair and score"]);
    for (agent, time) in summary["search_times_s"].as_object().into_iter().flatten() {
        let of = |key: &str| time[key].as_f64().map_or_else(dash, seconds);
        times.row([agent.clone(), of("wall"), of("evaluation")]);
    }
    if !times.rows.is_empty() {
        section.blocks.push(Block::Table(times));
    }
    section
}

pub(crate) fn repeat(run: &RunFiles, prefix: &str) -> PageSection {
    let mut section = PageSection::new(prefix, "repeat", "Do it again");
    if !run.has_scene {
        section.text("The run directory has no scene.ron, so there is no command that repeats the run.");
        return section;
    }
    let scene = quoted(&run.path.join("scene.ron"));
    section.text(
        "The run directory's scene.ron has every setting as it was resolved. Under the scheduler `lockstep` this command gives the \
         same networks for any number of threads, on the same build and instruction set:",
    );
    section.blocks.push(Block::Command(format!("secateur run {scene} --out {}", quoted(Path::new(&again(&run.path))))));
    section
}

/// A new directory beside the old one.
fn again(path: &Path) -> String {
    let path = path.to_string_lossy();
    format!("{}-again", path.trim_end_matches(['/', '\\']))
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

/// A word as a POSIX shell takes it.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_word("runs/a-1"), "runs/a-1");
        assert_eq!(shell_word("my runs/it's"), "'my runs/it'\\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(again(Path::new("runs/first/")), "runs/first-again");
    }
}
