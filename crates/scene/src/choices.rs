//! The choices a scene makes: plain enums and the image counts, the same type in the text and after the checks.

use serde::{Deserialize, Serialize};

/// Which channel groups may be pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// Only channels inside a block; the residual stream stays frozen.
    #[default]
    Inner,
    /// Every group that surgery can handle.
    Full,
}

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

/// Whether and how consumers' weights are refitted after channels were removed. The finalists' last refit is sequential unless
/// it is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairMode {
    /// Least squares in graph order, on what the already pruned network makes of a few images: what a walk is scored by then
    /// ranks candidates as the last refit will.
    #[default]
    Sequential,
    /// Least squares on the original network's activations, from Gram matrices made once: cheaper, ranks worse.
    Original,
    /// None.
    Off,
}

/// What a finished walk is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewardKind {
    /// Top-1 accuracy on the reward images.
    #[default]
    Accuracy,
    /// Divergence from the dense network's logits, for networks that saturate on the training images.
    Kl,
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

/// Numbers that the processor scores walks in. Everything else is f32: the final score of winners, accuracies on the test split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// 24 significant bits.
    #[default]
    F32,
    /// 8 significant bits, sums in f32; needs a processor with AVX512-BF16.
    Bf16,
}

impl Precision {
    /// As reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// How actors and learners share time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SchedulerKind {
    /// Deterministic: actors and learner alternate.
    #[default]
    Lockstep,
    /// The learner has a thread of its own; actors act with the newest policy there is, and wait only when the queue is full.
    Async,
    /// As `Async`, but actors wait rather than that a step is learned from too long after it was taken.
    BoundedLag {
        /// Most updates between the policy that acted and the one that learns, 0..=1000; 1 when absent.
        #[serde(default = "default_lag_max")]
        max: u64,
    },
}

fn default_lag_max() -> u64 {
    1
}

impl SchedulerKind {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lockstep => "lockstep",
            Self::Async => "async",
            Self::BoundedLag { .. } => "bounded_lag",
        }
    }
}

/// What runs the ECS systems of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorKind {
    /// One system after the other.
    #[default]
    Single,
    /// Systems that share no data at the same time.
    Multi,
}

/// Which settings an agent runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Whatever wins.
    #[default]
    Tuned,
    /// The published settings.
    Paper,
}

/// Who decides the keep ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Agent {
    /// Multi-task actor-critic (IMPALA, V-trace, LSTM).
    Mtacp {
        /// Settings; `Tuned` when absent.
        #[serde(default)]
        profile: Profile,
    },
    /// The same keep ratio everywhere.
    Uniform,
    /// Keep ratios drawn at random.
    Random,
}

impl Default for Agent {
    fn default() -> Self {
        Self::Mtacp { profile: Profile::Tuned }
    }
}

impl Agent {
    /// Whether the published settings are asked for, which changes the defaults of `keep_ratio_min`, `repair` and `spend_leftover`.
    pub fn is_paper(self) -> bool {
        matches!(self, Self::Mtacp { profile: Profile::Paper })
    }
}

/// A reference that runs beside the agent on every task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Control {
    /// One candidate: the same keep ratio everywhere.
    Uniform,
    /// Random keep ratios, the best of them counts.
    Random {
        /// Candidates scored; 100 when absent.
        #[serde(default = "default_candidates")]
        candidates: usize,
    },
}

fn default_candidates() -> usize {
    100
}

impl Control {
    /// The controls of a scene that names none.
    pub(crate) fn defaults() -> Vec<Self> {
        vec![Self::Uniform, Self::Random { candidates: default_candidates() }]
    }
}

/// Which pictures a procedural data set draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProceduralKind {
    /// Geometric shapes.
    Shapes,
    /// Periodic textures.
    Textures,
}

/// Where a data set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum DatasetSource {
    /// `cifar-10-batches-bin` under the data root.
    Cifar10,
    /// Drawn from a seed; needs no file.
    Procedural {
        /// Which pictures.
        kind: ProceduralKind,
        /// Seed of the pictures.
        seed: u64,
        /// Number of training images.
        train: usize,
        /// Number of test images.
        test: usize,
    },
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
