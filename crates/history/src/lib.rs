//! What was run, and what came of it: one SQLite file that every run adds to, and that any program can read.
//!
//! [`History::open`] makes or opens the file, and gives one of an earlier version its present form; several processes
//! may have it open. [`History::record`] writes a [`RunRecord`], in place of what was known of the same run;
//! [`History::runs`] and [`History::run`] read, [`History::export`] writes tables of text, [`History::prune`]
//! forgets. Knows SQL and no run directory.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use secateur_history::History;
//!
//! let history = History::open_existing(Path::new("history.sqlite"))?;
//! for run in history.runs()? {
//!     println!("{} {}: {} walks in {}", run.started, run.status, run.walks, run.directory);
//!     for task in history.run(&run.id.to_string())?.results {
//!         println!("  {}: {:?} of the MACs, test accuracy {:?}", task.name, task.macs_share, task.test_accuracy);
//!     }
//! }
//! # Ok::<(), secateur_history::HistoryError>(())
//! ```
//!
//! Words are explained in the glossary of `secateur-net`.
//!
#![doc = include_str!("../TABLES.md")]

mod error;
mod export;
mod found;
mod policies;
mod prune;
mod read;
mod record;
mod records;
mod schema;
mod scores;
mod sources;
mod store;

pub use error::HistoryError;
pub use found::FoundRow;
pub use prune::Pruned;
pub use read::{RunDetails, RunRow, TaskRow};
pub use records::{
    BoundRecord, CertificateRecord, CurveRecord, GroupRecord, LayerRecord, NetworkRecord, ResultRecord, RunRecord,
    RunStatus, TaskRecord, WalkRecord,
};
pub use schema::{SCHEMA_VERSION, TABLES};
pub use scores::StoredScore;
pub use sources::{Snapshot, StoredTask, StoredWalk};
pub use store::History;
