//! What goes wrong on the way: candidates that panic, batches that cannot be learned from, plugins that panic.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_kernels::KernelError;
use secateur_net::Network;
use secateur_rl::Profile;
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{Build, Evaluate, Evaluator, Prepared, PruningPlugin, RefitAndScore, Score, Step, Tick};
use secateur_train::{SearchEvent, TaskResult, TrainError, Trajectory, collect_steps};
use tiny::{MTACP, N_TASKS, N_WALKS, Options, TestAgent, go_on, learned, rewards, run, search, with_plugin};

/// Which candidates panic.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    Never,
    /// The first time they are tried, whoever tries them.
    AllOnce,
    Always,
}

/// Panics while repairing or scoring.
struct Faulty {
    build: Which,
    score: Which,
    seen: Mutex<BTreeSet<String>>,
}

impl Faulty {
    /// Tells whether this candidate is to panic now.
    fn strikes(&self, which: Which, candidate: String) -> bool {
        match which {
            Never => false,
            AllOnce => self.seen.lock().unwrap().insert(candidate),
            Always => true,
        }
    }
}

impl Evaluate for Faulty {
    fn begin<'a>(&'a self, pool: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        let build = RefitAndScore.begin(pool, prepared)?;
        Ok(Box::new(move |kept| {
            if self.strikes(self.build, format!("{:?}", kept.lists())) {
                panic!("injected while repairing");
            }
            build(kept)
        }))
    }

    fn score(&self, pool: &rayon::ThreadPool, prepared: &Prepared, network: &Network) -> Result<Score, KernelError> {
        if self.strikes(self.score, format!("{:?}", network.graph())) {
            panic!("injected while scoring");
        }
        RefitAndScore.score(pool, prepared, network)
    }
}

struct FaultyPlugin {
    build: Which,
    score: Which,
}

impl PruningPlugin for FaultyPlugin {
    fn name(&self) -> &str {
        "faulty"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let faulty = Faulty { build: self.build, score: self.score, seen: Mutex::default() };
        app.insert_resource(Evaluator(Arc::new(faulty)));
        Ok(())
    }
}

fn faulty(agent: TestAgent, threads: usize, build: Which, score: Which) -> Options {
    Options { threads, ..with_plugin(agent, FaultyPlugin { build, score }, "\"faulty\": ()") }
}

use Which::{AllOnce, Always, Never};

fn n_restarts(events: &[SearchEvent]) -> usize {
    events.iter().filter(|e| matches!(e, SearchEvent::Process(secateur_sim::ProcessEvent::Restarted { .. }))).count()
}

fn sorted(events: &[SearchEvent]) -> Vec<(usize, u64, f32)> {
    let mut rewards = rewards(events);
    rewards.sort_by_key(|&(task, walk, _)| (task, walk));
    rewards
}

#[test]
fn walks_whose_candidates_panic_are_done_again_and_counted_once() {
    // Random decides by task, walk and layer alone, so a walk done again must end where it would have ended.
    let (undisturbed, ..) = run(&Options::new(TestAgent::Random));
    for (threads, build, score) in [(1, AllOnce, Never), (1, Never, AllOnce), (2, AllOnce, AllOnce)] {
        let (events, results, _) = run(&faulty(TestAgent::Random, threads, build, score));
        assert!(n_restarts(&events) > 5, "nothing was injected");
        assert_eq!(sorted(&events), sorted(&undisturbed));
        for TaskResult { stats, .. } in results {
            assert_eq!((stats.n_begun, stats.n_ended), (N_WALKS, N_WALKS));
        }
    }
}

#[test]
fn steps_of_a_walk_done_again_are_learned_from_once() {
    // Noise-free walks (10th, 19th and 20th) are not learned from; a walk has four steps.
    let n_learned = N_TASKS * (N_WALKS as usize - 3);
    for agent in [MTACP, TestAgent::Mtacp(Profile::Paper)] {
        let (events, _, mut search) = run(&faulty(agent, 1, AllOnce, AllOnce));
        assert!(n_restarts(&events) > 5, "nothing was injected");
        assert_eq!(learned(&events, "n_steps").iter().sum::<f64>(), 4.0 * n_learned as f64, "{agent:?}");
        assert!(search.learner_stats().unwrap().pending.is_empty());
    }
}

#[test]
fn a_candidate_that_always_panics_stops_the_search_with_task_and_walk_and_nothing_is_lost() {
    let options = faulty(TestAgent::Random, 1, Never, Always);
    let mut search = search(&options);
    let error = (0..40).find_map(|_| search.tick().err()).unwrap();
    let text = error.to_string();
    let of_first = text.contains("'tiny-0.4', walk 0");
    assert!(of_first && text.contains("4 times") && text.contains("injected"), "{text}");
    assert!(error.leaves_search_whole());
    let saved = search.save().unwrap();
    // Once the fault is gone, the saved search goes on to what an undisturbed one ends with.
    let healthy = Options::new(TestAgent::Random);
    let mut going = tiny::search(&healthy);
    going.restore(saved).unwrap();
    let events = go_on(&mut going);
    assert_eq!(sorted(&events), sorted(&run(&healthy).0));
}

#[test]
fn an_equal_candidate_of_the_same_tick_waits_for_the_one_that_panicked() {
    // Uniform makes all candidates of a task equal: in the first tick that ends walks, all but the first wait for its
    // score.
    let (events, results, _) = run(&faulty(TestAgent::Uniform, 1, Never, AllOnce));
    assert_eq!(sorted(&events), sorted(&run(&Options::new(TestAgent::Uniform)).0));
    assert!(results.iter().all(|r| r.stats.n_ended == N_WALKS && r.stats.n_cache_hits == N_WALKS - 1));
}

/// Breaks every trajectory before it is queued.
struct Breaking(fn(&mut secateur_rl::Unroll));

impl PruningPlugin for Breaking {
    fn name(&self) -> &str {
        "breaking"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let spoil = self.0;
        let system = move |mut made: Query<&mut Trajectory>| made.iter_mut().for_each(|mut t| spoil(&mut t.0));
        app.add_systems(Tick, system.in_set(Step::Collect).after(collect_steps));
        Ok(())
    }
}

#[test]
fn a_batch_that_cannot_be_learned_from_stops_the_search_and_is_handed_back() {
    let value: fn(&mut secateur_rl::Unroll) = |unroll| unroll.value[1] = f32::NAN;
    // Finite, but the importance weight exp(log p - log q) is not.
    let log_prob: fn(&mut secateur_rl::Unroll) = |unroll| unroll.log_prob[2] = -3e38;
    for (spoil, why) in [(value, "value[1] is NaN"), (log_prob, "is inf")] {
        let options = with_plugin(MTACP, Breaking(spoil), "\"breaking\": ()");
        let mut search = search(&options);
        let error = (0..100).find_map(|_| search.tick().err()).unwrap();
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.leaves_search_whole());
        let TrainError::Learner { n_updates, batch, .. } = error else { panic!("{error}") };
        assert_eq!((n_updates, batch.len()), (0, 6));
        // The batch is still the learner's: nothing was learned, nothing lost.
        let saved = search.save().unwrap().learner.unwrap();
        assert_eq!((saved.n_updates, saved.n_trajectories, saved.pending.len()), (0, 0, 6));
    }
}

struct Panicking;

impl PruningPlugin for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let boom = |mut ticks: Local<u32>| {
            *ticks += 1;
            assert!(*ticks < 9, "a mistake in a plugin");
        };
        app.add_systems(Tick, boom.in_set(Step::Reward).ambiguous_with_all());
        Ok(())
    }
}

#[test]
fn a_plugin_that_panics_stops_the_search_and_the_best_so_far_remain() {
    let mut search = search(&with_plugin(TestAgent::Random, Panicking, "\"panicking\": ()"));
    let error = (0..100).find_map(|_| search.tick().err()).unwrap();
    assert!(error.to_string().contains("a mistake in a plugin"), "{error}");
    assert!(!error.leaves_search_whole());
    assert!(search.results().iter().all(|r| !r.finalists.is_empty()));
}
