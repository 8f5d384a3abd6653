//! `check`: a scene and all it names, without running anything.

use std::path::PathBuf;

use secateur_run::scene::{Scene, template};
use secateur_run::{Card, Resolved, ResolvedBound, wide_layers};
use serde::Serialize;

use crate::arguments::CheckArgs;
use crate::extensions::Extensions;
use crate::{Failure, screen};

pub(crate) fn check(arguments: &CheckArgs, extensions: &Extensions) -> Result<(), Failure> {
    let Some(spec) = arguments.spec() else {
        return Ok(screen::result(template().trim_end())?);
    };
    let (scene, resolved) = secateur_run::check(&extensions.spec(spec), &extensions.plugins)?;
    // Opened only to see whether there is one, as a run would.
    Card::of(&scene).map(drop)?;
    screen::show(&CheckedScene::of(&scene, &resolved), arguments.json, |_| describe(&scene, &resolved))
}

/// What a scene names, as it was found.
#[derive(Debug, Serialize)]
struct CheckedScene {
    scene: String,
    networks: Vec<CheckedNetwork>,
    datasets: Vec<CheckedDataset>,
    tasks: Vec<CheckedTask>,
    /// Layers that would take long, and why.
    notes: Vec<String>,
}

/// A network.
#[derive(Debug, Serialize)]
struct CheckedNetwork {
    name: String,
    file: PathBuf,
    /// What its file leaves unsaid.
    assumptions: Vec<String>,
}

/// A data set.
#[derive(Debug, Serialize)]
struct CheckedDataset {
    name: String,
    training_images: usize,
    test_images: usize,
    notes: Vec<String>,
}

/// A task with its bounds.
#[derive(Debug, Serialize)]
struct CheckedTask {
    name: String,
    bounds: Vec<CheckedBound>,
    /// Whether the network fits as it is.
    unchanged: bool,
}

/// A bound.
#[derive(Debug, Serialize)]
struct CheckedBound {
    kind: &'static str,
    max: u64,
    original: u64,
    /// Less cannot be reached.
    least: u64,
}

impl CheckedScene {
    fn of(scene: &Scene, resolved: &Resolved) -> Self {
        let bound = |ResolvedBound { cost, max, original, minimum, .. }: &ResolvedBound| CheckedBound {
            kind: cost.name(),
            max: *max,
            original: *original,
            least: *minimum,
        };
        let networks = resolved.networks.iter().map(|network| CheckedNetwork {
            name: network.name.clone(),
            file: network.path.clone(),
            assumptions: network.assumptions.clone(),
        });
        let datasets = resolved.datasets.iter().map(|dataset| CheckedDataset {
            name: dataset.name.clone(),
            training_images: dataset.train.len(),
            test_images: dataset.test.len(),
            notes: dataset.notes(),
        });
        let tasks = scene.tasks.iter().zip(&resolved.budgets).map(|(task, budget)| CheckedTask {
            name: task.name.clone(),
            bounds: budget.bounds.iter().map(bound).collect(),
            unchanged: budget.whole().is_some(),
        });
        Self {
            scene: scene.origin().to_string(),
            networks: networks.collect(),
            datasets: datasets.collect(),
            tasks: tasks.collect(),
            notes: wide_layers(scene, resolved),
        }
    }
}

fn describe(scene: &Scene, resolved: &Resolved) -> String {
    let mut lines = Vec::new();
    for network in &resolved.networks {
        lines.push(format!("network   {}: '{}'", network.name, network.path.display()));
        lines.extend(network.assumptions.iter().map(|assumption| format!("          {assumption}")));
    }
    for dataset in &resolved.datasets {
        let (train, test) = (dataset.train.len(), dataset.test.len());
        lines.push(format!("data set  {}: {train} training images, {test} test images", dataset.name));
        lines.extend(dataset.notes().iter().map(|note| format!("          {note}")));
    }
    for (task, budget) in scene.tasks.iter().zip(&resolved.budgets) {
        let bound = |ResolvedBound { cost, max, original, minimum, .. }: &ResolvedBound| {
            let reach = match budget.whole() {
                Some(_) => "nothing needs to be pruned".to_owned(),
                None => format!("least reachable {minimum}"),
            };
            format!("at most {max} {} of {original}, {reach}", cost.name())
        };
        let bounds: Vec<String> = budget.bounds.iter().map(bound).collect();
        lines.push(format!("task      {}: {}", task.name, bounds.join("; ")));
    }
    lines.extend(wide_layers(scene, resolved).into_iter().map(|layer| format!("note      {layer}")));
    lines.push(format!("{} is valid, tasks: {}", scene.origin(), scene.tasks.len()));
    lines.join("\n")
}
