//! Runs on images without labels: detectors by what their outputs lose, classifiers by their class probabilities. Every
//! network is made here or shipped, every image drawn.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prost::Message;
use secateur::formats::Split;
use secateur::kernels::{Arithmetic, Plan};
use secateur::onnx::schema::{GraphProto, TensorProto};
use secateur::run::load_network;
use secateur::run::scene::DatasetSource;
use serde_json::Value;

use crate::bad_onnx::hand_made::{model, node, shaped, tensor, with_ints};

const IMAGES: &str = "Procedural(kind: Textures, seed: 2, train: 120, test: 40, size: (16, 24))";
const REST: &str = "budgets: [Macs(ratio: 0.6)], protocol: Full, walks_per_task: 4, finalists: 2, \
                    images: (reward: 40, calibration: 40, walk: 20, refit: 60), controls: [Uniform, Random(candidates: 2)]";

/// Values between -`scale` and `scale` in no order.
fn scattered(name: &str, dims: &[i64], scale: f32) -> TensorProto {
    let n = dims.iter().product::<i64>();
    let value = |i: i64| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
    TensorProto { float_data: (0..n).map(|i| scale * value(i)).collect(), ..tensor(name, dims) }
}

/// Two heads behind two convolutions: three `scores` and two `boxes` at each pixel. `scale` is that of the weights of
/// the boxes.
fn detector(scale: f32) -> GraphProto {
    let conv = |inputs: [&str; 3], output| with_ints(node("Conv", &inputs, &[output]), "pads", &[1, 1, 1, 1]);
    GraphProto {
        node: vec![
            conv(["x", "w0", "b0"], "a"),
            node("Relu", &["a"], &["ra"]),
            conv(["ra", "w1", "b1"], "b"),
            node("Relu", &["b"], &["rb"]),
            node("Conv", &["rb", "ws"], &["logits"]),
            node("Sigmoid", &["logits"], &["scores"]),
            node("Conv", &["rb", "wb", "bb"], &["boxes"]),
        ],
        initializer: vec![
            scattered("w0", &[12, 3, 3, 3], 0.4),
            scattered("b0", &[12], 0.2),
            scattered("w1", &[16, 12, 3, 3], 0.3),
            scattered("b1", &[16], 0.2),
            scattered("ws", &[3, 16, 1, 1], 0.5),
            scattered("wb", &[2, 16, 1, 1], scale),
            scattered("bb", &[2], 4.0),
        ],
        input: vec![shaped("x", &[1, 3, 16, 24])],
        output: vec![shaped("scores", &[1, 3, 16, 24]), shaped("boxes", &[1, 2, 16, 24])],
        ..Default::default()
    }
}

/// The same with boxes that an operation decodes which is not computed.
fn decoded_detector() -> GraphProto {
    let mut graph = detector(0.5);
    graph.node.push(node("Sin", &["boxes"], &["decoded"]));
    graph.output[1] = shaped("decoded", &[1, 2, 16, 24]);
    graph
}

struct Place(tempfile::TempDir);

impl Place {
    fn new(graph: GraphProto) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("net.onnx"), model(graph).encode_to_vec()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A scene of `net.onnx` and drawn images.
    fn scene(&self, labels: &str, reward: &str) -> PathBuf {
        let text = format!(
            "(version: 1, seed: 3, networks: [(name: \"net\", file: \"./net.onnx\")], \
             datasets: [(name: \"images\", source: {IMAGES}{labels})], reward: {reward}, {REST})"
        );
        let file = self.path("scene.ron");
        fs::write(&file, text).unwrap();
        file
    }

    fn run(&self, out: &str, arguments: &[&str]) -> (Value, String) {
        let out = self.path(out);
        let command =
            ["run", self.path("scene.ron").to_str().unwrap(), "--out", out.to_str().unwrap()].map(str::to_owned);
        let output = secateur(&[&command.each_ref().map(String::as_str)[..], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let summary = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
        (summary, text(&output.stdout))
    }
}

fn secateur(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secateur")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Outputs `[N][values]` of a network on the test images.
fn outputs(network: &Path) -> Vec<Vec<f32>> {
    let scene = format!(
        "(version: 1, seed: 1, networks: [(name: \"n\", file: \"n\")], datasets: [(name: \"d\", source: {IMAGES})], budgets: [Macs(ratio: 0.5)])"
    );
    let scene = secateur::run::scene::Scene::parse("scene", &scene).unwrap();
    let source: &DatasetSource = &scene.datasets[0].source;
    let data = source.read(Path::new("nowhere"), Split::Test).unwrap();
    let network = load_network(network, None, None).unwrap();
    let images = data.normalised_nhwc(&(0..data.len()).collect::<Vec<_>>(), &network.preprocessing);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let plan = Plan::compile(&network.folded, Arithmetic::default()).unwrap();
    plan.logits(&pool, &images).unwrap().chunks(plan.n_classes()).map(<[f32]>::to_vec).collect()
}

/// By definition, in two passes: squared differences by squared deviations from the mean over images.
fn error(dense: &[Vec<f32>], pruned: &[Vec<f32>], values: std::ops::Range<usize>) -> f64 {
    let (mut lost, mut variance) = (0.0, 0.0);
    for at in values {
        let mean = dense.iter().map(|row| f64::from(row[at])).sum::<f64>() / dense.len() as f64;
        variance += dense.iter().map(|row| (f64::from(row[at]) - mean).powi(2)).sum::<f64>();
        lost += dense.iter().zip(pruned).map(|(d, p)| f64::from(d[at] - p[at]).powi(2)).sum::<f64>();
    }
    lost / variance
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// No number of a summary is called an accuracy.
fn assert_no_accuracy(summary: &Value) {
    for of in ["tasks", "controls"] {
        for entry in summary[of].as_array().unwrap() {
            let accuracies = entry.as_object().unwrap().iter().filter(|(key, _)| key.contains("accuracy"));
            accuracies.for_each(|(key, value)| assert!(value.is_null(), "{key}: {value}"));
        }
    }
}

fn without_times(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !key.ends_with("_s") && *key != "onnx_file");
            Value::Object(kept.map(|(key, value)| (key.clone(), without_times(value))).collect())
        }
        Value::Array(list) => list.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

#[test]
fn a_detector_is_pruned_without_labels_and_its_errors_are_those_of_the_written_model() {
    let place = Place::new(detector(0.5));
    place.scene(", labels: None", "OutputError(weights: {\"boxes\": 3.0})");
    let (summary, printed) = place.run("one", &["--threads", "1"]);
    let (again, _) = place.run("three", &["--threads", "3"]);
    assert_eq!(without_times(&summary), without_times(&again), "whatever the number of threads");
    assert_no_accuracy(&summary);
    assert_eq!((&summary["reward"]["kind"], &summary["reward"]["better"]), (&"OutputError".into(), &"lower".into()));
    let task = &summary["tasks"][0];
    assert!(number(&task["macs"]) <= number(&task["budget"]["max"]) && task["unchanged"] == false);
    let [dense, pruned] = [place.path("net.onnx"), place.path("one").join(task["onnx_file"].as_str().unwrap())]
        .map(|file| outputs(&file));
    let n = 16 * 24;
    let errors = [error(&dense, &pruned, 0..3 * n), error(&dense, &pruned, 3 * n..5 * n)];
    let told = task["outputs"].as_array().unwrap();
    assert_eq!(told.iter().map(|output| output["name"].as_str().unwrap()).collect::<Vec<_>>(), ["scores", "boxes"]);
    for (output, error) in told.iter().zip(errors) {
        assert!((number(&output["test_error"]) / error - 1.0).abs() < 1e-3, "{output} {error}");
        assert_eq!(output["relative_to"], "variance");
    }
    let mean = (errors[0] + 3.0 * errors[1]) / 4.0;
    assert!((number(&task["test_output_error"]) / mean - 1.0).abs() < 1e-3 && mean > 1e-4 && mean < 0.9, "{mean}");
    for said in ["output error", "share of the dense outputs' variance", "1 / (1 + output error)"] {
        assert!(printed.contains(said), "{printed}");
    }
    assert!(!printed.contains('%'), "{printed}");
    // The reward of every walk is what its error leaves.
    let metrics = fs::read_to_string(place.path("one/metrics.jsonl")).unwrap();
    let candidates = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    for line in candidates.filter(|line| line["event"] == "candidate") {
        assert!((number(&line["reward"]) - 1.0 / (1.0 + number(&line["output_error"]))).abs() < 1e-6, "{line}");
        assert!(line.get("accuracy").is_none() && line.get("divergence").is_none(), "{line}");
    }
}

#[test]
fn a_detector_whose_decoding_is_not_computed_is_compared_in_front_of_it_and_written_whole() {
    let place = Place::new(decoded_detector());
    place.scene(", labels: None", "OutputError()");
    let (summary, _) = place.run("out", &["--threads", "1"]);
    let task = &summary["tasks"][0];
    let names: Vec<&str> =
        task["outputs"].as_array().unwrap().iter().map(|output| output["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["scores", "boxes"]);
    let written = fs::read(place.path("out").join(task["onnx_file"].as_str().unwrap())).unwrap();
    let written = secateur::onnx::schema::ModelProto::decode(&written[..]).unwrap().graph.unwrap();
    assert!(written.node.iter().any(|node| node.op_type() == "Sin"), "what is not computed stays");
    assert_eq!(written.output[1].name(), "decoded");
    // Told apart from a classifier wherever one is needed.
    let net = place.path("net.onnx");
    let output = secateur(&["eval", net.to_str().unwrap(), "--dataset", "textures"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_classifier_is_pruned_by_its_probabilities_without_labels() {
    let place = Place::new(detector(0.5));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/textures.safetensors");
    let text = format!(
        "(version: 1, seed: 3, networks: [(name: \"net\", file: {shipped:?})], datasets: [(name: \"d\", \
         source: Procedural(kind: Textures, seed: 2, train: 120, test: 100), labels: None)], reward: Kl, {REST})"
    );
    fs::write(place.path("scene.ron"), text).unwrap();
    let (summary, printed) = place.run("out", &[]);
    assert_no_accuracy(&summary);
    let task = &summary["tasks"][0];
    assert!(number(&task["test_divergence"]) > 0.0 && number(&task["test_output_error"]) > 0.0);
    assert!((0.1..=1.0).contains(&number(&task["test_same_class"])), "{task}");
    assert!(printed.contains("test % same class"), "{printed}");
    // The command line finds the same, on the same images.
    let written = place.path("out").join(task["model_file"].as_str().unwrap());
    let [written, shipped] = [&written, &shipped].map(|file| file.to_str().unwrap());
    let output = secateur(&["eval", written, "--against", shipped, "--dataset", "textures", "--limit", "100"]);
    let found = self::text(&output.stdout);
    let last = found.lines().last().unwrap();
    assert_eq!(last, format!("output error {:.6}", number(&task["test_output_error"])), "{found}");
    let same = format!("same class {:.4}", number(&task["test_same_class"]));
    assert!(found.contains(&same), "{found} {same}");
}

#[test]
fn an_output_that_is_the_same_for_every_image_is_measured_by_its_energy() {
    let place = Place::new(detector(0.0));
    place.scene(", labels: None", "OutputError()");
    let (summary, _) = place.run("out", &["--threads", "2"]);
    let told: Vec<&str> = summary["tasks"][0]["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| output["relative_to"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["variance", "energy"]);
    assert!(number(&summary["tasks"][0]["reward_output_error"]).is_finite());
}

/// What `check` says, which is one sentence with its place and what to do.
#[track_caller]
fn assert_refused(place: &Place, scene: &Path, parts: &[&str]) {
    let output = secateur(&["check", scene.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "'{part}' is not in:\n{said}"));
    let out = place.path("refused");
    let ran = secateur(&["run", scene.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(ran.status.code() == Some(2) && !out.exists(), "{}", text(&ran.stderr));
}

#[test]
fn rewards_that_do_not_fit_networks_or_images_are_refused_with_those_that_do() {
    let place = Place::new(detector(0.5));
    let none = ", labels: None";
    for (labels, reward, parts) in [
        (none, "Accuracy", &["`reward` is Accuracy, which needs labels", "'images'", "`Kl`", "`OutputError()`"][..]),
        (none, "Kl", &["`reward` is Kl", "has 2 outputs: 'scores', 'boxes'", "`OutputError()`"]),
        ("", "OutputError()", &["has 1920 outputs, data set 'textures' has 10 classes", "`labels: None`"]),
        (none, "OutputError(weights: {\"boxs\": 2.0})", &["the output `boxs`", "did you mean `boxes`?"]),
        (none, "OutputError(weights: {\"boxes\": -1.0})", &["output `boxes` the weight -1", "finite number >= 0"]),
        (none, "OutputError(weights: {\"boxes\": NaN})", &["output `boxes` the weight NaN"]),
        (none, "OutputError(weights: {\"boxes\": inf})", &["output `boxes` the weight inf"]),
        (none, "OutputError(weights: {\"boxes\": 0.0, \"scores\": 0.0})", &["are 0 for every output of network 'net'"]),
        (none, "OutputError", &["write `OutputError()`"]),
        (none, "OutputError(weight: {})", &["weights"]),
    ] {
        assert_refused(&place, &place.scene(labels, reward), parts);
    }
    let decoded = Place::new(decoded_detector());
    assert_refused(&decoded, &decoded.scene(none, "Kl"), &["is computed up to 'scores', 'boxes' only", "Sin"]);
}

#[test]
fn outputs_that_are_no_numbers_are_refused() {
    let place = Place::new(detector(3e38));
    assert_refused(&place, &place.scene(", labels: None", "OutputError()"), &["cannot be run on", "its logits reach"]);
    let (large, small) = (place.path("net.onnx"), Place::new(detector(0.5)));
    let small = small.path("net.onnx");
    let [large, small] = [&large, &small].map(|file| file.to_str().unwrap());
    let output = secateur(&["eval", large, "--against", small, "--dataset", "textures"]);
    assert_eq!(output.status.code(), Some(2), "images of another size");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/textures.safetensors");
    let output = secateur(&["eval", shipped.to_str().unwrap(), "--against", small, "--dataset", "textures"]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("two networks of the same images and outputs"), "{said}");
}
