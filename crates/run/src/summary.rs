//! `summary.json`: what a run found. Accuracies are fractions; only keys that end in `_s` may differ between equal
//! runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secateur_net::Cost;
use secateur_sim::RewardKind;
use serde::{Deserialize, Serialize};

use crate::inputs::budgets::{ResolvedBound, ResolvedBudget};
use crate::learning::AgainstRandom;
use crate::paired::{PairedAccuracy, PairedError};
use crate::saved_search::SearchTimes;

/// What a run found and where it wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunResult {
    /// The run directory.
    pub directory: PathBuf,
    /// What `summary.json` there says.
    pub summary: Summary,
}

/// All that a run found. Serialises to `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The scene file.
    pub scene: String,
    /// Seed of the scene.
    pub seed: u64,
    /// What walks were paid for.
    pub reward: RewardSummary,
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
    /// Seconds that the run took, earlier processes included, without the closing look at the original on the test
    /// split.
    pub wall_s: f64,
    /// Seconds that the agent's search took.
    pub search_wall_s: f64,
    /// Seconds of every search, by the name of its agent.
    pub search_times_s: BTreeMap<String, SearchTimes>,
    /// Walks of the run's agent.
    pub walks: u64,
    /// Decisions of the agent.
    pub env_steps: u64,
    /// Updates of the agent's learner.
    pub learner_updates: u64,
    /// Candidates that were scored: of walks, and probes of single groups, which no walk counts.
    pub candidates_scored: u64,
    /// Candidates of walks whose score was known.
    pub cache_hits: u64,
    /// Training steps that the agent's candidates were given before they were scored, where the scene asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning_steps: Option<u64>,
    /// What the agent learned of earlier runs, where the scene asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistorySummary>,
    /// One for each task that has a network.
    pub tasks: Vec<TaskSummary>,
    /// One for each control and task that has a network.
    pub controls: Vec<ControlSummary>,
}

/// What an agent learned of earlier runs. Runs are numbered as `secateur history list` shows them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistorySummary {
    /// The snapshot that they are of, for `--history-at`; null where there was no history to learn from.
    pub snapshot: Option<String>,
    /// The run whose policy the agent began with.
    pub policy_of_run: Option<i64>,
    /// Of every task, the earlier tasks that it learned from, the nearest first.
    pub sources: Vec<SourceSummary>,
}

/// An earlier task that a task learned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// The task of this run.
    pub task: String,
    /// The earlier run.
    pub run: i64,
    /// Its task.
    pub source: String,
    /// Mean absolute difference of the natural logarithms of layer errors, plus the difference of the budgets' shares.
    pub distance: f64,
    /// How much it counted at first, (0, 1].
    pub weight: f64,
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
    /// Where several bounds hold at once, all of them; else absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<BoundSummary>,
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
    /// Top-1 on the reward images, after the final refit; absent without labels, as all accuracies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_accuracy: Option<f64>,
    /// Top-1 of the original on the reward images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_accuracy_original: Option<f64>,
    /// Top-1 of the original on the test split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy_original: Option<f64>,
    /// Top-1 on the test split, after the final refit and before any fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy_before_tuning: Option<f64>,
    /// Top-1 on the test split after polishing (gradients, no labels); absent where the network was not polished, or
    /// stayed as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy_after_polish: Option<f64>,
    /// How it was polished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polish: Option<TrainingSummary>,
    /// Top-1 on the test split after fine-tuning; null without it, and where the network stayed as it was.
    pub test_accuracy_after_tuning: Option<f64>,
    /// How it was tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TrainingSummary>,
    /// Output error on the reward images, after the final refit: the squared error of every output against the dense
    /// network's, as a share of what it is relative to (see `outputs`), mean by weight. Absent, as all that compares
    /// with the dense network, where labels say all that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_output_error: Option<f64>,
    /// Mean divergence of the class probabilities from the dense network's on the reward images, nats; only of logits
    /// without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_divergence: Option<f64>,
    /// Output error on the test split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_output_error: Option<f64>,
    /// Mean divergence of the class probabilities from the dense network's on the test split, nats; only of logits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_divergence: Option<f64>,
    /// Share of the test split with the same most likely class as the dense network says; only of logits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_same_class: Option<f64>,
    /// The outputs that were compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputSummary>,
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
    /// Path of the same network as an ONNX model in the run directory; null where it could not be written.
    pub onnx_file: Option<String>,
    /// Path in the run directory of the plan by which `cut.py` beside it cuts a PyTorch module to this network; null
    /// where it could not be written.
    #[serde(default)]
    pub plan_file: Option<String>,
}

/// What a training of a task's network came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSummary {
    /// Training images that were learned from.
    pub images: usize,
    /// Times that each was seen.
    pub epochs: usize,
    /// Reward on held-out training images before.
    pub held_out_before: f64,
    /// After.
    pub held_out_after: f64,
    /// Whether the trained network is the one that was written: only if that reward is higher.
    pub kept: bool,
    /// Why there was no training, or no whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Output error on the test split after it, as in [`TaskSummary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_output_error: Option<f64>,
    /// The trained network against what it was before on the images of the test split, the trained one first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_paired: Option<PairedAccuracy>,
    /// The same of the errors of their outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_paired_error: Option<PairedError>,
}

/// What walks were paid for, and how to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewardSummary {
    /// As scenes name it.
    pub kind: String,
    /// How a reward follows from what was measured; rewards are in [0, 1], higher is better.
    pub formula: String,
    /// What was measured on the reward images.
    pub measures: String,
    /// Its unit.
    pub unit: String,
    /// `higher` or `lower`.
    pub better: String,
}

impl RewardSummary {
    /// Of a reward.
    pub(crate) fn of(kind: RewardKind) -> Self {
        let [formula, measures, unit, better] = match kind {
            RewardKind::Accuracy => ["accuracy", "top-1 accuracy", "share of the images", "higher"],
            RewardKind::Kl => [
                "exp(-divergence)",
                "Kullback-Leibler divergence of the class probabilities from the dense network's, mean over images",
                "nats",
                "lower",
            ],
            RewardKind::OutputError => [
                "1 / (1 + output error)",
                "squared error of every output against the dense network's, mean over outputs by weight",
                "share of the dense outputs' variance over the images",
                "lower",
            ],
        }
        .map(str::to_owned);
        Self { kind: kind.name().to_owned(), formula, measures, unit, better }
    }
}

/// An output that was compared with the dense network's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSummary {
    /// Its name in the network's file.
    pub name: String,
    /// Numbers of one image.
    pub values: usize,
    /// How much its error counts.
    pub weight: f64,
    /// Its error on the test split.
    pub test_error: f64,
    /// What the squared error is a share of: the dense output's `variance` over the images, its `energy` (sum of
    /// squares) where that hardly depends on the image, or the `count` of its elements where it is 0.
    pub relative_to: String,
}

/// A budget; of several bounds that hold at once, the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetSummary {
    /// `macs`, `params` or `activation_bytes`.
    pub kind: String,
    /// The bound as a share of the original's cost.
    pub ratio: f64,
    /// The bound.
    pub max: u64,
}

/// One of several bounds that hold at once, and what a network makes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundSummary {
    /// `macs`, `params` or `activation_bytes`.
    pub kind: String,
    /// The bound as a share of the original's cost.
    pub ratio: f64,
    /// The bound.
    pub max: u64,
    /// What the network costs.
    pub value: u64,
}

impl BudgetSummary {
    /// The first bound of a budget.
    pub(crate) fn of(budget: &ResolvedBudget) -> Self {
        let first = budget.first();
        Self { kind: first.cost.name().to_owned(), ratio: first.ratio(), max: first.max }
    }
}

impl BoundSummary {
    /// Every bound of a budget that has several, against the costs of a network; nothing for one bound, of which
    /// [`BudgetSummary`] and the network's costs say all.
    pub(crate) fn of_several(budget: &ResolvedBudget, value: impl Fn(Cost) -> u64) -> Vec<Self> {
        let of = |bound: &ResolvedBound| Self {
            kind: bound.cost.name().to_owned(),
            ratio: bound.ratio(),
            max: bound.max,
            value: value(bound.cost),
        };
        if budget.bounds.len() < 2 { Vec::new() } else { budget.bounds.iter().map(of).collect() }
    }
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
    /// Top-1 on the reward images, after the final refit; absent without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_accuracy: Option<f64>,
    /// Top-1 on the test split, before any fine-tuning; absent without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy_before_tuning: Option<f64>,
    /// Top-1 on the test split after polishing, where controls are polished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy_after_polish: Option<f64>,
    /// Top-1 on the test split after fine-tuning, where controls are tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy_after_tuning: Option<f64>,
    /// The run's agent against this control on the images of the test split, both behind the last stage that trained
    /// both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_paired_after_training: Option<PairedAccuracy>,
    /// Output error on the reward images, as in [`TaskSummary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_output_error: Option<f64>,
    /// Output error on the test split, as in [`TaskSummary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_output_error: Option<f64>,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// As in [`TaskSummary`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<BoundSummary>,
    /// What the run's agent has more than this control, after the final refit; null if the agent has no network for the
    /// task, or without labels.
    pub reward_accuracy_gain: Option<f64>,
    /// As above, on the test split.
    pub test_accuracy_gain: Option<f64>,
    /// Without labels, the agent's reward less this control's, after the final refit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward_gain: Option<f64>,
    /// The run's agent against this control on the images of the test split, the agent first; absent without labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_paired: Option<PairedAccuracy>,
    /// The same of the errors of their outputs; absent where these are not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_paired_error: Option<PairedError>,
    /// Mean of the rewards of all walks, before the final refit; null for too few walks.
    pub walk_reward_mean: Option<f64>,
    /// Standard error of that mean.
    pub walk_reward_standard_error: Option<f64>,
}

/// Path of a task's network in the run directory.
pub(crate) fn model_file(task: &str) -> String {
    format!("tasks/{task}/model.safetensors")
}
