//! The plugin interface: new systems in the steps of the process, switched on and configured by a scene's `plugins`
//! field.

use std::sync::Arc;

use bevy_app::App;
use bevy_ecs::world::World;
use secateur_scene::{PluginConfig, SceneError};

use crate::error::SimError;
use crate::network::Criterion;

/// Adds systems to a run. Named in a scene as `plugins: {"<name>": (…)}`; the systems of one that a scene does not name
/// do nothing.
///
/// One that notes how many walks there are of each task, and reads its settings:
/// ```
/// use bevy_app::App;
/// use bevy_ecs::prelude::*;
/// use secateur_scene::{PluginConfig, SceneError};
/// use secateur_sim::{ProcessEvent, EventLog, PruneTask, PruningPlugin, Step, TaskStats, Tick, record_candidates};
/// use serde::Deserialize;
///
/// #[derive(Resource, Deserialize)]
/// struct Count {
///     every: u64,
/// }
///
/// fn note(count: Res<Count>, mut log: ResMut<EventLog>, tasks: Query<(&PruneTask, &TaskStats), Changed<TaskStats>>) {
///     for (task, stats) in tasks.iter().filter(|(_, stats)| stats.n_ended % count.every == 0) {
///         let numbers = vec![(task.name.clone(), stats.n_ended as f64)];
///         log.0.push(ProcessEvent::Note { plugin: "count".into(), numbers });
///     }
/// }
///
/// struct CountPlugin;
///
/// impl PruningPlugin for CountPlugin {
///     fn name(&self) -> &str {
///         "count"
///     }
///     fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
///         app.insert_resource(config.parse::<Count>()?);
///         app.add_systems(Tick, note.in_set(Step::Reward));
///         Ok(())
///     }
/// }
/// ```
pub trait PruningPlugin: Send + Sync {
    /// The key in the scene's `plugins` field.
    fn name(&self) -> &str;

    /// Reads `config` (with [`PluginConfig::parse`]) and adds components, resources and systems to `app`; called before
    /// the world is filled, and by `check` on a world that never runs. Nothing unless a plugin says otherwise.
    ///
    /// # Errors
    /// Settings that make no sense, pointing into the scene.
    fn build(&self, _app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        Ok(())
    }

    /// Criteria of selection that the plugin brings. A scene that names one in its `selection` need not name the
    /// plugin, too.
    fn criteria(&self) -> Vec<Arc<dyn Criterion>> {
        Vec::new()
    }

    /// What a checkpoint must hold of the plugin: whatever its systems change in `world` and later decide by. Nothing
    /// unless a plugin says otherwise.
    fn save(&self, _world: &World) -> Vec<u8> {
        Vec::new()
    }

    /// Puts back what [`save`](Self::save) returned, into a world that [`build`](Self::build) prepared.
    ///
    /// # Errors
    /// What is wrong with `saved`.
    fn load(&self, _world: &mut World, _saved: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The plugins compiled into this binary.
#[derive(Default)]
pub struct PluginList(Vec<Box<dyn PruningPlugin>>);

impl PluginList {
    /// Adds a plugin.
    pub fn add(&mut self, plugin: impl PruningPlugin + 'static) {
        self.0.push(Box::new(plugin));
    }
    /// Names of all plugins.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|p| p.name()).collect()
    }
    /// An app with the whole process and the plugins that `configs` name (those not compiled in are passed over; the
    /// command line refuses them).
    ///
    /// # Errors
    /// Settings a plugin does not accept.
    pub fn app(&self, configs: &[PluginConfig]) -> Result<App, SceneError> {
        let mut app = App::empty();
        crate::add_process(&mut app);
        for config in configs {
            if let Some(plugin) = self.get(&config.name) {
                plugin.build(&mut app, config)?;
            }
        }
        Ok(app)
    }
    /// What a checkpoint holds of each plugin that `configs` name.
    pub fn save(&self, configs: &[PluginConfig], world: &World) -> Vec<Vec<u8>> {
        configs.iter().map(|c| self.get(&c.name).map_or_else(Vec::new, |plugin| plugin.save(world))).collect()
    }
    /// Puts back what [`save`](Self::save) returned for the same `configs`.
    ///
    /// # Errors
    /// What a plugin does not accept.
    pub fn load(&self, configs: &[PluginConfig], world: &mut World, saved: &[Vec<u8>]) -> Result<(), SimError> {
        for (config, saved) in configs.iter().zip(saved) {
            let Some(plugin) = self.get(&config.name) else { continue };
            plugin.load(world, saved).map_err(|what| SimError::PluginState { plugin: config.name.clone(), what })?;
        }
        Ok(())
    }
    /// Names of all criteria of selection that plugins bring.
    pub fn criterion_names(&self) -> Vec<String> {
        self.criteria().map(|criterion| criterion.name().to_owned()).collect()
    }
    /// The criterion of selection of this name.
    pub fn criterion(&self, name: &str) -> Option<Arc<dyn Criterion>> {
        self.criteria().find(|criterion| criterion.name() == name)
    }
    fn criteria(&self) -> impl Iterator<Item = Arc<dyn Criterion>> {
        self.0.iter().flat_map(|plugin| plugin.criteria())
    }
    /// The plugin of this name.
    pub fn get(&self, name: &str) -> Option<&dyn PruningPlugin> {
        self.0.iter().find(|p| p.name() == name).map(Box::as_ref)
    }
}
