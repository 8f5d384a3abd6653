//! What walks are paid, and what is remembered of them.

use secateur_sim::{
    Cached, Finalists, ProcessEvent, Readiness, Reward, RewardKind, Score, SimError, Spent, StepReward, TaskStats,
    Walk, close_decisions, record_candidates, write_reward,
};

use crate::hand_made::{Process, widths};

#[test]
fn a_walk_is_paid_its_accuracy_or_what_its_divergence_leaves_of_one() {
    let mut process = Process::new();
    let paid = process.ended(0, 0, (2, 1)).candidate;
    process.set(paid, Score::labelled(0.75, 2.0f64.ln()));
    process.run(write_reward);
    assert_eq!(process.get::<Reward>(paid), Reward(0.75));
    process.settings().reward = RewardKind::Kl;
    process.run(write_reward);
    assert_eq!(process.get::<Reward>(paid), Reward(0.5));
}

#[test]
fn a_candidate_without_a_score_is_paid_nothing() {
    let mut process = Process::new();
    let candidate = process.ended(0, 0, (2, 1)).candidate;
    process.run(write_reward);
    assert_eq!(process.get::<Reward>(candidate), Reward(0.0));
}

#[test]
fn the_last_decision_of_a_walk_gets_its_reward_and_the_others_nothing() {
    let mut process = Process::new();
    let last = process.scored(0, 3, (2, 1), 0.75).actor;
    let inside = process.actor(1, 4);
    process.set(inside, Walk { cursor: 1, last_reward: 0.5, ..Walk::new(4, false, widths(2, 1)) });
    process.run(close_decisions);
    assert_eq!(process.get::<StepReward>(last), StepReward { reward: 0.75, ends_walk: true });
    assert_eq!(process.get::<StepReward>(inside), StepReward { reward: 0.0, ends_walk: false });
    let last_reward = [last, inside].map(|actor| process.get::<Walk>(actor).last_reward);
    assert_eq!(last_reward, [0.75, 0.0]);
    assert_eq!(process.failure(), None);
}

#[test]
fn decisions_of_actors_that_do_not_act_are_not_closed() {
    for readiness in
        [Readiness::Paused, Readiness::Looking, Readiness::Scoring, Readiness::Restarting, Readiness::Retired]
    {
        let mut process = Process::new();
        let actor = process.scored(0, 3, (2, 1), 0.75).actor;
        let before = StepReward { reward: 0.25, ends_walk: false };
        process.set(actor, before);
        process.set(actor, readiness);
        process.run(close_decisions);
        assert_eq!(process.get::<StepReward>(actor), before, "{readiness:?}");
    }
}

#[test]
fn a_reward_that_is_not_a_number_fails_the_tick_with_task_and_walk() {
    let mut process = Process::new();
    let bad = process.scored(0, 3, (2, 1), 0.75).candidate;
    process.set(bad, Reward(f32::NEG_INFINITY));
    process.run(close_decisions);
    let expected = SimError::Reward { task: "two-half".into(), walk: 3, got: "-inf".into() };
    assert_eq!(process.failure(), Some(expected));
}

#[test]
fn candidates_are_counted_and_the_best_distinct_ones_kept_best_first() {
    let mut process = Process::new();
    // The third is the first once more, the fourth has as much reward as the second for fewer multiply-accumulates.
    let candidates = [((2, 1), 0.5), ((3, 1), 0.7), ((2, 1), 0.5), ((1, 2), 0.7)];
    for (index, (widths, accuracy)) in candidates.into_iter().enumerate() {
        let candidate = process.scored(index, 10 + index as u64, widths, accuracy).candidate;
        if index == 2 {
            process.set(candidate, Cached);
        }
    }
    process.run(record_candidates);
    let stats = process.get::<TaskStats>(process.task);
    assert_eq!((stats.n_begun, stats.n_ended, stats.n_cache_hits), (0, 4, 1));
    let best = process.get::<Finalists>(process.task).best;
    assert_eq!(best.iter().map(|c| c.walk).collect::<Vec<_>>(), [13, 11]);
    let is_best = process.events().iter().map(|event| matches!(event, ProcessEvent::Candidate { is_best: true, .. }));
    assert_eq!(is_best.collect::<Vec<_>>(), [true, true, false, true]);
}

#[test]
fn what_happened_is_told_in_actor_order_with_the_widths_of_the_walk() {
    let mut process = Process::new();
    process.scored(1, 8, (1, 1), 0.25);
    let first = process.scored(0, 7, (3, 1), 0.5);
    process.set(first.candidate, Spent([(0, 2)].into()));
    process.run(record_candidates);
    let score = |accuracy| Score::labelled(accuracy, 0.0);
    let (task, noise_free, cached) = (0, false, false);
    let first = ProcessEvent::Candidate {
        task,
        actor: 0,
        walk: 7,
        noise_free,
        cached,
        reward: 0.5,
        score: score(0.5),
        macs: 26,
        costs: Vec::new(),
        widths: vec![3, 1],
        spent: [(0, 2)].into(),
        is_best: true,
    };
    let second = ProcessEvent::Candidate {
        task,
        actor: 1,
        walk: 8,
        noise_free,
        cached,
        reward: 0.25,
        score: score(0.25),
        macs: 10,
        costs: Vec::new(),
        widths: vec![1, 1],
        spent: Default::default(),
        is_best: false,
    };
    assert_eq!(process.events(), [first, second]);
}

#[test]
fn what_is_recorded_is_gone_and_a_walk_that_was_free_of_noise_is_told_as_such() {
    let mut process = Process::new();
    let ended = process.scored(0, 7, (3, 1), 0.5);
    process.set(ended.actor, Walk::new(7, true, widths(3, 1)));
    process.run(record_candidates);
    assert!(process.world.get_entity(ended.candidate).is_err());
    assert!(matches!(process.events(), [ProcessEvent::Candidate { noise_free: true, .. }]));
    assert!(process.get::<Finalists>(process.task).best[0].noise_free);
}

#[test]
fn a_candidate_without_a_score_and_a_walk_that_goes_on_are_not_recorded() {
    let mut process = Process::new();
    let candidate = process.ended(0, 0, (2, 1)).candidate;
    process.actor(1, 1);
    process.run(record_candidates);
    assert_eq!(process.get::<TaskStats>(process.task).n_ended, 0);
    assert!(process.get::<Finalists>(process.task).best.is_empty() && process.events().is_empty());
    assert!(process.world.get_entity(candidate).is_ok());
}
