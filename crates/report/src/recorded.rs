//! The page of a history: what was run, and what won for every network and budget.

use crate::accuracy_cost::{FoundNetwork, OfNetwork, draw};
use crate::block::{Block, DataTable, LabelledNumber, PageSection};
use crate::numbers::{accuracy, counted, points, seconds, short, whole};
use crate::style::Styles;
use crate::take_away::dash;

/// A run as a history has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedRun {
    /// Number by which the history knows it.
    pub id: i64,
    /// When it began, UTC.
    pub started: String,
    /// How it ended, or that it did not.
    pub status: String,
    /// The scene's agent.
    pub agent: Option<String>,
    /// Seconds that it took.
    pub wall_s: Option<f64>,
    /// Tasks.
    pub tasks: u64,
    /// Scored candidates.
    pub walks: u64,
    /// Where its directory was.
    pub directory: String,
}

/// A network that a run's agent or a control found.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedResult {
    /// Number of the run.
    pub run: i64,
    /// The network that was pruned.
    pub network: String,
    /// What tells its file from others of the same name.
    pub network_content: String,
    /// The data set.
    pub dataset: String,
    /// What tells it from others of the same name.
    pub dataset_content: Option<String>,
    /// What the network had to meet; equal texts are equal budgets.
    pub budget: String,
    /// Who found it.
    pub agent: String,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Of the original.
    pub dense_macs: Option<u64>,
    /// Of the original, on the test images.
    pub dense_accuracy: Option<f64>,
    /// On the test images, as it was written.
    pub test_accuracy: Option<f64>,
    /// Likewise, without labels.
    pub test_output_error: Option<f64>,
}

impl RecordedResult {
    /// The same images and the same outputs to be right about.
    fn is_of_one_network(&self, other: &Self) -> bool {
        let of = |result: &Self| {
            (
                result.network.clone(),
                result.network_content.clone(),
                result.dataset.clone(),
                result.dataset_content.clone(),
                result.test_accuracy.is_some(),
            )
        };
        of(self) == of(other)
    }

    /// The more, the better.
    fn worth(&self) -> Option<f64> {
        self.test_accuracy.or(self.test_output_error.map(|error| -error))
    }

    fn written(&self) -> String {
        match (self.test_accuracy, self.test_output_error) {
            (Some(share), _) => accuracy(share),
            (None, Some(error)) => format!("error {}", short(error)),
            (None, None) => dash(),
        }
    }
}

pub(crate) fn sections(runs: &[RecordedRun], results: &[RecordedResult]) -> Vec<PageSection> {
    vec![overview(runs, results), winners(results), costs(results), all_runs(runs)]
}

fn overview(runs: &[RecordedRun], results: &[RecordedResult]) -> PageSection {
    let mut section = PageSection::new("", "take-away", "What was run");
    let finished = runs.iter().filter(|run| run.status == "finished").count();
    let walks: u64 = runs.iter().map(|run| run.walks).sum();
    let spent: f64 = runs.iter().filter_map(|run| run.wall_s).sum();
    let fact = |value: String, label: &str| LabelledNumber { value, label: label.to_owned() };
    section.blocks.push(Block::Facts(vec![
        fact(format!("{} of {}", whole(finished as u64), whole(runs.len() as u64)), "runs came to their end"),
        fact(whole(walks), "candidates in all walks"),
        fact(whole(results.len() as u64), "networks within their budgets"),
        fact(seconds(spent), "for all runs that told their time"),
    ]));
    let mut statuses: Vec<(&str, usize)> = Vec::new();
    for run in runs {
        match statuses.iter_mut().find(|(status, _)| *status == run.status) {
            Some((_, n)) => *n += 1,
            None => statuses.push((&run.status, 1)),
        }
    }
    let others = statuses.iter().filter(|(status, _)| *status != "finished");
    let told: Vec<String> = others.map(|(status, n)| format!("{} {status}", counted(*n, "run"))).collect();
    if !told.is_empty() {
        section.text(format!("The rest: {}.", told.join(", ")));
    }
    section
}

/// Results of equal network, data set and budget.
fn equal_tasks(results: &[RecordedResult]) -> Vec<Vec<&RecordedResult>> {
    let mut groups: Vec<Vec<&RecordedResult>> = Vec::new();
    for result in results.iter().filter(|result| result.worth().is_some()) {
        let is_same =
            |group: &&mut Vec<&RecordedResult>| group[0].is_of_one_network(result) && group[0].budget == result.budget;
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(result),
            None => groups.push(vec![result]),
        }
    }
    groups.sort_by(|a, b| {
        let key = |group: &[&RecordedResult]| (group[0].network.clone(), group[0].dataset.clone());
        key(a).cmp(&key(b)).then(a[0].macs.cmp(&b[0].macs))
    });
    groups
}

fn winners(results: &[RecordedResult]) -> PageSection {
    let mut section = PageSection::new("", "winners", "What won");
    section.text(
        "The best network of each budget of a network on a data set, over all runs, by its accuracy on the test images (without \
         labels, by its output error there). Two that differ by less than chance would have it are told apart by \
         `secateur compare-networks` alone: the more runs there are, the more of the lead is luck.",
    );
    let heads = [
        "network",
        "data set",
        "budget",
        "won by",
        ">run",
        ">MACs",
        ">of dense",
        ">test",
        ">change, points",
        ">networks",
        "best of another agent",
    ];
    let mut table = DataTable::new("The best network of every budget", &heads);
    for group in equal_tasks(results) {
        let best = |of: &mut dyn Iterator<Item = &&RecordedResult>| {
            // Of equals the first.
            let mut best: Option<RecordedResult> = None;
            for result in of {
                if best.as_ref().is_none_or(|best| result.worth() > best.worth()) {
                    best = Some((*result).clone());
                }
            }
            best
        };
        let Some(first) = best(&mut group.iter()) else { continue };
        let second = best(&mut group.iter().filter(|result| result.agent != first.agent));
        let dense = first.dense_macs.map(|dense| first.macs as f64 / dense.max(1) as f64);
        let change = first.test_accuracy.zip(first.dense_accuracy).map(|(now, dense)| points(now - dense));
        table.row([
            first.network.clone(),
            first.dataset.clone(),
            first.budget.clone(),
            first.agent.clone(),
            first.run.to_string(),
            whole(first.macs),
            dense.map_or_else(dash, |share| format!("{:.1} %", share * 100.0)),
            first.written(),
            change.unwrap_or_else(dash),
            whole(group.len() as u64),
            second.map_or_else(dash, |second| format!("{}: {}", second.agent, second.written())),
        ]);
    }
    match table.rows.is_empty() {
        true => section.text("No run has found a network that was measured on test images."),
        false => section.blocks.push(Block::Table(table)),
    }
    section
}

fn costs(results: &[RecordedResult]) -> PageSection {
    let mut section = PageSection::new("", "accuracy-cost", "Accuracy against cost");
    section.text("The dotted line joins the networks that no other beats in both.");
    let mut networks: Vec<(&RecordedResult, OfNetwork)> = Vec::new();
    for result in results {
        let Some(value) = result.test_accuracy.or(result.test_output_error) else { continue };
        let found = FoundNetwork {
            label: result.agent.clone(),
            task: format!("{}, run {}", result.budget, result.run),
            macs: result.macs,
            value,
            interval: None,
        };
        match networks.iter_mut().find(|(known, _)| known.is_of_one_network(result)) {
            Some((_, network)) => network.found.push(found),
            None => networks.push((
                result,
                OfNetwork {
                    network: result.network.clone(),
                    dataset: result.dataset.clone(),
                    dense_macs: result.dense_macs.unwrap_or(0),
                    dense_accuracy: result.test_accuracy.and(result.dense_accuracy),
                    found: vec![found],
                },
            )),
        }
    }
    let networks: Vec<OfNetwork> = networks.into_iter().map(|(_, network)| network).collect();
    let styles = Styles::of_names(results.iter().map(|result| result.agent.as_str()));
    draw(&mut section, &networks, "", &styles);
    if section.blocks.len() == 1 {
        section.text("There is nothing to draw yet.");
    }
    section
}

fn all_runs(runs: &[RecordedRun]) -> PageSection {
    let mut section = PageSection::new("", "runs", "All runs");
    let heads = [">run", "began (UTC)", "status", "agent", ">tasks", ">candidates", ">time", "directory"];
    let mut table = DataTable::new("Every run, newest first", &heads);
    for run in runs.iter().rev() {
        table.row([
            run.id.to_string(),
            run.started.clone(),
            run.status.clone(),
            run.agent.clone().unwrap_or_else(dash),
            whole(run.tasks),
            whole(run.walks),
            run.wall_s.map_or_else(dash, seconds),
            run.directory.clone(),
        ]);
    }
    match table.rows.is_empty() {
        true => section.text("No run was recorded yet."),
        false => section.blocks.push(Block::Table(table)),
    }
    section.text("`secateur history show RUN` tells more of one, `secateur report DIRECTORY` shows it.");
    section
}
