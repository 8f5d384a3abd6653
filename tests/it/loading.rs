//! What is loaded for a scene: bare state dicts, the order of precedence of what describes them, budgets in absolute
//! numbers.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secateur::formats::{Preprocessing, write_network};
use secateur::net::random::with_random_weights;
use secateur::net::{Cost, Network, Shape, Tensor, Weights, arch};
use secateur::run::load_network;
use secateur::run::{Resolved, Roots, resolve};
use secateur::scene::{Scene, SceneError};

const CIFAR: Shape = Shape { c: 3, h: 32, w: 32 };

fn resnet20() -> Network {
    with_random_weights(arch::build("resnet20", CIFAR, 10).unwrap(), 1)
}

/// A safetensors file without metadata, as other programs write it.
fn write_bare(path: &Path, network: &Network) {
    write_tensors(path, network.weights());
}

fn write_tensors(path: &Path, tensors: &Weights) {
    let (mut header, mut data) = (BTreeMap::new(), Vec::new());
    for (name, tensor) in tensors {
        let start = data.len();
        tensor.data().iter().for_each(|x| data.extend(x.to_le_bytes()));
        let entry = serde_json::json!({"dtype": "F32", "shape": tensor.shape(), "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

struct Files(tempfile::TempDir);

impl Files {
    /// `bare.safetensors` and `own.safetensors`: the same network without and with its description.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = resnet20();
        write_bare(&dir.path().join("bare.safetensors"), &network);
        let prep = Preprocessing::new(vec![0.1, 0.2, 0.3], vec![0.4, 0.5, 0.6]).unwrap();
        write_network(&dir.path().join("own.safetensors"), &network, &prep).unwrap();
        Self(dir)
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn resolve(&self, scene: &str) -> Result<Resolved, SceneError> {
        let roots = Roots { data: self.path("no data"), models: self.0.path().into(), scene_dir: self.0.path().into() };
        resolve(&Scene::parse("s.ron", scene)?, &roots)
    }
}

#[test]
fn a_bare_state_dict_is_recognised_and_every_assumption_is_told() {
    let files = Files::new();
    let loaded = load_network(&files.path("bare.safetensors"), None, None).unwrap();
    assert_eq!((loaded.name.as_str(), loaded.arch.as_deref()), ("bare", Some("resnet20")));
    assert_eq!(loaded.original, resnet20());
    assert_eq!(loaded.preprocessing, Preprocessing::imagenet());
    let told = loaded.assumptions.join("\n");
    assert!(told.contains("resnet20") && told.contains("3x32x32") && told.contains("preprocessing assumed"), "{told}");
    let said = (vec![0.0; 3], vec![1.0; 3]);
    let loaded = load_network(&files.path("bare.safetensors"), Some("resnet20"), Some(&said)).unwrap();
    assert_eq!((loaded.preprocessing.mean, loaded.preprocessing.std), said);
    assert_eq!(loaded.assumptions.len(), 1, "only the size of the images: {:?}", loaded.assumptions);
}

#[test]
fn a_file_that_describes_itself_needs_no_assumption_and_yields_to_explicit_preprocessing() {
    let files = Files::new();
    let loaded = load_network(&files.path("own.safetensors"), None, None).unwrap();
    assert!(loaded.assumptions.is_empty() && loaded.arch.is_none());
    assert_eq!(loaded.preprocessing.mean, [0.1, 0.2, 0.3]);
    let said = (vec![0.0; 3], vec![1.0; 3]);
    let loaded = load_network(&files.path("own.safetensors"), None, Some(&said)).unwrap();
    assert_eq!(loaded.preprocessing.mean, [0.0; 3]);
}

#[test]
fn a_wrong_or_unknown_architecture_is_refused() {
    let files = Files::new();
    let message = |name: &str, arch: &str| {
        let error = load_network(&files.path(name), Some(arch), None).unwrap_err();
        format!("{error:#}")
    };
    assert!(message("bare.safetensors", "resnet21").contains("known: resnet20"));
    let deeper = message("bare.safetensors", "resnet32");
    assert!(deeper.contains("as resnet32") && deeper.contains("layer1.3.conv1.weight"), "{deeper}");
    assert!(message("own.safetensors", "resnet20").contains("describes its own graph"));
    let other: BTreeMap<_, _> = [("x.weight".to_owned(), resnet20().weights()["conv1.weight"].clone())].into();
    let header = serde_json::json!({"x.weight": {"dtype": "F32", "shape": other["x.weight"].shape(), "data_offsets": [0, 1728]}});
    let header = header.to_string().into_bytes();
    let data: Vec<u8> = other["x.weight"].data().iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    fs::write(files.path("odd.safetensors"), bytes).unwrap();
    let unknown = format!("{:#}", load_network(&files.path("odd.safetensors"), None, None).unwrap_err());
    assert!(unknown.contains("no known architecture") && unknown.contains("mobilenet_v1"), "{unknown}");
    // What the file has and what would help, not an architecture that cannot fit.
    assert!(unknown.contains("1 parameters: 'x.weight'") && unknown.contains("metadata"), "{unknown}");
    assert!(!unknown.contains("give `arch`"), "{unknown}");
    let forced = message("odd.safetensors", "resnet20");
    assert!(
        forced.contains("is no resnet20") && forced.contains("'linear.weight'") && forced.contains("'x.weight'"),
        "{forced}"
    );
}

#[test]
fn names_as_wrappers_leave_them_are_recognised_and_told() {
    let files = Files::new();
    let (graph, weights) = resnet20().into_parts();
    for prefix in ["module.", "_orig_mod.", "backbone.net.module._orig_mod.model."] {
        let renamed = weights.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        write_tensors(&files.path("wrapped.safetensors"), &renamed);
        for arch in [None, Some("resnet20")] {
            let loaded = load_network(&files.path("wrapped.safetensors"), arch, None).unwrap();
            assert_eq!(loaded.original, Network::new(graph.clone(), weights.clone()).unwrap(), "{prefix}");
            assert!(loaded.assumptions[0].contains("taken off"), "{:?}", loaded.assumptions);
        }
    }
}

#[test]
fn budgets_are_shares_of_the_network_as_given_and_data_are_read_once() {
    let files = Files::new();
    let resolved = files.resolve(
        r#"(version: 1, seed: 1,
            networks: [(name: "a", file: "own"), (name: "b", file: "./bare.safetensors", datasets: ["two"])],
            datasets: [(name: "one", source: Procedural(kind: Shapes, seed: 3, train: 30, test: 7)),
                       (name: "two", source: Procedural(kind: Shapes, seed: 3, train: 30, test: 7))],
            images: (reward: 10, calibration: 20, refit: 15),
            budgets: [Params(ratio: 0.5), Macs(max: 20_000_000)])"#,
    );
    let resolved = resolved.unwrap();
    let names: Vec<&str> = resolved.networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(Arc::ptr_eq(&resolved.datasets[0].train, &resolved.datasets[1].train));
    assert_eq!((resolved.datasets[0].train.len(), resolved.datasets[1].test.len()), (30, 7));
    let kinds: Vec<Cost> = resolved.budgets.iter().map(|b| b.first().cost).collect();
    assert_eq!(kinds, [Cost::Params, Cost::Macs].repeat(3));
    // 269,722 parameters with BatchNorm's scales and shifts; folded there would be 688 fewer.
    assert_eq!((resolved.budgets[0].first().original, resolved.budgets[0].first().max), (269_722, 134_861));
    assert_eq!((resolved.budgets[1].first().original, resolved.budgets[1].first().max), (40_551_040, 20_000_000));
}

#[test]
fn images_for_reward_and_the_larger_of_the_others_must_fit_the_training_split() {
    let files = Files::new();
    let scene = |refit: usize| {
        format!(
            r#"(version: 1, seed: 1, networks: [(name: "a", file: "own")], budgets: [Macs(ratio: 0.5)],
                datasets: [(name: "d", source: Procedural(kind: Textures, seed: 1, train: 30, test: 1))],
                images: (reward: 10, calibration: 5, refit: {refit}))"#
        )
    };
    assert!(files.resolve(&scene(20)).is_ok());
    let error = files.resolve(&scene(21)).unwrap_err();
    assert_eq!(error.line_col().0, 2);
    assert!(error.to_string().contains("asks for 31: 10 for reward and 21 others for refit"), "{error}");
}

#[test]
fn a_missing_data_set_says_where_it_was_looked_for() {
    let error = Files::new().resolve(
        r#"(version: 1, seed: 1, networks: [(name: "a", file: "own")], budgets: [Macs(ratio: 0.5)],
            datasets: [(name: "c", source: Cifar10)])"#,
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no data") && error.contains("--data-root") && error.contains("s.ron:2:"), "{error}");
}

/// Random parameters under the names that torchvision, or a program for CIFAR, gives a ResNet of two-convolution blocks.
fn residual_weights(stem: usize, names: [&str; 2], n_stages: usize) -> Weights {
    let mut weights = Weights::new();
    let mut add = |name: String, shape: &[usize]| {
        let n = shape.iter().product();
        let start = weights.len();
        let data = (0..n).map(|i| ((start + 7 * i) % 13) as f32 / 40.0 + 0.1).collect();
        weights.insert(name, Tensor::new(shape.to_vec(), data).unwrap());
    };
    let mut unit = |conv: String, norm: String, shape: [usize; 4]| {
        add(format!("{conv}.weight"), &shape);
        ["weight", "bias", "running_mean", "running_var"].iter().for_each(|p| add(format!("{norm}.{p}"), &shape[..1]));
    };
    unit("conv1".into(), "bn1".into(), [8, 3, stem, stem]);
    let mut inputs = 8;
    for stage in 1..=n_stages {
        let (name, outputs) = (format!("layer{stage}.0"), 8 << (stage - 1));
        unit(format!("{name}.conv1"), format!("{name}.bn1"), [outputs, inputs, 3, 3]);
        unit(format!("{name}.conv2"), format!("{name}.bn2"), [outputs, outputs, 3, 3]);
        if stage > 1 {
            unit(format!("{name}.{}.0", names[0]), format!("{name}.{}.1", names[0]), [outputs, inputs, 1, 1]);
        }
        inputs = outputs;
    }
    add(format!("{}.weight", names[1]), &[10, inputs]);
    add(format!("{}.bias", names[1]), &[10]);
    weights
}

#[test]
fn state_dicts_of_a_family_are_recognised_and_what_they_leave_open_is_told() {
    let files = Files::new();
    for (names, n_stages, arch) in [
        (["downsample", "fc"], 4, "resnet10"),
        (["shortcut", "linear"], 4, "resnet10"),
        (["shortcut", "linear"], 3, "resnet8"),
    ] {
        write_tensors(&files.path("family.safetensors"), &residual_weights(3, names, n_stages));
        let loaded = load_network(&files.path("family.safetensors"), None, None).unwrap();
        assert_eq!(loaded.arch.as_deref(), Some(arch));
        let told = loaded.assumptions.join("\n");
        for part in [arch, "names and shapes of the parameters", "images of 3x32x32", "stride 1 and no max pool"] {
            assert!(told.contains(part), "'{part}' is not in {told}");
        }
        let same = load_network(&files.path("family.safetensors"), Some(arch), None).unwrap();
        assert_eq!(same.original, loaded.original);
    }
    write_tensors(&files.path("family.safetensors"), &residual_weights(7, ["downsample", "fc"], 4));
    let large = load_network(&files.path("family.safetensors"), None, None).unwrap();
    assert_eq!(large.original.graph().input(), Shape { c: 3, h: 224, w: 224 });
    let data = "shapes:1".parse::<secateur::formats::DatasetSource>().unwrap();
    let data = data.read(Path::new(""), secateur::formats::Split::Test).unwrap();
    let misfit = secateur::run::check_fit(&large, &data).unwrap_err().to_string();
    assert!(misfit.contains("3x224x224") && misfit.contains("size: (32, 32)"), "{misfit}");
}

#[test]
fn state_dicts_of_no_family_or_of_a_changed_one_say_how_to_export_them() {
    let files = Files::new();
    let message = |weights: &Weights, arch: Option<&str>| {
        write_tensors(&files.path("odd.safetensors"), weights);
        format!("{:#}", load_network(&files.path("odd.safetensors"), arch, None).unwrap_err())
    };
    let export = "torch.onnx.export(model.eval(), example, 'm.onnx')";
    let sound = residual_weights(3, ["downsample", "fc"], 4);
    let one = Weights::from([("x.weight".to_owned(), sound["conv1.weight"].clone())]);
    let unknown = message(&one, None);
    assert!(unknown.contains(export) && unknown.contains("'x.weight'") && unknown.contains("torchvision"), "{unknown}");
    // Squeeze-and-excitation inside the blocks: other names beside those of the family.
    let mut more = sound.clone();
    more.insert("layer1.0.se.fc1.weight".into(), sound["fc.weight"].clone());
    let changed = message(&more, None);
    for part in ["as resnet10", "'layer1.0.se.fc1.weight'", "another network", export] {
        assert!(changed.contains(part), "'{part}' is not in {changed}");
    }
    let mut less = sound.clone();
    less.remove("layer2.0.downsample.0.weight");
    let broken = message(&less, None);
    assert!(broken.contains("'layer2.0'") && broken.contains(export), "{broken}");
    let wrong = message(&sound, Some("resnet18"));
    assert!(wrong.contains("is no resnet18") && wrong.contains("resnet10"), "{wrong}");
}
