//! What later runs may learn from: finished runs, as they were at some moment.

use std::fmt;

use rusqlite::{Row, params};

use crate::error::HistoryError;
use crate::policies::Policies;
use crate::records::CurveRecord;
use crate::store::History;

/// Characters of the hash in a snapshot's name.
const HASH_LEN: usize = 12;
/// More than any learner's state takes.
const POLICY_BYTES_MAX: u64 = 1 << 30;

/// The runs that were finished at some moment. Its name, `<runs>-<hash>`, says which, and is known again as long as
/// none of them is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Runs with at most this number in `runs.finished`.
    last: i64,
    hash: String,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.last, self.hash)
    }
}

/// A task of a finished run whose error curves are known.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTask {
    /// `tasks.id`.
    pub id: i64,
    /// `runs.id`.
    pub run: i64,
    /// Place among the tasks of the run.
    pub place: usize,
    /// Name.
    pub name: String,
    /// blake3 of its network's file.
    pub network_content: String,
    /// Its network, as the scene named it.
    pub network: String,
    /// Its data set, likewise.
    pub dataset: String,
    /// blake3 of what the data set's files hold.
    pub dataset_content: Option<String>,
    /// What walks were paid for.
    pub reward: String,
    /// Name of the scene's agent.
    pub agent: String,
    /// What the agent learned: blake3 of a file.
    pub policy: Option<String>,
    /// What the first bound is of.
    pub bound: String,
    /// It, as a share of the original's cost.
    pub ratio: f64,
    /// Tasks of the run.
    pub n_tasks: usize,
    /// Channel groups in walk order, and their error curves.
    pub curves: Vec<CurveRecord>,
}

/// A candidate that a task's walks, or a control's, found.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWalk {
    /// Width of every prunable group.
    pub widths: Vec<usize>,
    /// What it was paid.
    pub reward: f64,
}

impl History {
    /// The runs that are finished now.
    ///
    /// # Errors
    /// A history that cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, HistoryError> {
        let sql = "SELECT coalesce(max(finished), 0) FROM runs";
        let last = self.connection.query_row(sql, [], |row| row.get(0));
        self.snapshot_of(last.map_err(|error| self.error(&error))?)
    }

    /// The snapshot of this name.
    ///
    /// # Errors
    /// No such name; a history that no longer has all of its runs; one that cannot be read.
    pub fn snapshot_at(&self, name: &str) -> Result<Snapshot, HistoryError> {
        let unknown = || HistoryError::NoSnapshot { path: self.path.clone(), snapshot: name.to_owned() };
        let (last, _) = name.split_once('-').ok_or_else(unknown)?;
        let found = self.snapshot_of(last.parse().map_err(|_| unknown())?)?;
        if found.to_string() == name { Ok(found) } else { Err(unknown()) }
    }

    fn snapshot_of(&self, last: i64) -> Result<Snapshot, HistoryError> {
        let sql = "SELECT finished, key, metrics, policy FROM runs WHERE finished <= ?1 ORDER BY finished, id";
        let mut hasher = blake3::Hasher::new();
        let mut add = |row: &Row<'_>| -> rusqlite::Result<()> {
            hasher.update(&row.get::<_, i64>(0)?.to_le_bytes());
            for column in 1..4 {
                let text = row.get::<_, Option<String>>(column)?.unwrap_or_default();
                hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
            Ok(())
        };
        let added = self.connection.prepare(sql).and_then(|mut statement| {
            let mut rows = statement.query([last])?;
            while let Some(row) = rows.next()? {
                add(row)?;
            }
            Ok(())
        });
        added.map_err(|error| self.error(&error))?;
        Ok(Snapshot { last, hash: hasher.finalize().to_hex()[..HASH_LEN].to_owned() })
    }

    /// Tasks with error curves, the newest runs first, at most `most`.
    ///
    /// # Errors
    /// A history that cannot be read.
    pub fn source_tasks(&self, snapshot: &Snapshot, most: usize) -> Result<Vec<StoredTask>, HistoryError> {
        self.tasks(snapshot, most).map_err(|error| self.error(&error))
    }

    fn tasks(&self, snapshot: &Snapshot, most: usize) -> rusqlite::Result<Vec<StoredTask>> {
        let mut statement = self.connection.prepare(
            "SELECT tasks.id, run, (SELECT count(*) FROM tasks AS others WHERE others.run = runs.id AND others.id < tasks.id),
                 tasks.name, networks.content, networks.name, dataset, dataset_content, coalesce(reward, ''),
                 coalesce(agent, ''), policy, kind, ratio,
                 (SELECT count(*) FROM tasks AS others WHERE others.run = runs.id)
             FROM tasks JOIN runs ON runs.id = run JOIN networks ON networks.id = network
             JOIN budgets ON budgets.task = tasks.id
             WHERE finished <= ?1 AND ratio IS NOT NULL
                 AND budgets.rowid = (SELECT min(rowid) FROM budgets WHERE task = tasks.id)
                 AND EXISTS (SELECT 1 FROM curves WHERE curves.task = tasks.id)
             ORDER BY finished DESC, tasks.id LIMIT ?2",
        )?;
        let read = statement.query_map(params![snapshot.last, most as i64], |row| {
            Ok(StoredTask {
                id: row.get(0)?,
                run: row.get(1)?,
                place: row.get::<_, i64>(2)?.unsigned_abs() as usize,
                name: row.get(3)?,
                network_content: row.get(4)?,
                network: row.get(5)?,
                dataset: row.get(6)?,
                dataset_content: row.get(7)?,
                reward: row.get(8)?,
                agent: row.get(9)?,
                policy: row.get(10)?,
                bound: row.get(11)?,
                ratio: row.get(12)?,
                n_tasks: row.get::<_, i64>(13)?.unsigned_abs() as usize,
                curves: Vec::new(),
            })
        })?;
        let mut tasks = read.collect::<rusqlite::Result<Vec<_>>>()?;
        let sql = "SELECT name, channels, widths, errors, weight FROM curves WHERE task = ?1 ORDER BY place";
        let mut curves = self.connection.prepare(sql)?;
        for task in &mut tasks {
            task.curves = curves.query_map([task.id], curve)?.collect::<rusqlite::Result<_>>()?;
        }
        // Whoever wrote the file: what is no curve is none.
        tasks.retain(|task| task.curves.iter().all(CurveRecord::is_sound));
        Ok(tasks)
    }

    /// The candidates of a task, the best first, each once, at most `most`.
    ///
    /// # Errors
    /// A history that cannot be read.
    pub fn source_walks(&self, task: &StoredTask, most: usize) -> Result<Vec<StoredWalk>, HistoryError> {
        let sql = "SELECT widths, max(reward) FROM walks WHERE task = ?1 GROUP BY widths
                   ORDER BY max(reward) DESC, min(place) LIMIT ?2";
        let of = |error: rusqlite::Error| self.error(&error);
        let mut statement = self.connection.prepare(sql).map_err(of)?;
        let rows = statement.query_map(params![task.id, most as i64], |row| {
            Ok(StoredWalk { widths: list(row, 0)?, reward: row.get(1)? })
        });
        rows.map_err(of)?.collect::<rusqlite::Result<_>>().map_err(of)
    }

    /// What the agent of a task's run learned; none where its file is gone or not what was written.
    pub fn policy_of(&self, task: &StoredTask) -> Option<Vec<u8>> {
        let content = task.policy.as_deref()?;
        let file = Policies::beside(&self.path).file(content);
        let is_small = std::fs::metadata(&file).is_ok_and(|file| file.is_file() && file.len() <= POLICY_BYTES_MAX);
        let bytes = is_small.then(|| std::fs::read(&file).ok())??;
        (blake3::hash(&bytes).to_hex().as_str() == content).then_some(bytes)
    }
}

fn curve(row: &Row<'_>) -> rusqlite::Result<CurveRecord> {
    Ok(CurveRecord {
        name: row.get(0)?,
        channels: row.get::<_, i64>(1)?.unsigned_abs() as usize,
        widths: list(row, 2)?,
        errors: list(row, 3)?,
        weight: row.get(4)?,
    })
}

/// A JSON list; empty where it is none.
fn list<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<T>> {
    Ok(serde_json::from_str(&row.get::<_, String>(column)?).unwrap_or_default())
}
