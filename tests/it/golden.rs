//! The released networks and those of the quickstart, end to end, against PyTorch's values.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::ThreadPoolBuilder;
use secateur::formats::{Dataset, Preprocessing, Split, procedural, read_cifar10};
use secateur::kernels::{Arithmetic, Effort, Plan, Precision, RefitData, SequentialRefit};
use secateur::net::{ChannelGroups, KeptChannels, Network, Protocol};
use secateur::run::{LoadedNetwork, load_network};

/// Model root and data root.
fn roots() -> Option<(PathBuf, PathBuf)> {
    let root = |name| std::env::var_os(name).map(PathBuf::from);
    let found = root("SECATEUR_MODELS").zip(root("SECATEUR_DATA"));
    if found.is_none() {
        let is_required = std::env::var("SECATEUR_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "SECATEUR_REQUIRE_DATA=1, but SECATEUR_MODELS or SECATEUR_DATA is not set");
        eprintln!(
            "SKIPPED: set SECATEUR_MODELS and SECATEUR_DATA to the folders of the released networks and of CIFAR-10"
        );
    }
    found
}

/// The tensors of a golden file by name: kind of element and bytes.
struct Golden {
    header: serde_json::Value,
    data: Vec<u8>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Self { header, data: bytes[8 + length..].to_vec() }
    }
    fn bytes(&self, name: &str, dtype: &str) -> &[u8] {
        let entry = &self.header[name];
        assert_eq!(entry["dtype"], dtype, "{name}");
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        &self.data[at(0)..at(1)]
    }
    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name, "F32").as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
    fn classes(&self, name: &str) -> Vec<u16> {
        self.bytes(name, "U8").iter().map(|&class| u16::from(class)).collect()
    }
}

fn predict(network: &LoadedNetwork, data: &Dataset) -> Vec<u16> {
    predict_in(Precision::F32, &network.folded, &network.preprocessing, data)
}

fn predict_in(precision: Precision, network: &Network, preprocessing: &Preprocessing, data: &Dataset) -> Vec<u16> {
    let plan = Plan::compile(network, precision).unwrap();
    let pool = ThreadPoolBuilder::new().build().unwrap();
    let indices: Vec<usize> = (0..data.len()).collect();
    let chunks = indices.chunks(500).map(|chunk| data.normalised_nhwc(chunk, preprocessing));
    chunks.flat_map(|images| plan.predictions(&pool, &images).unwrap()).collect()
}

fn n_correct(predictions: &[u16], data: &Dataset) -> usize {
    predictions.iter().zip(data.labels().unwrap()).filter(|(p, l)| p == l).count()
}

fn check_released(name: &str, expected_correct: usize) {
    let Some((models, data)) = roots() else { return };
    let golden = Golden::read(&models.join(format!("../golden/{name}_cifar10_test.safetensors")));
    let network = load_network(&models.join(format!("{name}.safetensors")), None, None).unwrap();
    let test = Arc::new(read_cifar10(&data, Split::Test).unwrap());
    let pool = ThreadPoolBuilder::new().build().unwrap();
    let images = test.normalised_nhwc(&(0..256).collect::<Vec<_>>(), &network.preprocessing);
    let logits = Plan::compile(&network.folded, Arithmetic::default()).unwrap().logits(&pool, &images).unwrap();
    let expected = golden.floats("logits");
    assert_eq!(logits.len(), expected.len());
    let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{name}: largest difference of a logit is {worst}");
    let predictions = predict(&network, &test);
    let n_other = predictions.iter().zip(golden.classes("predictions_10000")).filter(|(p, g)| *p != g).count();
    assert!(n_other <= 2, "{name}: {n_other} of 10,000 predictions differ from PyTorch's");
    let n_correct = n_correct(&predictions, &test);
    assert!(n_correct.abs_diff(expected_correct) <= n_other, "{name}: {n_correct} correct");
    check_bf16(name, &network.folded, &network.preprocessing, &test, &predictions);
}

/// The score in bf16 is within 0.002 of the one in f32.
fn check_bf16(name: &str, network: &Network, preprocessing: &Preprocessing, test: &Dataset, in_f32: &[u16]) {
    if !Precision::Bf16.is_available() {
        eprintln!("SKIPPED bf16: this processor does not have AVX512-BF16");
        return;
    }
    let in_bf16 = predict_in(Precision::Bf16, network, preprocessing, test);
    let n_other = in_bf16.iter().zip(in_f32).filter(|(a, b)| a != b).count();
    let correct = [in_f32, &in_bf16].map(|predictions| n_correct(predictions, test));
    eprintln!("{name} in bf16: {n_other} of 10,000 predictions differ from f32's, {correct:?} correct");
    assert!(correct[0].abs_diff(correct[1]) <= 20 && n_other <= 100, "{name}: {n_other} differ, {correct:?} correct");
}

/// Half the channels inside every block, chosen and refitted as a walk's candidate is.
fn half_of(network: &Network, images: &[f32]) -> Network {
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let mut kept = KeptChannels::all(&groups);
    groups.prunable().into_iter().for_each(|g| kept.set(g, (0..groups.group(g).n_channels / 2).collect()));
    let pool = ThreadPoolBuilder::new().build().unwrap();
    let data = RefitData::new(&pool, network, &groups, images, Effort::Quick).unwrap();
    SequentialRefit::new(&pool, network, &groups, &data).run(&kept, true).unwrap().0
}

#[test]
fn a_pruned_and_refitted_resnet56_scores_in_bf16_as_in_f32() {
    let Some((models, data)) = roots() else { return };
    let LoadedNetwork { folded, preprocessing, .. } =
        load_network(&models.join("resnet56.safetensors"), None, None).unwrap();
    let train = read_cifar10(&data, Split::Train).unwrap();
    let half = half_of(&folded, &train.normalised_nhwc(&(0..500).collect::<Vec<_>>(), &preprocessing));
    let test = read_cifar10(&data, Split::Test).unwrap();
    let predictions = predict_in(Precision::F32, &half, &preprocessing, &test);
    let correct = n_correct(&predictions, &test);
    assert!((7000..9339).contains(&correct), "{correct} of 10,000 correct");
    check_bf16("half of resnet56", &half, &preprocessing, &test, &predictions);
}

#[test]
fn resnet20_predicts_as_pytorch() {
    check_released("resnet20", 9173);
}

#[test]
fn resnet56_predicts_as_pytorch() {
    check_released("resnet56", 9339);
}

#[test]
fn mobilenet_v1_predicts_as_pytorch() {
    check_released("mobilenet_v1", 8394);
}

/// The counts are those that scenes/quickstart/train.py printed when it made the networks.
fn check_quickstart(kind: procedural::Kind, seed: u64, expected: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenes/quickstart/{}.safetensors", kind.name()));
    let network = load_network(&path, None, None).unwrap();
    assert!(network.assumptions.is_empty(), "the file says all there is to know: {:?}", network.assumptions);
    let test = procedural::generate(kind, seed, Split::Test, 2000);
    let got = n_correct(&predict(&network, &test), &test);
    assert!(got.abs_diff(expected) <= 2, "{}: {got} of 2,000 correct, expected {expected}", kind.name());
}

#[test]
fn quickstart_shapes_are_recognised_as_when_trained() {
    check_quickstart(procedural::Kind::Shapes, 1, 1844);
}

#[test]
fn quickstart_textures_are_recognised_as_when_trained() {
    check_quickstart(procedural::Kind::Textures, 2, 1857);
}
