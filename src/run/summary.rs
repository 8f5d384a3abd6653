//! `summary.json`: what a run found. Accuracies are fractions; only keys that end in `_s` may differ between equal runs.

use secateur_net::{ChannelGroups, Cost, KeptChannels, Network};
use secateur_rl::AgentKind;
use secateur_rl::agents::random::RandomSettings;
use serde::Serialize;

use super::Run;
use super::finish::Finished;
use super::learning::{AgainstRandom, mean, standard_error};
use super::plans::{executor, scheduler};
use super::search::SearchOutcome;
use crate::bench::{Variant, executor_name};
use crate::card::Card;
use crate::reachable::full_cost;
use crate::resolve::Whole;

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) scene: String,
    pub(super) seed: u64,
    pub(super) agent: String,
    pub(super) scheduler: String,
    pub(super) executor: &'static str,
    /// Where walks were scored, at the end.
    pub(super) device: String,
    /// Numbers that the processor scored walks in.
    pub(super) precision: String,
    /// What went wrong and was made good.
    pub(super) warnings: Vec<String>,
    pub(super) interrupted: bool,
    pub(super) wall_s: f64,
    pub(super) search_wall_s: f64,
    pub(super) walks: u64,
    pub(super) env_steps: u64,
    pub(super) learner_updates: u64,
    pub(super) candidates_scored: u64,
    pub(super) cache_hits: u64,
    pub(super) tasks: Vec<TaskSummary>,
    pub(super) controls: Vec<ControlSummary>,
}

#[derive(Debug, Serialize)]
pub(super) struct TaskSummary {
    pub(super) name: String,
    pub(super) network: String,
    pub(super) dataset: String,
    pub(super) budget: BudgetSummary,
    pub(super) original: OriginalSummary,
    pub(super) macs: u64,
    pub(super) params: u64,
    pub(super) activation_bytes: u64,
    pub(super) groups: Vec<GroupSummary>,
    pub(super) reward_accuracy: f64,
    pub(super) reward_accuracy_original: f64,
    pub(super) test_accuracy_original: f64,
    pub(super) test_accuracy_before_tuning: f64,
    pub(super) test_accuracy_after_tuning: Option<f64>,
    /// Mean reward of the last noise-free walks; null for agents that do not learn.
    pub(super) noise_free_reward_mean: Option<f64>,
    /// What the final policy learned; null for agents that do not learn and without the control `random`.
    pub(super) against_random: Option<AgainstRandom>,
    /// Whether the budget allowed the network as it was given, which was written.
    pub(super) unchanged: bool,
    /// Null where nothing was searched for: the network is unchanged, or had its BatchNorm folded, which was enough.
    pub(super) walk_of_best: Option<u64>,
    pub(super) model_file: String,
}

#[derive(Debug, Serialize)]
pub(super) struct BudgetSummary {
    pub(super) kind: &'static str,
    pub(super) ratio: f64,
    pub(super) max: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct OriginalSummary {
    pub(super) macs: u64,
    pub(super) params: u64,
    pub(super) activation_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupSummary {
    pub(super) name: String,
    pub(super) channels: usize,
    pub(super) kept: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct ControlSummary {
    pub(super) task: String,
    pub(super) agent: String,
    pub(super) candidates_scored: u64,
    pub(super) reward_accuracy: f64,
    pub(super) test_accuracy_before_tuning: f64,
    pub(super) macs: u64,
    /// What the run's agent has more than this control, after the final refit; null if the agent has no network for the task.
    pub(super) reward_accuracy_gain: Option<f64>,
    pub(super) test_accuracy_gain: Option<f64>,
    /// Mean and standard error of the rewards of all walks, before the final refit; null for too few walks.
    pub(super) walk_reward_mean: Option<f64>,
    pub(super) walk_reward_standard_error: Option<f64>,
}

pub(super) fn summary(
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
        scene: run.scene.origin().to_owned(),
        seed: run.scene.seed,
        agent: agent.agent.to_owned(),
        scheduler: Variant(scheduler(run.scene.scheduler)).name(),
        executor: executor_name(executor(run.scene.executor)),
        device: run.card.as_ref().map_or_else(|| "cpu".to_owned(), Card::device),
        precision: run.scene.precision.name().to_owned(),
        warnings: run.card.as_ref().map_or_else(Vec::new, Card::warnings).into_iter().chain(refits).collect(),
        interrupted: run.interrupt.is_set(),
        wall_s,
        search_wall_s: agent.wall_s,
        walks: stats().map(|s| s.n_ended).sum(),
        env_steps: agent.env_steps,
        learner_updates: agent.learner_updates,
        candidates_scored: stats().map(|s| s.n_ended - s.n_cache_hits).sum(),
        cache_hits: stats().map(|s| s.n_cache_hits).sum(),
        tasks: finished[0].iter().map(|f| task_summary(run, searches, f, original_test[f.task])).collect(),
        controls: controls
            .flat_map(|(search, of_control)| of_control.iter().map(|f| control_summary(run, search, f, &finished[0])))
            .collect(),
    }
}

/// Path of a task's network in the run directory.
pub(super) fn model_file(task: &str) -> String {
    format!("tasks/{task}/model.safetensors")
}

fn task_summary(run: &Run<'_>, searches: &[SearchOutcome], finished: &Finished, original_test: f64) -> TaskSummary {
    let (spec, budget) = (&run.scene.tasks[finished.task], &run.resolved.budgets[finished.task]);
    let prepared = &run.networks[run.tasks[finished.task].network];
    let original = &run.resolved.networks[spec.network].original;
    let winner = &finished.winner;
    let emitted = winner.emitted();
    let costs =
        |network: &Network| [Cost::Macs, Cost::Params, Cost::ActivationBytes].map(|cost| full_cost(network, cost));
    let [macs, params, activation_bytes] = costs(&emitted);
    let setup = &run.tasks[finished.task];
    let noise_free = &searches[0].rewards[finished.task].noise_free;
    let random = searches.iter().skip(1).find(|search| search.agent == RandomSettings::ENTRY.word);
    TaskSummary {
        name: spec.name.clone(),
        network: prepared.network_name.clone(),
        dataset: prepared.dataset_name.clone(),
        budget: BudgetSummary {
            kind: budget.cost.name(),
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
fn control_summary(run: &Run<'_>, search: &SearchOutcome, finished: &Finished, agents: &[Finished]) -> ControlSummary {
    let stats = search.tasks[finished.task].stats;
    let rewards = &search.rewards[finished.task].noisy;
    let agent = agents.iter().find(|f| f.task == finished.task);
    ControlSummary {
        task: run.scene.tasks[finished.task].name.clone(),
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
