//! The tables, version by version.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::HistoryError;

/// What makes each version of the one before it; the first of nothing. What was published is never changed.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

/// The version that this program writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// All tables, as `TABLES.md` lists them.
pub const TABLES: [&str; 12] = [
    "runs",
    "networks",
    "layers",
    "tasks",
    "budgets",
    "groups",
    "curves",
    "walks",
    "results",
    "certificates",
    "conditions",
    "scores",
];

/// In the head of the file: "secr".
const APPLICATION: i32 = 0x7365_6372;

/// The version of a history's tables.
pub(crate) fn version(connection: &Connection, path: &Path) -> Result<u32, HistoryError> {
    let of = |error: rusqlite::Error| HistoryError::of(path, &error);
    // In one statement, which sees one state of the file: another process may be making it.
    let sql =
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                   (SELECT count(*) FROM sqlite_schema)";
    let read = connection.query_row(sql, [], |row| Ok([row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?]));
    let [application, version, n_tables] = read.map_err(of)?;
    if application != i64::from(APPLICATION) && (n_tables > 0 || version != 0) {
        return Err(HistoryError::Foreign { path: path.to_owned() });
    }
    let found = u32::try_from(version).unwrap_or(u32::MAX);
    if found > SCHEMA_VERSION {
        return Err(HistoryError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(found)
}

/// Brings a history to the present version: all of it, or nothing.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), HistoryError> {
    if version(connection, path)? == SCHEMA_VERSION {
        return Ok(());
    }
    let of = |error: rusqlite::Error| HistoryError::of(path, &error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
    // Another process may have been as fast.
    let from = version(&transaction, path)?;
    for sql in &MIGRATIONS[from as usize..] {
        transaction.execute_batch(sql).map_err(of)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(of)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(of)?;
    transaction.commit().map_err(of)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A history of an earlier version.
    pub(crate) fn of_version(path: &Path, version: u32) -> Connection {
        let connection = Connection::open(path).unwrap();
        MIGRATIONS[..version as usize].iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        connection.pragma_update(None, "application_id", APPLICATION).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        connection
    }

    /// Columns of every table.
    fn columns(connection: &Connection) -> BTreeMap<String, Vec<String>> {
        let strings = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let tables = strings("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
        tables
            .into_iter()
            .map(|table| {
                let columns = strings(&format!("SELECT name FROM pragma_table_info('{table}')"));
                (table, columns)
            })
            .collect()
    }

    #[test]
    fn every_table_and_column_is_documented_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut table = String::new();
        for line in include_str!("../TABLES.md").lines() {
            if let Some(title) = line.strip_prefix("## ") {
                table = title.split(':').next().unwrap().to_owned();
                told.insert(table.clone(), Vec::new());
            } else if let Some(row) = line.strip_prefix("| `") {
                told.get_mut(&table).unwrap().push(row.split('`').next().unwrap().to_owned());
            }
        }
        let there = columns(&of_version(&dir.path().join("h"), SCHEMA_VERSION));
        let sorted = |tables: BTreeMap<String, Vec<String>>| {
            let sorted = tables.into_iter().map(|(name, mut columns)| {
                columns.sort();
                (name, columns)
            });
            sorted.collect::<BTreeMap<_, _>>()
        };
        assert_eq!(sorted(told), sorted(there.clone()));
        let mut listed = TABLES.to_vec();
        listed.sort_unstable();
        assert_eq!(there.keys().collect::<Vec<_>>(), listed);
    }

    #[test]
    fn every_earlier_version_becomes_the_present_one_and_keeps_its_runs() {
        let dir = tempfile::tempdir().unwrap();
        let present = columns(&of_version(&dir.path().join("present"), SCHEMA_VERSION));
        for from in 0..=SCHEMA_VERSION {
            let path = dir.path().join(format!("from-{from}"));
            let old = of_version(&path, from);
            if from > 0 {
                old.execute_batch(
                    "INSERT INTO runs (id, key, directory, status, started, started_s, scene)
                     VALUES (7, 'k', 'runs/it''s', 'finished', '2026-01-01T00:00:00Z', 1767225600, '(seed: 1)')",
                )
                .unwrap();
            }
            drop(old);
            let history = crate::History::open(&path).unwrap();
            let runs = history.runs().unwrap();
            // Runs that were finished when nothing counted them are counted now.
            let snapshot = history.snapshot().unwrap();
            let last = if (1..3).contains(&from) { "7" } else { "0" };
            assert_eq!(snapshot.to_string().split('-').next(), Some(last), "from {from}");
            assert_eq!(history.snapshot_at(&snapshot.to_string()).unwrap(), snapshot);
            assert!(history.source_tasks(&snapshot, 10).unwrap().is_empty());
            let expected: Vec<(i64, &str)> = if from > 0 { vec![(7, "runs/it's")] } else { vec![] };
            assert_eq!(runs.iter().map(|run| (run.id, &*run.directory)).collect::<Vec<_>>(), expected, "from {from}");
            drop(history);
            let now = Connection::open(&path).unwrap();
            assert_eq!((version(&now, &path).unwrap(), columns(&now)), (SCHEMA_VERSION, present.clone()));
        }
    }
}
