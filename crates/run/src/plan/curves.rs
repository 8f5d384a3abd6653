//! Error curves of one network, for people: what each group's consumers lose at every width.

use std::num::NonZeroUsize;

use anyhow::ensure;
use secateur_formats::Dataset;
use secateur_net::{ChannelGroups, Protocol};
use secateur_sim::{FittedImages, IndexOf, Inputs, Repair, RewardInputs, RewardKind};
use serde::{Deserialize, Serialize};

use super::allocate::is_measured;
use super::planner::{known_paths, settings};
use super::saved::CacheFile;
use crate::inputs::images::dataset_for;
use crate::inputs::load::LoadedNetwork;
use crate::observer::Observer;
use crate::prepare::shuffled;
use crate::reporter::Reporter;
use crate::scene::{Scene, template};
use crate::threads::thread_pool;

/// What error curves are asked for.
#[derive(Clone, Copy, Debug)]
pub struct CurvesSpec<'a> {
    /// The network.
    pub network: &'a LoadedNetwork,
    /// Training images; labels are not read.
    pub data: &'a Dataset,
    /// Which groups may be pruned.
    pub protocol: Protocol,
    /// Images that errors are measured on.
    pub n_images: usize,
    /// Threads that compute; without a number, one for each core.
    pub threads: Option<NonZeroUsize>,
}

/// Error curves of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvesReport {
    /// Name of the network.
    pub network: String,
    /// Name of the data set.
    pub dataset: String,
    /// Which groups may be pruned.
    pub protocol: String,
    /// Images that errors were measured on.
    pub images: usize,
    /// The prunable groups, in walk order.
    pub groups: Vec<GroupErrors>,
}

/// The error curve of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupErrors {
    /// Name of the group.
    pub name: String,
    /// Its channels.
    pub channels: usize,
    /// Whether a convolution or Linear operation reads it that is refitted; without one, errors are zero and say
    /// nothing.
    pub measured: bool,
    /// Squared error of what reads the group, refitted, as a share of its variance, summed over the readers: at 1, 2, …
    /// channels.
    pub errors: Vec<f64>,
}

/// Measures, or reads from the cache, how the error of every group's consumers grows as its channels go: by backward
/// elimination on the least-squares error, on images that `run` and `plan` would take with their defaults, too.
///
/// # Errors
/// A data set with other images than the network reads, or too few; activations that are not finite.
pub fn error_curves(spec: &CurvesSpec<'_>, observer: &mut dyn Observer) -> anyhow::Result<CurvesReport> {
    let (network, pool) = (spec.network, thread_pool(spec.threads)?);
    let data = dataset_for(network, spec.data)?;
    let reads = network.folded.graph().input();
    ensure!(
        reads == data.shape,
        "error curves: network '{}' reads images of {reads}, those of '{}' are {}",
        network.name,
        data.name,
        data.shape
    );
    ensure!(
        (1..=data.len()).contains(&spec.n_images),
        "error curves: data set '{}' has {} training images, {} are asked for; ask for fewer with --images",
        data.name,
        data.len(),
        spec.n_images
    );
    // A scene's defaults: its reward images come first.
    let defaults = Scene::parse("defaults", template())?;
    let order = shuffled(data.len(), defaults.images.seed);
    let from = defaults.images.reward.min(data.len() - spec.n_images);
    let loaded = data.load_first(spec.n_images, &order[from..], &network.preprocessing, &pool)?;
    let inputs = Inputs {
        network_name: network.name.clone(),
        dataset_name: data.name.clone(),
        network_index: IndexOf::ONLY,
        dataset_index: IndexOf::ONLY,
        network: network.folded.clone(),
        protocol: spec.protocol,
        criterion: None,
        norm_orders: Default::default(),
        repair: Repair::Off,
        walk_images: 0,
        precision: defaults.precision,
        fitted: FittedImages::new(loaded.images, usize::MAX, 0),
        reward: RewardInputs { images: Vec::new(), labels: None, kind: RewardKind::Accuracy, outputs: Vec::new() },
    };
    let settings = settings(&defaults);
    let [file, _] = CacheFile::of(&inputs, &settings, 0);
    let mut reporter = Reporter::new(observer);
    let paths = known_paths(&pool, &file, &inputs, &mut reporter)?;
    reporter.end();
    let graph = network.folded.graph();
    let groups = ChannelGroups::derive(graph, spec.protocol);
    let order = groups.prunable();
    let group = |id: usize, path: &secateur_kernels::RemovalPath| GroupErrors {
        name: groups.group(id).name.clone(),
        channels: groups.group(id).n_channels,
        measured: is_measured(graph, &groups, id),
        errors: path.errors.iter().rev().copied().collect(),
    };
    Ok(CurvesReport {
        network: network.name.clone(),
        dataset: data.name.clone(),
        protocol: spec.protocol.name().to_owned(),
        images: spec.n_images,
        groups: order.iter().zip(&paths).map(|(&id, path)| group(id, path)).collect(),
    })
}
