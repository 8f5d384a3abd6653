//! What a learner takes over from one of its kind that learned on other tasks.

#![allow(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking")]

#[expect(dead_code, reason = "other tests need the rest")]
mod synthetic;

use secateur_rl::agents::amc::AmcSettings;
use secateur_rl::agents::cacp::CacpSettings;
use secateur_rl::agents::evolution::EvolutionSettings;
use secateur_rl::agents::mtacp::{MtacpLearner, MtacpSettings};
use secateur_rl::{Agent, AgentSettings, EnvironmentSpec, Inheritance, Learner, Profile, TaskOrigin, build};
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
    learner
        .inherit(&Inheritance { state, walk_length_max_then, n_tasks_then, origins: &origins, progress: 1.0 })
        .unwrap();
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
    let from =
        Inheritance { state: &state, walk_length_max_then: 5, n_tasks_then: 3, origins: &origins, progress: 1.0 };
    assert!(evolution.inherit(&from).unwrap_err().to_string().contains("cannot take over"));
}

fn ddpg(settings: &dyn AgentSettings, net: &Net, n_tasks: usize) -> Box<dyn Learner> {
    match build(settings, &environment(net, n_tasks)).unwrap() {
        Agent::Learning(learner) => learner,
        Agent::Fixed(_) => panic!("it learns"),
    }
}

fn begin(learner: &mut dyn Learner, state: &[u8], [then, now]: [usize; 2], budgets: &[f64]) -> Result<(), String> {
    let earlier: Vec<(usize, f64)> = LEARNED.iter().copied().enumerate().collect();
    let origins: Vec<TaskOrigin> = budgets.iter().map(|&b| TaskOrigin::between(b, &earlier, then, now)).collect();
    let n_tasks_then = LEARNED.len();
    let from = Inheritance { state, walk_length_max_then: then, n_tasks_then, origins: &origins, progress: 0.5 };
    learner.inherit(&from).map_err(|error| error.to_string())
}

#[test]
fn a_ddpg_search_begins_with_the_policy_and_the_walks_of_an_earlier_one() {
    let net = Net::new(9, 11);
    let of_amc: &dyn AgentSettings = &AmcSettings::of(Profile::Tuned);
    for settings in [of_amc, &CacpSettings::of(Profile::Tuned)] {
        let mut before = ddpg(settings, &net, LEARNED.len());
        run_learner(&mut *before, &net, &LEARNED, 4, 0..40);
        let state = before.save().unwrap();
        let mut heir = ddpg(settings, &net, LEARNED.len());
        let fresh = mean_policy_accuracy(&*heir.policy(), &net, &LEARNED);
        begin(&mut *heir, &state, [9, 9], &LEARNED).unwrap();
        let after = mean_policy_accuracy(&*heir.policy(), &net, &LEARNED);
        assert_ne!(after, fresh);
        // The beam of `cacp` draws from streams of the walk, the same for both.
        assert_eq!(after, mean_policy_accuracy(&*before.policy(), &net, &LEARNED));
        // From the first walk on it learns: from those of then.
        let walks = synthetic::search::walk_all(&*heir.policy(), &net, &LEARNED, &[(0, 1)], true);
        let learned = heir.learn(&walks).unwrap();
        assert!(learned.get("gradient_steps").unwrap() > 0.0, "{learned:?}");
        let saved = heir.save().unwrap();
        let mut again = ddpg(settings, &net, LEARNED.len());
        again.load(&saved).unwrap();
        assert_eq!(again.save().unwrap(), saved);
    }
}

#[test]
fn a_ddpg_search_takes_over_what_was_learned_on_a_network_of_another_depth_and_refuses_what_does_not_fit() {
    let (net, deep) = (Net::new(5, 3), Net::new(9, 4));
    let settings = AmcSettings::of(Profile::Tuned);
    let mut before = ddpg(&settings, &net, LEARNED.len());
    run_learner(&mut *before, &net, &LEARNED, 4, 0..24);
    let state = before.save().unwrap();
    let mut heir = ddpg(&settings, &deep, 1);
    begin(&mut *heir, &state, [5, 9], &[0.5]).unwrap();
    let walks = synthetic::search::walk_all(&*heir.policy(), &deep, &[0.5], &[(0, 1)], true);
    assert!(heir.learn(&walks).unwrap().get("critic_loss").unwrap().is_finite());
    let mut fresh = ddpg(&settings, &deep, 1);
    let whole = fresh.save().unwrap();
    for (state, then) in [(&state[..], 6), (&state[..state.len() / 2], 5), (b"", 5)] {
        assert!(!begin(&mut *fresh, state, [then, 9], &[0.5]).unwrap_err().is_empty());
        assert_eq!(fresh.save().unwrap(), whole);
    }
}
