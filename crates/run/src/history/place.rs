//! Which file a run is recorded in.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::scene::Scene;
use crate::spec::RunSpec;

/// Set to a file or to `none`.
const VARIABLE: &str = "SECATEUR_HISTORY";
/// In place of a file: nothing is recorded.
const NONE: &str = "none";

/// The file that runs are recorded in unless they are told otherwise: that of `SECATEUR_HISTORY`, else
/// `$XDG_DATA_HOME/secateur/history.sqlite`, else `~/.local/share/secateur/history.sqlite`; none if the variable says
/// `none`, or without a home.
pub fn default_history() -> Option<PathBuf> {
    default_of(|name| std::env::var_os(name))
}

fn default_of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(given) = variable(VARIABLE).filter(|value| !value.is_empty()) {
        return file(Path::new(&given));
    }
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")))?;
    Some(data.join("secateur/history.sqlite"))
}

/// What the spec says, else the scene, else [`default_history`].
pub(crate) fn history_of(spec: &RunSpec, scene: &Scene) -> Option<PathBuf> {
    if let Some(given) = &spec.history {
        return file(given);
    }
    match &scene.history.as_ref()?.file {
        Some(given) => file(Path::new(given)),
        None => default_history(),
    }
}

fn file(given: &Path) -> Option<PathBuf> {
    (given != Path::new(NONE)).then(|| given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_before_the_data_folder_and_that_before_the_home() {
        let of = |set: &[(&str, &str)]| {
            default_of(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value)))
        };
        let home = ("HOME", "/home/a");
        assert_eq!(of(&[home]), Some("/home/a/.local/share/secateur/history.sqlite".into()));
        assert_eq!(of(&[home, ("XDG_DATA_HOME", "/data")]), Some("/data/secateur/history.sqlite".into()));
        // A relative folder is to be ignored, says the XDG specification.
        assert_eq!(of(&[home, ("XDG_DATA_HOME", "data")]), of(&[home]));
        assert_eq!(of(&[home, ("SECATEUR_HISTORY", "h.sqlite")]), Some("h.sqlite".into()));
        assert_eq!(of(&[home, ("SECATEUR_HISTORY", "")]), of(&[home]));
        assert_eq!(of(&[home, ("SECATEUR_HISTORY", "none")]), None);
        assert_eq!(of(&[]), None);
    }
}
