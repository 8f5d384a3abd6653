//! The real worlds of actors and learner, with their real queue, policy slot and tickets, under a model checker that
//! chooses which of the two goes on after every step of a tick, and in the middle of decisions and updates. Whatever it
//! chooses, the search ends, every step is learned from exactly once, and none too late.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{CandidateId, Prepared, PruningPlugin, Step, Tick};
use secateur_train::{LearnTick, Scheduler, Search, SearchEvent, SearchLog, TrajectoryReceiver};
use shuttle::sync::atomic::AtomicBool;
use shuttle::{Config, Runner, scheduler::RandomScheduler, thread};
use tiny::late::Late;
use tiny::recording::{Recording, Seen, Unsteady, expected};
use tiny::{Options, TestAgent, learned, pool, prepared, search_on, with_plugin};

const N_WALKS: u64 = 7;
/// Far more ticks than a search takes whose actors wait now and then.
const N_TICKS_MAX: usize = 20_000;

/// Lets the model checker choose who goes on.
fn pause() {
    thread::yield_now();
}

struct Pausing<P>(P);

impl<P: PruningPlugin> PruningPlugin for Pausing<P> {
    fn name(&self) -> &str {
        "pausing"
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        self.0.build(app, config)?;
        for steps in Step::ALL.windows(2) {
            app.add_systems(Tick, pause.after(steps[0]).before(steps[1]));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Model {
    scheduler: Scheduler,
    queue_capacity: usize,
    batch_size: usize,
    unroll_length: usize,
    /// After how many ticks a score is there; none where candidates are scored here.
    delay: fn(CandidateId) -> Option<u64>,
}

impl Model {
    fn begin(self, seen: &Seen) -> Search {
        static PREPARED: OnceLock<Arc<Prepared>> = OnceLock::new();
        let options = Options {
            scheduler: self.scheduler,
            queue_capacity: self.queue_capacity,
            n_walks: N_WALKS,
            n_actors: 2,
            ..with_plugin(TestAgent::Uniform, Pausing(Late::new(Unsteady::new(0), self.delay)), "\"pausing\": ()")
        };
        let learner = Recording {
            while_acting: pause,
            while_learning: pause,
            ..Recording::new(seen, self.batch_size, self.unroll_length)
        };
        let network = PREPARED.get_or_init(|| prepared(&pool(1)));
        search_on(network, &options, |_| Ok(learner.agent()))
    }

    /// One search in one order of events.
    fn run(self) {
        let seen = Seen::default();
        let mut search = self.begin(&seen);
        let mut world = std::mem::take(search.learner_world().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let learner = thread::spawn(move || {
            // As the learner's own thread does: again after an update, else only when a trajectory has come.
            let mut may_learn = true;
            while !stopped.load(Ordering::SeqCst) {
                if may_learn || !world.resource::<TrajectoryReceiver>().0.is_empty() {
                    let n_events = world.resource::<SearchLog>().0.len();
                    world.run_schedule(LearnTick);
                    may_learn = world.resource::<SearchLog>().0.len() > n_events;
                }
                pause();
            }
            world
        });
        for n_ticks in 0.. {
            if search.is_done() {
                break;
            }
            assert!(n_ticks < N_TICKS_MAX, "the search does not end");
            search.world_mut().run_schedule(Tick);
        }
        stop.store(true, Ordering::SeqCst);
        *search.learner_world().unwrap() = learner.join().unwrap();
        let mut events: Vec<SearchEvent> =
            std::mem::take(&mut search.learner_world().unwrap().resource_mut::<SearchLog>().0);
        events.extend(search.finish().unwrap());
        self.check(&events, &seen);
    }

    fn check(self, events: &[SearchEvent], seen: &Seen) {
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort_unstable();
        assert_eq!(seen, expected(N_WALKS));
        if let Scheduler::BoundedLag { max } = self.scheduler {
            let lags = learned(events, "lag_max");
            assert!(!lags.is_empty() && lags.iter().all(|&lag| lag <= max as f64), "{lags:?}");
        }
    }

    fn check_orders(self, n_orders: usize) {
        let mut config = Config::new();
        // Schedules are built on these stacks.
        config.stack_size = 4 << 20;
        Runner::new(RandomScheduler::new(n_orders), config).run(move || self.run());
    }
}

#[test]
fn no_order_of_events_loses_doubles_or_delays_a_step_too_long() {
    let lag = |max| Scheduler::BoundedLag { max };
    for (scheduler, queue_capacity, batch_size, unroll_length) in [
        (Scheduler::Async, 1, 2, 0),
        (Scheduler::Async, 2, 3, 3),
        (lag(0), 1, 2, 0),
        (lag(0), 4, 3, 3),
        (lag(1), 1, 2, 5),
        (lag(1), 3, 3, 0),
        (lag(2), 2, 1, 2),
    ] {
        let here = |_| None;
        let late = |id: CandidateId| Some(1 + (id.walk + id.task as u64) % 3);
        Model { scheduler, queue_capacity, batch_size, unroll_length, delay: here }.check_orders(100);
        Model { scheduler, queue_capacity, batch_size, unroll_length, delay: late }.check_orders(60);
    }
}
