//! From a search to its plain form and back, always at the end of a tick.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bevy_ecs::prelude::*;
use secateur_rl::Policy;
use secateur_sim::{
    Actor, Budget, BudgetWall, Finalists, PruneTask, PrunedNetwork, Readiness, RestartPoint, Restarts, ScoreCache,
    TaskStats, Walk, unpack,
};

use crate::components::*;
use crate::error::TrainError;
use crate::saved::{
    SavedActor, SavedExperience, SavedLearner, SavedScore, SavedSearch, SavedTask, SavedTrajectory, check_count,
    foreign_candidate,
};
use crate::scheduler::{PolicySlot, Tickets};
use crate::search::{Search, TaskResult};

impl Search {
    /// All that decides how the search goes on. Between ticks only; brings a learner that is on its thread to rest, of whose last
    /// update [`Self::take_events`] tells.
    ///
    /// # Errors
    /// A learner that cannot be written.
    pub fn save(&mut self) -> Result<SavedSearch, TrainError> {
        self.rest()?;
        let learner = self.learner_world().map_or(Ok(None), learner)?;
        let tasks = self.results().iter().map(SavedTask::of).collect();
        let world = self.world_mut();
        Ok(SavedSearch {
            tasks,
            actors: actors(world),
            trajectories: trajectories(world),
            queued: queued(world),
            learner,
            scores: scores(world.resource::<ScoreCache>()),
            env_steps: world.resource::<EnvSteps>().0,
            tickets: world.get_resource::<Tickets>().map(|t| (t.next, t.returned.clone())),
        })
    }

    /// Puts a fresh search of the same setup where `saved` was.
    ///
    /// # Errors
    /// [`TrainError::Saved`] if `saved` belongs to another setup; the search is of no use then.
    pub fn restore(&mut self, saved: SavedSearch) -> Result<(), TrainError> {
        let world = self.world_mut();
        restore_tasks(world, saved.tasks)?;
        let by_index = restore_actors(world, saved.actors)?;
        for trajectory in saved.trajectories {
            let &(actor, actor_index) = by_index.get(trajectory.actor).ok_or_else(|| TrainError::Saved {
                what: "the actor of a trajectory".into(),
                expected: format!("below {}", by_index.len()),
                got: trajectory.actor.to_string(),
            })?;
            let SavedTrajectory { incarnation, sequence, ticket, .. } = trajectory;
            let provenance = Provenance { actor, actor_index, incarnation, sequence, ticket };
            world.spawn((Trajectory(trajectory.unroll), provenance));
        }
        for unroll in saved.queued {
            let refused = world.resource::<TrajectorySender>().0.try_send(unroll).is_err();
            check_count("queued trajectories that fit", 0, usize::from(refused))?;
        }
        restore_scores(world, saved.scores)?;
        world.resource_mut::<EnvSteps>().0 = saved.env_steps;
        let found = world.get_resource_mut::<Tickets>();
        check_count("ticket machines", usize::from(found.is_some()), usize::from(saved.tickets.is_some()))?;
        if let (Some(mut tickets), Some((next, returned))) = (found, saved.tickets) {
            (tickets.next, tickets.returned) = (next, returned);
        }
        let policy = self.learner_world().map_or(Ok(None), |world| restore_learner(world, saved.learner))?;
        if let Some(policy) = policy {
            let world = self.world_mut();
            if let Some(slot) = world.get_resource::<PolicySlot>() {
                slot.publish(policy.clone());
            }
            world.insert_resource(CurrentPolicy(policy));
        }
        Ok(())
    }
}

fn actors(world: &mut World) -> Vec<SavedActor> {
    type Plain<'w> = (&'w Readiness, &'w Walk, &'w Restarts, &'w RestartPoint, &'w RecurrentState, &'w PolicyVersion);
    let mut query = world.query::<(&Actor, Plain<'_>, Option<&Experience>)>();
    let mut found: Vec<_> = query.iter(world).collect();
    found.sort_by_key(|(actor, ..)| actor.index);
    let saved = found.into_iter().map(|(_, plain, experience)| (plain, experience));
    let saved = saved.map(|((readiness, walk, restarts, point, recurrent, version), experience)| SavedActor {
        readiness: *readiness,
        walk: walk.clone(),
        restarts: *restarts,
        restart_point: point.0.clone(),
        recurrent: recurrent.0.clone(),
        policy_version: version.0,
        experience: experience.map(|e| SavedExperience {
            unroll: e.unroll.clone(),
            sequence: e.sequence,
            restart_recurrent: e.restart_recurrent.clone(),
            tickets: (e.ticket, e.next_ticket),
        }),
    });
    saved.collect()
}

fn trajectories(world: &mut World) -> Vec<SavedTrajectory> {
    let mut query = world.query::<(&Trajectory, &Provenance)>();
    let save = |(trajectory, from): (&Trajectory, &Provenance)| SavedTrajectory {
        actor: from.actor_index,
        incarnation: from.incarnation,
        sequence: from.sequence,
        ticket: from.ticket,
        unroll: trajectory.0.clone(),
    };
    let mut out: Vec<SavedTrajectory> = query.iter(world).map(save).collect();
    out.sort_by_key(|t| (t.sequence, t.actor));
    out
}

/// Takes everything out of the queue and puts it back in the same order; nobody else uses the queue between ticks.
fn queued(world: &World) -> Vec<Queued> {
    let unrolls: Vec<_> = world.resource::<TrajectoryReceiver>().0.try_iter().collect();
    for unroll in &unrolls {
        world.resource::<TrajectorySender>().0.try_send(unroll.clone()).expect("as much room as was just made");
    }
    unrolls
}

fn learner(world: &mut World) -> Result<Option<SavedLearner>, TrainError> {
    let mut query = world.query::<(&mut LearnerState, &LearnerStats)>();
    let Some((mut learner, stats)) = query.iter_mut(world).next() else { return Ok(None) };
    let state = learner.0.get_mut().unwrap_or_else(PoisonError::into_inner).save()?;
    let LearnerStats { n_updates, n_trajectories, pending } = stats.clone();
    Ok(Some(SavedLearner { state, n_updates, n_trajectories, pending }))
}

fn scores(cache: &ScoreCache) -> Vec<SavedScore> {
    cache.iter().map(|(network, kept, score)| SavedScore { network, kept: kept.to_vec(), score }).collect()
}

fn restore_tasks(world: &mut World, saved: Vec<SavedTask>) -> Result<(), TrainError> {
    let mut networks = world.query::<&PrunedNetwork>();
    let mut tasks = world.query::<(Entity, &PruneTask)>();
    let mut found: Vec<_> = tasks.iter(world).map(|(entity, t)| (t.index, entity, t.network)).collect();
    found.sort_by_key(|(index, ..)| *index);
    check_count("tasks", found.len(), saved.len())?;
    for ((_, entity, network), task) in found.into_iter().zip(saved) {
        let Ok(network) = networks.get(world, network) else { continue };
        let TaskResult { stats, finalists } = task.restore(&network.prepared)?;
        let mut task = world.entity_mut(entity);
        let n_wanted = task.get::<TaskStats>().map_or(0, |s| s.n_wanted);
        check_count("walks of a task", n_wanted as usize, stats.n_wanted as usize)?;
        task.insert(stats);
        if let Some(mut best) = task.get_mut::<Finalists>() {
            best.best = finalists;
        }
    }
    Ok(())
}

/// Entity and index of every actor, by index.
fn restore_actors(world: &mut World, saved: Vec<SavedActor>) -> Result<Vec<(Entity, usize)>, TrainError> {
    let mut actors = world.query::<(Entity, &Actor, Option<&Experience>)>();
    let mut found: Vec<_> = actors.iter(world).map(|(e, actor, x)| (actor.index, e, actor.task, x.is_some())).collect();
    found.sort_by_key(|(index, ..)| *index);
    check_count("actors", found.len(), saved.len())?;
    for ((_, entity, task, learns), actor) in found.iter().zip(saved) {
        if let Some(wall) = world.get::<Budget>(*task) {
            check_walk(&wall.0, &actor.walk, actor.readiness == Readiness::Retired)?;
            actor.restart_point.iter().try_for_each(|point| check_walk(&wall.0, point, false))?;
        }
        check_count("actors that learn", usize::from(*learns), usize::from(actor.experience.is_some()))?;
        let mut to = world.entity_mut(*entity);
        let state = (RecurrentState(actor.recurrent), PolicyVersion(actor.policy_version));
        to.insert((actor.readiness, actor.walk, actor.restarts, RestartPoint(actor.restart_point), state));
        if let (Some(mut experience), Some(saved)) = (to.get_mut::<Experience>(), actor.experience) {
            experience.unroll = saved.unroll;
            experience.sequence = saved.sequence;
            experience.restart_recurrent = saved.restart_recurrent;
            (experience.ticket, experience.next_ticket) = saved.tickets;
        }
    }
    Ok(found.into_iter().map(|(index, entity, ..)| (entity, index)).collect())
}

/// Refuses a walk that does not stand within this wall; one that is over may stand at its end.
pub(crate) fn check_walk(wall: &BudgetWall, walk: &Walk, is_over: bool) -> Result<(), TrainError> {
    check_count("groups of a walk", wall.least_widths().len(), walk.widths.len())?;
    let mut expected = wall.least_widths().to_vec();
    for (place, &group) in wall.order().iter().enumerate() {
        if wall.bounds(place).widths().contains(&walk.widths[group]) {
            expected[group] = walk.widths[group];
        }
    }
    let stands = is_over || walk.cursor < wall.order().len();
    if expected == walk.widths && stands && wall.allows(&walk.widths) {
        return Ok(());
    }
    Err(TrainError::Saved {
        what: format!("walk {}", walk.number),
        expected: "a walk within its budget".into(),
        got: format!("place {} with widths {:?}", walk.cursor, walk.widths),
    })
}

fn restore_learner(world: &mut World, saved: Option<SavedLearner>) -> Result<Option<Arc<dyn Policy>>, TrainError> {
    let mut query = world.query::<(&mut LearnerState, &mut LearnerStats)>();
    let found = query.iter_mut(world).next();
    check_count("learners", usize::from(found.is_some()), usize::from(saved.is_some()))?;
    let (Some((mut learner, mut stats)), Some(saved)) = (found, saved) else { return Ok(None) };
    let learner = learner.0.get_mut().unwrap_or_else(PoisonError::into_inner);
    learner.load(&saved.state)?;
    let SavedLearner { n_updates, n_trajectories, pending, .. } = saved;
    check_count("updates that the learner remembers", n_updates as usize, learner.n_updates() as usize)?;
    *stats = LearnerStats { n_updates, n_trajectories, pending };
    Ok(Some(learner.policy()))
}

fn restore_scores(world: &mut World, saved: Vec<SavedScore>) -> Result<(), TrainError> {
    let mut networks = world.query::<&PrunedNetwork>();
    let prepared: BTreeMap<usize, _> = networks.iter(world).map(|n| (n.index, n.prepared.clone())).collect();
    let mut cache = world.resource_mut::<ScoreCache>();
    for SavedScore { network, kept, score } in saved {
        let prepared = prepared.get(&network).ok_or_else(|| TrainError::Saved {
            what: "the network of a score".into(),
            expected: format!("below {}", prepared.len()),
            got: network.to_string(),
        })?;
        let kept = unpack(&kept).ok_or_else(|| foreign_candidate(&"kept channels that are cut short"))?;
        let kept = prepared.kept(kept).map_err(|error| foreign_candidate(&error))?;
        cache.insert(network, kept, score);
    }
    Ok(())
}
