//! AMC, CACP, PPO and IMPALA as wholes: repeatable, resumable, and they learn.

#![allow(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking")]

#[expect(dead_code, reason = "other tests need the rest")]
mod synthetic;

use secateur_rl::agents::amc::AmcSettings;
use secateur_rl::agents::cacp::CacpSettings;
use secateur_rl::agents::ddpg::{ActionRule, DdpgSettings};
use secateur_rl::agents::impala::ImpalaSettings;
use secateur_rl::agents::mtacp::{MtacpSettings, StartRule};
use secateur_rl::agents::ppo::PpoSettings;
use secateur_rl::agents::random::Random;
use secateur_rl::agents::uniform::Uniform;
use secateur_rl::{ActRequest, Agent, AgentSettings, EnvironmentSpec, Learner, Profile, Unroll, build};
use secateur_rl::{UnrollState, UnrollStep};
use synthetic::search::{mean_policy_accuracy, run_fixed, run_learner, walk_all};
use synthetic::{KEEP_RATIO_MIN, N_FEATURES, Net};

const BUDGETS: [f64; 3] = [0.4, 0.5, 0.65];

fn build_learner(settings: &dyn AgentSettings, net: &Net, n_walks: u64, seed: u64) -> Box<dyn Learner> {
    let environment = EnvironmentSpec {
        n_features: N_FEATURES,
        n_tasks: BUDGETS.len(),
        n_actors: 12,
        walk_length_max: net.n_layers(),
        walks_planned: n_walks * BUDGETS.len() as u64,
        keep_ratio_min: KEEP_RATIO_MIN,
        seed,
    };
    learning(build(settings, &environment).unwrap())
}

fn learning(agent: Agent) -> Box<dyn Learner> {
    match agent {
        Agent::Learning(learner) => learner,
        Agent::Fixed(_) => unreachable!("it learns"),
    }
}

/// The tuned agents, around the even ratio: these tasks have no plans.
fn tuned() -> Vec<(&'static str, Box<dyn AgentSettings>)> {
    let even = |settings: MtacpSettings| MtacpSettings { start: StartRule::Even, ..settings };
    let around_even = |settings: DdpgSettings| DdpgSettings { action: ActionRule::AroundEven, ..settings };
    vec![
        ("amc", Box::new(AmcSettings(around_even(AmcSettings::of(Profile::Tuned).0)))),
        ("cacp", Box::new(CacpSettings(around_even(CacpSettings::of(Profile::Tuned).0)))),
        ("impala", Box::new(ImpalaSettings(even(ImpalaSettings::of(Profile::Tuned).0)))),
        ("ppo", Box::new(PpoSettings(even(PpoSettings::of(Profile::Tuned).0)))),
    ]
}

/// The tuned agents, and the published ones with unrolls of one walk and little networks.
fn all() -> Vec<(&'static str, Box<dyn AgentSettings>)> {
    let small = |settings: DdpgSettings| DdpgSettings { hidden: vec![40, 40], ..settings };
    let walks = |settings: MtacpSettings| MtacpSettings {
        trunk: vec![40, 40],
        unroll: secateur_rl::agents::mtacp::UnrollRule::Walk,
        ..settings
    };
    let mut all = tuned();
    all.push(("amc, paper", Box::new(AmcSettings(small(AmcSettings::of(Profile::Paper).0)))));
    all.push(("cacp, paper", Box::new(CacpSettings(small(CacpSettings::of(Profile::Paper).0)))));
    all.push(("impala, paper", Box::new(ImpalaSettings(walks(ImpalaSettings::of(Profile::Paper).0)))));
    all.push(("ppo, paper", Box::new(PpoSettings(walks(PpoSettings::of(Profile::Paper).0)))));
    all
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn tuned_agents_end_above_even_widths_and_find_more_than_random_walks() {
    const N_WALKS: u64 = 100;
    let (mut uniform, mut random) = (0.0, 0.0);
    let agents = tuned();
    let mut learned = vec![[0.0; 2]; agents.len()];
    let n_seeds = 2;
    for seed in 0..n_seeds {
        let net = Net::new(9, 200 + seed);
        uniform += mean(&mean_policy_accuracy(&Uniform, &net, &BUDGETS)) / n_seeds as f64;
        let (best, _) = run_fixed(&Random { keep_ratio_min: KEEP_RATIO_MIN, seed }, &net, &BUDGETS, N_WALKS);
        random += mean(&best.iter().map(|b| b.accuracy).collect::<Vec<_>>()) / n_seeds as f64;
        for ((_, settings), [policy, found]) in agents.iter().zip(&mut learned) {
            let mut learner = build_learner(&**settings, &net, N_WALKS, seed);
            let best = run_learner(&mut *learner, &net, &BUDGETS, 4, 0..N_WALKS);
            *found += mean(&best.iter().map(|b| b.accuracy).collect::<Vec<_>>()) / n_seeds as f64;
            *policy += mean(&mean_policy_accuracy(&*learner.policy(), &net, &BUDGETS)) / n_seeds as f64;
        }
    }
    for ((name, _), [policy, found]) in agents.iter().zip(&learned) {
        let numbers = format!(
            "{name}: policy {policy:.4}, best {found:.4}; even widths {uniform:.4}, best of random {random:.4}"
        );
        eprintln!("{numbers}");
        assert!(*policy > uniform + 0.02, "{numbers}");
        assert!(*found > random + 0.02, "{numbers}");
    }
}

/// Two groups and no budget: a walk earns most at keep ratios 0.7 and 0.4. The published DDPG, with larger steps, finds
/// them from walks of its own.
#[test]
fn published_ddpg_finds_the_best_of_a_plain_valley() {
    let wanted = [0.7f32, 0.4];
    let of_paper = [AmcSettings::of(Profile::Paper).0, CacpSettings::of(Profile::Paper).0];
    for (place, settings) in of_paper.into_iter().enumerate() {
        let settings = DdpgSettings {
            hidden: vec![40, 40],
            actor_rate: 1e-3,
            critic_rate: 5e-3,
            target_rate: 0.05,
            beam: 1,
            ..settings
        };
        let settings: Box<dyn AgentSettings> =
            if place == 0 { Box::new(AmcSettings(settings)) } else { Box::new(CacpSettings(settings)) };
        let environment = EnvironmentSpec {
            n_features: 2,
            n_tasks: 1,
            n_actors: 4,
            walk_length_max: 2,
            walks_planned: 240,
            keep_ratio_min: 0.1,
            seed: 3,
        };
        let mut learner = learning(build(&*settings, &environment).unwrap());
        let walk = |learner: &dyn Learner, number: u64, explore: bool| {
            let mut unroll = Unroll::default();
            let mut reward = 1.0;
            for layer in 0..2u32 {
                let observation = vec![layer as f32, 1.0 - layer as f32];
                let request = ActRequest {
                    walk: number,
                    layer,
                    n_layers: 2,
                    observation: observation.clone(),
                    even_ratio: 0.5,
                    explore,
                    ..ActRequest::default()
                };
                let decision = learner.policy().act(&[request]).unwrap().remove(0);
                reward -= (decision.keep_ratio - wanted[layer as usize]).powi(2);
                let state = UnrollState { layer, even_ratio: 0.5, starts_walk: layer == 0, ..UnrollState::default() };
                unroll.push_state(&observation, state);
                unroll.push_step(UnrollStep {
                    raw_action: decision.raw_action,
                    keep_ratio: decision.keep_ratio,
                    reward: if layer == 1 { reward } else { 0.0 },
                    ends_walk: layer == 1,
                    ..UnrollStep::default()
                });
            }
            unroll.repeat_last_state();
            unroll
        };
        let first = walk(&*learner, 0, false).reward[1];
        for batch in 0..60 {
            let unrolls: Vec<Unroll> = (0..4).map(|i| walk(&*learner, 4 * batch + i, true)).collect();
            learner.learn(&unrolls).unwrap();
        }
        let last = walk(&*learner, 0, false);
        eprintln!("{place}: {:?}, first {first}", last.keep_ratio);
        assert!(last.keep_ratio.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 0.12), "{last:?}");
        assert!(last.reward[1] > first, "{first} was as good before");
    }
}

#[test]
fn saved_learners_continue_bit_for_bit() {
    let net = Net::new(4, 2);
    for (name, settings) in all() {
        let mut whole = build_learner(&*settings, &net, 16, 3);
        run_learner(&mut *whole, &net, &BUDGETS, 4, 0..12);
        let saved = whole.save().unwrap();
        let mut resumed = build_learner(&*settings, &net, 16, 3);
        resumed.load(&saved).unwrap();
        assert!(resumed.save().unwrap() == saved, "{name}");
        for learner in [&mut whole, &mut resumed] {
            run_learner(&mut **learner, &net, &BUDGETS, 4, 12..16);
        }
        assert!(whole.save().unwrap() == resumed.save().unwrap(), "{name}");
        assert!(whole.save().unwrap() != saved, "{name} learned nothing");
        for n in [0, 7, 100, saved.len() / 2, saved.len() - 1] {
            assert!(resumed.load(&saved[..n]).is_err(), "{name} cut at {n}");
        }
        assert!(whole.save().unwrap() == resumed.save().unwrap(), "{name}: a failed load changes nothing");
    }
}

#[test]
fn bad_batches_are_refused_by_name_and_change_nothing() {
    let net = Net::new(4, 5);
    for (name, settings) in all() {
        let mut learner = build_learner(&*settings, &net, 8, 1);
        let good = walk_all(&*learner.policy(), &net, &BUDGETS, &[(0, 0), (1, 0)], true);
        run_learner(&mut *learner, &net, &BUDGETS, 4, 0..4);
        let before = learner.save().unwrap();
        let mut refuse = |change: &dyn Fn(&mut Unroll), message: &str| {
            let mut batch = good.clone();
            change(&mut batch[1]);
            let error = learner.learn(&batch).unwrap_err().to_string();
            assert!(error.contains(message), "{name}: {error}");
            assert!(learner.save().unwrap() == before, "{name}: {message}");
        };
        refuse(&|u| u.reward[3] = f32::NAN, "reward[3] is NaN");
        refuse(&|u| u.observation[5] = f32::INFINITY, "observation[5] is inf");
        refuse(&|u| u.keep_ratio.truncate(2), "keep_ratio has 2 elements, expected 4");
        refuse(&|u| u.task = 3, "task is 3, expected less than 3");
        refuse(&|u| u.layer[2] = 4, "layer is 4, expected less than 4");
        refuse(&|u| *u = Unroll::default(), "number of steps is 0");
        if name.starts_with("amc") || name.starts_with("cacp") {
            refuse(&|u| u.ends_walk[3] = false, "expected one whole walk");
            refuse(&|u| u.starts_walk[2] = true, "expected one whole walk");
            refuse(&|u| u.raw_action[1] = 1.5, "raw_action is 1.5, expected in [0, 1]");
        }
        assert!(learner.learn(&[]).is_err());
        assert!(learner.learn(&good).is_ok());
    }
}

#[test]
fn decisions_do_not_depend_on_the_rows_beside_them_and_bad_requests_are_refused() {
    let net = Net::new(6, 5);
    for (name, settings) in all() {
        let mut learner = build_learner(&*settings, &net, 16, 1);
        run_learner(&mut *learner, &net, &BUDGETS, 4, 0..12);
        let policy = learner.policy();
        let mut requests: Vec<_> =
            (0..53).map(|i| synthetic::Walk::new(&net, BUDGETS[i % 3]).request(i % 3, 3, i as u64)).collect();
        requests.iter_mut().for_each(|request| request.explore = request.walk % 2 == 0);
        let together = policy.act(&requests).unwrap();
        for (i, request) in requests.iter().enumerate() {
            assert_eq!(policy.act(std::slice::from_ref(request)).unwrap()[0], together[i], "{name}: row {i}");
        }
        let act = |change: &dyn Fn(&mut ActRequest)| {
            let mut request = requests[0].clone();
            change(&mut request);
            policy.act(&[request])
        };
        assert!(act(&|r| r.observation.truncate(3)).is_err(), "{name}");
        assert!(act(&|r| r.observation[0] = f32::NAN).is_err(), "{name}");
        assert!(act(&|r| r.even_ratio = f32::NAN).is_err(), "{name}");
        assert!(act(&|r| r.task = 3).is_err(), "{name}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    const CHILD: &str = "SECATEUR_RL_TEST_CHILD";
    let agents: Vec<(&str, Box<dyn AgentSettings>)> = vec![
        ("amc", Box::new(AmcSettings::of(Profile::Paper))),
        (
            "cacp",
            Box::new(CacpSettings(DdpgSettings {
                action: ActionRule::AroundEven,
                ..CacpSettings::of(Profile::Tuned).0
            })),
        ),
        ("ppo", Box::new(PpoSettings::of(Profile::Paper))),
    ];
    if std::env::var_os(CHILD).is_some() {
        let net = Net::new(5, 4);
        for (_, settings) in &agents {
            let mut learner = build_learner(&**settings, &net, 16, 5);
            run_learner(&mut *learner, &net, &BUDGETS, 8, 0..16);
            let digest = learner.save().unwrap().iter().fold(0u64, |d, &b| d.rotate_left(7) ^ u64::from(b));
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
        assert_eq!(digests.len(), agents.len(), "{text}");
        digests
    };
    let one = digest("1");
    assert_eq!(one, digest("2"));
    assert_eq!(one, digest("3"));
}
