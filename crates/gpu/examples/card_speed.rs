//! Candidates per second on the card, and each layer's share of its peak.
//!
//! `cargo run --release -p secateur-gpu --example card_speed -- ARCH CANDIDATES IMAGES KEEP [PEAK_TFLOPS]`, for example
//! `resnet56 64 1000 0.5 67` on an NVIDIA H200. Weights and images are random: speed does not depend on them.

#![expect(clippy::print_stdout, reason = "a program that prints what it measures")]

use std::error::Error;

use secateur_gpu::{Candidates, Gpu, GpuImages, GpuOptions, Truth};
use secateur_net::random::{SplitMix, with_random_weights};
use secateur_net::{ChannelGroups, KeptChannels, Network, Protocol, Shape, arch, fold_batch_norm, prune};

const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, n_candidates, n_images, keep, peak @ ..] = &arguments[..] else {
        return Err("usage: card_speed ARCH CANDIDATES IMAGES KEEP [PEAK_TFLOPS]".into());
    };
    let (n_candidates, n_images, keep): (usize, usize, f64) = (n_candidates.parse()?, n_images.parse()?, keep.parse()?);
    let peak = peak.first().map(|peak| peak.parse::<f64>()).transpose()?;
    let gpu = Gpu::open(&GpuOptions::default())?;
    let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10)?;
    let network = fold_batch_norm(&with_random_weights(graph, 1))?;
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let mut rng = SplitMix(7);
    let kept: Vec<KeptChannels> = (0..n_candidates).map(|_| keep_share(&groups, keep, &mut rng)).collect();
    let compact: Vec<Network> = kept.iter().map(|k| prune(&network, &groups, k)).collect::<Result<_, _>>()?;
    let shape = network.graph().input();
    let images: Vec<f32> = (0..n_images * shape.len()).map(|_| rng.signed()).collect();
    let truth = Truth { labels: &vec![0; n_images], n_classes: 10, original_logits: None };
    let images = GpuImages::new(&gpu, shape, &images, Some(truth))?;
    println!("{}: {n_candidates} candidates of {name}, {keep} of the inner channels, {n_images} images", gpu.name());
    let own: Vec<&Network> = compact.iter().collect();
    let masked = Candidates::Masked { network: &network, groups: &groups, kept: &kept };
    for (what, candidates) in [("own weights", Candidates::Repaired(&own)), ("masks", masked)] {
        let [best, first] = best_and_first(&gpu.time_scoring(&images, &candidates, REPEATS)?);
        let rate = n_candidates as f64 / best;
        println!("{what:12} {rate:9.2} candidates/s (best of {REPEATS}: {best:.4} s; first: {first:.4} s)");
    }
    let [best, _] = best_and_first(&gpu.time_scoring(&images, &Candidates::Repaired(&[&network]), REPEATS)?);
    println!("one dense    {:9.0} images/s ({best:.4} s)", n_images as f64 / best);
    let Some(timed) = gpu.time_dispatches(&images, &Candidates::Repaired(&own), REPEATS)? else {
        println!("the adapter has no timestamps: no times of layers");
        return Ok(());
    };
    println!("dispatches on {} candidates x {} images:", timed.n_candidates, timed.n_images);
    for d in &timed.dispatches {
        let gflops = 2e-9 * d.macs as f64 / d.seconds.max(f64::MIN_POSITIVE);
        let share = |peak: f64| format!(" {:6.2} % of peak", 100.0 * d.share_of_peak(peak * 1e12));
        let share = peak.map_or_else(String::new, share);
        println!("{:28} {:12} {:10.1} us {gflops:10.1} GFLOP/s{share}", d.node, d.kernel, 1e6 * d.seconds);
    }
    Ok(())
}

fn best_and_first(seconds: &[f64]) -> [f64; 2] {
    [seconds.iter().copied().fold(f64::INFINITY, f64::min), seconds.first().copied().unwrap_or_default()]
}

/// The same share of every prunable group, drawn at random.
fn keep_share(groups: &ChannelGroups, share: f64, rng: &mut SplitMix) -> KeptChannels {
    let mut kept = KeptChannels::all(groups);
    for group in groups.prunable() {
        let n = groups.group(group).n_channels;
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
        order.truncate(((n as f64 * share).round() as usize).clamp(1, n));
        order.sort_unstable();
        kept.set(group, order);
    }
    kept
}
