//! The scheduler variants: what each promises, and that none loses or doubles anything.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_rl::Profile;
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{PruningPlugin, Step, Tick};
use secateur_train::{Executor, Scheduler, Search, SearchEvent, TrainError, Trajectory, collect_steps};
use tiny::recording::{Recording, Seen, Unsteady};
use tiny::{
    MTACP, N_TASKS, N_WALKS, Options, TestAgent, go_on, learned, rewards, run, search, search_with, with_plugin,
};

const PAPER: TestAgent = TestAgent::Mtacp(Profile::Paper);
const ASYNC: Scheduler = Scheduler::Async;

/// Steps of the walks that are learned from: four each, all but the noise-free ones (10th, 19th and 20th).
const N_STEPS: f64 = (4 * N_TASKS * (N_WALKS as usize - 3)) as f64;

fn bounded(max: u64) -> Scheduler {
    Scheduler::BoundedLag { max }
}

fn options(agent: TestAgent, scheduler: Scheduler, queue_capacity: usize) -> Options {
    Options { scheduler, queue_capacity, ..Options::new(agent) }
}

fn check_counts(events: &[SearchEvent], what: &str) {
    let mut walks: Vec<(usize, u64)> = rewards(events).iter().map(|&(task, walk, _)| (task, walk)).collect();
    walks.sort_unstable();
    let expected: Vec<(usize, u64)> = (0..N_TASKS).flat_map(|t| (0..N_WALKS).map(move |w| (t, w))).collect();
    assert_eq!(walks, expected, "{what}");
    assert_eq!(learned(events, "n_steps").iter().sum::<f64>(), N_STEPS, "{what}");
}

#[test]
fn every_walk_is_counted_once_and_every_step_learned_from_once_under_every_scheduler() {
    for agent in [MTACP, PAPER, TestAgent::Mtacp(Profile::Tuned)] {
        for scheduler in [Scheduler::Lockstep, ASYNC, bounded(0), bounded(1), bounded(4)] {
            for queue_capacity in [1, 64] {
                let (events, results, mut search) = run(&options(agent, scheduler, queue_capacity));
                check_counts(&events, &format!("{agent:?} {scheduler:?} {queue_capacity}"));
                assert!(results.iter().all(|r| (r.stats.n_begun, r.stats.n_ended) == (N_WALKS, N_WALKS)));
                let stats = search.learner_stats().unwrap();
                assert!(stats.pending.is_empty());
                assert_eq!(stats.n_updates as usize, learned(&events, "n_steps").len());
            }
        }
    }
}

#[test]
fn the_lag_stays_within_its_bound() {
    for max in [0, 1, 3] {
        for agent in [MTACP, PAPER] {
            let (events, ..) = run(&options(agent, bounded(max), 64));
            let lags = learned(&events, "lag_max");
            assert!(!lags.is_empty() && lags.iter().all(|&lag| lag <= max as f64), "{agent:?} {max}: {lags:?}");
        }
    }
}

#[test]
fn a_bound_of_zero_is_on_policy_and_so_the_same_every_time() {
    // Batches are made in ticket order and nothing is decided by a policy older than the newest, so time has no say.
    let weights = || {
        let (_, _, mut search) = run(&options(MTACP, bounded(0), 64));
        search.save().unwrap().learner.unwrap().state
    };
    assert!(weights() == weights());
}

#[test]
fn executors_do_not_change_a_search() {
    let multi = Options { executor: Executor::Multi, ..Options::new(MTACP) };
    assert!(run(&multi).0 == run(&Options::new(MTACP)).0);
    for scheduler in [ASYNC, bounded(2)] {
        let (events, ..) = run(&Options { executor: Executor::Multi, ..options(MTACP, scheduler, 4) });
        check_counts(&events, "multi");
    }
}

#[test]
fn a_search_with_a_learner_on_its_thread_is_saved_and_goes_on_without_losing_a_step() {
    for scheduler in [ASYNC, bounded(1)] {
        for agent in [MTACP, PAPER] {
            let options = options(agent, scheduler, 2);
            let mut going = search(&options);
            let mut events = Vec::new();
            for tick in 0..60 {
                events.extend(going.tick().unwrap());
                if tick % 7 == 5 {
                    let saved = going.save().unwrap();
                    events.extend(going.take_events());
                    going = search(&options);
                    going.restore(saved.clone()).unwrap();
                    assert_eq!(going.save().unwrap().learner, saved.learner);
                }
            }
            events.extend(go_on(&mut going));
            check_counts(&events, &format!("{agent:?} {scheduler:?}"));
        }
    }
}

#[test]
fn times_are_told_where_the_learner_has_a_thread_of_its_own() {
    let (events, ..) = run(&options(MTACP, ASYNC, 64));
    let scheduled: Vec<_> = events
        .iter()
        .filter_map(|e| if let SearchEvent::Scheduled { numbers, .. } = e { Some(numbers) } else { None })
        .collect();
    assert!(!scheduled.is_empty());
    for numbers in scheduled {
        let of = |name: &str| numbers.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!((0.0..=1.0).contains(&of("learner_idle_share")), "{numbers:?}");
        assert!(of("period_s") > 0.0 && of("actors_wait_s") >= 0.0);
    }
    let (events, ..) = run(&options(MTACP, Scheduler::Lockstep, 64));
    assert!(!events.iter().any(|e| matches!(e, SearchEvent::Scheduled { .. })), "times differ between equal runs");
}

/// Walks that cost nothing, and a learner that takes its time.
fn with_learner(scheduler: Scheduler, queue_capacity: usize, while_learning: fn()) -> Search {
    let options = Options {
        scheduler,
        queue_capacity,
        n_walks: 60,
        ..with_plugin(TestAgent::Uniform, Unsteady::new(0), "\"unsteady\": ()")
    };
    let learner = Recording { while_learning, ..Recording::new(&Seen::default(), 3, 0) };
    search_with(&options, |_| Ok(learner.agent()))
}

#[test]
fn a_learner_slower_than_its_actors_publishes_and_tells_after_every_update() {
    for scheduler in [ASYNC, bounded(1), bounded(3)] {
        let mut search = with_learner(scheduler, 2, || std::thread::sleep(Duration::from_millis(10)));
        let events = go_on(&mut search);
        let n_updates = |of: fn(&SearchEvent) -> Option<u64>| events.iter().filter_map(of).collect::<Vec<u64>>();
        let learned_at =
            n_updates(|e| if let SearchEvent::Learned { n_updates, .. } = e { Some(*n_updates) } else { None });
        let told_at =
            n_updates(|e| if let SearchEvent::Scheduled { n_updates, .. } = e { Some(*n_updates) } else { None });
        // 53 of 60 walks of two tasks are learned from, three at a time.
        assert_eq!(learned_at, (1..=36).collect::<Vec<u64>>());
        assert_eq!(told_at, learned_at);
        // A batch that is learned from, one that waits for it, two trajectories in the queue, and those of the six
        // actors.
        let lags = learned(&events, "lag_max");
        let most = if let Scheduler::BoundedLag { max } = scheduler { max as f64 } else { 6.0 };
        assert!(lags.iter().all(|&lag| lag <= most), "{scheduler:?}: {lags:?}");
    }
}

/// Updates that may be made.
static N_PERMITS: AtomicU64 = AtomicU64::new(0);

fn wait_for_permit() {
    while N_PERMITS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn to_be_saved_a_search_waits_for_the_update_its_learner_is_at_and_not_for_all_that_are_waiting() {
    for scheduler in [ASYNC, bounded(20)] {
        let mut search = with_learner(scheduler, 64, wait_for_permit);
        while search.results()[0].stats.n_ended < 18 {
            search.tick().unwrap();
        }
        // 36 walks, of which two are noise-free, and nothing learned yet. From now on one update every 20 ms.
        let saving = AtomicBool::new(true);
        let saved = std::thread::scope(|scope| {
            scope.spawn(|| {
                while saving.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                    N_PERMITS.fetch_add(1, Ordering::SeqCst);
                }
            });
            let saved = search.save().unwrap();
            saving.store(false, Ordering::SeqCst);
            saved
        });
        N_PERMITS.store(u64::MAX, Ordering::SeqCst);
        drop(search);
        N_PERMITS.store(0, Ordering::SeqCst);
        let learner = saved.learner.unwrap();
        assert!(learner.n_updates <= 3, "{scheduler:?}: {} updates", learner.n_updates);
        assert!(saved.queued.len() + learner.pending.len() >= 34 - 9, "{scheduler:?}");
    }
}

#[test]
fn a_batch_that_was_left_behind_is_learned_from_though_nothing_comes_any_more() {
    for scheduler in [ASYNC, bounded(0)] {
        let options =
            Options { scheduler, n_walks: 12, ..with_plugin(TestAgent::Uniform, Unsteady::new(0), "\"unsteady\": ()") };
        let begin = || search_with(&options, |_| Ok(Recording::new(&Seen::default(), 3, 0).agent()));
        // Where a learner failed, its batch waits for it and the queue is empty; under a bound of 0 all actors wait for
        // it, too.
        let mut first = begin();
        let mut saved = first.save().unwrap();
        while saved.queued.len() < 3 {
            // On its thread the learner would take them, so the actors' world is run without it.
            first.world_mut().run_schedule(Tick);
            saved = first.save().unwrap();
        }
        let learner = saved.learner.as_mut().unwrap();
        learner.pending = std::mem::take(&mut saved.queued);
        let mut second = begin();
        second.restore(saved).unwrap();
        let events = go_on(&mut second);
        assert_eq!(learned(&events, "n_steps").iter().sum::<f64>(), 4.0 * 2.0 * 9.0);
    }
}

/// As [`Recording`], but panics at its third update.
fn panicking() -> Recording {
    static N_CALLS: AtomicU64 = AtomicU64::new(0);
    let boom = || assert!(N_CALLS.fetch_add(1, Ordering::SeqCst) % 3 < 2, "a mistake in a learner");
    Recording { while_learning: boom, ..Recording::new(&Seen::default(), 3, 0) }
}

#[test]
fn a_learner_that_panics_stops_the_search_with_its_batch_and_the_best_so_far_remain() {
    for scheduler in [Scheduler::Lockstep, ASYNC, bounded(1)] {
        let options = Options { scheduler, ..with_plugin(TestAgent::Uniform, Unsteady::new(0), "\"unsteady\": ()") };
        let mut search = search_with(&options, |_| Ok(panicking().agent()));
        let start = Instant::now();
        let error = loop {
            assert!(start.elapsed() < Duration::from_secs(60));
            let step = if search.is_done() { search.finish() } else { search.tick() };
            if let Err(error) = step {
                break error;
            }
        };
        assert!(error.to_string().contains("update 2, batch of 3 trajectories: panicked: a mistake"), "{error}");
        assert!(!error.leaves_search_whole(), "nobody knows what state the learner is in");
        assert_eq!(error.failed_batch().map(|(n_updates, batch)| (n_updates, batch.len())), Some((2, 3)));
        assert!(search.results().iter().any(|r| !r.finalists.is_empty()));
    }
}

struct Breaking;

impl PruningPlugin for Breaking {
    fn name(&self) -> &str {
        "breaking"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let spoil = |mut made: Query<&mut Trajectory>| made.iter_mut().for_each(|mut t| t.0.reward[0] = f32::NAN);
        app.add_systems(Tick, spoil.in_set(Step::Collect).after(collect_steps));
        Ok(())
    }
}

#[test]
fn a_learner_that_fails_on_its_thread_stops_the_search() {
    for scheduler in [ASYNC, bounded(1)] {
        let options = Options { scheduler, ..with_plugin(MTACP, Breaking, "\"breaking\": ()") };
        let mut search = search(&options);
        let start = Instant::now();
        let error = loop {
            assert!(start.elapsed() < Duration::from_secs(60));
            if let Err(error) = search.tick() {
                break error;
            }
        };
        assert!(error.leaves_search_whole());
        let TrainError::Learner { batch, .. } = error else { panic!("{error}") };
        assert!(batch.iter().all(|unroll| unroll.reward[0].is_nan()));
        assert!(search.save().unwrap().learner.unwrap().pending.len() >= batch.len());
    }
}
