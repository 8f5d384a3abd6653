//! A small prepared network for tests.

use std::sync::Arc;

use secateur_kernels::Precision;
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{Conv2d, Cost, GraphBuilder, Op, Pointwise, Protocol, Shape, fold_batch_norm};
use secateur_sim::{
    CostBound, FittedImages, IndexOf, Inputs, PluginList, Prepared, Repair, RewardInputs, Selection, TaskSetup,
};

/// Groups of the network.
const N_LAYERS: usize = 8;
/// Channels of a group.
pub(crate) const N_CHANNELS: usize = 48;

/// A chain of convolutions with random weights, and so many random images to be scored on.
pub(crate) fn prepared(pool: &rayon::ThreadPool, n_reward: usize) -> Arc<Prepared> {
    prepared_for(pool, n_reward, |reward| reward)
}

/// As [`prepared`], paid otherwise than for accuracy.
pub(crate) fn prepared_for(
    pool: &rayon::ThreadPool,
    n_reward: usize,
    change: impl FnOnce(RewardInputs) -> RewardInputs,
) -> Arc<Prepared> {
    let mut g = GraphBuilder::new(Shape { c: 3, h: 4, w: 4 });
    let (mut x, mut from) = (0, 3);
    for i in 0..N_LAYERS {
        let conv = g.push(format!("c{i}"), Op::Conv2d(Conv2d::square(from, N_CHANNELS, 1, 1, 0)), &[x]);
        let norm = g.push(format!("n{i}"), Op::BatchNorm { channels: N_CHANNELS, eps: 1e-5 }, &[conv]);
        (x, from) = (g.push(format!("r{i}"), Op::Pointwise(Pointwise::Relu), &[norm]), N_CHANNELS);
    }
    let pooled = g.push("pool", Op::GlobalAvgPool, &[x]);
    g.push("out", Op::Linear { in_features: N_CHANNELS, out_features: 2, bias: true }, &[pooled]);
    let mut rng = SplitMix(2);
    let mut images = |n: usize| (0..n * 48).map(|_| rng.signed()).collect::<Vec<f32>>();
    let inputs = Inputs {
        network_name: "chain".into(),
        dataset_name: "noise".into(),
        network_index: IndexOf::ONLY,
        dataset_index: IndexOf::ONLY,
        network: fold_batch_norm(&with_random_weights(g.finish().unwrap(), 1)).unwrap(),
        protocol: Protocol::Inner,
        criterion: Selection::L1.criterion(0, &PluginList::default(), None).unwrap(),
        norm_orders: Default::default(),
        repair: Repair::Off,
        walk_images: 0,
        precision: Precision::F32,
        fitted: FittedImages::new(images(17), 16 * 48, 48),
        reward: change(RewardInputs::labelled(images(n_reward), (0..n_reward as u16).map(|i| i % 2).collect())),
    };
    Arc::new(Prepared::new(pool, inputs, |_| 1, |_, _| {}).unwrap())
}

/// One task: half of the multiply-accumulates.
pub(crate) fn task(prepared: &Prepared) -> TaskSetup {
    let full = prepared.model.count(Cost::Macs, &prepared.groups.full_widths());
    TaskSetup {
        name: "chain-noise-macs0.5".into(),
        network: 0,
        budget: vec![CostBound { cost: Cost::Macs, max: full / 2 }],
        keep: Default::default(),
        budget_ratio: 0.5,
        is_searched: true,
    }
}
