use secateur_rl::Policy;
use secateur_sim::{SimError, Walk};

use super::*;
use crate::hand_made::{Ground, Notes, NotingLearner, policy, unroll};

/// A search over a hand-made world, whose tick is these systems only.
fn search<M>(ground: Ground, systems: impl IntoScheduleConfigs<bevy_ecs::system::ScheduleSystem, M>) -> Search {
    let mut app = App::empty();
    *app.world_mut() = ground.world;
    app.init_resource::<Schedules>();
    app.init_schedule(Tick);
    app.add_systems(Tick, systems);
    Search { app, n_tasks: 0, learner: LearnerSide::Inline }
}

/// Versions of the policy in the ticks so far.
#[derive(Resource, Default)]
struct Versions(Vec<u64>);

#[test]
fn a_batch_that_a_failure_left_behind_is_learned_from_before_anybody_acts() {
    let mut ground = Ground::new(4);
    let (learner, batches) = ground.learner(1);
    let pending = vec![Queued { ticket: 0, unroll: unroll(6, &[]) }];
    ground.set(learner, LearnerStats { n_updates: 3, pending, ..LearnerStats::default() });
    ground.world.init_resource::<Versions>();
    let note = |policy: Res<CurrentPolicy>, mut versions: ResMut<Versions>| versions.0.push(policy.0.version());
    let mut search = search(ground, note);
    let events = search.tick().unwrap();
    assert_eq!(*batches.lock().unwrap(), [[6]]);
    assert_eq!(search.world_mut().resource::<Versions>().0, [4]);
    assert!(matches!(events[..], [SearchEvent::Learned { n_updates: 4, .. }]));
}

#[test]
fn trajectories_in_the_queue_are_left_to_the_tick() {
    let mut ground = Ground::new(4);
    let (_, batches) = ground.learner(1);
    ground.queue(&[0]);
    let mut search = search(ground, || {});
    search.tick().unwrap();
    assert!(batches.lock().unwrap().is_empty());
}

#[test]
fn the_failure_of_a_tick_is_returned_once_and_what_happened_before_it_can_still_be_read() {
    let injected = || SimError::NoScore { task: "t".into(), walk: 4 };
    let fail = move |mut failure: ResMut<TickFailure>, mut log: ResMut<EventLog>| {
        log.0.push(secateur_sim::ProcessEvent::Note { plugin: "test".into(), numbers: Vec::new() });
        failure.note(injected());
    };
    let mut search = search(Ground::new(1), fail);
    let error = search.tick().unwrap_err();
    assert!(matches!(error, TrainError::Process(error) if error == injected()));
    assert_eq!(search.take_events().len(), 1);
    assert!(search.world_mut().resource::<TickFailure>().0.is_none());
}

#[test]
fn a_system_that_panics_is_an_error_of_the_tick() {
    let fall = || assert!(std::hint::black_box(false), "injected");
    let error = search(Ground::new(1), fall).tick().unwrap_err();
    assert!(matches!(&error, TrainError::Panicked(what) if what.contains("injected")), "{error}");
}

#[test]
fn a_search_is_done_when_all_have_retired_and_everything_they_lived_through_was_handed_over() {
    let mut ground = Ground::new(1);
    let [first, second] = [0, 1].map(|index| ground.actor(index, 0, 4));
    let mut search = search(ground, || {});
    assert!(!search.is_done(), "two act");
    for actor in [first, second] {
        search.world_mut().entity_mut(actor).insert(Readiness::Retired);
        assert_eq!(search.is_done(), actor == second);
    }
    let collecting = secateur_rl::Unroll { raw_action: vec![0.5], ..Default::default() };
    search.world_mut().entity_mut(first).insert(Experience { unroll: collecting, ..Experience::default() });
    assert!(!search.is_done(), "one has steps that nobody learned from");
    search.world_mut().entity_mut(first).insert(Experience::default());
    let on_its_way = search.world_mut().spawn(Trajectory::default()).id();
    assert!(!search.is_done(), "a trajectory is on its way");
    search.world_mut().despawn(on_its_way);
    assert!(search.is_done());
}

#[test]
fn results_are_in_task_order_however_tasks_were_spawned() {
    let mut ground = Ground::new(1);
    let network = ground.world.spawn_empty().id();
    for index in [2, 0, 1] {
        let task = PruneTask { index, name: format!("task {index}"), network, budget_ratio: 0.5 };
        let stats = TaskStats { n_ended: 10 + index as u64, ..TaskStats::default() };
        ground.world.spawn((task, stats, Finalists::default()));
    }
    let mut search = search(ground, || {});
    search.n_tasks = 3;
    let n_ended: Vec<u64> = search.results().iter().map(|result| result.stats.n_ended).collect();
    assert_eq!(n_ended, [10, 11, 12]);
}

/// An app with one actor, whose walk has two decisions, ready for `agent`.
fn with_acting(agent: &Agent) -> (App, Entity) {
    let mut ground = Ground::new(1);
    let (index, task) = (0, ground.task);
    let actor = ground.world.spawn((Actor { index, task }, Readiness::Acting, Walk::new(0, false, vec![1; 4]))).id();
    let mut app = App::empty();
    *app.world_mut() = ground.world;
    app.init_resource::<Schedules>();
    app.init_schedule(Tick);
    add_acting(&mut app, agent, 2);
    (app, actor)
}

#[test]
fn actors_of_an_agent_that_learns_collect_unrolls_of_the_length_it_wants_for_their_walks() {
    let learner = NotingLearner { batch_size: 1, n_updates: 6, batches: Notes::default() };
    let (app, actor) = with_acting(&Agent::Learning(Box::new(learner)));
    let world = app.world();
    assert_eq!(world.get::<Experience>(actor).unwrap().length, 20);
    assert_eq!(world.resource::<CurrentPolicy>().0.version(), 6);
    assert_eq!(world.resource::<TrajectorySender>().0.capacity(), Some(2));
}

#[test]
fn actors_of_an_agent_that_does_not_learn_collect_nothing() {
    let control: Arc<dyn Policy> = policy(0);
    let (app, actor) = with_acting(&Agent::Fixed(control));
    assert!(app.world().get::<Experience>(actor).is_none() && app.world().get::<Asked>(actor).is_some());
}
