//! Trainings towards another network, which is computed in the same step.

use secateur_kernels::{
    Isa, KernelError, MatchedValue, OutputMatch, Teacher, TrainLoss, TrainPlan, WeightedLoss, run_reference,
};
use secateur_net::random::with_random_weights;
use secateur_net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape};

use crate::reference::{Case, Target, TeacherValues};
use crate::{numbers, pool};

const IMAGE: Shape = Shape { c: 3, h: 5, w: 6 };
/// The residual addition, which a plan fuses with the convolution in front and the rectifier behind, and that
/// rectifier.
const SUM: usize = 6;
const RECTIFIED: usize = 7;

/// A stem, a residual block and a classifier, all channel counts free.
fn network([stem, hidden]: [usize; 2], with_norm: bool, seed: u64) -> Network {
    let mut b = GraphBuilder::new(IMAGE);
    let conv = b.push("stem", Op::Conv2d(Conv2d::square(3, stem, 3, 1, 1)), &[0]);
    let norm = if with_norm { Op::BatchNorm { channels: stem, eps: 1e-5 } } else { Op::Identity };
    let norm = b.push("norm", norm, &[conv]);
    let first = b.push("first", Op::Conv2d(Conv2d::square(stem, hidden, 3, 1, 1)), &[norm]);
    let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[first]);
    let second = b.push("second", Op::Conv2d(Conv2d::square(hidden, stem, 3, 1, 1)), &[relu]);
    let sum = b.push("sum", Op::Add, &[second, norm]);
    let out = b.push("out", Op::Pointwise(Pointwise::Relu), &[sum]);
    assert_eq!([sum, out], [SUM, RECTIFIED]);
    let mean = b.push("mean", Op::GlobalAvgPool, &[out]);
    b.push("classify", Op::Linear { in_features: stem, out_features: 4, bias: true }, &[mean]);
    with_random_weights(b.finish().unwrap(), seed)
}

const CHANNELS: [usize; 5] = [0, 2, 3, 6, 7];

fn matched() -> MatchedValue {
    MatchedValue { nodes: [SUM; 2], channels: CHANNELS.to_vec(), weight: 1.0 }
}

/// What the teacher makes of `images`, by the plain loops.
fn teacher_values(teacher: &Network, images: &[f32]) -> TeacherValues {
    let (mut outputs, mut kept) = (Vec::new(), Vec::new());
    for image in images.chunks_exact(IMAGE.len()) {
        let values = run_reference(teacher, image).unwrap();
        outputs.extend_from_slice(values.last().unwrap());
        let n_channels = teacher.graph().shape(RECTIFIED).c;
        let pixels = values[RECTIFIED].chunks_exact(n_channels);
        kept.extend(pixels.flat_map(|pixel| CHANNELS.map(|c| pixel[c])));
    }
    TeacherValues { outputs, nodes: vec![(RECTIFIED, kept)] }
}

#[test]
fn gradients_towards_a_teacher_are_differences_of_the_loss() {
    let teacher_network = network([8, 5], false, 11);
    for with_norm in [false, true] {
        let student = network([CHANNELS.len(), 3], with_norm, 12);
        for isa in Isa::available() {
            for n_images in [3, isa.lanes() + 2] {
                let images = numbers(n_images * IMAGE.len(), 5);
                let outputs = OutputMatch::SquaredError { parts: vec![(1, 1.0), (3, 1.0)] };
                let teacher = Teacher { network: &teacher_network, outputs, values: vec![matched()] };
                let mut plan = TrainPlan::compile_with_teacher(&student, &teacher, isa, n_images + 1).unwrap();
                let report = plan.step(&pool(2), &images, &[]).unwrap();
                let values = teacher_values(&teacher_network, &images);
                let mut case = Case::new(&student, &images, Target::Values(&values));
                let expected = case.loss();
                assert!((report.loss - expected).abs() < 1e-4 * expected, "{isa:?}: {} {expected}", report.loss);
                let parameters = plan.parameters().to_vec();
                let gradient = plan.values_and_gradient().1.to_vec();
                let scale = gradient.iter().fold(0.0f32, |most, g| most.max(g.abs()));
                for parameter in parameters {
                    let n = parameter.range.len();
                    for i in (0..n).step_by(n.div_ceil(6)) {
                        let expected = case.difference(&parameter.name, i);
                        let got = f64::from(gradient[parameter.range.start + i]);
                        let tolerance = 2e-3 * expected.abs() + 2e-4 * f64::from(scale);
                        let what = format!("{isa:?}, {n_images} images, {}[{i}]", parameter.name);
                        assert!((got - expected).abs() <= tolerance, "{what}: {got} {expected}");
                    }
                }
            }
        }
    }
}

/// The same divergence, once from a teacher in the plan and once from its outputs, which a caller brings.
#[test]
fn a_teacher_in_the_plan_is_as_good_as_its_outputs() {
    let (teacher_network, student) = (network([8, 5], false, 11), network([5, 3], false, 12));
    let images = numbers(20 * IMAGE.len(), 7);
    let outputs = teacher_values(&teacher_network, &images).outputs;
    let teacher = Teacher {
        network: &teacher_network,
        outputs: OutputMatch::Divergence { temperature: 2.0, weight: 0.7 },
        values: Vec::new(),
    };
    let labels: Vec<u16> = (0..20).map(|i| i % 4).collect();
    let cross_entropy = WeightedLoss { loss: TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.0 }, weight: 0.3 };
    let divergence = WeightedLoss { loss: TrainLoss::Divergence { teacher: &outputs, temperature: 2.0 }, weight: 0.7 };
    let mut inside = TrainPlan::compile_with_teacher(&student, &teacher, Isa::detect(), 20).unwrap();
    let mut outside = TrainPlan::compile(&student, Isa::detect(), 20).unwrap();
    let one = inside.step(&pool(2), &images, &[cross_entropy]).unwrap();
    let other = outside.step(&pool(2), &images, &[cross_entropy, divergence]).unwrap();
    assert!((one.loss - other.loss).abs() < 1e-5 && one.n_correct == other.n_correct, "{one:?} {other:?}");
    let pairs = inside.values_and_gradient().1.iter().zip(outside.values_and_gradient().1);
    pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} {b}"));
}

#[test]
fn what_a_plan_takes_is_known_before_and_what_cannot_be_matched_is_named() {
    let (teacher_network, student) = (network([8, 5], false, 11), network([5, 3], true, 12));
    let teacher = |values: Vec<MatchedValue>| Teacher {
        network: &teacher_network,
        outputs: OutputMatch::Divergence { temperature: 1.0, weight: 1.0 },
        values,
    };
    let isa = Isa::detect();
    let plan = TrainPlan::compile_with_teacher(&student, &teacher(vec![matched()]), isa, 40).unwrap();
    let needed = TrainPlan::bytes_needed(&student, Some(&teacher(vec![matched()])), isa, [40, 3]).unwrap();
    assert_eq!(needed, plan.bytes(3));
    // The rectifier is part of the sum; a hidden value has another number of channels.
    for (nodes, name) in [([RECTIFIED; 2], "out"), ([3, 3], "first")] {
        let wrong = teacher(vec![MatchedValue { nodes, ..matched() }]);
        let error = TrainPlan::compile_with_teacher(&student, &wrong, isa, 4).unwrap_err();
        assert_eq!(error, KernelError::NoMatch { node: name.into() });
    }
    let other = network([8, 5], false, 1);
    let narrow =
        Teacher { network: &other, outputs: OutputMatch::SquaredError { parts: vec![(3, 1.0)] }, values: Vec::new() };
    let error = TrainPlan::compile_with_teacher(&student, &narrow, isa, 4).unwrap_err().to_string();
    assert!(error.contains("stretches of the outputs: expected 4 values, got 3"), "{error}");
}
