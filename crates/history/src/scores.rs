//! Scores of candidates, which later runs need not compute again.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::HistoryError;
use crate::store::History;

/// The score of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredScore {
    /// What it keeps, in bytes that equal candidates have alike.
    pub kept: Vec<u8>,
    /// Top-1 on the reward images.
    pub accuracy: Option<f64>,
    /// Divergence, nats.
    pub divergence: Option<f64>,
    /// Output error.
    pub output_error: Option<f64>,
}

impl StoredScore {
    /// Whether SQLite gives every bit back: it has one zero, and no NaN.
    fn is_kept_exactly(&self) -> bool {
        let is_exact = |x: f64| !x.is_nan() && (x != 0.0 || x.is_sign_positive());
        [self.accuracy, self.divergence, self.output_error].into_iter().flatten().all(is_exact)
    }
}

impl History {
    /// The scores under these conditions, a hash of all that a score follows from beside what is kept; of more than
    /// `most` the newest.
    ///
    /// # Errors
    /// A history that cannot be read.
    pub fn scores(&self, conditions: &str, most: usize) -> Result<Vec<StoredScore>, HistoryError> {
        let of = |error: rusqlite::Error| self.error(&error);
        let sql = "SELECT kept, accuracy, divergence, output_error FROM scores
                   WHERE conditions = (SELECT id FROM conditions WHERE hash = ?1) ORDER BY scored_s DESC LIMIT ?2";
        let mut statement = self.connection.prepare(sql).map_err(of)?;
        let rows = statement.query_map(params![conditions, most as i64], |row| {
            Ok(StoredScore {
                kept: row.get(0)?,
                accuracy: row.get(1)?,
                divergence: row.get(2)?,
                output_error: row.get(3)?,
            })
        });
        rows.map_err(of)?.collect::<rusqlite::Result<_>>().map_err(of)
    }

    /// Adds scores under these conditions; those that are there stay. Scores that would not come back bit by bit are
    /// left out.
    ///
    /// # Errors
    /// A history that cannot be written.
    pub fn add_scores(&mut self, conditions: &str, scores: &[StoredScore]) -> Result<(), HistoryError> {
        if scores.is_empty() {
            return Ok(());
        }
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let added = add(&mut self.connection, conditions, scores, now_s);
        added.map_err(|error| self.error(&error))
    }
}

fn add(connection: &mut Connection, conditions: &str, scores: &[StoredScore], now_s: f64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = transaction
        .query_row("SELECT id FROM conditions WHERE hash = ?1", [conditions], |row| row.get::<_, i64>(0))
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => {
            transaction.execute("INSERT INTO conditions (hash) VALUES (?1)", [conditions])?;
            transaction.last_insert_rowid()
        }
    };
    let sql = "INSERT OR IGNORE INTO scores (conditions, kept, accuracy, divergence, output_error, scored_s)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = transaction.prepare(sql)?;
    for score in scores.iter().filter(|score| score.is_kept_exactly()) {
        let StoredScore { kept, accuracy, divergence, output_error } = score;
        insert.execute(params![id, kept, accuracy, divergence, output_error, now_s])?;
    }
    drop(insert);
    transaction.commit()
}
