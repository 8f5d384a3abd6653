//! Looking at what was recorded.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use crate::error::HistoryError;
use crate::policies::Policies;
use crate::store::History;

/// A run, in a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRow {
    /// Its number.
    pub id: i64,
    /// When it began, UTC.
    pub started: String,
    /// How far it is.
    pub status: String,
    /// Seconds that it took.
    pub wall_s: Option<f64>,
    /// The scene's agent.
    pub agent: Option<String>,
    /// Tasks.
    pub tasks: u64,
    /// Scored candidates, those of controls and repeated ones included.
    pub walks: u64,
    /// The run directory.
    pub directory: String,
}

/// A task of a run, and what its agent found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskRow {
    /// Name.
    pub name: String,
    /// Network.
    pub network: String,
    /// blake3 of its file.
    pub network_content: String,
    /// Data set.
    pub dataset: String,
    /// Scored candidates.
    pub walks: u64,
    /// Most that a walk was paid.
    pub reward: Option<f64>,
    /// Of the written network.
    pub macs: Option<u64>,
    /// As a share of the original's.
    pub macs_share: Option<f64>,
    /// Of the network as given, on the test split.
    pub test_accuracy_original: Option<f64>,
    /// After the last of final refit, polishing and fine-tuning.
    pub test_accuracy: Option<f64>,
    /// The written network's, against the dense one.
    pub test_output_error: Option<f64>,
}

/// All that one wants to know of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunDetails {
    /// The run.
    #[serde(flatten)]
    pub run: RunRow,
    /// The scene file.
    pub scene_file: Option<String>,
    /// Seed.
    pub seed: Option<u64>,
    /// Where walks were scored.
    pub device: Option<String>,
    /// Version of the program.
    pub program: Option<String>,
    /// blake3 of the program's file.
    pub build: Option<String>,
    /// Instruction set.
    pub instructions: Option<String>,
    /// The file of what was learned.
    pub policy: Option<PathBuf>,
    /// The tasks.
    pub results: Vec<TaskRow>,
}

const RUN_ROW: &str = "runs.id, started, status, wall_s, agent,
    (SELECT count(*) FROM tasks WHERE run = runs.id),
    (SELECT count(*) FROM walks JOIN tasks ON task = tasks.id WHERE run = runs.id), directory";

impl History {
    /// All runs, oldest first.
    ///
    /// # Errors
    /// A history that cannot be read.
    pub fn runs(&self) -> Result<Vec<RunRow>, HistoryError> {
        let of = |error: rusqlite::Error| self.error(&error);
        let sql = format!("SELECT {RUN_ROW} FROM runs ORDER BY started_s, id");
        let mut statement = self.connection.prepare(&sql).map_err(of)?;
        let rows = statement.query_map([], run_row).map_err(of)?;
        rows.collect::<rusqlite::Result<_>>().map_err(of)
    }

    /// The run with a number, or in a directory: of several that were there, the last.
    ///
    /// # Errors
    /// That there is none; a history that cannot be read.
    pub fn run(&self, run: &str) -> Result<RunDetails, HistoryError> {
        let absolute = std::path::absolute(run).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let resolved = std::fs::canonicalize(run).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let found = self
            .connection
            .query_row(
                "SELECT id FROM runs WHERE id = ?1 OR directory IN (?2, ?3, ?4) ORDER BY started_s DESC, id DESC LIMIT 1",
                params![run.parse::<i64>().ok(), run, absolute, resolved],
                |row| row.get::<_, i64>(0),
            )
            .optional();
        match found.map_err(|error| self.error(&error))? {
            Some(id) => self.details(id).map_err(|error| self.error(&error)),
            None => Err(HistoryError::NoRun { path: self.path.clone(), run: run.to_owned() }),
        }
    }

    fn details(&self, id: i64) -> rusqlite::Result<RunDetails> {
        let mut tasks = self.connection.prepare(
            "SELECT tasks.name, networks.name, networks.content, dataset,
                 (SELECT count(*) FROM walks WHERE task = tasks.id), (SELECT max(reward) FROM walks WHERE task = tasks.id),
                 results.macs, CAST(results.macs AS REAL) / networks.macs, test_accuracy_original,
                 coalesce(test_accuracy_after_tuning, test_accuracy_after_polish, test_accuracy), test_output_error
             FROM tasks JOIN networks ON networks.id = tasks.network
             LEFT JOIN results ON results.task = tasks.id AND is_control = 0
             WHERE run = ?1 ORDER BY tasks.id",
        )?;
        let results = tasks.query_map([id], task_row)?.collect::<rusqlite::Result<_>>()?;
        let sql = format!(
            "SELECT {RUN_ROW}, scene_file, seed, device, program, build, instructions, policy FROM runs WHERE id = ?1"
        );
        self.connection.query_row(&sql, [id], |row| {
            let policy: Option<String> = row.get(14)?;
            Ok(RunDetails {
                run: run_row(row)?,
                scene_file: row.get(8)?,
                seed: row.get::<_, Option<i64>>(9)?.map(|seed| seed as u64),
                device: row.get(10)?,
                program: row.get(11)?,
                build: row.get(12)?,
                instructions: row.get(13)?,
                policy: policy.map(|content| Policies::beside(&self.path).file(&content)),
                results,
            })
        })
    }
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: row.get(0)?,
        started: row.get(1)?,
        status: row.get(2)?,
        wall_s: row.get(3)?,
        agent: row.get(4)?,
        tasks: count(row.get(5)?),
        walks: count(row.get(6)?),
        directory: row.get(7)?,
    })
}

fn task_row(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    Ok(TaskRow {
        name: row.get(0)?,
        network: row.get(1)?,
        network_content: row.get(2)?,
        dataset: row.get(3)?,
        walks: count(row.get(4)?),
        reward: row.get(5)?,
        macs: row.get::<_, Option<i64>>(6)?.map(count),
        macs_share: row.get(7)?,
        test_accuracy_original: row.get(8)?,
        test_accuracy: row.get(9)?,
        test_output_error: row.get(10)?,
    })
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
