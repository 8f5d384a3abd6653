//! The policy that an earlier run learned, which acts for other budgets without learning.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use secateur_formats::read_regular_file;
use secateur_rl::{Agent, Inheritance, RlError, TaskOrigin};
use secateur_sim::{Prepared, TaskSetup};

use crate::directory::entries::POLICY_FILE;
use crate::summary::{Summary, TaskSummary};

/// More than any learner's state takes.
const STATE_BYTES_MAX: u64 = 1 << 30;
/// More than any summary takes.
const SUMMARY_BYTES_MAX: u64 = 256 << 20;

/// What an earlier run learned, and the tasks that it learned it on.
#[derive(Clone, Debug)]
pub(crate) struct LearnedPolicy {
    state: Vec<u8>,
    summary: Summary,
}

impl LearnedPolicy {
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
        Ok(Self { state: read(POLICY_FILE, STATE_BYTES_MAX)?, summary })
    }

    /// Acts on `tasks` without learning.
    ///
    /// # Errors
    /// An agent of another kind or other settings, or one that cannot act on tasks it has not learned on.
    pub(crate) fn freeze(
        &self,
        agent: Agent,
        tasks: &[TaskSetup],
        networks: &[std::sync::Arc<Prepared>],
    ) -> Result<Agent, RlError> {
        let Agent::Learning(mut learner) = agent else {
            return Err(RlError::State { what: "the agent of the earlier run does not learn".to_owned() });
        };
        let origins: Vec<TaskOrigin> = tasks.iter().map(|task| self.origin(task, &networks[task.network])).collect();
        let earlier = &self.summary.tasks;
        learner.inherit(&Inheritance {
            state: &self.state,
            n_tasks_then: earlier.len(),
            walk_length_max_then: earlier.iter().map(|task| task.groups.len()).max().unwrap_or(0),
            origins: &origins,
        })?;
        Ok(Agent::Fixed(learner.policy()))
    }

    /// Tasks on the same network and data with the same kind of budget, else of the same kind, else all.
    fn origin(&self, task: &TaskSetup, prepared: &Prepared) -> TaskOrigin {
        let kind = task.budget.first().map_or("", |bound| bound.cost.name());
        let is_alike = |earlier: &TaskSummary| {
            earlier.network == prepared.network_name && earlier.dataset == prepared.dataset_name
        };
        let ways: [&dyn Fn(&TaskSummary) -> bool; 3] = [
            &|earlier| is_alike(earlier) && earlier.budget.kind == kind,
            &|earlier| earlier.budget.kind == kind,
            &|_| true,
        ];
        let numbered = || self.summary.tasks.iter().enumerate();
        let found = ways.iter().map(|way| numbered().filter(|(_, task)| way(task)).collect::<Vec<_>>());
        let found = found.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
        let length = found.first().map_or(0, |(_, task)| task.groups.len());
        // Of several networks, those with walks as long as the first one's: their groups are alike.
        let alike = found.iter().filter(|(_, task)| task.groups.len() == length);
        let earlier: Vec<(usize, f64)> = alike.map(|(at, task)| (*at, task.budget.ratio)).collect();
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
