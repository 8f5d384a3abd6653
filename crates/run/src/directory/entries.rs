//! What may lie in a run directory. Nothing is read or written through a link, a pipe or a device there: it could lead
//! to a file of the user's.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use secateur_formats::is_temporary_name;

/// Files of a run directory.
pub(crate) const FILES: [&str; 9] = [
    "scene.ron",
    "metrics.jsonl",
    "log.txt",
    CURVES_FILE,
    SOURCES_FILE,
    TASK_CURVES_FILE,
    POLICY_FILE,
    "summary.json",
    REPORT_FILE,
];
/// What every group's readers lose while its channels go, as the run measured it before it searched.
pub(crate) const CURVES_FILE: &str = "error_curves.json";
/// What the run learns of earlier ones, as it was when it began.
pub(crate) const SOURCES_FILE: &str = "history.sources";
/// What the channel groups of its tasks lose at the widths that are offered, for later runs to learn from.
pub(crate) const TASK_CURVES_FILE: &str = "task_curves.json";
/// What `report` says of the run, as a page; no run reads it.
pub const REPORT_FILE: &str = "report.html";
/// What the agent of a run has learned at the end of its search, as [`secateur_rl::Learner::save`] writes it.
pub(crate) const POLICY_FILE: &str = "policy.safetensors";
/// Folders of a run directory.
pub(crate) const FOLDERS: [&str; 2] = ["tasks", "checkpoints"];
/// Files of a task's folder.
const TASK_FILES: [&str; 6] =
    ["model.safetensors", "certificate.json", ONNX_FILE, ONNX_DATA_FILE, PLAN_FILE, CUT_SCRIPT_FILE];
/// A task's network as an ONNX model, and what that keeps outside itself.
pub(crate) const ONNX_FILE: &str = "model.onnx";
pub(crate) const ONNX_DATA_FILE: &str = "model.onnx.data";
/// What was removed, and the Python file that removes the same from a PyTorch module.
pub(crate) const PLAN_FILE: &str = "plan.json";
pub(crate) const CUT_SCRIPT_FILE: &str = "cut.py";
/// What is written whole beside a task's network.
pub(crate) const BESIDE_NETWORK: [&str; 4] = [ONNX_FILE, ONNX_DATA_FILE, PLAN_FILE, CUT_SCRIPT_FILE];
/// Longer first lines are not those of `metrics.jsonl`.
const FIRST_LINE_BYTES_MAX: u64 = 64 << 10;

/// A file in a task's folder, to be written.
pub(crate) struct TaskFile {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Identity of a file or folder, which another one that took its place does not have; where the system has none, all
/// are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(metadata.dev(), metadata.ino())
    }

    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Self {
        Self(0, 0)
    }

    /// Whether it still is what stands at `path`, where a link is not followed.
    pub(crate) fn is_at(self, path: &Path) -> bool {
        std::fs::symlink_metadata(path).is_ok_and(|metadata| Self::of(&metadata) == self)
    }
}

/// What stands at a path, for messages.
pub(crate) fn kind(of: FileType) -> &'static str {
    if of.is_symlink() {
        "a symbolic link"
    } else if of.is_dir() {
        "a folder"
    } else if of.is_file() {
        "a regular file"
    } else {
        "a pipe, a socket or a device"
    }
}

/// Refuses everything but a regular file, and nothing.
pub(crate) fn check_file(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("'{}'", path.display())),
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(metadata) => bail!(refusal(path, metadata.file_type(), "a regular file")),
    }
}

/// Refuses everything but a folder, and nothing.
fn check_folder(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("'{}'", path.display())),
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(metadata) => bail!(refusal(path, metadata.file_type(), "a folder")),
    }
}

fn refusal(path: &Path, got: FileType, expected: &str) -> String {
    format!("'{}' is {}, expected {expected}; nothing is written through it: remove it", path.display(), kind(got))
}

/// Sees to a folder at `path`, which is no link to one elsewhere.
pub(crate) fn make_folder(path: &Path) -> anyhow::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_folder(path),
        made => made.with_context(|| format!("create folder '{}'", path.display())),
    }
}

/// Opens a file to be written, making it if there is none. What is there stays there.
pub(crate) fn open_to_write(path: &Path, options: &mut OpenOptions) -> anyhow::Result<File> {
    let at = || format!("open '{}'", path.display());
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.with_context(at),
    }
    check_file(path)?;
    let file = options.open(path).with_context(at)?;
    let opened = file.metadata().with_context(at)?;
    ensure!(FileId::of(&opened).is_at(path), "'{}' was replaced while it was opened; try again", path.display());
    Ok(file)
}

/// Opens the regular file `path` to be read, and returns its length.
pub(crate) fn open_to_read(path: &Path) -> anyhow::Result<(File, u64)> {
    // Before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::symlink_metadata(path)?;
    ensure!(metadata.is_file(), "it is {}, expected a regular file", kind(metadata.file_type()));
    let file = File::open(path)?;
    ensure!(FileId::of(&file.metadata()?).is_at(path), "it was replaced while it was opened");
    Ok((file, metadata.len()))
}

/// The first line of a file, if that is short and text; empty if the file is.
pub(crate) fn first_line(path: &Path) -> Option<String> {
    let (file, _) = open_to_read(path).ok()?;
    let mut bytes = Vec::new();
    file.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let is_whole = line.len() < bytes.len() || (bytes.len() as u64) < FIRST_LINE_BYTES_MAX;
    String::from_utf8(line.to_vec()).ok().filter(|_| is_whole)
}

/// Refuses a run directory in which something stands in the place of a run's files and folders. `tasks` are the folders
/// that the run will write to.
pub(crate) fn check_entries<'t>(directory: &Path, tasks: impl Iterator<Item = &'t str>) -> anyhow::Result<()> {
    FILES.iter().try_for_each(|file| check_file(&directory.join(file)))?;
    FOLDERS.iter().try_for_each(|folder| check_folder(&directory.join(folder)))?;
    for task in tasks {
        let folder = directory.join("tasks").join(task);
        check_folder(&folder)?;
        TASK_FILES.iter().try_for_each(|file| check_file(&folder.join(file)))?;
    }
    Ok(())
}

/// Removes what a killed process left under temporary names. Nobody else writes here while the directory's lock is
/// held.
pub(crate) fn remove_temporary<'t>(directory: &Path, tasks: impl Iterator<Item = &'t str>) {
    let folders = FOLDERS.iter().map(|folder| directory.join(folder));
    let of_tasks = tasks.map(|task| directory.join("tasks").join(task));
    for folder in folders.chain(of_tasks).chain([directory.to_owned()]) {
        let is_folder = std::fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_dir());
        let Some(entries) = is_folder.then(|| std::fs::read_dir(&folder).ok()).flatten() else { continue };
        for entry in entries.flatten() {
            let is_left = entry.file_name().to_str().is_some_and(is_temporary_name);
            if is_left && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                // A temporary file that cannot be removed does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn temporary_files_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let task = dir.path().join("tasks/a");
        fs::create_dir_all(&task).unwrap();
        fs::create_dir(dir.path().join(".folder.tmp")).unwrap();
        let left = [dir.path().join(".x1.tmp"), task.join(".x2.tmp")];
        let kept = [dir.path().join("notes.tmp"), task.join("model.safetensors")];
        left.iter().chain(&kept).for_each(|file| fs::write(file, "1").unwrap());
        remove_temporary(dir.path(), ["a", "absent"].into_iter());
        assert!(left.iter().all(|file| !file.exists()) && kept.iter().all(|file| file.exists()));
        assert!(dir.path().join(".folder.tmp").exists());
    }

    #[test]
    fn first_lines_are_read_without_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("metrics.jsonl");
        let of = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            first_line(&file)
        };
        assert_eq!(of(b"{}\nrest"), Some("{}".to_owned()));
        assert_eq!((of(b""), of(b"no end")), (Some(String::new()), Some("no end".to_owned())));
        assert_eq!((of(&[0xff, b'\n']), of(&vec![b'x'; FIRST_LINE_BYTES_MAX as usize])), (None, None));
        OpenOptions::new().write(true).open(&file).unwrap().set_len(3 << 30).unwrap();
        assert_eq!(first_line(&file), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, link) = (dir.path().join("precious"), dir.path().join("log.txt"));
        fs::write(&precious, "mine").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        let error = open_to_write(&link, OpenOptions::new().append(true)).unwrap_err().to_string();
        assert!(error.contains("log.txt' is a symbolic link, expected a regular file"), "{error}");
        assert!(open_to_read(&link).is_err() && open_to_read(&precious).is_ok());
        let folder = dir.path().join("tasks");
        std::os::unix::fs::symlink(dir.path(), &folder).unwrap();
        assert!(make_folder(&folder).unwrap_err().to_string().contains("is a symbolic link, expected a folder"));
        // A link to nothing is one, too.
        let dangling = dir.path().join("metrics.jsonl");
        std::os::unix::fs::symlink(dir.path().join("absent"), &dangling).unwrap();
        assert!(open_to_write(&dangling, OpenOptions::new().write(true)).is_err());
        assert!(!dir.path().join("absent").exists());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    }
}
