//! Observing, clamping, selecting, and how walks begin.

use secateur_sim::{
    Budget, CandidateId, Compact, Importance, KeepRatio, Kept, Macs, MadeBy, NoiseFree, Observation, PrunedNetwork,
    Readiness, Realised, RestartPoint, Restarts, Score, SimError, Spent, StepReward, TaskStats, Walk, WalkEnd,
    begin_walks, clamp_keep_ratio, observe_layers, restart_actors, select_channels,
};

use crate::hand_made::{A, B, Process, macs, widths};

/// The largest keep ratio below 3/4, from which on the second convolution would keep both channels, that 16 halvings of
/// [0, 1] find.
const BELOW_THREE_QUARTERS: f32 = 0.75 - 1.0 / 65536.0;

/// A walk that kept two of the first convolution's four channels.
fn after_first_decision() -> Walk {
    Walk { cursor: 1, last_action: 0.5, ..Walk::new(4, false, widths(2, 1)) }
}

#[test]
fn an_actor_sees_the_group_it_is_at_and_what_earlier_decisions_saved() {
    let mut process = Process::new();
    let actor = process.actor(0, 4);
    process.set(actor, after_first_decision());
    process.run(observe_layers);
    // The linear map of 2 to 2 reads the second convolution. Of 52 multiply-accumulates, 8 + 16 + 4 are left with the
    // second convolution whole, although the walk's widths hold the least that is allowed of it.
    let shape = [2.0 / 4.0, 1.0, 1.0 / 2.0, 1.0 / 2.0, 1.0, 1.0];
    let features = [&[1.0], &shape[..], &[0.5, 1.0, 36.0 / 48.0, 24.0 / 52.0, 0.0, 0.5]].concat();
    let expected = Observation { features, even_ratio: BELOW_THREE_QUARTERS };
    assert_eq!(process.get::<Observation>(actor), expected);
    assert_eq!(process.get::<Walk>(actor), after_first_decision(), "to look changes nothing");
}

#[test]
fn the_even_ratio_is_what_all_groups_to_come_can_share_and_not_below_the_least_of_the_scene() {
    let mut process = Process::new();
    let actor = process.actor(0, 0);
    process.run(observe_layers);
    // Three and one channels: 12 + 12 + 2 = 26. From 3/4 on three and two: 40.
    assert_eq!(process.get::<Observation>(actor).even_ratio, BELOW_THREE_QUARTERS);
    process.settings().keep_ratio_min = 0.875;
    process.run(observe_layers);
    assert_eq!(process.get::<Observation>(actor).even_ratio, 0.875);
}

#[test]
fn actors_that_only_look_see_their_layer_and_those_that_cannot_act_do_not() {
    let mut process = Process::new();
    let all = [
        Readiness::Acting,
        Readiness::Looking,
        Readiness::Paused,
        Readiness::Scoring,
        Readiness::Restarting,
        Readiness::Retired,
    ];
    let actors = all.map(|readiness| {
        let actor = process.actor(0, 0);
        process.set(actor, readiness);
        actor
    });
    process.run(observe_layers);
    let lengths = actors.map(|actor| process.get::<Observation>(actor).features.len());
    assert_eq!(lengths, [13, 13, 0, 0, 0, 0]);
}

#[test]
fn a_keep_ratio_beyond_the_budget_is_lowered_to_the_wall() {
    let mut process = Process::new();
    let actor = process.actor(0, 0);
    process.set(actor, KeepRatio(1.0));
    process.run(clamp_keep_ratio);
    // With one channel of the second convolution after it, three take 26, four 34.
    let walk = process.get::<Walk>(actor);
    assert_eq!((walk.cursor, &walk.widths, walk.last_action), (1, &widths(3, 1), 0.75));
    assert_eq!(process.get::<Realised>(actor), Realised { place: 0, keep_ratio: 0.75 });
    process.run(clamp_keep_ratio);
    let walk = process.get::<Walk>(actor);
    assert_eq!((walk.cursor, &walk.widths, walk.last_action), (2, &widths(3, 1), 0.5));
    assert_eq!(process.get::<Realised>(actor), Realised { place: 1, keep_ratio: 0.5 });
}

#[test]
fn a_keep_ratio_within_the_budget_becomes_the_nearest_width() {
    for (wanted, width) in [(-3.0, 1), (0.3, 1), (0.375, 2), (0.6, 2), (0.65, 3)] {
        let mut process = Process::new();
        let actor = process.actor(0, 0);
        process.set(actor, KeepRatio(wanted));
        process.run(clamp_keep_ratio);
        assert_eq!(process.get::<Walk>(actor).widths, widths(width, 1), "asked for {wanted}");
    }
}

#[test]
fn a_keep_ratio_that_is_not_a_number_fails_the_tick_and_moves_nobody() {
    let mut process = Process::new();
    let actor = process.actor(0, 6);
    process.set(actor, KeepRatio(f32::NAN));
    process.run(clamp_keep_ratio);
    assert_eq!(process.get::<Walk>(actor), Walk::new(6, false, widths(1, 1)));
    let expected = SimError::KeepRatio { task: "two-half".into(), walk: 6, got: "NaN".into() };
    assert_eq!(process.failure(), Some(expected));
}

#[test]
fn only_actors_that_act_decide() {
    for readiness in
        [Readiness::Paused, Readiness::Looking, Readiness::Scoring, Readiness::Restarting, Readiness::Retired]
    {
        let mut process = Process::new();
        let actor = process.actor(0, 0);
        process.set(actor, readiness);
        process.set(actor, KeepRatio(1.0));
        process.run(clamp_keep_ratio);
        assert_eq!(process.get::<Walk>(actor).cursor, 0, "{readiness:?}");
    }
}

#[test]
fn at_the_end_of_a_walk_the_channels_that_the_removal_paths_name_are_gone() {
    let mut process = Process::new();
    let actor = process.actor(0, 3);
    process.set(actor, Walk { cursor: 2, ..Walk::new(3, true, widths(2, 1)) });
    process.run(select_channels);
    let candidate = process.get::<WalkEnd>(actor).0.unwrap();
    let kept = process.get::<Kept>(candidate).0;
    assert_eq!((kept.group(A), kept.group(B)), (&[1, 3][..], &[0][..]));
    assert_eq!(process.get::<CandidateId>(candidate), CandidateId { task: 0, walk: 3 });
    assert_eq!(process.get::<MadeBy>(candidate), MadeBy { actor, index: 0 });
    assert_eq!((process.get::<Macs>(candidate), process.get::<Spent>(candidate)), (Macs(18), Spent::default()));
    assert!(process.find::<Compact>(candidate).is_none() && process.find::<Score>(candidate).is_none());
}

/// Layers in walk order.
fn layers(process: &Process) -> Vec<bevy_ecs::entity::Entity> {
    process.get::<PrunedNetwork>(process.network).layers
}

#[test]
fn a_layer_whose_importance_is_changed_loses_other_channels() {
    let mut process = Process::new();
    let first = layers(&process)[0];
    let mut importance = process.get::<Importance>(first);
    std::sync::Arc::make_mut(&mut importance.0).removed = vec![3, 1, 0];
    process.set(first, importance);
    let actor = process.actor(0, 3);
    process.set(actor, Walk { cursor: 2, ..Walk::new(3, true, widths(2, 1)) });
    process.run(select_channels);
    let kept = process.get::<Kept>(process.get::<WalkEnd>(actor).0.unwrap()).0;
    assert_eq!((kept.group(A), kept.group(B)), (&[0, 2][..], &[0][..]));
}

#[test]
fn an_importance_that_does_not_tell_what_goes_fails_the_tick_with_network_and_layer() {
    for broken in [vec![3], vec![1, 1, 0], vec![4, 0, 1], vec![]] {
        let mut process = Process::new();
        let first = layers(&process)[0];
        let mut importance = process.get::<Importance>(first);
        std::sync::Arc::make_mut(&mut importance.0).removed = broken;
        process.set(first, importance);
        let actor = process.actor(0, 3);
        process.set(actor, Walk { cursor: 2, ..Walk::new(3, true, widths(2, 1)) });
        process.run(select_channels);
        let error = process.failure().unwrap().to_string();
        assert!(error.contains("'two'") && error.contains("layer 'a'"), "{error}");
        assert_eq!(process.get::<WalkEnd>(actor), WalkEnd(None));
    }
}

#[test]
fn a_walk_that_goes_on_or_an_actor_that_waits_has_no_candidate() {
    let mut process = Process::new();
    let goes_on = process.actor(0, 3);
    process.set(goes_on, after_first_decision());
    let waits = process.actor(1, 4);
    process.set(waits, Walk { cursor: 2, ..Walk::new(4, false, widths(2, 1)) });
    process.set(waits, Readiness::Paused);
    process.run(select_channels);
    assert_eq!([goes_on, waits].map(|actor| process.get::<WalkEnd>(actor)), [WalkEnd(None); 2]);
}

#[test]
fn leftover_budget_is_spent_where_the_error_falls_most_per_mac_and_recorded() {
    let mut process = Process::new();
    process.settings().spend_leftover = true;
    let actor = process.actor(0, 0);
    process.set(actor, Walk { cursor: 2, ..Walk::new(0, false, widths(1, 1)) });
    process.run(select_channels);
    // From 10: a second channel of the first convolution takes 8 and saves 0.9 - 0.3, 0.075 each; of the second 6 and
    // 0.5, 0.083 each. From 16, one more of the first would come to 28.
    let candidate = process.get::<WalkEnd>(actor).0.unwrap();
    assert_eq!((process.get::<Kept>(candidate).0.widths(), process.get::<Macs>(candidate)), (widths(1, 2), Macs(16)));
    assert_eq!(process.get::<Spent>(candidate).0, [(1, 1)].into());
    assert_eq!(process.get::<Walk>(actor).widths, widths(1, 2));
}

/// An actor whose walk ended in this tick, with all that an end leaves behind.
fn ended(process: &mut Process, index: usize) -> bevy_ecs::entity::Entity {
    let actor = process.ended(index, 0, (2, 1)).actor;
    process.set(actor, Walk { cursor: 2, last_action: 0.5, last_reward: 0.7, ..Walk::new(0, false, widths(2, 1)) });
    process.set(actor, StepReward { reward: 0.7, ends_walk: true });
    process.set(actor, Restarts { n: 5, of_walk: 2 });
    process.set(actor, RestartPoint(Some(after_first_decision())));
    actor
}

#[test]
fn walks_that_ended_are_followed_by_new_ones_numbered_in_actor_order() {
    let mut process = Process::new();
    process.settings().noise_free = NoiseFree { every: 5, last: 0 };
    let [second, first] = [1, 0].map(|index| ended(&mut process, index));
    let task = process.task;
    process.set(task, TaskStats { n_begun: 3, n_wanted: 10, ..TaskStats::default() });
    process.run(begin_walks);
    assert_eq!(process.get::<Walk>(first), Walk::new(3, false, widths(1, 1)));
    assert_eq!(process.get::<Walk>(second), Walk::new(4, true, widths(1, 1)), "every fifth walk is free of noise");
    assert_eq!(process.get::<TaskStats>(task).n_begun, 5);
    assert_eq!(process.get::<StepReward>(first), StepReward::default());
    assert_eq!(process.get::<Restarts>(first), Restarts { n: 5, of_walk: 0 });
    assert_eq!(process.get::<RestartPoint>(first), RestartPoint(None));
    assert_eq!(process.get::<WalkEnd>(first), WalkEnd(None));
}

#[test]
fn an_actor_retires_when_its_task_has_no_walks_left_and_one_in_a_walk_goes_on() {
    let mut process = Process::new();
    let [last, too_many] = [0, 1].map(|index| ended(&mut process, index));
    let inside = process.actor(2, 8);
    process.set(inside, after_first_decision());
    let task = process.task;
    process.set(task, TaskStats { n_begun: 9, n_wanted: 10, ..TaskStats::default() });
    process.run(begin_walks);
    let readiness = [last, too_many, inside].map(|actor| process.get::<Readiness>(actor));
    assert_eq!(readiness, [Readiness::Acting, Readiness::Retired, Readiness::Acting]);
    assert_eq!((process.get::<Walk>(last).number, process.get::<TaskStats>(task).n_begun), (9, 10));
    assert_eq!(process.get::<Walk>(inside), after_first_decision());
    assert_eq!(process.get::<WalkEnd>(too_many), WalkEnd(None));
}

#[test]
fn a_restarting_actor_does_the_same_walk_again_from_its_start_or_its_restart_point() {
    let mut process = Process::new();
    let [from_start, from_point, acting] = [0, 1, 2].map(|index| process.ended(index, 4, (2, 1)).actor);
    let candidates = [from_start, from_point, acting].map(|actor| process.get::<WalkEnd>(actor).0.unwrap());
    for actor in [from_start, from_point, acting] {
        process.set(actor, Walk { cursor: 2, last_reward: 0.5, ..Walk::new(4, true, widths(2, 1)) });
    }
    [from_start, from_point].iter().for_each(|&actor| process.set(actor, Readiness::Restarting));
    process.set(from_point, RestartPoint(Some(after_first_decision())));
    process.run(restart_actors);
    assert_eq!(process.get::<Walk>(from_start), Walk::new(4, true, widths(1, 1)));
    assert_eq!(process.get::<Walk>(from_point), after_first_decision());
    assert_eq!(process.get::<Walk>(acting).cursor, 2);
    for actor in [from_start, from_point] {
        assert_eq!(process.get::<Readiness>(actor), Readiness::Acting);
        assert_eq!(process.get::<WalkEnd>(actor), WalkEnd(None));
    }
    assert!(process.get::<WalkEnd>(acting).0.is_some());
    let is_there = candidates.map(|candidate| process.world.get_entity(candidate).is_ok());
    assert_eq!(is_there, [false, false, true]);
}

#[test]
fn the_hand_made_task_costs_what_its_description_says() {
    let process = Process::new();
    let wall = process.get::<Budget>(process.task).0;
    assert_eq!((wall.order(), wall.least_widths()), (&[A, B][..], &widths(1, 1)[..]));
    let prepared = crate::hand_made::prepared();
    for (a, b) in [(1, 1), (3, 1), (4, 2)] {
        let count = prepared.model.count(wall.limits()[0].cost, &widths(a, b));
        assert_eq!(count, macs(a, b));
    }
}
