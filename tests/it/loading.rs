//! What is loaded for a scene: bare state dicts, the order of precedence of what describes them, budgets in absolute
//! numbers.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secateur::formats::{Preprocessing, write_network};
use secateur::net::random::with_random_weights;
use secateur::net::{Cost, Network, Shape, Weights, arch};
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
    let kinds: Vec<Cost> = resolved.budgets.iter().map(|b| b.cost).collect();
    assert_eq!(kinds, [Cost::Params, Cost::Macs].repeat(3));
    // 269,722 parameters with BatchNorm's scales and shifts; folded there would be 688 fewer.
    assert_eq!((resolved.budgets[0].original, resolved.budgets[0].max), (269_722, 134_861));
    assert_eq!((resolved.budgets[1].original, resolved.budgets[1].max), (40_551_040, 20_000_000));
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
