//! One search: an agent on the tasks of a scene, under the `lockstep` scheduler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_rl::{Agent, AgentKind, AgentSettings};
use secateur_sim::{
    Actor, Budget, Candidate, Event, EventLog, Failure, Finalists, ObservationSpace, Pool, Prepared, PruneTask,
    Readiness, Settings, Step, TaskSetup, TaskStats, Tick, panic_message, populate,
};

use crate::act::{act, ask_policy};
use crate::collect::{collect_steps, enqueue_trajectories, forget_failed_walks};
use crate::components::*;
use crate::error::TrainError;
use crate::learn::{learn, publish_policy};

/// What a search works on.
pub struct SearchSetup<'a> {
    /// Threads for repair and scoring.
    pub pool: Pool,
    /// Numbers of the run.
    pub settings: Settings,
    /// Networks, ready to be pruned.
    pub networks: &'a [Arc<Prepared>],
    /// Tasks.
    pub tasks: &'a [TaskSetup],
    /// Who decides.
    pub agent: AgentKind,
    /// Seed of all noise.
    pub seed: u64,
    /// Trajectories the queue holds.
    pub queue_capacity: usize,
}

/// What became of one task.
#[derive(Clone, Debug)]
pub struct TaskResult {
    /// Counts.
    pub stats: TaskStats,
    /// Best candidates, best first.
    pub finalists: Vec<Candidate>,
}

/// A running search. Actors and learner take turns within each tick, so the same setup gives the same result on any number of
/// threads.
pub struct Search {
    app: App,
    n_tasks: usize,
}

impl Search {
    /// Fills the world of `app`, which has the process and its plugins (see `PluginList::app` in `sim`): tasks, actors, learner.
    ///
    /// # Errors
    /// Budgets that cannot be met, settings the agent cannot run with.
    pub fn new(mut app: App, setup: &SearchSetup<'_>) -> Result<Self, TrainError> {
        let pool = setup.pool.clone();
        populate(&mut app, pool, setup.settings, setup.networks, setup.tasks)?;
        add_agent(&mut app, setup)?;
        Ok(Self { app, n_tasks: setup.tasks.len() })
    }

    /// One decision of every actor.
    ///
    /// # Errors
    /// The first failure of the tick; the search cannot go on after it.
    pub fn tick(&mut self) -> Result<Vec<Event>, TrainError> {
        let world = self.app.world_mut();
        // A panic outside of what is guarded candidate by candidate, such as in a plugin, leaves the world half way.
        catch_unwind(AssertUnwindSafe(|| world.run_schedule(Tick)))
            .map_err(|payload| TrainError::Panicked(panic_message(&*payload)))?;
        let failure = world.resource_mut::<Failure>().0.take();
        if let Some(error) = world.resource_mut::<LearningFailure>().0.take() {
            return Err(error);
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(std::mem::take(&mut world.resource_mut::<EventLog>().0)),
        }
    }

    /// Whether every actor has retired.
    pub fn is_done(&mut self) -> bool {
        let world = self.app.world_mut();
        let mut actors = world.query_filtered::<&Readiness, With<Actor>>();
        actors.iter(world).all(|r| *r == Readiness::Retired)
    }

    /// Counts and best candidates so far, in task order.
    pub fn results(&mut self) -> Vec<TaskResult> {
        let world = self.app.world_mut();
        let mut tasks = world.query::<(&PruneTask, &TaskStats, &Finalists)>();
        let mut out: Vec<(usize, TaskResult)> = tasks
            .iter(world)
            .map(|(task, stats, best)| (task.index, TaskResult { stats: *stats, finalists: best.best.clone() }))
            .collect();
        out.sort_by_key(|(index, _)| *index);
        debug_assert_eq!(out.len(), self.n_tasks);
        out.into_iter().map(|(_, result)| result).collect()
    }

    /// Decisions taken so far.
    pub fn env_steps(&self) -> u64 {
        self.app.world().resource::<EnvSteps>().0
    }

    /// Learner calls so far.
    pub fn learner_updates(&mut self) -> u64 {
        let world = self.app.world_mut();
        let mut learners = world.query::<&LearnerStats>();
        learners.iter(world).map(|s| s.n_updates).sum()
    }

    /// The world, for tests and plugins' tests.
    pub fn world_mut(&mut self) -> &mut World {
        self.app.world_mut()
    }
}

fn add_agent(app: &mut App, setup: &SearchSetup<'_>) -> Result<(), TrainError> {
    let world = app.world_mut();
    let n_features = world.resource::<ObservationSpace>().n_features;
    let mut walls = world.query::<(&PruneTask, &Budget)>();
    let mut lengths: Vec<(usize, usize)> = walls.iter(world).map(|(t, wall)| (t.index, wall.0.order().len())).collect();
    lengths.sort_unstable();
    let agent = secateur_rl::build(
        setup.agent,
        &AgentSettings {
            n_features,
            n_tasks: setup.tasks.len(),
            n_actors: setup.tasks.len() * setup.settings.actors_per_task,
            walk_length_max: lengths.iter().map(|(_, n)| *n).max().unwrap_or(1),
            walks_planned: setup.settings.walks_per_task * setup.tasks.len() as u64,
            keep_ratio_min: setup.settings.keep_ratio_min as f32,
            seed: setup.seed,
        },
    )?;
    world.insert_resource(CurrentPolicy(agent.policy()));
    world.init_resource::<EnvSteps>();
    world.init_resource::<LearningFailure>();
    let (sender, receiver) = crossbeam::channel::bounded(setup.queue_capacity);
    world.insert_resource(TrajectorySender(sender));
    world.insert_resource(TrajectoryReceiver(receiver));

    let mut actors = world.query::<(Entity, &Actor)>();
    let actors: Vec<(Entity, Entity)> = actors.iter(world).map(|(entity, actor)| (entity, actor.task)).collect();
    for (entity, task) in actors {
        let walk_length = world.get::<Budget>(task).map_or(1, |wall| wall.0.order().len());
        let state = (Asked::default(), Decided::default(), RecurrentState::default(), PolicyVersion::default());
        world.entity_mut(entity).insert(state);
        if let Agent::Learning(learner) = &agent {
            let length = learner.unroll_length(walk_length).max(1);
            world.entity_mut(entity).insert(Experience { length, ..Experience::default() });
        }
    }
    if let Agent::Learning(learner) = agent {
        world.spawn((LearnerState(Mutex::new(learner)), LearnerStats::default()));
    }
    app.add_systems(
        Tick,
        (
            (ask_policy, act).chain().in_set(Step::Act),
            (forget_failed_walks, collect_steps).chain().in_set(Step::Collect),
            enqueue_trajectories.in_set(Step::Enqueue),
            learn.in_set(Step::Learn),
            publish_policy.in_set(Step::Publish),
        ),
    );
    Ok(())
}
