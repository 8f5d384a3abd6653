//! Forgetting.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, TransactionBehavior};
use serde::Serialize;

use crate::error::HistoryError;
use crate::policies::Policies;
use crate::store::History;

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Runs.
    pub runs: usize,
    /// Networks that no run names any more.
    pub networks: usize,
    /// Scores that were computed before.
    pub scores: usize,
    /// Files of policies that no run names any more.
    pub policies: usize,
}

impl History {
    /// Forgets runs that began longer ago than `age`, what only they name, and scores that are older than that; run
    /// directories stay as they are.
    ///
    /// # Errors
    /// A history that cannot be written.
    pub fn prune(&mut self, age: Duration) -> Result<Pruned, HistoryError> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before_s = since_1970.as_secs_f64() - age.as_secs_f64();
        let pruned = forget(&mut self.connection, before_s).map_err(|error| HistoryError::of(&self.path, &error))?;
        // Where others are at work, the file keeps its length, and the room in it is used again.
        let _ = self.connection.execute_batch("VACUUM");
        let policies = forget_policies(&mut self.connection, &Policies::beside(&self.path));
        Ok(Pruned { policies: policies.map_err(|error| self.error(&error))?, ..pruned })
    }
}

fn forget(connection: &mut Connection, before_s: f64) -> rusqlite::Result<Pruned> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let runs = transaction.execute("DELETE FROM runs WHERE started_s < ?1", [before_s])?;
    let networks = transaction.execute("DELETE FROM networks WHERE id NOT IN (SELECT network FROM tasks)", [])?;
    let scores = transaction.execute("DELETE FROM scores WHERE scored_s < ?1", [before_s])?;
    transaction.execute("DELETE FROM conditions WHERE id NOT IN (SELECT conditions FROM scores)", [])?;
    transaction.commit()?;
    Ok(Pruned { runs, networks, scores, policies: 0 })
}

/// While nobody else can name a policy.
fn forget_policies(connection: &mut Connection, policies: &Policies) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut named = transaction.prepare("SELECT DISTINCT policy FROM runs WHERE policy IS NOT NULL")?;
    let wanted = named.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<BTreeSet<String>>>()?;
    Ok(policies.keep_only(&wanted))
}
