//! A scene file with the command line's edits.

use std::path::{Path, PathBuf};

use anyhow::Context;
use secateur_scene::{Scene, apply_set};

use crate::Failure;

/// A scene is written by hand; a larger file is something else.
const MAX_BYTES: u64 = 16 << 20;

/// Reads, edits (`sets` are `path=value`, in order) and checks the scene at `path`.
///
/// # Errors
/// A file that cannot be read, an edit that does not fit, a scene that breaks a rule: exit code 2.
pub(crate) fn read_scene(path: &Path, sets: &[String]) -> Result<Scene, Failure> {
    let mut text = read_text(path).map_err(Failure::BadArguments)?;
    for set in sets {
        text = apply_set(&text, set)?;
    }
    Ok(Scene::parse(&path.display().to_string(), &text)?)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let at = || format!("scene '{}'", path.display());
    let n_bytes = std::fs::metadata(path).with_context(at)?.len();
    anyhow::ensure!(n_bytes <= MAX_BYTES, "{} has {n_bytes} bytes; at most {MAX_BYTES} are read", at());
    std::fs::read_to_string(path).with_context(at)
}

/// The folder that `./x` in the scene is relative to.
pub(crate) fn scene_dir(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
