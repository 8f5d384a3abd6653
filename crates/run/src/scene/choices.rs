//! The choices that belong to a run as a whole.

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
