//! Layers with more inputs than normal equations can hold.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_kernels::{
    Effort, RIDGE, Reader, RefitData, SequentialRefit, calibrate, eliminate, run_reference, wide_nodes,
};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Network, Op, Pointwise, Protocol, Shape};

const CHANNELS: usize = 7;
const PIXELS: usize = 900;

fn pool(n: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()
}

/// A convolution to 7 maps of 30x30 pixels, flattened: 6,300 inputs of `wide`, behind which stands one more Linear
/// node.
fn network() -> Network {
    let mut b = GraphBuilder::new(Shape { c: 2, h: 30, w: 30 });
    let conv = b.push("conv", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(2, CHANNELS, 3, 1, 1) }), &[0]);
    let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[conv]);
    let flat = b.push("flat", Op::Flatten, &[relu]);
    let wide = Op::Linear { in_features: CHANNELS * PIXELS, out_features: 4, bias: true };
    let wide = b.push("wide", wide, &[flat]);
    b.push("last", Op::Linear { in_features: 4, out_features: 3, bias: true }, &[wide]);
    with_random_weights(b.finish().unwrap(), 11)
}

/// Images that are all alike in part, as real ones are.
fn images(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix(seed);
    let image = |rng: &mut SplitMix| {
        let (level, slope) = (rng.signed(), rng.signed());
        (0..2 * PIXELS).map(|i| level + slope * (i % 60) as f32 / 60.0 + 0.3 * rng.signed()).collect::<Vec<f32>>()
    };
    (0..n).flat_map(|_| image(&mut rng)).collect()
}

/// Outputs of a node, one row an image.
fn rows(net: &Network, node: usize, images: &[f32]) -> Vec<Vec<f64>> {
    let of_image = |image| run_reference(net, image).unwrap().swap_remove(node).iter().map(|&v| f64::from(v)).collect();
    images.chunks(2 * PIXELS).map(of_image).collect()
}

#[test]
fn a_wide_layer_is_refitted_to_the_minimum_of_its_penalised_error() {
    let (net, images) = (network(), images(40, 3));
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    assert_eq!(wide_nodes(net.graph(), &groups), [4].into());
    let group = groups.prunable()[0];
    let mut kept = KeptChannels::all(&groups);
    kept.set(group, vec![0, 2, 3, 6]);
    let refit = |n_threads| {
        let pool = pool(n_threads);
        let data = RefitData::new(&pool, &net, &groups, &images, Effort::Thorough).unwrap();
        SequentialRefit::new(&pool, &net, &groups, &data).run(&kept, true).unwrap()
    };
    let (compact, chosen) = refit(1);
    assert_eq!(chosen.group(group), [0, 2, 3, 6], "a wide reader's channels are not chosen anew");
    assert_eq!(refit(3).0, compact, "any number of threads gives the same bits");

    let (xs, ys) = (rows(&compact, 3, &images), rows(&net, 4, &images));
    let n_columns = 4 * PIXELS;
    let ridge = RIDGE * (xs.iter().flatten().map(|x| x * x).sum::<f64>() + 40.0) / (n_columns + 1) as f64;
    let (weight, bias) = (compact.parameter("wide", "weight").data(), compact.parameter("wide", "bias").data());
    let before = net.parameter("wide", "weight").data();
    // A flattened map is channel by channel.
    let before =
        |o: usize, i: usize| f64::from(before[o * CHANNELS * PIXELS + [0, 2, 3, 6][i / PIXELS] * PIXELS + i % PIXELS]);
    for o in 0..4 {
        let weights: Vec<f64> = weight[o * n_columns..][..n_columns].iter().map(|&w| f64::from(w)).collect();
        let fit = |x: &[f64]| x.iter().zip(&weights).map(|(x, w)| x * w).sum::<f64>() + f64::from(bias[o]);
        let left: Vec<f64> = xs.iter().zip(&ys).map(|(x, y)| y[o] - fit(x)).collect();
        let scale = ys.iter().map(|y| y[o].abs()).sum::<f64>();
        assert!(left.iter().sum::<f64>().abs() < 1e-4 * scale, "gradient of the intercept");
        for i in 0..n_columns {
            let gradient =
                xs.iter().zip(&left).map(|(x, l)| x[i] * l).sum::<f64>() - ridge * (weights[i] - before(o, i));
            assert!(gradient.abs() < 1e-4 * scale, "output {o}, input {i}: {gradient} of {scale}");
        }
    }
}

#[test]
fn a_refitted_wide_layer_is_closer_to_the_original_on_images_that_it_has_not_seen() {
    let net = network();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    kept.set(groups.prunable()[0], vec![0, 1, 3, 4, 6]);
    let pool = pool(2);
    let data = RefitData::new(&pool, &net, &groups, &images(200, 5), Effort::Thorough).unwrap();
    let (refitted, _) = SequentialRefit::new(&pool, &net, &groups, &data).run(&kept, false).unwrap();
    let cut = secateur_net::prune(&net, &groups, &kept).unwrap();
    let unseen = images(50, 99);
    let expected = rows(&net, 4, &unseen);
    let error = |other: &Network| -> f64 {
        let got = rows(other, 4, &unseen);
        got.iter().flatten().zip(expected.iter().flatten()).map(|(g, e)| (g - e).powi(2)).sum()
    };
    assert!(error(&refitted) < 0.1 * error(&cut), "{} of {}", error(&refitted), error(&cut));
}

#[test]
fn channels_in_front_of_a_wide_layer_are_ranked_by_what_is_lost_when_the_others_are_scaled() {
    let (mut net, images) = (network(), images(40, 3));
    // Nothing of channel 4 is read.
    let mut weight = net.parameter("wide", "weight").clone();
    weight.data_mut().chunks_exact_mut(PIXELS).skip(4).step_by(CHANNELS).for_each(|w| w.fill(0.0));
    net.set_parameter("wide", "weight", weight).unwrap();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let calibration = calibrate(&pool(2), &net, &groups, &images, |_| ()).unwrap();
    assert!(calibration.equations.iter().all(|e| e.map.node != 4), "the wide layer has no equations");
    let [contributions] = &calibration.contributions[..] else { panic!("{calibration:?}") };
    let reader = Reader::of_contributions(contributions, groups.prunable()[0], CHANNELS);
    let path = eliminate(&pool(1), &[reader], CHANNELS, 1, None).unwrap();
    assert_eq!(path.removed[0], 4);

    // What every channel adds to every output of every image, less its mean over images.
    let xs = rows(&net, 3, &images);
    let weight = net.parameter("wide", "weight").data();
    let mut parts = vec![vec![0.0; 40 * 4]; CHANNELS];
    for (c, part) in parts.iter_mut().enumerate() {
        for o in 0..4 {
            let add = |x: &[f64]| -> f64 {
                let range = c * PIXELS..(c + 1) * PIXELS;
                x[range.clone()]
                    .iter()
                    .zip(&weight[o * CHANNELS * PIXELS..][range])
                    .map(|(x, &w)| x * f64::from(w))
                    .sum()
            };
            let of_images: Vec<f64> = xs.iter().map(|x| add(x)).collect();
            let mean = of_images.iter().sum::<f64>() / 40.0;
            of_images.iter().enumerate().for_each(|(i, z)| part[4 * i + o] = z - mean);
        }
    }
    let gram = |i: usize, j: usize| parts[i].iter().zip(&parts[j]).map(|(a, b)| a * b).sum::<f64>();
    let energy = (0..160).map(|i| parts.iter().map(|p| p[i]).sum::<f64>().powi(2)).sum::<f64>();
    let d = CHANNELS + 1;
    for (i, j) in (0..CHANNELS).flat_map(|i| (0..CHANNELS).map(move |j| (i, j))) {
        let got = contributions.equations.gram[i * d + j];
        assert!((got - gram(i, j)).abs() < 1e-5 * energy, "{i}, {j}: {got} {}", gram(i, j));
    }
    assert!((contributions.equations.target_energy / energy - 1.0).abs() < 1e-5);
}

#[test]
fn images_that_overflow_a_wide_layer_are_an_error() {
    let net = network();
    let groups = ChannelGroups::derive(net.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    kept.set(groups.prunable()[0], vec![0]);
    let mut images = images(20, 3);
    images[70] = 3e38;
    let refit = || -> Result<_, _> {
        let pool = pool(1);
        let data = RefitData::new(&pool, &net, &groups, &images, Effort::Quick)?;
        SequentialRefit::new(&pool, &net, &groups, &data).run(&kept, false)
    };
    assert!(refit().unwrap_err().to_string().contains("NaN or infinity"));
}
