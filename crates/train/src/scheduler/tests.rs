use secateur_rl::Unroll;

use super::*;
use crate::hand_made::{Ground, policy, walk};

/// Batches of two unrolls, learned from at most one update after the policy that began them. The newest policy is of
/// version 3, so tickets below 10 may be given out.
fn tickets(ground: &mut Ground, next: u64) {
    ground.world.insert_resource(Tickets { next, returned: BTreeSet::new(), batch_size: 2, lag_max: 1 });
}

fn state(ground: &Ground, actor: Entity) -> (Readiness, Option<u64>, Option<u64>) {
    let experience = ground.get::<Experience>(actor);
    (ground.get::<Readiness>(actor), experience.ticket, experience.next_ticket)
}

fn n_steps(n: usize) -> Unroll {
    Unroll { raw_action: vec![0.0; n], ..Unroll::default() }
}

#[test]
fn tickets_are_given_in_actor_order_and_who_would_be_learned_from_too_late_waits() {
    let mut ground = Ground::new(1);
    let [third, first, second] = [2, 0, 1].map(|index| ground.actor(index, 0, 4));
    tickets(&mut ground, 8);
    ground.run(hold_stale_actors);
    assert_eq!(state(&ground, first), (Readiness::Acting, Some(8), None));
    assert_eq!(state(&ground, second), (Readiness::Acting, Some(9), None));
    assert_eq!(state(&ground, third), (Readiness::Looking, None, None));
    // Under a newer policy it goes on, and the others keep their tickets.
    ground.world.insert_resource(CurrentPolicy(policy(4)));
    ground.run(hold_stale_actors);
    assert_eq!(state(&ground, third), (Readiness::Acting, Some(10), None));
    assert_eq!(state(&ground, first), (Readiness::Acting, Some(8), None));
    assert_eq!(ground.world.resource::<Tickets>().next, 11);
}

#[test]
fn an_actor_that_began_its_unroll_or_walks_without_noise_is_never_held_up() {
    let mut ground = Ground::new(1);
    let [began, noise_free, waiting] = [0, 1, 2].map(|index| ground.actor(index, 0, 4));
    ground.set(began, Experience { unroll: n_steps(3), length: 4, ticket: Some(2), ..Experience::default() });
    ground.set(noise_free, Walk { noise_free: true, ..walk(0, 0) });
    ground.set(noise_free, Readiness::Looking);
    ground.set(waiting, Readiness::Paused);
    tickets(&mut ground, 50);
    ground.run(hold_stale_actors);
    assert_eq!(state(&ground, began), (Readiness::Acting, Some(2), None));
    assert_eq!(state(&ground, noise_free), (Readiness::Acting, None, None));
    assert_eq!(state(&ground, waiting), (Readiness::Paused, None, None), "it waits for the queue, not for a policy");
    assert_eq!(ground.world.resource::<Tickets>().next, 50);
    // Not even where there are tickets does a walk that is not learned from take one.
    tickets(&mut ground, 0);
    ground.run(hold_stale_actors);
    assert_eq!(state(&ground, noise_free), (Readiness::Acting, None, None));
    assert_eq!(ground.world.resource::<Tickets>().next, 0);
}

#[test]
fn behind_a_whole_unroll_the_next_one_needs_a_ticket_of_its_own() {
    let mut ground = Ground::new(1);
    let [goes, held] = [0, 1].map(|index| ground.actor(index, 0, 4));
    for actor in [goes, held] {
        ground.set(actor, Experience { unroll: n_steps(4), length: 4, ticket: Some(2), ..Experience::default() });
    }
    tickets(&mut ground, 9);
    ground.run(hold_stale_actors);
    assert_eq!(state(&ground, goes), (Readiness::Acting, Some(2), Some(9)));
    assert_eq!(state(&ground, held), (Readiness::Looking, Some(2), None));
}

#[test]
fn tickets_that_a_retired_actor_did_not_use_go_first() {
    let mut ground = Ground::new(1);
    let [unused, used, acting] = [0, 1, 2].map(|index| ground.actor(index, 0, 4));
    ground.set(unused, Experience { length: 4, ticket: Some(3), ..Experience::default() });
    let experience =
        Experience { unroll: n_steps(1), length: 4, ticket: Some(4), next_ticket: Some(6), ..Experience::default() };
    ground.set(used, experience);
    [unused, used].iter().for_each(|&actor| ground.set(actor, Readiness::Retired));
    tickets(&mut ground, 50);
    ground.run(hold_stale_actors);
    assert_eq!(state(&ground, unused), (Readiness::Retired, None, None));
    assert_eq!(state(&ground, used), (Readiness::Retired, Some(4), None), "its unroll is still to be learned from");
    assert_eq!(state(&ground, acting), (Readiness::Acting, Some(3), None));
    let tickets = ground.world.resource::<Tickets>();
    assert_eq!((&tickets.returned, tickets.next), (&BTreeSet::from([6]), 50));
}

#[test]
fn actors_take_a_newer_policy_out_of_the_slot_and_keep_theirs_otherwise() {
    for (in_slot, expected) in [(2, 3), (3, 3), (5, 5)] {
        let mut ground = Ground::new(1);
        ground.world.insert_resource(PolicySlot::new(policy(in_slot)));
        ground.run(receive_policy);
        assert_eq!(ground.policy_version(), expected, "version {in_slot} in the slot");
    }
}

/// A learner that made 3 updates in a world of its own, with batches of one, and the slot that it publishes to.
fn apart(ground: &mut Ground) -> (World, PolicySlot) {
    let slot = PolicySlot::new(policy(3));
    let queue = ground.world.resource::<TrajectoryReceiver>().clone();
    let mut world = learner_world(BatchRule::Arrival, queue, slot.clone());
    let (learner, _) = ground.learner(1);
    let state = ground.world.entity_mut(learner).take::<(LearnerState, LearnerStats)>().unwrap();
    world.spawn(state);
    (world, slot)
}

#[test]
fn a_learner_publishes_after_an_update_and_tells_where_its_time_went() {
    let mut ground = Ground::new(4);
    let (mut world, slot) = apart(&mut ground);
    let run = |world: &mut World| world.run_system_cached(publish_to_slot).unwrap();
    run(&mut world);
    assert_eq!((slot.newest().version(), world.resource::<SearchLog>().0.len()), (3, 0), "nothing is new");
    ground.queue(&[0]);
    world.run_system_cached(learn_once).unwrap();
    world.resource_mut::<SearchLog>().0.clear();
    let begun = Instant::now().checked_sub(Duration::from_secs(4)).unwrap();
    *world.resource_mut::<Times>() = Times { since: begun, idle: Duration::from_secs(1) };
    slot.0.actors_waited.store(250_000_000, Ordering::Relaxed);
    run(&mut world);
    assert_eq!(slot.newest().version(), 4);
    let [SearchEvent::Scheduled { n_updates: 4, numbers }] = &world.resource::<SearchLog>().0[..] else { panic!() };
    let [("period_s", period), ("learner_idle_share", idle), ("actors_wait_s", waited)] = numbers[..] else { panic!() };
    // It is 4 seconds and a little more.
    assert!((4.0..30.0).contains(&period) && (idle - 1.0 / period).abs() < 1e-9, "{numbers:?}");
    assert!((waited - 0.25).abs() < 1e-9, "{waited}");
    assert_eq!(slot.0.actors_waited.load(Ordering::Relaxed), 0);
    assert_eq!(world.resource::<Times>().idle, Duration::ZERO);
}

#[test]
fn a_tick_of_the_learner_is_one_batch_and_its_policy() {
    let mut ground = Ground::new(4);
    let (mut world, slot) = apart(&mut ground);
    ground.queue(&[0, 1]);
    for expected in [(4, 1), (5, 0), (5, 0)] {
        world.run_schedule(LearnTick);
        assert_eq!((slot.newest().version(), ground.n_queued()), expected);
    }
    let is_learned = world.resource::<SearchLog>().0.iter().map(|event| matches!(event, SearchEvent::Learned { .. }));
    assert_eq!(is_learned.collect::<Vec<_>>(), [true, false, true, false]);
}

#[test]
fn schedulers_are_named_with_an_optional_lag() {
    let parse = |text: &str| text.parse::<Scheduler>().ok();
    assert_eq!(parse("lockstep"), Some(Scheduler::Lockstep));
    assert_eq!(parse("bounded_lag"), Some(Scheduler::BoundedLag { max: 1 }));
    assert_eq!(parse("bounded_lag:4"), Some(Scheduler::BoundedLag { max: 4 }));
    for text in ["lockstep", "async", "bounded_lag:1"] {
        assert_eq!(text.parse::<Scheduler>().unwrap().name(), text);
    }
    for bad in ["", "lockstep:1", "bounded_lag:", "bounded_lag:-1", "Async"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}
