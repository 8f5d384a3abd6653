//! From what a scene names to networks ready to be pruned: images drawn, normal equations gathered, channels ranked.

use std::sync::Arc;

use anyhow::Context;
use secateur_net::random::SplitMix;
use secateur_sim::{CostBound, IndexOf, Inputs, LabelledImages, PluginList, Pool, Prepared, TaskSetup, WidthBounds};

use crate::card::Card;
use crate::inputs::resolve::Resolved;
use crate::observer::StageKind;
use crate::reporter::Reporter;
use crate::scene::{Scene, TaskSpec};

/// One per (network, data set) pair that a task names, in the order of the tasks.
pub(crate) fn networks(
    (scene, plugins): (&Scene, &PluginList),
    resolved: &Resolved,
    pool: &Pool,
    card: Option<&Card>,
    reporter: &mut Reporter<'_>,
) -> anyhow::Result<Vec<Arc<Prepared>>> {
    let mut out = Vec::new();
    for pair in pairs(scene) {
        let inputs = inputs((scene, plugins), resolved, card, pair)?;
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
        out.push(Arc::new(prepared));
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
            budget: CostBound { cost: budget.cost, max: budget.max },
            budget_ratio: (budget.max as f64 / budget.original.max(1) as f64) as f32,
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

/// The images of a data set in the order in which they are drawn.
pub(crate) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut rng = SplitMix(seed);
    (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
    order
}

/// Draws the images: the reward images first, calibration and refit images from the rest.
pub(crate) fn inputs(
    (scene, plugins): (&Scene, &PluginList),
    resolved: &Resolved,
    card: Option<&Card>,
    NetworkOnData { network, dataset }: NetworkOnData,
) -> anyhow::Result<Inputs> {
    let (loaded, data) = (&resolved.networks[network], &resolved.datasets[dataset].train);
    let order = shuffled(data.len(), scene.images.seed);
    let (reward, rest) = order.split_at(scene.images.reward);
    let images = |indices: &[usize]| data.normalised_nhwc(indices, &loaded.preprocessing);
    let protocol = scene.protocol;
    let norm_orders =
        card.zip(scene.selection.norm()).map(|(card, norm)| card.norm_orders(&loaded.folded, protocol, norm));
    Ok(Inputs {
        network_name: scene.networks[network].name.clone(),
        dataset_name: scene.datasets[dataset].name.clone(),
        network_index: IndexOf { index: network, of: scene.networks.len() },
        dataset_index: IndexOf { index: dataset, of: scene.datasets.len() },
        network: loaded.folded.clone(),
        protocol,
        norm_orders: norm_orders.unwrap_or_default(),
        criterion: scene.selection.criterion(scene.seed, plugins)?,
        repair: scene.repair,
        walk_images: scene.images.walk,
        precision: scene.precision,
        calibration: images(&rest[..scene.images.calibration]),
        refit: images(&rest[..scene.images.refit]),
        reward: LabelledImages { images: images(reward), labels: reward.iter().map(|&i| data.labels[i]).collect() },
    })
}
