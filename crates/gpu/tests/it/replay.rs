//! Candidates as runs make them, pruned and refitted on real images: the card counts as the CPU does.

use secateur_formats::{Split, read_cifar10};
use secateur_gpu::{Candidates, GpuImages, GpuOptions, Truth};
use secateur_kernels::{Arithmetic, Effort, Plan, RefitData, SequentialRefit};
use secateur_net::random::SplitMix;
use secateur_net::{ChannelGroups, KeptChannels, Network, Protocol};

use crate::adapter::open;
use crate::golden::{images, load, roots};
use crate::networks::pool;

/// Images of the refit behind a walk.
const N_REFIT: usize = 128;

/// A share between 0.2 and 0.8 of every prunable group, drawn for each.
fn random_shares(groups: &ChannelGroups, rng: &mut SplitMix) -> KeptChannels {
    let mut kept = KeptChannels::all(groups);
    for group in groups.prunable() {
        let n = groups.group(group).n_channels;
        let n_kept = (n * (20 + rng.below(61))).div_ceil(100);
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
        order.truncate(n_kept);
        order.sort_unstable();
        kept.set(group, order);
    }
    kept
}

/// Largest difference of the counts of `n` candidates on `n_images` images.
fn largest_difference(name: &str, n: usize, n_images: usize) -> Option<usize> {
    let (models, data) = roots()?;
    let gpu = open(&GpuOptions::default())?;
    let (pool, network) = (pool(), load(&models, name));
    let train = read_cifar10(&data, Split::Train).unwrap();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let refit_images = images(&train, 0..N_REFIT);
    let data = RefitData::new(&pool, &network, &groups, &refit_images, Effort::Quick).unwrap();
    let refit = SequentialRefit::new(&pool, &network, &groups, &data);
    let mut rng = SplitMix(11);
    let repaired = |_| refit.run(&random_shares(&groups, &mut rng), false).unwrap().0;
    let candidates: Vec<Network> = (0..n).map(repaired).collect();
    let scored = images(&train, N_REFIT..N_REFIT + n_images);
    let labels = &train.labels().unwrap()[N_REFIT..N_REFIT + n_images];
    let truth = Truth { labels, n_classes: 10, original_logits: None };
    let on_card = GpuImages::new(&gpu, network.graph().input(), &scored, Some(truth)).unwrap();
    let counts = gpu.score(&on_card, &Candidates::Repaired(&candidates.iter().collect::<Vec<_>>())).unwrap();
    let difference = |(network, score): (&Network, &secateur_gpu::GpuScore)| {
        let expected =
            Plan::compile(network, Arithmetic::default()).unwrap().n_correct(&pool, &scored, labels).unwrap();
        // Refitted candidates are no better than chance only if something is wrong.
        assert!(expected > n_images / 5, "{name}: {expected} of {n_images}");
        expected.abs_diff(score.n_correct)
    };
    let worst = candidates.iter().zip(&counts).map(difference).max().unwrap();
    eprintln!("{name} on {}: counts of {n} candidates on {n_images} images differ by at most {worst}", gpu.name());
    Some(worst)
}

#[test]
fn candidates_of_a_run_are_counted_as_the_cpu_counts_them() {
    // 2 of 1,000.
    assert!(largest_difference("resnet20", 4, 250).is_none_or(|worst| 250 * 2 >= 1000 * worst));
}

/// Minutes on software Vulkan, so only for the networks named in SECATEUR_GPU_ALL.
#[test]
fn many_candidates_are_counted_as_the_cpu_counts_them_where_asked_for() {
    let names = std::env::var("SECATEUR_GPU_ALL").unwrap_or_default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        assert!(largest_difference(name, 24, 1000).is_none_or(|worst| worst <= 2), "{name}");
    }
}
