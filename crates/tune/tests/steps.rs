//! Optimisers against PyTorch, alone and on a whole network.
#![allow(clippy::unwrap_used, reason = "tests")]

use secateur_kernels::{Isa, ParameterKind, TrainLoss, TrainPlan, TrainedParameter, WeightedLoss};
use secateur_net::random::with_random_weights;
use secateur_net::{Network, Shape, Tensor, arch};
use secateur_tune::{Adam, AdamSettings, Sgd, SgdSettings, TuneError};
use serde_json::Value;

fn parameter(name: &str, kind: ParameterKind, range: std::ops::Range<usize>) -> TrainedParameter {
    TrainedParameter { name: name.into(), kind, range }
}

/// A bias between two weights.
fn parameters() -> Vec<TrainedParameter> {
    vec![
        parameter("a.weight", ParameterKind::Weight, 0..1),
        parameter("a.bias", ParameterKind::Bias, 1..2),
        parameter("b.weight", ParameterKind::Weight, 2..3),
    ]
}

const START: [f32; 3] = [1.0, -2.0, 0.5];
const GRADIENTS: [[f32; 3]; 3] = [[0.5, 1.0, -2.0], [-1.0, 0.25, 0.5], [0.125, -0.5, 1.0]];

fn close(got: &[f32], expected: [f64; 3]) {
    let is_close = got.iter().zip(expected).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6);
    assert!(is_close, "{got:?}, not {expected:?}");
}

/// Three steps at rates 0.1, 0.05 and 0.2, computed with PyTorch's `SGD` and `AdamW` in f64 (golden/optimisers.py).
#[test]
fn optimisers_move_as_those_of_pytorch() {
    let rates = [0.1, 0.05, 0.2];
    for (nesterov, expected) in SGD {
        let settings = SgdSettings { momentum: 0.9, nesterov, weight_decay: 0.1 };
        let (mut sgd, mut values) = (Sgd::new(&parameters(), settings).unwrap(), START);
        GRADIENTS.iter().zip(rates).for_each(|(gradient, rate)| sgd.step(&mut values, gradient, rate));
        close(&values, expected);
    }
    let settings = AdamSettings { betas: [0.8, 0.95], eps: 1e-6, weight_decay: 0.1 };
    let (mut adam, mut values) = (Adam::new(&parameters(), settings).unwrap(), START);
    GRADIENTS.iter().zip(rates).for_each(|(gradient, rate)| adam.step(&mut values, gradient, rate));
    close(&values, ADAM);
}

#[test]
fn settings_out_of_range_are_named() {
    let error = Sgd::new(&[], SgdSettings { momentum: 1.0, ..SgdSettings::default() }).unwrap_err();
    assert_eq!(error.to_string(), "momentum is 1, expected from 0 to below 1");
    let error = Adam::new(&[], AdamSettings { eps: 0.0, ..AdamSettings::default() }).unwrap_err();
    assert!(matches!(error, TuneError::Setting { name: "eps of Adam", .. }));
}

/// As `numbers` in golden/steps.py.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i + 1) * 2_654_435_761 + seed * 40_503) % 100_003;
    (0..n).map(|i| number(i * 7 + i / 3) as f32 / 50_001.5 - 1.0).collect()
}

const IMAGE: Shape = Shape { c: 3, h: 8, w: 8 };

/// ResNet-20 with the weights of golden/steps.py.
fn resnet20() -> Network {
    let mut network = with_random_weights(arch::build("resnet20", IMAGE, 10).unwrap(), 1);
    let names: Vec<String> = network.weights().keys().cloned().collect();
    let trained: Vec<&String> = names.iter().filter(|name| !name.contains("running")).collect();
    for name in &names {
        let (node, last) = name.rsplit_once('.').unwrap();
        let shape = network.weights()[name].shape().to_vec();
        let n = shape.iter().product();
        let data = match trained.iter().position(|other| *other == name) {
            None => vec![if last == "running_var" { 1.0 } else { 0.0 }; n],
            Some(seed) => {
                let fan_in = shape.iter().skip(1).product::<usize>() as f64;
                let value = |x: f32| match shape.len() {
                    1 if last == "weight" => 1.0 + 0.2 * f64::from(x),
                    1 => 0.1 * f64::from(x),
                    _ => f64::from(x) * (2.0 / fan_in).sqrt(),
                };
                numbers(n, seed).into_iter().map(|x| value(x) as f32).collect()
            }
        };
        network.set_parameter(node, last, Tensor::new(shape, data).unwrap()).unwrap();
    }
    network
}

/// What the script keeps of a parameter: its sum, its norm, and one value.
fn check(context: &str, values: &[f32], at: usize, expected: &Value, tolerance: f64) {
    let wide = || values.iter().map(|&x| f64::from(x));
    let norm = wide().map(|x| x * x).sum::<f64>().sqrt();
    let got = [wide().sum::<f64>(), norm, f64::from(values[at])];
    for (got, expected) in got.iter().zip(expected.as_array().unwrap()) {
        let expected = expected.as_f64().unwrap();
        let scale = expected.abs() + norm * (values.len() as f64).sqrt().min(4.0);
        assert!((got - expected).abs() <= tolerance * scale, "{context}: {got}, not {expected}");
    }
}

/// Forward, distillation and cross-entropy with label smoothing, backward, BatchNorm's statistics, and Nesterov
/// momentum with weight decay on weights alone.
#[test]
fn three_steps_of_resnet20_are_those_of_pytorch() {
    let golden: Value = serde_json::from_str(include_str!("golden/steps.json")).unwrap();
    let images = numbers(5 * IMAGE.len(), 102);
    let labels: Vec<u16> = (0..5).map(|i| i * 7 % 10).collect();
    let teacher: Vec<f32> = numbers(50, 101).iter().map(|x| 3.0 * x).collect();
    let losses = [
        WeightedLoss { loss: TrainLoss::CrossEntropy { labels: &labels, smoothing: 0.1 }, weight: 0.1 },
        WeightedLoss { loss: TrainLoss::Divergence { teacher: &teacher, temperature: 4.0 }, weight: 0.9 },
    ];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for isa in Isa::available() {
        let mut plan = TrainPlan::compile(&resnet20(), isa, 5).unwrap();
        let parameters = plan.parameters().to_vec();
        let settings = SgdSettings { weight_decay: 5e-3, ..SgdSettings::default() };
        let mut sgd = Sgd::new(&parameters, settings).unwrap();
        for (step, expected) in golden["steps"].as_array().unwrap().iter().enumerate() {
            let report = plan.step(&pool, &images, &losses).unwrap();
            let loss = expected["loss"].as_f64().unwrap();
            assert!((report.loss - loss).abs() < 1e-4 * loss, "{isa:?}, step {step}: {} not {loss}", report.loss);
            let (values, gradient) = plan.values_and_gradient();
            sgd.step(values, gradient, 0.01);
            for parameter in &parameters {
                let context = format!("{isa:?}, step {step}, {}", parameter.name);
                let (range, last) = (parameter.range.clone(), parameter.range.len() - 1);
                if let Some(expected) = expected["gradients"].get(&parameter.name) {
                    check(&format!("{context}, gradient"), &gradient[range.clone()], 0, expected, 1e-4);
                }
                if let Some(expected) = expected["values"].get(&parameter.name) {
                    check(&context, &values[range], last, expected, 3e-4);
                }
            }
        }
        let trained = plan.network().unwrap();
        let statistics = golden["statistics"].as_object().unwrap();
        assert_eq!(statistics.len(), 38);
        statistics.iter().for_each(|(name, expected)| check(name, trained.weights()[name].data(), 0, expected, 1e-4));
    }
}

const SGD: [(bool, [f64; 3]); 2] =
    [(false, [0.980014, -2.2645, 0.7525795]), (true, [0.924915046, -2.25055, 0.6689523505])];
const ADAM: [f64; 3] = [0.9333699128, -2.183233201, 0.5934172737];
