//! Files that are either the old or the new one, whatever happens in between.

use std::fs::{File, Permissions};
use std::io::Write;
use std::path::Path;

use crate::FormatError;

/// Writes `bytes` to `path`: under a temporary name in the same folder, synced, renamed over `path`, and the folder synced.
/// A crash or a full disk leaves what was there before.
///
/// # Errors
/// What the system refused, naming the file or folder; the temporary file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".tmp");
    let mode = new_file_permissions();
    if let Some(mode) = mode {
        builder.permissions(mode);
    }
    let mut file = builder.tempfile_in(folder).map_err(|e| FormatError::io("create a temporary file in", folder, e))?;
    file.write_all(bytes).map_err(|e| FormatError::io("write", path, e))?;
    file.as_file().sync_all().map_err(|e| FormatError::io("sync", path, e))?;
    file.persist(path).map_err(|e| FormatError::io("rename the temporary file to", path, e.error))?;
    sync_folder(folder)
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
