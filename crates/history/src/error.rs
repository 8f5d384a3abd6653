//! Why a history cannot be used, and what to do about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why a history cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// A file that a later program wrote.
    #[error(
        "history '{}' has tables of version {found}, this program knows those up to {known}; use a newer program, or \
         name another file with --history",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The last one that is known here.
        known: u32,
    },
    /// A data base of another program.
    #[error("'{}' is a data base of another program; name another file with --history", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds it for longer than is waited.
    #[error("history '{}' is in use by another process, which holds it for too long; try again", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder may not be written.
    #[error("history '{}' may not be written; see to its permissions, or name another file with --history", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// No room is left.
    #[error("history '{}' cannot grow: the disk is full; free some room, or `secateur history prune`", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// It is no data base, or not a whole one.
    #[error(
        "history '{}' is damaged ({what}); move it away and a new one is begun, or try `sqlite3 FILE .recover`",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// Nothing was recorded yet.
    #[error("there is no history '{}' yet: `secateur run` begins it, and `secateur history import RUN` adds earlier runs", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No run is known by that name.
    #[error("history '{}' has no run '{run}'; `secateur history list` shows what there is", path.display())]
    NoRun {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        run: String,
    },
    /// No snapshot is known by that name.
    #[error(
        "history '{}' has no snapshot '{snapshot}': it is none of this history, or some of its runs were forgotten since; \
         the name stands under `history` in summary.json of the run that is to be repeated",
        path.display()
    )]
    NoSnapshot {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        snapshot: String,
    },
    /// All else that a data base may say.
    #[error("history '{}': {what}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// A file beside it, or a folder, cannot be used.
    #[error("'{}': {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
}

impl HistoryError {
    /// What SQLite says of the history at `path`.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let (path, what) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { path, what },
            _ => Self::Sql { path, what },
        }
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: &Path, error: impl ToString) -> Self {
        Self::File { path: path.to_owned(), what: error.to_string() }
    }
}
