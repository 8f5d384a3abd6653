//! Gradients of training plans against differences of a slow reference in f64.
#![allow(clippy::unwrap_used, reason = "tests")]

mod operations;
mod plans;
mod reference;
mod teachers;

use reference::{Case, Target};
use secateur_kernels::{Isa, TrainLoss, TrainPlan, WeightedLoss};
use secateur_net::random::with_random_weights;
use secateur_net::{Graph, Network};

/// Numbers from about -1 to 1, the same each time.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| (i + 1).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) % 100_003;
    (0..n).map(|i| number(i * 7 + i / 3) as f32 / 50_001.5 - 1.0).collect()
}

fn pool(n_threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap()
}

/// Checks the gradient of a squared error of `graph`'s outputs, for every instruction set and batches that do and do
/// not fill the last group of images.
fn check(name: &str, graph: Graph) {
    let network = with_random_weights(graph, 5);
    for isa in Isa::available() {
        for n_images in [3, isa.lanes() + 1] {
            let images = numbers(n_images * network.graph().input().len(), 1);
            let targets = numbers(n_images * network.graph().n_classes(), 2);
            let loss = TrainLoss::SquaredError { targets: &targets };
            let target = Target::SquaredError(&targets);
            check_loss(&format!("{name}, {isa:?}, {n_images} images"), (&network, isa), &images, (loss, target));
        }
    }
}

/// Checks the gradient of `loss`, whose reference is `target`.
fn check_loss(
    context: &str,
    (network, isa): (&Network, Isa),
    images: &[f32],
    (loss, target): (TrainLoss<'_>, Target<'_>),
) {
    let n_images = images.len() / network.graph().input().len();
    let mut plan = TrainPlan::compile(network, isa, n_images + 2).unwrap();
    let report = plan.step(&pool(2), images, &[WeightedLoss { loss, weight: 1.5 }]).unwrap();
    let mut case = Case::new(network, images, target);
    let expected = 1.5 * case.loss();
    assert!((report.loss - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{context}: {} {expected}", report.loss);
    let parameters = plan.parameters().to_vec();
    let gradient = plan.values_and_gradient().1.to_vec();
    let scale = gradient.iter().fold(0.0f32, |most, g| most.max(g.abs()));
    assert!(scale > 1e-5, "{context}: the gradient is zero");
    for parameter in parameters {
        let n = parameter.range.len();
        // Some of them, of many parameters only the last: the reference is slow.
        let n_tried = if plan.parameters().len() > 20 { 0 } else { 12 };
        for i in (0..n).step_by(n.div_ceil(12)).take(n_tried).chain([n - 1]) {
            let expected = 1.5 * case.difference(&parameter.name, i);
            let got = f64::from(gradient[parameter.range.start + i]);
            let tolerance = 2e-3 * expected.abs() + 2e-4 * f64::from(scale);
            assert!((got - expected).abs() <= tolerance, "{context}: {}[{i}] {got} {expected}", parameter.name);
        }
    }
}
