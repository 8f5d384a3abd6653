//! Actors whose candidate has a fault: each does its walk again.

use bevy_ecs::prelude::*;

use crate::components::*;

/// The components of an actor that a restart resets.
type Restarting<'w> = (&'w Actor, &'w mut Readiness, &'w mut Walk, &'w mut WalkEnd, &'w RestartPoint);

/// Puts every restarting actor at the beginning of its walk, or behind what was handed over of it, and despawns its
/// candidate.
pub fn restart_actors(mut commands: Commands, tasks: Query<&Budget>, mut actors: Query<Restarting<'_>>) {
    for (actor, mut readiness, mut walk, mut end, point) in &mut actors {
        let Ok(wall) = tasks.get(actor.task) else { continue };
        if *readiness == Readiness::Restarting {
            *readiness = Readiness::Acting;
            let start = || Walk::new(walk.number, walk.noise_free, wall.0.least_widths().to_vec());
            *walk = point.0.clone().unwrap_or_else(start);
            if let Some(candidate) = end.0.take() {
                commands.entity(candidate).try_despawn();
            }
        }
    }
}
