//! Agents side by side: what `compare` found, over all seeds.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::block::{Block, DataTable, LabelledNumber, PageSection};
use crate::environment::{quoted, shell_word};
use crate::numbers::{accuracy, counted, seconds, short};
use crate::page::PagePart;
use crate::plot::{Axis, Chart, Curve, CurveShape};
use crate::run_files::{RunFiles, items};
use crate::style::Styles;
use crate::take_away::dash;

/// A comparison's directory.
#[derive(Clone, Debug)]
pub(crate) struct ComparedAgents {
    path: PathBuf,
    pub(crate) name: String,
    /// `compare.json`; null where there is none that can be read.
    pub(crate) found: Value,
    /// `comparison.json`: what was asked for.
    settings: Value,
    /// The runs of the seeds.
    pub(crate) runs: Vec<RunFiles>,
    pub(crate) problems: Vec<String>,
}

impl ComparedAgents {
    /// Whether a directory is one of a comparison.
    pub(crate) fn is_at(path: &Path) -> bool {
        ["compare.json", "comparison.json"].iter().any(|file| path.join(file).is_file())
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// With one sentence if there is nothing to show.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let mut problems = Vec::new();
        let mut read = |file: &str, without: &str| match fs::read(path.join(file)) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                problems.push(format!("{file} is damaged ({error}): {without}"));
                Value::Null
            }),
            Err(error) => {
                problems.push(format!("{file} cannot be read ({error}): {without}"));
                Value::Null
            }
        };
        let found = read(
            "compare.json",
            "the comparison has not ended, or was killed; the runs of its seeds are shown. `secateur compare` with --resume \
             brings it to its end",
        );
        let settings: Value = read("comparison.json", "there is no command that repeats the comparison");
        let mut folders: Vec<PathBuf> = fs::read_dir(path)
            .map_err(|error| format!("'{}' cannot be read: {error}", path.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|folder| {
                folder.is_dir() && folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"))
            })
            .collect();
        folders.sort();
        let mut runs = Vec::new();
        for folder in folders {
            match RunFiles::read(&folder) {
                Ok(run) => runs.push(run),
                Err(problem) => problems.push(problem),
            }
        }
        if found.is_null() && runs.is_empty() {
            return Err(format!("'{}' has no results of a comparison: {}", path.display(), problems.join("; ")));
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name =
            real.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        Ok(Self { path: path.to_owned(), name, found, settings, runs, problems })
    }

    /// Its sections, without those of its runs.
    pub(crate) fn part(&self, prefix: &str) -> PagePart {
        let agents = items(&self.found["agents"]);
        let styles = Styles::of_names(agents.iter().filter_map(|agent| agent["agent"].as_str()));
        let mut sections = vec![self.take_away(prefix)];
        if !agents.is_empty() {
            sections.extend([self.curves(prefix, &styles), self.of_tasks(prefix)]);
        }
        sections.push(self.repeat(prefix));
        PagePart { id: format!("{prefix}part"), heading: format!("Comparison {}", self.name), sections }
    }

    fn tasks(&self) -> impl Iterator<Item = (usize, &str)> {
        items(&self.found["tasks"]).iter().map(|task| task.as_str().unwrap_or("?")).enumerate()
    }

    fn take_away(&self, prefix: &str) -> PageSection {
        let mut section = PageSection::new(prefix, "take-away", "What to take away");
        if !self.problems.is_empty() {
            section.blocks.push(Block::Warnings(self.problems.clone()));
        }
        let agents = items(&self.found["agents"]);
        let Some(first) = agents.first().and_then(|agent| agent["agent"].as_str()) else {
            section.text("There is no ranking yet.");
            return section;
        };
        let (n_tasks, n_seeds) = (self.tasks().count(), items(&self.found["seeds"]).len());
        let ranking = &self.found["ranking"];
        let rank = |at: usize| ranking["mean_ranks"][at].as_f64();
        section.blocks.push(Block::Facts(vec![
            LabelledNumber { value: first.to_owned(), label: "has the best mean rank".to_owned() },
            LabelledNumber { value: counted(agents.len(), "agent"), label: format!("on {}", counted(n_tasks, "task")) },
            LabelledNumber {
                value: counted(n_seeds, "seed"),
                label: format!("of {} candidates per agent and task", self.found["candidates"].as_u64().unwrap_or(0)),
            },
        ]));
        let behind = ranking["critical_difference"].as_f64().map(|needed| {
            let clear = (1..agents.len()).filter(|&at| rank(at).zip(rank(0)).is_some_and(|(a, b)| a - b > needed)).count();
            format!(
                "Mean ranks that are more than {needed:.2} apart differ by more than chance (Nemenyi, 95 %): {first} is clear \
                 of {clear} of {} others.",
                agents.len() - 1
            )
        });
        behind.into_iter().for_each(|sentence| section.text(sentence));
        let heads = [
            "agent",
            ">mean rank",
            ">best reward",
            ">standard error",
            ">hypervolume",
            ">search",
            ">outside repair and score",
        ];
        let mut table = DataTable::new("Agents, the best first", &heads);
        for (at, agent) in agents.iter().enumerate() {
            let mean = |key: &str| agent[key]["mean"].as_f64();
            let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.4}"));
            table.row([
                agent["agent"].as_str().unwrap_or("?").to_owned(),
                rank(at).map_or_else(dash, |rank| format!("{rank:.2}")),
                number(mean("score")),
                number(agent["score"]["standard_error"].as_f64()),
                number(mean("hypervolume")),
                mean("search_s").map_or_else(dash, seconds),
                mean("outside_evaluation").map_or_else(dash, |share| format!("{:.1} %", share * 100.0)),
            ]);
        }
        section.blocks.push(Block::Table(table));
        section
    }

    fn curves(&self, prefix: &str, styles: &Styles) -> PageSection {
        let mut section = PageSection::new(prefix, "search", "How the searches went");
        section
            .text("The best reward so far: lines are means over seeds, bands reach from the worst seed to the best.");
        for (at, task) in self.tasks() {
            for (key, over, axis) in [
                ("by_candidates", "candidates", "candidates scored"),
                ("by_seconds", "seconds", "seconds of the search"),
            ] {
                let agents = items(&self.found["agents"]).iter();
                let curves: Vec<Curve> = agents.map(|agent| curve(agent, at, key, styles)).collect();
                let finals = || curves.iter().filter_map(|curve| curve.points.last()).map(|point| point[1]);
                let least = finals().reduce(f64::min).zip(finals().reduce(f64::max));
                let ends = curves.iter().filter_map(|curve| {
                    let [scored, best] = curve.points.last()?;
                    Some(format!("{} ends at {best:.4} after {}", curve.label, short(*scored)))
                });
                let chart = Chart {
                    name: format!("{prefix}search-{}-{over}", at + 1),
                    title: format!("{task}: best reward over {axis}"),
                    alternative: format!("{}.", ends.collect::<Vec<_>>().join("; ")),
                    x: Axis { least: Some(0.0), ..Axis::new(axis) },
                    y: Axis {
                        least: least.map(|(least, most)| least - (most - least).max(0.02 * most.abs().max(1e-3))),
                        ..Axis::new("best reward so far")
                    },
                    curves,
                };
                if !chart.is_empty() {
                    section.figure(chart.draw(), DataTable::default());
                }
            }
        }
        section
    }

    fn of_tasks(&self, prefix: &str) -> PageSection {
        let mut section = PageSection::new(prefix, "paired", "What beat what");
        let reference = self.found["reference"].as_str().unwrap_or("the first agent");
        section.text(format!(
            "On the test images, the final network of each agent against that of {reference}, seed by seed, by the paired test."
        ));
        let heads = [
            "task",
            "agent",
            ">best reward",
            ">test accuracy",
            ">standard error",
            ">better",
            ">worse",
            ">not distinguishable",
        ];
        let mut table = DataTable::new(
            format!("Each agent on each task; seeds in which it is better or worse than {reference}"),
            &heads,
        );
        for (at, task) in self.tasks() {
            for agent in items(&self.found["agents"]) {
                let of_task = &agent["tasks"][at];
                let count = |key: &str| of_task["against_reference"][key].as_u64().map_or_else(dash, |n| n.to_string());
                let test = |key: &str| match of_task["test_accuracy"][key].as_f64() {
                    Some(share) => accuracy(share),
                    None => of_task["test_output_error"][key].as_f64().map_or_else(dash, short),
                };
                table.row([
                    task.to_owned(),
                    agent["agent"].as_str().unwrap_or("?").to_owned(),
                    of_task["score"]["mean"].as_f64().map_or_else(dash, |score| format!("{score:.4}")),
                    test("mean"),
                    test("standard_error"),
                    count("better"),
                    count("worse"),
                    count("not_distinguishable"),
                ]);
            }
        }
        section.blocks.push(Block::Table(table));
        section
    }

    fn repeat(&self, prefix: &str) -> PageSection {
        let mut section = PageSection::new(prefix, "repeat", "Do it again");
        let settings = &self.settings;
        let texts = |key: &str| -> Vec<&str> { items(&settings[key]).iter().filter_map(Value::as_str).collect() };
        let seeds: Vec<String> = items(&settings["seeds"]).iter().map(ToString::to_string).collect();
        let (Some(scene), Some(candidates)) =
            (settings["scene"].as_str().or_else(|| self.found["scene"].as_str()), settings["candidates"].as_u64())
        else {
            section.text("What the comparison was asked for is not known, so there is no command that repeats it.");
            return section;
        };
        // A single number would count seeds.
        let list = if seeds.len() == 1 { format!("{},", seeds[0]) } else { seeds.join(",") };
        let sets: String = texts("sets").iter().map(|set| format!(" --set {}", shell_word(set))).collect();
        let mut out = self.path.clone().into_os_string();
        out.push("-again");
        section.blocks.push(Block::Command(format!(
            "secateur compare {} --agents {} --seeds {} --candidates {candidates}{sets} --out {}",
            shell_word(scene),
            shell_word(&texts("agents").join(",")),
            shell_word(&list),
            quoted(Path::new(&out))
        )));
        section
    }
}

fn curve(agent: &Value, task: usize, key: &str, styles: &Styles) -> Curve {
    let name = agent["agent"].as_str().unwrap_or("?");
    let points = items(&agent["tasks"][task][key]).iter();
    let (mut means, mut intervals) = (Vec::new(), Vec::new());
    for point in points {
        let number = |key: &str| point[key].as_f64().unwrap_or(f64::NAN);
        means.push([number("at"), number("mean")]);
        intervals.push([number("least"), number("most")]);
    }
    let shape = if means.len() == 1 { CurveShape::Marks } else { CurveShape::Line };
    Curve { intervals, ..Curve::new(name, styles.of(name), shape, means) }
}
