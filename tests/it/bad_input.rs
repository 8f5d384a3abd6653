//! The binary on input it must refuse: what it says, how it ends, and that it leaves nothing behind. Needs no data:
//! every file is made here.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use secateur::formats::{Preprocessing, write_network};
use secateur::net::random::with_random_weights;
use secateur::net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape};

/// A scene, a small network `net.safetensors` and a small CIFAR-10 in a folder of their own.
struct Workplace(tempfile::TempDir);

const SCENE: &str = r#"(
    version: 1,
    seed: 1,
    networks: [(name: "net", file: "net.safetensors")],
    datasets: [(name: "cifar10", source: Cifar10)],
    budgets: [Macs(ratio: 0.5)],
    images: (reward: 5, calibration: 5, refit: 5),
    walks_per_task: 2,
)"#;

impl Workplace {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(place.path("data/cifar-10-batches-bin")).unwrap();
        fs::create_dir(place.path("models")).unwrap();
        place.write_scene(SCENE);
        place.write_network(&small_network());
        for file in (1..=5).map(|i| format!("data_batch_{i}")).chain(["test_batch".to_owned()]) {
            place.write_records(&file, &[3u8; 3073].repeat(4));
        }
        place
    }
    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }
    fn write_scene(&self, text: &str) {
        fs::write(self.path("scene.ron"), text).unwrap();
    }
    fn write_network(&self, network: &Network) {
        write_network(&self.path("models/net.safetensors"), network, &Preprocessing::imagenet()).unwrap();
    }
    fn write_records(&self, file: &str, bytes: &[u8]) {
        fs::write(self.path(&format!("data/cifar-10-batches-bin/{file}.bin")), bytes).unwrap();
    }
    fn secateur(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command.current_dir(self.0.path()).args(arguments);
        command.env("SECATEUR_DATA", self.path("data")).env("SECATEUR_MODELS", self.path("models"));
        command.env("XDG_CACHE_HOME", self.path("cache")).env("NO_COLOR", "1").output().unwrap()
    }
    /// Every file and folder, to see that nothing was added.
    fn listing(&self) -> Vec<PathBuf> {
        fn visit(folder: &Path, out: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    visit(&path, out);
                }
                out.push(path);
            }
        }
        let mut out = Vec::new();
        visit(self.0.path(), &mut out);
        out.sort();
        out
    }
    /// The command ends with exit code 2, says all of `parts` on stderr, nothing on stdout, and writes nothing.
    fn check_refusal(&self, arguments: &[&str], parts: &[&str]) {
        let before = self.listing();
        let output = self.secateur(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: expected '{part}' in:\n{message}");
        }
        assert!(!message.contains("panicked"), "{message}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}:\n{message}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {:?}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(self.listing(), before, "{arguments:?}");
    }
    /// The scene is refused alike by `check` and by `run`.
    fn check_scene_refusal(&self, parts: &[&str]) {
        self.check_refusal(&["check", "scene.ron"], parts);
        self.check_refusal(&["run", "scene.ron", "--out", "out"], parts);
    }
}

/// Two convolutions, the first of which may be pruned: 3x32x32 to 10 classes.
fn small_network() -> Network {
    let mut g = GraphBuilder::new(Shape { c: 3, h: 32, w: 32 });
    let first = g.push("first", Op::Conv2d(Conv2d::square(3, 8, 3, 2, 1)), &[0]);
    let norm = g.push("norm", Op::BatchNorm { channels: 8, eps: 1e-5 }, &[first]);
    let relu = g.push("relu", Op::Pointwise(Pointwise::Relu), &[norm]);
    let second = g.push("second", Op::Conv2d(Conv2d::square(8, 10, 3, 2, 1)), &[relu]);
    g.push("pool", Op::GlobalAvgPool, &[second]);
    with_random_weights(g.finish().unwrap(), 1)
}

/// The bytes of the small network with `from` in its header replaced by `to` of the same length.
fn with_header_edit(place: &Workplace, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(place.path("models/net.safetensors")).unwrap();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect("the header has the text");
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    bytes
}

#[test]
fn a_sound_scene_passes_the_check_and_leaves_nothing() {
    let place = Workplace::new();
    let before = place.listing();
    let output = place.secateur(&["check", "scene.ron"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("scene.ron is valid, tasks: 1") && text.contains("net-cifar10-macs0.5"), "{text}");
    assert_eq!(place.listing(), before);
}

#[test]
fn a_missing_scene_is_named() {
    let place = Workplace::new();
    place.check_refusal(&["check", "absent.ron"], &["absent.ron", "No such file"]);
    place.check_refusal(&["run", "absent.ron", "--out", "out"], &["absent.ron", "No such file"]);
}

#[test]
fn a_scene_that_is_no_text_is_refused() {
    let place = Workplace::new();
    fs::write(place.path("scene.ron"), [0xff, 0xfe, 0]).unwrap();
    place.check_scene_refusal(&["scene.ron", "UTF-8"]);
}

#[test]
fn an_unknown_field_is_shown_where_it_stands() {
    let place = Workplace::new();
    place.write_scene(&SCENE.replace("walks_per_task", "walks_per_tusk"));
    place.check_scene_refusal(&["scene.ron:8:5", "walks_per_tusk", "walks_per_task"]);
}

#[test]
fn a_missing_network_file_is_shown_with_the_place_looked_at() {
    let place = Workplace::new();
    place.write_scene(&SCENE.replace("net.safetensors", "resnet99.pth"));
    place.check_scene_refusal(&["scene.ron:4:36", "resnet99.pth", "models", "--model-root"]);
    place.check_refusal(&["inspect", "resnet99"], &["'resnet99'", "--model-root"]);
    place.check_refusal(&["eval", "resnet99", "--dataset", "shapes"], &["'resnet99'", ".safetensors"]);
}

#[test]
fn every_problem_of_a_scene_is_told_at_once() {
    let place = Workplace::new();
    place.write_scene(&SCENE.replace("net.safetensors", "absent.pth").replace("reward: 5", "reward: 500"));
    place.check_scene_refusal(&["absent.pth", "20 training images", "asks for 505"]);
}

#[test]
fn a_tensor_of_the_wrong_shape_is_named_with_both_shapes() {
    let place = Workplace::new();
    let bytes = with_header_edit(&place, r#""shape":[8,3,3,3]"#, r#""shape":[3,8,3,3]"#);
    fs::write(place.path("models/net.safetensors"), bytes).unwrap();
    let parts = ["net.safetensors", "'first.weight'", "[8, 3, 3, 3]", "[3, 8, 3, 3]"];
    place.check_scene_refusal(&parts);
    place.check_refusal(&["inspect", "net"], &parts);
}

#[test]
fn truncated_files_are_refused() {
    let place = Workplace::new();
    let bytes = fs::read(place.path("models/net.safetensors")).unwrap();
    fs::write(place.path("models/net.safetensors"), &bytes[..bytes.len() - 10]).unwrap();
    place.check_scene_refusal(&["scene.ron:4:36", "net.safetensors", "bytes of tensors"]);
    place.check_refusal(&["eval", "net", "--dataset", "cifar10"], &["net.safetensors", "bytes of tensors"]);
    place.write_network(&small_network());
    place.write_records("data_batch_3", &[3; 5000]);
    place.check_scene_refusal(&["scene.ron:5:", "data_batch_3.bin", "truncated after 1 whole records"]);
    fs::write(place.path("models/cut.pth"), b"\x80\x02}q\x00").unwrap();
    place.check_refusal(&["inspect", "cut.pth"], &["cut.pth"]);
}

#[test]
fn a_pickle_that_would_run_a_command_is_refused_and_not_run() {
    let place = Workplace::new();
    // torch.save's legacy layout: magic number, protocol version, system information, then the pickle of the object.
    let hello =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";
    let evil = b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch pwned\x85R.";
    fs::write(place.path("models/evil.pth"), [&hello[..], evil].concat()).unwrap();
    place.check_refusal(&["inspect", "evil"], &["'os.system'", "nothing was executed", "evil.pth"]);
    place.write_scene(&SCENE.replace("net.safetensors", "evil.pth"));
    place.check_scene_refusal(&["'os.system'"]);
}

#[test]
fn a_budget_below_the_reachable_minimum_is_refused_with_the_minimum() {
    let place = Workplace::new();
    // MACs: first 8*27*256 = 55,296, second 10*72*64 = 46,080. One channel of eight is the least: an eighth of both,
    // 12,672.
    place.write_scene(&SCENE.replace("0.5", "0.1"));
    place.check_scene_refusal(&["scene.ron:6:27", "10137", "12672", "0.1250", "at least `ratio: 0.125`"]);
    place.write_scene(&SCENE.replace("ratio: 0.5", "max: 12_671"));
    place.check_scene_refusal(&["12672", "at least `max: 12672`"]);
    place.write_scene(&SCENE.replace("ratio: 0.5", "max: 12_672"));
    assert_eq!(place.secateur(&["check", "scene.ron"]).status.code(), Some(0));
}

#[test]
fn a_network_with_nothing_to_prune_is_refused_with_reasons() {
    let place = Workplace::new();
    let mut g = GraphBuilder::new(Shape { c: 3, h: 32, w: 32 });
    let only = g.push("only", Op::Conv2d(Conv2d::square(3, 10, 3, 2, 1)), &[0]);
    g.push("pool", Op::GlobalAvgPool, &[only]);
    place.write_network(&with_random_weights(g.finish().unwrap(), 1));
    place.check_scene_refusal(&["no group that may be pruned", "only (network output)"]);
}

#[test]
fn a_network_and_a_data_set_that_do_not_fit_are_refused() {
    let place = Workplace::new();
    let mut g = GraphBuilder::new(Shape { c: 3, h: 28, w: 28 });
    let first = g.push("first", Op::Conv2d(Conv2d::square(3, 8, 3, 2, 1)), &[0]);
    let second = g.push("second", Op::Conv2d(Conv2d::square(8, 10, 3, 2, 1)), &[first]);
    g.push("pool", Op::GlobalAvgPool, &[second]);
    place.write_network(&with_random_weights(g.finish().unwrap(), 1));
    place.check_scene_refusal(&["scene.ron:4:", "3x28x28", "3x32x32"]);
    place.check_refusal(&["eval", "net", "--dataset", "cifar10"], &["3x28x28", "3x32x32"]);
}

#[test]
fn zero_tasks_are_refused() {
    let place = Workplace::new();
    place.write_scene(&SCENE.replace("[Macs(ratio: 0.5)]", "[]"));
    place.check_scene_refusal(&["scene.ron:6:", "budgets"]);
}

#[test]
fn nan_among_the_weights_is_found_by_name() {
    let place = Workplace::new();
    let mut bytes = fs::read(place.path("models/net.safetensors")).unwrap();
    let n = bytes.len();
    // The last tensor by name is `second.weight`.
    bytes[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(place.path("models/net.safetensors"), bytes).unwrap();
    place.check_scene_refusal(&["'second.weight'", "NaN"]);
    place.check_refusal(&["eval", "net", "--dataset", "cifar10"], &["'second.weight'", "NaN"]);
}

/// Numbers that a file may hold, and whose squares no f32 does.
#[test]
fn an_error_curve_that_is_not_finite_is_named_by_its_group_and_nothing_is_written() {
    let place = Workplace::new();
    let mut network = small_network();
    // What the second takes back, so that the logits are ordinary.
    for (node, factor) in [("first", 1e22), ("second", 1e-22)] {
        let mut weight = network.parameter(node, "weight").clone();
        weight.data_mut().iter_mut().for_each(|w| *w *= factor);
        network.set_parameter(node, "weight", weight).unwrap();
    }
    place.write_network(&network);
    let before = place.listing();
    let plan = ["plan", "scene.ron", "--write", "out"];
    for arguments in [&plan[..], &["inspect", "net", "--curves", "--dataset", "cifar10", "--images", "20"]] {
        let output = place.secateur(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        let parts = ["network 'net'", "the error curve of group 'first' is not finite", "above 1e19"];
        assert!(parts.iter().all(|part| message.contains(part)) && !message.contains("panicked"), "{message}");
        assert_eq!(output.status.code(), Some(1), "{message}");
        let left: Vec<PathBuf> = place.listing().into_iter().filter(|file| !before.contains(file)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn unknown_data_sets_are_refused() {
    let place = Workplace::new();
    place.write_scene(&SCENE.replace("Cifar10", "Cifar11"));
    place.check_scene_refusal(&["scene.ron:5:", "Cifar11", "Cifar10"]);
    place.check_refusal(&["eval", "net", "--dataset", "cifar11"], &["cifar11", "shapes[:SEED]"]);
    fs::remove_file(place.path("data/cifar-10-batches-bin/test_batch.bin")).unwrap();
    place.check_refusal(&["eval", "net", "--dataset", "cifar10"], &["test_batch.bin", "--data-root"]);
}

#[test]
fn edits_that_do_not_fit_the_scene_are_refused() {
    let place = Workplace::new();
    let run =
        |set: &str, parts: &[&str]| place.check_refusal(&["run", "scene.ron", "--out", "out", "--set", set], parts);
    run("sede=1", &["sede"]);
    run("seed", &["expected `path=value`"]);
    run("budgets[7].ratio=0.4", &["budgets", "[7]"]);
    run("budgets[0].ratio=2", &["ratio"]);
    run("seed=\"x\"", &["--set"]);
}

#[test]
fn the_time_between_checkpoints_is_a_number_of_seconds() {
    let place = Workplace::new();
    for bad in ["-1", "soon", "NaN", "inf", "1e9"] {
        let every = format!("--checkpoint-every={bad}");
        place.check_refusal(&["run", "scene.ron", "--out", "out", &every], &["--checkpoint-every", "seconds"]);
    }
}

#[test]
fn malformed_arguments_are_explained() {
    let place = Workplace::new();
    place.check_refusal(&[], &["Usage"]);
    place.check_refusal(&["prune"], &["prune"]);
    place.check_refusal(&["eval", "net"], &["--dataset"]);
    place.check_refusal(&["eval", "net", "--dataset", "cifar10", "--limit", "0"], &["--limit"]);
    place.check_refusal(&["eval", "net", "--dataset", "cifar10", "--threads", "99999"], &["--threads", "1024"]);
    place.check_refusal(&["inspect", "net", "--mean", "0.5,0.5,0.5"], &["--std"]);
    let zero = ["inspect", "net", "--mean", "0,0,0", "--std", "1,0,1"];
    place.check_refusal(&zero, &["std of channel 1"]);
    place.check_refusal(&["inspect", "net", "--mean", "0", "--std", "1"], &["reads 3 channels"]);
    place.check_refusal(&["inspect", "net", "--arch", "resnet20"], &["describes its own graph"]);
}

#[test]
fn eval_ends_with_the_line_that_scripts_read() {
    let place = Workplace::new();
    let output = place.secateur(&["eval", "net", "--dataset", "cifar10", "--limit", "3", "--threads", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(["top1 0.0000 (0 of 3)", "top1 1.0000 (3 of 3)"].contains(&last), "all images are alike: {text}");
}

#[test]
fn inspect_and_doctor_describe_what_is_there() {
    let place = Workplace::new();
    let stdout = |arguments: &[&str]| {
        let output = place.secateur(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = stdout(&["inspect", "net"]);
    assert!(text.contains("first") && text.contains("network output") && text.contains("101376 MACs"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&["inspect", "net", "--json"])).unwrap();
    assert_eq!(json["totals"]["macs"], 101_376);
    assert_eq!(json["groups"][1]["name"], "first");
    assert_eq!(json["reachable"].as_array().unwrap().len(), 18);
    fs::write(place.path("models/broken.pth"), b"x").unwrap();
    let text = stdout(&["doctor"]);
    assert!(text.contains("20 training images, 4 test images") && text.contains("broken.pth: not usable"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&["doctor", "--json"])).unwrap();
    assert_eq!(
        (json["networks"][1]["name"].as_str(), json["networks"][1]["usable"].as_bool()),
        (Some("net.safetensors"), Some(true))
    );
    let bare = stdout(&["doctor", "--data-root", "nowhere", "--model-root", "nowhere"]);
    assert!(bare.contains("to do") && bare.contains("SECATEUR_DATA") && bare.contains("SECATEUR_MODELS"), "{bare}");
}

/// A pipe without a writer and a device without an end, as network, scene and data set.
#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let place = Workplace::new();
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    let not_regular = "a device, a pipe or a socket";
    for file in ["pipe", "/dev/zero"] {
        place.check_refusal(&["eval", file, "--dataset", "cifar10"], &[file, not_regular]);
        place.check_refusal(&["inspect", file], &[file, not_regular]);
        place.check_refusal(&["check", file], &["scene", file, not_regular]);
        place.check_refusal(&["run", file, "--out", "out"], &["scene", file, not_regular]);
    }
    place.check_refusal(&["eval", "models", "--dataset", "cifar10"], &["'models' (a folder)"]);
    fs::remove_file(place.path("data/cifar-10-batches-bin/test_batch.bin")).unwrap();
    fs::rename(place.path("pipe"), place.path("data/cifar-10-batches-bin/test_batch.bin")).unwrap();
    place.check_refusal(&["eval", "net", "--dataset", "cifar10"], &["test_batch.bin", not_regular]);
    place.check_scene_refusal(&["scene.ron:5:", "test_batch.bin", not_regular]);
}

/// Three gigabytes of nothing, under every name that is read.
#[test]
fn sparse_giants_are_refused_by_their_size() {
    let place = Workplace::new();
    for name in ["giant.pth", "giant.safetensors", "giant.ron", "data/cifar-10-batches-bin/test_batch.bin"] {
        fs::File::create(place.path(name)).unwrap().set_len(3 << 30).unwrap();
    }
    for arguments in [
        &["eval", "giant.pth", "--dataset", "cifar10"][..],
        &["inspect", "giant.safetensors"],
        &["check", "giant.ron"],
        &["eval", "net", "--dataset", "cifar10"],
    ] {
        place.check_refusal(arguments, &["3221225472 bytes; at most"]);
    }
}
