//! Whole networks, losses, and what plans promise beside gradients.

use secateur_kernels::{Isa, KernelError, StepReport, TrainLoss, TrainPlan, WeightedLoss};
use secateur_net::random::with_random_weights;
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Shape, arch, fold_batch_norm};

use crate::reference::Target;
use crate::{check_loss, numbers, pool};

const IMAGE: Shape = Shape { c: 3, h: 8, w: 8 };

fn network(name: &str) -> Network {
    with_random_weights(arch::build(name, IMAGE, 10).unwrap(), 3)
}

#[test]
fn losses_have_the_gradients_of_their_definitions() {
    let mut builder = GraphBuilder::new(IMAGE);
    let conv = builder.push("conv", Op::Conv2d(Conv2d::square(3, 6, 3, 2, 1)), &[0]);
    let mean = builder.push("mean", Op::GlobalAvgPool, &[conv]);
    let classify = Op::Linear { in_features: 6, out_features: 5, bias: true };
    let classify = builder.push("classify", classify, &[mean]);
    // Losses are of what a softmax at the end reads.
    builder.push("softmax", Op::Softmax, &[classify]);
    let network = with_random_weights(builder.finish().unwrap(), 9);
    let images = numbers(4 * IMAGE.len(), 3);
    let teacher: Vec<f32> = numbers(20, 4).iter().map(|x| 3.0 * x).collect();
    let labels = [4, 0, 2, 4];
    for (loss, target) in [
        (TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.0 }, Target::CrossEntropy(&labels, 0.0)),
        (TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.1 }, Target::CrossEntropy(&labels, f64::from(0.1f32))),
        (TrainLoss::Divergence { teacher: &teacher, temperature: 1.0 }, Target::Divergence(&teacher, 1.0)),
        (TrainLoss::Divergence { teacher: &teacher, temperature: 4.0 }, Target::Divergence(&teacher, 4.0)),
    ] {
        check_loss(&format!("{loss:?}"), (&network, Isa::Portable), &images, (loss, target));
    }
}

#[test]
fn whole_networks_have_the_gradients_of_the_reference() {
    let dense = network("resnet20");
    for (what, network) in [("with BatchNorm", dense.clone()), ("folded", fold_batch_norm(&dense).unwrap())] {
        let images = numbers(3 * IMAGE.len(), 6);
        let labels = [1, 2, 3];
        let loss = TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.0 };
        let target = Target::CrossEntropy(&labels, 0.0);
        check_loss(what, (&network, Isa::detect()), &images, (loss, target));
    }
}

fn steps(network: &Network, isa: Isa, n_threads: usize, n_steps: usize) -> (Vec<StepReport>, Vec<f32>, Network) {
    let n_images = 37;
    let (images, pool) = (numbers(n_images * IMAGE.len(), 8), pool(n_threads));
    let labels: Vec<u16> = (0..n_images as u16).map(|i| i * 7 % 10).collect();
    let losses = [WeightedLoss { loss: TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.0 }, weight: 1.0 }];
    let mut plan = TrainPlan::compile(network, isa, n_images).unwrap();
    let mut reports = Vec::new();
    for _ in 0..n_steps {
        reports.push(plan.step(&pool, &images, &losses).unwrap());
        let (values, gradient) = plan.values_and_gradient();
        values.iter_mut().zip(gradient).for_each(|(value, g)| *value -= 0.05 * g);
    }
    (reports, plan.values().to_vec(), plan.network().unwrap())
}

#[test]
fn steps_do_not_depend_on_the_number_of_threads() {
    for isa in Isa::available() {
        let one = steps(&network("resnet20"), isa, 1, 3);
        for n_threads in [2, 5] {
            assert!(steps(&network("resnet20"), isa, n_threads, 3) == one, "{isa:?}, {n_threads} threads");
        }
    }
}

#[test]
fn a_few_images_are_learned_by_heart() {
    let (reports, ..) = steps(&network("resnet20"), Isa::detect(), 2, 60);
    let [first, last] = [reports[0], reports[59]];
    assert!(last.loss < 0.2 * first.loss && last.n_correct >= 35, "{first:?} {last:?}");
    // Without BatchNorm, and with a bias everywhere.
    let folded = fold_batch_norm(&network("resnet20")).unwrap();
    let (reports, ..) = steps(&folded, Isa::detect(), 2, 60);
    assert!(reports[59].loss < 0.9 * reports[0].loss, "{:?} {:?}", reports[0], reports[59]);
}

#[test]
fn a_batch_after_a_larger_one_is_as_in_a_plan_of_its_own() {
    let network = network("resnet20");
    let images = numbers(40 * IMAGE.len(), 8);
    let labels = [3; 40];
    let gradient = |plan: &mut TrainPlan, n: usize| {
        let losses =
            [WeightedLoss { loss: TrainLoss::CrossEntropy { labels: &labels[..n], smoothing: 0.1 }, weight: 2.0 }];
        let report = plan.step(&pool(2), &images[..n * IMAGE.len()], &losses).unwrap();
        (report, plan.values_and_gradient().1.to_vec())
    };
    let mut plan = TrainPlan::compile(&network, Isa::detect(), 40).unwrap();
    let mut small = TrainPlan::compile(&network, Isa::detect(), 40).unwrap();
    gradient(&mut plan, 40);
    let (large_then_small, alone) = (gradient(&mut plan, 5), gradient(&mut small, 5));
    assert!((large_then_small.0.loss - alone.0.loss).abs() < 1e-5);
    let pairs = large_then_small.1.iter().zip(&alone.1);
    assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-4 + 1e-3 * b.abs()), "running statistics shift sums only");
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let compile = |build: &dyn Fn(&mut GraphBuilder)| {
        let mut builder = GraphBuilder::new(IMAGE);
        build(&mut builder);
        TrainPlan::compile(&with_random_weights(builder.finish().unwrap(), 1), Isa::Portable, 4)
    };
    let conv = |builder: &mut GraphBuilder| builder.push("conv", Op::Conv2d(Conv2d::square(3, 4, 1, 1, 0)), &[0]);
    let error = compile(&|builder| {
        let x = conv(builder);
        builder.push("odd", Op::ChannelMax, &[x]);
    });
    assert_eq!(error.unwrap_err(), KernelError::NoGradient { node: "odd".into(), op: "ChannelMax" });
    let error = compile(&|builder| {
        builder.push("pool", Op::GlobalAvgPool, &[0]);
    });
    assert_eq!(error.unwrap_err(), KernelError::NothingToTrain { n_nodes: 2 });
    // In front of the first parameter nothing needs a gradient.
    let plan = compile(&|builder| {
        let most = builder.push("odd", Op::ChannelMax, &[0]);
        builder.push("conv", Op::Conv2d(Conv2d::square(1, 4, 1, 1, 0)), &[most]);
    });
    assert!(plan.is_ok());
}

#[test]
fn batches_and_targets_that_do_not_fit_are_named() {
    let mut plan = TrainPlan::compile(&network("resnet20"), Isa::Portable, 2).unwrap();
    let images = numbers(3 * IMAGE.len(), 1);
    let mut step = |n: usize, loss: TrainLoss<'_>| {
        plan.step(&pool(1), &images[..n * IMAGE.len()], &[WeightedLoss { loss, weight: 1.0 }]).unwrap_err().to_string()
    };
    let cross_entropy = |labels: &'static [u16], smoothing: f32| TrainLoss::CrossEntropy { labels, smoothing };
    let nan = vec![f32::NAN; 20];
    for (error, part) in [
        (step(3, cross_entropy(&[0, 0, 0], 0.0)), "takes from 1 to 2 images, got 3"),
        (step(0, cross_entropy(&[], 0.0)), "takes from 1 to 2 images, got 0"),
        (step(2, cross_entropy(&[0], 0.0)), "labels: expected 2, one per image, got 1"),
        (step(2, cross_entropy(&[0, 10], 0.0)), "image 1: its label is 10, the network has 10 outputs"),
        (step(2, cross_entropy(&[0, 1], 1.0)), "label smoothing is 1, expected from 0 to below 1"),
        (step(2, TrainLoss::Divergence { teacher: &nan, temperature: 1.0 }), "the teacher's outputs met NaN"),
        (step(2, TrainLoss::Divergence { teacher: &nan[..5], temperature: 1.0 }), "expected 20 values, got 5"),
        (
            step(2, TrainLoss::Divergence { teacher: &[0.0; 20], temperature: 0.0 }),
            "temperature is 0, expected above 0",
        ),
        (step(2, TrainLoss::SquaredError { targets: &[0.0; 30] }), "expected 20 values, got 30"),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let error = plan.step(&pool(1), &images[..5], &[]).unwrap_err().to_string();
    assert!(error.contains("not a multiple of the 192 values"), "{error}");
}
