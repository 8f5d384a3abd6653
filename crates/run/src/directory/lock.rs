//! The lock of a run directory: one run at a time writes there. The system releases it when the process ends, however
//! it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::entries::{FileId, check_file};

/// The locked file, which holds the id of the process. It is removed when the run ends; one that a killed process left
/// is no lock.
pub(crate) const LOCK_FILE: &str = ".lock";
/// Longest id that is read.
const ID_BYTES_MAX: u64 = 32;
/// Tries to lock a file that its last holder removes meanwhile.
const N_TRIES: usize = 100;

/// A run directory of this process.
#[derive(Debug)]
pub(crate) struct RunLock {
    directory: PathBuf,
    /// Of the directory, wherever a link to it leads.
    id: FileId,
    /// Locked as long as it is open.
    _file: File,
    file_id: FileId,
    /// Folders that were not there before, the deepest last; removed again unless a run begins in them.
    made: Vec<PathBuf>,
    /// What there is to be said about a file system that has no locks.
    pub(crate) warning: Option<String>,
}

impl RunLock {
    /// Takes `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// Another run holds it; it cannot be made or written to.
    pub(crate) fn take(directory: &Path) -> anyhow::Result<Self> {
        let mut made = missing(directory);
        let at = || format!("run directory '{}'", directory.display());
        let locked = std::fs::create_dir_all(directory).with_context(at).and_then(|()| lock(directory));
        let held = locked.and_then(|(file, warning)| {
            let id = FileId::of(&std::fs::metadata(directory).with_context(at)?);
            let file_id = FileId::of(&file.metadata().with_context(at)?);
            Ok((file, warning, id, file_id))
        });
        match held {
            Ok((file, warning, id, file_id)) => {
                Ok(Self { directory: directory.to_owned(), id, _file: file, file_id, made, warning })
            }
            Err(error) => {
                remove_empty(&mut made);
                Err(error)
            }
        }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the directory, whatever becomes of the run.
    pub(crate) fn keep(&mut self) {
        self.made.clear();
    }

    /// Whether the directory is still there and still this process's.
    ///
    /// # Errors
    /// Says that it is not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let name = self.directory.display();
        let is_there = std::fs::metadata(&self.directory).is_ok_and(|metadata| FileId::of(&metadata) == self.id);
        ensure!(
            is_there,
            "run directory '{name}' was removed or replaced while the run was going on: what was written there is lost, \
             start anew"
        );
        ensure!(
            self.file_id.is_at(&self.directory.join(LOCK_FILE)),
            "the lock '{}' was removed while the run was going on, so that another may write there: go on with --resume",
            self.directory.join(LOCK_FILE).display()
        );
        Ok(())
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        let path = self.directory.join(LOCK_FILE);
        // Removed while the lock is still held: a process that opened the file meanwhile finds that it is gone, and
        // tries again.
        if self.file_id.is_at(&path) {
            let _ = std::fs::remove_file(path);
        }
        remove_empty(&mut self.made);
    }
}

/// Folders on the way to `path` that are not there, the deepest last.
fn missing(path: &Path) -> Vec<PathBuf> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && std::fs::symlink_metadata(path).is_err();
    let mut out: Vec<PathBuf> = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
    out.reverse();
    out
}

/// Folders with something in them stay.
fn remove_empty(made: &mut Vec<PathBuf>) {
    while let Some(folder) = made.pop() {
        let _ = std::fs::remove_dir(folder);
    }
}

/// The locked file with the id of this process in it, and a warning where there are no locks.
fn lock(directory: &Path) -> anyhow::Result<(File, Option<String>)> {
    let path = directory.join(LOCK_FILE);
    let at = || format!("run directory '{}' cannot be written to", directory.display());
    for _ in 0..N_TRIES {
        check_file(&path)?;
        let mut options = OpenOptions::new();
        let mut file = match options.read(true).write(true).create(true).truncate(false).open(&path) {
            // A run that was refused has just removed the directory that it had made.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(directory).with_context(at)?;
                continue;
            }
            opened => opened.with_context(at)?,
        };
        let warning = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => bail!(in_use(directory, &mut file)),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Some(format!(
                "the file system of '{}' has no locks ({error}); see to it that no other run goes on there",
                directory.display()
            )),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock '{}'", path.display()));
            }
        };
        if FileId::of(&file.metadata()?).is_at(&path) {
            // Only for the message to others: a full disk is no reason to stop here.
            let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
            return Ok((file, warning));
        }
    }
    bail!("run directory '{}': its lock is replaced again and again; try again", directory.display())
}

/// The refusal when another process holds the lock.
fn in_use(directory: &Path, file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(ID_BYTES_MAX).read_to_string(&mut text);
    let id: Option<u32> = read.ok().and_then(|_| text.trim().parse().ok());
    let who = id.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
    format!(
        "run directory '{}' is in use: {who} runs there; wait for it or stop it, or name another directory with --out",
        directory.display()
    )
}

fn has_no_locks(error: &std::io::Error) -> bool {
    // ENOSYS and EOPNOTSUPP have this kind; ENOLCK, which NFS without its lock service gives, has none of its own.
    const ENOLCK: i32 = if cfg!(target_os = "linux") { 37 } else { 77 };
    error.kind() == ErrorKind::Unsupported || (cfg!(unix) && error.raw_os_error() == Some(ENOLCK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_is_held_once_and_free_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::take(dir.path()).unwrap();
        let refusal = RunLock::take(dir.path()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        assert!(refusal.contains(&dir.path().display().to_string()) && refusal.contains("--out"), "{refusal}");
        drop(first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        RunLock::take(dir.path()).unwrap().check().unwrap();
    }

    #[test]
    fn folders_made_for_a_run_that_does_not_begin_go_again() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        drop(RunLock::take(&deep).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut kept = RunLock::take(&deep).unwrap();
        kept.keep();
        drop(kept);
        assert!(deep.is_dir());
        // Folders in which another process has begun something stay.
        let held = RunLock::take(&dir.path().join("x/y")).unwrap();
        fs::write(dir.path().join("x/mine"), "1").unwrap();
        drop(held);
        assert!(dir.path().join("x/mine").exists() && !dir.path().join("x/y").exists());
    }

    #[test]
    fn of_many_threads_one_at_a_time_holds_a_directory_that_comes_and_goes() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let dir = tempfile::tempdir().unwrap();
        let (holders, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(lock) = RunLock::take(dir.path()) else { continue };
                        assert_eq!(holders.fetch_add(1, SeqCst), 0, "two hold it");
                        turns.fetch_add(1, SeqCst);
                        lock.check().unwrap();
                        holders.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert!(turns.load(SeqCst) > 100, "{turns:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_is_gone_or_another_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut lock = RunLock::take(&out).unwrap();
        lock.keep();
        fs::rename(&out, dir.path().join("moved")).unwrap();
        assert!(lock.check().unwrap_err().to_string().contains("was removed or replaced"));
        let other = RunLock::take(&out).unwrap();
        assert!(lock.check().is_err() && other.check().is_ok());
        drop(lock);
        assert!(other.check().is_ok(), "the lock of another went with the first");
        fs::remove_file(out.join(LOCK_FILE)).unwrap();
        assert!(other.check().unwrap_err().to_string().contains("go on with --resume"));
    }

    #[test]
    fn what_cannot_be_a_run_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = format!("{:#}", RunLock::take(&path).unwrap_err());
            assert!(error.contains(&format!("run directory '{}'", path.display())), "{error}");
        }
        assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    }
}
