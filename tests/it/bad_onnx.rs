//! ONNX files that are no networks, or none that is computed: `inspect`, `eval` and `run` say in one sentence what is in
//! the way and what to do, and leave nothing behind. Every file is made here.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::process::{Command, Output};

use prost::Message;
use secateur::onnx::schema::tensor_proto::DataType;
use secateur::onnx::schema::{ModelProto, NodeProto, OperatorSetIdProto, TensorProto};

#[expect(dead_code, reason = "it serves other tests, too")]
#[path = "../../crates/onnx/tests/it/hand_made.rs"]
pub(crate) mod hand_made;

use hand_made::{external, filled, model, node, numbers, shaped, tensor};
use secateur::onnx::schema::GraphProto;

const SCENE: &str = r#"(
    version: 1, seed: 1, networks: [(name: "net", file: "./bad.onnx")], budgets: [Macs(ratio: 0.5)],
    datasets: [(name: "shapes", source: Procedural(kind: Shapes, seed: 1, train: 30, test: 10))],
    images: (reward: 10, calibration: 10, refit: 10), walks_per_task: 2,
)"#;

/// A classifier of the drawn images: a convolution to `a`, these nodes from `a` to `b`, and ten classes.
fn around(nodes: Vec<NodeProto>) -> GraphProto {
    let last = vec![node("GlobalAveragePool", &["b"], &["c"]), node("Flatten", &["c"], &["d"])];
    GraphProto {
        node: [vec![node("Conv", &["x", "w"], &["a"])], nodes, last, vec![node("MatMul", &["d", "m"], &["y"])]]
            .concat(),
        initializer: vec![filled("w", &[4, 3, 1, 1]), filled("m", &[4, 10])],
        input: vec![shaped("x", &[1, 3, 32, 32])],
        output: vec![shaped("y", &[1, 10])],
        ..Default::default()
    }
}

fn relu() -> NodeProto {
    node("Relu", &["a"], &["b"])
}

/// With another first weight.
fn weighted(weight: TensorProto) -> ModelProto {
    let mut graph = around(vec![relu()]);
    graph.initializer[0] = weight;
    model(graph)
}

fn of_opset(version: i64) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(version) }];
    ModelProto { opset_import, ..model(around(vec![relu()])) }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.0.path().join("inner")).unwrap();
        fs::write(place.0.path().join("outside.bin"), [0; 48]).unwrap();
        fs::write(place.0.path().join("inner/short.bin"), [0; 8]).unwrap();
        fs::write(place.0.path().join("inner/scene.ron"), SCENE).unwrap();
        place
    }

    fn secateur(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command.current_dir(self.0.path().join("inner")).args(arguments).env("NO_COLOR", "1").output().unwrap()
    }

    /// `eval` and `run` refuse the file with exit code 2, one line that has these parts, and nothing written; `inspect`
    /// does the same or shows the same reason.
    fn check(&self, bytes: &[u8], parts: &[&str]) {
        fs::write(self.0.path().join("inner/bad.onnx"), bytes).unwrap();
        let commands: [&[&str]; 2] =
            [&["eval", "bad.onnx", "--dataset", "shapes:1", "--limit", "10"], &["run", "scene.ron", "--out", "out"]];
        for arguments in commands {
            let output = self.secateur(arguments);
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {parts:?}: {message}");
            assert!(output.stdout.is_empty() && !message.contains("panicked"), "{arguments:?}: {message}");
            let sentence: Vec<&str> = message.lines().filter(|line| line.contains("bad.onnx'")).collect();
            let [sentence] = sentence.as_slice() else { panic!("{arguments:?}: one line names the file:\n{message}") };
            parts.iter().for_each(|part| assert!(sentence.contains(part), "'{part}' is not in: {sentence}"));
            assert!(!self.0.path().join("inner/out").exists(), "{arguments:?} left a run directory");
        }
        let output = self.secateur(&["inspect", "--json", "bad.onnx"]);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 2)) && !text.contains("panicked"), "{text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "'{part}' is not in what inspect says: {text}"));
    }

    fn check_model(&self, model: &ModelProto, parts: &[&str]) {
        self.check(&model.encode_to_vec(), parts);
    }
}

#[test]
fn a_sound_file_is_evaluated() {
    let place = Place::new();
    fs::write(place.0.path().join("inner/bad.onnx"), model(around(vec![relu()])).encode_to_vec()).unwrap();
    let output = place.secateur(&["eval", "bad.onnx", "--dataset", "shapes:1", "--limit", "10"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn operations_that_are_not_computed_are_told_by_node_with_what_to_do() {
    let place = Place::new();
    let check = |op: &str, parts: &[&str]| {
        let named = NodeProto { name: Some("culprit".into()), ..node(op, &["a"], &["b"]) };
        place.check_model(&model(around(vec![named])), &[&["node 'culprit'", op], parts].concat());
    };
    check("QLinearConv", &["prune the network in floating point first"]);
    check("QuantizeLinear", &["quantise it afterwards"]);
    check("LSTM", &["is recurrent"]);
    check("GRU", &["is recurrent"]);
    check("If", &["fixed control flow"]);
    let custom = NodeProto { domain: Some("com.acme".into()), name: Some("own".into()), ..relu() };
    place.check_model(&model(around(vec![custom])), &["node 'own' (Relu)", "'com.acme'", "ONNX itself"]);
    let line = vec![node("Reshape", &["a", "flat"], &["r"]), node("Conv", &["r", "line"], &["b"])];
    let mut graph = around(line);
    graph.initializer.extend([numbers("flat", &[1, 4, 1024]), filled("line", &[4, 4, 3])]);
    place.check_model(&model(graph), &["node 2 (Conv)", "over one axis"]);
}

#[test]
fn tensors_and_their_files_are_told_by_name_with_what_to_do() {
    let place = Place::new();
    let kept_in = |location: &str| weighted(external(tensor("w", &[4, 3, 1, 1]), &[("location", location)]));
    place.check_model(&kept_in("gone.bin"), &["tensor 'w'", "'gone.bin' is not there", "put it beside the model"]);
    let absolute = place.0.path().join("outside.bin");
    for location in ["../outside.bin", absolute.to_str().unwrap()] {
        place.check_model(&kept_in(location), &["tensor 'w'", "outside.bin", "outside the folder"]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&absolute, place.0.path().join("inner/link.bin")).unwrap();
        place.check_model(&kept_in("link.bin"), &["tensor 'w'", "link.bin", "outside the folder"]);
    }
    place.check_model(&kept_in("short.bin"), &["tensor 'w'", "48 bytes", "export it again"]);
    for dims in [&[1 << 62, 3, 1, 1][..], &[-4, 3, 1, 1]] {
        place.check_model(&weighted(tensor("w", dims)), &["tensor 'w'", "export it again"]);
    }
    let raw = |n: usize| TensorProto { raw_data: Some(vec![0; n].into()), ..tensor("w", &[4, 3, 1, 1]) };
    place.check_model(&weighted(raw(44)), &["tensor 'w'", "48 bytes", "44", "export it again"]);
    place.check_model(&weighted(tensor("w", &[4, 3, 1, 1])), &["tensor 'w'", "12 elements", "0"]);
    let bytes = TensorProto { data_type: Some(DataType::Uint8.into()), ..raw(12) };
    place.check_model(&weighted(bytes), &["tensor 'w'", "UINT8", "before it is quantised"]);
}

#[test]
fn graphs_that_are_none_are_told_with_what_to_do() {
    let place = Place::new();
    let sound = model(around(vec![relu()])).encode_to_vec();
    place.check(&sound[..sound.len() / 2], &["not an ONNX model", "export it again"]);
    place.check(b"no model at all", &["not an ONNX model", "export it again"]);
    for version in [6, 99] {
        place.check_model(&of_opset(version), &[&format!("operator set {version}"), "opset_version=17"]);
    }
    let circle = vec![node("Add", &["a", "k"], &["b"]), node("Relu", &["b"], &["k"])];
    place.check_model(&model(around(circle)), &["a circle", "node 1 (Add) reads 'k'", "export it again"]);
    place.check_model(&model(around(vec![relu(), relu()])), &["'b' twice", "node 2 (Relu)", "export it again"]);
    let with = |input| model(GraphProto { input, ..around(vec![relu()]) });
    for dims in [&[1, 3, 32][..], &[1, 3, 8, 32, 32]] {
        place.check_model(&with(vec![shaped("x", dims)]), &["input 'x'", &format!("{dims:?}"), "networks of images"]);
    }
    let two = vec![shaped("x", &[1, 3, 32, 32]), shaped("z", &[1, 3, 32, 32])];
    place.check_model(&with(two), &["2 inputs ('x', 'z')", "as constants"]);
    let mut constant = around(vec![relu()]);
    constant.input.clear();
    constant.initializer.push(filled("x", &[1, 3, 32, 32]));
    place.check_model(&model(constant), &["no input", "export it again"]);
    let empty = GraphProto { node: vec![], output: vec![shaped("x", &[1, 3, 32, 32])], ..around(vec![]) };
    place.check_model(&model(empty), &["no node", "nothing to compute or to prune"]);
}
