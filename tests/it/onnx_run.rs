//! Runs on networks that came as ONNX: what they leave beside `model.safetensors`.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use secateur::onnx::{Facts, OnnxDocument};
use serde_json::Value;

fn secateur(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secateur")).args(arguments).output().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn top1(network: &Path) -> String {
    let network = network.to_str().unwrap();
    let output = secateur(&["eval", network, "--dataset", "cifar10", "--limit", "500"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("top1")).map(str::to_owned);
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn document(path: &Path) -> OnnxDocument {
    OnnxDocument::from_bytes(fs::read(path).unwrap().into(), path.parent().unwrap()).unwrap()
}

/// The published ResNet-20 as ONNX, pruned to a few budgets with few walks.
fn pruned_resnet(out: &Path) -> Option<PathBuf> {
    let Some(models) = std::env::var_os("SECATEUR_MODELS").map(PathBuf::from) else {
        let is_required = std::env::var("SECATEUR_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "SECATEUR_REQUIRE_DATA=1, but SECATEUR_MODELS is not set");
        eprintln!("SKIPPED: set SECATEUR_MODELS to the folder of the networks");
        return None;
    };
    let file = models.join("resnet20.onnx").canonicalize().unwrap();
    let scene = out.with_extension("ron");
    let text = format!(
        "(version: 1, seed: 1, networks: [(name: \"net\", file: {file:?})], datasets: [(name: \"cifar10\", source: Cifar10)], \
         budgets: [Macs(ratio: 0.5), Params(ratio: 0.5), Macs(ratio: 1.0)], protocol: Full, walks_per_task: 2, \
         finalists: 1, images: (reward: 120, calibration: 120, walk: 60, refit: 120), controls: [])"
    );
    fs::write(&scene, text).unwrap();
    let output = secateur(&["run", scene.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(file)
}

#[test]
fn a_run_leaves_the_users_document_with_fewer_channels_and_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let Some(source) = pruned_resnet(&out) else { return };
    let original = document(&source);
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["warnings"].as_array().unwrap().len(), 0, "{summary}");
    for task in summary["tasks"].as_array().unwrap() {
        let (model, weights) =
            (out.join(task["onnx_file"].as_str().unwrap()), out.join(task["model_file"].as_str().unwrap()));
        assert_eq!(top1(&model), top1(&weights));
        let certificate = json(&model.with_file_name("certificate.json"));
        assert_eq!(certificate["onnx"]["blake3"], blake3::hash(&fs::read(&model).unwrap()).to_hex().to_string());
        assert_eq!((&certificate["onnx"]["macs"], &certificate["onnx"]["params"]), (&task["macs"], &task["params"]));
        assert_eq!(certificate["onnx"]["budgets"], certificate["budgets"]);
        if task["unchanged"] == true {
            assert_eq!(fs::read(&model).unwrap(), fs::read(&source).unwrap(), "nothing was removed");
            continue;
        }
        let written = document(&model);
        assert_eq!(written.graph().node, with_its_constants(&original, &written));
        assert_eq!(
            (&written.graph().input, &written.graph().output),
            (&original.graph().input, &original.graph().output)
        );
        assert_eq!(written.property("secateur.mean"), Some("[0.485,0.456,0.406]"));
        let facts = Facts::of(&written, None).unwrap();
        assert!(facts.macs(&written) < Facts::of(&original, None).unwrap().macs(&original));
    }
}

/// The original's nodes, with those constants, counts and copied inputs that the written document has in their place.
fn with_its_constants(original: &OnnxDocument, written: &OnnxDocument) -> Vec<secateur::onnx::schema::NodeProto> {
    let mut nodes = original.graph().node.clone();
    for (node, now) in nodes.iter_mut().zip(&written.graph().node) {
        assert_eq!((node.name(), node.op_type(), &node.output), (now.name(), now.op_type(), &now.output));
        node.attribute.clone_from(&now.attribute);
        node.input.clone_from(&now.input);
    }
    nodes
}

/// The network of the quickstart as a document, BatchNorm and all: nothing but the repository is needed.
fn quickstart_as_onnx(folder: &Path) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/shapes.safetensors");
    let network = secateur::run::load_network(&shipped, None, None).unwrap();
    let file = folder.join("shapes.onnx");
    fs::write(&file, OnnxDocument::of_network(&network.original, "shapes").unwrap().to_bytes()).unwrap();
    let scene = folder.join("scene.ron");
    let (mean, std) = (&network.preprocessing.mean, &network.preprocessing.std);
    let text = format!(
        "(version: 1, seed: 1, networks: [(name: \"net\", file: \"./shapes.onnx\", mean: {mean:?}, std: {std:?})], \
         datasets: [(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 200))], \
         budgets: [Macs(ratio: 0.5), Params(ratio: 0.5), Params(ratio: 0.9725)], walks_per_task: 2, finalists: 1, \
         images: (reward: 120, calibration: 120, walk: 60, refit: 120), controls: [])"
    );
    fs::write(&scene, text).unwrap();
    scene
}

/// A BatchNorm has a scale and a shift for each channel, a folded one a bias: under a budget in parameters it goes.
#[test]
fn norms_stay_in_the_document_where_the_budget_allows() {
    let folder = tempfile::tempdir().unwrap();
    let (scene, out) = (quickstart_as_onnx(folder.path()), folder.path().join("out"));
    let output = secateur(&["run", scene.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["warnings"].as_array().unwrap().len(), 0, "{summary}");
    let n_norms = |document: &OnnxDocument| {
        document.graph().node.iter().filter(|node| node.op_type() == "BatchNormalization").count()
    };
    let n_given = n_norms(&document(&folder.path().join("shapes.onnx")));
    let mut n_left = Vec::new();
    for task in summary["tasks"].as_array().unwrap() {
        let model = out.join(task["onnx_file"].as_str().unwrap());
        let certificate = json(&model.with_file_name("certificate.json"));
        assert_eq!(certificate["onnx"]["budgets"][0]["ok"], true);
        assert_eq!(certificate["onnx"]["macs"], task["macs"]);
        n_left.push(n_norms(&document(&model)));
        let network = secateur::run::load_network(&model, None, None).unwrap();
        let weights = secateur::run::load_network(&out.join(task["model_file"].as_str().unwrap()), None, None).unwrap();
        assert_eq!(network.preprocessing, weights.preprocessing, "the model says what images it expects");
    }
    assert!(n_given > 5, "{n_given} norms");
    // The last budget has room for all channels, and for none of the norms.
    assert_eq!((n_left[0], n_left[2]), (n_given, 0));
}

/// The certificate names the bytes of both models, so equal certificates are equal files.
#[test]
fn models_are_the_same_for_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let scene = quickstart_as_onnx(folder.path());
    let models = ["1", "2"].map(|threads| {
        let out = folder.path().join(threads);
        let output = secateur(&["run", scene.to_str().unwrap(), "--threads", threads, "--out", out.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(out.join("tasks/net-shapes-macs0.5/model.onnx")).unwrap()
    });
    assert_eq!(models[0], models[1]);
}

/// A network that takes images of any size, with a size in its file and without.
fn textures_of_fixed_and_open_size(folder: &Path) -> [PathBuf; 2] {
    use secateur::onnx::schema::tensor_shape_proto::dimension::Value as Extent;
    use secateur::onnx::schema::type_proto::Value as Kind;

    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/textures.safetensors");
    let network = secateur::run::load_network(&shipped, None, None).unwrap();
    let mut model = OnnxDocument::of_network(&network.original, "textures").unwrap().model().clone();
    let files = ["fixed.onnx", "open.onnx"].map(|name| folder.join(name));
    fs::write(&files[0], prost::Message::encode_to_vec(&model)).unwrap();
    let graph = model.graph.as_mut().unwrap();
    graph.value_info.clear();
    let Some(Kind::TensorType(image)) = graph.input[0].r#type.as_mut().unwrap().value.as_mut() else { unreachable!() };
    for (dim, name) in image.shape.as_mut().unwrap().dim[2..].iter_mut().zip(["rows", "cols"]) {
        dim.value = Some(Extent::DimParam(name.into()));
    }
    fs::write(&files[1], prost::Message::encode_to_vec(&model)).unwrap();
    files
}

#[test]
fn a_size_that_the_file_leaves_open_is_told_and_can_be_set() {
    let folder = tempfile::tempdir().unwrap();
    let [fixed, open] = textures_of_fixed_and_open_size(folder.path());
    let (open, fixed) = (open.to_str().unwrap(), fixed.to_str().unwrap());
    let eval = |network: &str, size: &[&str]| {
        let output = secateur(&[&["eval", network, "--dataset", "textures", "--limit", "100"], size].concat());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let usual = eval(open, &[]);
    assert!(usual.contains("3x224x224") && usual.contains("--size 32x32"), "{usual}");
    let top1 = |text: &str| text.lines().find(|line| line.starts_with("top1")).map(str::to_owned);
    let set = eval(open, &["--size", "32"]);
    assert!(top1(&set).is_some() && top1(&set) == top1(&eval(fixed, &[])), "{set}");
    let misplaced = eval(fixed, &["--size", "32x48"]);
    assert!(misplaced.contains("fixes its images at 3x32x32"), "{misplaced}");
    for bad in ["0", "32x", "axb", "99999"] {
        assert!(eval(open, &["--size", bad]).contains("rows x columns"), "{bad}");
    }
}
