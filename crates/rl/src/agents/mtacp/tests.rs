//! Tests of the loss on tiny cases.

use super::batch::UnrollBatch;
use super::learner::loss_and_gradient;
use super::loss::LossInput;
use super::memory::TaskMemory;
use super::*;
use crate::interface::Learner;
use crate::nn::params::Params;
use crate::rng::RngStream;
use crate::unroll::Unroll;

const AGENT: EnvironmentSpec = EnvironmentSpec {
    n_features: 3,
    n_tasks: 1,
    n_actors: 2,
    walk_length_max: 4,
    walks_planned: 100,
    keep_ratio_min: 0.2,
    seed: 5,
};

/// The published agent with a tiny network.
fn tiny() -> MtacpSettings {
    MtacpSettings { trunk: vec![5], lstm_units: 4, ..MtacpSettings::of(Profile::Paper) }
}

#[test]
fn paper_profile_has_the_published_sizes() {
    let learner = MtacpLearner::new(MtacpSettings::of(Profile::Paper), &EnvironmentSpec { n_features: 13, ..AGENT });
    let learner = learner.unwrap();
    let specs = learner.state.params.specs();
    let shape = |name: &str| specs.iter().find(|s| s.name == name).unwrap().shape.clone();
    assert_eq!(shape("trunk.0.weight"), [13, 100]);
    assert_eq!(shape("trunk.2.weight"), [400, 300]);
    assert_eq!(shape("lstm.input"), [302, 4 * 302]);
    assert_eq!((learner.unroll_length(9), learner.batch_size()), (60, 4));
}

/// Walks of `lengths` steps, one after the other in one unroll.
fn unroll(lengths: &[usize], seed: u64) -> Unroll {
    let mut rng = RngStream::new(seed, 0, 0, 0);
    let mut draw = |n: usize| (0..n).map(|_| rng.uniform() as f32).collect::<Vec<f32>>();
    let n: usize = lengths.iter().sum();
    let mut starts_walk = vec![false; n + 1];
    let mut ends_walk = vec![false; n];
    let mut layer = Vec::new();
    for &length in lengths {
        starts_walk[layer.len()] = true;
        layer.extend(0..length as u32);
        ends_walk[layer.len() - 1] = true;
    }
    layer.push(0);
    starts_walk[n] = true;
    Unroll {
        task: 0,
        first_recurrent: Vec::new(),
        observation: draw(3 * (n + 1)),
        even_ratio: vec![0.5; n + 1],
        last_action: draw(n + 1),
        last_reward: vec![0.0; n + 1],
        raw_action: draw(n),
        keep_ratio: draw(n).iter().map(|x| 0.2 + 0.8 * x).collect(),
        log_prob: draw(n).iter().map(|x| -1.0 - x).collect(),
        value: vec![0.0; n],
        reward: ends_walk.iter().zip(draw(n)).map(|(&ends, r)| if ends { r } else { 0.0 }).collect(),
        policy_version: vec![0; n],
        layer,
        starts_walk,
        ends_walk,
    }
}

/// Runs `check` with the loss of `unrolls` under a fresh learner.
fn with_loss(settings: MtacpSettings, unrolls: &[Unroll], check: impl Fn(&Params, &LossInput)) {
    let learner = MtacpLearner::new(settings, &AGENT).unwrap();
    let batch = UnrollBatch::new(&learner.frame, unrolls.iter().collect()).unwrap();
    let memories = vec![TaskMemory::default()];
    let frame = &learner.frame;
    let input = LossInput { frame, batch: &batch, n_fresh: unrolls.len(), memories: &memories, sigma: 0.5 };
    check(&learner.state.params, &input);
}

#[test]
fn gradient_equals_finite_differences_of_the_loss() {
    let annealed = SigmaRule::Annealed { first: 0.5, last: 0.5 };
    let clipped = PolicyObjective::Clipped { range: 0.4 };
    for (sigma, objective, lstm_units) in [
        (SigmaRule::Learned, PolicyObjective::Vtrace, 4),
        (annealed, PolicyObjective::Vtrace, 4),
        (annealed, PolicyObjective::Vtrace, 0),
        (annealed, clipped, 0),
    ] {
        let settings = MtacpSettings { sigma, objective, lstm_units, entropy_weight: 0.3, ..tiny() };
        with_loss(settings, &[unroll(&[3], 1), unroll(&[2, 2], 2)], |params, input| {
            let variables = params.variables().unwrap();
            let targets = input.targets(&input.heads(&variables).unwrap()).unwrap();
            let total = |values: Vec<f32>| {
                let mut moved = params.clone();
                moved.restore(values).unwrap();
                let heads = input.heads(&moved.variables().unwrap()).unwrap();
                f64::from(input.combine(&targets, &heads).unwrap().total.to_scalar::<f32>().unwrap())
            };
            let (_, gradient) = loss_and_gradient(params, input).unwrap();
            for index in (0..gradient.len()).step_by(3) {
                let at = |step: f32| {
                    let mut values = params.values().to_vec();
                    values[index] += step;
                    total(values)
                };
                let slope = (at(4e-3) - at(-4e-3)) / 8e-3;
                let got = f64::from(gradient[index]);
                assert!((got - slope).abs() < 2e-3 + 0.02 * slope.abs(), "weight {index}: {got}, {slope}");
            }
        });
    }
}

/// Two steps with values 0.5 and 0.2 that were stored, a reward of 1 at the end, discount 0.5, lambda 0.5: the second
/// step's advantage is 1 - 0.2 = 0.8, the first one's 0 + 0.5 * 0.2 - 0.5 + 0.5 * 0.5 * 0.8 = -0.2. Ratios are e^0.5,
/// clipped to 1.2, and e^-0.1 = 0.904837; the smaller product of the first is e^0.5 * -0.2, as it must not be clipped.
#[test]
fn the_clipped_surrogate_is_that_of_generalised_advantages_of_stored_values() {
    let clip = crate::returns::vtrace::VtraceClip { lambda: 0.5, ..Default::default() };
    let objective = PolicyObjective::Clipped { range: 0.2 };
    let settings = MtacpSettings { objective, clip, discount: 0.5, ..tiny() };
    let mut walk = unroll(&[2], 3);
    walk.value = vec![0.5, 0.2];
    walk.reward = vec![0.0, 1.0];
    for (behaviour, expected) in [
        ([-0.5, 0.1], 0.2 * 0.5f64.exp() - 0.8 * (-0.1f64).exp()),
        // The second ratio is e^0.5, which an advantage above 0 has clipped.
        ([0.0, -0.5], 0.2 - 0.8 * 1.2),
    ] {
        with_loss(settings.clone(), std::slice::from_ref(&walk), |params, input| {
            let now = input.heads(&params.variables().unwrap()).unwrap().log_prob.to_vec1::<f32>().unwrap();
            let mut stored = walk.clone();
            stored.log_prob = vec![now[0] + behaviour[0], now[1] + behaviour[1]];
            let batch = UnrollBatch::new(input.frame, vec![&stored]).unwrap();
            let input = LossInput { batch: &batch, frame: input.frame, memories: input.memories, ..*input };
            let loss = input.loss(&params.variables().unwrap()).unwrap();
            // Parts are means over two steps.
            assert!((2.0 * loss.policy - expected).abs() < 1e-5, "{}, expected {expected}", 2.0 * loss.policy);
        });
    }
}

#[test]
fn clipped_ratios_need_whole_walks() {
    let objective = PolicyObjective::Clipped { range: 0.2 };
    let wrong = MtacpSettings { objective, unroll: UnrollRule::Fixed(4), ..tiny() };
    assert_eq!(wrong.check()[0].path, "unroll");
    assert_eq!(MtacpSettings { unroll: UnrollRule::Walk, ..wrong }.check(), []);
}

#[test]
fn rewarded_action_becomes_likelier_and_punished_one_less_likely() {
    for (reward, sign) in [(2.0, 1.0), (-2.0, -1.0)] {
        let mut walk = unroll(&[1], 3);
        walk.reward[0] = reward;
        let mut learner = MtacpLearner::new(MtacpSettings { entropy_weight: 0.0, ..tiny() }, &AGENT).unwrap();
        let log_prob = |learner: &MtacpLearner| {
            let batch = UnrollBatch::new(&learner.frame, vec![&walk]).unwrap();
            let memories = vec![TaskMemory::default()];
            let frame = &learner.frame;
            let input = LossInput { frame, batch: &batch, n_fresh: 1, memories: &memories, sigma: 0.5 };
            input.heads(&learner.state.params.variables().unwrap()).unwrap().log_prob.to_vec1::<f32>().unwrap()[0]
        };
        let before = log_prob(&learner);
        for _ in 0..3 {
            learner.learn(std::slice::from_ref(&walk)).unwrap();
        }
        assert!((log_prob(&learner) - before) * sign > 1e-4, "{reward}");
    }
}

#[test]
fn entropy_rises_when_only_entropy_counts() {
    let clip = crate::returns::vtrace::VtraceClip { policy_rho: 0.0, ..Default::default() };
    let settings = MtacpSettings { entropy_weight: 0.1, value_weight: 0.0, clip, ..tiny() };
    let mut learner = MtacpLearner::new(settings, &AGENT).unwrap();
    let batch = [unroll(&[4], 1), unroll(&[4], 2)];
    let mut numbers = || {
        let report = learner.learn(&batch).unwrap();
        ["entropy", "sigma"].map(|name| report.get(name).unwrap())
    };
    let [first_entropy, first_sigma] = numbers();
    for _ in 0..20 {
        numbers();
    }
    let [entropy, sigma] = numbers();
    assert!(entropy > first_entropy + 0.01, "{first_entropy} {entropy}");
    assert!(sigma > first_sigma);
}

/// Steps `from..to` of an unroll as an unroll of their own.
fn part(whole: &Unroll, from: usize, to: usize) -> Unroll {
    Unroll {
        task: whole.task,
        first_recurrent: Vec::new(),
        observation: whole.observation[3 * from..3 * (to + 1)].to_vec(),
        layer: whole.layer[from..=to].to_vec(),
        even_ratio: whole.even_ratio[from..=to].to_vec(),
        last_action: whole.last_action[from..=to].to_vec(),
        last_reward: whole.last_reward[from..=to].to_vec(),
        starts_walk: whole.starts_walk[from..=to].to_vec(),
        raw_action: whole.raw_action[from..to].to_vec(),
        keep_ratio: whole.keep_ratio[from..to].to_vec(),
        log_prob: whole.log_prob[from..to].to_vec(),
        value: whole.value[from..to].to_vec(),
        reward: whole.reward[from..to].to_vec(),
        ends_walk: whole.ends_walk[from..to].to_vec(),
        policy_version: whole.policy_version[from..to].to_vec(),
    }
}

#[test]
fn unroll_across_walks_equals_two_unrolls() {
    let mut whole = unroll(&[3, 2], 4);
    // What stands before the first step of a walk must not matter either.
    whole.first_recurrent = vec![0.7; 8];
    let total = |unrolls: &[Unroll]| {
        let mut result = (0.0, Vec::new());
        let learner = MtacpLearner::new(tiny(), &AGENT).unwrap();
        let batch = UnrollBatch::new(&learner.frame, unrolls.iter().collect()).unwrap();
        let memories = vec![TaskMemory::default()];
        let frame = &learner.frame;
        let input = LossInput { frame, batch: &batch, n_fresh: unrolls.len(), memories: &memories, sigma: 0.5 };
        let (loss, gradient) = loss_and_gradient(&learner.state.params, &input).unwrap();
        result.0 += loss.total.to_scalar::<f32>().unwrap();
        result.1.extend(gradient);
        result
    };
    let (joined, joined_gradient) = total(std::slice::from_ref(&whole));
    let (split, split_gradient) = total(&[part(&whole, 0, 3), part(&whole, 3, 5)]);
    assert!((joined - split).abs() < 1e-5, "{joined} {split}");
    for (a, b) in joined_gradient.iter().zip(&split_gradient) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn best_walks_are_kept_in_order_without_repeats() {
    let mut memory = TaskMemory::default();
    let walk = |seed: u64, reward: f32| {
        let mut walk = unroll(&[3], seed);
        walk.reward[2] = reward;
        walk
    };
    for (seed, reward) in [(1, 0.5), (2, 0.7), (3, 0.6), (2, 0.7), (4, 0.1), (5, 0.7)] {
        memory.add(&walk(seed, reward), 3);
    }
    assert_eq!(memory.best, [walk(2, 0.7), walk(5, 0.7), walk(3, 0.6)]);
    memory.add(&unroll(&[2, 1], 9), 3);
    assert_eq!(memory.best.len(), 3, "two walks in one unroll are not remembered");
}

/// Widths 16, 15 and 6 of 16 are planned.
#[test]
fn a_search_that_starts_at_the_knapsack_keeps_it_and_shifts_it_with_the_budget() {
    let mut plan = crate::task_plan::hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    plan.even_ratios = vec![0.6, 0.55, 0.5];
    let plans = TaskPlans::new(vec![plan]);
    let settings = MtacpSettings { start: StartRule::Knapsack, ..MtacpSettings::of(Profile::Tuned) };
    assert_eq!(settings.plan_weights(), Some(ErrorWeights::Probed));
    assert_eq!(MtacpSettings::of(Profile::Tuned).check(), []);
    let environment = EnvironmentSpec { walk_length_max: 3, keep_ratio_min: 0.1, ..AGENT };
    let agent = settings.build_planned(&environment, &plans).unwrap();
    let keeps = |layer: u32, even_ratio: f32| {
        let request = crate::interface::ActRequest {
            layer,
            n_layers: 3,
            observation: vec![0.5; 3],
            even_ratio,
            explore: true,
            ..crate::interface::ActRequest::default()
        };
        agent.policy().act(&[request]).unwrap()[0].keep_ratio
    };
    let planned = [keeps(0, 0.6), keeps(1, 0.55), keeps(2, 0.5)];
    assert_eq!(planned, [1.0, 15.0 / 16.0, 6.0 / 16.0], "the first walk keeps what was planned");
    assert!(keeps(2, 0.4) < planned[2] && keeps(2, 0.6) > planned[2], "what the budget leaves moves it");
    let wrong = MtacpSettings { start: StartRule::Knapsack, ..MtacpSettings::of(Profile::Paper) };
    assert_eq!(wrong.check()[0].path, "start");
}

/// An agent all of whose exploring walks but the first are planned; 16, 15 and 6 of 16 channels lose least.
fn planning(planned_share: f64) -> (MtacpLearner, crate::task_plan::TaskPlan) {
    let mut plan = crate::task_plan::hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
    plan.even_ratios = vec![0.6, 0.55, 0.5];
    let settings = MtacpSettings { planned_share, ..MtacpSettings::of(Profile::Tuned) };
    let environment = EnvironmentSpec { walk_length_max: 3, keep_ratio_min: 0.05, ..AGENT };
    (MtacpLearner::with_plans(settings, &environment, Some(TaskPlans::new(vec![plan.clone()]))).unwrap(), plan)
}

/// A walk of a learner's policy, told to be worth what `earns` says of its widths.
fn walk_of(learner: &MtacpLearner, walk: u64, explore: bool, earns: impl Fn(&[usize]) -> f32) -> Unroll {
    let policy = learner.policy();
    let mut taken = unroll(&[3], walk);
    let mut recurrent = Vec::new();
    for layer in 0..3 {
        let request = crate::interface::ActRequest {
            layer: layer as u32,
            n_layers: 3,
            walk,
            explore,
            observation: vec![0.5; 3],
            even_ratio: 0.5,
            recurrent,
            ..Default::default()
        };
        let decision = policy.act(&[request]).unwrap().remove(0);
        taken.keep_ratio[layer] = decision.keep_ratio;
        taken.raw_action[layer] = decision.raw_action;
        taken.log_prob[layer] = decision.log_prob;
        recurrent = decision.recurrent;
    }
    taken.reward = vec![0.0, 0.0, earns(&widths(&taken))];
    taken
}

fn widths(walk: &Unroll) -> Vec<usize> {
    walk.keep_ratio.iter().map(|ratio| (16.0 * ratio).round() as usize).collect()
}

/// What is earned most is no knapsack of the errors.
fn earns(widths: &[usize]) -> f32 {
    let away = [6.0, 14.0, 9.0].iter().zip(widths).map(|(best, &w)| (w as f32 - best).powi(2)).sum::<f32>();
    (-0.01 * away).exp()
}

#[test]
fn planned_walks_keep_to_the_budget_and_find_what_earns_most() {
    let (mut learner, plan) = planning(1.0);
    let (mut best, mut seen) = (0.0f32, std::collections::HashSet::new());
    for number in 0..100 {
        let walk = walk_of(&learner, number, true, earns);
        assert!(plan.widths.fits(&widths(&walk)) || number == 0, "{:?}", widths(&walk));
        assert_eq!(walk.log_prob == [frame::PLANNED_LOG_PROB; 3], number > 0, "the first is the policy's");
        seen.insert(widths(&walk));
        best = best.max(walk.reward[2]);
        learner.learn(&[walk]).unwrap();
    }
    assert!(best > 0.99 && seen.len() > 40, "{best}, {} plans", seen.len());
    let noise_free = walk_of(&learner, 100, false, earns);
    assert!(noise_free.log_prob.iter().all(|&l| l < 10.0), "who does not explore follows the policy");
    assert!(earns(&widths(&noise_free)) > earns(&plan.knapsack), "the policy imitates the best planned walks");
}

#[test]
fn half_of_the_walks_are_planned_if_the_settings_say_so_and_a_loaded_learner_plans_alike() {
    let (mut learner, _) = planning(0.5);
    for number in 0..30 {
        let walk = walk_of(&learner, number, true, earns);
        learner.learn(&[walk]).unwrap();
    }
    let (mut loaded, _) = planning(0.5);
    loaded.load(&learner.save().unwrap()).unwrap();
    let walks = |learner: &MtacpLearner| (30..130).map(|n| walk_of(learner, n, true, earns)).collect::<Vec<_>>();
    assert_eq!(walks(&loaded), walks(&learner));
    let n_planned = walks(&learner).iter().filter(|walk| walk.log_prob[0] == frame::PLANNED_LOG_PROB).count();
    assert!((35..=65).contains(&n_planned), "{n_planned} of 100");
}

/// A ratio of densities of 0 is no sample: V-trace's targets are the values as they are. The surrogate's values come
/// from the stored ones, which are right whoever acted.
#[test]
fn the_policy_learns_nothing_from_planned_walks_but_by_imitation() {
    let mut planned = unroll(&[3], 7);
    planned.log_prob = vec![frame::PLANNED_LOG_PROB; 3];
    let clipped = PolicyObjective::Clipped { range: 0.2 };
    for (objective, value_weight) in [(PolicyObjective::Vtrace, 0.5), (clipped, 0.0)] {
        let settings =
            MtacpSettings { objective, value_weight, unroll: UnrollRule::Walk, entropy_weight: 0.0, ..tiny() };
        for (walk, moves) in [(planned.clone(), false), (unroll(&[3], 7), true)] {
            with_loss(settings.clone(), &[walk], |params, input| {
                let (_, gradient) = loss_and_gradient(params, input).unwrap();
                assert_eq!(gradient.iter().any(|&g| g != 0.0), moves, "{objective:?}");
            });
        }
    }
}
