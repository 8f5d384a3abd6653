//! What a learner takes over from one of its kind that learned on other tasks.

#![allow(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking")]

#[expect(dead_code, reason = "other tests need the rest")]
mod synthetic;

use secateur_rl::agents::evolution::EvolutionSettings;
use secateur_rl::agents::mtacp::{MtacpLearner, MtacpSettings};
use secateur_rl::{Agent, EnvironmentSpec, Inheritance, Learner, Profile, TaskOrigin, build};
use synthetic::search::{mean_policy_accuracy, run_learner};
use synthetic::{KEEP_RATIO_MIN, N_FEATURES, Net};

const LEARNED: [f64; 3] = [0.35, 0.5, 0.65];

fn environment(net: &Net, n_tasks: usize) -> EnvironmentSpec {
    EnvironmentSpec {
        n_features: N_FEATURES,
        n_tasks,
        n_actors: 12,
        walk_length_max: net.n_layers(),
        walks_planned: 152 * n_tasks as u64,
        keep_ratio_min: KEEP_RATIO_MIN,
        seed: 1,
    }
}

fn learner(net: &Net, n_tasks: usize) -> MtacpLearner {
    MtacpLearner::new(MtacpSettings::of(Profile::Tuned), &environment(net, n_tasks)).unwrap()
}

/// A learner that walked the three budgets.
fn learned(net: &Net) -> MtacpLearner {
    let mut learner = learner(net, LEARNED.len());
    run_learner(&mut learner, net, &LEARNED, 4, 0..152);
    learner
}

fn inherit(net: &Net, learner: &mut MtacpLearner, state: &[u8], budgets: &[f64]) {
    let earlier: Vec<(usize, f64)> = LEARNED.iter().copied().enumerate().collect();
    let origins: Vec<TaskOrigin> =
        budgets.iter().map(|&b| TaskOrigin::between(b, &earlier, net.n_layers(), net.n_layers())).collect();
    let (n_tasks_then, walk_length_max_then) = (LEARNED.len(), net.n_layers());
    learner.inherit(&Inheritance { state, walk_length_max_then, n_tasks_then, origins: &origins, progress: 1.0 }).unwrap();
}

#[test]
fn the_same_tasks_in_another_order_are_answered_as_before() {
    let net = Net::new(9, 11);
    let whole = learned(&net);
    let mut other = learner(&net, 2);
    inherit(&net, &mut other, &whole.save().unwrap(), &[0.65, 0.35]);
    let before = mean_policy_accuracy(&*whole.policy(), &net, &LEARNED);
    let after = mean_policy_accuracy(&*other.policy(), &net, &[0.65, 0.35]);
    assert_eq!([before[2], before[0]], [after[0], after[1]]);
}

#[test]
fn a_budget_between_is_answered_better_than_by_a_policy_that_learned_nothing() {
    let mut gains = Vec::new();
    for seed in [11, 12, 13] {
        let net = Net::new(9, seed);
        let budgets = [0.42, 0.58];
        let mut inherits = learner(&net, 2);
        let fresh = mean_policy_accuracy(&*inherits.policy(), &net, &budgets);
        inherit(&net, &mut inherits, &learned(&net).save().unwrap(), &budgets);
        let policy = mean_policy_accuracy(&*inherits.policy(), &net, &budgets);
        gains.extend(policy.iter().zip(&fresh).map(|(policy, fresh)| policy - fresh));
    }
    assert!(gains.iter().sum::<f64>() / gains.len() as f64 > 0.02, "{gains:?}");
}

#[test]
fn a_state_of_other_tasks_or_another_agent_is_refused_and_changes_nothing() {
    let net = Net::new(5, 2);
    let state = learner(&net, 3).save().unwrap();
    let mut fresh = learner(&net, 1);
    let before = fresh.save().unwrap();
    let origin = TaskOrigin { shares: vec![(0, 1.0)], walk_length_then: 5, walk_length: 5 };
    let mut refused = |state: &[u8], n_tasks_then: usize, shares: Vec<(usize, f32)>| {
        let origins = [TaskOrigin { shares, ..origin.clone() }];
        let from = Inheritance { state, walk_length_max_then: 5, n_tasks_then, origins: &origins, progress: 1.0 };
        let told = fresh.inherit(&from).unwrap_err().to_string();
        assert_eq!(fresh.save().unwrap(), before);
        told
    };
    assert!(refused(&state, 2, vec![(0, 1.0)]).contains("other numbers of networks or data sets"));
    assert!(refused(&state, 3, vec![(3, 1.0)]).contains("no row of such a task"));
    assert!(!refused(&state[..state.len() / 2], 3, vec![(0, 1.0)]).is_empty());
    assert!(!refused(b"", 3, vec![(0, 1.0)]).is_empty());
    let Agent::Learning(mut evolution) = build(&EvolutionSettings::default(), &environment(&net, 1)).unwrap() else {
        panic!("it learns")
    };
    let origins = [origin];
    let from = Inheritance { state: &state, walk_length_max_then: 5, n_tasks_then: 3, origins: &origins, progress: 1.0 };
    assert!(evolution.inherit(&from).unwrap_err().to_string().contains("cannot take over"));
}
