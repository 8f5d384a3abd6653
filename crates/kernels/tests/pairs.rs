//! Refits of both sides of hidden channels: against networks whose best hidden channels are known, and against the
//! refit of one side.

use secateur_kernels::{Arithmetic, Effort, Plan, RefitData, SequentialRefit};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{
    ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, Op, Pointwise, Protocol, Shape, Tensor,
};

const SIZE: usize = 8;

fn pool(n: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

fn images(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..n * SIZE * SIZE * 3).map(|_| (rng.below(2001) as f32 - 1000.0) / 500.0).collect()
}

/// Two convolutions with a rectifier between and behind, `[kernel, stride]` each; the outputs are the second's.
fn network([first, second]: [[usize; 2]; 2], hidden: usize) -> Network {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: SIZE, w: SIZE });
    let conv = |[kernel, stride]: [usize; 2], n_in, n_out| {
        Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(n_in, n_out, kernel, stride, kernel / 2) })
    };
    let a = builder.push("a", conv(first, 3, hidden), &[0]);
    let a_relu = builder.push("a_relu", Op::Pointwise(Pointwise::Relu), &[a]);
    let b = builder.push("b", conv(second, hidden, 4), &[a_relu]);
    let b_relu = builder.push("b_relu", Op::Pointwise(Pointwise::Relu), &[b]);
    builder.push("out", Op::Identity, &[b_relu]);
    with_random_weights(builder.finish().unwrap(), 5)
}

fn set(network: &mut Network, node: &str, part: &str, value: impl Fn(usize) -> f32) {
    let shape = network.parameter(node, part).shape().to_vec();
    let n = shape.iter().product();
    network.set_parameter(node, part, Tensor::new(shape, (0..n).map(value).collect()).unwrap()).unwrap();
}

/// The group of the channels between both convolutions, and the first `n` of them kept.
fn hidden_kept(network: &Network, n: usize) -> (ChannelGroups, KeptChannels) {
    let groups = ChannelGroups::derive(network.graph(), Protocol::Full);
    let mut kept = KeptChannels::all(&groups);
    let hidden = groups.prunable().into_iter().find(|&g| groups.group(g).name == "a").unwrap();
    kept.set(hidden, (0..n).collect());
    (groups, kept)
}

/// Mean squared difference of the outputs on images that nothing was fitted to, as a share of their variance.
fn error(network: &Network, of: &Network) -> f64 {
    let images = images(256, 99);
    let outputs = |network: &Network| {
        let plan = Plan::compile(network, Arithmetic::default()).unwrap();
        plan.logits(&pool(1), &images).unwrap()
    };
    let (wanted, got) = (outputs(of), outputs(network));
    let mean = wanted.iter().map(|&x| f64::from(x)).sum::<f64>() / wanted.len() as f64;
    let square = |x: f64| x * x;
    let error: f64 = wanted.iter().zip(&got).map(|(&w, &g)| square(f64::from(w) - f64::from(g))).sum();
    error / wanted.iter().map(|&w| square(f64::from(w) - mean)).sum::<f64>()
}

fn refitted(network: &Network, n_kept: usize, n_threads: usize) -> [Network; 2] {
    let (groups, kept) = hidden_kept(network, n_kept);
    let pool = pool(n_threads);
    let data = RefitData::new(&pool, network, &groups, &images(1030, 1), Effort::Thorough).unwrap();
    let refit = SequentialRefit::new(&pool, network, &groups, &data);
    let (sequential, in_pairs, _) = refit.run_in_pairs(&kept, true).unwrap();
    [sequential, in_pairs.expect("there is a pair")]
}

/// Where the rectifier lets everything pass, eight hidden channels that four outputs read are four channels: the right
/// combinations of them. No subset of the eight is.
#[test]
fn hidden_channels_become_the_combinations_that_the_outputs_read() {
    for first in [[3, 1], [3, 2], [5, 1]] {
        let mut net = network([first, [1, 1]], 8);
        set(&mut net, "a", "bias", |_| 60.0);
        set(&mut net, "b", "bias", |_| 5.0);
        let weights: Vec<f32> = net.parameter("b", "weight").data().to_vec();
        // The bias that passes everything is taken away again.
        set(&mut net, "b", "bias", |o| 5.0 - 60.0 * weights[o * 8..(o + 1) * 8].iter().sum::<f32>());
        let [sequential, in_pairs] = refitted(&net, 4, 2).map(|network| error(&network, &net));
        assert!(sequential > 0.05, "{first:?}: a subset of the channels is not enough: {sequential}");
        assert!(in_pairs < sequential / 20.0, "{first:?}: {sequential} sequentially, {in_pairs} in pairs");
    }
}

/// With every kind of geometry and a rectifier that hides half, on images that nothing was fitted to.
#[test]
fn a_pair_fits_better_than_its_second_map_alone() {
    for shapes in [[[3, 1], [3, 1]], [[1, 1], [3, 2]], [[3, 2], [3, 1]], [[5, 1], [1, 2]], [[3, 2], [2, 2]]] {
        let net = network(shapes, 12);
        let [sequential, in_pairs] = refitted(&net, 3, 2).map(|network| error(&network, &net));
        assert!(in_pairs < 0.9 * sequential, "{shapes:?}: {sequential} sequentially, {in_pairs} in pairs");
    }
}

#[test]
fn refits_in_pairs_are_the_same_for_any_number_of_threads() {
    let net = network([[3, 1], [3, 2]], 12);
    let [one, three] = [1, 3].map(|n_threads| refitted(&net, 5, n_threads));
    for (a, b) in one.iter().zip(&three) {
        for ((name, a), (_, b)) in a.weights().iter().zip(b.weights().iter()) {
            assert_eq!(a.data(), b.data(), "{name}");
        }
    }
}

/// Nothing is there to be refitted in pairs where no map's outputs are read by one map alone.
#[test]
fn a_network_without_pairs_says_so() {
    let mut builder = GraphBuilder::new(Shape { c: 3, h: SIZE, w: SIZE });
    let conv = |n_in, n_out| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(n_in, n_out, 3, 1, 1) });
    let a = builder.push("a", conv(3, 8), &[0]);
    let pooled = builder.push("pool", Op::GlobalAvgPool, &[a]);
    let flat = builder.push("flat", Op::Flatten, &[pooled]);
    builder.push("fc", Op::Linear { in_features: 8, out_features: 3, bias: true }, &[flat]);
    let net = with_random_weights(builder.finish().unwrap(), 5);
    let (groups, kept) = hidden_kept(&net, 4);
    let pool = pool(1);
    let data = RefitData::new(&pool, &net, &groups, &images(64, 1), Effort::Thorough).unwrap();
    let (_, in_pairs, _) = SequentialRefit::new(&pool, &net, &groups, &data).run_in_pairs(&kept, true).unwrap();
    assert!(in_pairs.is_none());
}
