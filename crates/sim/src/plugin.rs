//! The plugin interface: new systems in the steps of the process, switched on and configured by a scene's `plugins` field.

use bevy_app::App;
use secateur_scene::{PluginConfig, SceneError};

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
    /// The plugin of this name.
    pub fn get(&self, name: &str) -> Option<&dyn PruningPlugin> {
        self.0.iter().find(|p| p.name() == name).map(Box::as_ref)
    }
}
