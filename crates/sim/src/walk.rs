//! The walk of an actor through its network: observe, clamp, and begin again.

use bevy_ecs::prelude::*;

use crate::components::*;
use crate::error::SimError;
use crate::network::IndexOf;
use crate::observation::{Standing, observe};
use crate::world::{ObservationSpace, Settings, TickFailure};

/// Writes what every actor that acts, or only looks, sees before its next decision.
pub fn observe_layers(
    (space, settings): (Res<ObservationSpace>, Res<Settings>),
    tasks: Query<(&PruneTask, &Budget)>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &Readiness, &Walk, &mut Observation)>,
    mut widths: Local<Vec<usize>>,
) {
    for (actor, readiness, walk, mut observation) in &mut actors {
        let Ok((task, wall)) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        if !matches!(readiness, Readiness::Acting | Readiness::Looking) {
            continue;
        }
        let prepared = &network.prepared;
        let order = wall.0.order();
        // Reduced counts what earlier decisions saved: groups not yet decided stand at full width.
        widths.clone_from(&walk.widths);
        order[walk.cursor..].iter().for_each(|&g| widths[g] = prepared.groups.group(g).n_channels);
        let standing = Standing {
            layer: IndexOf { index: walk.cursor, of: order.len() },
            shapes: &prepared.shapes,
            macs_full: prepared.macs_full,
            budget_ratio: task.budget_ratio,
            network: prepared.network_index,
            dataset: prepared.dataset_index,
            last_action: walk.last_action,
        };
        observe(&standing, &space.scale, &prepared.model, &widths, &mut observation.features);
        let even = wall.0.even_ratio(&mut widths, walk.cursor);
        observation.even_ratio = even.max(settings.keep_ratio_min as f32);
    }
}

/// Turns the keep ratio the policy asks for into a width that the budget allows, and steps on.
pub fn clamp_keep_ratio(
    tasks: Query<(&PruneTask, &Budget)>,
    mut actors: Query<(&Actor, &Readiness, &KeepRatio, &mut Walk, &mut Realised)>,
    mut failure: ResMut<TickFailure>,
) {
    for (actor, readiness, wanted, mut walk, mut realised) in &mut actors {
        let Ok((task, wall)) = tasks.get(actor.task) else { continue };
        if *readiness != Readiness::Acting {
            continue;
        }
        if !wanted.0.is_finite() {
            let (task, got) = (task.name.clone(), wanted.0.to_string());
            failure.note(SimError::KeepRatio { task, walk: walk.number, got });
            continue;
        }
        let place = walk.cursor;
        let width = wall.0.clamp(&mut walk.widths, place, wanted.0);
        let keep_ratio = width as f32 / wall.0.bounds(place).n_channels() as f32;
        *realised = Realised { place, keep_ratio };
        walk.last_action = keep_ratio;
        walk.cursor += 1;
    }
}

/// The components of an actor that change between two walks.
type BetweenWalks<'w> = (
    &'w Actor,
    &'w mut Readiness,
    &'w mut Walk,
    &'w mut WalkEnd,
    (&'w mut Restarts, &'w mut RestartPoint),
    &'w mut StepReward,
);

/// Starts the next walk of every actor whose walk ended, in actor order; retires actors whose task has none left.
pub fn begin_walks(
    settings: Res<Settings>,
    mut tasks: Query<(&Budget, &mut TaskStats)>,
    mut actors: Query<BetweenWalks<'_>>,
) {
    let mut ended: Vec<_> = actors.iter_mut().filter(|(.., reward)| reward.ends_walk).collect();
    ended.sort_by_key(|(actor, ..)| actor.index);
    for (actor, readiness, walk, end, (restarts, point), reward) in &mut ended {
        let Ok((wall, mut stats)) = tasks.get_mut(actor.task) else { continue };
        end.0 = None;
        restarts.of_walk = 0;
        point.0 = None;
        **reward = StepReward::default();
        if !stats.has_walks_left(settings.ends_after) {
            **readiness = Readiness::Retired;
            continue;
        }
        let noise_free = settings.noise_free.holds(stats.n_begun, stats.n_wanted);
        **walk = Walk::new(stats.n_begun, noise_free, wall.0.least_widths().to_vec());
        stats.n_begun += 1;
    }
}

impl Walk {
    /// A walk before its first decision.
    pub fn new(number: u64, noise_free: bool, least_widths: Vec<usize>) -> Self {
        Self { number, cursor: 0, widths: least_widths, last_action: 0.0, last_reward: 0.0, noise_free }
    }
}
