//! One search: an agent on the tasks of a scene, under a scheduler.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use bevy_app::App;
use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{MultiThreadedExecutor, SingleThreadedExecutor};
use secateur_rl::{Agent, AgentSettings, EnvironmentSpec, RlError};
use secateur_sim::{
    Actor, Budget, EventLog, Finalist, Finalists, LateScores, ObservationSpace, Pool, Prepared, PruneTask, Readiness,
    Settings, Step, TaskSetup, TaskStats, Tick, TickFailure, observe_layers, panic_message, populate,
};

use crate::act::{act, ask_policy};
use crate::collect::{collect_steps, enqueue_trajectories, forget_failed_walks};
use crate::components::*;
use crate::error::TrainError;
use crate::events::{SearchEvent, SearchLog};
use crate::learn::{learn, publish_policy};
use crate::scheduler::{
    Executor, LearnTick, LearnerThread, NAP, PolicySlot, Scheduler, Tickets, hold_stale_actors, learner_world,
    receive_policy,
};

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
    pub agent: &'a dyn AgentSettings,
    /// Seed of all noise.
    pub seed: u64,
    /// Trajectories the queue holds.
    pub queue_capacity: usize,
    /// How actors and learner share time.
    pub scheduler: Scheduler,
    /// What runs the systems of a tick.
    pub executor: Executor,
}

/// The result of one task.
#[derive(Clone, Debug)]
pub struct TaskResult {
    /// Counts.
    pub stats: TaskStats,
    /// Best candidates, best first.
    pub finalists: Vec<Finalist>,
}

/// A running search.
pub struct Search {
    app: App,
    n_tasks: usize,
    learner: LearnerSide,
}

/// Where the learner is.
enum LearnerSide {
    /// In the actors' world, or there is none.
    Inline,
    /// In a world of its own, between two updates.
    Resting(Box<World>),
    /// In a world of its own, on a thread of its own.
    Running(LearnerThread),
    /// Gone in a panic.
    Lost,
}

impl Search {
    /// Fills the world of `app`, which has the process and its plugins (see `PluginList::app` in `sim`): tasks, actors,
    /// learner.
    ///
    /// # Errors
    /// Budgets that cannot be met, settings the agent cannot run with.
    pub fn new(app: App, setup: &SearchSetup<'_>) -> Result<Self, TrainError> {
        Self::with_agent(app, setup, |environment| secateur_rl::build(setup.agent, environment))
    }

    /// As [`Self::new`], with an agent of the caller's own instead of that of `setup`.
    ///
    /// # Errors
    /// Budgets that cannot be met, what `build` returns.
    pub fn with_agent(
        mut app: App,
        setup: &SearchSetup<'_>,
        build: impl FnOnce(&EnvironmentSpec) -> Result<Agent, RlError>,
    ) -> Result<Self, TrainError> {
        let pool = setup.pool.clone();
        populate(&mut app, pool, setup.settings, setup.networks, setup.tasks)?;
        app.edit_schedule(Tick, |schedule| {
            match setup.executor {
                Executor::Single => schedule.set_executor(SingleThreadedExecutor::new()),
                Executor::Multi => schedule.set_executor(MultiThreadedExecutor::new()),
            };
        });
        app.insert_resource(match setup.scheduler {
            Scheduler::Lockstep => LateScores::TickWaits,
            Scheduler::Async | Scheduler::BoundedLag { .. } => LateScores::ActorWaits,
        });
        let agent = build(&environment(app.world_mut(), setup))?;
        let learner = add_agent(&mut app, setup, agent);
        Ok(Self { app, n_tasks: setup.tasks.len(), learner })
    }

    /// One decision of every actor that can act. Where the learner has a thread of its own, this starts it.
    ///
    /// # Errors
    /// The first failure of the tick; the search cannot go on after it. [`Self::take_events`] returns what happened
    /// until then.
    pub fn tick(&mut self) -> Result<Vec<SearchEvent>, TrainError> {
        self.check_learner()?;
        self.catch_up()?;
        self.start_learner()?;
        self.wait_for_others();
        let world = self.app.world_mut();
        // A panic outside of what is guarded candidate by candidate, such as in a plugin, leaves the world half way.
        catch_unwind(AssertUnwindSafe(|| world.run_schedule(Tick)))
            .map_err(|payload| TrainError::Panicked(panic_message(&*payload)))?;
        // Else what was despawned would be remembered for good, and not for two ticks.
        world.clear_trackers();
        let of_process = world.resource_mut::<TickFailure>().0.take();
        let of_acting = world.resource_mut::<TrainFailure>().0.take();
        self.check_learner()?;
        match of_acting.or(of_process.map(TrainError::from)) {
            Some(error) => Err(error),
            None => Ok(self.take_events()),
        }
    }

    /// Whether every actor has retired and handed over what it lived through.
    pub fn is_done(&mut self) -> bool {
        let world = self.app.world_mut();
        let mut actors = world.query_filtered::<(&Readiness, Option<&Experience>), With<Actor>>();
        let handed_over = |e: Option<&Experience>| e.is_none_or(|e| e.unroll.n_steps() == 0);
        let all_retired = actors.iter(world).all(|(r, e)| *r == Readiness::Retired && handed_over(e));
        all_retired && world.query::<&Trajectory>().iter(world).next().is_none()
    }

    /// After the last walk: learns from what is left, the last batch however small, so that every trajectory was
    /// learned from.
    ///
    /// # Errors
    /// A learner's failure.
    pub fn finish(&mut self) -> Result<Vec<SearchEvent>, TrainError> {
        self.rest()?;
        self.check_learner()?;
        match &mut self.learner {
            LearnerSide::Inline => {
                self.app.world_mut().insert_resource(BatchRule::Rest);
                return self.tick();
            }
            LearnerSide::Resting(world) => {
                world.insert_resource(BatchRule::Rest);
                loop {
                    world.run_schedule(LearnTick);
                    let events = std::mem::take(&mut world.resource_mut::<SearchLog>().0);
                    if events.is_empty() {
                        break;
                    }
                    note(self.app.world_mut(), events);
                }
            }
            LearnerSide::Running(_) | LearnerSide::Lost => {}
        }
        self.check_learner()?;
        Ok(self.take_events())
    }

    /// A batch that a learner in the actors' world failed on waits for it still when the search goes on from a
    /// checkpoint: it is learned from before any actor acts, as it would have been.
    fn catch_up(&mut self) -> Result<(), TrainError> {
        if !matches!(self.learner, LearnerSide::Inline) {
            return Ok(());
        }
        let world = self.app.world_mut();
        let mut learners = world.query::<(&mut LearnerState, &LearnerStats)>();
        let waits = learners.iter_mut(world).any(|(mut state, stats)| {
            let learner = state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
            stats.pending.len() >= learner.batch_size().max(1)
        });
        if !waits {
            return Ok(());
        }
        let ran = world.run_system_cached(learn).and_then(|()| world.run_system_cached(publish_policy));
        ran.map_err(|error| TrainError::Panicked(error.to_string()))?;
        self.check_learner()
    }

    /// What happened that neither [`Self::tick`] nor [`Self::finish`] returned: while a learner came to rest to be
    /// saved, or in a tick that failed.
    pub fn take_events(&mut self) -> Vec<SearchEvent> {
        let world = self.app.world_mut();
        note(world, Vec::new());
        let mut events = std::mem::take(&mut world.resource_mut::<SearchLog>().0);
        if let LearnerSide::Running(thread) = &self.learner {
            events.extend(thread.events());
        }
        events
    }

    fn start_learner(&mut self) -> Result<(), TrainError> {
        if let LearnerSide::Resting(_) = &self.learner
            && let LearnerSide::Resting(world) = std::mem::replace(&mut self.learner, LearnerSide::Lost)
        {
            self.learner = LearnerSide::Running(LearnerThread::start(*world)?);
        }
        Ok(())
    }

    /// Brings a learner that is on its thread to rest; [`Self::take_events`] or the next tick returns what happened
    /// meanwhile.
    pub(crate) fn rest(&mut self) -> Result<(), TrainError> {
        if let LearnerSide::Running(_) = &self.learner
            && let LearnerSide::Running(thread) = std::mem::replace(&mut self.learner, LearnerSide::Lost)
        {
            let (world, events) = thread.stop()?;
            self.learner = LearnerSide::Resting(Box::new(world));
            note(self.app.world_mut(), events);
        }
        Ok(())
    }

    /// Sleeps a little if no actor can act before the learner does something or a score arrives.
    fn wait_for_others(&mut self) {
        let world = self.app.world_mut();
        let mut actors = world.query_filtered::<&Readiness, With<Actor>>();
        let (mut acts, mut scores) = (false, false);
        for readiness in actors.iter(world) {
            acts |= *readiness == Readiness::Acting;
            scores |= *readiness == Readiness::Scoring;
        }
        match world.get_resource::<PolicySlot>() {
            _ if acts => {}
            Some(slot) => slot.nap(world.resource::<CurrentPolicy>().0.version()),
            None if scores && *world.resource::<LateScores>() == LateScores::ActorWaits => std::thread::sleep(NAP),
            None => {}
        }
    }

    /// # Errors
    /// What stopped the learner, if anything; unless it is at work.
    fn check_learner(&mut self) -> Result<(), TrainError> {
        if matches!(&self.learner, LearnerSide::Running(thread) if thread.ended()) {
            self.rest()?;
        }
        let failure = self.learner_world().and_then(|world| world.resource_mut::<TrainFailure>().0.take());
        failure.map_or(Ok(()), Err)
    }

    /// The world that the learner is in, unless it is on its thread: for tests.
    pub fn learner_world(&mut self) -> Option<&mut World> {
        match &mut self.learner {
            LearnerSide::Inline => Some(self.app.world_mut()),
            LearnerSide::Resting(world) => Some(world),
            LearnerSide::Running(_) | LearnerSide::Lost => None,
        }
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

    /// What the learner did so far; brings one that is on its thread to rest. None for agents that do not learn.
    pub fn learner_stats(&mut self) -> Option<LearnerStats> {
        self.rest().ok()?;
        let world = self.learner_world()?;
        world.query::<&LearnerStats>().iter(world).next().cloned()
    }

    /// Learner calls so far.
    pub fn learner_updates(&mut self) -> u64 {
        self.learner_stats().map_or(0, |stats| stats.n_updates)
    }

    /// The actors' world, for tests and plugins' tests.
    pub fn world_mut(&mut self) -> &mut World {
        self.app.world_mut()
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        // There is nobody left to return a failure to.
        drop(self.rest());
    }
}

/// Notes events behind what the process noted so far.
fn note(world: &mut World, events: Vec<SearchEvent>) {
    let of_process = std::mem::take(&mut world.resource_mut::<EventLog>().0);
    let mut log = world.resource_mut::<SearchLog>();
    log.0.extend(of_process.into_iter().map(SearchEvent::Process).chain(events));
}

fn environment(world: &mut World, setup: &SearchSetup<'_>) -> EnvironmentSpec {
    let n_features = world.resource::<ObservationSpace>().n_features;
    let mut walls = world.query::<&Budget>();
    let walk_length_max = walls.iter(world).map(|wall| wall.0.order().len()).max().unwrap_or(1);
    EnvironmentSpec {
        n_features,
        n_tasks: setup.tasks.len(),
        n_actors: setup.tasks.len() * setup.settings.actors_per_task,
        walk_length_max,
        walks_planned: setup.settings.walks_per_task * setup.tasks.len() as u64,
        keep_ratio_min: setup.settings.keep_ratio_min as f32,
        seed: setup.seed,
    }
}

fn add_agent(app: &mut App, setup: &SearchSetup<'_>, agent: Agent) -> LearnerSide {
    add_acting(app, &agent, setup.queue_capacity);
    let Agent::Learning(learner) = agent else { return LearnerSide::Inline };
    let rule = match setup.scheduler {
        Scheduler::BoundedLag { .. } => BatchRule::Ticket,
        Scheduler::Lockstep | Scheduler::Async => BatchRule::Arrival,
    };
    if let Scheduler::BoundedLag { max } = setup.scheduler {
        let batch_size = learner.batch_size().max(1) as u64;
        app.insert_resource(Tickets { next: 0, returned: BTreeSet::new(), batch_size, lag_max: max });
        app.add_systems(Tick, hold_stale_actors.in_set(Step::Observe).before(observe_layers));
    }
    let world = app.world_mut();
    if setup.scheduler == Scheduler::Lockstep {
        world.insert_resource(rule);
        world.spawn((LearnerState(Mutex::new(learner)), LearnerStats::default()));
        app.add_systems(Tick, (learn.in_set(Step::Learn), publish_policy.in_set(Step::Publish)));
        return LearnerSide::Inline;
    }
    let slot = PolicySlot::new(learner.policy());
    world.insert_resource(slot.clone());
    let mut apart = learner_world(rule, world.resource::<TrajectoryReceiver>().clone(), slot);
    apart.spawn((LearnerState(Mutex::new(learner)), LearnerStats::default()));
    app.add_systems(Tick, receive_policy.in_set(Step::Publish));
    LearnerSide::Resting(Box::new(apart))
}

/// Everything on the actors' side: policy, queue, what each actor remembers, and the systems of acting and collecting.
fn add_acting(app: &mut App, agent: &Agent, queue_capacity: usize) {
    let world = app.world_mut();
    world.insert_resource(CurrentPolicy(agent.policy()));
    world.init_resource::<EnvSteps>();
    world.init_resource::<TrainFailure>();
    world.init_resource::<SearchLog>();
    let (sender, receiver) = crossbeam::channel::bounded(queue_capacity);
    world.insert_resource(TrajectorySender(sender));
    world.insert_resource(TrajectoryReceiver(receiver));
    let mut actors = world.query::<(Entity, &Actor)>();
    let actors: Vec<(Entity, Entity)> = actors.iter(world).map(|(entity, actor)| (entity, actor.task)).collect();
    for (entity, task) in actors {
        let walk_length = world.get::<Budget>(task).map_or(1, |wall| wall.0.order().len());
        world.entity_mut(entity).insert(AgentBundle::default());
        if let Agent::Learning(learner) = agent {
            let length = learner.unroll_length(walk_length).max(1);
            world.entity_mut(entity).insert(Experience { length, ..Experience::default() });
        }
    }
    app.add_systems(
        Tick,
        (
            (ask_policy, act).chain().in_set(Step::Act),
            (forget_failed_walks, collect_steps).chain().in_set(Step::Collect),
            enqueue_trajectories.in_set(Step::Enqueue),
        ),
    );
}

#[cfg(test)]
mod tests;
