//! From a search to its plain form and back, always at the end of a tick.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bevy_ecs::prelude::*;
use bevy_ecs::query::QueryData;
use secateur_rl::Policy;
use secateur_sim::{
    Actor, ActorBundle, ArrivalTicks, Budget, BudgetWall, CandidateBundle, CandidateId, Finalists, KeepRatio, Kept,
    Macs, MadeBy, Observation, ObservationSpace, OnTask, PruneTask, PrunedNetwork, Readiness, Realised, RestartPoint,
    Restarts, Reward, ScoreCache, Spent, StepReward, TaskStats, Walk, WalkEnd, unpack,
};

use crate::components::*;
use crate::error::TrainError;
use crate::saved::{
    SavedActor, SavedEnd, SavedExperience, SavedLearner, SavedScore, SavedSearch, SavedTask, SavedTickets,
    SavedTrajectory, check_count, foreign_candidate,
};
use crate::scheduler::{PolicySlot, Tickets};
use crate::search::{Search, TaskResult};

impl Search {
    /// All that decides how the search goes on. Between ticks only; brings a learner that is on its thread to rest, of
    /// whose last update [`Self::take_events`] tells.
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
            arrival_ticks: world.resource::<ArrivalTicks>().0,
            tickets: world.get_resource::<Tickets>().map(saved_tickets),
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
        world.resource_mut::<ArrivalTicks>().0 = saved.arrival_ticks;
        let found = world.get_resource_mut::<Tickets>();
        check_count("ticket machines", usize::from(found.is_some()), usize::from(saved.tickets.is_some()))?;
        if let (Some(mut tickets), Some(SavedTickets { next, returned })) = (found, saved.tickets) {
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

/// All components of an actor. One more in [`ActorBundle`] or [`AgentBundle`] is an error here, and then in
/// [`saved_actor`], until it is decided whether it is saved.
#[derive(QueryData)]
struct WholeActor {
    actor: &'static Actor,
    readiness: &'static Readiness,
    walk: &'static Walk,
    restarts: &'static Restarts,
    restart_point: &'static RestartPoint,
    observation: &'static Observation,
    keep_ratio: &'static KeepRatio,
    realised: &'static Realised,
    walk_end: &'static WalkEnd,
    step_reward: &'static StepReward,
    asked: &'static Asked,
    decided: &'static Decided,
    recurrent: &'static RecurrentState,
    policy_version: &'static PolicyVersion,
    experience: Option<&'static Experience>,
}

impl WholeActorItem<'_, '_> {
    fn bundles(&self) -> (ActorBundle, AgentBundle) {
        let of_process = ActorBundle {
            actor: *self.actor,
            readiness: *self.readiness,
            walk: self.walk.clone(),
            restarts: *self.restarts,
            restart_point: self.restart_point.clone(),
            observation: self.observation.clone(),
            keep_ratio: *self.keep_ratio,
            realised: *self.realised,
            walk_end: *self.walk_end,
            step_reward: *self.step_reward,
        };
        let of_agent = AgentBundle {
            asked: self.asked.clone(),
            decided: self.decided.clone(),
            recurrent: self.recurrent.clone(),
            policy_version: *self.policy_version,
        };
        (of_process, of_agent)
    }
}

fn actors(world: &mut World) -> Vec<SavedActor> {
    let mut query = world.query::<WholeActor>();
    let mut found: Vec<_> = query.iter(world).collect();
    found.sort_by_key(|item| item.actor.index);
    found.iter().map(|item| saved_actor(world, item.bundles(), item.experience)).collect()
}

fn saved_actor(
    world: &World,
    (of_process, of_agent): (ActorBundle, AgentBundle),
    experience: Option<&Experience>,
) -> SavedActor {
    let ActorBundle {
        // Spawned with the world.
        actor: _,
        readiness,
        walk,
        restarts,
        restart_point: RestartPoint(restart_point),
        // Looked at, and asked for, before each decision.
        observation: _,
        keep_ratio: _,
        realised,
        walk_end,
        // Written before it is read in a tick.
        step_reward: _,
    } = of_process;
    let AgentBundle { asked, decided, recurrent, policy_version } = of_agent;
    let end = walk_end.0.and_then(|candidate| {
        Some(SavedEnd {
            kept: world.get::<Kept>(candidate)?.0.lists().to_vec(),
            spent: world.get::<Spent>(candidate)?.0.clone(),
            request: asked.0,
            decision: decided.0,
            keep_ratio: realised.keep_ratio,
        })
    });
    SavedActor {
        readiness,
        walk,
        restarts,
        restart_point,
        recurrent: recurrent.0,
        policy_version: policy_version.0,
        awaits: end,
        experience: experience.map(saved_experience),
    }
}

fn saved_experience(experience: &Experience) -> SavedExperience {
    // The length belongs to the setup.
    let Experience { unroll, length: _, sequence, restart_recurrent, ticket, next_ticket } = experience;
    SavedExperience {
        unroll: unroll.clone(),
        sequence: *sequence,
        restart_recurrent: restart_recurrent.clone(),
        ticket: *ticket,
        next_ticket: *next_ticket,
    }
}

fn saved_tickets(tickets: &Tickets) -> SavedTickets {
    // The others belong to the setup.
    let Tickets { next, returned, batch_size: _, lag_max: _ } = tickets;
    SavedTickets { next: *next, returned: returned.clone() }
}

fn trajectories(world: &mut World) -> Vec<SavedTrajectory> {
    let mut query = world.query::<(&Trajectory, &Provenance)>();
    let save = |(Trajectory(unroll), from): (&Trajectory, &Provenance)| {
        let Provenance { actor: _, actor_index: actor, incarnation, sequence, ticket } = *from;
        SavedTrajectory { actor, incarnation, sequence, ticket, unroll: unroll.clone() }
    };
    let mut out: Vec<SavedTrajectory> = query.iter(world).map(save).collect();
    out.sort_by_key(|t| (t.sequence, t.actor));
    out
}

/// Takes everything out of the queue and puts it back in the same order: between ticks the queue has no other user.
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
    let mut found: Vec<_> = actors.iter(world).map(|(e, actor, x)| (e, *actor, x.is_some())).collect();
    found.sort_by_key(|(_, actor, _)| actor.index);
    check_count("actors", found.len(), saved.len())?;
    for (&(entity, actor, learns), saved) in found.iter().zip(saved) {
        if let Some(wall) = world.get::<Budget>(actor.task) {
            let is_over = saved.readiness == Readiness::Retired || saved.awaits.is_some();
            check_walk(&wall.0, &saved.walk, is_over)?;
            saved.restart_point.iter().try_for_each(|point| check_walk(&wall.0, point, false))?;
        }
        check_count("actors that learn", usize::from(learns), usize::from(saved.experience.is_some()))?;
        let is_scoring = saved.readiness == Readiness::Scoring;
        check_count("candidates that wait for a score", usize::from(is_scoring), usize::from(saved.awaits.is_some()))?;
        restore_actor(world, (entity, actor), saved)?;
    }
    Ok(found.into_iter().map(|(entity, actor, _)| (entity, actor.index)).collect())
}

fn restore_actor(world: &mut World, (entity, actor): (Entity, Actor), saved: SavedActor) -> Result<(), TrainError> {
    let SavedActor { readiness, walk, restarts, restart_point, recurrent, policy_version, awaits, experience } = saved;
    if let Some(end) = awaits {
        restore_end(world, (entity, actor), walk.number, end)?;
    }
    let mut to = world.entity_mut(entity);
    let state = (RecurrentState(recurrent), PolicyVersion(policy_version));
    to.insert((readiness, walk, restarts, RestartPoint(restart_point), state));
    if let (Some(mut to), Some(saved)) = (to.get_mut::<Experience>(), experience) {
        let SavedExperience { unroll, sequence, restart_recurrent, ticket, next_ticket } = saved;
        *to = Experience { unroll, length: to.length, sequence, restart_recurrent, ticket, next_ticket };
    }
    Ok(())
}

/// Spawns the candidate of a walk that is over: the next tick has it repaired and scored, or sent elsewhere, as if it
/// were new.
fn restore_end(
    world: &mut World,
    (entity, actor): (Entity, Actor),
    walk: u64,
    end: SavedEnd,
) -> Result<(), TrainError> {
    let foreign = || foreign_candidate(&"one of no task");
    let task = world.get::<PruneTask>(actor.task).ok_or_else(foreign)?;
    let wall = world.get::<Budget>(actor.task).ok_or_else(foreign)?.0.clone();
    let (index, network) = (task.index, task.network);
    let prepared = world.get::<PrunedNetwork>(network).ok_or_else(foreign)?.prepared.clone();
    let SavedEnd { kept, spent, request, decision, keep_ratio } = end;
    let n_features = world.resource::<ObservationSpace>().n_features;
    check_count("features of a last decision", n_features, request.observation.len())?;
    let kept = prepared.kept(kept).map_err(|error| foreign_candidate(&error))?;
    let candidate = CandidateBundle {
        id: CandidateId { task: index, walk },
        made_by: MadeBy { actor: entity, index: actor.index },
        on: OnTask { task: actor.task, network },
        macs: Macs(wall.macs(&kept.widths())),
        kept: Kept(kept),
        spent: Spent(spent),
        reward: Reward::default(),
    };
    let candidate = world.spawn(candidate).id();
    let realised = Realised { place: wall.order().len().saturating_sub(1), keep_ratio };
    world.entity_mut(entity).insert((WalkEnd(Some(candidate)), Asked(request), Decided(decision), realised));
    Ok(())
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
