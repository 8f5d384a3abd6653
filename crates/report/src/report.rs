//! From directories to a page.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::accuracy_cost::accuracy_against_cost;
use crate::block::{Block, DataTable, PageSection};
use crate::compared::ComparedAgents;
use crate::environment::{environment, repeat, warnings};
use crate::error_curves::error_curves;
use crate::learned::learned;
use crate::numbers::{accuracy, counted, points, whole};
use crate::page::{LiveRefresh, Page, PagePart};
use crate::paired_tests::paired_tests;
use crate::plot::Drawing;
use crate::progress::RunProgressState;
use crate::recorded::{self, RecordedResult, RecordedRun};
use crate::run_files::RunFiles;
use crate::search_curves::search_curves;
use crate::style::Styles;
use crate::take_away::{accuracies, dash, take_away};
use crate::training_curves::training_curves;
use crate::widths::widths;

/// A finished page.
#[derive(Clone, Debug)]
pub struct HtmlReport {
    /// The page.
    pub html: String,
    /// Its drawings, in their order.
    pub drawings: Vec<Drawing>,
    /// What could not be read, one sentence each; the page says so, too.
    pub problems: Vec<String>,
}

/// Why there is no page: one sentence for each directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NothingToShow(pub Vec<String>);

impl fmt::Display for NothingToShow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is nothing to report: {}", self.0.join("; "))
    }
}

impl Error for NothingToShow {}

impl HtmlReport {
    /// Of run directories and directories of comparisons.
    ///
    /// # Errors
    /// If none of them holds anything that can be shown.
    pub fn of(paths: &[PathBuf]) -> Result<Self, NothingToShow> {
        Self::read(paths, None)
    }

    /// The page that a server shows while runs go on: as [`Self::of`], and looks for what is new. When no run is going
    /// on any more, it is the page of [`Self::of`].
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn live(paths: &[PathBuf], refresh: &LiveRefresh) -> Result<Self, NothingToShow> {
        Self::read(paths, Some(refresh))
    }

    /// Of all runs that a history has, oldest first, and of the networks that they found. `origin` names the history.
    pub fn of_history(origin: &str, runs: &[RecordedRun], results: &[RecordedResult]) -> Self {
        let sections = recorded::sections(runs, results);
        let part = PagePart { id: "part-history".to_owned(), heading: String::new(), sections };
        let drawings = part.drawings().cloned().collect();
        let (title, subtitle) = (format!("History of {}", counted(runs.len(), "run")), origin.to_owned());
        let html = Page { title, subtitle, parts: vec![part], live: None }.html();
        Self { html, drawings, problems: Vec::new() }
    }

    fn read(paths: &[PathBuf], live: Option<&LiveRefresh>) -> Result<Self, NothingToShow> {
        let (mut runs, mut comparisons, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for path in paths {
            match Read::of(path) {
                Ok(Read::Run(run)) => runs.push(*run),
                Ok(Read::Comparison(comparison)) => comparisons.push(*comparison),
                Err(problem) => problems.push(problem),
            }
        }
        if runs.is_empty() && comparisons.is_empty() {
            return Err(NothingToShow(problems));
        }
        Ok(build(&runs, &comparisons, problems, live))
    }
}

/// What a directory holds.
enum Read {
    Run(Box<RunFiles>),
    Comparison(Box<ComparedAgents>),
}

impl Read {
    fn of(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        match std::fs::metadata(path) {
            Err(error) => return Err(format!("'{shown}' cannot be read: {error}")),
            Ok(metadata) if metadata.is_file() => {
                return Err(format!("'{shown}' is a file: name the directory that a run or comparison wrote"));
            }
            Ok(_) => {}
        }
        match ComparedAgents::is_at(path) {
            true => ComparedAgents::read(path).map(|comparison| Self::Comparison(Box::new(comparison))),
            false => RunFiles::read(path).map(|run| Self::Run(Box::new(run))),
        }
    }
}

fn build(
    runs: &[RunFiles],
    comparisons: &[ComparedAgents],
    not_read: Vec<String>,
    live: Option<&LiveRefresh>,
) -> HtmlReport {
    let mut parts = Vec::new();
    if !not_read.is_empty() {
        let mut section = PageSection::new("", "left-out", "Left out");
        section.blocks.push(Block::Warnings(not_read.clone()));
        parts.push(PagePart { id: "part-left-out".to_owned(), heading: String::new(), sections: vec![section] });
    }
    for (at, comparison) in comparisons.iter().enumerate() {
        parts.push(comparison.part(&format!("c{}-", at + 1)));
    }
    // The runs of a comparison's seeds stand behind it.
    let all: Vec<&RunFiles> = runs.iter().chain(comparisons.iter().flat_map(|comparison| &comparison.runs)).collect();
    if runs.len() > 1 {
        parts.push(together(&runs.iter().collect::<Vec<_>>()));
    }
    let is_single = all.len() == 1 && comparisons.is_empty();
    for (at, run) in all.iter().enumerate() {
        let prefix = if is_single { String::new() } else { format!("r{}-", at + 1) };
        let heading = if is_single { String::new() } else { format!("Run {}", run.name) };
        parts.push(PagePart { id: format!("part-run-{}", at + 1), heading, sections: sections(run, &prefix) });
    }
    let problems = not_read
        .into_iter()
        .chain(comparisons.iter().flat_map(|comparison| comparison.problems.iter().cloned()))
        .chain(all.iter().flat_map(|run| run.problems.iter().map(|problem| format!("{}: {problem}", run.name))))
        .collect();
    let title = match (comparisons, &all[..]) {
        ([], [run]) => run.name.clone(),
        ([], all) => counted(all.len(), "run"),
        ([comparison], _) => comparison.name.clone(),
        (several, _) => counted(several.len(), "comparison"),
    };
    let scene = match (comparisons, &all[..]) {
        ([comparison, ..], _) => comparison.found["scene"].as_str(),
        ([], [run, ..]) => run.summary["scene"].as_str(),
        ([], []) => None,
    };
    let subtitle = scene.map_or_else(String::new, |scene| format!("Scene {scene}"));
    let drawings = parts.iter().flat_map(PagePart::drawings).cloned().collect();
    // A comparison's directory does not say whether it is done; its runs do, and another may begin.
    let is_over = |run: &&RunFiles| run.progress.state == RunProgressState::Finished;
    let live = live.filter(|_| !comparisons.is_empty() || !all.iter().all(is_over)).cloned();
    HtmlReport { html: Page { title, subtitle, parts, live }.html(), drawings, problems }
}

fn sections(run: &RunFiles, prefix: &str) -> Vec<PageSection> {
    let styles = Styles::of_runs(&[run]);
    let mut sections = vec![take_away(run, prefix)];
    if !run.problems.is_empty() {
        sections[0].blocks.insert(0, Block::Warnings(run.problems.clone()));
    }
    sections.extend([
        accuracy_against_cost(&[run], prefix, &styles),
        search_curves(run, prefix, &styles),
        widths(run, prefix),
        error_curves(run, prefix),
        learned(run, prefix),
        training_curves(run, prefix),
        paired_tests(run, prefix),
        warnings(run, prefix),
        environment(run, prefix),
        repeat(run, prefix),
    ]);
    sections
}

/// Several runs side by side.
fn together(runs: &[&RunFiles]) -> PagePart {
    let mut section = PageSection::new("all-", "take-away", "All runs together");
    let heads = ["run", "task", "agent", ">MACs", ">parameters", ">dense", ">final", ">change, points"];
    let mut table = DataTable::new("Every network of every run", &heads);
    for run in runs {
        for task in run.task_summaries() {
            let count = |key: &str| task[key].as_u64().map_or_else(dash, whole);
            let dense = task["test_accuracy_original"].as_f64();
            let last = accuracies(task).last().filter(|(stage, _)| *stage != "dense").map(|(_, share)| share);
            table.row([
                run.name.clone(),
                task["name"].as_str().unwrap_or("?").to_owned(),
                run.agent().to_owned(),
                count("macs"),
                count("params"),
                dense.map_or_else(dash, accuracy),
                last.map_or_else(dash, accuracy),
                dense.zip(last).map_or_else(dash, |(dense, last)| points(last - dense)),
            ]);
        }
    }
    section.blocks.push(Block::Table(table));
    let sections = vec![section, accuracy_against_cost(runs, "all-", &Styles::of_runs(runs))];
    PagePart { id: "part-all".to_owned(), heading: "All runs".to_owned(), sections }
}
