//! MTACP as a whole: repeatable, resumable, and it learns.

#![allow(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking")]

mod synthetic;

use secateur_rl::agents::mtacp::{MtacpLearner, MtacpSettings, SigmaRule, UnrollRule};
use secateur_rl::agents::random::Random;
use secateur_rl::agents::uniform::Uniform;
use secateur_rl::{EnvironmentSpec, Learner, Profile, RlError, Unroll};
use synthetic::search::{
    CrossEntropy, cross_entropy, mean_policy_accuracy, run_fixed, run_learner, search_around_even, walk_all,
};
use synthetic::{KEEP_RATIO_MIN, N_FEATURES, Net};

const BUDGETS: [f64; 3] = [0.4, 0.5, 0.65];

fn agent(net: &Net, n_walks: u64, seed: u64) -> EnvironmentSpec {
    EnvironmentSpec {
        n_features: N_FEATURES,
        n_tasks: BUDGETS.len(),
        n_actors: 12,
        walk_length_max: net.n_layers(),
        walks_planned: n_walks * BUDGETS.len() as u64,
        keep_ratio_min: KEEP_RATIO_MIN,
        seed,
    }
}

fn tuned(net: &Net, n_walks: u64, seed: u64) -> MtacpLearner {
    MtacpLearner::new(MtacpSettings::of(Profile::Tuned), &agent(net, n_walks, seed)).unwrap()
}

/// The published agent, with unrolls of one walk so that the test's walks fit.
fn paper(net: &Net, n_walks: u64, seed: u64) -> MtacpLearner {
    let settings = MtacpSettings { unroll: UnrollRule::Walk, ..MtacpSettings::of(Profile::Paper) };
    MtacpLearner::new(settings, &agent(net, n_walks, seed)).unwrap()
}

fn bits(weights: &[f32]) -> Vec<u32> {
    weights.iter().map(|w| w.to_bits()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn tuned_agent_beats_searches_of_equal_cost() {
    const N_WALKS: u64 = 152;
    let (mut random, mut uniform, mut around, mut evolved) = (0.0, 0.0, 0.0, 0.0);
    let (mut learned, mut found, n_seeds) = (0.0, 0.0, 3);
    for seed in 0..n_seeds {
        let net = Net::new(9, 200 + seed);
        random += run_fixed(&Random { keep_ratio_min: KEEP_RATIO_MIN, seed }, &net, &BUDGETS, N_WALKS).1;
        uniform += mean(&mean_policy_accuracy(&Uniform, &net, &BUDGETS));
        let best = |f: &dyn Fn(f64) -> f64| mean(&BUDGETS.map(f));
        around += best(&|budget| search_around_even(&net, budget, N_WALKS, 0.5, seed).accuracy);
        let settings = CrossEntropy { population: 25, n_elites: 6, sigma: 0.8, inertia: 0.2 };
        evolved += best(&|budget| cross_entropy(&net, budget, N_WALKS, settings, seed).0.accuracy);
        let mut learner = tuned(&net, N_WALKS, seed);
        let best = run_learner(&mut learner, &net, &BUDGETS, 4, 0..N_WALKS);
        found += mean(&best.iter().map(|b| b.accuracy).collect::<Vec<_>>());
        learned += mean(&mean_policy_accuracy(&*learner.policy(), &net, &BUDGETS));
    }
    let n = n_seeds as f64;
    let numbers = format!(
        "random mean {:.4}, uniform {:.4}, best around even {:.4}, best of cross-entropy {:.4}, agent {:.4}, its best {:.4}",
        random / n,
        uniform / n,
        around / n,
        evolved / n,
        learned / n,
        found / n
    );
    eprintln!("{numbers}");
    assert!(learned > random + 0.05 * n, "{numbers}");
    assert!(learned > uniform + 0.02 * n, "{numbers}");
    assert!(found > around + 0.005 * n, "{numbers}");
    assert!(found > evolved - 0.002 * n, "{numbers}");
}

#[test]
fn first_tuned_policy_is_uniform() {
    let net = Net::new(9, 3);
    let learner = tuned(&net, 100, 0);
    let first = mean_policy_accuracy(&*learner.policy(), &net, &BUDGETS);
    for (got, expected) in first.iter().zip(mean_policy_accuracy(&Uniform, &net, &BUDGETS)) {
        assert!((got - expected).abs() < 0.02, "{got} {expected}");
    }
}

#[test]
fn same_seed_gives_same_weights_and_another_seed_does_not() {
    let net = Net::new(5, 1);
    let weights = |seed: u64, make: &dyn Fn(&Net, u64, u64) -> MtacpLearner| {
        let mut learner = make(&net, 24, seed);
        run_learner(&mut learner, &net, &BUDGETS, 4, 0..12);
        bits(learner.weights())
    };
    for make in [&tuned as &dyn Fn(&Net, u64, u64) -> MtacpLearner, &paper] {
        let first = weights(7, make);
        assert!(first == weights(7, make), "same seed, other weights");
        assert!(first != weights(8, make), "other seed, same weights");
    }
}

#[test]
fn saved_learner_continues_bit_for_bit() {
    let net = Net::new(5, 2);
    for make in [&tuned as &dyn Fn(&Net, u64, u64) -> MtacpLearner, &paper] {
        let mut whole = make(&net, 24, 3);
        run_learner(&mut whole, &net, &BUDGETS, 4, 0..12);
        let saved = whole.save().unwrap();
        let mut resumed = make(&net, 24, 99);
        resumed.load(&saved).unwrap();
        assert_eq!(resumed.n_updates(), 3);
        // Noise is keyed by the seed of the settings, which stays 99 in `resumed`: use the same unrolls for both.
        let ids: Vec<_> = (0..3).flat_map(|task| (12..16).map(move |walk| (task, walk))).collect();
        let unrolls = walk_all(&*whole.policy(), &net, &BUDGETS, &ids, true);
        whole.learn(&unrolls).unwrap();
        resumed.learn(&unrolls).unwrap();
        assert!(bits(whole.weights()) == bits(resumed.weights()));
        assert!(whole.save().unwrap() == resumed.save().unwrap());
    }
}

#[test]
fn damaged_state_is_refused_and_changes_nothing() {
    let net = Net::new(4, 2);
    let mut learner = tuned(&net, 24, 3);
    run_learner(&mut learner, &net, &BUDGETS, 4, 0..8);
    let saved = learner.save().unwrap();
    for n in [0, 7, 100, saved.len() / 2, saved.len() - 1] {
        assert!(matches!(learner.load(&saved[..n]), Err(RlError::State { .. })), "cut at {n}");
    }
    let other = tuned(&Net::new(6, 2), 24, 3).save().unwrap();
    assert!(learner.load(&other).is_err());
    assert!(learner.save().unwrap() == saved);
}

#[test]
fn threads_do_not_change_a_bit() {
    const CHILD: &str = "SECATEUR_RL_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let net = Net::new(5, 4);
        for make in [&tuned as &dyn Fn(&Net, u64, u64) -> MtacpLearner, &paper] {
            let mut learner = make(&net, 24, 5);
            run_learner(&mut learner, &net, &BUDGETS, 16, 0..16);
            let digest = learner.weights().iter().fold(0u64, |d, w| d.rotate_left(7) ^ u64::from(w.to_bits()));
            eprintln!("DIGEST {digest:016x}");
        }
        return;
    }
    let digest = |threads: &str| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["threads_do_not_change_a_bit", "--exact", "--nocapture"])
            .envs([(CHILD, "1"), ("RAYON_NUM_THREADS", threads), ("CANDLE_NUM_THREADS", threads)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let digests: Vec<String> = text.lines().filter(|l| l.starts_with("DIGEST")).map(str::to_owned).collect();
        assert_eq!(digests.len(), 2, "{text}");
        digests
    };
    let one = digest("1");
    assert_eq!(one, digest("2"));
    assert_eq!(one, digest("3"));
}

#[test]
fn decision_does_not_depend_on_the_rows_beside_it() {
    let net = Net::new(6, 5);
    for learner in [tuned(&net, 24, 1), paper(&net, 24, 1)] {
        let policy = learner.policy();
        let requests: Vec<_> =
            (0..37).map(|i| synthetic::Walk::new(&net, BUDGETS[i % 3]).request(i % 3, 3, i as u64)).collect();
        let together = policy.act(&requests).unwrap();
        for (i, request) in requests.iter().enumerate() {
            assert_eq!(policy.act(std::slice::from_ref(request)).unwrap()[0], together[i], "row {i}");
        }
    }
}

#[test]
fn noise_free_decisions_are_the_mean_and_noise_is_keyed_by_task_walk_and_layer() {
    let net = Net::new(6, 5);
    let policy = tuned(&net, 24, 1).policy();
    let request = synthetic::Walk::new(&net, 0.5).request(1, 3, 4);
    let act = |request: &secateur_rl::ActRequest| policy.act(std::slice::from_ref(request)).unwrap().remove(0);
    let still = act(&secateur_rl::ActRequest { explore: false, ..request.clone() });
    assert_eq!(still.raw_action, 0.0);
    let first = act(&request);
    assert_eq!(first, act(&request));
    assert_ne!(first.raw_action, act(&secateur_rl::ActRequest { walk: 5, ..request.clone() }).raw_action);
    // The Gaussian peaks at its mean: log N(0; 0, .6) = -ln .6 - ln sqrt(2 pi).
    let SigmaRule::Annealed { first: sigma, .. } = MtacpSettings::of(Profile::Tuned).sigma else { panic!() };
    let density = |u: f32| f64::from(-0.5 * (u / sigma).powi(2) - sigma.ln()) - 0.918_938_533;
    assert!((f64::from(still.log_prob) - density(0.0)).abs() < 1e-5);
    assert!((f64::from(first.log_prob) - density(first.raw_action)).abs() < 1e-4);
}

#[test]
fn importance_is_one_for_a_batch_of_the_newest_policy() {
    let net = Net::new(6, 5);
    for mut learner in [tuned(&net, 24, 1), paper(&net, 24, 1)] {
        run_learner(&mut learner, &net, &BUDGETS, 4, 0..4);
        let unrolls = walk_all(&*learner.policy(), &net, &BUDGETS, &[(0, 9), (1, 9), (2, 9)], true);
        let report = learner.learn(&unrolls).unwrap();
        assert!((report.get("importance_mean").unwrap() - 1.0).abs() < 1e-4, "{report:?}");
    }
}

#[test]
fn bad_batches_are_refused_by_name_and_change_nothing() {
    let net = Net::new(4, 5);
    let mut learner = tuned(&net, 24, 1);
    let good = walk_all(&*learner.policy(), &net, &BUDGETS, &[(0, 0), (1, 0)], true);
    let before = learner.save().unwrap();
    let mut refuse = |change: &dyn Fn(&mut Unroll), message: &str| {
        let mut batch = good.clone();
        change(&mut batch[1]);
        let error = learner.learn(&batch).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(learner.save().unwrap() == before);
    };
    refuse(&|u| u.reward[3] = f32::NAN, "reward[3] is NaN");
    refuse(&|u| u.observation[5] = f32::INFINITY, "observation[5] is inf");
    refuse(&|u| u.log_prob.truncate(2), "log_prob has 2 elements, expected 4");
    refuse(&|u| u.task = 3, "task is 3, expected less than 3");
    refuse(&|u| u.layer[2] = 4, "layer is 4, expected less than 4");
    refuse(&|u| u.first_recurrent = vec![0.0; 3], "first_recurrent has 3 elements");
    refuse(&|u| u.log_prob[0] = -1e30, "is inf");
    refuse(&|u| *u = Unroll::default(), "number of steps is 0");
    assert!(learner.learn(&[]).is_err());
    assert!(learner.learn(&good).is_ok());
}

#[test]
fn bad_requests_are_refused() {
    let net = Net::new(4, 5);
    let policy = tuned(&net, 24, 1).policy();
    let good = synthetic::Walk::new(&net, 0.5).request(1, 3, 4);
    let act = |change: &dyn Fn(&mut secateur_rl::ActRequest)| {
        let mut request = good.clone();
        change(&mut request);
        policy.act(&[request])
    };
    assert!(act(&|_| ()).is_ok());
    assert!(act(&|r| r.observation.truncate(3)).is_err());
    assert!(act(&|r| r.observation[0] = f32::NAN).is_err());
    assert!(act(&|r| r.recurrent = vec![0.0; 5]).is_err());
    assert!(act(&|r| r.layer = 4).is_err());
    assert!(act(&|r| r.even_ratio = f32::NAN).is_err());
}
