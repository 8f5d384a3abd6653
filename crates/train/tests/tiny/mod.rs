//! Searches on a tiny network with random weights.

#![allow(dead_code, reason = "each file of tests uses a part")]

pub mod late;
pub mod recording;

use std::sync::Arc;
use std::time::{Duration, Instant};

use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{Conv2d, Cost, GraphBuilder, Network, Op, Pointwise, Protocol, Shape, fold_batch_norm};
use secateur_rl::agents::mtacp::MtacpSettings;
use secateur_rl::agents::random::RandomSettings;
use secateur_rl::agents::uniform::UniformSettings;
use secateur_rl::{Agent, AgentSettings, EnvironmentSpec, Profile, RlError};
use secateur_scene::PluginConfig;
use secateur_sim::{
    CostBound, EndsAfter, FittedImages, IndexOf, Inputs, NoiseFree, PluginList, Pool, Prepared, ProcessEvent,
    PruningPlugin, Repair, RewardInputs, RewardKind, Settings, TaskSetup,
};
use secateur_train::{Executor, Scheduler, Search, SearchEvent, SearchSetup, TaskResult};

/// An agent with its defaults.
#[derive(Clone, Copy, Debug)]
pub enum TestAgent {
    Uniform,
    Random,
    Mtacp(Profile),
}

impl TestAgent {
    fn settings(self) -> Box<dyn AgentSettings> {
        match self {
            Self::Uniform => Box::new(UniformSettings {}),
            Self::Random => Box::new(RandomSettings {}),
            Self::Mtacp(profile) => Box::new(MtacpSettings::of(profile)),
        }
    }
}

pub const MTACP: TestAgent = TestAgent::Mtacp(Profile::Tuned);

pub const N_WALKS: u64 = 20;
pub const N_TASKS: usize = 2;

pub fn pool(n: usize) -> Pool {
    Pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()))
}

pub fn tiny_network() -> Network {
    network([6, 8, 8, 6])
}

/// Four convolutions of these widths, so a walk has four decisions.
pub fn network(widths: [usize; 4]) -> Network {
    let mut g = GraphBuilder::new(Shape { c: 2, h: 6, w: 6 });
    let (mut x, mut from) = (0, 2);
    for (i, to) in widths.into_iter().enumerate() {
        let conv = g.push(format!("c{i}"), Op::Conv2d(Conv2d::square(from, to, 3, 1, 1)), &[x]);
        let norm = g.push(format!("n{i}"), Op::BatchNorm { channels: to, eps: 1e-5 }, &[conv]);
        (x, from) = (g.push(format!("r{i}"), Op::Pointwise(Pointwise::Relu), &[norm]), to);
    }
    let pooled = g.push("pool", Op::GlobalAvgPool, &[x]);
    g.push("out", Op::Linear { in_features: from, out_features: 3, bias: true }, &[pooled]);
    fold_batch_norm(&with_random_weights(g.finish().unwrap(), 5)).unwrap()
}

pub fn prepared(pool: &Pool) -> Arc<Prepared> {
    prepared_of(pool, tiny_network())
}

pub fn prepared_of(pool: &Pool, network: Network) -> Arc<Prepared> {
    let mut rng = SplitMix(9);
    let mut images = |n: usize| (0..n * 72).map(|_| rng.signed()).collect::<Vec<f32>>();
    let (fitted, reward) = (FittedImages::new(images(80), 40 * 72, 80 * 72), images(60));
    // The labels are what the dense network says, so a candidate's accuracy is its agreement with it.
    let plan = secateur_kernels::Plan::compile(&network, secateur_kernels::Arithmetic::default()).unwrap();
    let labels = plan.predictions(&pool.0, &reward).unwrap();
    let inputs = Inputs {
        network_name: "tiny".into(),
        dataset_name: "noise".into(),
        network_index: IndexOf::ONLY,
        dataset_index: IndexOf::ONLY,
        network,
        protocol: Protocol::Inner,
        criterion: None,
        norm_orders: Default::default(),
        repair: Repair::Sequential,
        walk_images: 20,
        precision: secateur_kernels::Precision::F32,
        fitted,
        reward: RewardInputs::labelled(reward, labels),
    };
    Arc::new(Prepared::new(&pool.0, inputs, |_| 1, |_, _| {}).unwrap())
}

pub struct Options {
    pub agent: TestAgent,
    pub threads: usize,
    pub queue_capacity: usize,
    pub scheduler: Scheduler,
    pub executor: Executor,
    pub n_walks: u64,
    pub ends_after: EndsAfter,
    pub n_actors: usize,
    pub spend_leftover: bool,
    pub plugins: PluginList,
    pub configs: Vec<PluginConfig>,
}

impl Options {
    pub fn new(agent: TestAgent) -> Self {
        Self {
            agent,
            threads: 1,
            queue_capacity: 64,
            scheduler: Scheduler::Lockstep,
            executor: Executor::Single,
            n_walks: N_WALKS,
            ends_after: EndsAfter::Walks,
            n_actors: 3,
            spend_leftover: true,
            plugins: PluginList::default(),
            configs: Vec::new(),
        }
    }
}

pub fn search(options: &Options) -> Search {
    search_with(options, |environment| secateur_rl::build(&*options.agent.settings(), environment))
}

/// A search by an agent of the caller's own.
pub fn search_with(options: &Options, build: impl FnOnce(&EnvironmentSpec) -> Result<Agent, RlError>) -> Search {
    search_on(&prepared(&pool(options.threads)), options, build)
}

/// The same on a network that is ready.
pub fn search_on(
    prepared: &Arc<Prepared>,
    options: &Options,
    build: impl FnOnce(&EnvironmentSpec) -> Result<Agent, RlError>,
) -> Search {
    let pool = pool(options.threads);
    let full = prepared.model.count(Cost::Macs, &prepared.groups.full_widths());
    let tasks: Vec<TaskSetup> = [0.4, 0.7]
        .iter()
        .map(|&ratio| TaskSetup {
            name: format!("tiny-{ratio}"),
            network: 0,
            budget: vec![CostBound { cost: Cost::Macs, max: (full as f64 * ratio) as u64 }],
            keep: Default::default(),
            budget_ratio: ratio as f32,
            is_searched: true,
        })
        .collect();
    let settings = Settings {
        channel_multiple: 1,
        keep_ratio_min: 0.1,
        spend_leftover: options.spend_leftover,
        reward: RewardKind::Accuracy,
        finalists: 3,
        actors_per_task: options.n_actors,
        walks_per_task: options.n_walks,
        ends_after: options.ends_after,
        noise_free: NoiseFree { every: 10, last: 2 },
    };
    let app = options.plugins.app(&options.configs).unwrap();
    let setup = SearchSetup {
        pool,
        settings,
        networks: std::slice::from_ref(prepared),
        tasks: &tasks,
        agent: &*options.agent.settings(),
        seed: 3,
        queue_capacity: options.queue_capacity,
        scheduler: options.scheduler,
        executor: options.executor,
    };
    Search::with_agent(app, &setup, build).unwrap()
}

/// Runs a search to its end.
pub fn go_on(search: &mut Search) -> Vec<SearchEvent> {
    let mut events = Vec::new();
    let start = Instant::now();
    while !search.is_done() {
        assert!(start.elapsed() < Duration::from_secs(120), "the search does not end");
        events.extend(search.tick().unwrap());
    }
    events.extend(search.finish().unwrap());
    events
}

pub fn run(options: &Options) -> (Vec<SearchEvent>, Vec<TaskResult>, Search) {
    let mut search = search(options);
    let events = go_on(&mut search);
    (events, search.results(), search)
}

/// The numbers of this name in the learner's updates.
pub fn learned(events: &[SearchEvent], name: &str) -> Vec<f64> {
    let of = |e: &SearchEvent| match e {
        SearchEvent::Learned { numbers, .. } => numbers.iter().find(|(n, _)| *n == name).map(|(_, x)| *x),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

pub fn rewards(events: &[SearchEvent]) -> Vec<(usize, u64, f32)> {
    let of = |e: &SearchEvent| match e {
        SearchEvent::Process(ProcessEvent::Candidate { task, walk, reward, .. }) => Some((*task, *walk, *reward)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// Options with a plugin and its settings, `"name": (…)`.
pub fn with_plugin(agent: TestAgent, plugin: impl PruningPlugin + 'static, config: &str) -> Options {
    let (name, ron) = config.split_once(": ").unwrap();
    let mut plugins = PluginList::default();
    plugins.add(plugin);
    let configs = vec![PluginConfig::of("test.ron", name.trim_matches('"'), ron)];
    Options { plugins, configs, ..Options::new(agent) }
}
