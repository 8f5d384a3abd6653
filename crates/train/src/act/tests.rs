use std::sync::Arc;

use secateur_sim::{KeepRatio, Readiness, Walk};

use super::*;
use crate::error::TrainError;
use crate::hand_made::{Ground, policy, refusal, walk};

#[test]
fn the_question_holds_what_the_actor_sees_and_where_it_stands() {
    let mut ground = Ground::new(1);
    let actor = ground.actor(0, 7, 4);
    ground.set(actor, Walk { last_reward: 0.125, ..walk(7, 1) });
    ground.set(actor, RecurrentState(vec![1.0, 2.0]));
    ground.run(ask_policy);
    let expected = ActRequest {
        task: 5,
        walk: 7,
        layer: 1,
        n_layers: 2,
        observation: vec![0.25, 0.75],
        even_ratio: 0.5,
        last_action: 0.5,
        last_reward: 0.125,
        recurrent: vec![1.0, 2.0],
        explore: true,
    };
    assert_eq!(ground.get::<Asked>(actor).0, expected);
}

#[test]
fn a_walk_begins_without_recurrent_state_and_a_noise_free_one_does_not_explore() {
    let mut ground = Ground::new(1);
    let actor = ground.actor(0, 7, 4);
    ground.set(actor, Walk { noise_free: true, ..walk(7, 0) });
    ground.set(actor, RecurrentState(vec![1.0, 2.0]));
    ground.run(ask_policy);
    let asked = ground.get::<Asked>(actor).0;
    assert_eq!((asked.layer, asked.recurrent.len(), asked.explore), (0, 0, false));
}

#[test]
fn actors_that_act_or_only_look_ask_and_the_others_do_not() {
    let all = [
        Readiness::Acting,
        Readiness::Looking,
        Readiness::Paused,
        Readiness::Scoring,
        Readiness::Restarting,
        Readiness::Retired,
    ];
    let asks = all.map(|readiness| {
        let mut ground = Ground::new(1);
        let actor = ground.actor(0, 7, 4);
        ground.set(actor, readiness);
        ground.run(ask_policy);
        ground.get::<Asked>(actor).0.n_layers == 2
    });
    assert_eq!(asks, [true, true, false, false, false, false]);
}

/// A question known by its walk.
fn asked(walk: u64) -> Asked {
    Asked(ActRequest { walk, ..ActRequest::default() })
}

#[test]
fn the_newest_policy_is_asked_once_for_all_who_act_in_actor_order() {
    let mut ground = Ground::new(1);
    let newest = policy(8);
    ground.world.insert_resource(CurrentPolicy(newest.clone()));
    let actors = [2, 0, 1, 3].map(|index| {
        let actor = ground.actor(index, 0, 4);
        ground.set(actor, asked(10 + index as u64));
        actor
    });
    ground.set(actors[2], Readiness::Looking);
    ground.run(act);
    assert_eq!(*newest.batches.lock().unwrap(), [[10, 12, 13].map(|walk| asked(walk).0)]);
    // Actors 2, 0 and 3, in the order in which they were spawned, stand at places 2, 1 and 3 of the batch.
    let answers = [actors[0], actors[1], actors[3]].map(|actor| {
        let recurrent = ground.get::<RecurrentState>(actor).0;
        (
            ground.get::<KeepRatio>(actor).0,
            ground.get::<Decided>(actor).0.value,
            recurrent,
            ground.get::<PolicyVersion>(actor).0,
        )
    });
    let expected = [(0.2, 2.0), (0.1, 1.0), (0.3, 3.0)].map(|(keep, place)| (keep, place, vec![place; 2], 8));
    assert_eq!(answers, expected);
    assert_eq!(ground.get::<KeepRatio>(actors[2]), KeepRatio::default());
    assert_eq!(ground.get::<Asked>(actors[0]).0, asked(12).0, "an actor keeps its question, which is learned from");
    assert_eq!(ground.world.resource::<EnvSteps>().0, 3);
}

#[test]
fn a_policy_is_not_asked_when_nobody_acts() {
    let mut ground = Ground::new(1);
    let newest = policy(8);
    ground.world.insert_resource(CurrentPolicy(newest.clone()));
    let actor = ground.actor(0, 0, 4);
    ground.set(actor, Readiness::Paused);
    ground.run(act);
    assert!(newest.batches.lock().unwrap().is_empty());
}

#[test]
fn a_policy_that_refuses_fails_the_tick_and_takes_no_step() {
    let mut ground = Ground::new(1);
    let actor = ground.actor(0, 0, 4);
    ground.set(actor, Asked(ActRequest { task: 99, ..ActRequest::default() }));
    ground.run(act);
    let failure = ground.world.resource::<TrainFailure>().0.as_ref().unwrap();
    assert!(matches!(failure, TrainError::Agent(cause) if cause.to_string() == refusal().to_string()), "{failure}");
    assert_eq!((ground.get::<KeepRatio>(actor).0, ground.world.resource::<EnvSteps>().0), (0.0, 0));
}

#[test]
fn a_second_tick_asks_anew() {
    let mut ground = Ground::new(1);
    let newest = policy(8);
    ground.world.insert_resource(CurrentPolicy(newest.clone()));
    let actor = ground.actor(0, 0, 4);
    let act = ground.world.register_system(act);
    for walk in [1, 2] {
        ground.set(actor, asked(walk));
        ground.world.run_system(act).unwrap();
    }
    assert_eq!(*newest.batches.lock().unwrap(), [1, 2].map(|walk| vec![asked(walk).0]));
    assert_eq!((Arc::strong_count(&newest), ground.world.resource::<EnvSteps>().0), (2, 2));
}
