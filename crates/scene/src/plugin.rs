//! Settings that a scene hands to a plugin, unread by this crate.

use serde::de::DeserializeOwned;

use crate::error::{SceneError, Source};
use crate::ron_error::read;

/// The settings of one plugin, as the RON text of the scene.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// The plugin's name, the key in `plugins`.
    pub name: String,
    /// Its settings, exactly as the scene spells them.
    pub ron: String,
    source: Source,
    /// Where `ron` begins in the scene's text.
    start: usize,
}

impl PluginConfig {
    /// Settings that stand in no scene; what is wrong with them is told as of a file `origin`.
    pub fn of(origin: &str, name: &str, ron: &str) -> Self {
        Self::new(name.to_owned(), ron.to_owned(), Source::new(origin, ron), 0)
    }

    pub(crate) fn new(name: String, ron: String, source: Source, start: usize) -> Self {
        Self { name, ron, source, start }
    }

    /// Reads the settings as the plugin's own type, with RON's extensions `implicit_some` and `unwrap_newtypes` only.
    ///
    /// # Errors
    /// Anything that is not a `T`, with line and column in the scene file.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SceneError> {
        read(&self.ron).map_err(|problem| self.source.clone().error(vec![problem.shift(self.start)]))
    }
}

/// Equal when the plugin gets the same text; where it stands does not count.
impl PartialEq for PluginConfig {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.ron == other.ron
    }
}
