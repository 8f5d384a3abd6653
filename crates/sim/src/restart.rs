//! Actors whose candidate panicked: each is restarted with its task and does its walk again.

use bevy_ecs::prelude::*;

use crate::components::*;
use crate::error::SimError;
use crate::events::{Event, EventLog};
use crate::world::Failure;

/// Times the candidate of one walk may panic before the run stops.
const N_TRIES_OF_WALK: u32 = 4;

/// Takes every actor whose candidate has no score out of the tick, so that nothing of its walk is paid, learned from or counted.
/// An actor that waited for the score of an equal candidate goes with it.
pub fn fail_candidates(
    tasks: Query<&PruneTask>,
    mut actors: Query<(&Actor, &mut Readiness, &Outcome, &mut Restarts)>,
    mut log: ResMut<EventLog>,
    mut failure: ResMut<Failure>,
) {
    let mut ended: Vec<_> =
        actors.iter_mut().filter(|(_, _, o, _)| o.0.as_ref().is_some_and(|c| c.score.is_none())).collect();
    ended.sort_by_key(|(actor, ..)| actor.index);
    for (actor, readiness, outcome, restarts) in &mut ended {
        let (Ok(task), Some(candidate)) = (tasks.get(actor.task), &outcome.0) else { continue };
        **readiness = Readiness::Restarting;
        restarts.n += 1;
        restarts.of_walk += u32::from(candidate.fault.is_some());
        let message = candidate.fault.clone().unwrap_or_else(|| "an equal candidate has no score".to_owned());
        log.0.push(Event::Restarted {
            task: task.index,
            actor: actor.index,
            walk: candidate.walk,
            message: message.clone(),
        });
        if restarts.of_walk >= N_TRIES_OF_WALK {
            let n_times = std::mem::take(&mut restarts.of_walk);
            failure.note(SimError::Panicked { task: task.name.clone(), walk: candidate.walk, n_times, message });
        }
    }
}

/// What of an actor begins again.
type Restarting<'w> = (&'w Actor, &'w mut Readiness, &'w mut Walk, &'w mut Outcome, &'w RestartPoint);

/// Puts every restarting actor at the beginning of its walk, or behind what was handed over of it.
pub fn restart_actors(tasks: Query<&Budget>, mut actors: Query<Restarting<'_>>) {
    for (actor, mut readiness, mut walk, mut outcome, point) in &mut actors {
        let Ok(wall) = tasks.get(actor.task) else { continue };
        if *readiness == Readiness::Restarting {
            *readiness = Readiness::Acting;
            let start = || Walk::new(walk.number, walk.noise_free, wall.0.least_widths().to_vec());
            *walk = point.0.clone().unwrap_or_else(start);
            outcome.0 = None;
        }
    }
}
