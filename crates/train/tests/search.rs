//! Whole searches on a tiny network with random weights: accounting, determinism, back-pressure, plugins.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_rl::Profile;
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{EndsAfter, PruningPlugin, Reward, Step, Tick, write_reward};
use secateur_train::{SavedSearch, SearchEvent, TaskResult};
use tiny::{MTACP, N_TASKS, N_WALKS, Options, TestAgent, go_on, rewards, run, search, with_plugin};

#[test]
fn every_walk_is_walked_scored_and_counted_once() {
    for agent in [TestAgent::Uniform, TestAgent::Random, MTACP, TestAgent::Mtacp(Profile::Paper)] {
        let (events, results, search) = run(&Options::new(agent));
        let mut walks: Vec<(usize, u64)> = rewards(&events).iter().map(|&(task, walk, _)| (task, walk)).collect();
        walks.sort_unstable();
        let expected: Vec<(usize, u64)> = (0..N_TASKS).flat_map(|t| (0..N_WALKS).map(move |w| (t, w))).collect();
        assert_eq!(walks, expected, "{agent:?}");
        assert_eq!(search.env_steps(), 4 * N_WALKS * N_TASKS as u64);
        for result in &results {
            assert_eq!((result.stats.n_begun, result.stats.n_ended), (N_WALKS, N_WALKS));
            assert!(!result.finalists.is_empty() && result.finalists.len() <= 3);
            assert!(result.finalists.windows(2).all(|w| w[0].reward >= w[1].reward && w[0].kept != w[1].kept));
        }
    }
}

#[test]
fn threads_do_not_change_a_search() {
    let (one, two) = (run(&Options::new(MTACP)), run(&Options { threads: 2, ..Options::new(MTACP) }));
    assert_eq!(one.0, two.0);
    let kept = |results: &[TaskResult]| results[0].finalists.iter().map(|c| c.kept.clone()).collect::<Vec<_>>();
    assert_eq!(kept(&one.1), kept(&two.1));
}

#[test]
fn uniform_is_scored_once_and_then_known() {
    let (_, results, _) = run(&Options::new(TestAgent::Uniform));
    for result in results {
        assert_eq!(result.stats.n_cache_hits, N_WALKS - 1);
    }
}

#[test]
fn a_search_that_counts_scored_candidates_scores_exactly_so_many_and_walks_on_in_vain_five_times_as_long() {
    let scored = |agent, n_walks| {
        let (events, results, _) = run(&Options { n_walks, ends_after: EndsAfter::Scored, ..Options::new(agent) });
        assert_eq!(rewards(&events).len() as u64, results.iter().map(|r| r.stats.n_ended).sum::<u64>());
        results.iter().map(|r| (r.stats.n_scored(), r.stats.n_begun, r.stats.n_ended)).collect::<Vec<_>>()
    };
    for (n_scored, n_begun, n_ended) in scored(TestAgent::Random, 3) {
        assert_eq!((n_scored, n_begun), (3, n_ended));
    }
    // One budget has not so many candidates.
    let [large, small] = scored(TestAgent::Random, 30)[..] else { panic!("two tasks") };
    assert!((3..30).contains(&small.0) && (small.1, small.2) == (150, 150), "{small:?}");
    assert!(large.0 == 30 && large.1 == large.2, "{large:?}");
    assert_eq!(scored(TestAgent::Uniform, 7), [(1, 35, 35); N_TASKS]);
    assert_eq!(scored(TestAgent::Uniform, 1), [(1, 1, 1); N_TASKS]);
}

#[test]
fn a_full_queue_makes_actors_wait_and_loses_nothing() {
    let learned = |capacity| {
        let (events, _, mut search) = run(&Options { queue_capacity: capacity, ..Options::new(MTACP) });
        let stats = search.learner_stats().unwrap();
        assert!(stats.pending.is_empty());
        (stats.n_trajectories, rewards(&events).len())
    };
    // Noise-free walks (two of ten plus the last two of twenty: 10th, 19th, 20th) are not learned from.
    let expected = (N_TASKS as u64 * (N_WALKS - 3), N_TASKS * N_WALKS as usize);
    assert_eq!(learned(64), expected);
    assert_eq!(learned(1), expected);
}

#[test]
fn a_search_saved_after_any_tick_goes_on_as_if_nothing_had_happened() {
    // Walks of four decisions: unrolls of one walk, and of sixty steps; a queue with room, and one where actors wait.
    for (agent, queue_capacity) in
        [(MTACP, 64), (MTACP, 1), (TestAgent::Mtacp(Profile::Paper), 1), (TestAgent::Random, 1)]
    {
        let options = Options { queue_capacity, ..Options::new(agent) };
        let (events, results, _) = run(&options);
        let mut so_far = Vec::new();
        let mut going = search(&options);
        for tick in 0.. {
            if going.is_done() {
                break;
            }
            so_far.extend(going.tick().unwrap());
            if tick % 5 == 3 {
                let saved = going.save().unwrap();
                going = search(&options);
                going.restore(saved.clone()).unwrap();
                assert_eq!(going.save().unwrap().actors, saved.actors);
            }
        }
        so_far.extend(going.finish().unwrap());
        assert!(so_far == events, "{agent:?} with a queue of {queue_capacity}");
        let best =
            |r: &[TaskResult]| r.iter().map(|t| (t.stats, t.finalists.len(), t.finalists[0].walk)).collect::<Vec<_>>();
        assert_eq!(best(&going.results()), best(&results));
    }
}

#[test]
fn a_saved_search_of_another_setup_is_refused() {
    let mut going = search(&Options::new(MTACP));
    (0..9).for_each(|_| drop(going.tick().unwrap()));
    let saved = going.save().unwrap();
    let refused = |edit: &dyn Fn(&mut SavedSearch), why: &str| {
        let mut edited = saved.clone();
        edit(&mut edited);
        let error = search(&Options::new(MTACP)).restore(edited).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&|s| s.actors.truncate(2), "number of actors is 2, expected 6");
    refused(&|s| s.tasks.truncate(1), "number of tasks is 1, expected 2");
    refused(&|s| s.learner = None, "number of learners is 0, expected 1");
    refused(&|s| s.learner.as_mut().unwrap().state.truncate(50), "load learner state");
    refused(&|s| s.tasks[0].stats.n_wanted = 7, "walks of a task is 7, expected 20");
    refused(&|s| s.actors[0].walk.cursor = 4, "expected a walk within its budget");
    refused(&|s| s.actors[1].walk.widths[1] = 1000, "expected a walk within its budget");
    refused(&|s| s.scores[0].network = 9, "the network of a score is 9, expected below 1");
    refused(&|s| s.scores[0].kept.truncate(9), "kept channels that are cut short");
    // The first group keeps channels that it does not have.
    refused(&|s| s.scores[0].kept.splice(..5, [2, 0, 0, 0, 1, 1]).for_each(drop), "a candidate is");
}

/// Pays every walk for how many ticks there were: what it remembers decides rewards.
struct Clock;

#[derive(Resource)]
struct Ticks(u64);

impl PruningPlugin for Clock {
    fn name(&self) -> &str {
        "clock"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        app.insert_resource(Ticks(0));
        let pay = |mut ticks: ResMut<Ticks>, mut rewards: Query<&mut Reward>| {
            ticks.0 += 1;
            rewards.iter_mut().for_each(|mut reward| reward.0 = ticks.0 as f32);
        };
        app.add_systems(Tick, pay.in_set(Step::Reward).after(write_reward));
        Ok(())
    }
    fn save(&self, world: &World) -> Vec<u8> {
        world.resource::<Ticks>().0.to_le_bytes().to_vec()
    }
    fn load(&self, world: &mut World, saved: &[u8]) -> Result<(), String> {
        let ticks = saved.try_into().map_err(|_| format!("{} bytes, expected 8", saved.len()))?;
        world.resource_mut::<Ticks>().0 = u64::from_le_bytes(ticks);
        Ok(())
    }
}

#[test]
fn what_a_plugin_remembers_is_saved_with_the_search() {
    let options = with_plugin(TestAgent::Random, Clock, "\"clock\": ()");
    let (events, ..) = run(&options);
    let mut going = search(&options);
    let mut so_far: Vec<SearchEvent> = (0..7).flat_map(|_| going.tick().unwrap()).collect();
    let (saved, of_plugins) = (going.save().unwrap(), options.plugins.save(&options.configs, going.world_mut()));
    going = search(&options);
    going.restore(saved).unwrap();
    options.plugins.load(&options.configs, going.world_mut(), &of_plugins).unwrap();
    so_far.extend(go_on(&mut going));
    assert!(so_far == events);
    let error = options.plugins.load(&options.configs, going.world_mut(), &[vec![1]]).unwrap_err();
    assert_eq!(error.to_string(), "plugin 'clock': load its saved state: 1 bytes, expected 8");
}

struct Flat;

impl PruningPlugin for Flat {
    fn name(&self) -> &str {
        "flat"
    }
    fn build(&self, app: &mut App, config: &PluginConfig) -> Result<(), SceneError> {
        let reward: (f32,) = config.parse()?;
        let pay = move |mut rewards: Query<&mut Reward>| {
            rewards.iter_mut().for_each(|mut to| to.0 = reward.0);
        };
        app.add_systems(Tick, pay.in_set(Step::Reward).after(write_reward));
        Ok(())
    }
}

fn flat(value: &str) -> Options {
    with_plugin(TestAgent::Random, Flat, &format!("\"flat\": ({value},)"))
}

#[test]
fn a_plugin_changes_what_walks_are_paid() {
    let (events, results, _) = run(&flat("0.25"));
    assert!(rewards(&events).iter().all(|&(.., reward)| reward == 0.25));
    // Of equal rewards, fewer multiply-accumulates come first.
    assert!(results.iter().all(|r| r.finalists.windows(2).all(|w| w[0].macs <= w[1].macs)));
}

#[test]
fn a_reward_that_is_not_a_number_stops_the_search_with_the_task() {
    let mut search = search(&flat("NaN"));
    let error = (0..10).find_map(|_| search.tick().err()).unwrap();
    assert!(error.to_string().contains("tiny-0.4") && error.to_string().contains("plugin"), "{error}");
}
