//! [`Document`]: the text of a scene and where each value of it stands.

use std::ops::Range;
use std::sync::Arc;

use ron::value::RawValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Problem, SceneError, Source, line_col};
use crate::locate::LocatedValue;
use crate::path::parse_path;
use crate::plugin::PluginConfig;
use crate::ron_error::{read, ron_options};
use crate::section::Section;
use crate::walk::locate;

/// The text of a scene and where each value of it stands; cheap to clone.
#[derive(Clone, Debug)]
pub struct Document(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    root: LocatedValue,
}

/// An entry of a map, its value unread.
#[derive(Clone, Debug)]
pub struct MapEntry {
    /// The key, without quotes.
    pub name: String,
    /// Its value, to be read by the one who knows the key.
    pub config: PluginConfig,
    key: Range<usize>,
}

impl Document {
    /// Finds every value of `text`, however broken it is. `origin` is the file name that messages show.
    pub fn new(origin: &str, text: &str) -> Self {
        Self(Arc::new(Inner { source: Source::new(origin, text), root: locate(text) }))
    }

    /// The whole text as a `T`.
    ///
    /// # Errors
    /// The first problem of syntax or type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        read(self.text())
    }

    /// The choice at `path`, a name with or without settings, unread.
    ///
    /// # Errors
    /// A value that is no name.
    pub fn section(&self, path: &str) -> Result<Section, Problem> {
        Section::new(self.clone(), path)
    }

    /// The entries of the map at `path`, in order; none if there is no map.
    pub fn map(&self, path: &str) -> Vec<MapEntry> {
        let Ok(node) = self.0.root.follow(&parse_path(path).unwrap_or_default()) else { return Vec::new() };
        let entries = node.body.iter().flat_map(|body| &body.entries);
        let of = |entry: &crate::locate::LocatedEntry| {
            let key = entry.key.as_ref()?;
            let (start, ron) = (entry.value.span.start, self.text()[entry.value.span.clone()].to_owned());
            let config = PluginConfig::new(key.name.clone(), ron, self.0.source.clone(), start);
            Some(MapEntry { name: key.name.clone(), config, key: key.span.clone() })
        };
        entries.filter_map(of).collect()
    }

    /// The text of the value at `path`, if it is there.
    pub fn value(&self, path: &str) -> Option<&str> {
        let node = self.0.root.follow(&parse_path(path).ok()?).ok()?;
        self.text().get(node.span.clone())
    }

    /// A problem at the value of `path` (such as `budgets[1].ratio`). Where a default stands for the value, it points
    /// at the nearest enclosing value that is there.
    pub fn problem(&self, path: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        Problem::new(self.span(path), message, help)
    }

    /// An error with these problems of this text, in its order.
    pub fn error(&self, problems: Vec<Problem>) -> SceneError {
        self.0.source.clone().error(problems)
    }

    /// Line and column, both from 1, of the place that [`Self::problem`] points at.
    pub fn line_col(&self, path: &str) -> (usize, usize) {
        line_col(self.text(), self.span(path).start)
    }

    /// The file name that messages show.
    pub fn origin(&self) -> &str {
        &self.0.source.origin
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0.source.text
    }

    pub(crate) fn root(&self) -> &LocatedValue {
        &self.0.root
    }

    /// The value at `path`, else the head of the nearest enclosing value.
    fn span(&self, path: &str) -> Range<usize> {
        match self.0.root.follow(&parse_path(path).unwrap_or_default()) {
            Ok(node) if node.body.is_none() => node.span.clone(),
            Ok(node) => node.head(),
            Err(missing) => missing.nearest.head(),
        }
    }
}

impl MapEntry {
    /// A problem at the key.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.key.clone(), message, None)
    }

    /// Whether the value is whole RON on its own.
    pub fn is_readable(&self) -> bool {
        RawValue::from_ron(&self.config.ron).is_ok()
    }
}

/// `value` as RON on one line, without the names of structs.
pub fn to_ron<T: Serialize>(value: &T) -> String {
    let config = ron::ser::PrettyConfig::new().depth_limit(0).separator(" ");
    ron_options().to_string_pretty(value, config).expect("settings are plain data, which RON can write")
}

/// `value` as RON over several lines, without the names of structs.
pub fn to_ron_pretty<T: Serialize>(value: &T) -> String {
    let config = ron::ser::PrettyConfig::new().new_line("\n").depth_limit(2);
    let text = ron_options().to_string_pretty(value, config);
    text.expect("settings are plain data, which RON can write") + "\n"
}
