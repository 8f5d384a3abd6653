//! The policy that an earlier run learned, which acts for other budgets without learning.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use secateur_formats::read_regular_file;
use secateur_rl::{Agent, Inheritance, Learner, RlError, TaskOrigin};
use secateur_sim::{Prepared, TaskSetup};
use serde::{Deserialize, Serialize};

use crate::directory::entries::POLICY_FILE;
use crate::summary::{Summary, TaskSummary};

/// More than any learner's state takes.
const STATE_BYTES_MAX: u64 = 1 << 30;
/// More than any summary takes.
const SUMMARY_BYTES_MAX: u64 = 256 << 20;

/// Share of the walks planned that a policy which learns on takes for done: it explores less, and does not warm up.
const PROGRESS: f64 = 0.5;

/// What an earlier run learned, and the tasks that it learned it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LearnedPolicy {
    state: Vec<u8>,
    n_tasks: usize,
    /// Those that are known.
    tasks: Vec<LearnedTask>,
}

/// A task that a policy was learned on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LearnedTask {
    /// Among the tasks of its run.
    pub(crate) place: usize,
    pub(crate) network: String,
    pub(crate) dataset: String,
    /// What the first bound was of.
    pub(crate) bound: String,
    /// It, as a share of the original's cost.
    pub(crate) ratio: f64,
    pub(crate) n_groups: usize,
}

impl LearnedTask {
    fn of(place: usize, task: &TaskSummary) -> Self {
        Self {
            place,
            network: task.network.clone(),
            dataset: task.dataset.clone(),
            bound: task.budget.kind.clone(),
            ratio: task.budget.ratio,
            n_groups: task.groups.len(),
        }
    }
}

impl LearnedPolicy {
    pub(crate) const fn new(state: Vec<u8>, n_tasks: usize, tasks: Vec<LearnedTask>) -> Self {
        Self { state, n_tasks, tasks }
    }

    /// Reads it from the directory of a run that came to its end.
    ///
    /// # Errors
    /// A directory without a summary, or of an agent that does not learn.
    pub(crate) fn read(run: &Path) -> anyhow::Result<Self> {
        let file = |name: &str| -> PathBuf { run.join(name) };
        let read = |name: &str, most: u64| {
            let missing = || format!("'{}' is not the directory of a run that came to its end", run.display());
            read_regular_file(&file(name), most).with_context(missing)
        };
        let summary: Summary = serde_json::from_slice(&read("summary.json", SUMMARY_BYTES_MAX)?)
            .with_context(|| format!("'{}'", file("summary.json").display()))?;
        ensure!(
            file(POLICY_FILE).exists(),
            "'{}' has no {POLICY_FILE}: its agent, {}, learns no policy, or the run was stopped before its search ended",
            run.display(),
            summary.agent
        );
        let tasks = summary.tasks.iter().enumerate().map(|(place, task)| LearnedTask::of(place, task)).collect();
        Ok(Self::new(read(POLICY_FILE, STATE_BYTES_MAX)?, summary.tasks.len(), tasks))
    }

    /// Acts on `tasks` without learning.
    ///
    /// # Errors
    /// An agent of another kind or other settings, or one that cannot act on tasks it has not learned on.
    pub(crate) fn freeze(
        &self,
        agent: Agent,
        tasks: &[TaskSetup],
        networks: &[Arc<Prepared>],
    ) -> Result<Agent, RlError> {
        let Agent::Learning(mut learner) = agent else {
            return Err(RlError::State { what: "the agent of the earlier run does not learn".to_owned() });
        };
        self.hand_over(&mut *learner, 1.0, tasks, networks)?;
        Ok(Agent::Fixed(learner.policy()))
    }

    /// Lets a learner begin with it, and learn on.
    ///
    /// # Errors
    /// As [`Self::freeze`]; the learner is as it was.
    pub(crate) fn begin(
        &self,
        learner: &mut dyn Learner,
        tasks: &[TaskSetup],
        networks: &[Arc<Prepared>],
    ) -> Result<(), RlError> {
        self.hand_over(learner, PROGRESS, tasks, networks)
    }

    fn hand_over(
        &self,
        learner: &mut dyn Learner,
        progress: f64,
        tasks: &[TaskSetup],
        networks: &[Arc<Prepared>],
    ) -> Result<(), RlError> {
        let origins: Vec<TaskOrigin> = tasks.iter().map(|task| self.origin(task, &networks[task.network])).collect();
        learner.inherit(&Inheritance {
            state: &self.state,
            n_tasks_then: self.n_tasks,
            walk_length_max_then: self.tasks.iter().map(|task| task.n_groups).max().unwrap_or(0),
            origins: &origins,
            progress,
        })
    }

    /// Tasks on the same network and data with the same kind of budget, else of the same kind, else all.
    fn origin(&self, task: &TaskSetup, prepared: &Prepared) -> TaskOrigin {
        let kind = task.budget.first().map_or("", |bound| bound.cost.name());
        let is_alike = |earlier: &LearnedTask| {
            earlier.network == prepared.network_name && earlier.dataset == prepared.dataset_name
        };
        let ways: [&dyn Fn(&LearnedTask) -> bool; 3] =
            [&|earlier| is_alike(earlier) && earlier.bound == kind, &|earlier| earlier.bound == kind, &|_| true];
        let found = ways.iter().map(|way| self.tasks.iter().filter(|task| way(task)).collect::<Vec<_>>());
        let found = found.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
        let length = found.first().map_or(0, |task| task.n_groups);
        // Of several networks, those with walks as long as the first one's: their groups are alike.
        let alike = found.iter().filter(|task| task.n_groups == length);
        let earlier: Vec<(usize, f64)> = alike.map(|task| (task.place, task.ratio)).collect();
        TaskOrigin::between(f64::from(task.budget_ratio), &earlier, length, prepared.groups.prunable().len())
    }
}

/// The scene of an earlier run.
///
/// # Errors
/// A directory that holds none.
pub(crate) fn scene_of(run: &Path) -> anyhow::Result<PathBuf> {
    let scene = run.join("scene.ron");
    let missing = || anyhow!("'{}' is no run directory: it has no scene.ron", run.display());
    if scene.is_file() { Ok(scene) } else { Err(missing()) }
}
