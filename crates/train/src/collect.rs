//! Decisions become unrolls, unrolls become trajectories, trajectories go to the queue.

use bevy_ecs::prelude::*;
use crossbeam::channel::TrySendError;
use secateur_rl::{Unroll, UnrollState, UnrollStep};
use secateur_sim::{Actor, Readiness, Realised, RestartPoint, Restarts, StepReward, Walk};

use crate::components::{
    Asked, Decided, Experience, PolicyVersion, Provenance, Queued, RecurrentState, TrainFailure, Trajectory,
    TrajectorySender,
};
use crate::error::TrainError;

/// Who makes experience, and where it stands.
type Maker<'w> = (Entity, &'w Actor, &'w Readiness, &'w Walk, &'w Restarts);
/// One step: question, answer, and what came of it.
type Taken<'w> = (&'w Asked, &'w Decided, &'w PolicyVersion, &'w Realised, &'w StepReward);
/// What is kept of the steps.
type Kept<'w> = (&'w RecurrentState, &'w mut Experience, &'w mut RestartPoint);

/// Appends the decision of this tick to each acting actor's unroll, and spawns the unrolls that are whole, or whose
/// actor retired. Noise-free walks are not learned from: their actions do not come from the distribution that
/// importance weights assume.
pub fn collect_steps(mut commands: Commands, mut actors: Query<(Maker<'_>, Taken<'_>, Kept<'_>)>) {
    for (maker, taken, (recurrent, mut experience, mut point)) in &mut actors {
        let (_, _, readiness, walk, _) = maker;
        let (asked, .., step) = taken;
        let experience = &mut *experience;
        let n_steps = experience.unroll.n_steps();
        // An actor that restarts, or waits for its score, was asked what comes after a whole unroll, too, and goes on
        // from there.
        let sees_next =
            matches!(readiness, Readiness::Acting | Readiness::Looking | Readiness::Scoring | Readiness::Restarting);
        if n_steps == experience.length && sees_next {
            push_observation(&mut experience.unroll, asked);
            commands.spawn(experience.hand_over(maker));
        } else if n_steps > 0 && *readiness == Readiness::Retired {
            experience.unroll.repeat_last_state();
            commands.spawn(experience.hand_over(maker));
        }
        if *readiness != Readiness::Acting || walk.noise_free {
            continue;
        }
        experience.push(taken);
        if experience.unroll.n_steps() < experience.length {
            continue;
        }
        if step.ends_walk {
            // Nothing after the end of a walk counts, so there is no need to wait for the next one.
            push_observation(&mut experience.unroll, asked);
            commands.spawn(experience.hand_over(maker));
        } else {
            point.0 = Some(walk.clone());
            experience.restart_recurrent.clone_from(&recurrent.0);
        }
    }
}

impl Experience {
    /// Makes a trajectory of the unroll and begins the next one.
    fn hand_over(&mut self, (actor, &Actor { index, .. }, _, _, restarts): Maker<'_>) -> (Trajectory, Provenance) {
        let (sequence, ticket) = (self.sequence, self.ticket.take().unwrap_or(0));
        self.ticket = self.next_ticket.take();
        self.sequence += 1;
        let provenance = Provenance { actor, actor_index: index, incarnation: restarts.n, sequence, ticket };
        (Trajectory(std::mem::take(&mut self.unroll)), provenance)
    }

    fn push(&mut self, (asked, decided, version, realised, step): Taken<'_>) {
        let unroll = &mut self.unroll;
        if unroll.n_steps() == 0 {
            *unroll = Unroll::with_capacity(self.length, asked.0.observation.len());
            unroll.task = asked.0.task;
            unroll.first_recurrent.clone_from(&asked.0.recurrent);
        }
        push_observation(unroll, asked);
        unroll.push_step(UnrollStep {
            raw_action: decided.0.raw_action,
            keep_ratio: realised.keep_ratio,
            log_prob: decided.0.log_prob,
            value: decided.0.value,
            reward: step.reward,
            ends_walk: step.ends_walk,
            policy_version: version.0,
        });
    }
}

/// Takes the steps of a walk that is to be done again out of its actor's unroll: they would be learned from twice. An
/// unroll that is whole stays: the walk goes on behind it.
pub fn forget_failed_walks(
    mut actors: Query<(&Readiness, &RestartPoint, &mut Experience, &mut RecurrentState), With<Actor>>,
) {
    for (readiness, point, mut experience, mut recurrent) in &mut actors {
        if *readiness != Readiness::Restarting {
            continue;
        }
        if point.0.is_some() {
            recurrent.0.clone_from(&experience.restart_recurrent);
        }
        if experience.unroll.n_steps() < experience.length {
            forget_last_walk(&mut experience.unroll);
        }
    }
}

/// Cuts an unroll off behind the last step that ends a walk.
fn forget_last_walk(unroll: &mut Unroll) {
    let n_steps = unroll.ends_walk.iter().rposition(|&ends| ends).map_or(0, |at| at + 1);
    if n_steps == 0 {
        *unroll = Unroll::default();
        return;
    }
    // A collecting unroll has as many states as steps; the one behind the last comes when it is whole.
    unroll.truncate(n_steps);
}

fn push_observation(unroll: &mut Unroll, asked: &Asked) {
    let state = UnrollState {
        layer: asked.0.layer,
        even_ratio: asked.0.even_ratio,
        last_action: asked.0.last_action,
        last_reward: asked.0.last_reward,
        starts_walk: asked.0.layer == 0,
    };
    unroll.push_state(&asked.0.observation, state);
}

/// Moves trajectories into the queue, oldest first, of equal age in actor order. One that does not fit stays an entity,
/// and its actor is paused: nothing grows, nothing is lost, nothing blocks. One whose actor is gone goes all the same.
pub fn enqueue_trajectories(
    mut commands: Commands,
    queue: Res<TrajectorySender>,
    mut trajectories: Query<(Entity, &mut Trajectory, &Provenance)>,
    mut actors: Query<&mut Readiness, With<Actor>>,
    mut failure: ResMut<TrainFailure>,
) {
    let mut waiting: Vec<_> = trajectories.iter_mut().collect();
    waiting.sort_by_key(|(_, _, p)| (p.sequence, p.actor_index));
    for (entity, mut trajectory, provenance) in waiting {
        let unroll = std::mem::take(&mut trajectory.0);
        let (from, to) = match queue.0.try_send(Queued { ticket: provenance.ticket, unroll }) {
            Ok(()) => {
                commands.entity(entity).despawn();
                (Readiness::Paused, Readiness::Acting)
            }
            Err(TrySendError::Full(refused)) => {
                trajectory.0 = refused.unroll;
                (Readiness::Acting, Readiness::Paused)
            }
            Err(TrySendError::Disconnected(refused)) => {
                trajectory.0 = refused.unroll;
                failure.note(TrainError::QueueClosed { actor: provenance.actor_index });
                continue;
            }
        };
        if let Ok(mut readiness) = actors.get_mut(provenance.actor)
            && *readiness == from
        {
            *readiness = to;
        }
    }
}

#[cfg(test)]
mod tests;
