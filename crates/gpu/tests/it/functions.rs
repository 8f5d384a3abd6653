//! Element-wise functions in every place that a program has for them, and pooling windows, against the CPU engine.

use secateur_gpu::{Candidates, GpuImages};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{
    ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, Op, Pointwise, Protocol, Shape, Window, prune,
};

use crate::adapter::checked;
use crate::networks::{assert_close, cpu_logits, random_images, random_kept};

/// Sums in another order, functions by other formulas: relative to the largest logit.
const TOLERANCE: f32 = 1e-4;

/// `function` behind a convolution, behind a sum, behind a pool, and of the image.
fn everywhere(function: Pointwise, seed: u64) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 5, h: 6, w: 7 });
    let act = |b: &mut GraphBuilder, x| b.push(format!("f{x}"), Op::Pointwise(function), &[x]);
    // Roots and logarithms take positive values only.
    let first = b.push("abs", Op::Pointwise(Pointwise::Abs), &[0]);
    let image = act(&mut b, first);
    let conv = b.push("conv", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(5, 9, 3, 1, 1) }), &[image]);
    let conv = b.push("soft", Op::Pointwise(Pointwise::Softplus), &[conv]);
    let one = b.push("one", Op::Conv2d(Conv2d::square(9, 5, 1, 1, 0)), &[conv]);
    let hard = b.push("hard", Op::Pointwise(Pointwise::HardSigmoid { alpha: 0.2, beta: 0.6 }), &[one]);
    let behind_conv = act(&mut b, hard);
    let sum = b.push("sum", Op::Add, &[behind_conv, hard, hard]);
    let behind_sum = act(&mut b, sum);
    let mean = b.push("mean", Op::GlobalAvgPool, &[behind_sum]);
    b.push("linear", Op::Linear { in_features: 5, out_features: 3, bias: true }, &[mean]);
    with_random_weights(b.finish().unwrap(), seed)
}

#[test]
fn functions_behind_layers_sums_and_pools_agree_with_the_cpu() {
    let Some(gpu) = checked() else { return };
    // Infinite far from 0: a logarithm of what a hard sigmoid cut off, and one over it.
    let is_finite = |function: &Pointwise| !matches!(function, Pointwise::Log | Pointwise::Reciprocal);
    let finite = Pointwise::EACH.into_iter().filter(is_finite);
    for (seed, function) in finite.enumerate() {
        let network = everywhere(function, seed as u64);
        let shape = network.graph().input();
        let images = random_images(shape, 3, seed as u64);
        let on_card = GpuImages::new(&gpu, shape, &images, None).unwrap();
        let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap();
        assert_close(&logits[0], &cpu_logits(&network, &images), TOLERANCE, &format!("{function:?}"));
    }
}

/// Several widths, by masks and by weights of their own; the last quad of channels is not full.
#[test]
fn slopes_per_channel_agree_with_the_cpu_for_candidates_of_every_width() {
    let Some(gpu) = checked() else { return };
    let mut b = GraphBuilder::new(Shape { c: 3, h: 5, w: 6 });
    let first = b.push("first", Op::Conv2d(Conv2d::square(3, 11, 3, 1, 1)), &[0]);
    let slopes = b.push("slopes", Op::PRelu { channels: 11 }, &[first]);
    let second = b.push("second", Op::Conv2d(Conv2d::square(11, 7, 3, 2, 1)), &[slopes]);
    let relu = b.push("relu", Op::Pointwise(Pointwise::Relu6), &[second]);
    let again = b.push("again", Op::PRelu { channels: 7 }, &[relu]);
    let mean = b.push("mean", Op::GlobalAvgPool, &[again]);
    b.push("linear", Op::Linear { in_features: 7, out_features: 4, bias: true }, &[mean]);
    let network = with_random_weights(b.finish().unwrap(), 8);
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let mut rng = SplitMix(3);
    let kept: Vec<KeptChannels> = (0..3).map(|_| random_kept(&groups, &mut rng)).collect();
    let compact: Vec<Network> = kept.iter().map(|k| prune(&network, &groups, k).unwrap()).collect();
    let images = random_images(network.graph().input(), 4, 2);
    let on_card = GpuImages::new(&gpu, network.graph().input(), &images, None).unwrap();
    let masked = Candidates::Masked { network: &network, groups: &groups, kept: &kept };
    let by_mask = gpu.logits(&on_card, &masked).unwrap();
    let own = gpu.logits(&on_card, &Candidates::Repaired(&compact.iter().collect::<Vec<_>>())).unwrap();
    for (i, network) in compact.iter().enumerate() {
        let expected = cpu_logits(network, &images);
        assert_close(&own[i], &expected, TOLERANCE, &format!("candidate {i}"));
        assert_close(&by_mask[i], &expected, TOLERANCE, &format!("candidate {i} by mask"));
    }
}

/// Padding that differs on every side, windows that end beyond it, both ways to divide; pools behind each other.
#[test]
fn windows_of_all_kinds_agree_with_the_cpu() {
    let Some(gpu) = checked() else { return };
    let mut rng = SplitMix(5);
    let mut n_checked = 0;
    for seed in 0..24 {
        let shape = Shape { c: 1 + rng.below(6), h: 4 + rng.below(6), w: 4 + rng.below(6) };
        let mut window = || {
            let kernel = [0, 0].map(|_| 1 + rng.below(4));
            let stride = [0, 0].map(|_| 1 + rng.below(3));
            let padding = kernel.map(|k| [0, 0].map(|_| rng.below(k)));
            Window { kernel, stride, padding, ceil: rng.below(2) == 0, counts_padding: rng.below(2) == 0 }
        };
        let mut b = GraphBuilder::new(shape);
        let most = b.push("most", Op::MaxPool(window()), &[0]);
        let mean = b.push("mean", Op::AvgPool(window()), &[0]);
        let [most, mean] = [("m", most), ("a", mean)].map(|(name, x)| b.push(name, Op::Flatten, &[x]));
        b.push("both", Op::Concat, &[most, mean]);
        // Another window may fit where this one does not.
        let Ok(graph) = b.finish() else { continue };
        n_checked += 1;
        let network = with_random_weights(graph, seed);
        let images = random_images(shape, 3, seed);
        let on_card = GpuImages::new(&gpu, shape, &images, None).unwrap();
        let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap();
        assert_close(&logits[0], &cpu_logits(&network, &images), 1e-6, &format!("{:?}", network.graph().nodes()));
    }
    assert!(n_checked >= 16, "{n_checked} of 24");
}
