//! The choices that belong to a run as a whole.

use std::collections::BTreeMap;

use secateur_sim::RewardKind;
use serde::{Deserialize, Serialize};

/// Where walks are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// On the processor.
    #[default]
    Cpu,
    /// On the best adapter found through Vulkan, Metal or DX12.
    Gpu,
}

impl Device {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Gpu];

    /// As reports and the command line name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

/// Where a run is recorded, and what it takes from earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename = "History")]
pub struct HistoryChoice {
    /// The file; left out, that of `SECATEUR_HISTORY`, else one in the user's data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whether scores that an earlier run recorded of the very same candidates are taken from there.
    pub scores: bool,
    /// Whether the agent begins with what the nearest earlier run learned: its policy, and what errors cost.
    pub transfer: bool,
    /// Whether several earlier tasks count, the nearer the more, and their candidates under every budget.
    pub augmented: bool,
    /// Whether what errors cost proposes nine of ten walks that explore.
    pub assistant: bool,
    /// Earlier tasks that count where several do, 1..=16.
    pub sources: usize,
}

impl HistoryChoice {
    /// Whether anything but scores is taken from earlier runs.
    pub const fn learns(&self) -> bool {
        self.transfer || self.assistant
    }
}

impl Default for HistoryChoice {
    fn default() -> Self {
        Self { file: None, scores: true, transfer: false, augmented: false, assistant: false, sources: 3 }
    }
}

/// What a walk is paid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Reward")]
pub enum RewardChoice {
    /// Top-1 accuracy; needs labels.
    Accuracy,
    /// Divergence from the dense network's class probabilities; needs logits, but no labels. Ranks candidates better
    /// than accuracy on as many images (`secateur bench rewards`): every image tells how much, not only whether.
    Kl,
    /// Squared error of every output against the dense network's, relative to its variance; needs no labels.
    OutputError {
        /// How much the error of an output counts, by the output's name in the network's file; 1 where it is not given.
        #[serde(default)]
        weights: BTreeMap<String, f64>,
    },
}

impl RewardChoice {
    /// Which one it is.
    pub const fn kind(&self) -> RewardKind {
        match self {
            Self::Accuracy => RewardKind::Accuracy,
            Self::Kl => RewardKind::Kl,
            Self::OutputError { .. } => RewardKind::OutputError,
        }
    }

    /// How much the error of an output counts, at least 0.
    pub fn weight(&self, output: &str) -> f64 {
        self.weights().and_then(|weights| weights.get(output).copied()).unwrap_or(1.0)
    }

    /// The weights that are given.
    pub const fn weights(&self) -> Option<&BTreeMap<String, f64>> {
        match self {
            Self::Accuracy | Self::Kl => None,
            Self::OutputError { weights } => Some(weights),
        }
    }
}

/// What is made of the labels of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelUse {
    /// They are used where there are any.
    #[default]
    Given,
    /// They are not used: images of other things than the network's classes, or for a network that is no classifier.
    None,
}

/// How many training images each purpose gets, and the seed that picks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Images a candidate is scored on.
    pub reward: usize,
    /// Images behind the repair's Gram matrices; disjoint from the reward images.
    pub calibration: usize,
    /// Images of the sequential refit behind every walk; the first of the refit images.
    pub walk: usize,
    /// Images of the finalists' sequential refit.
    pub refit: usize,
    /// Of the reward images, those that single groups are probed on: the first.
    pub probe: usize,
    /// Most images that decide between the finalists of a task, of those that no other purpose uses; at most ten times
    /// the reward images.
    pub finalists: usize,
    /// Seed that picks the images.
    pub seed: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self { reward: 2000, calibration: 2000, walk: 128, refit: 6000, probe: 500, finalists: 20_000, seed: 0 }
    }
}
