//! Everything about one network on one data set that a run computes once: groups, counts, normal equations, removal
//! paths, reward images. Shared by the agent and the controls.

mod activation_energy;
mod batch_norm_scale;
mod criterion;
mod geometric_median;
mod refit_cache;
mod removal;

use std::collections::HashMap;
use std::sync::Arc;

use secateur_kernels::{
    Calibration, Effort, KernelError, NormalEquations, OutputAim, Precision, RefitAim, RefitData, RemovalPath,
    SequentialRefit, calibrate, repair,
};
use secateur_net::{ChannelGroups, Cost, CostModel, GroupId, KeptChannels, NetError, Network, Protocol, prune};
use serde::{Deserialize, Serialize};

pub(crate) use self::activation_energy::ActivationEnergy;
pub(crate) use self::batch_norm_scale::BatchNormScale;
pub use self::batch_norm_scale::batch_norm_scales;
pub use self::criterion::{Criterion, RankedGroup};
pub(crate) use self::criterion::{GroupNorm, RandomOrder};
pub(crate) use self::geometric_median::GeometricMedian;
use self::refit_cache::RefitCache;
use self::removal::Ranking;
use crate::error::SimError;
use crate::fitted_images::FittedImages;
use crate::observation::GroupShape;
use crate::reward_images::{RewardImages, RewardInputs};
use crate::score::{RewardKind, Score};

/// Whether and how consumers are refitted when a walk is scored. The finalists' last refit is sequential unless it is
/// off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repair {
    /// Least squares in graph order, on what the already pruned network makes of a few images: what a walk is scored by
    /// then ranks candidates as the last refit will.
    #[default]
    Sequential,
    /// Least squares on the original network's activations, from Gram matrices made once: cheaper, ranks worse.
    Original,
    /// Weights stay as they are.
    Off,
}

/// Which of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexOf {
    /// Place, from 0.
    pub index: usize,
    /// Number.
    pub of: usize,
}

impl IndexOf {
    /// The first of one.
    pub const ONLY: Self = Self { index: 0, of: 1 };
}

/// What [`Prepared::new`] works from.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Name of the network.
    pub network_name: String,
    /// Name of the data set.
    pub dataset_name: String,
    /// Which of the run's networks.
    pub network_index: IndexOf,
    /// Which of the run's data sets.
    pub dataset_index: IndexOf,
    /// The network, BatchNorm folded.
    pub network: Network,
    /// Which groups may be pruned.
    pub protocol: Protocol,
    /// What ranks the channels of every group; none for backward elimination on the least-squares error of the
    /// consumers, after which the final refit chooses channels anew.
    pub criterion: Option<Arc<dyn Criterion>>,
    /// Channels of prunable groups in the order in which they go, where a built-in criterion was worked out elsewhere.
    pub norm_orders: HashMap<GroupId, Vec<usize>>,
    /// How consumers are refitted when a walk is scored.
    pub repair: Repair,
    /// How many of the images of the final refit [`Repair::Sequential`] takes for every walk: the first.
    pub walk_images: usize,
    /// Numbers that walks are scored in.
    pub precision: Precision,
    /// Calibration images, and those of the final refit.
    pub fitted: FittedImages,
    /// Reward images, and what is paid for.
    pub reward: RewardInputs,
}

/// A network ready to be pruned on one data set.
#[derive(Debug)]
pub struct Prepared {
    /// Names and places.
    pub network_name: String,
    /// Name of the data set.
    pub dataset_name: String,
    /// Which of the run's networks.
    pub network_index: IndexOf,
    /// Which of the run's data sets.
    pub dataset_index: IndexOf,
    /// The network, BatchNorm folded.
    pub network: Network,
    /// Its groups.
    pub groups: ChannelGroups,
    /// Its counts.
    pub model: Arc<CostModel>,
    /// Multiply-accumulates per image at full width.
    pub macs_full: u64,
    /// Observable shape of each prunable group, in walk order.
    pub shapes: Vec<GroupShape>,
    /// Removal path of each prunable group, in walk order: what the [`crate::Importance`] of its layers begins with.
    pub paths: Vec<Arc<RemovalPath>>,
    /// Numbers that walks are scored in.
    pub precision: Precision,
    /// Whether the final refit may choose channels anew.
    pub reselect: bool,
    /// Images of the final refit.
    pub refit_images: Vec<f32>,
    /// Images that walks are paid on.
    pub reward: RewardImages,
    /// The unpruned network's score.
    pub original_score: Score,
    walk_repair: WalkRepair,
}

/// What consumers are refitted with when a walk is scored.
#[derive(Debug)]
enum WalkRepair {
    Off,
    /// Normal equations of every consumer on the original activations, and the refits made of them.
    Original(Vec<Arc<NormalEquations>>, RefitCache),
    /// What the original network makes of the images.
    Sequential(RefitData),
}

/// What the refit behind a walk works from.
struct WalkInputs<'a> {
    calibration: Option<Calibration>,
    images: &'a [f32],
    aim: RefitAim,
}

impl Prepared {
    /// Gathers the normal equations and ranks the channels of every prunable group down to `n_kept_min(channels)`.
    /// `progress` is called with what is being done and which share of it is done.
    ///
    /// # Errors
    /// NaN in the activations, images that do not fit the network, a criterion that does not rank the channels.
    pub fn new(
        pool: &rayon::ThreadPool,
        inputs: Inputs,
        n_kept_min: impl Fn(usize) -> usize,
        mut progress: impl FnMut(&str, f64),
    ) -> Result<Self, SimError> {
        let groups = ChannelGroups::derive(inputs.network.graph(), inputs.protocol);
        let calibration = calibrated(pool, &inputs, &groups, &mut progress)?;
        let paths = ranked(pool, &inputs, &groups, &calibration, n_kept_min, &mut progress)?;
        // Only these read the equations, which fill gigabytes for a wide network.
        let calibration = (inputs.repair == Repair::Original).then_some(calibration);
        Self::assemble(pool, calibration, inputs, groups, paths)
    }

    /// As [`Self::new`], where the channels of every prunable group are ranked already: `paths` is what
    /// [`removal_paths`] found of the same inputs.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_paths(
        pool: &rayon::ThreadPool,
        inputs: Inputs,
        paths: Vec<Arc<RemovalPath>>,
        mut progress: impl FnMut(&str, f64),
    ) -> Result<Self, SimError> {
        let groups = ChannelGroups::derive(inputs.network.graph(), inputs.protocol);
        let calibration = match inputs.repair {
            Repair::Original => Some(calibrated(pool, &inputs, &groups, &mut progress)?),
            Repair::Sequential | Repair::Off => None,
        };
        Self::assemble(pool, calibration, inputs, groups, paths)
    }

    fn assemble(
        pool: &rayon::ThreadPool,
        calibration: Option<Calibration>,
        inputs: Inputs,
        groups: ChannelGroups,
        paths: Vec<Arc<RemovalPath>>,
    ) -> Result<Self, SimError> {
        let network = &inputs.network;
        let model = Arc::new(CostModel::new(network.graph(), &groups));
        let n_walk_values = inputs.walk_images * network.graph().input().len();
        let walk_images = &inputs.fitted.refit()[..n_walk_values.min(inputs.fitted.refit().len())];
        let reward = RewardImages::new(pool, network, inputs.reward)?;
        let original_score = reward.score(pool, network, Precision::F32)?;
        let shape = |&group: &GroupId| GroupShape::of(network.graph(), &groups, &model, group);
        Ok(Self {
            network_name: inputs.network_name,
            dataset_name: inputs.dataset_name,
            network_index: inputs.network_index,
            dataset_index: inputs.dataset_index,
            macs_full: model.count(Cost::Macs, &groups.full_widths()),
            shapes: groups.prunable().iter().map(shape).collect(),
            walk_repair: WalkRepair::new(
                pool,
                (network, &groups),
                inputs.repair,
                WalkInputs { calibration, images: walk_images, aim: refit_aim(reward.kind, Effort::Quick) },
            )?,
            network: inputs.network,
            groups,
            model,
            paths,
            precision: inputs.precision,
            reselect: inputs.criterion.is_none(),
            refit_images: inputs.fitted.into_refit(),
            reward,
            original_score,
        })
    }

    /// The kept channels of given widths, by the removal paths.
    pub fn select(&self, widths: &[usize]) -> KeptChannels {
        let mut kept = KeptChannels::all(&self.groups);
        for (&group, path) in self.groups.prunable().iter().zip(&self.paths) {
            kept.set(group, path.kept(self.groups.group(group).n_channels, widths[group]));
        }
        kept
    }

    /// Kept channels as lists, checked.
    ///
    /// # Errors
    /// The first group that the lists do not fit.
    pub fn kept(&self, lists: Vec<Vec<usize>>) -> Result<KeptChannels, NetError> {
        KeptChannels::new(&self.groups, lists)
    }

    /// What a sequential refit aims at: outputs that are paid for their values are kept as they are.
    pub fn refit_aim(&self, effort: Effort) -> RefitAim {
        refit_aim(self.reward.kind, effort)
    }

    /// Whether consumers are refitted at all.
    pub fn repairs(&self) -> bool {
        !matches!(self.walk_repair, WalkRepair::Off)
    }

    /// The sequential refit that walks are scored after; `None` when they are not.
    pub fn walk_refit<'a>(&'a self, pool: &'a rayon::ThreadPool) -> Option<SequentialRefit<'a>> {
        let WalkRepair::Sequential(data) = &self.walk_repair else { return None };
        Some(SequentialRefit::new(pool, &self.network, &self.groups, data))
    }

    /// The compact network of a candidate, without refit or refitted on the original activations.
    ///
    /// # Errors
    /// Kept sets of another network, NaN in the equations.
    pub fn compact(&self, kept: &KeptChannels) -> Result<Network, KernelError> {
        match &self.walk_repair {
            WalkRepair::Original(equations, cache) => {
                let refit = |index, equations: &_, kept| cache.get_or_solve(index, equations, kept);
                repair(&self.network, &self.groups, equations, kept, refit)
            }
            WalkRepair::Off | WalkRepair::Sequential(_) => Ok(prune(&self.network, &self.groups, kept)?),
        }
    }
}

const fn refit_aim(kind: RewardKind, effort: Effort) -> RefitAim {
    let outputs = match kind {
        RewardKind::Accuracy | RewardKind::Kl => OutputAim::Softmax,
        RewardKind::OutputError => OutputAim::Values,
    };
    RefitAim { effort, outputs }
}

impl WalkRepair {
    fn new(
        pool: &rayon::ThreadPool,
        (network, groups): (&Network, &ChannelGroups),
        repair: Repair,
        inputs: WalkInputs<'_>,
    ) -> Result<Self, KernelError> {
        let WalkInputs { calibration, images, aim } = inputs;
        let equations = calibration.map_or_else(Vec::new, |calibration| calibration.equations);
        Ok(match repair {
            Repair::Off => Self::Off,
            Repair::Original => Self::Original(equations.into_iter().map(Arc::new).collect(), RefitCache::default()),
            Repair::Sequential => Self::Sequential(RefitData::new(pool, network, groups, images, aim)?),
        })
    }
}

/// In which order every prunable group loses its channels, down to `n_kept_min(channels)`, and how the error of its
/// readers grows meanwhile; in walk order. Of the images it reads those for calibration only.
///
/// # Errors
/// As [`Prepared::new`].
pub fn removal_paths(
    pool: &rayon::ThreadPool,
    inputs: &Inputs,
    n_kept_min: impl Fn(usize) -> usize,
    mut progress: impl FnMut(&str, f64),
) -> Result<Vec<Arc<RemovalPath>>, SimError> {
    let groups = ChannelGroups::derive(inputs.network.graph(), inputs.protocol);
    let calibration = calibrated(pool, inputs, &groups, &mut progress)?;
    ranked(pool, inputs, &groups, &calibration, n_kept_min, &mut progress)
}

fn calibrated(
    pool: &rayon::ThreadPool,
    inputs: &Inputs,
    groups: &ChannelGroups,
    progress: &mut impl FnMut(&str, f64),
) -> Result<Calibration, SimError> {
    let n_images = inputs.fitted.calibration().len() / inputs.network.graph().input().len();
    Ok(calibrate(pool, &inputs.network, groups, inputs.fitted.calibration(), |done| {
        progress("calibrating", done as f64 / n_images.max(1) as f64);
    })?)
}

fn ranked(
    pool: &rayon::ThreadPool,
    inputs: &Inputs,
    groups: &ChannelGroups,
    calibration: &Calibration,
    n_kept_min: impl Fn(usize) -> usize,
    progress: &mut impl FnMut(&str, f64),
) -> Result<Vec<Arc<RemovalPath>>, SimError> {
    let (network_name, criterion) = (inputs.network_name.as_str(), inputs.criterion.as_deref());
    let ranking = Ranking { pool, network_name, criterion, known: &inputs.norm_orders };
    let (network, images) = (&inputs.network, inputs.fitted.calibration());
    let of = RankedGroup { network, groups, group: 0, place: 0, calibration, images };
    ranking.paths(of, n_kept_min, |share| progress("ranking channels", share))
}
