//! `summary.json`: what a run found. Accuracies are fractions; only keys that end in `_s` may differ between equal runs.

use secateur_net::{ChannelGroups, Cost, KeptChannels, Network};
use secateur_rl::AgentKind;
use secateur_rl::agents::random::RandomSettings;
use serde::{Deserialize, Serialize};

use crate::card::Card;
use crate::finish::Finished;
use crate::inputs::reachable::full_costs;
use crate::inputs::resolve::Whole;
use crate::learning::{AgainstRandom, mean, standard_error};
use crate::search::SearchOutcome;
use crate::{Job, Run};

/// All that a run found. Serialises to `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The scene file.
    pub scene: String,
    /// Seed of the scene.
    pub seed: u64,
    /// Name of the run's agent.
    pub agent: String,
    /// How actors and learner shared time.
    pub scheduler: String,
    /// What ran the systems of a tick.
    pub executor: String,
    /// Where walks were scored, at the end.
    pub device: String,
    /// Numbers that the processor scored walks in.
    pub precision: String,
    /// What went wrong and was made good.
    pub warnings: Vec<String>,
    /// Whether the run was asked to stop.
    pub interrupted: bool,
    /// Seconds that the run took, earlier processes included, without the closing look at the original on the test split.
    pub wall_s: f64,
    /// Seconds that the agent's search took.
    pub search_wall_s: f64,
    /// Walks of the run's agent.
    pub walks: u64,
    /// Decisions of the agent.
    pub env_steps: u64,
    /// Updates of the agent's learner.
    pub learner_updates: u64,
    /// Candidates that were scored.
    pub candidates_scored: u64,
    /// Candidates whose score was known.
    pub cache_hits: u64,
    /// One for each task that has a network.
    pub tasks: Vec<TaskSummary>,
    /// One for each control and task that has a network.
    pub controls: Vec<ControlSummary>,
}

/// What was found for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Name of the task.
    pub name: String,
    /// Name of the network.
    pub network: String,
    /// Name of the data set.
    pub dataset: String,
    /// What the network must not exceed.
    pub budget: BudgetSummary,
    /// Costs of the network as given.
    pub original: OriginalSummary,
    /// Multiply-accumulates per image of the written network.
    pub macs: u64,
    /// Parameters of the written network.
    pub params: u64,
    /// Peak bytes of live f32 activations of one image of the written network.
    pub activation_bytes: u64,
    /// The prunable channel groups.
    pub groups: Vec<GroupSummary>,
    /// Top-1 on the reward images, after the final refit.
    pub reward_accuracy: f64,
    /// Top-1 of the original on the reward images.
    pub reward_accuracy_original: f64,
    /// Top-1 of the original on the test split.
    pub test_accuracy_original: f64,
    /// Top-1 on the test split, after the final refit and before any fine-tuning.
    pub test_accuracy_before_tuning: f64,
    /// Top-1 on the test split after fine-tuning; null without it.
    pub test_accuracy_after_tuning: Option<f64>,
    /// Mean reward of the last noise-free walks; null for agents that do not learn.
    pub noise_free_reward_mean: Option<f64>,
    /// What the final policy learned; null for agents that do not learn and without the control `random`.
    pub against_random: Option<AgainstRandom>,
    /// Whether the budget allowed the network as it was given, which was written.
    pub unchanged: bool,
    /// Null where nothing was searched for: the network is unchanged, or had its BatchNorm folded, which was enough.
    pub walk_of_best: Option<u64>,
    /// Path of the written network in the run directory.
    pub model_file: String,
}

/// A budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetSummary {
    /// `macs`, `params` or `activation_bytes`.
    pub kind: String,
    /// The bound as a share of the original's cost.
    pub ratio: f64,
    /// The bound.
    pub max: u64,
}

/// Costs of a network as it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OriginalSummary {
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Parameters.
    pub params: u64,
    /// Peak bytes of live f32 activations of one image.
    pub activation_bytes: u64,
}

/// A channel group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// Name of the group.
    pub name: String,
    /// Channels of the original.
    pub channels: usize,
    /// Channels that were kept.
    pub kept: usize,
}

/// What a control found for a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlSummary {
    /// Name of the task.
    pub task: String,
    /// Name of the control.
    pub agent: String,
    /// Candidates that were scored.
    pub candidates_scored: u64,
    /// Top-1 on the reward images, after the final refit.
    pub reward_accuracy: f64,
    /// Top-1 on the test split, before any fine-tuning.
    pub test_accuracy_before_tuning: f64,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// What the run's agent has more than this control, after the final refit; null if the agent has no network for the task.
    pub reward_accuracy_gain: Option<f64>,
    /// As above, on the test split.
    pub test_accuracy_gain: Option<f64>,
    /// Mean of the rewards of all walks, before the final refit; null for too few walks.
    pub walk_reward_mean: Option<f64>,
    /// Standard error of that mean.
    pub walk_reward_standard_error: Option<f64>,
}

pub(crate) fn summary(
    run: &Run<'_>,
    searches: &[SearchOutcome],
    finished: &[Vec<Finished>],
    original_test: &[f64],
    wall_s: f64,
) -> Summary {
    let agent = &searches[0];
    let stats = || agent.tasks.iter().map(|t| t.stats);
    let controls = searches.iter().zip(finished).skip(1);
    let refits = run.refits.warnings.iter().cloned();
    Summary {
        scene: run.job.scene.origin().to_owned(),
        seed: run.job.scene.seed,
        agent: agent.agent.to_owned(),
        scheduler: run.job.scene.scheduler.name(),
        executor: run.job.scene.executor.name().to_owned(),
        device: run.job.card.as_ref().map_or_else(|| "cpu".to_owned(), Card::device),
        precision: run.job.scene.precision.name().to_owned(),
        warnings: run.job.card.as_ref().map_or_else(Vec::new, Card::warnings).into_iter().chain(refits).collect(),
        interrupted: run.is_stopping,
        wall_s,
        search_wall_s: agent.wall_s,
        walks: stats().map(|s| s.n_ended).sum(),
        env_steps: agent.env_steps,
        learner_updates: agent.learner_updates,
        candidates_scored: stats().map(|s| s.n_ended - s.n_cache_hits).sum(),
        cache_hits: stats().map(|s| s.n_cache_hits).sum(),
        tasks: finished[0].iter().map(|f| task_summary(&run.job, searches, f, original_test[f.task])).collect(),
        controls: controls
            .flat_map(|(search, of_control)| {
                of_control.iter().map(|f| control_summary(&run.job, search, f, &finished[0]))
            })
            .collect(),
    }
}

/// Path of a task's network in the run directory.
pub(crate) fn model_file(task: &str) -> String {
    format!("tasks/{task}/model.safetensors")
}

fn task_summary(job: &Job<'_>, searches: &[SearchOutcome], finished: &Finished, original_test: f64) -> TaskSummary {
    let (spec, budget) = (&job.scene.tasks[finished.task], &job.resolved.budgets[finished.task]);
    let prepared = &job.networks[job.tasks[finished.task].network];
    let original = &job.resolved.networks[spec.network].original;
    let winner = &finished.winner;
    let emitted = winner.emitted();
    let costs = |network: &Network| full_costs(network, [Cost::Macs, Cost::Params, Cost::ActivationBytes]);
    let [macs, params, activation_bytes] = costs(&emitted);
    let setup = &job.tasks[finished.task];
    let noise_free = &searches[0].rewards[finished.task].noise_free;
    let random = searches.iter().skip(1).find(|search| search.agent == RandomSettings::ENTRY.word);
    TaskSummary {
        name: spec.name.clone(),
        network: prepared.network_name.clone(),
        dataset: prepared.dataset_name.clone(),
        budget: BudgetSummary {
            kind: budget.cost.name().to_owned(),
            ratio: budget.max as f64 / budget.original.max(1) as f64,
            max: budget.max,
        },
        original: {
            let [macs, params, activation_bytes] = costs(original);
            OriginalSummary { macs, params, activation_bytes }
        },
        macs,
        params,
        activation_bytes,
        groups: groups(&prepared.groups, &winner.kept),
        reward_accuracy: winner.score.accuracy,
        reward_accuracy_original: prepared.original_score.accuracy,
        test_accuracy_original: original_test,
        test_accuracy_before_tuning: finished.test_accuracy,
        test_accuracy_after_tuning: None,
        noise_free_reward_mean: mean(noise_free),
        against_random: random
            .and_then(|random| AgainstRandom::judge(noise_free, &random.rewards[finished.task].noisy)),
        unchanged: budget.whole() == Some(Whole::AsGiven),
        walk_of_best: setup.is_searched.then_some(winner.walk),
        model_file: model_file(&spec.name),
    }
}

fn groups(groups: &ChannelGroups, kept: &KeptChannels) -> Vec<GroupSummary> {
    let of = |id: usize| {
        let group = groups.group(id);
        GroupSummary { name: group.name.clone(), channels: group.n_channels, kept: kept.group(id).len() }
    };
    groups.prunable().into_iter().map(of).collect()
}

/// `agents` are the results of the run's agent, which the control is compared with.
fn control_summary(job: &Job<'_>, search: &SearchOutcome, finished: &Finished, agents: &[Finished]) -> ControlSummary {
    let stats = search.tasks[finished.task].stats;
    let rewards = &search.rewards[finished.task].noisy;
    let agent = agents.iter().find(|f| f.task == finished.task);
    ControlSummary {
        task: job.scene.tasks[finished.task].name.clone(),
        agent: search.agent.to_owned(),
        candidates_scored: stats.n_ended - stats.n_cache_hits,
        reward_accuracy: finished.winner.score.accuracy,
        test_accuracy_before_tuning: finished.test_accuracy,
        macs: finished.winner.macs,
        reward_accuracy_gain: agent.map(|f| f.winner.score.accuracy - finished.winner.score.accuracy),
        test_accuracy_gain: agent.map(|f| f.test_accuracy - finished.test_accuracy),
        walk_reward_mean: mean(rewards),
        walk_reward_standard_error: standard_error(rewards),
    }
}
