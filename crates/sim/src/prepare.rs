//! Everything about one network on one data set that a run computes once: groups, counts, normal equations, removal paths,
//! reward images. Shared by the agent and the controls.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use secateur_kernels::{
    Calibration, ChannelSpan, Effort, KernelError, Norm, NormalEquations, Precision, Reader, Refit, RefitData,
    RemovalPath, SequentialRefit, calibrate, channel_norms, eliminate, repair,
};
use secateur_net::random::SplitMix;
use secateur_net::{ChannelGroups, Cost, CostModel, GroupId, KeptChannels, NetError, Network, Protocol, prune};

use crate::observation::GroupShape;
use crate::score::{RewardImages, Score};

/// How the channels that stay are chosen once a width is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Largest sum of absolute weights over the channel's filters and the weights that read it.
    L1,
    /// Largest Euclidean norm of the same weights.
    L2,
    /// Backward elimination on the least-squares error of the consumers.
    Reconstruction,
    /// A random order drawn from this seed.
    Random(u64),
}

/// How consumers are refitted when a walk is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Weights stay as they are.
    Off,
    /// Least squares on the original network's activations.
    Original,
    /// Least squares in graph order on what the already pruned network makes of this many images.
    Sequential(usize),
}

/// What [`Prepared::new`] works from.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Name of the network.
    pub network_name: String,
    /// Name of the data set.
    pub dataset_name: String,
    /// Place of the network among the run's networks, and their number.
    pub network_index: (usize, usize),
    /// Place of the data set among the run's data sets, and their number.
    pub dataset_index: (usize, usize),
    /// The network, BatchNorm folded.
    pub network: Network,
    /// Which groups may be pruned.
    pub protocol: Protocol,
    /// How channels are chosen.
    pub selection: Selection,
    /// Channels of prunable groups by their norm, smallest first, of equal ones the last first, where that was worked out elsewhere.
    pub norm_orders: HashMap<GroupId, Vec<usize>>,
    /// How consumers are refitted when a walk is scored.
    pub repair: Repair,
    /// Numbers that walks are scored in.
    pub precision: Precision,
    /// Calibration images `[N, H, W, C]`.
    pub calibration: Vec<f32>,
    /// Images of the final refit `[N, H, W, C]`.
    pub refit: Vec<f32>,
    /// Reward images `[N, H, W, C]` and labels.
    pub reward: (Vec<f32>, Vec<u16>),
}

/// A network ready to be pruned on one data set.
#[derive(Debug)]
pub struct Prepared {
    /// Names and places.
    pub network_name: String,
    /// Name of the data set.
    pub dataset_name: String,
    /// Place of the network among the run's networks, and their number.
    pub network_index: (usize, usize),
    /// Place of the data set among the run's data sets, and their number.
    pub dataset_index: (usize, usize),
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
    /// Removal path of each prunable group, in walk order.
    pub paths: Vec<Arc<RemovalPath>>,
    /// Normal equations of every consumer, if walks are refitted on original activations.
    pub equations: Vec<Arc<NormalEquations>>,
    /// How consumers are refitted when a walk is scored.
    pub repair: Repair,
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
    walk_refit_data: Option<RefitData>,
    repairs: RepairCache,
}

/// Most bytes of refitted weights that are remembered; past it they are computed anew.
const REPAIR_CACHE_BYTES: usize = 1 << 30;

/// Refitted weights by (equations, kept inputs), so that a layer that keeps what it kept before costs nothing.
#[derive(Debug, Default)]
struct RepairCache(Mutex<Repairs>);

#[derive(Debug, Default)]
struct Repairs {
    by_kept: HashMap<(usize, Vec<usize>), Arc<Refit>>,
    bytes: usize,
}

impl RepairCache {
    fn get_or_solve(
        &self,
        index: usize,
        equations: &NormalEquations,
        kept: Vec<usize>,
    ) -> Result<Arc<Refit>, KernelError> {
        let key = (index, kept);
        if let Some(refit) = self.lock().by_kept.get(&key) {
            return Ok(refit.clone());
        }
        let refit = Arc::new(equations.refit(&key.1)?);
        Ok(self.remember(key, refit))
    }
    /// Keeps a refit if there is room. Two threads that missed the same one both come here, and share what came first.
    fn remember(&self, key: (usize, Vec<usize>), refit: Arc<Refit>) -> Arc<Refit> {
        let bytes = 4 * (refit.weight.len() + refit.bias.len());
        let mut cache = self.lock();
        let Repairs { by_kept, bytes: total } = &mut *cache;
        match by_kept.entry(key) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(free) if *total + bytes <= REPAIR_CACHE_BYTES => {
                *total += bytes;
                free.insert(refit).clone()
            }
            Entry::Vacant(_) => refit,
        }
    }
    /// A panic elsewhere leaves at worst a missing entry, so a poisoned lock is as good as new.
    fn lock(&self) -> std::sync::MutexGuard<'_, Repairs> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Prepared {
    /// Gathers the normal equations and ranks the channels of every prunable group down to `n_kept_min(channels)`.
    /// `progress` is told what is being done and which share of it.
    ///
    /// # Errors
    /// NaN in the activations, images that do not fit the network.
    pub fn new(
        pool: &rayon::ThreadPool,
        inputs: Inputs,
        n_kept_min: impl Fn(usize) -> usize,
        mut progress: impl FnMut(&str, f64),
    ) -> Result<Self, KernelError> {
        let network = &inputs.network;
        let groups = ChannelGroups::derive(network.graph(), inputs.protocol);
        let model = Arc::new(CostModel::new(network.graph(), &groups));
        let n_images = inputs.calibration.len() / network.graph().input().len();
        let calibration = calibrate(pool, network, &groups, &inputs.calibration, |done| {
            progress("calibrating", done as f64 / n_images.max(1) as f64);
        })?;
        let paths = removal_paths(pool, &inputs, &groups, &calibration, n_kept_min, |share| {
            progress("ranking channels", share);
        })?;
        let reward = RewardImages::new(pool, network, inputs.reward.0, inputs.reward.1)?;
        let original_score = reward.score(pool, network, Precision::F32)?;
        let walk_refit_data = match inputs.repair {
            Repair::Sequential(n_images) => {
                let images = &inputs.refit[..(n_images * network.graph().input().len()).min(inputs.refit.len())];
                Some(RefitData::new(pool, network, &groups, images, Effort::Quick)?)
            }
            Repair::Off | Repair::Original => None,
        };
        let shape = |&group: &GroupId| GroupShape::of(network.graph(), &groups, &model, group);
        let shapes = groups.prunable().iter().map(shape).collect();
        Ok(Self {
            network_name: inputs.network_name,
            dataset_name: inputs.dataset_name,
            network_index: inputs.network_index,
            dataset_index: inputs.dataset_index,
            macs_full: model.count(Cost::Macs, &groups.full_widths()),
            network: inputs.network,
            groups,
            model,
            shapes,
            paths,
            // Walks read them only when they are refitted on original activations, and of a wide network they fill gigabytes.
            equations: match inputs.repair {
                Repair::Original => calibration.equations.into_iter().map(Arc::new).collect(),
                Repair::Off | Repair::Sequential(_) => Vec::new(),
            },
            repair: inputs.repair,
            precision: inputs.precision,
            reselect: inputs.selection == Selection::Reconstruction,
            refit_images: inputs.refit,
            reward,
            original_score,
            walk_refit_data,
            repairs: RepairCache::default(),
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

    /// Relative reconstruction error of the group at place `place` of the walk at a width.
    pub fn error(&self, place: usize, group: GroupId, width: usize) -> f64 {
        let n = self.groups.group(group).n_channels;
        self.paths[place].errors[n - width]
    }

    /// The sequential refit that walks are scored after; `None` when they are not.
    pub fn walk_refit<'a>(&'a self, pool: &'a rayon::ThreadPool) -> Option<SequentialRefit<'a>> {
        let data = self.walk_refit_data.as_ref()?;
        Some(SequentialRefit::new(pool, &self.network, &self.groups, data))
    }

    /// The compact network of a candidate, without refit or refitted on the original activations.
    ///
    /// # Errors
    /// Kept sets of another network, NaN in the equations.
    pub fn compact(&self, kept: &KeptChannels) -> Result<Network, KernelError> {
        if self.repair == Repair::Off {
            return Ok(prune(&self.network, &self.groups, kept)?);
        }
        repair(&self.network, &self.groups, &self.equations, kept, |index, equations, kept| {
            self.repairs.get_or_solve(index, equations, kept)
        })
    }
}

/// The removal path of every prunable group, in walk order.
fn removal_paths(
    pool: &rayon::ThreadPool,
    inputs: &Inputs,
    groups: &ChannelGroups,
    calibration: &Calibration,
    n_kept_min: impl Fn(usize) -> usize,
    mut progress: impl FnMut(f64),
) -> Result<Vec<Arc<RemovalPath>>, KernelError> {
    let order = groups.prunable();
    let mut paths = Vec::with_capacity(order.len());
    for (place, &group) in order.iter().enumerate() {
        progress(place as f64 / order.len() as f64);
        let known = inputs.norm_orders.get(&group).cloned();
        let selection = (place, inputs.selection, known);
        let path = removal_path(pool, &inputs.network, groups, calibration, group, selection, &n_kept_min)?;
        paths.push(Arc::new(path));
    }
    Ok(paths)
}

fn removal_path(
    pool: &rayon::ThreadPool,
    network: &Network,
    groups: &ChannelGroups,
    calibration: &Calibration,
    group: GroupId,
    (place, selection, known): (usize, Selection, Option<Vec<usize>>),
    n_kept_min: impl Fn(usize) -> usize,
) -> Result<RemovalPath, KernelError> {
    let n = groups.group(group).n_channels;
    let of_equations = calibration.equations.iter().filter_map(|equations| {
        let axis = groups.axis(network.graph().node(equations.map.node).inputs[0]);
        let ChannelSpan { first: from, len } = equations.map.inputs;
        axis[from..from + len]
            .iter()
            .any(|s| s.group == group)
            .then(|| Reader::new(equations, |p| (axis[p].group == group).then_some(axis[p].channel), n))
    });
    let of_wide = calibration.contributions.iter().filter(|c| c.channels.iter().any(|slot| slot.group == group));
    let readers: Vec<Reader<'_>> = of_equations.chain(of_wide.map(|c| Reader::of_contributions(c, group, n))).collect();
    let by_norm = |norm| {
        let norms = channel_norms(network, groups, group, norm);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| norms[a].total_cmp(&norms[b]).then(b.cmp(&a)));
        order
    };
    let order = match selection {
        Selection::L1 => known.or_else(|| Some(by_norm(Norm::L1))),
        Selection::L2 => known.or_else(|| Some(by_norm(Norm::L2))),
        Selection::Reconstruction => None,
        Selection::Random(seed) => {
            let mut rng = SplitMix(seed ^ (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut order: Vec<usize> = (0..n).collect();
            (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
            Some(order)
        }
    };
    eliminate(pool, &readers, n, n_kept_min(n), order.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refit_that_two_threads_missed_is_kept_and_counted_once() {
        let cache = RepairCache::default();
        let refit = || Arc::new(Refit { weight: vec![1.0; 6], bias: vec![0.5; 2] });
        let held = || {
            let cache = cache.lock();
            (cache.bytes, cache.by_kept.len())
        };
        let first = cache.remember((3, vec![0, 2]), refit());
        assert!(Arc::ptr_eq(&cache.remember((3, vec![0, 2]), refit()), &first));
        assert_eq!(held(), (32, 1));
        cache.remember((4, vec![0, 2]), refit());
        assert_eq!(held(), (64, 2));
    }
}
