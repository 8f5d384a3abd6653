//! Whole networks on the card against the CPU engine.

use rayon::{ThreadPool, ThreadPoolBuilder};
use secateur_gpu::{Candidates, ConvVariant, Gpu, GpuError, GpuImages, GpuOptions, Truth};
use secateur_kernels::{Arithmetic, Plan};
use secateur_net::random::{SplitMix, random_network, with_random_weights};
use secateur_net::{
    ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, Op, Pointwise, Protocol, Shape, Tap, arch,
    fold_batch_norm, prune,
};

use crate::adapter::{checked, open};

/// Sums in another order: relative to the largest logit.
const TOLERANCE: f32 = 1e-4;

pub fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(1).build().unwrap()
}

pub fn random_images(shape: Shape, n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    (0..n * shape.len()).map(|_| 2.0 * rng.signed()).collect()
}

pub fn cpu_logits(network: &Network, images: &[f32]) -> Vec<f32> {
    Plan::compile(network, Arithmetic::default()).unwrap().logits(&pool(), images).unwrap()
}

pub fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, context: &str) {
    assert_eq!(got.len(), expected.len(), "{context}");
    let scale = expected.iter().filter(|e| e.is_finite()).fold(1.0f32, |m, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let same = (g.is_nan() && e.is_nan()) || (g - e).abs() <= tolerance * scale;
        assert!(same, "{context}: element {i}: got {g}, expected {e}");
    }
}

/// A random kept set of every prunable group.
pub fn random_kept(groups: &ChannelGroups, rng: &mut SplitMix) -> KeptChannels {
    let mut kept = KeptChannels::all(groups);
    for group in groups.prunable() {
        let n = groups.group(group).n_channels;
        let mut list: Vec<usize> = (0..n).filter(|_| rng.below(2) == 0).collect();
        if list.is_empty() {
            list.push(rng.below(n));
        }
        kept.set(group, list);
    }
    kept
}

/// Weights in either memory, in blocks of one to four output quads, workgroups of every size.
fn variants() -> Vec<Gpu> {
    let of = |(conv, block): (ConvVariant, usize)| {
        let (conv_block, conv_tile) = (Some(block), Some([32, 64, 128][block % 3]));
        open(&GpuOptions { checked: true, conv: Some(conv), conv_block, conv_tile, ..GpuOptions::default() })
    };
    ConvVariant::ALL.into_iter().flat_map(|conv| (1..=4).map(move |block| (conv, block))).filter_map(of).collect()
}

/// Candidates of one random network, pruned differently, against their own CPU plans.
fn check_random(gpu: &Gpu, seed: u64) {
    let mut rng = SplitMix(seed);
    let network = random_network(seed);
    let network = if rng.below(2) == 0 { fold_batch_norm(&network).unwrap() } else { network };
    let groups = ChannelGroups::derive(network.graph(), Protocol::Full);
    let kept: Vec<KeptChannels> = (0..3).map(|_| random_kept(&groups, &mut rng)).collect();
    let mut compact: Vec<Network> = kept.iter().map(|k| prune(&network, &groups, k).unwrap()).collect();
    let shape = network.graph().input();
    let images = random_images(shape, 5, seed);
    let on_card = GpuImages::new(gpu, shape, &images, None).unwrap();
    let masked = Candidates::Masked { network: &network, groups: &groups, kept: &kept };
    let by_mask = gpu.logits(&on_card, &masked).unwrap();
    compact.push(network.clone());
    let own = gpu.logits(&on_card, &Candidates::Repaired(&compact.iter().collect::<Vec<_>>())).unwrap();
    for (i, network) in compact.iter().enumerate() {
        let expected = cpu_logits(network, &images);
        assert_close(&own[i], &expected, TOLERANCE, &format!("seed {seed}, candidate {i}"));
        if let Some(got) = by_mask.get(i) {
            assert_close(got, &expected, TOLERANCE, &format!("seed {seed}, candidate {i} by mask"));
        }
    }
}

#[test]
fn random_networks_agree_with_the_cpu_in_every_variant() {
    // Every network in some variant, every variant with many networks.
    for (i, gpu) in variants().iter().enumerate() {
        // Strips are compiled for each width of an image, which takes far longer than computing on software adapters.
        let n_networks = if gpu.conv().variant == ConvVariant::Strips { 4 } else { 20 };
        (0..n_networks).for_each(|n| check_random(gpu, 12 * n + i as u64));
    }
}

#[test]
fn shaders_without_checks_give_the_same_bits() {
    let (Some(with), Some(without)) = (checked(), open(&GpuOptions::default())) else { return };
    for seed in 0..12 {
        let network = random_network(seed);
        let shape = network.graph().input();
        let images = random_images(shape, 3, seed);
        let bits = |gpu: &Gpu| -> Vec<u32> {
            let on_card = GpuImages::new(gpu, shape, &images, None).unwrap();
            let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap();
            logits[0].iter().map(|x| x.to_bits()).collect()
        };
        assert_eq!(bits(&with), bits(&without), "seed {seed}");
    }
}

/// Heights that are no multiple of a strip, kernels, paddings and steps of all kinds, behind each other.
#[test]
fn strips_of_a_column_agree_with_the_cpu() {
    for (i, (h, w)) in [(6, 5), (7, 9), (8, 8), (13, 3), (16, 33), (24, 2)].into_iter().enumerate() {
        let mut b = GraphBuilder::new(Shape { c: 6, h, w });
        let same = |kernel| Conv2d { bias: true, ..Conv2d::square(9, 9, kernel, 1, kernel / 2) };
        let first = b.push("first", Op::Conv2d(Conv2d { in_channels: 6, ..same(3) }), &[0]);
        let five = b.push("five", Op::Conv2d(same(5)), &[first]);
        let sum = b.push("sum", Op::Add, &[five, first]);
        let one = b.push("one", Op::Conv2d(Conv2d { out_channels: 21, ..same(1) }), &[sum]);
        let wide =
            Conv2d { in_channels: 21, kernel: [3, 5], padding: [2, 4], stride: [1, 2], dilation: [1, 2], ..same(3) };
        let wide = b.push("wide", Op::Conv2d(wide), &[one]);
        let act = b.push("act", Op::Pointwise(Pointwise::Relu), &[wide]);
        // Too many taps, two rows at a time: not in strips.
        let large = b.push("large", Op::Conv2d(Conv2d { kernel: [7, 7], padding: [3, 3], ..same(7) }), &[act]);
        b.push("down", Op::Conv2d(Conv2d { stride: [2, 1], ..same(3) }), &[large]);
        let network = with_random_weights(b.finish().unwrap(), i as u64);
        let images = random_images(network.graph().input(), 3, i as u64);
        let expected = cpu_logits(&network, &images);
        // Compiling takes far longer than computing: every height with two of the sizes of blocks.
        for conv_block in [1 + i % 4, 1 + (i + 1) % 4] {
            let options = GpuOptions { checked: true, conv: Some(ConvVariant::Strips), ..GpuOptions::default() };
            let Some(gpu) = open(&GpuOptions { conv_block: Some(conv_block), conv_tile: Some(32), ..options }) else {
                return;
            };
            let on_card = GpuImages::new(&gpu, network.graph().input(), &images, None).unwrap();
            let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network; 2])).unwrap();
            assert_close(&logits[1], &expected, TOLERANCE, &format!("{h} x {w}, blocks of {conv_block}"));
        }
    }
}

/// Residual, option-A shortcut, Concat, several addends, the image read twice, an output with rows and columns.
fn awkward() -> Network {
    let mut b = GraphBuilder::new(Shape { c: 5, h: 7, w: 9 });
    let a = b.push("a", Op::Conv2d(Conv2d::square(5, 5, 3, 1, 1)), &[0]);
    let sum = b.push("sum", Op::Add, &[0, a]);
    let same = b.push("same", Op::Identity, &[0]);
    let both = b.push("both", Op::Concat, &[sum, same, 0]);
    let act = b.push("act", Op::Pointwise(Pointwise::Tanh), &[both]);
    let thrice = b.push("thrice", Op::Add, &[act, both, act]);
    let slice = b.push("slice", Op::Slice { channels: [3, 14], step: [2, 3] }, &[thrice]);
    let pad = b.push("pad", Op::Pad { channels: [2, 1], rows: [1, 0], cols: [0, 2] }, &[slice]);
    let soft = b.push("soft", Op::Softmax, &[pad]);
    let hard = b.push("hard", Op::Pointwise(Pointwise::HardSwish), &[soft]);
    b.push("out", Op::Identity, &[hard]);
    with_random_weights(b.finish().unwrap(), 4)
}

#[test]
fn odd_wirings_agree_with_the_cpu() {
    for gpu in variants() {
        let network = awkward();
        let shape = network.graph().input();
        let images = random_images(shape, 4, 9);
        let on_card = GpuImages::new(&gpu, shape, &images, None).unwrap();
        let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network, &network])).unwrap();
        assert_close(&logits[1], &cpu_logits(&network, &images), TOLERANCE, "awkward");
    }
    let Some(gpu) = checked() else { return };
    let mut b = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
    b.push("out", Op::Identity, &[0]);
    let nothing = with_random_weights(b.finish().unwrap(), 0);
    let on_card = GpuImages::new(&gpu, nothing.graph().input(), &[1.0, 2.0, 3.0], None).unwrap();
    assert_eq!(gpu.logits(&on_card, &Candidates::Repaired(&[&nothing])).unwrap(), [[1.0, 2.0, 3.0]]);
}

/// A dense kernel has one bit for each of at most 16 rows and columns; larger ones take another way.
#[test]
fn kernels_around_the_largest_dense_one_agree_with_the_cpu() {
    for gpu in variants() {
        for (kernel, padding) in [
            ([16, 1], [8, 0]),
            ([1, 16], [0, 7]),
            ([16, 16], [8, 8]),
            ([17, 1], [3, 0]),
            ([1, 17], [0, 9]),
            ([17, 17], [8, 9]),
        ] {
            let mut b = GraphBuilder::new(Shape { c: 5, h: 19, w: 18 });
            let conv = Conv2d { kernel, padding, stride: [1, 2], ..Conv2d::square(5, 6, 1, 1, 0) };
            let x = b.push("large", Op::Conv2d(conv), &[0]);
            b.push("mean", Op::GlobalAvgPool, &[x]);
            let network = with_random_weights(b.finish().unwrap(), 3);
            let images = random_images(network.graph().input(), 2, 9);
            let on_card = GpuImages::new(&gpu, network.graph().input(), &images, None).unwrap();
            let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap();
            assert_close(&logits[0], &cpu_logits(&network, &images), TOLERANCE, &format!("kernel {kernel:?}"));
        }
    }
}

#[test]
fn every_activation_agrees_with_the_cpu_at_its_edges_and_lets_nan_through() {
    let Some(gpu) = checked() else { return };
    let small = [0.01, -0.01, 0.04, -0.06, 0.3, -0.3, 0.7, -0.7, 1.7, -1.7, 4.0, -4.0, 5.3, -5.3];
    let edges = [0.0, -0.0, 1.0, -1.0, 2.9, -2.9, 3.1, -3.1, 6.0, 7.0, 30.0, -30.0, 90.0, -90.0, f32::NAN];
    let edges = [&small[..], &edges].concat();
    let no_lower = Pointwise::Clip { min: f32::NEG_INFINITY, max: 1.5 };
    let no_upper = Pointwise::Clip { min: -1.5, max: f32::INFINITY };
    let others = [no_lower, no_upper, Pointwise::LeakyRelu { slope: -0.3 }, Pointwise::Elu { alpha: 1.7 }];
    for function in Pointwise::EACH.into_iter().chain(others) {
        let mut b = GraphBuilder::new(Shape { c: edges.len(), h: 1, w: 1 });
        b.push("f", Op::Pointwise(function), &[0]);
        let network = with_random_weights(b.finish().unwrap(), 0);
        let on_card = GpuImages::new(&gpu, network.graph().input(), &edges, None).unwrap();
        let got = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap();
        for (&x, &got) in edges.iter().zip(&got[0]) {
            let expected = function.apply(x);
            // Cards may compute an exponential within 3 + 2|x| units of its last place (WGSL).
            let tolerance = if function == Pointwise::Exp { 4e-7 + 2.4e-7 * x.abs() } else { 2e-6 };
            let close = got == expected || (got - expected).abs() <= tolerance * expected.abs().max(1.0);
            assert!(
                if expected.is_nan() { got.is_nan() } else { close },
                "{function:?}({x}): got {got}, expected {expected}"
            );
        }
    }
}

#[test]
fn nan_in_one_image_stays_in_that_image_and_is_reported() {
    for gpu in variants() {
        let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let network = fold_batch_norm(&with_random_weights(graph, 2)).unwrap();
        let shape = network.graph().input();
        let mut images = random_images(shape, 3, 1);
        images[shape.len() + 100] = f32::NAN;
        let expected = cpu_logits(&network, &images);
        let truth = Truth { labels: Some(&[0, 0, 0]), n_classes: 10, original_logits: Some(&expected[..10].repeat(3)) };
        let on_card = GpuImages::new(&gpu, shape, &images, Some(truth)).unwrap();
        let candidates = Candidates::Repaired(&[&network]);
        let got = gpu.logits(&on_card, &candidates).unwrap();
        assert_close(&got[0], &expected, TOLERANCE, "resnet20 with a broken image");
        assert!(got[0][10].is_nan() && got[0][9].is_finite() && got[0][20].is_finite());
        assert_eq!(gpu.score(&on_card, &candidates).unwrap()[0].first_not_finite, Some(1));
    }
}

/// Logits are the image itself: counts and divergences can be worked out by hand.
#[test]
fn counts_and_divergences_are_those_worked_out_by_hand() {
    let Some(gpu) = checked() else { return };
    let mut b = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
    b.push("out", Op::Identity, &[0]);
    let network = with_random_weights(b.finish().unwrap(), 0);
    let images = [1.0, 2.0, 3.0, 5.0, 5.0, 4.0, -3.0, -2.0, -2.0, -9.0, -9.0, -9.0];
    // Predictions are 2, 0 (the first of equal ones), 1, 0.
    let labels = [2, 1, 1, 0];
    // The original is sure of nothing: the divergence is ln of the mean of exp(logit) minus the mean logit.
    let truth = Truth { labels: Some(&labels), n_classes: 3, original_logits: Some(&[0.0; 12]) };
    let on_card = GpuImages::new(&gpu, network.graph().input(), &images, Some(truth)).unwrap();
    let score = gpu.score(&on_card, &Candidates::Repaired(&[&network])).unwrap()[0];
    let by_hand = |row: &[f32]| {
        let mean = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(f64::from(x))).sum::<f64>() / 3.0;
        mean(&f64::exp).ln() - mean(&|x| x)
    };
    let expected: f64 = images.chunks(3).map(by_hand).sum();
    assert_eq!((score.n_correct, score.first_not_finite), (3, None));
    assert!((score.divergence - expected).abs() < 1e-5, "{} {expected}", score.divergence);
}

/// More images than a workgroup adds up at a time, in chunks that begin and end anywhere within blocks of 32.
#[test]
fn thousands_of_images_are_added_up_the_same_however_they_are_cut() {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 1, w: 1 });
    b.push("out", Op::Identity, &[0]);
    let network = with_random_weights(b.finish().unwrap(), 0);
    let n = 2 * 32 * 64 + 37;
    let images = random_images(network.graph().input(), n, 8);
    let labels: Vec<u16> = (0..n).map(|i| (i % 3) as u16).collect();
    let original = vec![0.0; 3 * n];
    let truth = Truth { labels: Some(&labels), n_classes: 3, original_logits: Some(&original) };
    let score = |images: &[f32], most: u64| {
        let gpu = open(&GpuOptions { checked: true, activations_max: Some(16 * most), ..GpuOptions::default() })?;
        let on_card = GpuImages::new(&gpu, network.graph().input(), images, Some(truth)).unwrap();
        Some(gpu.score(&on_card, &Candidates::Repaired(&[&network])).unwrap()[0])
    };
    let Some(whole) = score(&images, 1 << 20) else { return };
    for most in [40, 97, 2049] {
        assert_eq!(score(&images, most), Some(whole), "{most} images at a time");
    }
    let best = |row: &[f32]| (0..3).fold(0, |b, i| if row[i] > row[b] { i } else { b });
    let n_correct = images.chunks(3).zip(&labels).filter(|(row, label)| best(row) == usize::from(**label)).count();
    // The original is sure of nothing: the divergence is ln of the mean of exp(logit) minus the mean logit.
    let divergence = |row: &[f32]| {
        let mean = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(f64::from(x))).sum::<f64>() / 3.0;
        mean(&f64::exp).ln() - mean(&|x| x)
    };
    let expected: f64 = images.chunks(3).map(divergence).sum();
    assert_eq!((whole.n_correct, whole.first_not_finite), (n_correct, None));
    assert!((whole.divergence / expected - 1.0).abs() < 1e-6, "{} {expected}", whole.divergence);
    let mut broken = images.clone();
    for image in [32 * 64 + 5, 3000] {
        broken[3 * image] = f32::NAN;
    }
    for most in [97, 1 << 20] {
        assert_eq!(score(&broken, most).unwrap().first_not_finite, Some(32 * 64 + 5));
    }
}

#[test]
fn small_bindings_cut_candidates_and_images_without_changing_a_bit() {
    let (Some(whole), Some(cut)) = (
        open(&GpuOptions { activations_max: Some(64 << 20), ..GpuOptions::default() }),
        // Two images of 16 KiB each per binding, one candidate at a time.
        open(&GpuOptions { binding_max: Some(160 << 10), ..GpuOptions::default() }),
    ) else {
        return;
    };
    let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
    let network = fold_batch_norm(&with_random_weights(graph, 2)).unwrap();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let mut rng = SplitMix(3);
    let kept: Vec<KeptChannels> = (0..3).map(|_| random_kept(&groups, &mut rng)).collect();
    let compact: Vec<Network> = kept.iter().map(|k| prune(&network, &groups, k).unwrap()).collect();
    let compact: Vec<&Network> = compact.iter().collect();
    let images = random_images(network.graph().input(), 23, 1);
    let original = cpu_logits(&network, &images);
    let labels: Vec<u16> = (0..23).map(|i| i % 10).collect();
    let truth = Truth { labels: Some(&labels), n_classes: 10, original_logits: Some(&original) };
    let run = |gpu: &Gpu| {
        let on_card = GpuImages::new(gpu, network.graph().input(), &images, Some(truth)).unwrap();
        let logits = gpu.logits(&on_card, &Candidates::Repaired(&compact)).unwrap();
        (logits, gpu.score(&on_card, &Candidates::Repaired(&compact)).unwrap())
    };
    let ((logits, scores), (logits_cut, scores_cut)) = (run(&whole), run(&cut));
    assert_eq!(logits, logits_cut);
    for (i, (a, b)) in scores.iter().zip(&scores_cut).enumerate() {
        assert_eq!(a, b, "candidate {i}");
        let rows = logits[i].chunks(10).zip(&labels);
        let right =
            rows.filter(|(row, l)| (0..10).fold(0, |b, i| if row[i] > row[b] { i } else { b }) == usize::from(**l));
        assert_eq!(a.n_correct, right.count(), "candidate {i}");
    }
}

#[test]
fn candidates_of_another_topology_and_buffers_of_other_lengths_are_refused() {
    let Some(gpu) = checked() else { return };
    let build = |name| {
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        with_random_weights(graph, 1)
    };
    let (a, b) = (build("resnet20"), build("resnet32"));
    let shape = a.graph().input();
    let images = random_images(shape, 2, 1);
    let on_card = GpuImages::new(&gpu, shape, &images, None).unwrap();
    let error = gpu.logits(&on_card, &Candidates::Repaired(&[&a, &b])).unwrap_err();
    assert!(matches!(&error, GpuError::Topology { candidate: 1, .. }), "{error}");
    let error = gpu.score(&on_card, &Candidates::Repaired(&[&a])).unwrap_err();
    assert_eq!(error.to_string(), "labels: expected 2 values, got 0");
    let error = GpuImages::new(&gpu, shape, &images[1..], None).unwrap_err();
    assert!(matches!(error, GpuError::Length { what: "images", .. }), "{error}");
    let truth = Truth { labels: Some(&[1]), n_classes: 10, original_logits: None };
    let error = GpuImages::new(&gpu, shape, &images, Some(truth)).unwrap_err();
    assert_eq!(error.to_string(), "labels: expected 2 values, got 1");
    assert_eq!(gpu.logits(&on_card, &Candidates::Repaired(&[])).unwrap(), Vec::<Vec<f32>>::new());
    let other = GpuImages::new(&gpu, Shape { c: 1, h: 1, w: 1 }, &[1.0], None).unwrap();
    assert!(matches!(gpu.logits(&other, &Candidates::Repaired(&[&a])), Err(GpuError::Length { .. })));
}

#[test]
fn operations_without_a_shader_are_refused_by_the_name_of_their_node() {
    let Some(gpu) = checked() else { return };
    let shape = Shape { c: 4, h: 2, w: 2 };
    let two = || vec![Tap::nearest(1); 2];
    for (op, inputs) in [
        (Op::Mul, vec![0, 1]),
        (Op::Add, vec![0, 1]),
        (Op::ChannelShuffle { groups: 2 }, vec![0]),
        (Op::FlattenPixels, vec![0]),
        (Op::DepthToSpace { block: 2, columns_rows_depth: true }, vec![0]),
        (Op::Resize { rows: two(), cols: two() }, vec![0]),
        (Op::LayerNorm { channels: 4, eps: 1e-5 }, vec![0]),
    ] {
        let mut b = GraphBuilder::new(shape);
        let mean = b.push("mean", Op::GlobalAvgPool, &[0]);
        let odd = b.push("odd", op.clone(), &inputs);
        let flat = b.push("flat", Op::Flatten, &[odd]);
        let mean = b.push("mean.flat", Op::Flatten, &[mean]);
        b.push("join", Op::Concat, &[flat, mean]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        let on_card = GpuImages::new(&gpu, shape, &random_images(shape, 2, 1), None).unwrap();
        let error = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap_err();
        assert!(matches!(&error, GpuError::NoShader { node, .. } if node == "odd"), "{error}");
        assert!(error.to_string().contains(op.name()) && error.to_string().contains("4x2x2"), "{error}");
    }
}
