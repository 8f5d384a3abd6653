//! The choices that belong to a run as a whole.

use serde::{Deserialize, Serialize};

/// How the channels that stay are chosen once a width is fixed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectionMethod {
    /// Largest sum of absolute filter weights.
    L1,
    /// Largest Euclidean filter norm.
    L2,
    /// Channel-wise backward elimination on the least-squares error of the consumer.
    #[default]
    Reconstruction,
    /// Seeded random choice.
    Random,
    /// By the criterion of this name, which a plugin brings.
    Custom(String),
}

/// Whether and how consumers' weights are refitted after channels were removed. The finalists' last refit is sequential
/// unless it is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairMode {
    /// Least squares in graph order, on what the already pruned network makes of a few images: what a walk is scored by
    /// then ranks candidates as the last refit will.
    #[default]
    Sequential,
    /// Least squares on the original network's activations, from Gram matrices made once: cheaper, ranks worse.
    Original,
    /// None.
    Off,
}

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
    /// Seed that picks the images.
    pub seed: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self { reward: 2000, calibration: 2000, walk: 128, refit: 6000, seed: 0 }
    }
}
