//! The learner: a system that consumes the trajectory queue.

use std::sync::PoisonError;

use bevy_ecs::prelude::*;
use secateur_sim::{Event, EventLog};

use crate::components::{CurrentPolicy, LearnerState, LearnerStats, LearningFailure, TrajectoryReceiver};
use crate::error::TrainError;

/// Takes what is in the queue and learns from every whole batch. A batch that fails stays with the learner.
pub fn learn(
    queue: Res<TrajectoryReceiver>,
    mut learners: Query<(&mut LearnerState, &mut LearnerStats)>,
    mut log: ResMut<EventLog>,
    mut failure: ResMut<LearningFailure>,
) {
    for (mut state, mut stats) in &mut learners {
        stats.pending.extend(queue.0.try_iter());
        let learner = state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let batch_size = learner.batch_size().max(1);
        while stats.pending.len() >= batch_size {
            let report = match learner.learn(&stats.pending[..batch_size]) {
                Ok(report) => report,
                Err(cause) => {
                    let (n_updates, cause, batch) =
                        (stats.n_updates, Box::new(cause), stats.pending[..batch_size].to_vec());
                    failure.0.get_or_insert(TrainError::Learner { n_updates, cause, batch });
                    return;
                }
            };
            stats.pending.drain(..batch_size);
            stats.n_trajectories += batch_size as u64;
            stats.n_updates = learner.n_updates();
            log.0.push(Event::Learned {
                n_updates: stats.n_updates,
                numbers: vec![
                    ("policy_loss", report.policy_loss),
                    ("value_loss", report.value_loss),
                    ("imitation_loss", report.imitation_loss),
                    ("entropy", report.entropy),
                    ("importance_mean", report.importance_mean),
                    ("gradient_norm", report.gradient_norm),
                    ("learning_rate", report.learning_rate),
                    ("sigma", report.sigma),
                ],
            });
        }
    }
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
