//! ONNX files as networks: what the engine computes of them, and whether two ways to find channel groups agree.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use secateur::formats::read_weights;
use secateur::kernels::{Arithmetic, Plan};
use secateur::net::{ChannelGroups, GroupChannel, Network, Protocol, Shape, arch, fold_batch_norm};
use secateur::onnx::{DocumentChannel, DocumentGroups, Facts, ImportedNetwork, OnnxDocument};

fn models() -> Option<PathBuf> {
    let found = std::env::var_os("SECATEUR_MODELS").map(PathBuf::from);
    if found.is_none() {
        let is_required = std::env::var("SECATEUR_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "SECATEUR_REQUIRE_DATA=1, but SECATEUR_MODELS is not set");
        eprintln!("SKIPPED: set SECATEUR_MODELS to the folder of the networks, with onnx/ beside it");
    }
    found
}

struct Opened {
    document: OnnxDocument,
    facts: Facts,
}

impl Opened {
    fn new(path: &Path) -> Self {
        let document = OnnxDocument::from_bytes(std::fs::read(path).unwrap().into(), path.parent().unwrap()).unwrap();
        let facts = Facts::of(&document, None).unwrap();
        Self { document, facts }
    }

    fn network(&self) -> ImportedNetwork {
        self.document.network(&self.facts).unwrap()
    }
}

/// Every channel of the network is one channel of the document and the other way round, wherever both have it, and may
/// be removed in both or in neither.
fn assert_same_partition(name: &str, opened: &Opened, imported: &ImportedNetwork) {
    let graph = imported.network.graph();
    let (ours, theirs) = (
        ChannelGroups::derive_with_free_parts(graph, Protocol::Full),
        DocumentGroups::of(&opened.document, &opened.facts),
    );
    let mut there: HashMap<GroupChannel, DocumentChannel> = HashMap::new();
    let mut back: HashMap<DocumentChannel, GroupChannel> = HashMap::new();
    let mut n_compared = 0;
    for (id, value) in imported.values.iter().enumerate() {
        let Some(channels) = value.as_deref().and_then(|value| theirs.channels(value)) else { continue };
        let axis = ours.axis(id);
        if axis.len() != channels.len() {
            continue;
        }
        for (&network, &document) in axis.iter().zip(&channels) {
            let is_free = ours.group(network.group).frozen.is_none();
            let is_alone = theirs.groups()[document.group].n_channels == 1;
            let is_free_there = theirs.groups()[document.group].frozen.is_none();
            assert!(is_free == is_free_there || is_alone, "{name}: {value:?}");
            if !is_free {
                continue;
            }
            assert_eq!(*there.entry(network).or_insert(document), document, "{name}: {value:?}");
            assert_eq!(*back.entry(document).or_insert(network), network, "{name}: {value:?}");
            n_compared += 1;
        }
    }
    assert!(n_compared > 100, "{name}: {n_compared} channels were compared");
}

#[test]
fn groups_of_a_document_and_of_its_network_are_the_same() {
    let Some(models) = models() else { return };
    for name in ["mnist_cntk", "ppocr_cls_mobilenetv3", "pplcnet_orientation", "nanodet_m", "ultraface_rfb_320"] {
        let opened = Opened::new(&models.join(format!("../onnx/{name}.onnx")));
        assert_same_partition(name, &opened, &opened.network());
    }
}

/// The same networks were published as weights and as ONNX files.
#[test]
fn exported_resnets_compute_what_their_weights_do() {
    let Some(models) = models() else { return };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for name in ["resnet20", "resnet56"] {
        let opened = Opened::new(&models.join(format!("{name}.onnx")));
        let imported = fold_batch_norm(&opened.network().network).unwrap();
        let graph = arch::build(name, Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let weights = read_weights(&models.join(format!("{name}.safetensors"))).unwrap().weights;
        let built = fold_batch_norm(&Network::new(graph, weights).unwrap()).unwrap();
        let images: Vec<f32> = (0..2 * 3 * 32 * 32).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let logits = |network: &Network| {
            let plan = Plan::compile(network, Arithmetic::default()).unwrap();
            plan.logits(&pool, &images).unwrap()
        };
        let (ours, theirs) = (logits(&imported), logits(&built));
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(ours.len() == 20 && worst < 1e-3, "{name}: largest difference of a logit is {worst}");
        assert!(theirs.iter().fold(0.0f32, |m, v| m.max(v.abs())) > 0.1, "{name}: logits are all near zero");
    }
}

/// Box decoding has no weights: a network ends in front of it, and says where and why.
#[test]
fn detectors_are_computed_up_to_their_decoding() {
    let Some(models) = models() else { return };
    let opened = |name: &str| Opened::new(&models.join(format!("../onnx/{name}.onnx"))).network();
    let imported = opened("ultraface_rfb_320");
    let why = imported.ends_early.unwrap();
    assert!(why.contains("(Reshape)") && why.contains("not computed"), "{why}");
    assert!(imported.outputs.len() > 2, "{:?}", imported.outputs);
    // One without decoding, whose outputs are pixels with their channels behind, is computed to its end.
    let imported = opened("nanodet_m");
    assert_eq!((imported.ends_early, imported.outputs.len()), (None, 6));
}

/// As PyTorch does: 9,173 of the 10,000 test images.
#[test]
fn an_onnx_file_is_evaluated_as_any_other_network() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let scene = folder.path().join("scene.ron");
    let file = models.join("resnet20.onnx").canonicalize().unwrap();
    let text = format!(
        "(version: 1, seed: 1, networks: [(name: \"net\", file: {file:?})], datasets: [(name: \"cifar10\", source: Cifar10)], \
         budgets: [Macs(ratio: 0.5)], walks_per_task: 4)"
    );
    std::fs::write(&scene, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let checked = command.arg("check").arg(&scene).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let shown = command.args(["eval", "--dataset", "cifar10", "--limit", "200"]).arg(&file).output().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let weights = models.join("resnet20.safetensors");
    let expected = command.args(["eval", "--dataset", "cifar10", "--limit", "200"]).arg(&weights).output().unwrap();
    let top1 = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("top1")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    assert_eq!(top1(&shown), top1(&expected));
}

/// A detector's boxes are no classes: it is refused with the node that is in the way.
#[test]
fn a_network_that_is_not_computed_to_its_end_is_refused_by_node() {
    let Some(models) = models() else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let detector = models.join("../onnx/ultraface_rfb_320.onnx");
    let refused = command.args(["eval", "--dataset", "cifar10"]).arg(&detector).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("node 83 (Reshape)") && message.contains("cannot be scored to its end"), "{message}");
}
