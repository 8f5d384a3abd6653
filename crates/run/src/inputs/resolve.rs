//! From a checked scene to what it names: networks and data in memory, every budget known to be reachable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use secateur_formats::{Dataset, DatasetSource, Pixels, Split};
use secateur_kernels::{Arithmetic, Plan};
use secateur_net::{ChannelGroups, Cost, GroupId, Protocol, Shape};
use secateur_rl::EnvironmentSpec;
use secateur_sim::{KeepRange, WidthRules, observation_len};

use super::agent_fit::misfits;
use super::bare_weights::size_advice;
use super::budgets::{ResolvedBudget, resolve_budget};
use super::images::{ResolvedDataset, dataset_for};
use super::keep::{NamedGroups, keep_ranges};
use super::load::{LoadedNetwork, NetworkChoices, load_network_as};
use super::memory::{Evaluation, MemoryBound};
use super::reachable::{Reachable, full_costs};
use super::reward_fit::{Misfit, reward_misfit, unknown_outputs};
use super::roots::Roots;
use super::scale_fit::scale_misfit;
use crate::scene::{ControlSpec, LabelUse, Scene, SceneError, TaskSpec};
use crate::training::before_score::bytes_needed;

/// Networks whose activations take more for one image are not tried on one.
const FIRST_IMAGE_BYTES_MAX: u64 = 16 << 20;

/// Largest value of a normalised pixel; networks are trained on pixels a few standard deviations from their mean, or
/// from 0 to 255.
const PIXEL_MAX: f64 = 1e6;
/// Largest value of a logit whose square, and sums of many, can still be told in f32.
const VALUE_MAX: f32 = 1e15;

/// In the order of the costs of networks as given.
pub(super) const COSTS: [Cost; 3] = [Cost::Macs, Cost::Params, Cost::ActivationBytes];

/// What a scene names, in the order of the scene's lists.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// One per entry of the scene's networks.
    pub networks: Vec<LoadedNetwork>,
    /// One per entry of the scene's data sets; sets from the same source share their images.
    pub datasets: Vec<ResolvedDataset>,
    /// One per task of the scene.
    pub budgets: Vec<ResolvedBudget>,
    /// One per network: its groups that keep a share of their own, by their ids under the scene's protocol.
    pub keep: Vec<BTreeMap<GroupId, KeepRange>>,
}

impl Resolved {
    /// Which widths the groups of a network may take.
    pub fn width_rules(&self, scene: &Scene, network: usize) -> WidthRules {
        width_rules(scene, &self.keep[network])
    }
}

/// With the shares that some groups of a network keep.
fn width_rules(scene: &Scene, keep: &BTreeMap<GroupId, KeepRange>) -> WidthRules {
    WidthRules { keep: keep.clone(), ..WidthRules::new(scene.channel_multiple, scene.keep_ratio_min) }
}

/// What a network can be pruned to at most, and its groups that keep a share of their own.
type LeastNetwork = (Reachable, BTreeMap<GroupId, KeepRange>);

/// Loads what `scene` names and checks that all of it fits together.
///
/// # Errors
/// Every problem found, each with its place in the scene and what to do.
pub fn resolve(scene: &Scene, roots: &Roots) -> Result<Resolved, SceneError> {
    resolve_within(scene, roots, MemoryBound::default())
}

/// As [`resolve`], for networks that may take as much memory as `memory` says.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_within(scene: &Scene, roots: &Roots, memory: MemoryBound) -> Result<Resolved, SceneError> {
    let mut problems = Problems { scene, memory, found: None };
    let networks: Vec<Option<LoadedNetwork>> = (0..scene.networks.len()).map(|i| problems.network(i, roots)).collect();
    let datasets = problems.datasets(roots);
    unknown_outputs(scene, &networks).into_iter().for_each(|misfit| problems.add_misfit(misfit));
    let mut budgets = Vec::new();
    let mut reachable: BTreeMap<usize, (LeastNetwork, [u64; 3])> = BTreeMap::new();
    let mut pruned: BTreeSet<usize> = BTreeSet::new();
    for task in &scene.tasks {
        let Some(network) = &networks[task.network] else { continue };
        // A pair and a network are checked with their first task.
        let is_first = |same: &dyn Fn(&TaskSpec) -> bool| {
            scene.tasks.iter().find(|t| same(t)).is_some_and(|t| std::ptr::eq(t, task))
        };
        if let Some(dataset) = &datasets[task.dataset]
            && is_first(&|t| (t.network, t.dataset) == (task.network, task.dataset))
        {
            problems.check_pair(task.network, network, dataset);
        }
        let costs = || (problems.least(task.network, network), full_costs(&network.original, COSTS));
        let (least, originals) = reachable.entry(task.network).or_insert_with(costs);
        let budget = resolve_budget(&scene.budgets[task.budget], &least.0, originals);
        if budget.whole().is_none() && pruned.insert(task.network) {
            problems.check_prunable(task.network, network, &least.0);
            if let Err(why) = problems.check_tuned(network) {
                problems.add("tune_before_score", format!("{}: {why:#}", network.name), None);
            }
            if let Some(why) = scale_misfit(scene, network, &least.0) {
                problems.add("selection", why, None);
            }
        }
        if is_first(&|t| (t.network, t.budget) == (task.network, task.budget)) {
            problems.check_budget(task, network, &budget);
        }
        budgets.push(budget);
    }
    problems.check_precision();
    if problems.found.is_none() {
        problems.check_agent(reachable.values().map(|(least, _)| least.0.groups.prunable().len()).max());
        let of_network = |network| {
            let ((least, keep), _) = reachable.get(&network)?;
            Some((least, width_rules(scene, keep)))
        };
        for (path, bad) in misfits(scene, &budgets, of_network) {
            problems.add(&path, bad, None);
        }
    }
    match problems.found {
        Some(error) => Err(error),
        None => Ok(Resolved {
            networks: networks.into_iter().flatten().collect(),
            datasets: datasets.into_iter().flatten().collect(),
            budgets,
            keep: (0..scene.networks.len())
                .map(|network| reachable.remove(&network).map(|((_, keep), _)| keep).unwrap_or_default())
                .collect(),
        }),
    }
}

/// Without the document where a pruned network could not be written to it, which is said now, not after the search.
fn with_document_that_can_be_cut(mut network: LoadedNetwork) -> LoadedNetwork {
    if let Some(Err(why)) = network.document.as_ref().map(|document| document.try_pruned(&network.folded)) {
        network.assumptions.push(format!("results are written as new ONNX models, not as the one given: {why}"));
        network.document = None;
    }
    network
}

/// Whether a network can be run on the images of a data set.
///
/// # Errors
/// What does not fit, with both sides.
pub fn check_images_fit(network: &LoadedNetwork, data: &Dataset) -> anyhow::Result<()> {
    let (reads, name) = (network.folded.graph().input(), &network.name);
    ensure!(!data.is_empty(), "data set '{}' has no image", data.name);
    ensure!(
        reads == data.shape,
        "network '{name}' reads images of {reads}, those of '{}' are {}{}{}",
        data.name,
        data.shape,
        size_advice(network, data.shape),
        channel_advice(reads, data.shape)
    );
    Ok(())
}

/// Whether a network can be run on the images of a data set, and has an output for each of its classes.
///
/// # Errors
/// What does not fit, with both sides.
pub fn check_fit(network: &LoadedNetwork, data: &Dataset) -> anyhow::Result<()> {
    let (outputs, name) = (network.folded.graph().n_classes(), &network.name);
    if let Some(why) = &network.ends_early {
        bail!(
            "'{}' cannot be scored to its end: {why}; without labels, what comes before can be compared with another \
             network's (`reward: OutputError()`, `secateur eval --against`)",
            network.path.display()
        );
    }
    check_images_fit(network, data)?;
    ensure!(
        data.labels.is_none() || outputs == data.n_classes,
        "network '{name}' has {outputs} outputs, data set '{}' has {} classes{}",
        data.name,
        data.n_classes,
        match data.images {
            Pixels::InFiles(_) => "; name the output of every image in a list: `labels: List(\"labels.csv\")`",
            Pixels::InMemory(_) | Pixels::InArrays(_) => "",
        }
    );
    Ok(())
}

/// How images of other channels than a network's can be used all the same.
fn channel_advice(reads: Shape, has: Shape) -> &'static str {
    match (reads.c, has.c) {
        (3, 1) | (1, 3) => {
            "; images in a folder, `Images(dir: \"...\")`, are made grey or RGB, whichever a network reads: write them there"
        }
        _ => "",
    }
}

/// Runs the network on the first training image, if that takes no more memory than any run does: what is not finite
/// there would stop the run before its first walk.
fn first_logits(network: &LoadedNetwork, data: &Dataset) -> anyhow::Result<()> {
    let [bytes] = full_costs(&network.folded, [Cost::ActivationBytes]);
    if bytes > FIRST_IMAGE_BYTES_MAX {
        return Ok(());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let order: Vec<usize> = (0..data.len()).collect();
    let loaded = data.load_first(1, &order, &network.preprocessing, &pool)?;
    ensure!(!loaded.indices.is_empty(), "none of its images can be read: {}", data.failures().join("; "));
    let logits = Plan::compile(&network.folded, Arithmetic::default())?.logits(&pool, &loaded.images)?;
    let largest = logits.iter().fold(0f32, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x.abs()) });
    ensure!(largest <= VALUE_MAX, "its logits reach {largest:e}, expected at most {VALUE_MAX:e}");
    Ok(())
}

/// Collects what is wrong.
pub(super) struct Problems<'a> {
    pub(super) scene: &'a Scene,
    memory: MemoryBound,
    found: Option<SceneError>,
}

impl Problems<'_> {
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        let error = self.scene.error_at(path, message, help);
        self.found = Some(match self.found.take() {
            Some(found) => found.merge(error),
            None => error,
        });
    }

    fn network(&mut self, i: usize, roots: &Roots) -> Option<LoadedNetwork> {
        let spec = &self.scene.networks[i];
        let loaded = roots
            .find_in_scene(&spec.file)
            .and_then(|path| {
                let (arch, mean_std) = (spec.arch.as_deref(), spec.normalisation.as_ref());
                load_network_as(&path, &NetworkChoices { arch, mean_std, size: spec.size })
            })
            .and_then(|network| self.check_memory(&network).map(|()| network).context(spec.file.clone()));
        match loaded {
            Ok(network) => {
                self.check_preprocessing(i, &network);
                Some(LoadedNetwork { name: spec.name.clone(), ..with_document_that_can_be_cut(network) })
            }
            Err(error) => {
                self.add(&format!("networks[{i}].file"), format!("{error:#}"), None);
                None
            }
        }
    }

    /// The narrowest network that its `keep` and the rules of the scene allow; without its `keep` where that is wrong.
    fn least(&mut self, i: usize, network: &LoadedNetwork) -> LeastNetwork {
        let scene = self.scene;
        let rules = WidthRules::new(scene.channel_multiple, scene.keep_ratio_min);
        let graph = network.folded.graph();
        let groups = ChannelGroups::derive(graph, scene.protocol);
        let (spec, name) = (&scene.networks[i].keep, &*network.name);
        let keep = match keep_ranges(NamedGroups { network: name, graph, groups: &groups }, spec, &rules) {
            Ok(keep) => keep,
            Err(faults) => {
                for fault in faults {
                    let path = format!("networks[{i}].keep[\"{}\"]", spec[fault.entry].pattern);
                    self.add(&path, format!("`networks[{i}].keep`: {}", fault.message), fault.help);
                }
                BTreeMap::new()
            }
        };
        let rules = WidthRules { keep: keep.clone(), ..rules };
        (Reachable::new(graph, groups, &rules).expect("every range was checked to hold a width"), keep)
    }

    /// Groups, and walks that are scored on all reward images at a time.
    fn check_memory(&self, network: &LoadedNetwork) -> anyhow::Result<()> {
        // Another check tells of a processor that lacks it.
        let precision = self.scene.precision.checked().unwrap_or_default();
        let evaluation = Evaluation { precision, n_images: self.scene.images.reward };
        self.memory.check_groups(&network.original)?;
        self.memory.check_evaluation(&network.folded, evaluation)
    }

    /// Whether candidates of a network can be trained before they are scored, where the scene asks for it.
    fn check_tuned(&self, network: &LoadedNetwork) -> anyhow::Result<()> {
        let scene = self.scene;
        let Some(tune) = scene.tune_before_score.filter(|tune| tune.steps > 0) else { return Ok(()) };
        let needed = |n_threads| bytes_needed(&network.folded, scene.protocol, tune, n_threads);
        let n_at_once = scene.actors_per_task.saturating_mul(scene.tasks.len());
        self.memory.check_candidate_trainings(&network.folded, needed, [n_at_once, tune.batch])
    }

    /// Pixels of [0, 1] must be of a sane size once they are normalised: squares of them are summed.
    fn check_preprocessing(&mut self, i: usize, network: &LoadedNetwork) {
        let of_channel = |(mean, std): (&f32, &f32)| {
            let (mean, std) = (f64::from(*mean), f64::from(*std));
            (mean.abs() / std).max((1.0 - mean).abs() / std)
        };
        let prep = &network.preprocessing;
        let largest = prep.mean.iter().zip(&prep.std).map(of_channel).fold(0.0, f64::max);
        if largest > PIXEL_MAX {
            let message = format!(
                "pixels of [0, 1] are up to {largest:e} with mean {:?} and std {:?}, expected at most {PIXEL_MAX:e}",
                prep.mean, prep.std
            );
            let help = "mean and std are those of pixels in [0, 1], not of [0, 255]".to_owned();
            self.add(&format!("networks[{i}].std"), message, Some(help));
        }
    }

    /// Every data set, each source read once.
    fn datasets(&mut self, roots: &Roots) -> Vec<Option<ResolvedDataset>> {
        let mut read: Vec<(DatasetSource, Option<[Arc<Dataset>; 2]>)> = Vec::new();
        let mut out = Vec::new();
        for (i, spec) in self.scene.datasets.iter().enumerate() {
            let known = read.iter().find(|(source, _)| *source == spec.source).map(|(_, splits)| splits.clone());
            let splits = known.unwrap_or_else(|| self.splits(i, roots));
            if let Some([train, _]) = &splits {
                self.check_images(i, train.len());
            }
            read.push((spec.source.clone(), splits.clone()));
            out.push(splits.map(|[train, test]| ResolvedDataset {
                name: spec.name.clone(),
                has_labels: spec.labels == LabelUse::Given && train.labels.is_some() && test.labels.is_some(),
                train,
                test,
            }));
        }
        out
    }

    fn splits(&mut self, i: usize, roots: &Roots) -> Option<[Arc<Dataset>; 2]> {
        let source = self.scene.datasets[i].source.clone().beside(&roots.scene_dir);
        if let Err(error) = self.memory.check_dataset(&source, &roots.data) {
            self.add(&format!("datasets[{i}].source"), error.to_string(), None);
            return None;
        }
        let load = |split| source.read(&roots.data, split).map(Arc::new);
        match load(Split::Train).and_then(|train| Ok([train, load(Split::Test)?])) {
            Ok(splits) => Some(splits),
            Err(error) => {
                let help = "set --data-root or SECATEUR_DATA to the folder that holds the data set".to_owned();
                // What is wrong in a file or folder that is there is told with its remedy.
                let help = Some(help).filter(|_| error.is_missing_data());
                self.add(&format!("datasets[{i}].source"), error.to_string(), help);
                None
            }
        }
    }

    /// Reward images are disjoint from calibration and refit images, which may overlap each other.
    fn check_images(&mut self, i: usize, available: usize) {
        let images = &self.scene.images;
        let (what, n) = [("calibration", images.calibration), ("refit", images.refit)]
            .into_iter()
            .max_by_key(|&(_, n)| n)
            .expect("the list is not empty");
        let needed = images.reward.saturating_add(n);
        if needed > available {
            let message = format!(
                "data set '{}' has {available} training images, `images` asks for {needed}: {} for reward and {n} others \
                 for {what}",
                self.scene.datasets[i].name, images.reward
            );
            let help = "ask for fewer in `images`, or give the data set more training images";
            self.add(&format!("datasets[{i}]"), message, Some(help.to_owned()));
        }
    }

    fn check_pair(&mut self, i: usize, network: &LoadedNetwork, dataset: &ResolvedDataset) {
        let path = format!("networks[{i}]");
        let help = Some("name the data sets it was trained for in the network's `datasets`".to_owned());
        let data = match dataset_for(network, &dataset.train) {
            Ok(data) => data,
            Err(error) => return self.add(&path, error.to_string(), help),
        };
        let data = &*data;
        if let Err(misfit) = check_images_fit(network, data) {
            return self.add(&path, misfit.to_string(), help.filter(|_| !data.is_empty()));
        }
        if dataset.has_labels
            && let Err(misfit) = check_fit(network, data)
        {
            let help = "name the data sets it was trained for in the network's `datasets`; to prune it on images without \
                        their labels, give the data set `labels: None`";
            return self.add(&path, misfit.to_string(), Some(help.to_owned()));
        }
        if let Some(misfit) = reward_misfit(self.scene, network, &dataset.name, dataset.has_labels) {
            return self.add_misfit(misfit);
        }
        if let Err(what) = first_logits(network, data) {
            let message = format!("network '{}' cannot be run on '{}': {what}", network.name, data.name);
            let help = "are the weights, `mean` and `std` those that it was trained with?".to_owned();
            self.add(&path, message, Some(help));
        }
    }

    fn add_misfit(&mut self, Misfit { path, message, help }: Misfit) {
        self.add(&path, message, help);
    }

    /// This processor may lack what the scene asks for.
    fn check_precision(&mut self) {
        if let Err(error) = self.scene.precision.checked() {
            self.add("precision", error.to_string(), None);
        }
    }

    /// The agent and the controls can be built for what the scene gives them: an agent may say that it cannot serve it.
    fn check_agent(&mut self, walk_length_max: Option<usize>) {
        let scene = self.scene;
        let environment = |walks_per_task: u64| EnvironmentSpec {
            n_features: observation_len(scene.networks.len(), scene.datasets.len()),
            n_tasks: scene.tasks.len(),
            n_actors: scene.tasks.len().saturating_mul(scene.actors_per_task),
            walk_length_max: walk_length_max.unwrap_or(1),
            walks_planned: walks_per_task.saturating_mul(scene.tasks.len() as u64),
            keep_ratio_min: scene.keep_ratio_min as f32,
            seed: scene.seed,
        };
        if let Err(error) = environment(scene.walks_per_task).check() {
            return self.add("agent", error.to_string(), None);
        }
        let control = |(i, control): (usize, &'_ ControlSpec)| {
            (format!("controls[{i}]"), control.agent.settings.clone(), control.candidates as u64)
        };
        let agent = ("agent".to_owned(), scene.agent.settings.clone(), scene.walks_per_task);
        for (path, settings, walks) in std::iter::once(agent).chain(scene.controls.iter().enumerate().map(control)) {
            if let Err(error) = secateur_rl::build(&*settings, &environment(walks)) {
                self.add(&path, error.to_string(), None);
            }
        }
    }

    fn check_prunable(&mut self, i: usize, network: &LoadedNetwork, least: &Reachable) {
        if !least.groups.prunable().is_empty() {
            return;
        }
        let n_full = ChannelGroups::derive(network.folded.graph(), Protocol::Full).prunable().len();
        let help = match (self.scene.protocol, n_full) {
            (Protocol::Inner, 1..) => Some(format!("`protocol: Full` could prune {n_full} of its groups")),
            _ => None,
        };
        let reasons: Vec<String> = least
            .groups
            .groups()
            .iter()
            .filter_map(|group| Some(format!("{} ({})", group.name, group.frozen.as_ref()?)))
            .take(4)
            .collect();
        let message = format!("network '{}' has no group that may be pruned: {}", network.name, reasons.join(", "));
        self.add(&format!("networks[{i}]"), message, help);
    }
}
