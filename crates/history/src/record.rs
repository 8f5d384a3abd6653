//! Writing a run down.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::HistoryError;
use crate::policies::Policies;
use crate::records::{NetworkRecord, RunRecord, TaskRecord};
use crate::store::History;

impl History {
    /// Writes a run down, in place of what was known of it; all of it, or nothing. Returns its number.
    ///
    /// # Errors
    /// A history that cannot be written.
    pub fn record(&mut self, run: &RunRecord) -> Result<i64, HistoryError> {
        let of = |error: rusqlite::Error| HistoryError::of(&self.path, &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(of)?;
        // Within the transaction: none that forgets can take the file for one that nobody names.
        let policies = Policies::beside(&self.path);
        let policy = run.policy.as_ref().map(|bytes| policies.keep(bytes)).transpose()?;
        let id = write(&transaction, run, policy.as_deref()).map_err(of)?;
        transaction.commit().map_err(of)?;
        Ok(id)
    }
}

fn write(connection: &Connection, run: &RunRecord, policy: Option<&str>) -> rusqlite::Result<i64> {
    let id = write_run(connection, run, policy)?;
    connection.execute("DELETE FROM tasks WHERE run = ?1", [id])?;
    for task in &run.tasks {
        let known = run.networks.iter().find(|network| network.name == task.network);
        let unknown = NetworkRecord { name: task.network.clone(), ..NetworkRecord::default() };
        let network = write_network(connection, known.unwrap_or(&unknown))?;
        write_task(connection, id, network, task)?;
    }
    Ok(id)
}

/// The row of a run. What an earlier look at the run knew, and this one does not, stays.
fn write_run(connection: &Connection, run: &RunRecord, policy: Option<&str>) -> rusqlite::Result<i64> {
    // A copy of a run directory has other times, and the same metrics.
    let known: Option<i64> = connection
        .query_row(
            "SELECT id FROM runs WHERE key = ?1 OR metrics = ?2 ORDER BY key = ?1 DESC LIMIT 1",
            params![run.key, run.metrics],
            |row| row.get(0),
        )
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => {
            connection.execute(
                "INSERT INTO runs (key, directory, status, started, started_s, scene)
                 VALUES (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%SZ', ?4, 'unixepoch'), ?4, ?5)",
                params![run.key, run.directory, run.status.name(), run.started_s, run.scene],
            )?;
            connection.last_insert_rowid()
        }
    };
    connection.execute(
        "UPDATE runs SET
             metrics = ?2, directory = ?3, status = ?4, scene = ?5, wall_s = coalesce(?6, wall_s),
             scene_file = coalesce(?7, scene_file), seed = coalesce(?8, seed), agent = coalesce(?9, agent),
             reward = coalesce(?10, reward), scheduler = coalesce(?11, scheduler), device = coalesce(?12, device),
             precision = coalesce(?13, precision), program = coalesce(?14, program), build = coalesce(?15, build),
             instructions = coalesce(?16, instructions), candidates_scored = coalesce(?17, candidates_scored),
             policy = coalesce(?18, policy), known_scores = coalesce(?19, known_scores),
             finished = CASE WHEN ?4 IN ('finished', 'over_budget')
                 THEN coalesce(finished, (SELECT coalesce(max(finished), 0) + 1 FROM runs)) END
         WHERE id = ?1",
        params![
            id,
            run.metrics,
            run.directory,
            run.status.name(),
            run.scene,
            run.wall_s,
            run.scene_file,
            run.seed.map(integer),
            run.agent,
            run.reward,
            run.scheduler,
            run.device,
            run.precision,
            run.program,
            run.build,
            run.instructions,
            run.candidates_scored.map(integer),
            policy,
            run.known_scores.map(integer)
        ],
    )?;
    Ok(id)
}

/// The row of a network, which runs share.
fn write_network(connection: &Connection, network: &NetworkRecord) -> rusqlite::Result<i64> {
    let id = connection.query_row(
        "INSERT INTO networks (name, content, macs, params, activation_bytes) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name, content) DO UPDATE SET
             macs = coalesce(excluded.macs, macs), params = coalesce(excluded.params, params),
             activation_bytes = coalesce(excluded.activation_bytes, activation_bytes)
         RETURNING id",
        params![
            network.name,
            network.content,
            network.macs.map(integer),
            network.params.map(integer),
            network.activation_bytes.map(integer)
        ],
        |row| row.get(0),
    )?;
    if !network.layers.is_empty() {
        connection.execute("DELETE FROM layers WHERE network = ?1", [id])?;
    }
    let mut layer =
        connection.prepare("INSERT INTO layers (network, place, name, kind, shape) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (place, of) in network.layers.iter().enumerate() {
        layer.execute(params![id, place as i64, of.name, of.kind, json_list(&of.shape)])?;
    }
    Ok(id)
}

fn write_task(connection: &Connection, run: i64, network: i64, task: &TaskRecord) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO tasks (run, name, network, dataset, dataset_content) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![run, task.name, network, task.dataset, task.dataset_content],
    )?;
    let id = connection.last_insert_rowid();
    for bound in &task.bounds {
        connection.execute(
            "INSERT OR REPLACE INTO budgets (task, kind, ratio, max) VALUES (?1, ?2, ?3, ?4)",
            params![id, bound.kind, bound.ratio, bound.max.map(integer)],
        )?;
    }
    for (place, group) in task.groups.iter().enumerate() {
        connection.execute(
            "INSERT INTO groups (task, place, name, channels, kept) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![id, place as i64, group.name, group.channels as i64, group.kept as i64],
        )?;
    }
    for (place, curve) in task.curves.iter().enumerate() {
        // Numbers that SQLite or JSON would not give back are none of a curve.
        if !curve.is_sound() {
            continue;
        }
        connection.execute(
            "INSERT INTO curves (task, place, name, channels, widths, errors, weight) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id,
                place as i64,
                curve.name,
                curve.channels as i64,
                json_list(&curve.widths),
                json_list(&curve.errors),
                curve.weight
            ],
        )?;
    }
    let mut walk = connection.prepare(
        "INSERT INTO walks (task, place, agent, walk, noise_free, cached, is_best, reward, accuracy, divergence,
             output_error, macs, widths, search_s)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    for (place, of) in task.walks.iter().enumerate() {
        walk.execute(params![
            id,
            place as i64,
            of.agent,
            integer(of.walk),
            of.noise_free,
            of.cached,
            of.is_best,
            of.reward,
            of.accuracy,
            of.divergence,
            of.output_error,
            integer(of.macs),
            json_list(&of.widths),
            of.search_s
        ])?;
    }
    for result in &task.results {
        connection.execute(
            "INSERT OR REPLACE INTO results (task, agent, is_control, walk, candidates_scored, macs, params,
                 activation_bytes, reward_accuracy, test_accuracy_original, test_accuracy, test_accuracy_after_polish,
                 test_accuracy_after_tuning, test_output_error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            params![
                id,
                result.agent,
                result.is_control,
                result.walk.map(integer),
                result.candidates_scored.map(integer),
                integer(result.macs),
                result.params.map(integer),
                result.activation_bytes.map(integer),
                result.reward_accuracy,
                result.test_accuracy_original,
                result.test_accuracy,
                result.test_accuracy_after_polish,
                result.test_accuracy_after_tuning,
                result.test_output_error
            ],
        )?;
    }
    if let Some(certificate) = &task.certificate {
        connection.execute(
            "INSERT INTO certificates (task, file, blake3, text) VALUES (?1, ?2, ?3, ?4)",
            params![id, certificate.file, certificate.blake3, certificate.text],
        )?;
    }
    Ok(())
}

/// SQLite's integers are signed; no count comes near their end, and a seed beyond it keeps its bits.
fn integer(n: u64) -> i64 {
    n as i64
}

/// Floats in the fewest digits that are the same number.
fn json_list(numbers: &[impl ToString]) -> String {
    format!("[{}]", numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}
