//! AMC, CACP, PPO and IMPALA as wholes: repeatable, resumable, and they learn.

#![allow(clippy::unwrap_used, reason = "the helpers of these tests fail by panicking")]

mod synthetic;

use secateur_rl::agents::amc::AmcSettings;
use secateur_rl::agents::cacp::CacpSettings;
use secateur_rl::agents::ddpg::{ActionRule, DdpgSettings};
use secateur_rl::agents::impala::ImpalaSettings;
use secateur_rl::agents::mtacp::{MtacpSettings, StartRule};
use secateur_rl::agents::ppo::PpoSettings;
use secateur_rl::agents::random::Random;
use secateur_rl::agents::uniform::Uniform;
use secateur_rl::{Agent, AgentSettings, EnvironmentSpec, Learner, Profile, build};
use synthetic::search::{mean_policy_accuracy, run_fixed, run_learner};
use synthetic::{KEEP_RATIO_MIN, N_FEATURES, Net};

const BUDGETS: [f64; 3] = [0.4, 0.5, 0.65];

fn learner(settings: &dyn AgentSettings, net: &Net, n_walks: u64, seed: u64) -> Box<dyn Learner> {
    let environment = EnvironmentSpec {
        n_features: N_FEATURES,
        n_tasks: BUDGETS.len(),
        n_actors: 12,
        walk_length_max: net.n_layers(),
        walks_planned: n_walks * BUDGETS.len() as u64,
        keep_ratio_min: KEEP_RATIO_MIN,
        seed,
    };
    match build(settings, &environment).unwrap() {
        Agent::Learning(learner) => learner,
        Agent::Fixed(_) => unreachable!("it learns"),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
#[ignore]
fn explore() {
    let n_walks: u64 = std::env::var("N").map_or(100, |n| n.parse().unwrap());
    let ddpg = |p| DdpgSettings { action: ActionRule::AroundEven, ..DdpgSettings::of(p) };
    let kn = |s: MtacpSettings| MtacpSettings { start: StartRule::Even, ..s };
    let list: Vec<(&str, Box<dyn AgentSettings>)> = vec![
        ("mtacp", Box::new(kn(MtacpSettings::of(Profile::Tuned)))),
        ("impala", Box::new(ImpalaSettings(kn(ImpalaSettings::of(Profile::Tuned).0)))),
        ("ppo", Box::new(PpoSettings(kn(PpoSettings::of(Profile::Tuned).0)))),
        ("amc", Box::new(AmcSettings(ddpg(Profile::Tuned)))),
        ("cacp", Box::new(CacpSettings(DdpgSettings { action: ActionRule::AroundEven, ..CacpSettings::of(Profile::Tuned).0 }))),
        ("amc paper", Box::new(AmcSettings::of(Profile::Paper))),
        ("cacp paper", Box::new(CacpSettings::of(Profile::Paper))),
    ];
    for (name, settings) in &list {
        let start = std::time::Instant::now();
        let (mut found, mut learned) = (0.0, 0.0);
        for seed in 0..3 {
            let net = Net::new(9, 200 + seed);
            let mut learner = learner(&**settings, &net, n_walks, seed);
            let best = run_learner(&mut *learner, &net, &BUDGETS, 4, 0..n_walks);
            found += mean(&best.iter().map(|b| b.accuracy).collect::<Vec<_>>());
            learned += mean(&mean_policy_accuracy(&*learner.policy(), &net, &BUDGETS));
        }
        eprintln!("{name}: best {:.4}, policy {:.4}, {:.2} s", found / 3.0, learned / 3.0, start.elapsed().as_secs_f64());
    }
    let (mut random, mut best, mut uniform) = (0.0, 0.0, 0.0);
    for seed in 0..3 {
        let net = Net::new(9, 200 + seed);
        let (b, m) = run_fixed(&Random { keep_ratio_min: KEEP_RATIO_MIN, seed }, &net, &BUDGETS, n_walks);
        random += m;
        best += mean(&b.iter().map(|b| b.accuracy).collect::<Vec<_>>());
        uniform += mean(&mean_policy_accuracy(&Uniform, &net, &BUDGETS));
    }
    eprintln!("random: best {:.4}, mean {:.4}; uniform {:.4}", best / 3.0, random / 3.0, uniform / 3.0);
}
