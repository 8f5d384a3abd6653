use crossbeam::channel::bounded;
use secateur_rl::{ActRequest, Decision};

use super::*;
use crate::components::TrajectoryReceiver;
use crate::hand_made::{Ground, unroll, walk};

/// Gives an actor the decision at place `layer` of walk 7, every number of which tells the layer. A walk ends with
/// layer 1.
fn decide(ground: &mut Ground, actor: Entity, layer: u32) {
    let x = layer as f32;
    let request = ActRequest {
        task: 5,
        layer,
        observation: vec![0.25 + x, 0.75 + x],
        even_ratio: 0.1 + x,
        last_action: 0.2 + x,
        last_reward: 0.3 + x,
        recurrent: vec![0.4 + x],
        ..ActRequest::default()
    };
    let decision = Decision { raw_action: 0.5 + x, log_prob: 0.6 + x, value: 0.7 + x, ..Decision::default() };
    ground.set(actor, Asked(request));
    ground.set(actor, Decided(decision));
    ground.set(actor, Realised { place: layer as usize, keep_ratio: 0.8 + x });
    ground.set(actor, StepReward { reward: 0.9 + x, ends_walk: layer == 1 });
    ground.set(actor, PolicyVersion(11 + u64::from(layer)));
    ground.set(actor, walk(7, 1 + layer as usize));
}

/// The steps at `layers` without what comes after the last.
fn steps(layers: &[u32]) -> Unroll {
    let each = |base: f32| layers.iter().map(|&layer| base + layer as f32).collect::<Vec<f32>>();
    Unroll {
        task: 5,
        first_recurrent: vec![0.4 + layers[0] as f32],
        observation: layers.iter().flat_map(|&layer| [0.25 + layer as f32, 0.75 + layer as f32]).collect(),
        layer: layers.to_vec(),
        even_ratio: each(0.1),
        last_action: each(0.2),
        last_reward: each(0.3),
        starts_walk: layers.iter().map(|&layer| layer == 0).collect(),
        raw_action: each(0.5),
        keep_ratio: each(0.8),
        log_prob: each(0.6),
        value: each(0.7),
        reward: each(0.9),
        ends_walk: layers.iter().map(|&layer| layer == 1).collect(),
        policy_version: layers.iter().map(|&layer| 11 + u64::from(layer)).collect(),
    }
}

/// The steps at `layers`, then what is seen at `next`.
fn whole(layers: &[u32], next: u32) -> Unroll {
    let (mut unroll, next) = (steps(layers), steps(&[next]));
    unroll.observation.extend(next.observation);
    unroll.layer.extend(next.layer);
    unroll.even_ratio.extend(next.even_ratio);
    unroll.last_action.extend(next.last_action);
    unroll.last_reward.extend(next.last_reward);
    unroll.starts_walk.extend(next.starts_walk);
    unroll
}

/// An actor with the steps at `layers` in its unroll, which waits from then on.
fn collecting(ground: &mut Ground, layers: &[u32], length: usize) -> Entity {
    let actor = ground.actor(0, 7, length);
    for &layer in layers {
        decide(ground, actor, layer);
        ground.run(collect_steps);
    }
    ground.set(actor, Readiness::Paused);
    actor
}

#[test]
fn a_decision_becomes_a_step_of_the_unroll() {
    let mut ground = Ground::new(1);
    let actor = collecting(&mut ground, &[0, 1], 3);
    assert_eq!(ground.get::<Experience>(actor).unroll, steps(&[0, 1]));
    assert_eq!(ground.trajectories(), []);
    assert_eq!(ground.get::<RestartPoint>(actor), RestartPoint(None));
}

#[test]
fn steps_without_noise_and_actors_that_do_not_act_are_not_collected() {
    let mut ground = Ground::new(1);
    let noise_free = ground.actor(0, 7, 3);
    decide(&mut ground, noise_free, 0);
    ground.set(noise_free, Walk { noise_free: true, ..walk(7, 1) });
    let waiting = ground.actor(1, 8, 3);
    decide(&mut ground, waiting, 0);
    ground.set(waiting, Readiness::Paused);
    ground.run(collect_steps);
    for actor in [noise_free, waiting] {
        assert_eq!(ground.get::<Experience>(actor).unroll, Unroll::default());
    }
}

#[test]
fn an_unroll_that_a_walks_end_completes_is_handed_over_at_once() {
    let mut ground = Ground::new(1);
    let actor = ground.actor(4, 7, 2);
    let experience = ground.get::<Experience>(actor);
    ground.set(actor, Experience { sequence: 6, ticket: Some(21), next_ticket: Some(22), ..experience });
    ground.set(actor, Restarts { n: 3, of_walk: 1 });
    for layer in [0, 1] {
        decide(&mut ground, actor, layer);
        ground.run(collect_steps);
    }
    // Nothing after the end counts, so what is seen there is repeated.
    let provenance = Provenance { actor, actor_index: 4, incarnation: 3, sequence: 6, ticket: 21 };
    assert_eq!(ground.trajectories(), [(provenance, whole(&[0, 1], 1))]);
    let experience = ground.get::<Experience>(actor);
    assert_eq!((experience.unroll, experience.sequence), (Unroll::default(), 7));
    assert_eq!((experience.ticket, experience.next_ticket), (Some(22), None));
    assert_eq!(ground.get::<RestartPoint>(actor), RestartPoint(None));
}

#[test]
fn an_unroll_that_is_whole_within_a_walk_waits_for_what_is_seen_next_and_the_walk_restarts_behind_it() {
    let mut ground = Ground::new(1);
    let actor = ground.actor(0, 7, 1);
    decide(&mut ground, actor, 0);
    ground.set(actor, RecurrentState(vec![1.5]));
    ground.run(collect_steps);
    assert_eq!(ground.trajectories(), []);
    assert_eq!(ground.get::<RestartPoint>(actor).0, Some(walk(7, 1)));
    assert_eq!(ground.get::<Experience>(actor).restart_recurrent, [1.5]);
    decide(&mut ground, actor, 1);
    ground.run(collect_steps);
    let unrolls: Vec<Unroll> = ground.trajectories().into_iter().map(|(_, unroll)| unroll).collect();
    assert_eq!(unrolls, [whole(&[0], 1), whole(&[1], 1)]);
}

#[test]
fn a_whole_unroll_of_an_actor_that_sees_its_layer_but_does_not_act_goes_without_a_new_step() {
    for readiness in [Readiness::Looking, Readiness::Scoring, Readiness::Restarting] {
        let mut ground = Ground::new(1);
        let actor = collecting(&mut ground, &[0], 1);
        decide(&mut ground, actor, 1);
        ground.set(actor, readiness);
        ground.run(collect_steps);
        let unrolls: Vec<Unroll> = ground.trajectories().into_iter().map(|(_, unroll)| unroll).collect();
        assert_eq!(unrolls, [whole(&[0], 1)], "{readiness:?}");
        assert_eq!(ground.get::<Experience>(actor).unroll, Unroll::default());
    }
}

#[test]
fn a_retired_actor_hands_over_what_it_has_once() {
    let mut ground = Ground::new(1);
    let actor = collecting(&mut ground, &[0, 1], 5);
    ground.set(actor, Readiness::Retired);
    ground.run(collect_steps);
    ground.run(collect_steps);
    // What comes after the last step is that step once more, at the start of another walk.
    let mut expected = whole(&[0, 1], 1);
    expected.starts_walk[2] = true;
    let unrolls: Vec<Unroll> = ground.trajectories().into_iter().map(|(_, unroll)| unroll).collect();
    assert_eq!(unrolls, [expected]);
}

#[test]
fn the_steps_of_a_walk_that_is_done_again_are_forgotten_and_those_of_walks_before_it_stay() {
    let mut ground = Ground::new(1);
    let restarting = collecting(&mut ground, &[0, 1, 0], 5);
    let in_first_walk = collecting(&mut ground, &[0], 5);
    let acting = collecting(&mut ground, &[0, 1, 0], 5);
    [restarting, in_first_walk].iter().for_each(|&actor| ground.set(actor, Readiness::Restarting));
    ground.set(acting, Readiness::Acting);
    ground.set(restarting, RecurrentState(vec![2.5]));
    ground.run(forget_failed_walks);
    let unroll = |actor| ground.get::<Experience>(actor).unroll;
    assert_eq!(unroll(restarting), steps(&[0, 1]));
    assert_eq!(unroll(in_first_walk), Unroll::default());
    assert_eq!(unroll(acting), steps(&[0, 1, 0]));
    assert_eq!(ground.get::<RecurrentState>(restarting).0, [2.5], "at the start of a walk nobody reads it");
}

#[test]
fn an_actor_that_restarts_behind_a_whole_unroll_keeps_it_and_gets_its_recurrent_state_back() {
    let mut ground = Ground::new(1);
    let actor = ground.actor(0, 7, 1);
    decide(&mut ground, actor, 0);
    ground.set(actor, RecurrentState(vec![1.5]));
    ground.run(collect_steps);
    ground.set(actor, RecurrentState(vec![2.5]));
    ground.set(actor, Readiness::Restarting);
    ground.run(forget_failed_walks);
    assert_eq!(ground.get::<Experience>(actor).unroll, steps(&[0]));
    assert_eq!(ground.get::<RecurrentState>(actor).0, [1.5]);
}

/// A trajectory on its way, known by its task.
fn on_its_way(ground: &mut Ground, actor: Entity, (actor_index, sequence): (usize, u64), task: u32) -> Entity {
    let provenance = Provenance { actor, actor_index, incarnation: 0, sequence, ticket: 30 + u64::from(task) };
    ground.world.spawn((Trajectory(unroll(task, &[])), provenance)).id()
}

fn take_queued(ground: &Ground) -> Vec<(u64, u32)> {
    let queue = &ground.world.resource::<TrajectoryReceiver>().0;
    queue.try_iter().map(|queued| (queued.ticket, queued.unroll.task)).collect()
}

#[test]
fn trajectories_are_queued_oldest_first_then_in_actor_order() {
    let mut ground = Ground::new(4);
    let [first, second] = [0, 1].map(|index| ground.actor(index, 0, 1));
    let order = [(second, (1, 1), 3), (second, (1, 0), 1), (first, (0, 1), 2), (first, (0, 0), 0)];
    for (actor, from, task) in order {
        on_its_way(&mut ground, actor, from, task);
    }
    ground.run(enqueue_trajectories);
    assert_eq!(take_queued(&ground), [(30, 0), (31, 1), (32, 2), (33, 3)]);
    assert_eq!(ground.trajectories(), []);
}

#[test]
fn what_does_not_fit_into_the_queue_stays_whole_and_its_actor_waits_until_it_does() {
    let mut ground = Ground::new(1);
    let [first, second, retired] = [0, 1, 2].map(|index| ground.actor(index, 0, 1));
    ground.set(retired, Readiness::Retired);
    let later =
        [(first, 0), (second, 1), (retired, 2)].map(|(actor, i)| on_its_way(&mut ground, actor, (i, 0), i as u32));
    let readiness = |ground: &Ground| [first, second, retired].map(|actor| ground.get::<Readiness>(actor));
    ground.run(enqueue_trajectories);
    assert_eq!(readiness(&ground), [Readiness::Acting, Readiness::Paused, Readiness::Retired]);
    assert_eq!(ground.get::<Trajectory>(later[1]).0, unroll(1, &[]));
    for task in [0, 1] {
        assert_eq!(take_queued(&ground), [(30 + u64::from(task), task)]);
        ground.run(enqueue_trajectories);
        assert_eq!(readiness(&ground), [Readiness::Acting, Readiness::Acting, Readiness::Retired]);
    }
    assert_eq!((take_queued(&ground), ground.trajectories()), (vec![(32, 2)], vec![]));
}

#[test]
fn a_queue_without_a_learner_at_its_other_end_fails_the_tick() {
    let mut ground = Ground::new(1);
    let (sender, _) = bounded(1);
    ground.world.insert_resource(TrajectorySender(sender));
    let actor = ground.actor(0, 0, 1);
    let trajectory = on_its_way(&mut ground, actor, (0, 0), 7);
    ground.run(enqueue_trajectories);
    let failure = ground.world.resource::<TrainFailure>().0.as_ref().unwrap();
    assert!(matches!(failure, TrainError::QueueClosed { actor: 0 }) && failure.to_string().contains("hung up"));
    assert_eq!(ground.get::<Trajectory>(trajectory).0, unroll(7, &[]), "nothing is lost");
}

#[test]
fn the_trajectory_of_an_actor_that_is_gone_is_queued_once() {
    let mut ground = Ground::new(4);
    let actor = ground.actor(0, 0, 1);
    on_its_way(&mut ground, actor, (0, 0), 7);
    ground.world.despawn(actor);
    ground.run(enqueue_trajectories);
    ground.run(enqueue_trajectories);
    assert_eq!((take_queued(&ground), ground.trajectories()), (vec![(37, 7)], vec![]));
}
