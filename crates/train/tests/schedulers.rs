//! The scheduler variants: what each promises, and that none loses or doubles anything.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::time::{Duration, Instant};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_rl::{AgentKind, Profile};
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{Event, PruningPlugin, Step, Tick};
use secateur_train::{Executor, Scheduler, TrainError, Trajectory, collect_steps};
use tiny::{MTACP, N_TASKS, N_WALKS, Options, go_on, learned, rewards, run, search, with_plugin};

const PAPER: AgentKind = AgentKind::Mtacp(Profile::Paper);
const ASYNC: Scheduler = Scheduler::Async;

/// Steps of the walks that are learned from: four each, all but the noise-free ones (10th, 19th and 20th).
const N_STEPS: f64 = (4 * N_TASKS * (N_WALKS as usize - 3)) as f64;

fn bounded(max: u64) -> Scheduler {
    Scheduler::BoundedLag { max }
}

fn options(agent: AgentKind, scheduler: Scheduler, queue_capacity: usize) -> Options {
    Options { scheduler, queue_capacity, ..Options::new(agent) }
}

fn check_counts(events: &[Event], what: &str) {
    let mut walks: Vec<(usize, u64)> = rewards(events).iter().map(|&(task, walk, _)| (task, walk)).collect();
    walks.sort_unstable();
    let expected: Vec<(usize, u64)> = (0..N_TASKS).flat_map(|t| (0..N_WALKS).map(move |w| (t, w))).collect();
    assert_eq!(walks, expected, "{what}");
    assert_eq!(learned(events, "n_steps").iter().sum::<f64>(), N_STEPS, "{what}");
}

#[test]
fn every_walk_is_counted_once_and_every_step_learned_from_once_under_every_scheduler() {
    for agent in [MTACP, PAPER, AgentKind::Mtacp(Profile::Tuned)] {
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
                    // What happened while the learner came to rest is told by the next tick of the old search.
                    events.extend(std::mem::take(&mut going.world_mut().resource_mut::<secateur_sim::EventLog>().0));
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
        .filter_map(|e| if let Event::Scheduled { numbers, .. } = e { Some(numbers) } else { None })
        .collect();
    assert!(!scheduled.is_empty());
    for numbers in scheduled {
        let of = |name: &str| numbers.iter().find(|(n, _)| *n == name).unwrap().1;
        assert!((0.0..=1.0).contains(&of("learner_idle_share")), "{numbers:?}");
        assert!(of("period_s") > 0.0 && of("actors_wait_s") >= 0.0);
    }
    let (events, ..) = run(&options(MTACP, Scheduler::Lockstep, 64));
    assert!(!events.iter().any(|e| matches!(e, Event::Scheduled { .. })), "times differ between equal runs");
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
