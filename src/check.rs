//! `check`: a scene and all it names, without running anything.

use std::path::Path;

use secateur_scene::Scene;
use secateur_sim::PluginList;

use crate::arguments::{CheckArgs, RootArgs};
use crate::card::Card;
use crate::resolve::{Resolved, resolve};
use crate::roots::Roots;
use crate::scene_file::{read_scene, scene_dir};
use crate::{Failure, screen};

pub(crate) fn check(arguments: &CheckArgs, plugins: &PluginList) -> Result<(), Failure> {
    let Some(path) = &arguments.scene else {
        return Ok(screen::result(secateur_scene::template().trim_end())?);
    };
    let (scene, resolved) = read_and_resolve(path, &[], &arguments.roots, plugins)?;
    // Opened only to see whether there is one, as a run would.
    Card::of(&scene).map(drop)?;
    Ok(screen::result(describe(&scene, &resolved))?)
}

/// The scene at `path` with `sets` applied, and what it names.
///
/// # Errors
/// A scene that cannot be read or run: exit code 2.
pub(crate) fn read_and_resolve(
    path: &Path,
    sets: &[String],
    roots: &RootArgs,
    plugins: &PluginList,
) -> Result<(Scene, Resolved), Failure> {
    let scene = read_scene(path, sets)?;
    check_plugins(&scene, plugins)?;
    let roots = Roots::new(roots.data_root.clone(), roots.model_root.clone(), scene_dir(path));
    let resolved = resolve(&scene, &roots)?;
    Ok((scene, resolved))
}

/// Every plugin the scene names is compiled in and accepts its settings.
fn check_plugins(scene: &Scene, plugins: &PluginList) -> Result<(), Failure> {
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
        lines.push(format!(
            "task      {}: at most {} {} of {}, least reachable {}",
            task.name,
            budget.max,
            budget.cost.name(),
            budget.original,
            budget.minimum
        ));
    }
    lines.push(format!("{} is valid, tasks: {}", scene.origin(), scene.tasks.len()));
    lines.join("\n")
}
