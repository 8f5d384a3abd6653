//! An environment whose costs are set by hand: a small network, scores that cost as much CPU as asked, a learner
//! likewise.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secateur_kernels::{KernelError, Precision};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{
    Conv2d, Cost, GraphBuilder, KeptChannels, Network, Op, Pointwise, Protocol, Shape, Tensor, fold_batch_norm,
};
use secateur_rl::rng::RngStream;
use secateur_rl::{ActRequest, Decision, LearnReport, Learner, Policy, RlError, Unroll};
use secateur_sim::{
    Build, CostBound, Evaluate, FittedImages, IndexOf, Inputs, PluginList, Prepared, Repair, RewardInputs, Score,
    Selection, TaskSetup,
};

/// Groups to decide, hence steps of a walk.
const N_LAYERS: usize = 8;
/// Channels of a group: so many that hardly two walks end alike.
const N_CHANNELS: usize = 48;

/// A number of rounds of arithmetic that took so long on this machine when nothing else ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    rounds: u64,
}

impl Work {
    /// Work of `time`. The same number of rounds is done wherever and whenever it is done, so a core that is shared
    /// takes longer.
    pub(super) fn of(time: Duration) -> Self {
        const SAMPLE: u64 = 2_000_000;
        let sample = || {
            let start = Instant::now();
            spin(SAMPLE);
            start.elapsed().as_secs_f64()
        };
        if time.is_zero() {
            return Self { rounds: 0 };
        }
        let fastest = (0..20).map(|_| sample()).fold(f64::INFINITY, f64::min);
        Self { rounds: (time.as_secs_f64() / fastest * SAMPLE as f64) as u64 }
    }

    pub(super) fn times(self, n: u64) -> Self {
        Self { rounds: self.rounds * n }
    }

    fn run(self) {
        spin(self.rounds);
    }
}

fn spin(rounds: u64) {
    let mut state = SplitMix(rounds);
    for _ in 0..rounds {
        black_box(state.next_u64());
    }
}

/// A chain of convolutions with random weights, and so many random images to be scored on.
pub(super) fn prepared(pool: &rayon::ThreadPool, n_reward: usize) -> anyhow::Result<Arc<Prepared>> {
    let mut g = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    let (mut x, mut from) = (0, 3);
    for i in 0..N_LAYERS {
        let conv = g.push(format!("c{i}"), Op::Conv2d(Conv2d::square(from, N_CHANNELS, 1, 1, 0)), &[x]);
        let norm = g.push(format!("n{i}"), Op::BatchNorm { channels: N_CHANNELS, eps: 1e-5 }, &[conv]);
        (x, from) = (g.push(format!("r{i}"), Op::Pointwise(Pointwise::Relu), &[norm]), N_CHANNELS);
    }
    let pooled = g.push("pool", Op::GlobalAvgPool, &[x]);
    g.push("out", Op::Linear { in_features: N_CHANNELS, out_features: 2, bias: true }, &[pooled]);
    let network = fold_batch_norm(&with_random_weights(g.finish()?, 1))?;
    let mut rng = SplitMix(2);
    let mut images = |n: usize| (0..n * 48).map(|_| rng.signed()).collect::<Vec<f32>>();
    let inputs = Inputs {
        network_name: "synthetic".into(),
        dataset_name: "synthetic".into(),
        network_index: IndexOf::ONLY,
        dataset_index: IndexOf::ONLY,
        network,
        protocol: Protocol::Inner,
        criterion: Selection::L1.criterion(0, &PluginList::default(), None)?,
        norm_orders: Default::default(),
        repair: Repair::Off,
        walk_images: 0,
        precision: Precision::F32,
        fitted: FittedImages::new(images(17), 16 * 48, 48),
        reward: RewardInputs::labelled(images(n_reward), (0..n_reward as u16).map(|i| i % 2).collect()),
    };
    Ok(Arc::new(Prepared::new(pool, inputs, |_| 1, |_, _| {})?))
}

/// One task: half of the multiply-accumulates.
pub(super) fn task(prepared: &Prepared) -> TaskSetup {
    let full = prepared.model.count(Cost::Macs, &prepared.groups.full_widths());
    TaskSetup {
        name: "synthetic".into(),
        network: 0,
        budget: vec![CostBound { cost: Cost::Macs, max: full / 2 }],
        keep: Default::default(),
        budget_ratio: 0.5,
        is_searched: true,
    }
}

/// Scores by widths, after so much work. The candidate's network is a vector of its widths.
pub(super) struct SyntheticScores {
    pub(super) work: Work,
}

impl Evaluate for SyntheticScores {
    fn begin<'a>(&'a self, _pool: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        Ok(Box::new(|kept| Ok(Arc::new(widths_as_network(prepared, kept)?))))
    }

    fn score(&self, _pool: &rayon::ThreadPool, _: &Prepared, network: &Network) -> Result<Score, KernelError> {
        self.work.run();
        let ratios = network.parameter("widths", "weight").data();
        // The best share of each layer, unknown to the policy.
        let best = |layer: usize| 0.3 + 0.5 * ((layer * 5) % N_LAYERS) as f64 / N_LAYERS as f64;
        let error: f64 = ratios.iter().enumerate().map(|(l, &r)| (f64::from(r) - best(l)).powi(2)).sum();
        Ok(Score::labelled(1.0 - error / ratios.len().max(1) as f64, 0.0))
    }
}

fn widths_as_network(prepared: &Prepared, kept: &KeptChannels) -> Result<Network, KernelError> {
    let groups = prepared.groups.prunable();
    let share = |&g: &usize| kept.group(g).len() as f32 / prepared.groups.group(g).n_channels as f32;
    let shares: Vec<f32> = groups.iter().map(share).collect();
    let n = shares.len();
    let mut graph = GraphBuilder::new(Shape { c: n, h: 1, w: 1 });
    graph.push("widths", Op::Linear { in_features: n, out_features: 1, bias: false }, &[0]);
    let weights = [("widths.weight".to_owned(), Tensor::new(vec![1, n], shares)?)];
    Ok(Network::new(graph.finish()?, weights.into())?)
}

/// Acts around the even ratio; what it learns is the update's number.
#[derive(Clone, Copy, Debug)]
struct SyntheticPolicy {
    version: u64,
    seed: u64,
}

impl Policy for SyntheticPolicy {
    fn version(&self) -> u64 {
        self.version
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let mut rng = RngStream::new(self.seed, request.task.into(), request.walk, request.layer.into());
            let raw_action = (request.even_ratio * (0.6 + 0.8 * rng.uniform() as f32)).clamp(0.05, 1.0);
            Decision { keep_ratio: raw_action, raw_action, ..Decision::default() }
        };
        Ok(batch.iter().map(decide).collect())
    }
}

/// Takes so much work per trajectory.
pub(super) struct SyntheticLearner {
    work: Work,
    batch_size: usize,
    policy: SyntheticPolicy,
}

impl SyntheticLearner {
    pub(super) fn new(work: Work, batch_size: usize, seed: u64) -> Self {
        Self { work, batch_size, policy: SyntheticPolicy { version: 0, seed } }
    }
}

impl Learner for SyntheticLearner {
    fn unroll_length(&self, walk_length: usize) -> usize {
        walk_length
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        self.work.times(batch.len() as u64).run();
        self.policy.version += 1;
        Ok(LearnReport::default())
    }

    fn policy(&self) -> Arc<dyn Policy> {
        Arc::new(self.policy)
    }

    fn n_updates(&self) -> u64 {
        self.policy.version
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        Ok(self.policy.version.to_le_bytes().to_vec())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        let what = format!("{} bytes, expected 8", bytes.len());
        self.policy.version = u64::from_le_bytes(bytes.try_into().map_err(|_| RlError::State { what })?);
        Ok(())
    }
}
