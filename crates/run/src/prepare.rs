//! From what a scene names to networks ready to be pruned: images drawn, normal equations gathered, channels ranked.

use std::sync::Arc;

use anyhow::{Context, ensure};
use secateur_net::random::SplitMix;
use secateur_sim::{
    FittedImages, IndexOf, Inputs, OutputPart, PluginList, Pool, Prepared, RewardInputs, TaskSetup, WidthBounds,
};

use crate::card::Card;
use crate::history::scores::Conditioned;
use crate::inputs::images::{ResolvedDataset, dataset_for};
use crate::inputs::load::LoadedNetwork;
use crate::inputs::resolve::Resolved;
use crate::observer::StageKind;
use crate::plan::saved::score_conditions;
use crate::reporter::Reporter;
use crate::scene::{Scene, TaskSpec};

/// One per (network, data set) pair that a task names, in the order of the tasks.
pub(crate) fn networks(
    (scene, plugins): (&Scene, &PluginList),
    resolved: &Resolved,
    pool: &Pool,
    card: Option<&Card>,
    reporter: &mut Reporter<'_>,
) -> anyhow::Result<Vec<Conditioned>> {
    let mut out = Vec::new();
    for pair in pairs(scene) {
        let inputs = inputs((scene, plugins), resolved, Computes { pool: &pool.0, card }, pair)?;
        let conditions = score_conditions(&inputs, scene.tune_before_score);
        let name = format!("{} on {}", inputs.network_name, inputs.dataset_name);
        let mut stage = String::new();
        let least = |n| WidthBounds::new(n, scene.channel_multiple, scene.keep_ratio_min).least();
        let prepared = Prepared::new(&pool.0, inputs, least, |what, share| {
            if stage != what {
                stage = what.to_owned();
                reporter.begin(StageKind::Prepare, &format!("{what} {name}"), 100, 0);
            }
            reporter.progress((100.0 * share) as u64);
        })
        .with_context(|| format!("preparing {name}"))?;
        out.push(Conditioned { prepared: Arc::new(prepared), conditions });
    }
    reporter.end();
    Ok(out)
}

/// The scene's tasks, each with the place of its pair in [`networks`].
pub(crate) fn tasks(scene: &Scene, resolved: &Resolved) -> Vec<TaskSetup> {
    let pairs = pairs(scene);
    let place = |task: &TaskSpec| pairs.iter().position(|&pair| pair == NetworkOnData::of(task));
    scene
        .tasks
        .iter()
        .zip(&resolved.budgets)
        .map(|(task, budget)| TaskSetup {
            name: task.name.clone(),
            network: place(task).unwrap_or(0),
            budget: budget.limits(),
            keep: resolved.keep[task.network].clone(),
            budget_ratio: budget.ratio() as f32,
            is_searched: budget.whole().is_none(),
        })
        .collect()
}

/// A network and a data set that it is pruned on, by their places in the scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkOnData {
    pub(crate) network: usize,
    pub(crate) dataset: usize,
}

impl NetworkOnData {
    pub(crate) const fn of(task: &TaskSpec) -> Self {
        Self { network: task.network, dataset: task.dataset }
    }
}

/// Every pair of a network and a data set that a task names, in the order of the tasks.
pub(crate) fn pairs(scene: &Scene) -> Vec<NetworkOnData> {
    let mut out = Vec::new();
    for pair in scene.tasks.iter().map(NetworkOnData::of) {
        if !out.contains(&pair) {
            out.push(pair);
        }
    }
    out
}

/// The outputs of a network, each with the weight that the scene gives its error.
pub(crate) fn weighted_outputs(scene: &Scene, network: &LoadedNetwork) -> Vec<OutputPart> {
    let weighted = |output: &OutputPart| OutputPart { weight: scene.reward.weight(&output.name), ..output.clone() };
    network.outputs.iter().map(weighted).collect()
}

/// The images of a data set in the order in which they are drawn.
pub(crate) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut rng = SplitMix(seed);
    (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
    order
}

/// What computes.
#[derive(Clone, Copy)]
pub(crate) struct Computes<'a> {
    pub(crate) pool: &'a rayon::ThreadPool,
    pub(crate) card: Option<&'a Card>,
}

/// Draws the images: the reward images first, calibration and refit images from the rest.
pub(crate) fn inputs(
    (scene, plugins): (&Scene, &PluginList),
    resolved: &Resolved,
    Computes { pool, card }: Computes<'_>,
    NetworkOnData { network, dataset }: NetworkOnData,
) -> anyhow::Result<Inputs> {
    let (loaded, dataset_name) = (&resolved.networks[network], scene.datasets[dataset].name.clone());
    let ResolvedDataset { train, has_labels, .. } = &resolved.datasets[dataset];
    let data = dataset_for(loaded, train)?;
    let order = shuffled(data.len(), scene.images.seed);
    let wanted = &scene.images;
    let load = |n, order: &[usize]| data.load_first(n, order, &loaded.preprocessing, pool);
    let reward = load(wanted.reward, &order)?;
    // Calibration and refit images are the first of the same rest.
    let n_others = wanted.calibration.max(wanted.refit);
    let others = load(n_others, &order[reward.n_tried..])?;
    let (n, needed) = (reward.indices.len() + others.indices.len(), wanted.reward + n_others);
    ensure!(n == needed, "only {n} training images can be read, `images` asks for {needed}; ask for fewer");
    let [n_calibration, n_refit] = [wanted.calibration, wanted.refit].map(|n| n * data.shape.len());
    let (labels, protocol) = (data.labels.as_ref().filter(|_| *has_labels), scene.protocol);
    let norm_orders =
        card.zip(scene.selection.norm()).map(|(card, norm)| card.norm_orders(&loaded.folded, protocol, norm));
    Ok(Inputs {
        network_name: scene.networks[network].name.clone(),
        dataset_name,
        network_index: IndexOf { index: network, of: scene.networks.len() },
        dataset_index: IndexOf { index: dataset, of: scene.datasets.len() },
        network: loaded.folded.clone(),
        protocol,
        norm_orders: norm_orders.unwrap_or_default(),
        criterion: scene.selection.criterion(scene.seed, plugins, Some(&loaded.original))?,
        repair: scene.repair,
        walk_images: scene.images.walk,
        precision: scene.precision,
        fitted: FittedImages::new(others.images, n_calibration, n_refit),
        reward: RewardInputs {
            labels: labels.map(|labels| reward.indices.iter().map(|&i| labels[i]).collect()),
            images: reward.images,
            kind: scene.reward.kind(),
            outputs: weighted_outputs(scene, loaded),
        },
    })
}
