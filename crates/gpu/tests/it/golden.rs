//! The released networks against PyTorch's values.

use std::path::{Path, PathBuf};

use secateur_formats::{Dataset, Preprocessing, Split, read_cifar10, read_weights};
use secateur_gpu::{Candidates, ConvVariant, GpuImages, GpuOptions, Truth};
use secateur_net::{Network, Shape, arch, fold_batch_norm};

use crate::adapter::open;

/// Largest difference of a logit that is asked for on any adapter.
const TOLERANCE: f32 = 2e-3;

/// Model root and data root, or a loud skip.
pub fn roots() -> Option<(PathBuf, PathBuf)> {
    let root = |name| std::env::var_os(name).map(PathBuf::from);
    let found = root("SECATEUR_MODELS").zip(root("SECATEUR_DATA"));
    if found.is_none() {
        let is_required = std::env::var("SECATEUR_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "SECATEUR_REQUIRE_DATA=1, but SECATEUR_MODELS or SECATEUR_DATA is not set");
        eprintln!("SKIPPED: set SECATEUR_MODELS and SECATEUR_DATA to the folders of the networks and of CIFAR-10");
    }
    found
}

/// PyTorch's logits of the first 256 test images and its predictions on all.
fn golden(path: &Path) -> (Vec<f32>, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensor = |name: &str| {
        let at = |i: usize| 8 + length + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        bytes[at(0)..at(1)].to_vec()
    };
    assert_eq!((&header["logits"]["dtype"], &header["predictions_10000"]["dtype"]), (&"F32".into(), &"U8".into()));
    let logits = tensor("logits").as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (logits, tensor("predictions_10000"))
}

pub fn load(models: &Path, name: &str) -> Network {
    let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
    let weights = read_weights(&models.join(format!("{name}.safetensors"))).unwrap().weights;
    fold_batch_norm(&Network::new(graph, weights).unwrap()).unwrap()
}

pub fn images(data: &Dataset, range: std::ops::Range<usize>) -> Vec<f32> {
    data.normalised_nhwc(&range.collect::<Vec<_>>(), &Preprocessing::imagenet())
}

fn check(name: &str, conv: Option<ConvVariant>, n: usize) {
    let Some((models, data)) = roots() else { return };
    let Some(gpu) = open(&GpuOptions { conv, ..GpuOptions::default() }) else { return };
    let (expected, _) = golden(&models.join(format!("../golden/{name}_cifar10_test.safetensors")));
    let test = read_cifar10(&data, Split::Test).unwrap();
    let network = load(&models, name);
    let on_card = GpuImages::new(&gpu, network.graph().input(), &images(&test, 0..n), None).unwrap();
    let logits = gpu.logits(&on_card, &Candidates::Repaired(&[&network])).unwrap();
    let worst = logits[0].iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(logits[0].len(), 10 * n);
    assert!(worst < TOLERANCE, "{name}: largest difference of a logit is {worst}");
    eprintln!("{name} on {}: {n} images, largest difference of a logit {worst:e}", gpu.name());
}

#[test]
fn resnet20_computes_the_logits_of_pytorch() {
    check("resnet20", None, 256);
}

#[test]
fn resnet56_computes_the_logits_of_pytorch() {
    check("resnet56", None, 256);
}

#[test]
fn mobilenet_v1_computes_the_logits_of_pytorch() {
    check("mobilenet_v1", None, 256);
}

/// As real cards compute them; barriers are slow on software Vulkan.
#[test]
fn networks_with_staged_weights_compute_the_logits_of_pytorch() {
    for conv in [ConvVariant::Staged, ConvVariant::Strips] {
        for (name, n) in [("resnet20", 8), ("resnet56", 4), ("mobilenet_v1", 4)] {
            check(name, Some(conv), n);
        }
    }
}

/// All 10,000 test images of a network: minutes on software Vulkan, so only the networks named in SECATEUR_GPU_ALL are
/// run.
#[test]
fn all_predictions_are_those_of_pytorch_where_asked_for() {
    let names = std::env::var("SECATEUR_GPU_ALL").unwrap_or_default();
    if names.is_empty() {
        eprintln!("SKIPPED: set SECATEUR_GPU_ALL=resnet20,resnet56 to compare all 10,000 predictions (minutes)");
        return;
    }
    let (Some((models, data)), Some(gpu)) = (roots(), open(&GpuOptions::default())) else { return };
    let test = read_cifar10(&data, Split::Test).unwrap();
    for name in names.split(',') {
        let (_, predictions) = golden(&models.join(format!("../golden/{name}_cifar10_test.safetensors")));
        let labels: Vec<u16> = predictions.iter().map(|&p| u16::from(p)).collect();
        let network = load(&models, name);
        let truth = Truth { labels: Some(&labels), n_classes: 10, original_logits: None };
        let all = images(&test, 0..test.len());
        let on_card = GpuImages::new(&gpu, network.graph().input(), &all, Some(truth)).unwrap();
        let score = gpu.score(&on_card, &Candidates::Repaired(&[&network])).unwrap()[0];
        let n_other = test.len() - score.n_correct;
        assert!(n_other <= 5, "{name}: {n_other} of {} predictions differ from PyTorch's", test.len());
        eprintln!("{name} on {}: {n_other} of {} predictions differ from PyTorch's", gpu.name(), test.len());
    }
}
