//! Files that are either the old or the new one, whatever happens in between.

use std::fs::{File, Permissions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::FormatError;

/// How the names of files begin and end until they are renamed.
const TEMPORARY: (&str, &str) = (".", ".tmp");

/// A whole file under a temporary name in the folder where it will stand, synced. Dropped, it is removed: nothing has
/// changed then.
///
/// # Example
/// ```
/// use secateur_formats::StagedFile;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("summary.json");
/// let staged = StagedFile::new(&path, b"{}")?;
/// assert!(!path.exists());
/// staged.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StagedFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl StagedFile {
    /// Writes `bytes`, which are to stand at `path`.
    ///
    /// # Errors
    /// What the system refused, naming the file or folder; the temporary file is removed.
    pub fn new(path: &Path, bytes: &[u8]) -> Result<Self, FormatError> {
        let folder = folder_of(path);
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
        let mode = new_file_permissions();
        if let Some(mode) = mode {
            builder.permissions(mode);
        }
        let mut file =
            builder.tempfile_in(folder).map_err(|e| FormatError::io("create a temporary file in", folder, e))?;
        file.write_all(bytes).map_err(|e| FormatError::io("write", path, e))?;
        file.as_file().sync_all().map_err(|e| FormatError::io("sync", path, e))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Where the bytes are until [`Self::commit`].
    pub fn staged_at(&self) -> &Path {
        self.file.path()
    }

    /// Renames the file to its place, over what is there (a symbolic link is replaced, not followed), and syncs the
    /// folder.
    ///
    /// # Errors
    /// What the system refused, naming the file or folder.
    pub fn commit(self) -> Result<(), FormatError> {
        let Self { file, path } = self;
        file.persist(&path).map_err(|e| FormatError::io("rename the temporary file to", &path, e.error))?;
        sync_folder(folder_of(&path))
    }
}

/// Writes `bytes` to `path`: under a temporary name in the same folder, synced, renamed over `path`, and the folder
/// synced. A crash or a full disk leaves what was there before.
///
/// # Errors
/// What the system refused, naming the file or folder; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    StagedFile::new(path, bytes)?.commit()
}

/// Whether a file of this name is one that a killed process left before it was renamed.
pub fn is_temporary_name(name: &str) -> bool {
    name.len() > TEMPORARY.0.len() + TEMPORARY.1.len() && name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Temporary files are private by default; what a run writes is as readable as any new file (the umask still applies).
fn new_file_permissions() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    None
}

/// Makes the rename itself durable; only Unix can open a folder for that.
fn sync_folder(folder: &Path) -> Result<(), FormatError> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| FormatError::io("sync folder", folder, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["summary.json"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = write_atomic(&dir.path().join("absent/x"), b"1").unwrap_err().to_string();
        assert!(message.contains("absent") && message.contains("temporary"), "{message}");
    }

    #[test]
    fn a_folder_in_the_way_is_named_and_the_temporary_file_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        let message = write_atomic(&path, b"1").unwrap_err().to_string();
        assert!(message.contains("taken"), "{message}");
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn a_staged_file_that_is_dropped_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        write_atomic(&path, b"old").unwrap();
        let staged = StagedFile::new(&path, b"new").unwrap();
        assert_eq!(fs::read(staged.staged_at()).unwrap(), b"new");
        let left = staged.staged_at().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(is_temporary_name(&left) && !is_temporary_name("model") && !is_temporary_name(".tmp"), "{left}");
        drop(staged);
        assert_eq!((fs::read(&path).unwrap(), names(dir.path())), (b"old".to_vec(), vec!["model".to_owned()]));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_what_it_points_at_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (link, precious) = (dir.path().join("link"), dir.path().join("precious"));
        fs::write(&precious, b"mine").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!((fs::read(&link).unwrap(), fs::read(&precious).unwrap()), (b"new".to_vec(), b"mine".to_vec()));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_any_other_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (atomic, plain) = (dir.path().join("a"), dir.path().join("b"));
        write_atomic(&atomic, b"1").unwrap();
        fs::write(&plain, b"1").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&atomic), mode(&plain));
    }
}
