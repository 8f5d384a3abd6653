//! `check`: a scene and all it names, without running anything.

use std::path::Path;

use secateur_scene::{Scene, SelectionMethod};
use secateur_sim::PluginList;

use crate::arguments::{CheckArgs, RootArgs};
use crate::card::Card;
use crate::eval::n_threads;
use crate::memory::MemoryBound;
use crate::resolve::{Resolved, resolve_within};
use crate::roots::Roots;
use crate::scene_file::{read_scene, scene_dir};
use crate::wide_layers::wide_layers;
use crate::{Failure, screen};

pub(crate) fn check(arguments: &CheckArgs, plugins: &PluginList) -> Result<(), Failure> {
    let Some(path) = &arguments.scene else {
        return Ok(screen::result(secateur_scene::template().trim_end())?);
    };
    let memory = MemoryBound::new(arguments.memory, n_threads(arguments.threads)?);
    let (scene, resolved) = read_and_resolve(path, &[], &Means { roots: &arguments.roots, plugins, memory })?;
    // Opened only to see whether there is one, as a run would.
    Card::of(&scene).map(drop)?;
    Ok(screen::result(describe(&scene, &resolved))?)
}

/// What scenes are resolved with.
pub(crate) struct Means<'a> {
    /// Where networks and data are.
    pub(crate) roots: &'a RootArgs,
    /// What is compiled in.
    pub(crate) plugins: &'a PluginList,
    /// What its networks may take.
    pub(crate) memory: MemoryBound,
}

/// The scene at `path` with `sets` applied, and what it names.
///
/// # Errors
/// A scene that cannot be read or run: exit code 2.
pub(crate) fn read_and_resolve(path: &Path, sets: &[String], means: &Means<'_>) -> Result<(Scene, Resolved), Failure> {
    let Means { roots, plugins, memory } = means;
    let scene = read_scene(path, sets)?;
    check_plugins(&scene, plugins)?;
    let roots = Roots::new(roots.data_root.clone(), roots.model_root.clone(), scene_dir(path));
    let resolved = resolve_within(&scene, &roots, *memory)?;
    Ok((scene, resolved))
}

/// Every plugin the scene names is compiled in and accepts its settings; so is the criterion that it selects channels by.
fn check_plugins(scene: &Scene, plugins: &PluginList) -> Result<(), Failure> {
    if let SelectionMethod::Custom(name) = &scene.selection
        && plugins.criterion(name).is_none()
    {
        let known = match plugins.criterion_names()[..] {
            [] => "no plugin of this binary brings one".to_owned(),
            ref names => format!("plugins of this binary bring: {}", names.join(", ")),
        };
        let message = format!("unknown criterion '{name}' of selection; {known}");
        return Err(scene.error_at("selection", message, None).into());
    }
    for config in &scene.plugins {
        if plugins.get(&config.name).is_none() {
            let known = match plugins.names()[..] {
                [] => "no plugin is compiled into this binary".to_owned(),
                ref names => format!("compiled into this binary: {}", names.join(", ")),
            };
            let message = format!("unknown plugin '{}'; {known}", config.name);
            return Err(scene.error_at(&format!("plugins[{:?}]", config.name), message, None).into());
        }
    }
    // Built only to see whether the settings are accepted.
    plugins.app(&scene.plugins).map(drop)?;
    Ok(())
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
    }
    for (task, budget) in scene.tasks.iter().zip(&resolved.budgets) {
        let reach = match budget.whole() {
            Some(_) => "nothing needs to be pruned".to_owned(),
            None => format!("least reachable {}", budget.minimum),
        };
        let (max, cost, original) = (budget.max, budget.cost.name(), budget.original);
        lines.push(format!("task      {}: at most {max} {cost} of {original}, {reach}", task.name));
    }
    lines.extend(wide_layers(scene, resolved).into_iter().map(|layer| format!("note      {layer}")));
    lines.push(format!("{} is valid, tasks: {}", scene.origin(), scene.tasks.len()));
    lines.join("\n")
}
