//! Scores that arrive ticks later: the actor waits, the others go on; where the tick waits, nothing is different.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bevy_app::App;
use bevy_ecs::prelude::*;
use proptest::prelude::*;

use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{
    Actor, Budget, CandidateFault, CandidateId, NoiseFree, Prepared, ProcessEvent, PruneTask, PruningPlugin, Readiness,
    ScoreArrivals, ScoredElsewhere, SimError, Step, Tick, recall_scores, repair_candidates,
};
use secateur_train::{SavedActor, SavedSearch, Scheduler, Search, SearchEvent, SearchRules, TaskRules, TrainError};
use tiny::late::Late;
use tiny::recording::{Recording, Seen, Unsteady, expected};
use tiny::{MTACP, N_TASKS, Options, TestAgent, go_on, pool, prepared, rewards, run, search, search_on, with_plugin};

/// Does nothing, so that candidates are measured as ever.
#[derive(Clone)]
struct Plain;

impl PruningPlugin for Plain {
    fn name(&self) -> &str {
        "plain"
    }
    fn build(&self, _app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        Ok(())
    }
}

/// Between one and five looks, in no order.
fn scattered(id: CandidateId) -> Option<u64> {
    Some(1 + (id.walk * 7 + id.task as u64 * 3) % 5)
}

/// The same for two walks of three; the third is scored here.
fn some(id: CandidateId) -> Option<u64> {
    scattered(id).filter(|_| !id.walk.is_multiple_of(3))
}

#[test]
fn where_the_tick_waits_late_scores_change_nothing() {
    for agent in [MTACP, TestAgent::Random] {
        let (expected, _, mut search) = run(&Options::new(agent));
        let saved = search.save().unwrap();
        for delay in [scattered as fn(CandidateId) -> Option<u64>, some] {
            let late = Late::new(Plain, delay);
            let (events, _, mut search) = run(&with_plugin(agent, late, "\"plain\": ()"));
            assert!(events == expected, "{agent:?}");
            let mut late = search.save().unwrap();
            // Only here could any arrive.
            late.arrival_ticks = saved.arrival_ticks;
            // In a tick with both, scores from elsewhere are remembered behind those from here.
            assert!(
                late.scores.len() == saved.scores.len()
                    && (late == saved || std::ptr::fn_addr_eq(delay, some as fn(CandidateId) -> Option<u64>))
            );
        }
    }
}

type Steps = Vec<(u32, u64, u32)>;

#[derive(Clone, Copy, Debug)]
struct Case {
    scheduler: Scheduler,
    queue_capacity: usize,
    batch_size: usize,
    unroll_length: usize,
    n_walks: u64,
    n_actors: usize,
    /// Ticks between saves; 0 for none.
    save_every: usize,
    /// One in so many candidates panics here; 0 for none.
    panics: u64,
    all_late: bool,
    builds: bool,
    faults: bool,
}

impl Case {
    fn begin(self, seen: &Seen, late: &Late<Unsteady>) -> Search {
        let options = Options {
            scheduler: self.scheduler,
            queue_capacity: self.queue_capacity,
            n_walks: self.n_walks,
            n_actors: self.n_actors,
            ..with_plugin(TestAgent::Uniform, late.clone(), "\"unsteady\": ()")
        };
        let learner = Recording::new(seen, self.batch_size, self.unroll_length);
        static PREPARED: OnceLock<Arc<Prepared>> = OnceLock::new();
        search_on(PREPARED.get_or_init(|| prepared(&pool(1))), &options, |_| Ok(learner.agent()))
    }

    /// Every step learned from (task, walk, layer), and every walk told (task, walk), both in order.
    fn run(self) -> (Steps, Vec<(usize, u64)>) {
        let seen = Seen::default();
        let delay = if self.all_late { scattered } else { some };
        let late = Late { builds: self.builds, faults: self.faults, ..Late::new(Unsteady::new(self.panics), delay) };
        let mut search = self.begin(&seen, &late);
        let (start, mut n_ticks, mut events) = (Instant::now(), 0, Vec::new());
        while !search.is_done() {
            assert!(start.elapsed() < Duration::from_secs(60), "the search does not end");
            events.extend(search.tick().unwrap());
            n_ticks += 1;
            if self.save_every > 0 && n_ticks % self.save_every == 0 {
                let saved = search.save().unwrap();
                events.extend(search.take_events());
                search = self.begin(&seen, &late);
                search.restore(saved.clone()).unwrap();
                assert!(search.save().unwrap() == saved, "what was restored is what was saved");
            }
        }
        events.extend(search.finish().unwrap());
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort_unstable();
        let mut walks: Vec<(usize, u64)> = rewards(&events).iter().map(|&(task, walk, _)| (task, walk)).collect();
        walks.sort_unstable();
        (seen, walks)
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let scheduler = prop_oneof![
        Just(Scheduler::Lockstep),
        Just(Scheduler::Async),
        Just(Scheduler::Async),
        (0u64..4).prop_map(|max| Scheduler::BoundedLag { max }),
    ];
    let sizes = (1usize..6, 1usize..7, 0usize..11, 3u64..16, 1usize..5, 0usize..9);
    (scheduler, sizes, 0u64..4, any::<(bool, bool, bool)>()).prop_map(
        |(scheduler, sizes, panics, (all_late, builds, faults))| {
            let (queue_capacity, batch_size, unroll_length, n_walks, n_actors, save_every) = sizes;
            Case {
                scheduler,
                queue_capacity,
                batch_size,
                unroll_length,
                n_walks,
                n_actors,
                save_every,
                panics,
                all_late,
                builds,
                faults,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_gets_one_score_and_every_step_is_learned_from_once(case in cases()) {
        let (seen, walks) = case.run();
        prop_assert_eq!(seen, expected(case.n_walks));
        let all: Vec<(usize, u64)> = (0..N_TASKS).flat_map(|task| (0..case.n_walks).map(move |w| (task, w))).collect();
        prop_assert_eq!(walks, all);
    }
}

/// The first walk of the first task is long in coming.
fn only_first(id: CandidateId) -> Option<u64> {
    (id == CandidateId { task: 0, walk: 0 }).then_some(60)
}

#[test]
fn others_go_on_while_one_actor_waits_for_its_score() {
    let late = Late::new(Plain, only_first);
    let options = Options { scheduler: Scheduler::Async, ..with_plugin(TestAgent::Random, late, "\"plain\": ()") };
    let mut search = search(&options);
    let mut events = Vec::new();
    for _ in 0..50 {
        events.extend(search.tick().unwrap());
    }
    let world = search.world_mut();
    let mut actors = world.query::<(&Actor, &Readiness)>();
    let waiting: Vec<usize> =
        actors.iter(world).filter(|(_, r)| **r == Readiness::Scoring).map(|(actor, _)| actor.index).collect();
    // Another may have come to an equal candidate since, and waits with it.
    assert!(waiting.contains(&0) && waiting.len() <= 2, "{waiting:?} wait of six");
    let told = rewards(&events);
    assert!(told.len() > 25 && !told.iter().any(|&(task, walk, _)| (task, walk) == (0, 0)), "{told:?}");
    events.extend(go_on(&mut search));
    let mut walks: Vec<(usize, u64)> = rewards(&events).iter().map(|&(task, walk, _)| (task, walk)).collect();
    walks.sort_unstable();
    walks.dedup();
    assert_eq!((walks.len(), rewards(&events).len()), (2 * 20, 2 * 20));
}

/// Sends everything away; what comes back is nothing, or a fault.
struct Lost {
    faults: bool,
}

impl PruningPlugin for Lost {
    fn name(&self) -> &str {
        "lost"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        let send = |mut commands: Commands, new: Query<Entity, secateur_sim::ToBuild>| {
            new.iter().for_each(|entity| {
                commands.entity(entity).insert(ScoredElsewhere);
            });
        };
        app.add_systems(Tick, send.in_set(Step::Repair).after(recall_scores).before(repair_candidates));
        if self.faults {
            let fail = |mut commands: Commands, awaited: Query<Entity, secateur_sim::Awaited>| {
                awaited.iter().for_each(|entity| {
                    commands.entity(entity).insert(CandidateFault("the worker is gone".into()));
                });
            };
            app.add_systems(ScoreArrivals, fail);
        }
        Ok(())
    }
}

#[test]
fn a_score_that_never_comes_is_a_fault_that_its_plugin_tells_and_a_search_that_would_wait_for_ever_says_so() {
    for scheduler in [Scheduler::Lockstep, Scheduler::Async] {
        let lost = with_plugin(TestAgent::Random, Lost { faults: true }, "\"lost\": ()");
        let mut search = search(&Options { scheduler, ..lost });
        let error = (0..60).find_map(|_| search.tick().err()).unwrap();
        let text = error.to_string();
        assert!(text.contains("4 times") && text.contains("the worker is gone"), "{text}");
        assert!(error.leaves_search_whole());
        let is_told = |e: &SearchEvent| matches!(e, SearchEvent::Process(ProcessEvent::Restarted { message, .. }) if message.contains("worker"));
        assert!(search.take_events().iter().any(is_told));
    }
    let mut search = search(&with_plugin(TestAgent::Random, Lost { faults: false }, "\"lost\": ()"));
    let error = (0..60).find_map(|_| search.tick().err()).unwrap();
    assert!(matches!(error, TrainError::Process(SimError::NoScore { walk: 0, .. })), "{error}");
}

/// A search under `Async` in the middle of which candidates wait for their scores, and its rules.
fn waiting() -> (Options, SavedSearch, SearchRules) {
    let late = Late::new(Plain, scattered);
    let options = Options { scheduler: Scheduler::Async, ..with_plugin(MTACP, late, "\"plain\": ()") };
    let mut search = search(&options);
    let scores = |saved: &SavedSearch| saved.actors.iter().any(|actor| actor.awaits.is_some());
    let saved = (0..20)
        .find_map(|_| {
            search.tick().unwrap();
            Some(search.save().unwrap()).filter(scores)
        })
        .unwrap();
    let world = search.world_mut();
    let mut tasks = world.query::<(&PruneTask, &Budget)>();
    let mut tasks: Vec<_> = tasks.iter(world).map(|(task, wall)| (task.index, wall.0.clone())).collect();
    tasks.sort_by_key(|(index, _)| *index);
    let rules = tasks.into_iter().map(|(_, wall)| TaskRules {
        wall,
        n_walks: options.n_walks,
        ends_after: options.ends_after,
        noise_free: NoiseFree { every: 10, last: 2 },
        n_finalists: 3,
        is_exact: true,
    });
    let rules = SearchRules { tasks: rules.collect(), actors_per_task: 3, learns: true, n_networks: 1 };
    (options, saved, rules)
}

#[test]
fn a_saved_candidate_that_no_walk_could_have_ended_with_is_refused() {
    let (options, saved, rules) = waiting();
    saved.check(&rules).unwrap();
    let at = saved.actors.iter().position(|actor| actor.awaits.is_some()).unwrap();
    type Spoil = fn(&mut SavedActor);
    let spoils: [(&str, Spoil); 7] = [
        ("a candidate waits for a score", |actor| actor.awaits = None),
        ("a candidate waits for a score", |actor| actor.readiness = Readiness::Acting),
        ("decisions of a walk that is over", |actor| actor.walk.cursor -= 1),
        ("groups of a candidate", |actor| actor.awaits.as_mut().unwrap().kept.truncate(1)),
        ("kept channels of a candidate", |actor| actor.awaits.as_mut().unwrap().kept[1].reverse()),
        ("the last decision of a walk", |actor| actor.awaits.as_mut().unwrap().request.walk += 1),
        ("the last decision of a walk", |actor| actor.awaits.as_mut().unwrap().decision.value = f32::NAN),
    ];
    for (told, spoil) in spoils {
        let mut saved = saved.clone();
        spoil(&mut saved.actors[at]);
        let error = saved.check(&rules).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    // What is refused without rules: it would wait for ever, or could not be learned from.
    let spoils: [Spoil; 3] = [
        |actor| actor.awaits = None,
        |actor| actor.awaits.as_mut().unwrap().kept[0] = vec![99],
        |actor| actor.awaits.as_mut().unwrap().request.observation.truncate(3),
    ];
    for spoil in spoils {
        let mut saved = saved.clone();
        spoil(&mut saved.actors[at]);
        assert!(matches!(search(&options).restore(saved), Err(TrainError::Saved { .. })));
    }
}

/// What an actor and a candidate are made of, all of it either saved or known to need no saving.
#[test]
fn every_component_of_actors_and_candidates_is_accounted_for_by_what_is_saved() {
    let late = Late::new(Plain, scattered);
    let options = Options { scheduler: Scheduler::Async, ..with_plugin(MTACP, late, "\"plain\": ()") };
    let mut search = search(&options);
    for _ in 0..4 {
        search.tick().unwrap();
    }
    let world = search.world_mut();
    let of = |world: &mut World, entity: Entity| {
        let components = world.inspect_entity(entity).unwrap();
        let mut names: Vec<String> = components.map(|(_, info)| info.name().shortname().to_string()).collect();
        names.sort_unstable();
        names
    };
    let actor = world.query_filtered::<Entity, With<Actor>>().iter(world).next().unwrap();
    let saved = ["Asked", "Decided", "Experience", "PolicyVersion", "Readiness", "Realised", "RecurrentState"];
    let saved = saved.into_iter().chain(["RestartPoint", "Restarts", "Walk", "WalkEnd"]);
    let mut expected: Vec<&str> = saved.chain(["Actor", "KeepRatio", "Observation", "StepReward"]).collect();
    expected.sort_unstable();
    assert_eq!(of(world, actor), expected, "save the new component in `save.rs`, or say there why not");
    let candidate = world.query_filtered::<Entity, With<ScoredElsewhere>>().iter(world).next().unwrap();
    let (saved, made_anew) = (["Kept", "Spent"], ["CandidateId", "MadeBy", "Macs", "OnTask", "Reward"]);
    let mut expected = [&saved[..], &made_anew, &["Compact", "ScoredElsewhere"]].concat();
    expected.sort_unstable();
    assert_eq!(of(world, candidate), expected, "save the new component in `save.rs`, or say there why not");
}
