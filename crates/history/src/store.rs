//! Opening the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::error::HistoryError;
use crate::schema::{SCHEMA_VERSION, migrate, version};

/// How long is waited for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open history.
#[derive(Debug)]
pub struct History {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
}

impl History {
    /// Opens the history at `path`; makes it, and the folders that it lies in, if it is not there, and gives one of an
    /// earlier version the present tables.
    ///
    /// # Errors
    /// A file that is locked, damaged, read-only, of another program or of a later version.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| HistoryError::file(folder, error))?;
        }
        let mut history = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        // Before anything is changed: it may be another program's.
        version(&history.connection, path)?;
        history.prepare().map_err(|error| HistoryError::of(path, &error))?;
        migrate(&mut history.connection, path)?;
        Ok(history)
    }

    /// Opens a history that is there, to be looked at: as [`Self::open`], and one that may not be written, too.
    ///
    /// # Errors
    /// As [`Self::open`]; that there is none.
    pub fn open_existing(path: &Path) -> Result<Self, HistoryError> {
        if !path.exists() {
            return Err(HistoryError::Missing { path: path.to_owned() });
        }
        match Self::open(path) {
            Err(unwritable @ HistoryError::ReadOnly { .. }) => {
                let history = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                let is_present = version(&history.connection, path)? == SCHEMA_VERSION;
                if is_present { Ok(history) } else { Err(unwritable) }
            }
            opened => opened,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, HistoryError> {
        let of = |error: rusqlite::Error| HistoryError::of(path, &error);
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(of)?;
        connection.busy_timeout(PATIENCE).map_err(of)?;
        Ok(Self { connection, path: path.to_owned() })
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        // Readers do not wait for the writer then. Where the file system cannot do that, SQLite stays as it was.
        self.connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        // Whole after a crash of the program in any case; a power cut may cost the last runs.
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        self.connection.pragma_update(None, "foreign_keys", true)
    }

    /// What SQLite says, as an error of this history.
    pub(crate) fn error(&self, error: &rusqlite::Error) -> HistoryError {
        HistoryError::of(&self.path, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{RunRecord, RunStatus};

    fn run(n_bytes: usize) -> RunRecord {
        RunRecord {
            key: "k".into(),
            metrics: None,
            directory: "d".into(),
            status: RunStatus::Unfinished,
            started_s: 0.0,
            wall_s: None,
            scene_file: None,
            scene: "x".repeat(n_bytes),
            seed: None,
            agent: None,
            reward: None,
            scheduler: None,
            device: None,
            precision: None,
            program: None,
            build: None,
            instructions: None,
            candidates_scored: None,
            known_scores: None,
            networks: Vec::new(),
            tasks: Vec::new(),
            policy: None,
        }
    }

    #[test]
    fn a_disk_that_is_full_is_told_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(&dir.path().join("h")).unwrap();
        history.record(&run(10)).unwrap();
        history.connection.pragma_update(None, "max_page_count", 40).unwrap();
        let full = history.record(&run(1 << 20)).unwrap_err();
        assert!(matches!(full, HistoryError::Full { .. }) && full.to_string().contains("prune"), "{full}");
        assert_eq!(history.runs().unwrap().len(), 1);
        history.record(&run(20)).unwrap();
    }

    #[test]
    fn a_history_that_another_holds_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h");
        let mut history = History::open(&path).unwrap();
        history.connection.busy_timeout(Duration::from_millis(20)).unwrap();
        let other = History::open(&path).unwrap();
        other.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let locked = history.record(&run(1)).unwrap_err();
        assert!(matches!(locked, HistoryError::Locked { .. }), "{locked}");
        // Readers do not wait.
        assert!(history.runs().unwrap().is_empty());
        other.connection.execute_batch("COMMIT").unwrap();
        history.record(&run(1)).unwrap();
    }

    #[test]
    fn a_connection_that_may_not_write_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(&dir.path().join("h")).unwrap();
        history.connection.pragma_update(None, "query_only", true).unwrap();
        let refused = history.record(&run(1)).unwrap_err();
        assert!(matches!(refused, HistoryError::ReadOnly { .. }), "{refused}");
    }
}
