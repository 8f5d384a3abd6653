//! The learner: a system that consumes the trajectory queue.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use secateur_rl::{LearnReport, Unroll};
use secateur_sim::{EventLog, panic_message};

use crate::components::{
    BatchRule, CurrentPolicy, LearnerState, LearnerStats, Queued, TrainFailure, TrajectoryReceiver,
};
use crate::error::TrainError;
use crate::events::{SearchEvent, SearchLog};

/// Learns from every whole batch that is there, as [`BatchRule`] has it. A batch that fails stays with the learner.
pub fn learn(
    queue: Res<TrajectoryReceiver>,
    rule: Res<BatchRule>,
    mut learners: Query<(&mut LearnerState, &mut LearnerStats)>,
    (mut process, mut log): (ResMut<EventLog>, ResMut<SearchLog>),
    mut failure: ResMut<TrainFailure>,
) {
    log.follow(&mut process);
    for (mut state, mut stats) in &mut learners {
        while learn_from_next((&queue, *rule), &mut state, &mut stats, &mut log, &mut failure) {}
    }
}

/// Learns from one whole batch if one is there, so that its policy is published, and its event sent, before the next:
/// in a world of the learner's own, where nothing else happens.
pub(crate) fn learn_once(
    queue: Res<TrajectoryReceiver>,
    rule: Res<BatchRule>,
    mut learners: Query<(&mut LearnerState, &mut LearnerStats)>,
    mut log: ResMut<SearchLog>,
    mut failure: ResMut<TrainFailure>,
) {
    for (mut state, mut stats) in &mut learners {
        learn_from_next((&queue, *rule), &mut state, &mut stats, &mut log, &mut failure);
    }
}

/// Learns from the next batch; tells whether it did.
fn learn_from_next(
    (queue, rule): (&TrajectoryReceiver, BatchRule),
    state: &mut LearnerState,
    stats: &mut LearnerStats,
    log: &mut SearchLog,
    failure: &mut TrainFailure,
) -> bool {
    let learner = state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
    let Some(n) = next_batch(queue, rule, learner.batch_size().max(1), stats) else { return false };
    let batch: Vec<Unroll> = stats.pending.drain(..n).map(|queued| queued.unroll).collect();
    let (n_updates, n_waiting) = (stats.n_updates, queue.0.len() + stats.pending.len());
    // The driver of the search learns of a panic as of any other failure: the world around the learner is whole.
    let learned_from = catch_unwind(AssertUnwindSafe(|| learner.learn(&batch)));
    let error = match learned_from {
        Ok(Ok(report)) => {
            stats.n_trajectories += n as u64;
            stats.n_updates = learner.n_updates();
            let counts = UpdateCounts { before: n_updates, after: stats.n_updates, n_waiting };
            log.0.push(learned(report, &batch, counts));
            return true;
        }
        Ok(Err(cause)) => {
            put_back(stats, &batch);
            TrainError::Learner { n_updates, cause: Box::new(cause), batch }
        }
        Err(payload) => TrainError::LearnerPanicked { n_updates, message: panic_message(&*payload), batch },
    };
    failure.note(error);
    false
}

/// How many of the pending trajectories are the next batch; first takes from the queue what belongs to it.
fn next_batch(
    queue: &TrajectoryReceiver,
    rule: BatchRule,
    batch_size: usize,
    stats: &mut LearnerStats,
) -> Option<usize> {
    let pending = &mut stats.pending;
    match rule {
        // No more than is needed: what stays in the queue keeps actors waiting when the learner is the slower one.
        BatchRule::Arrival => pending.extend(queue.0.try_iter().take(batch_size.saturating_sub(pending.len()))),
        BatchRule::Ticket | BatchRule::Rest => pending.extend(queue.0.try_iter()),
    }
    match rule {
        BatchRule::Arrival => {}
        BatchRule::Rest => pending.sort_by_key(|queued| queued.ticket),
        BatchRule::Ticket => {
            pending.sort_by_key(|queued| queued.ticket);
            let last = stats.n_trajectories + batch_size as u64 - 1;
            return (pending.get(batch_size - 1)?.ticket == last).then_some(batch_size);
        }
    }
    match pending.len() {
        n if n >= batch_size => Some(batch_size),
        n if n > 0 && rule == BatchRule::Rest => Some(n),
        _ => None,
    }
}

fn put_back(stats: &mut LearnerStats, batch: &[Unroll]) {
    let first = stats.n_trajectories;
    let back = batch.iter().enumerate().map(|(i, unroll)| Queued { ticket: first + i as u64, unroll: unroll.clone() });
    stats.pending.splice(..0, back);
}

/// Where a learner stands at an update.
struct UpdateCounts {
    /// Updates before it.
    before: u64,
    /// Updates after it.
    after: u64,
    /// Trajectories that waited meanwhile.
    n_waiting: usize,
}

/// The event of an update.
fn learned(report: LearnReport, batch: &[Unroll], counts: UpdateCounts) -> SearchEvent {
    let mut lags: BTreeMap<u64, u64> = BTreeMap::new();
    for version in batch.iter().flat_map(|unroll| &unroll.policy_version) {
        *lags.entry(counts.before.saturating_sub(*version)).or_default() += 1;
    }
    let (sum, n) = lags.iter().fold((0, 0), |(sum, n), (lag, steps)| (sum + lag * steps, n + steps));
    let lag_max = lags.keys().next_back().copied().unwrap_or(0);
    let n_steps: usize = batch.iter().map(Unroll::n_steps).sum();
    let mut numbers = report.numbers;
    numbers.extend([
        ("n_steps", n_steps as f64),
        ("lag_mean", sum as f64 / n.max(1) as f64),
        ("lag_max", lag_max as f64),
        ("queue_depth", counts.n_waiting as f64),
    ]);
    SearchEvent::Learned { n_updates: counts.after, numbers, lags }
}

/// Publishes the learner's policy if it is newer than the one actors use.
pub fn publish_policy(mut policy: ResMut<CurrentPolicy>, mut learners: Query<&mut LearnerState>) {
    for mut state in &mut learners {
        let learner = state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if learner.n_updates() > policy.0.version() {
            policy.0 = learner.policy();
        }
    }
}

#[cfg(test)]
mod tests;
