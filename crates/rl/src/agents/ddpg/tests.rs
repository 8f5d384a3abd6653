//! Tests of the losses, targets and schedules on tiny cases.

use candle_core::{Device, Tensor};

use super::actor_critic::{ActorCritic, StepBatch, actor_loss, critic_loss};
use super::frame::{CENTRE, Choice, DdpgFrame, SearchScope};
use super::learner::DdpgLearner;
use super::replay::{PastStep, PastWalk};
use super::task_reward::TaskReward;
use super::*;
use crate::agent::{EnvironmentSpec, Profile};
use crate::interface::{ActRequest, Learner};
use crate::nn::params::Params;
use crate::rng::RngStream;
use crate::task_plan::{TaskPlans, hand_made};
use crate::unroll::{Unroll, UnrollState, UnrollStep};

const ENVIRONMENT: EnvironmentSpec = EnvironmentSpec {
    n_features: 3,
    n_tasks: 2,
    n_actors: 2,
    walk_length_max: 3,
    walks_planned: 80,
    keep_ratio_min: 0.2,
    seed: 5,
};

/// The published agent with tiny networks, which learns from the first walk on.
fn tiny() -> DdpgSettings {
    DdpgSettings { hidden: vec![5, 4], warmup: 0.0, batch: 4, ..DdpgSettings::of(Profile::Paper) }
}

fn frame(settings: DdpgSettings) -> DdpgFrame {
    DdpgFrame::new(settings, SearchScope::EachTask, &ENVIRONMENT, None)
}

fn learner(settings: DdpgSettings, scope: SearchScope) -> DdpgLearner {
    DdpgLearner::new(settings, scope, &ENVIRONMENT, None).unwrap()
}

/// A whole walk of three steps, whatever the policy says.
fn walk(task: u32, seed: u64, reward: f32) -> Unroll {
    let mut rng = RngStream::new(seed, 9, 0, 0);
    let mut unroll = Unroll { task, ..Unroll::default() };
    for layer in 0..3 {
        let observation: Vec<f32> = (0..3).map(|_| rng.uniform() as f32).collect();
        let state = UnrollState { layer, even_ratio: 0.5, starts_walk: layer == 0, ..UnrollState::default() };
        unroll.push_state(&observation, state);
        let action = rng.uniform() as f32;
        unroll.push_step(UnrollStep {
            raw_action: action,
            keep_ratio: action.max(0.2),
            reward: if layer == 2 { reward } else { 0.0 },
            ends_walk: layer == 2,
            ..UnrollStep::default()
        });
    }
    unroll.repeat_last_state();
    unroll
}

/// Steps with these actions, one walk of two steps, one of one; features count up.
fn past_walks() -> [PastWalk; 2] {
    [
        PastWalk { task: 0, features: vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6], actions: vec![0.25, 0.75], reward: 0.8 },
        PastWalk { task: 1, features: vec![0.7, 0.8, 0.9], actions: vec![0.5], reward: 0.2 },
    ]
}

fn past_steps(walks: &[PastWalk; 2]) -> [PastStep<'_>; 3] {
    [(0, 0), (0, 1), (1, 0)].map(|(walk, step)| PastStep { walk: &walks[walk], step })
}

fn batch(settings: &DdpgSettings) -> StepBatch {
    let rewards = [TaskReward::default(), TaskReward::default()];
    StepBatch::new(settings, 3, &past_steps(&past_walks()), &[], &rewards).unwrap()
}

#[test]
fn rewards_are_copied_or_divided_and_the_last_step_has_no_future() {
    let copied = batch(&DdpgSettings { discount: 0.9, ..tiny() });
    let expected = [f64::from(0.8f32), f64::from(0.8f32), f64::from(0.2f32)];
    assert_eq!((copied.rewards, copied.discounts), (expected.to_vec(), vec![0.9, 0.0, 0.0]));
    assert_eq!(copied.next_features.to_vec2::<f32>().unwrap()[0], [0.4, 0.5, 0.6]);
    let divided = batch(&DdpgSettings { credit: CreditRule::Divided, ..tiny() });
    assert_eq!(divided.rewards, [expected[0] / 2.0, expected[1] / 2.0, expected[2]]);
}

/// With all weights 0 but the last bias of the target critic, 0.3, every next value is 0.3.
#[test]
fn targets_are_the_reward_above_the_baseline_plus_the_discounted_target_value() {
    let settings = DdpgSettings { discount: 0.5, ..tiny() };
    let mut search = ActorCritic::new(&frame(settings.clone()), 0);
    let mut values = vec![0.0; search.critic.target.values().len()];
    *values.last_mut().unwrap() = 0.3;
    search.critic.target.restore(values).unwrap();
    let targets = search.targets(&batch(&settings), 0.1).unwrap();
    for (got, expected) in targets.iter().zip([0.8 - 0.1 + 0.5 * 0.3, 0.8 - 0.1, 0.2 - 0.1]) {
        assert!((got - expected).abs() < 1e-6, "{targets:?}");
    }
}

#[test]
fn the_baseline_is_the_first_mean_and_then_follows_half_way() {
    let mut search = ActorCritic::new(&frame(tiny()), 0);
    assert_eq!(search.move_baseline(0.4, 0.5), 0.4);
    assert!((search.move_baseline(0.8, 0.5) - 0.6).abs() < 1e-12);
    assert!((search.move_baseline(0.2, 0.5) - 0.4).abs() < 1e-12);
    assert_eq!(ActorCritic::new(&frame(tiny()), 0).move_baseline(0.4, 0.0), 0.0, "none at rate 0");
}

#[test]
fn a_target_follows_by_its_share_of_the_distance() {
    let mut search = ActorCritic::new(&frame(tiny()), 0);
    let n = search.actor.now.values().len();
    search.actor.target.restore(vec![1.0; n]).unwrap();
    search.actor.now.restore(vec![3.0; n]).unwrap();
    search.actor.follow(0.25);
    assert!(search.actor.target.values().iter().all(|&weight| weight == 1.5));
    search.actor.follow(0.25);
    assert!(search.actor.target.values().iter().all(|&weight| weight == 1.875));
    assert!(search.actor.now.values().iter().all(|&weight| weight == 3.0));
}

fn check_gradient(params: &Params, gradient: &[f32], loss: &dyn Fn(&Params) -> f64) {
    assert!(gradient.iter().any(|&g| g.abs() > 1e-3), "{gradient:?}");
    for index in 0..gradient.len() {
        let at = |step: f32| {
            let mut values = params.values().to_vec();
            values[index] += step;
            let mut moved = params.clone();
            moved.restore(values).unwrap();
            loss(&moved)
        };
        // Small, as units behind a rectifier have a kink.
        let slope = (at(5e-4) - at(-5e-4)) / 1e-3;
        let got = f64::from(gradient[index]);
        assert!((got - slope).abs() < 1e-3 + 0.02 * slope.abs(), "weight {index}: {got}, {slope}");
    }
}

#[test]
fn gradients_equal_finite_differences_of_the_losses() {
    let frame = frame(tiny());
    let search = ActorCritic::new(&frame, 0);
    let (batch, targets) = (batch(&frame.settings), [0.9, -0.4, 0.2]);
    let critic_at = |params: &Params| critic_loss(params, &batch, &targets).unwrap();
    check_gradient(&search.critic.now, &critic_at(&search.critic.now).1, &|params| critic_at(params).0);
    for imitated in [None, Some((&batch, 3.0))] {
        let actor_at = |params: &Params| actor_loss(params, &search.critic.now, &batch, imitated).unwrap();
        check_gradient(&search.actor.now, &actor_at(&search.actor.now).1, &|params| actor_at(params).0);
    }
}

/// The critic's gradient is that of a mean of squares: against values read from the network.
#[test]
fn the_critics_loss_is_the_mean_squared_distance_from_its_targets() {
    let frame = frame(tiny());
    let search = ActorCritic::new(&frame, 0);
    let (batch, targets) = (batch(&frame.settings), [0.9f32, -0.4, 0.2]);
    let weights = search.critic.now.tensors().unwrap();
    let values = net::critic(&weights, &batch.features, &batch.actions).unwrap().to_vec1::<f32>().unwrap();
    let expected = values.iter().zip(targets).map(|(q, y)| f64::from(q - y).powi(2)).sum::<f64>() / 3.0;
    assert!((critic_loss(&search.critic.now, &batch, &targets).unwrap().0 - expected).abs() < 1e-6);
    let features = Tensor::zeros((3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(net::actor(&search.actor.now.tensors().unwrap(), &features).unwrap().dims(), [3]);
}

#[test]
fn warm_up_and_noise_scale_with_the_walks_planned_and_the_published_decay_is_by_walk() {
    let settings = DdpgSettings { warmup: 0.25, ..tiny() };
    // 40 walks a task: 10 of them are warm-up.
    let of_task = DdpgFrame::new(settings.clone(), SearchScope::EachTask, &ENVIRONMENT, None);
    assert_eq!(of_task.warmup_walks(), 10);
    assert_eq!((of_task.sigma(0), of_task.sigma(10)), (0.5, 0.5));
    assert!((of_task.sigma(12) - 0.5 * 0.95 * 0.95).abs() < 1e-6);
    let of_all = DdpgFrame::new(settings.clone(), SearchScope::AllTasks, &ENVIRONMENT, None);
    assert_eq!(of_all.warmup_walks(), 20);
    assert!((of_all.sigma(24) - 0.5 * 0.95 * 0.95).abs() < 1e-6, "two walks of each of two tasks");
    let until = DdpgSettings { decay: SigmaDecay::Until(0.125), ..settings };
    let until = DdpgFrame::new(until, SearchScope::EachTask, &ENVIRONMENT, None);
    assert!((until.sigma(25) - 0.25).abs() < 1e-6, "half way, the geometric middle");
    assert_eq!([40, 400].map(|n| until.sigma(n)), [0.125; 2]);
}

#[test]
fn warm_up_draws_evenly_takes_no_gradient_step_and_then_gradient_steps_begin() {
    let settings = DdpgSettings { warmup: 0.05, ..tiny() };
    let mut learner = learner(settings, SearchScope::EachTask);
    let first = learner.state.clone();
    for n in 0..2 {
        assert_eq!(learner.learn(&[walk(0, n, 0.5)]).unwrap().get("gradient_steps"), Some(0.0));
    }
    assert_eq!(learner.state.searches[0].actor, first.searches[0].actor);
    let act = |walk: u64| {
        let request =
            ActRequest { walk, observation: vec![0.5; 3], even_ratio: 0.5, explore: true, ..ActRequest::default() };
        learner.policy().act(&[request]).unwrap()[0].raw_action
    };
    let drawn: Vec<f32> = (0..400).map(act).collect();
    let counts = (0..4).map(|bin| drawn.iter().filter(|&&a| (4.0 * a) as usize == bin).count());
    assert!(counts.clone().all(|n| (70..=130).contains(&n)), "{:?}", counts.collect::<Vec<_>>());
    assert_eq!(learner.learn(&[walk(0, 3, 0.5)]).unwrap().get("gradient_steps"), Some(3.0), "one for each step");
    assert_eq!(learner.state.searches[1], first.searches[1], "the other task's search has not moved");
}

/// The search of a task does the same whatever happens on the others.
#[test]
fn searches_of_each_task_share_nothing() {
    let with_other = |reward: f32| {
        let mut learner = learner(tiny(), SearchScope::EachTask);
        for n in 0..4 {
            learner.learn(&[walk(0, n, 0.1 * n as f32), walk(1, 50 + n, reward)]).unwrap();
        }
        learner.state.searches
    };
    let (low, high) = (with_other(0.1), with_other(0.9));
    assert_eq!(low[0], high[0]);
    assert_ne!(low[1], high[1]);
    let mut both = learner(tiny(), SearchScope::AllTasks);
    both.learn(&[walk(0, 1, 0.1), walk(1, 2, 0.9)]).unwrap();
    assert_eq!((both.state.searches.len(), both.state.searches[0].n_walks), (1, 2));
}

#[test]
fn what_is_remembered_is_what_was_chosen_or_what_was_realised() {
    let mut unroll = walk(0, 1, 0.5);
    unroll.keep_ratio = vec![0.25, 0.5, 1.0];
    for (stored, expected) in
        [(StoredAction::Chosen, unroll.raw_action.clone()), (StoredAction::Realised, vec![0.25, 0.5, 1.0])]
    {
        let mut learner = learner(DdpgSettings { stored, ..tiny() }, SearchScope::EachTask);
        learner.learn(std::slice::from_ref(&unroll)).unwrap();
        let kept: Vec<f32> = learner.state.searches[0].replay.all().map(|past| past.walk.actions[past.step]).collect();
        assert_eq!(kept, expected, "{stored:?}");
    }
}

#[test]
fn actions_around_a_start_stand_for_offsets_from_it_and_back() {
    let frame = frame(DdpgSettings { action: ActionRule::AroundEven, ..tiny() });
    let at = |even_ratio: f32| Choice { task: 0, layer: 0, even_ratio };
    for even in [0.35, 0.6, 0.9] {
        assert!((frame.keep_ratio(CENTRE, at(even)) - even).abs() < 1e-6);
        for action in [0.3, 0.5, 0.8] {
            assert!((frame.action(frame.keep_ratio(action, at(even)), at(even)) - action).abs() < 1e-4, "{even}");
        }
        assert!(frame.keep_ratio(0.0, at(even)) >= 0.2 && frame.keep_ratio(1.0, at(even)) <= 1.0);
    }
}

/// Widths 16, 15 and 6 of 16 are planned.
#[test]
fn a_search_around_the_knapsack_keeps_it_first_and_begins_there() {
    let mut plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    plan.even_ratios = vec![0.6, 0.55, 0.5];
    let plans = TaskPlans::new(vec![plan.clone(), plan]);
    for explore in [true, false] {
        let settings = DdpgSettings { action: ActionRule::AroundKnapsack, ..tiny() };
        let learner = DdpgLearner::new(settings, SearchScope::AllTasks, &ENVIRONMENT, Some(plans.clone())).unwrap();
        let keeps = |walk: u64, layer: u32, even_ratio: f32| {
            let observation = vec![0.5; 3];
            let request =
                ActRequest { task: 1, walk, layer, observation, even_ratio, explore, ..ActRequest::default() };
            learner.policy().act(&[request]).unwrap()[0].keep_ratio
        };
        assert_eq!([keeps(0, 0, 0.6), keeps(0, 1, 0.55), keeps(0, 2, 0.5)], [1.0, 15.0 / 16.0, 6.0 / 16.0]);
        assert!(keeps(0, 2, 0.4) < 6.0 / 16.0, "what the budget leaves moves it");
        assert_eq!(keeps(1, 2, 0.5) == 6.0 / 16.0, !explore, "later walks explore");
    }
}

/// A critic that values small actions takes the least of those drawn near the actor's.
#[test]
fn a_beam_takes_the_action_that_the_critic_values_most() {
    let settings = DdpgSettings { hidden: vec![1], beam: 16, ..tiny() };
    let mut learner = learner(settings.clone(), SearchScope::AllTasks);
    let act = |learner: &DdpgLearner, walk: u64, explore: bool| {
        let request = ActRequest { walk, observation: vec![0.5; 3], even_ratio: 0.5, explore, ..ActRequest::default() };
        learner.policy().act(&[request]).unwrap()[0].raw_action
    };
    let mean = act(&learner, 0, false);
    assert_eq!(act(&learner, 9, false), mean, "what has learned nothing has no preference");
    learner.learn(&[walk(0, 1, 0.5)]).unwrap();
    // Value = relu(0 s + 0 + -1 a + 2) * 1 + 0.
    let saved = {
        let search = &mut learner.state.searches[0];
        search.critic.now.restore(vec![0.0, 0.0, 0.0, 0.0, -1.0, 2.0, 1.0, 0.0]).unwrap();
        learner.save().unwrap()
    };
    let mut beamed = self::learner(settings.clone(), SearchScope::AllTasks);
    beamed.load(&saved).unwrap();
    let mut alone = self::learner(DdpgSettings { beam: 1, ..settings }, SearchScope::AllTasks);
    alone.load(&saved).unwrap();
    let mean = act(&alone, 0, false);
    let chosen: Vec<f32> = (0..20).map(|walk| act(&beamed, walk, false)).collect();
    assert!(chosen.iter().all(|&action| action < mean && action > mean - 0.3), "{mean}: {chosen:?}");
    assert!(chosen.windows(2).any(|pair| pair[0] != pair[1]), "walks differ");
    assert_eq!(act(&beamed, 3, false), chosen[3]);
}

#[test]
fn settings_out_of_their_range_are_told() {
    let told =
        |settings: DdpgSettings| -> Vec<String> { settings.out_of_range().into_iter().map(|bad| bad.path).collect() };
    assert!(told(DdpgSettings::of(Profile::Paper)).is_empty() && told(DdpgSettings::of(Profile::Tuned)).is_empty());
    let wrong = DdpgSettings { hidden: vec![], sigma: 1.5, updates: UpdateRule::PerWalk(0), beam: 0, ..tiny() };
    assert_eq!(told(wrong), ["hidden", "sigma", "updates[0]", "beam"]);
    let wrong = DdpgSettings { reward_scale: RewardScale::AboveMean(f64::NAN), warmup: 1.0, ..tiny() };
    assert_eq!(told(wrong), ["warmup", "reward_scale[0]"]);
}
