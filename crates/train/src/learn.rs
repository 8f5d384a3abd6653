//! The learner: a system that consumes the trajectory queue.

use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use secateur_rl::{LearnReport, Unroll};
use secateur_sim::{Event, EventLog};

use crate::components::{
    BatchRule, CurrentPolicy, LearnerState, LearnerStats, LearningFailure, Queued, TrajectoryReceiver,
};
use crate::error::TrainError;

/// Learns from every whole batch that is there, as [`BatchRule`] has it. A batch that fails stays with the learner.
pub fn learn(
    queue: Res<TrajectoryReceiver>,
    rule: Res<BatchRule>,
    mut learners: Query<(&mut LearnerState, &mut LearnerStats)>,
    mut log: ResMut<EventLog>,
    mut failure: ResMut<LearningFailure>,
) {
    for (mut state, mut stats) in &mut learners {
        let learner = state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let batch_size = learner.batch_size().max(1);
        while let Some(n) = next_batch(&queue, *rule, batch_size, &mut stats) {
            let queue_depth = queue.0.len();
            let batch: Vec<Unroll> = stats.pending.drain(..n).map(|queued| queued.unroll).collect();
            let n_updates = stats.n_updates;
            match learner.learn(&batch) {
                Ok(report) => {
                    stats.n_trajectories += n as u64;
                    stats.n_updates = learner.n_updates();
                    log.0.push(learned(stats.n_updates, &report, lag(&batch, n_updates), queue_depth));
                }
                Err(cause) => {
                    put_back(&mut stats, &batch);
                    failure.0.get_or_insert(TrainError::Learner { n_updates, cause: Box::new(cause), batch });
                    return;
                }
            }
        }
    }
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

/// Mean and largest number of updates between the policies that acted in a batch and the one that learns from it.
fn lag(batch: &[Unroll], n_updates: u64) -> (f64, u64) {
    let lags = || batch.iter().flat_map(|unroll| &unroll.policy_version).map(|&v| n_updates.saturating_sub(v));
    (lags().sum::<u64>() as f64 / lags().count().max(1) as f64, lags().max().unwrap_or(0))
}

fn learned(n_updates: u64, report: &LearnReport, (lag_mean, lag_max): (f64, u64), queue_depth: usize) -> Event {
    let numbers = vec![
        ("policy_loss", report.policy_loss),
        ("value_loss", report.value_loss),
        ("imitation_loss", report.imitation_loss),
        ("entropy", report.entropy),
        ("importance_mean", report.importance_mean),
        ("gradient_norm", report.gradient_norm),
        ("learning_rate", report.learning_rate),
        ("sigma", report.sigma),
        ("n_steps", report.n_steps as f64),
        ("lag_mean", lag_mean),
        ("lag_max", lag_max as f64),
        ("queue_depth", queue_depth as f64),
    ];
    Event::Learned { n_updates, numbers }
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
