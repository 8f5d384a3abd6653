//! How actors and learner share time.
//!
//! Under [`Scheduler::Lockstep`] the learner is a system of the actors' world. Otherwise it has a world of its own on a
//! thread of its own; between the two worlds are the bounded queue and a [`PolicySlot`].

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{LogLevel, ScheduleBuildSettings, ScheduleLabel, SingleThreadedExecutor};
use crossbeam::channel::{Receiver, Select, Sender, unbounded};
use secateur_rl::Policy;
use secateur_sim::{Actor, Readiness, Walk, panic_message};
use serde::{Deserialize, Serialize};

use crate::components::*;
use crate::error::TrainError;
use crate::events::{SearchEvent, SearchLog};
use crate::learn::learn_once;

/// How actors and learner share time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Scheduler {
    /// They alternate: deterministic.
    #[default]
    Lockstep,
    /// The learner has a thread of its own; actors never wait for it unless the queue is full.
    Async,
    /// As `Async`, but no step is ever learned from more than `max` updates after the policy that acted in it: an actor
    /// that could not keep that waits for a newer policy, and batches are made in the order in which unrolls were
    /// begun.
    BoundedLag {
        /// Most updates between acting and learning policy; 1 when a scene leaves it out.
        #[serde(default = "default_lag_max")]
        max: u64,
    },
}

fn default_lag_max() -> u64 {
    1
}

/// What runs the systems of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Executor {
    /// One after the other.
    #[default]
    Single,
    /// Those that do not touch the same data at once, on bevy's compute threads.
    Multi,
}

impl Scheduler {
    /// As results and the command line name it: `lockstep`, `async`, `bounded_lag:2`.
    pub fn name(self) -> String {
        match self {
            Self::Lockstep => "lockstep".to_owned(),
            Self::Async => "async".to_owned(),
            Self::BoundedLag { max } => format!("bounded_lag:{max}"),
        }
    }
}

/// As [`Scheduler::name`] writes it; `bounded_lag` alone is `bounded_lag:1`.
impl FromStr for Scheduler {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let (name, max) = text.split_once(':').map_or((text, None), |(name, max)| (name, Some(max)));
        match (name, max) {
            ("lockstep", None) => Ok(Self::Lockstep),
            ("async", None) => Ok(Self::Async),
            ("bounded_lag", None) => Ok(Self::BoundedLag { max: default_lag_max() }),
            ("bounded_lag", Some(max)) => {
                let fail = |_| TrainError::SchedulerName(format!("the lag '{max}' is no whole number"));
                Ok(Self::BoundedLag { max: max.parse().map_err(fail)? })
            }
            _ => Err(TrainError::SchedulerName(
                "unknown scheduler; expected lockstep, async or bounded_lag[:MAX]".to_owned(),
            )),
        }
    }
}

impl Executor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Single, Self::Multi];

    /// As results and the command line name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multi => "multi",
        }
    }
}

/// Longest time that a thread sleeps without looking for something to do.
pub(crate) const NAP: Duration = Duration::from_millis(2);

/// The newest policy, between a learner's world and its actors'.
#[derive(Resource, Clone)]
pub struct PolicySlot(Arc<Slot>);

struct Slot {
    newest: Mutex<Arc<dyn Policy>>,
    published: Condvar,
    /// Time in which not one of the actors could act, nanoseconds.
    actors_waited: AtomicU64,
}

impl PolicySlot {
    /// A slot with a policy in it.
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        let slot = Slot { newest: Mutex::new(policy), published: Condvar::new(), actors_waited: AtomicU64::new(0) };
        Self(Arc::new(slot))
    }

    /// The newest policy.
    pub fn newest(&self) -> Arc<dyn Policy> {
        self.lock().clone()
    }

    /// Puts a policy in, which takes no longer than to swap a pointer.
    pub fn publish(&self, policy: Arc<dyn Policy>) {
        *self.lock() = policy;
        self.0.published.notify_all();
    }

    /// Sleeps a little, or until there is another policy than that of `version`.
    pub(crate) fn nap(&self, version: u64) {
        let start = Instant::now();
        let guard = self.lock();
        if guard.version() == version {
            drop(self.0.published.wait_timeout(guard, NAP));
        }
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.actors_waited.fetch_add(waited, Ordering::Relaxed);
    }

    /// A pointer is swapped whole, so a poisoned lock is as good as new.
    fn lock(&self) -> MutexGuard<'_, Arc<dyn Policy>> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unrolls begun so far, and what their number may be.
#[derive(Resource, Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// The next ticket.
    pub next: u64,
    /// Tickets of actors that retired without using them; they go first.
    pub returned: BTreeSet<u64>,
    /// Unrolls of a batch.
    pub batch_size: u64,
    /// Most updates between acting and learning policy.
    pub lag_max: u64,
}

impl Tickets {
    /// A ticket for an unroll whose first step the policy of `version` takes, unless it would be learned from too late:
    /// batches are made of tickets in order, so the learner will have made `ticket / batch_size` updates by then.
    pub fn take(&mut self, version: u64) -> Option<u64> {
        let ticket = self.returned.first().copied().unwrap_or(self.next);
        if ticket / self.batch_size > version.saturating_add(self.lag_max) {
            return None;
        }
        if !self.returned.remove(&ticket) {
            self.next += 1;
        }
        Some(ticket)
    }
}

/// Lets actors begin an unroll only with a policy that is new enough. One that has begun an unroll is never held up.
pub fn hold_stale_actors(
    policy: Res<CurrentPolicy>,
    mut tickets: ResMut<Tickets>,
    mut actors: Query<(&Actor, &mut Readiness, &Walk, &mut Experience)>,
) {
    for (.., mut experience) in actors.iter_mut().filter(|(_, readiness, ..)| **readiness == Readiness::Retired) {
        let unused = if experience.unroll.n_steps() == 0 { experience.ticket.take() } else { None };
        tickets.returned.extend(unused.into_iter().chain(experience.next_ticket.take()));
    }
    let able = |r: &Readiness| matches!(r, Readiness::Acting | Readiness::Looking);
    let mut able: Vec<_> = actors.iter_mut().filter(|(_, readiness, ..)| able(readiness)).collect();
    able.sort_by_key(|(actor, ..)| actor.index);
    for (_, readiness, walk, experience) in &mut able {
        let is_whole = experience.unroll.n_steps() == experience.length;
        let ticket = if is_whole { &mut experience.next_ticket } else { &mut experience.ticket };
        if ticket.is_none() && !walk.noise_free {
            *ticket = tickets.take(policy.0.version());
        }
        let goes = ticket.is_some() || walk.noise_free;
        readiness.set_if_neq(if goes { Readiness::Acting } else { Readiness::Looking });
    }
}

/// Takes the newest policy out of the slot.
pub fn receive_policy(slot: Res<PolicySlot>, mut policy: ResMut<CurrentPolicy>) {
    let newest = slot.newest();
    if newest.version() > policy.0.version() {
        policy.0 = newest;
    }
}

/// The schedule of a learner's own world: one batch, if one is there. Events tell whether there was.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct LearnTick;

/// Where the learner's time goes; only in a world of its own.
#[derive(Resource, Debug)]
struct Times {
    since: Instant,
    idle: Duration,
}

/// Puts the policy into the slot after an update, and notes where the time went.
fn publish_to_slot(
    slot: Res<PolicySlot>,
    mut learners: Query<&mut LearnerState>,
    mut times: ResMut<Times>,
    mut log: ResMut<SearchLog>,
) {
    for mut state in &mut learners {
        let learner = state.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if learner.n_updates() == slot.newest().version() {
            continue;
        }
        slot.publish(learner.policy());
        let total = times.since.elapsed().as_secs_f64();
        let idle = times.idle.as_secs_f64() / total.max(f64::MIN_POSITIVE);
        let waited = slot.0.actors_waited.swap(0, Ordering::Relaxed) as f64 * 1e-9;
        *times = Times { since: Instant::now(), idle: Duration::ZERO };
        log.0.push(SearchEvent::Scheduled {
            n_updates: learner.n_updates(),
            numbers: vec![("period_s", total), ("learner_idle_share", idle), ("actors_wait_s", waited)],
        });
    }
}

/// A world for the learner alone.
pub(crate) fn learner_world(rule: BatchRule, queue: TrajectoryReceiver, slot: PolicySlot) -> World {
    let mut schedule = Schedule::new(LearnTick);
    schedule.set_executor(SingleThreadedExecutor::new());
    let ambiguity_detection = LogLevel::Error;
    schedule.set_build_settings(ScheduleBuildSettings { ambiguity_detection, ..ScheduleBuildSettings::default() });
    schedule.add_systems((learn_once, publish_to_slot).chain());
    let mut world = World::new();
    world.add_schedule(schedule);
    world.insert_resource(rule);
    world.insert_resource(queue);
    world.insert_resource(slot);
    world.insert_resource(Times { since: Instant::now(), idle: Duration::ZERO });
    world.init_resource::<SearchLog>();
    world.init_resource::<TrainFailure>();
    world
}

/// A learner's world at work on its own thread.
pub(crate) struct LearnerThread {
    thread: JoinHandle<World>,
    stop: Arc<AtomicBool>,
    events: Receiver<SearchEvent>,
}

impl LearnerThread {
    /// Starts the thread.
    pub(crate) fn start(world: World) -> Result<Self, TrainError> {
        let (stop, (sender, events)) = (Arc::new(AtomicBool::new(false)), unbounded());
        let told = stop.clone();
        let run = move || learn_until_told(world, &told, &sender);
        let thread = std::thread::Builder::new().name("learner".into()).spawn(run);
        let thread = thread.map_err(|e| TrainError::Panicked(format!("the learner's thread does not start: {e}")))?;
        Ok(Self { thread, stop, events })
    }

    /// Whether it ended without being told to.
    pub(crate) fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What happened since the last call.
    pub(crate) fn events(&self) -> Vec<SearchEvent> {
        self.events.try_iter().collect()
    }

    /// Ends the thread after the update it is at; gives back its world and what happened since [`Self::events`].
    pub(crate) fn stop(self) -> Result<(World, Vec<SearchEvent>), TrainError> {
        self.stop.store(true, Ordering::SeqCst);
        let world = self.thread.join().map_err(|payload| TrainError::Panicked(panic_message(&*payload)))?;
        Ok((world, self.events.try_iter().collect()))
    }
}

fn learn_until_told(mut world: World, stop: &AtomicBool, events: &Sender<SearchEvent>) -> World {
    let queue = world.resource::<TrajectoryReceiver>().0.clone();
    let mut ready = Select::new();
    ready.recv(&queue);
    // A batch that a save or a failure left behind waits for no trajectory.
    let mut may_learn = true;
    while !stop.load(Ordering::SeqCst) && world.resource::<TrainFailure>().0.is_none() {
        if !may_learn {
            let start = Instant::now();
            may_learn = ready.ready_timeout(NAP).is_ok();
            world.resource_mut::<Times>().idle += start.elapsed();
            continue;
        }
        world.run_schedule(LearnTick);
        let happened = std::mem::take(&mut world.resource_mut::<SearchLog>().0);
        may_learn = !happened.is_empty();
        for event in happened {
            // Nobody listens any more when the search is being dropped.
            drop(events.send(event));
        }
    }
    drop(ready);
    world
}

#[cfg(test)]
mod tests;
