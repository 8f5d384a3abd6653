//! A scene file with the edits of a run.

use std::path::{Path, PathBuf};

use anyhow::Context;
use secateur_formats::read_regular_file;

use crate::error::RunError;
use crate::scene::{AgentList, Scene, apply_set};

/// A scene is written by hand; a larger file is something else.
const MAX_BYTES: u64 = 16 << 20;

/// Reads, edits (`sets` are `path=value`, in order) and checks the scene at `path`, or the text that stands for it.
///
/// # Errors
/// A file that cannot be read, an edit that does not fit, a scene that breaks a rule.
pub(crate) fn read_scene(
    path: &Path,
    text: Option<&str>,
    sets: &[String],
    agents: &AgentList,
) -> Result<Scene, RunError> {
    let mut text = match text {
        Some(text) => text.to_owned(),
        None => read_text(path).map_err(RunError::BadArguments)?,
    };
    for set in sets {
        text = apply_set(&text, set, agents)?;
    }
    Ok(Scene::parse_with(&path.display().to_string(), &text, agents)?)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    // Its kind and size are looked at first: a pipe would be waited for, a device may never end.
    let bytes = read_regular_file(path, MAX_BYTES).context("scene")?;
    String::from_utf8(bytes).with_context(|| format!("scene '{}': expected UTF-8 text", path.display()))
}

/// The folder that `./x` in the scene is relative to.
pub(crate) fn scene_dir(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
