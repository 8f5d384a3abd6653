//! A run as it is watched: the numbers of its files without a page around them.

use std::path::Path;

use serde::Serialize;

use crate::learned::KNOWN;
use crate::metrics::{LearnerUpdate, Metrics, TrainingEpoch};
use crate::progress::{FileProgress, RunProgressState};
use crate::report::NothingToShow;
use crate::run_files::RunFiles;
use crate::search_curves::{best_so_far, tasks};
use crate::take_away::accuracies;

/// A named curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedCurve {
    /// What it is of.
    pub name: String,
    /// Points from left to right; finite.
    pub points: Vec<[f64; 2]>,
}

/// An agent's search for a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedAgent {
    /// Its name.
    pub name: String,
    /// Walks that ended.
    pub walks: u64,
    /// Walks that it is to do; none unless its search goes on.
    pub all_walks: Option<u64>,
    /// Candidates that were scored; those whose score was known count nothing.
    pub scored: u64,
    /// The best reward.
    pub best: f64,
    /// Top-1 of the best candidate on the reward images.
    pub accuracy: Option<f64>,
    /// Its multiply-accumulates.
    pub macs: Option<u64>,
    /// The best reward so far over candidates scored.
    pub curve: Vec<[f64; 2]>,
}

/// A task, and all that searched for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedTask {
    /// Its name.
    pub name: String,
    /// Who searched, in the order in which they began.
    pub agents: Vec<WatchedAgent>,
}

/// What a learner tells, over its updates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedLearner {
    /// Whose it is.
    pub agent: String,
    /// Updates so far.
    pub n_updates: u64,
    /// Its numbers: entropy, lag and losses first, in the order in which a report shows them.
    pub numbers: Vec<WatchedCurve>,
}

/// What became of a task at the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedResult {
    /// The task.
    pub task: String,
    /// Multiply-accumulates of its network, and of the original.
    pub macs: [Option<u64>; 2],
    /// Dense, pruned, polished, tuned: test accuracies, as far as there are any.
    pub accuracies: Vec<(&'static str, f64)>,
    /// Without labels: the output error on the test images.
    pub output_error: Option<f64>,
}

/// A run directory, read once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchedRun {
    /// The folder's name.
    pub name: String,
    /// How far it is.
    pub progress: FileProgress,
    /// What is missing or damaged, one sentence each.
    pub problems: Vec<String>,
    /// The searches, task by task.
    pub tasks: Vec<WatchedTask>,
    /// The learners.
    pub learners: Vec<WatchedLearner>,
    /// Trainings of the winners: held-out reward where it is measured, else the loss, over epochs.
    pub trainings: Vec<WatchedCurve>,
    /// The networks, once the run has ended.
    pub results: Vec<WatchedResult>,
}

impl WatchedRun {
    /// Reads the directory.
    ///
    /// # Errors
    /// If nothing of a run is there.
    pub fn read(path: &Path) -> Result<Self, NothingToShow> {
        let run = RunFiles::read(path).map_err(|problem| NothingToShow(vec![problem]))?;
        let none = Metrics::default();
        let metrics = run.metrics.as_ref().unwrap_or(&none);
        // That it has not ended is no problem of one that is watched.
        let goes_on = run.progress.state == RunProgressState::GoesOn;
        let problems = run.problems.iter().filter(|text| !(goes_on && text.starts_with("summary.json is missing")));
        Ok(Self {
            name: run.name.clone(),
            problems: problems.cloned().collect(),
            tasks: watched_tasks(metrics, &run.progress),
            learners: learners(metrics),
            trainings: trainings(metrics),
            results: results(&run),
            progress: run.progress,
        })
    }
}

fn watched_tasks(metrics: &Metrics, progress: &FileProgress) -> Vec<WatchedTask> {
    let names = tasks(metrics);
    // All tasks are given the same walks.
    let of_stage = |agent: &str| {
        let stage = progress.stage.as_ref().filter(|_| progress.state == RunProgressState::GoesOn)?;
        (stage.name.strip_suffix(" walks") == Some(agent)).then(|| stage.total / names.len().max(1) as u64)
    };
    let task = |name: &&str| WatchedTask {
        name: (*name).to_owned(),
        agents: best_so_far(metrics, name)
            .into_iter()
            .map(|curve| {
                let walks = metrics.walks.iter().filter(|walk| walk.task == **name && walk.agent == curve.agent);
                let best = walks.clone().max_by(|a, b| a.reward.total_cmp(&b.reward));
                WatchedAgent {
                    name: curve.agent.to_owned(),
                    walks: walks.clone().count() as u64,
                    all_walks: of_stage(curve.agent),
                    scored: walks.filter(|walk| !walk.is_cached).count() as u64,
                    best: best.map_or(f64::NAN, |walk| walk.reward),
                    accuracy: best.and_then(|walk| walk.accuracy),
                    macs: best.and_then(|walk| walk.macs),
                    curve: curve.steps.iter().map(|[scored, _, reward]| [*scored, *reward]).collect(),
                }
            })
            .collect(),
    };
    names.iter().map(task).collect()
}

fn learners(metrics: &Metrics) -> Vec<WatchedLearner> {
    let learner = |agent: &String, updates: &[LearnerUpdate]| {
        let mut numbers: Vec<(usize, WatchedCurve)> = Vec::new();
        for update in updates {
            for (name, value) in &update.numbers {
                let point = [update.n_updates, *value];
                match numbers.iter_mut().find(|(_, curve)| curve.name == *name) {
                    Some((_, curve)) => curve.points.push(point),
                    None => {
                        let rank = KNOWN.iter().position(|(known, _)| known == name).unwrap_or(KNOWN.len());
                        numbers.push((rank, WatchedCurve { name: name.clone(), points: vec![point] }));
                    }
                }
            }
        }
        numbers.sort_by_key(|(rank, _)| *rank);
        WatchedLearner {
            agent: agent.clone(),
            n_updates: updates.last().map_or(0, |update| update.n_updates as u64),
            numbers: numbers.into_iter().map(|(_, curve)| curve).collect(),
        }
    };
    metrics.updates.iter().map(|(agent, updates)| learner(agent, updates)).collect()
}

fn trainings(metrics: &Metrics) -> Vec<WatchedCurve> {
    let mut found: Vec<(String, Vec<&TrainingEpoch>)> = Vec::new();
    for epoch in &metrics.epochs {
        let name = format!("{} of {} ({})", epoch.stage, epoch.task, epoch.agent);
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, epochs)) => epochs.push(epoch),
            None => found.push((name, vec![epoch])),
        }
    }
    let curve = |name: &str, epochs: &[&TrainingEpoch]| {
        let points = |of: fn(&TrainingEpoch) -> Option<f64>| -> Vec<[f64; 2]> {
            epochs.iter().filter_map(|epoch| Some([epoch.epoch, of(epoch)?])).collect()
        };
        let held_out = points(|epoch| epoch.held_out);
        match held_out.is_empty() {
            true => WatchedCurve { name: format!("{name}, loss"), points: points(|epoch| epoch.loss) },
            false => WatchedCurve { name: format!("{name}, held-out reward"), points: held_out },
        }
    };
    let curves = found.iter().map(|(name, epochs)| curve(name, epochs));
    curves.filter(|curve| !curve.points.is_empty()).collect()
}

fn results(run: &RunFiles) -> Vec<WatchedResult> {
    let result = |task: &serde_json::Value| WatchedResult {
        task: task["name"].as_str().unwrap_or("?").to_owned(),
        macs: [task["macs"].as_u64(), task["original"]["macs"].as_u64()],
        accuracies: accuracies(task).collect(),
        output_error: task["test_output_error"].as_f64(),
    };
    run.task_summaries().iter().map(result).collect()
}
