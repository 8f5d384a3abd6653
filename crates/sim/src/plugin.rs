//! The plugin interface: new systems in the steps of the process, switched on and configured by a scene's `plugins` field.

use bevy_app::App;
use bevy_ecs::world::World;
use secateur_scene::{PluginConfig, SceneError};

use crate::error::SimError;

/// Adds systems to a run. Named in a scene as `plugins: {"<name>": (…)}`; one that a scene does not name does nothing.
pub trait PruningPlugin: Send + Sync {
    /// The key in the scene's `plugins` field.
    fn name(&self) -> &str;

    /// Reads `config` (with [`PluginConfig::parse`]) and adds components, resources and systems to `app`; called before the
    /// world is filled, and by `check` on a world that never runs.
    ///
    /// # Errors
    /// Settings that make no sense, pointing into the scene.
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError>;

    /// What a checkpoint must hold of the plugin: whatever its systems change in `world` and later decide by. Nothing unless a
    /// plugin says otherwise.
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
    /// An app with the whole process and the plugins that `configs` name (those not compiled in are passed over; the command
    /// line refuses them).
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
    /// The plugin of this name.
    pub fn get(&self, name: &str) -> Option<&dyn PruningPlugin> {
        self.0.iter().find(|p| p.name() == name).map(Box::as_ref)
    }
}
