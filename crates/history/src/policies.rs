//! What agents learned, in files beside the history that are named by their content.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::HistoryError;

/// Ending of their names.
const EXTENSION: &str = "safetensors";

/// The folder of a history's policies.
pub(crate) struct Policies(PathBuf);

impl Policies {
    /// `<name of the history>.policies`.
    pub(crate) fn beside(history: &Path) -> Self {
        let mut name = history.file_stem().unwrap_or_default().to_owned();
        name.push(".policies");
        Self(history.with_file_name(name))
    }

    /// Keeps a policy; returns its blake3.
    pub(crate) fn keep(&self, bytes: &[u8]) -> Result<String, HistoryError> {
        let content = blake3::hash(bytes).to_hex().to_string();
        let file = self.file(&content);
        // A file that was cut short by a full disk is written again.
        if std::fs::read(&file).is_ok_and(|there| there == bytes) {
            return Ok(content);
        }
        std::fs::create_dir_all(&self.0).map_err(|error| HistoryError::file(&self.0, error))?;
        let aside = self.0.join(format!("{content}.{}.new", std::process::id()));
        let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, &file));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&aside);
            HistoryError::file(&file, error)
        })?;
        Ok(content)
    }

    pub(crate) fn file(&self, content: &str) -> PathBuf {
        self.0.join(format!("{content}.{EXTENSION}"))
    }

    /// Removes those of our files that are not `wanted`; returns how many.
    pub(crate) fn keep_only(&self, wanted: &BTreeSet<String>) -> usize {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return 0 };
        let is_content = |stem: &str| stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
        let unwanted = entries.flatten().map(|entry| entry.path()).filter(|path| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            path.extension().is_some_and(|e| e == EXTENSION) && is_content(stem) && !wanted.contains(stem)
        });
        unwanted.filter(|path| std::fs::remove_file(path).is_ok()).count()
    }
}
