//! Where networks and data are looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use secateur_formats::{weight_extensions, weight_extensions_usage};

/// The folders that names are relative to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Holds data sets, such as `cifar-10-batches-bin`.
    pub data: PathBuf,
    /// Holds networks.
    pub models: PathBuf,
    /// Folder of the scene file; `./x` and `../x` in a scene are relative to it.
    pub scene_dir: PathBuf,
}

impl Roots {
    /// The roots given, else those of `$SECATEUR_DATA` and `$SECATEUR_MODELS`, else `./data` and `./models`.
    pub fn new(data: Option<PathBuf>, models: Option<PathBuf>, scene_dir: PathBuf) -> Self {
        let root = |given: Option<PathBuf>, variable: &str, default: &str| {
            let set = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
            given.or(set).unwrap_or_else(|| default.into())
        };
        Self { data: root(data, "SECATEUR_DATA", "data"), models: root(models, "SECATEUR_MODELS", "models"), scene_dir }
    }

    /// The file of a network as a scene spells it: `./x` and `../x` are relative to the scene, an absolute path is
    /// taken as is, anything else lies under the model root. The extension may be left out.
    ///
    /// # Errors
    /// When there is no such file, with the places looked at.
    pub fn find_in_scene(&self, file: &str) -> anyhow::Result<PathBuf> {
        let is_relative = file.starts_with("./") || file.starts_with("../");
        let beside = file.strip_prefix("./").unwrap_or(file);
        let path = if is_relative { self.scene_dir.join(beside) } else { self.models.join(file) };
        match existing(&path) {
            Some(found) => Ok(found),
            None if is_relative || Path::new(file).is_absolute() => bail!(not_found(file, &[&path])),
            None => {
                bail!("{}; set --model-root or SECATEUR_MODELS to the folder that has it", not_found(file, &[&path]))
            }
        }
    }

    /// The file of a network as the command line spells it: a path, or a name under the model root.
    ///
    /// # Errors
    /// When there is no such file, with the places looked at.
    pub fn find_network(&self, path_or_name: &Path) -> anyhow::Result<PathBuf> {
        let in_root = self.models.join(path_or_name);
        if let Some(found) = existing(path_or_name).or_else(|| existing(&in_root)) {
            return Ok(found);
        }
        let mut tried: Vec<&Path> = vec![path_or_name];
        if in_root != path_or_name {
            tried.push(&in_root);
        }
        bail!(
            "{}; give a path, or set --model-root or SECATEUR_MODELS to the folder that has it",
            not_found(&path_or_name.to_string_lossy(), &tried)
        )
    }
}

/// `path` if it is there, else with one of the extensions.
fn existing(path: &Path) -> Option<PathBuf> {
    let with = |extension: &str| {
        let mut name = OsString::from(path);
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    };
    // A folder such as `resnet20/` beside `resnet20.pth` is not the network. A device or a pipe is what was named, and
    // is refused as such by whoever reads it.
    let is_there = |candidate: &PathBuf| candidate.exists() && !candidate.is_dir();
    std::iter::once(path.to_owned()).chain(weight_extensions().into_iter().map(with)).find(is_there)
}

fn not_found(name: &str, tried: &[&Path]) -> String {
    let kind = |path: &Path| if path.is_dir() { " (a folder)" } else { "" };
    let tried: Vec<String> = tried.iter().map(|path| format!("'{}'{}", path.display(), kind(path))).collect();
    let extensions = weight_extensions_usage();
    format!("network '{name}' not found: no file {} (nor with {extensions} behind it)", tried.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn scene_files_are_found_beside_the_scene_under_the_model_root_or_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (models, scenes) = (dir.path().join("models"), dir.path().join("scenes"));
        fs::create_dir_all(scenes.join("deep")).unwrap();
        fs::create_dir_all(models.join("a")).unwrap();
        for file in ["models/a.pth", "models/b.th", "scenes/c.safetensors", "scenes/a.pth"] {
            fs::write(dir.path().join(file), b"x").unwrap();
        }
        let roots = Roots { data: "d".into(), models: models.clone(), scene_dir: scenes.join("deep") };
        // `models/a` is a folder, which is passed over.
        assert_eq!(roots.find_in_scene("a").unwrap(), models.join("a.pth"));
        assert_eq!(roots.find_in_scene("b.th").unwrap(), models.join("b.th"));
        assert_eq!(roots.find_in_scene("../c").unwrap(), scenes.join("deep").join("../c.safetensors"));
        let absolute = scenes.join("a.pth");
        assert_eq!(roots.find_in_scene(absolute.to_str().unwrap()).unwrap(), absolute);
        let missing = roots.find_in_scene("c").unwrap_err().to_string();
        assert!(missing.contains("models") && missing.contains("--model-root"), "{missing}");
        let missing = roots.find_in_scene("./c").unwrap_err().to_string();
        assert!(missing.contains("deep") && !missing.contains("--model-root"), "{missing}");
    }

    #[test]
    fn command_line_networks_are_paths_first_and_names_second() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("net.safetensors"), b"x").unwrap();
        let roots = Roots { data: "d".into(), models: dir.path().into(), scene_dir: PathBuf::new() };
        let file = dir.path().join("net.safetensors");
        assert_eq!(roots.find_network(Path::new("net")).unwrap(), file);
        assert_eq!(roots.find_network(&file).unwrap(), file);
        let missing = roots.find_network(Path::new("absent")).unwrap_err().to_string();
        assert!(missing.contains("'absent'") && missing.contains(".safetensors"), "{missing}");
    }
}
