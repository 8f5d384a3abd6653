//! Timing dispatches and whole scorings.

use std::time::Duration;

use secateur_gpu::{Candidates, GpuImages, Repeats, Truth};
use secateur_net::random::with_random_weights;
use secateur_net::{ChannelGroups, Cost, CostModel, Protocol, Shape, arch, fold_batch_norm};

use crate::adapter::checked;
use crate::networks::random_images;

#[test]
fn every_dispatch_is_timed_and_the_macs_are_those_of_the_networks() {
    let Some(gpu) = checked() else { return };
    let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
    let network = fold_batch_norm(&with_random_weights(graph, 2)).unwrap();
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let macs = CostModel::new(network.graph(), &groups).count(Cost::Macs, &groups.full_widths());
    let images = random_images(network.graph().input(), 5, 1);
    let truth = Truth { labels: Some(&[0; 5]), n_classes: 10, original_logits: None };
    let on_card = GpuImages::new(&gpu, network.graph().input(), &images, Some(truth)).unwrap();
    let both = [&network, &network];
    let seconds = gpu.time_scoring(&on_card, &Candidates::Repaired(&both), 2).unwrap();
    assert!(seconds.len() == 2 && seconds.iter().all(|s| *s > 0.0), "{seconds:?}");
    let repeats = Repeats { n: 2, at_least: Duration::ZERO };
    let timed = gpu.time_dispatches(&on_card, &Candidates::Repaired(&both), repeats).unwrap();
    let Some(timed) = timed else {
        assert!(!gpu.has_timestamps());
        return;
    };
    let n = (timed.n_candidates * timed.n_images) as u64;
    assert_eq!(timed.dispatches.iter().map(|d| d.macs).sum::<u64>(), macs * n);
    // 20 layers with weights; both shortcuts are a Slice and a Pad; the mean before the classifier.
    let of = |kernel: &str| timed.dispatches.iter().filter(|d| d.kernel == kernel).count();
    assert_eq!([of("Dense"), of("Shift"), of("AveragePool"), timed.dispatches.len()], [20, 4, 1, 25]);
    assert!(timed.dispatches.iter().all(|d| d.seconds.is_finite()), "{timed:?}");
    let dense = timed.dispatches.iter().find(|d| d.kernel == "Dense").unwrap();
    assert!((dense.share_of_peak(2.0 * dense.macs as f64 / dense.seconds) - 1.0).abs() < 1e-9);
}
