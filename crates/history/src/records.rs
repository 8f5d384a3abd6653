//! What is recorded of a run. See `TABLES.md` for what the fields mean, where they are not explained here.

use serde::{Deserialize, Serialize};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It goes on, or was killed.
    Unfinished,
    /// It was asked to stop, and wrote what it had.
    Interrupted,
    /// It ended with an error.
    Failed,
    /// A written network exceeds its budget.
    OverBudget,
    /// It came to its end.
    Finished,
}

impl RunStatus {
    /// As the table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unfinished => "unfinished",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::OverBudget => "over_budget",
            Self::Finished => "finished",
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// What tells it from every other run.
    pub key: String,
    /// blake3 of its metrics, if it has scored anything.
    pub metrics: Option<String>,
    /// Its directory, absolute.
    pub directory: String,
    /// How far it is.
    pub status: RunStatus,
    /// When it began, seconds since 1970.
    pub started_s: f64,
    /// Seconds that it took.
    pub wall_s: Option<f64>,
    /// Name of the scene file.
    pub scene_file: Option<String>,
    /// The resolved scene.
    pub scene: String,
    /// Its seed.
    pub seed: Option<u64>,
    /// Name of the scene's agent.
    pub agent: Option<String>,
    /// What walks were paid for.
    pub reward: Option<String>,
    /// How actors and learner shared time.
    pub scheduler: Option<String>,
    /// Where walks were scored.
    pub device: Option<String>,
    /// Numbers that walks were scored in.
    pub precision: Option<String>,
    /// Version of the program.
    pub program: Option<String>,
    /// blake3 of the program's file.
    pub build: Option<String>,
    /// Instruction set.
    pub instructions: Option<String>,
    /// By the scene's agent.
    pub candidates_scored: Option<u64>,
    /// Candidates whose score an earlier run had computed, as far as that is known.
    pub known_scores: Option<u64>,
    /// The networks that its tasks name.
    pub networks: Vec<NetworkRecord>,
    /// Its tasks.
    pub tasks: Vec<TaskRecord>,
    /// What the agent learned, if it came to that.
    pub policy: Option<Vec<u8>>,
}

/// A trained network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkRecord {
    /// As the scene names it.
    pub name: String,
    /// blake3 of its file; empty where that is not known.
    pub content: String,
    /// Multiply-accumulates per image.
    pub macs: Option<u64>,
    /// Parameters.
    pub params: Option<u64>,
    /// Peak bytes of live activations.
    pub activation_bytes: Option<u64>,
    /// Its layers with weights, where they are known.
    pub layers: Vec<LayerRecord>,
}

/// A layer with weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// Name.
    pub name: String,
    /// What it computes.
    pub kind: String,
    /// Shape of its weight, outputs first.
    pub shape: Vec<usize>,
}

/// A task of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    /// Name.
    pub name: String,
    /// Name of its network.
    pub network: String,
    /// Name of its data set.
    pub dataset: String,
    /// blake3 of the data set.
    pub dataset_content: Option<String>,
    /// What its network must not exceed.
    pub bounds: Vec<BoundRecord>,
    /// Channel groups and what was kept of them, if that is decided.
    pub groups: Vec<GroupRecord>,
    /// Error curves of its groups in walk order, if they were computed.
    pub curves: Vec<CurveRecord>,
    /// Scored candidates, in the order of the run.
    pub walks: Vec<WalkRecord>,
    /// What was found, by the agent and the controls.
    pub results: Vec<ResultRecord>,
    /// What was counted again.
    pub certificate: Option<CertificateRecord>,
}

/// A bound.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundRecord {
    /// What is bounded.
    pub kind: String,
    /// As a share of the original's.
    pub ratio: Option<f64>,
    /// Absolute.
    pub max: Option<u64>,
}

/// A channel group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Name.
    pub name: String,
    /// Channels of the original.
    pub channels: usize,
    /// Channels that were kept.
    pub kept: usize,
}

/// What a channel group loses at each of its widths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurveRecord {
    /// Name of the group.
    pub name: String,
    /// Channels of the original.
    pub channels: usize,
    /// Widths, ascending.
    pub widths: Vec<usize>,
    /// Relative squared error of what reads the group, at each of them.
    pub errors: Vec<f64>,
    /// What one unit of its error counts: what the group alone did to the network's output.
    pub weight: f64,
}

impl CurveRecord {
    /// Whether it is one.
    pub(crate) fn is_sound(&self) -> bool {
        let is_ascending = self.widths.windows(2).all(|pair| pair[0] < pair[1]);
        let is_within = self.widths.last().is_some_and(|&widest| widest <= self.channels);
        let are_numbers = self.errors.iter().chain([&self.weight]).all(|x| x.is_finite() && *x >= 0.0);
        is_ascending && is_within && are_numbers && self.widths.len() == self.errors.len()
    }
}

/// A scored candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct WalkRecord {
    /// Whose it is.
    pub agent: String,
    /// Number of the walk.
    pub walk: u64,
    /// Whether it was free of exploration noise.
    pub noise_free: bool,
    /// Whether an equal candidate was scored before.
    pub cached: bool,
    /// Whether it is the best so far.
    pub is_best: bool,
    /// What it was paid.
    pub reward: f64,
    /// Top-1 on the reward images.
    pub accuracy: Option<f64>,
    /// Divergence, nats.
    pub divergence: Option<f64>,
    /// Output error.
    pub output_error: Option<f64>,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Width of every prunable group.
    pub widths: Vec<usize>,
    /// Seconds of the search until then.
    pub search_s: Option<f64>,
}

/// What an agent found for a task. Accuracies are shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultRecord {
    /// Whose it is.
    pub agent: String,
    /// Whether that is a control.
    pub is_control: bool,
    /// The walk that it came from.
    pub walk: Option<u64>,
    /// By a control.
    pub candidates_scored: Option<u64>,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Parameters.
    pub params: Option<u64>,
    /// Peak bytes of live activations.
    pub activation_bytes: Option<u64>,
    /// On the reward images.
    pub reward_accuracy: Option<f64>,
    /// Of the network as given, on the test split.
    pub test_accuracy_original: Option<f64>,
    /// After the final refit.
    pub test_accuracy: Option<f64>,
    /// After polishing.
    pub test_accuracy_after_polish: Option<f64>,
    /// After fine-tuning.
    pub test_accuracy_after_tuning: Option<f64>,
    /// After the final refit.
    pub test_output_error: Option<f64>,
}

/// What was counted again from the bytes of a written network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// The network's file.
    pub file: String,
    /// Its blake3.
    pub blake3: String,
    /// All of `certificate.json`.
    pub text: String,
}
