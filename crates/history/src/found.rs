//! What was found for every network and budget, over all runs.

use rusqlite::Row;
use serde::Serialize;

use crate::error::HistoryError;
use crate::store::History;

/// A network that a run's agent or a control found for a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundRow {
    /// Number of the run.
    pub run: i64,
    /// The network as the run's scene names it.
    pub network: String,
    /// blake3 of its file; empty where that is not known.
    pub network_content: String,
    /// The data set as the scene names it.
    pub dataset: String,
    /// blake3 of what its files hold.
    pub dataset_content: Option<String>,
    /// What the written network must not exceed: `macs at most 20277824 and params at most 120000`.
    pub budget: String,
    /// Whose it is.
    pub agent: String,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Of the original.
    pub macs_original: Option<u64>,
    /// Of the original, on the test split.
    pub test_accuracy_original: Option<f64>,
    /// After the last of final refit, polishing and fine-tuning.
    pub test_accuracy: Option<f64>,
    /// Of the written network, against the dense one.
    pub test_output_error: Option<f64>,
}

/// The original's accuracy stands with the result of the scene's agent.
const FOUND: &str = "
    SELECT tasks.run, networks.name, networks.content, tasks.dataset, tasks.dataset_content,
        coalesce((SELECT group_concat(bound, ' and ') FROM (
            SELECT kind || ' at most ' || coalesce(max, round(100 * ratio, 2) || ' %') AS bound
            FROM budgets WHERE budgets.task = tasks.id ORDER BY kind)), ''),
        results.agent, results.macs, networks.macs,
        (SELECT max(test_accuracy_original) FROM results AS own WHERE own.task = tasks.id),
        coalesce(test_accuracy_after_tuning, test_accuracy_after_polish, test_accuracy), test_output_error
    FROM results JOIN tasks ON tasks.id = results.task JOIN networks ON networks.id = tasks.network
    JOIN runs ON runs.id = tasks.run
    ORDER BY started_s, tasks.run, tasks.id, is_control, results.agent";

impl History {
    /// The networks of all runs, in the order in which the runs began; the scene's agent before its controls.
    ///
    /// # Errors
    /// A history that cannot be read.
    pub fn found(&self) -> Result<Vec<FoundRow>, HistoryError> {
        let of = |error: rusqlite::Error| self.error(&error);
        let mut statement = self.connection.prepare(FOUND).map_err(of)?;
        let rows = statement.query_map([], found_row).map_err(of)?;
        rows.collect::<rusqlite::Result<_>>().map_err(of)
    }
}

fn found_row(row: &Row<'_>) -> rusqlite::Result<FoundRow> {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(FoundRow {
        run: row.get(0)?,
        network: row.get(1)?,
        network_content: row.get(2)?,
        dataset: row.get(3)?,
        dataset_content: row.get(4)?,
        budget: row.get(5)?,
        agent: row.get(6)?,
        macs: count(row.get(7)?),
        macs_original: row.get::<_, Option<i64>>(8)?.map(count),
        test_accuracy_original: row.get(9)?,
        test_accuracy: row.get(10)?,
        test_output_error: row.get(11)?,
    })
}
