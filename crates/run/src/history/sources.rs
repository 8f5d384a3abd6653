//! What a run learns of earlier ones: chosen once, when its tasks are known, and kept in its directory, so that a run
//! that goes on does not see what was recorded meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use secateur_history::{CurveRecord, History, HistoryError, StoredTask};
use secateur_rl::{SourceGroup, SourceTask, SourceWalk, TaskPlan, TaskPlans};
use serde::{Deserialize, Serialize};

use super::curves::curves_of;
use super::distance::Descriptor;
use crate::learned_policy::{LearnedPolicy, LearnedTask};
use crate::scene::{HistoryChoice, Scene, TaskSpec};
use crate::summary::{HistorySummary, SourceSummary};

/// Tasks that are looked at: the newest.
const TASKS_MAX: usize = 512;
/// Candidates of each that are learned from: the best.
const WALKS_MAX: usize = 512;
/// Characters of a blake3, in hexadecimal.
const HASH_LEN: usize = 64;

/// What a run takes from earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EarlierRuns {
    /// Name of the snapshot that they are of; none where there was no history to learn from.
    pub(crate) snapshot: Option<String>,
    /// None until the run's own tasks are known.
    chosen: Option<Chosen>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Chosen {
    /// Of every task, nearest first.
    tasks: Vec<Vec<ChosenTask>>,
    policy: Option<ChosenPolicy>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ChosenTask {
    run: i64,
    name: String,
    distance: f64,
    /// How much it counts, (0, 1]: 1 for the nearest.
    share: f64,
    curves: Vec<CurveRecord>,
    /// Widths and what they were paid.
    walks: Vec<(Vec<usize>, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ChosenPolicy {
    run: i64,
    learned: LearnedPolicy,
}

impl EarlierRuns {
    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// Anything else.
    pub(crate) fn of_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let (hash, body) = bytes.split_at_checked(HASH_LEN).context("it is cut short")?;
        ensure!(blake3::hash(body).to_hex().as_bytes() == hash, "it is damaged: its checksum is another");
        Ok(postcard::from_bytes(body)?)
    }

    pub(crate) fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let body = postcard::to_stdvec(self).context("encode what is learned of earlier runs")?;
        Ok([blake3::hash(&body).to_hex().as_bytes(), &body].concat())
    }

    /// The runs that are finished in the history now, or were when it had the snapshot of this name.
    ///
    /// # Errors
    /// A history that cannot be read, or does not have that snapshot.
    pub(crate) fn now(file: &Path, snapshot: Option<&str>) -> Result<Self, HistoryError> {
        // Not made: nothing can be learned of a history that is not there.
        let history = History::open_existing(file)?;
        let snapshot = snapshot.map_or_else(|| history.snapshot(), |name| history.snapshot_at(name))?;
        Ok(Self { snapshot: Some(snapshot.to_string()), chosen: None })
    }

    /// Whether it is known what is taken.
    pub(crate) const fn is_chosen(&self) -> bool {
        self.chosen.is_some()
    }

    /// Takes nothing: what was to be learned from cannot be read.
    pub(crate) fn choose_none(&mut self) {
        self.chosen = Some(Chosen::default());
    }

    /// Chooses what the tasks of these plans learn from.
    ///
    /// # Errors
    /// A history that cannot be read, or no longer has the snapshot.
    pub(crate) fn choose(&mut self, file: &Path, scene: &Scene, plans: &TaskPlans) -> Result<(), HistoryError> {
        let (Some(name), Some(choice)) = (&self.snapshot, &scene.history) else {
            self.choose_none();
            return Ok(());
        };
        let history = History::open_existing(file)?;
        let snapshot = history.snapshot_at(name)?;
        let reward = scene.reward.kind().name();
        let mut known = history.source_tasks(&snapshot, TASKS_MAX)?;
        known.retain(|task| task.reward == reward);
        let distances = distances(scene, plans, &known);
        let mut all: Vec<f64> = distances.iter().flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        let median = all.get(all.len() / 2).copied().unwrap_or(0.0);
        let n_sources = if choice.augmented { choice.sources } else { 1 };
        let of_task = |distances: &Vec<f64>| {
            let mut order: Vec<usize> = (0..distances.len()).collect();
            order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
            let least = order.first().map_or(0.0, |&at| distances[at]);
            let share = |at: usize| match median > 0.0 {
                true => ((least - distances[at]) / median).exp().max(f64::MIN_POSITIVE),
                false => 1.0,
            };
            let nearest = order.iter().take(n_sources);
            nearest.map(|&at| chosen_task(&history, &known[at], distances[at], share(at))).collect()
        };
        let tasks = distances.iter().map(of_task).collect::<Result<_, HistoryError>>()?;
        let takes_policy = choice.transfer && scene.agent.entry.shows_policy;
        let policy = takes_policy.then(|| policy(&history, scene, &known, &distances)).flatten();
        self.chosen = Some(Chosen { tasks, policy });
        Ok(())
    }

    /// What every task learns from, as its agent takes it.
    pub(crate) fn sources(&self, choice: &HistoryChoice) -> Vec<Arc<[SourceTask]>> {
        let source = |task: &ChosenTask| {
            let groups: Vec<SourceGroup> = task.curves.iter().map(source_group).collect();
            let walk = |(widths, reward): &(Vec<usize>, f64)| SourceWalk { widths: widths.clone(), reward: *reward };
            let walks: Vec<SourceWalk> = task.walks.iter().map(walk).collect();
            SourceTask::learned(task.share, &groups, &walks, choice.augmented || choice.assistant)
        };
        let tasks = self.chosen.iter().flat_map(|chosen| &chosen.tasks);
        tasks.map(|sources| sources.iter().filter_map(source).collect()).collect()
    }

    /// What an earlier run learned that the agent begins with.
    pub(crate) fn policy(&self) -> Option<&LearnedPolicy> {
        self.chosen.as_ref()?.policy.as_ref().map(|policy| &policy.learned)
    }

    /// That the policy is of no use to the agent.
    pub(crate) fn forget_policy(&mut self) {
        self.chosen.iter_mut().for_each(|chosen| chosen.policy = None);
    }

    /// Which runs helped, for `summary.json`.
    pub(crate) fn summary(&self, scene: &Scene) -> HistorySummary {
        let chosen = self.chosen.clone().unwrap_or_default();
        let source = |task: &TaskSpec, source: &ChosenTask| SourceSummary {
            task: task.name.clone(),
            run: source.run,
            source: source.name.clone(),
            distance: source.distance,
            weight: source.share,
        };
        let of_tasks = scene.tasks.iter().zip(&chosen.tasks);
        let sources = of_tasks.flat_map(|(task, sources)| sources.iter().map(move |of| source(task, of))).collect();
        HistorySummary {
            snapshot: self.snapshot.clone(),
            policy_of_run: chosen.policy.map(|policy| policy.run),
            sources,
        }
    }
}

fn source_group(curve: &CurveRecord) -> SourceGroup {
    let CurveRecord { name, channels, widths, errors, weight } = curve.clone();
    SourceGroup { name, n_channels: channels, widths, errors, weight }
}

/// From every task of the run to every known one.
fn distances(scene: &Scene, plans: &TaskPlans, known: &[StoredTask]) -> Vec<Vec<f64>> {
    let of_task = |task: &TaskSpec, plan: &TaskPlan| -> Vec<f64> {
        let curves = curves_of(plan);
        let bound = scene.budgets[task.budget].bounds.first().map_or("", |bound| bound.kind.name());
        let here = Descriptor { curves: &curves, bound, ratio: plan.budget_share };
        let there = |task: &StoredTask| {
            here.distance(&Descriptor { curves: &task.curves, bound: &task.bound, ratio: task.ratio })
        };
        if curves.is_empty() { Vec::new() } else { known.iter().map(there).collect() }
    };
    scene.tasks.iter().zip(plans.all()).map(|(task, plan)| of_task(task, plan)).collect()
}

fn chosen_task(history: &History, task: &StoredTask, distance: f64, share: f64) -> Result<ChosenTask, HistoryError> {
    let walks = history.source_walks(task, WALKS_MAX)?;
    Ok(ChosenTask {
        run: task.run,
        name: task.name.clone(),
        distance,
        share,
        curves: task.curves.clone(),
        walks: walks.into_iter().map(|walk| (walk.widths, walk.reward)).collect(),
    })
}

/// What the agent learned in the run whose tasks are nearest, all tasks of now together.
fn policy(history: &History, scene: &Scene, known: &[StoredTask], distances: &[Vec<f64>]) -> Option<ChosenPolicy> {
    let mut runs: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (at, task) in known.iter().enumerate() {
        if task.agent == scene.agent.entry.word && task.policy.is_some() {
            runs.entry(task.run).or_default().push(at);
        }
    }
    let nearest = |tasks: &[usize]| -> f64 {
        let of_task = |distances: &Vec<f64>| {
            tasks.iter().filter_map(|&at| distances.get(at)).copied().min_by(f64::total_cmp).unwrap_or(0.0)
        };
        distances.iter().map(of_task).sum()
    };
    // Of equally near ones the newest.
    let (run, tasks) = runs.into_iter().rev().min_by(|a, b| nearest(&a.1).total_cmp(&nearest(&b.1)))?;
    let first = &known[*tasks.first()?];
    let learned = |&at: &usize| {
        let StoredTask { place, network, dataset, bound, ratio, curves, .. } = &known[at];
        LearnedTask {
            place: *place,
            network: network.clone(),
            dataset: dataset.clone(),
            bound: bound.clone(),
            ratio: *ratio,
            n_groups: curves.len(),
        }
    };
    let tasks_then = tasks.iter().map(learned).collect();
    let state = history.policy_of(first)?;
    Some(ChosenPolicy { run, learned: LearnedPolicy::new(state, first.n_tasks, tasks_then) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_earlier_runs_is_read_to_the_last_bit_and_damage_is_told() {
        let curve = CurveRecord {
            name: "g".to_owned(),
            channels: 4,
            widths: vec![1, 4],
            errors: vec![0.1 + 0.2, f64::MIN_POSITIVE],
            weight: 1.0 / 3.0,
        };
        let walks = vec![(vec![1], 0.1 + 0.7), (vec![4], 1.0)];
        let name = "t".to_owned();
        let task = ChosenTask { run: 7, name, distance: 1.0 / 7.0, share: 1.0, curves: vec![curve], walks };
        let learned = LearnedPolicy::new(vec![1, 2, 3], 1, Vec::new());
        let chosen = Chosen { tasks: vec![vec![task], vec![]], policy: Some(ChosenPolicy { run: 7, learned }) };
        let kept = EarlierRuns { snapshot: Some("7-ab".to_owned()), chosen: Some(chosen) };
        let bytes = kept.to_bytes().unwrap();
        assert_eq!(EarlierRuns::of_bytes(&bytes).unwrap(), kept);
        for at in [0, HASH_LEN, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(EarlierRuns::of_bytes(&damaged).unwrap_err().to_string().contains("damaged"));
            assert!(EarlierRuns::of_bytes(&bytes[..at]).is_err());
        }
        let mut forgot = kept.clone();
        forgot.forget_policy();
        assert!(forgot.policy().is_none() && kept.policy().is_some() && forgot.is_chosen());
        // One of the two walks says nothing of a group that is whole, the other does.
        let choice = HistoryChoice { transfer: true, ..HistoryChoice::default() };
        assert_eq!(kept.sources(&choice).iter().map(|sources| sources.len()).collect::<Vec<_>>(), [1, 0]);
    }
}
