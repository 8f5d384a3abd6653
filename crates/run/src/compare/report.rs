//! What a comparison found.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::anyhow;
use serde::Serialize;

use super::CompareSpec;
use super::agents::Compared;
use super::curve::{Anytime, CurvePoint, Spread, by_candidates, by_seconds};
use super::hypervolume::hypervolume;
use super::ranking::AgentRanking;
use super::records::SeedRecords;
use crate::summary::{ControlSummary, TaskSummary};

/// Agents on one scene, the best first.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The scene file.
    pub scene: String,
    /// Where the runs of the seeds are, `seed-<seed>` each.
    pub directory: PathBuf,
    /// What walks were paid for, as `summary.json` explains it.
    pub reward: String,
    /// Candidates that were to be scored per agent, task and seed.
    pub candidates: usize,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The agent that paired tests hold the others against.
    pub reference: String,
    /// Tasks that were searched.
    pub tasks: Vec<String>,
    /// By mean rank.
    pub agents: Vec<AgentScores>,
    /// Their ranks, in the same order.
    pub ranking: AgentRanking,
}

/// One agent.
#[derive(Clone, Debug, Serialize)]
pub struct AgentScores {
    /// Its name.
    pub agent: String,
    /// Mean over the tasks of the best reward, for each seed.
    pub score: Spread,
    /// Area under the best reward over the share of the cost that budgets allow, mean over networks on data sets; none
    /// where each has one budget only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervolume: Option<Spread>,
    /// Seconds of the search, all tasks.
    pub search_s: Spread,
    /// Share of these in which candidates were neither repaired nor scored.
    pub outside_evaluation: Spread,
    /// One for each task.
    pub tasks: Vec<TaskScores>,
}

/// One agent on one task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskScores {
    /// Name of the task.
    pub task: String,
    /// Best reward.
    pub score: Spread,
    /// Candidates scored, for each seed: fewer than were to be where a policy proposed nothing new any more, and for
    /// agents that have one candidate only.
    pub candidates: Vec<usize>,
    /// Top-1 of the final network on the test images; none without labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_accuracy: Option<Spread>,
    /// Its output error there; none where accuracy is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_output_error: Option<Spread>,
    /// The reference against it on the test images; none for the reference itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_reference: Option<PairedCounts>,
    /// Best reward over candidates scored for the task.
    pub by_candidates: Vec<CurvePoint>,
    /// Best reward over seconds of the search, which has all tasks.
    pub by_seconds: Vec<CurvePoint>,
    /// For each seed, every candidate that was better than all before it, and the last: its number, the best reward,
    /// seconds of the search.
    #[serde(skip)]
    pub steps: Vec<Vec<(usize, f64, f64)>>,
}

/// Seeds in which an agent differs from the reference on the test images, by a paired test of the two networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PairedCounts {
    /// It is distinguishably better.
    pub better: usize,
    /// It is distinguishably worse.
    pub worse: usize,
    /// Neither.
    pub not_distinguishable: usize,
}

impl Comparison {
    pub(super) fn of(
        spec: &CompareSpec,
        compared: &Compared,
        directory: PathBuf,
        seeds: &[SeedRecords],
    ) -> anyhow::Result<Self> {
        let first = &seeds[0].summary;
        let searched = first.tasks.iter().filter(|task| task.walk_of_best.is_some());
        let tasks: Vec<String> = searched.map(|task| task.name.clone()).collect();
        let words: Vec<&str> = compared.words().collect();
        let seconds = seeds.iter().flat_map(|seed| seed.summary.search_times_s.values().map(|times| times.wall));
        let seconds_max = seconds.fold(0.0, f64::max);
        let mut agents = Vec::new();
        for &agent in &words {
            let scores = |task: &String| {
                let of = TaskOfAgent { agent, is_reference: agent == words[0], task, seconds_max };
                TaskScores::of(spec, seeds, &of)
            };
            let of_tasks = tasks.iter().map(scores).collect::<anyhow::Result<Vec<_>>>()?;
            agents.push(AgentScores::of(agent, seeds, of_tasks));
        }
        let mut blocks: Vec<Vec<f64>> = Vec::new();
        for task in 0..tasks.len() {
            let score = |agent: &AgentScores, seed: usize| agent.tasks[task].score.of_seeds[seed];
            blocks.extend((0..seeds.len()).map(|seed| agents.iter().map(|agent| score(agent, seed)).collect()));
        }
        let ranking = AgentRanking::of(&blocks);
        let mut order: Vec<usize> = (0..agents.len()).collect();
        order.sort_by(|&a, &b| ranking.mean_ranks[a].total_cmp(&ranking.mean_ranks[b]));
        Ok(Self {
            scene: spec.run.scene.display().to_string(),
            directory,
            reward: format!("{}: {}", first.reward.kind, first.reward.formula),
            candidates: spec.candidates,
            seeds: spec.seeds.clone(),
            reference: words[0].to_owned(),
            tasks,
            ranking: AgentRanking {
                mean_ranks: order.iter().map(|&at| ranking.mean_ranks[at]).collect(),
                ..ranking.clone()
            },
            agents: order.into_iter().map(|at| agents[at].clone()).collect(),
        })
    }

    /// Whether the agent at this place is, by its mean rank, not distinguishable from the best.
    pub fn is_near_best(&self, place: usize) -> bool {
        let ranks = &self.ranking.mean_ranks;
        self.ranking.critical_difference.is_none_or(|difference| ranks[place] - ranks[0] <= difference)
    }
}

impl AgentScores {
    fn of(agent: &str, seeds: &[SeedRecords], tasks: Vec<TaskScores>) -> Self {
        let times = |seed: &SeedRecords| seed.summary.search_times_s.get(agent).copied().unwrap_or_default();
        let mean = |seed: usize| tasks.iter().map(|task| task.score.of_seeds[seed]).sum::<f64>() / tasks.len() as f64;
        Self {
            agent: agent.to_owned(),
            score: Spread::of((0..seeds.len()).map(mean).collect()),
            hypervolume: (0..seeds.len())
                .map(|at| mean_hypervolume(&seeds[at].summary.tasks, &tasks, at))
                .collect::<Option<Vec<_>>>()
                .map(Spread::of),
            search_s: Spread::of(seeds.iter().map(|seed| times(seed).wall).collect()),
            outside_evaluation: Spread::of(
                seeds.iter().map(times).map(|times| 1.0 - times.evaluation / times.wall.max(1e-9)).collect(),
            ),
            tasks,
        }
    }
}

/// Mean over networks on data sets; none where each has one budget only.
fn mean_hypervolume(summaries: &[TaskSummary], tasks: &[TaskScores], seed: usize) -> Option<f64> {
    let mut pairs: BTreeMap<[&str; 3], Vec<(f64, f64)>> = BTreeMap::new();
    for summary in summaries {
        let Some(task) = tasks.iter().find(|task| task.task == summary.name) else { continue };
        let key = [summary.network.as_str(), summary.dataset.as_str(), summary.budget.kind.as_str()];
        let whole = match summary.budget.kind.as_str() {
            "params" => summary.original.params,
            "activation_bytes" => summary.original.activation_bytes,
            _ => summary.original.macs,
        };
        let share = summary.budget.max as f64 / whole.max(1) as f64;
        pairs.entry(key).or_default().push((share, task.score.of_seeds[seed]));
    }
    let several: Vec<_> = pairs.values().filter(|points| points.len() > 1).collect();
    let sum: f64 = several.iter().map(|points| hypervolume(points)).sum();
    (!several.is_empty()).then(|| sum / several.len() as f64)
}

/// Whose search for which task.
struct TaskOfAgent<'a> {
    agent: &'a str,
    is_reference: bool,
    task: &'a str,
    /// The longest search of all agents.
    seconds_max: f64,
}

impl TaskScores {
    fn of(spec: &CompareSpec, seeds: &[SeedRecords], of: &TaskOfAgent<'_>) -> anyhow::Result<Self> {
        let TaskOfAgent { agent, is_reference, task, seconds_max } = *of;
        let missing = || anyhow!("the run of a seed tells of no candidate of {agent} for {task}");
        let anytime = |seed: &'_ SeedRecords| -> Option<Anytime> { Some(seed.searches.get(agent)?.get(task)?.clone()) };
        let searches =
            seeds.iter().map(|seed| anytime(seed).ok_or_else(missing)).collect::<anyhow::Result<Vec<_>>>()?;
        let of_seeds: Vec<&Anytime> = searches.iter().collect();
        let score = searches.iter().map(|search| search.score().ok_or_else(missing));
        let tested: Vec<Tested> = seeds.iter().filter_map(|seed| Tested::of(seed, agent, task)).collect();
        let spread = |of: fn(&Tested) -> Option<f64>| {
            let values = tested.iter().map(of).collect::<Option<Vec<f64>>>()?;
            (values.len() == seeds.len()).then(|| Spread::of(values))
        };
        Ok(Self {
            task: task.to_owned(),
            score: Spread::of(score.collect::<anyhow::Result<_>>()?),
            candidates: searches.iter().map(Anytime::len).collect(),
            test_accuracy: spread(|tested| tested.accuracy),
            test_output_error: spread(|tested| tested.output_error),
            against_reference: (!is_reference).then(|| PairedCounts::of(&tested)),
            by_candidates: by_candidates(&of_seeds, spec.candidates),
            by_seconds: by_seconds(&of_seeds, seconds_max),
            steps: searches.iter().map(|search| search.steps().collect()).collect(),
        })
    }
}

/// A final network on the test images.
struct Tested {
    accuracy: Option<f64>,
    output_error: Option<f64>,
    /// How much better the reference is, where that is more than chance.
    gain: Option<f64>,
}

impl Tested {
    fn of(seed: &SeedRecords, agent: &str, task: &str) -> Option<Self> {
        if seed.summary.agent == agent {
            let of_task = seed.summary.tasks.iter().find(|summary| summary.name == task)?;
            let accuracy = of_task.test_accuracy_before_tuning;
            return Some(Self { accuracy, output_error: of_task.test_output_error, gain: None });
        }
        let mut controls = seed.summary.controls.iter();
        let control: &ControlSummary = controls.find(|control| control.agent == agent && control.task == task)?;
        let by_accuracy = control.test_paired.filter(|test| test.is_distinguishable).map(|test| test.gain);
        let by_error = control.test_paired_error.filter(|test| test.is_distinguishable).map(|test| test.gain);
        let accuracy = control.test_accuracy_before_tuning;
        Some(Self { accuracy, output_error: control.test_output_error, gain: by_accuracy.or(by_error) })
    }
}

impl PairedCounts {
    fn of(tested: &[Tested]) -> Self {
        tested.iter().fold(Self::default(), |counts, tested| match tested.gain {
            None => Self { not_distinguishable: counts.not_distinguishable + 1, ..counts },
            Some(gain) if gain > 0.0 => Self { worse: counts.worse + 1, ..counts },
            Some(_) => Self { better: counts.better + 1, ..counts },
        })
    }
}
