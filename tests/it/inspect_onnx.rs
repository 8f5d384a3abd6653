//! `inspect` of ONNX files.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn secateur(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.args(arguments).arg(path).output().unwrap()
}

fn onnx_folder() -> Option<PathBuf> {
    let found = std::env::var_os("SECATEUR_MODELS").map(|models| PathBuf::from(models).join("../onnx"));
    if found.is_none() {
        let is_required = std::env::var("SECATEUR_REQUIRE_DATA").as_deref() == Ok("1");
        assert!(!is_required, "SECATEUR_REQUIRE_DATA=1, but SECATEUR_MODELS is not set");
        eprintln!("SKIPPED: set SECATEUR_MODELS to the folder of the networks, with onnx/ beside it");
    }
    found
}

/// `y = relu(x)`, for `x` of 2 and a symbolic number of rows, in the wire format of protocol buffers.
fn relu(opset: u8) -> Vec<u8> {
    let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
    let value = |name: &[u8]| {
        let shape = [text(1, &text(2, b"rows")), text(1, &[1 << 3, 2])].concat();
        let tensor = [&[1 << 3, 1][..], &text(2, &shape)].concat();
        [text(1, name), text(2, &text(1, &tensor))].concat()
    };
    let node = [text(1, b"x"), text(2, b"y"), text(4, b"Relu")].concat();
    let graph = [text(1, &node), text(11, &value(b"x")), text(12, &value(b"y"))].concat();
    [&[1 << 3, 8][..], &text(2, b"by hand"), &text(7, &graph), &text(8, &[2 << 3, opset])].concat()
}

#[test]
fn ports_operations_and_storage_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relu.ONNX");
    std::fs::write(&path, relu(13)).unwrap();
    let shown = secateur(&["inspect"], &path);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let text = String::from_utf8(shown.stdout).unwrap();
    for part in
        ["operator set 13, IR 8, written by by hand", "input x: rowsx2", "output y: rowsx2", "byte for byte", "Relu"]
    {
        assert!(text.contains(part), "'{part}' is not in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_slice(&secateur(&["inspect", "--json"], &path).stdout).unwrap();
    assert_eq!((&json["operations"]["Relu"], &json["differs_at"]), (&1.into(), &serde_json::Value::Null));
}

#[test]
fn what_is_no_model_ends_with_one_sentence_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.onnx");
    let whole = relu(13);
    let cases: [(&[u8], &str); 4] = [
        (&whole[..20], "not an ONNX model"),
        (b"hello", "not an ONNX model"),
        (b"", "empty"),
        (&relu(6), "operator set 6"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        let shown = secateur(&["inspect"], &path);
        let text = String::from_utf8(shown.stderr).unwrap();
        assert_eq!(shown.status.code(), Some(2), "{text}");
        assert!(text.contains(expected) && text.contains("bad.onnx") && shown.stdout.is_empty(), "{text}");
    }
    std::fs::create_dir(folder.path().join("folder.onnx")).unwrap();
    for name in ["lost.onnx", "folder.onnx"] {
        let shown = secateur(&["inspect"], &folder.path().join(name));
        assert_eq!(shown.status.code(), Some(2));
        assert!(String::from_utf8(shown.stderr).unwrap().contains(name));
    }
}

/// Numbers of parameters as the authors of onnx/INDEX.md counted them, however they are stored.
#[test]
fn weights_of_real_files_are_counted_wherever_they_are() {
    let Some(folder) = onnx_folder() else { return };
    for (name, n_weights) in [
        ("mnist_cntk", 5_994),
        ("ppocr_cls_mobilenetv3", 133_700),
        ("ultraface_rfb_320", 307_624),
        ("nanodet_m", 926_120),
        ("pplcnet_orientation", 1_687_589),
    ] {
        // A name under the model root, as for any other network.
        let root = folder.to_str().unwrap();
        let shown = secateur(&["inspect", "--json", "--model-root", root], Path::new(&format!("{name}.onnx")));
        let json: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(json["weights"], n_weights, "{name}");
    }
}
