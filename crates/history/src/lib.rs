//! What was run, and what came of it: one SQLite file that every run adds to, and that any program can read.
//!
//! [`History::open`] makes or opens the file, and gives one of an earlier version its present form; several processes
//! may have it open. [`History::record`] writes a [`RunRecord`], in place of what was known of the same run;
//! [`History::runs`] and [`History::run`] read, [`History::export`] writes tables of text, [`History::prune`]
//! forgets. Knows SQL and no run directory.
//!
#![doc = include_str!("../TABLES.md")]

mod error;
mod export;
mod policies;
mod prune;
mod read;
mod record;
mod records;
mod schema;
mod scores;
mod store;

pub use error::HistoryError;
pub use prune::Pruned;
pub use read::{RunDetails, RunRow, TaskRow};
pub use records::{
    BoundRecord, CertificateRecord, GroupRecord, LayerRecord, NetworkRecord, ResultRecord, RunRecord, RunStatus,
    TaskRecord, WalkRecord,
};
pub use schema::{SCHEMA_VERSION, TABLES};
pub use scores::StoredScore;
pub use store::History;
