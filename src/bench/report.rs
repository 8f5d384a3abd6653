//! What `bench schedulers` found, as JSON and as a table.

use std::collections::BTreeMap;

use secateur_sim::Step;
use serde::Serialize;

use crate::table::Table;

/// All measurements.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `synthetic`, or the scene.
    pub(super) environment: String,
    /// CPU milliseconds of a score and of learning from a trajectory; null for a scene.
    pub(super) score_ms: Option<f64>,
    pub(super) learn_ms: Option<f64>,
    pub(super) threads: usize,
    /// Trajectories that may wait for the learner.
    pub(super) queue_capacity: usize,
    pub(super) queue_trajectories_per_s: f64,
    pub(super) runs: Vec<SearchReport>,
}

/// One search under one scheduler.
#[derive(Debug, Serialize)]
pub(super) struct SearchReport {
    pub(super) scheduler: String,
    pub(super) executor: &'static str,
    pub(super) actors: usize,
    pub(super) wall_s: f64,
    pub(super) walks: u64,
    /// Until all that was lived through is learned from.
    pub(super) walks_per_s: f64,
    pub(super) walks_per_s_until_last_walk: f64,
    pub(super) env_steps_per_s: f64,
    /// As above, with the arithmetic of policy, learner, repair and score, and waiting, taken off: what observing,
    /// clamping, collecting, queueing and accounting would allow.
    pub(super) free_env_steps_per_s: f64,
    pub(super) updates_per_s: f64,
    /// Policy lag in updates, over all steps learned from.
    pub(super) lag_p50: u64,
    pub(super) lag_p95: u64,
    pub(super) lag_max: u64,
    pub(super) learner_idle_share: Option<f64>,
    /// Time in which not one actor could act; 0 under lockstep, where they wait in Learn.
    pub(super) actors_wait_s: f64,
    /// Time in the policy's and the learner's own arithmetic, wherever that ran.
    pub(super) act_s: f64,
    pub(super) learn_s: f64,
    /// Share of the wall time that the thread that ticks spends in each step; a learner on a thread of its own is not
    /// in it.
    pub(super) step_shares: Vec<(String, f64)>,
    /// Share of the wall time that a learner on a thread of its own spends learning.
    pub(super) learner_share: Option<f64>,
    /// Share of the wall time outside of Observe, Repair, Score and the arithmetic of policy and learner, waiting
    /// aside.
    pub(super) scheduling_share: f64,
    /// Mean over the tasks of the best reward at ten moments: (seconds, reward).
    pub(super) best_reward_at_s: Vec<(f64, f64)>,
    /// Resident memory of the process at those moments, bytes; empty where the system does not tell.
    pub(super) resident_bytes: Vec<u64>,
    /// Mean over the tasks of the best reward at the end, and per second.
    pub(super) best_reward: f64,
    pub(super) best_reward_per_s: f64,
}

/// Names of the steps, in order.
pub(super) fn step_names() -> Vec<String> {
    Step::ALL.iter().map(|step| format!("{step:?}")).collect()
}

/// One row per search, and where its time went.
pub(super) fn table(report: &Report) -> String {
    let header = [
        "scheduler",
        "executor",
        ">actors",
        ">walks/s",
        ">env steps/s",
        ">free steps/s",
        ">updates/s",
        ">lag p50",
        ">p95",
        ">max",
        ">learner idle",
        ">scheduling",
        ">best reward",
        ">per s",
    ];
    let mut table = Table::new(&header);
    report.runs.iter().for_each(|run| table.row(row(run)));
    let queue = format!(
        "queue alone: {:.0} trajectories/s; free steps/s: the arithmetic of policy, learner, repair and score taken off",
        report.queue_trajectories_per_s
    );
    let shares: Vec<String> = report.runs.iter().map(shares).collect();
    let head =
        "% of wall time that the ticking thread spends in each step, and a learner on its own thread in learning:";
    format!("{table}\n{queue}\n{head}\n{}", shares.join("\n"))
}

fn row(run: &SearchReport) -> Vec<String> {
    vec![
        run.scheduler.clone(),
        run.executor.to_owned(),
        run.actors.to_string(),
        format!("{:.2}", run.walks_per_s),
        format!("{:.0}", run.env_steps_per_s),
        format!("{:.0}", run.free_env_steps_per_s),
        format!("{:.2}", run.updates_per_s),
        run.lag_p50.to_string(),
        run.lag_p95.to_string(),
        run.lag_max.to_string(),
        run.learner_idle_share.map_or_else(String::new, |share| format!("{:.1} %", 100.0 * share)),
        format!("{:.2} %", 100.0 * run.scheduling_share),
        format!("{:.4}", run.best_reward),
        format!("{:.4}", run.best_reward_per_s),
    ]
}

fn shares(run: &SearchReport) -> String {
    let parts = run.step_shares.iter().map(|(name, share)| format!("{name} {:.2}", 100.0 * share));
    let learner = run.learner_share.map(|share| format!("learner's thread {:.2}", 100.0 * share));
    let parts: Vec<String> = parts.chain(learner).collect();
    format!("{} {} {}: {}", run.scheduler, run.executor, run.actors, parts.join(", "))
}

/// The value at or below which `share` of all lie, of values by how often they came; 0 of none.
pub(super) fn percentile(values: &BTreeMap<u64, u64>, share: f64) -> u64 {
    let n: u64 = values.values().sum();
    let rank = ((share * n as f64).ceil() as u64).max(1);
    let mut n_below = 0;
    let reached = values.iter().find(|(_, times)| {
        n_below += **times;
        n_below >= rank
    });
    reached.map_or(0, |(&value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values = [(1, 1), (2, 1), (3, 1), (4, 1)].into();
        assert_eq!([0.0, 0.25, 0.5, 0.51, 0.95, 1.0].map(|p| percentile(&values, p)), [1, 1, 2, 3, 4, 4]);
        let many = [(0, 98), (7, 2)].into();
        assert_eq!([0.5, 0.95, 0.98, 0.981, 1.0].map(|p| percentile(&many, p)), [0, 0, 0, 7, 7]);
        assert_eq!(percentile(&[].into(), 0.5), 0);
    }
}
