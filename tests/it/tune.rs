//! `tune` through the binary, on drawn images and the shipped networks.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use secateur::formats::{Preprocessing, write_network};
use secateur::net::random::with_random_weights;
use secateur::net::{Graph, GraphBuilder, Op, Shape, arch};
use serde_json::Value;

const NETWORK: &str = "scenes/quickstart/shapes.safetensors";

fn tune_command(dir: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let [out, json] = ["tuned.safetensors", "report.json"].map(|name| dir.join(name));
    let common = ["--dataset", "shapes", "--batch", "32", "--no-flip"];
    let limit = if extra.contains(&"--limit") { &[][..] } else { &["--limit", "300"] };
    let held_out = if extra.contains(&"--held-out") { &[][..] } else { &["--held-out", "100"] };
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["tune", NETWORK]).args(common).args(limit).args(held_out).args(extra);
    command.arg("--out").arg(out).arg("--json").arg(json);
    command
}

fn tune(dir: &Path, extra: &[&str]) -> Output {
    tune_command(dir, extra).output().unwrap()
}

fn error(extra: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = tune(dir.path(), extra);
    assert!(!dir.path().join("tuned.safetensors").exists());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_network_is_tuned_certified_and_the_same_when_it_is_stopped_on_the_way() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let how = ["--teacher", NETWORK, "--rate", "0.001", "--epochs", "2"];
    let output = tune(dirs[0].path(), &how);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |at: usize, name: &str| fs::read(dirs[at].path().join(name)).unwrap();
    let report: Value = serde_json::from_slice(&read(0, "report.json")).unwrap();
    assert_eq!(report["curve"].as_array().unwrap().len(), 2);
    assert!(report["test_accuracy_after"].as_f64().unwrap() > 0.8, "{report}");
    let certificate: Value = serde_json::from_slice(&read(0, "tuned.certificate.json")).unwrap();
    assert_eq!(certificate["macs"], report["macs"]);
    assert!(!dirs[0].path().join("tuned.checkpoint").exists());
    // On one thread; stopped by a file where the network is to be written to, behind the last epoch.
    let blocked = dirs[1].path().join("tuned.safetensors");
    fs::create_dir(&blocked).unwrap();
    let one_thread = [&how[..], &["--threads", "1"]].concat();
    assert_eq!(tune(dirs[1].path(), &one_thread).status.code(), Some(1));
    fs::remove_dir(&blocked).unwrap();
    let output = tune(dirs[1].path(), &[&how[..], &["--resume"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(read(0, "tuned.safetensors") == read(1, "tuned.safetensors"));
}

#[test]
fn what_cannot_be_tuned_is_refused() {
    for (extra, code, part) in [
        (&["--epochs", "1", "--held-out", "280"][..], 2, "do not fill a batch of 32"),
        (&["--epochs", "1", "--memory", "1M"], 2, "training it in steps of 32 images takes"),
        (&["--epochs", "1", "--rate", "0"], 2, "learning rate is 0, expected above 0"),
        (&["--epochs", "1", "--distillation", "1.5"], 2, "share of distillation is 1.5, expected from 0 to 1"),
        (&["--epochs", "1", "--teacher", "nothing.safetensors"], 2, "nothing.safetensors"),
        (&["--epochs", "1", "--rate", "1e30", "--clip", "1e30"], 1, "try"),
    ] {
        let (got, text) = error(extra);
        assert!(got == Some(code) && text.contains(part), "{extra:?}: {got:?} {text}");
    }
}

/// Bytes as a NumPy array.
fn array(shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), elements].concat()
}

#[test]
fn labels_teachers_and_networks_that_do_not_fit_are_told_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let write = |name: &str, graph: Graph| {
        let preprocessing = Preprocessing::new(vec![0.5; 3], vec![0.25; 3]).unwrap();
        write_network(&place(name), &with_random_weights(graph, 1), &preprocessing).unwrap();
    };
    let shape = Shape { c: 3, h: 32, w: 32 };
    write("seven.safetensors", arch::build("resnet20", shape, 7).unwrap());
    let mut bare = GraphBuilder::new(shape);
    let mean = bare.push("mean", Op::GlobalAvgPool, &[0]);
    bare.push("flat", Op::Flatten, &[mean]);
    write("bare.safetensors", bare.finish().unwrap());
    fs::write(place("x.npy"), array("(60, 3, 32, 32)", &[7; 60 * 3 * 32 * 32])).unwrap();
    fs::write(place("three.npy"), array("(60,)", &[[0, 1, 2]; 20].concat())).unwrap();
    fs::write(place("eleven.npy"), array("(60,)", &[[0, 10, 2]; 20].concat())).unwrap();
    let [x, three, eleven] = ["x", "three", "eleven"].map(|name| place(&format!("{name}.npy")).display().to_string());
    let labelled = |labels: &str| format!("arrays:{x},labels={labels},test={x},test_labels={labels},layout=nchw");
    let (seven, bare) = (place("seven.safetensors"), place("bare.safetensors"));
    for (network, dataset, teacher, part) in [
        (NETWORK, "shapes".to_owned(), seven.to_str(), "has 7 outputs"),
        (NETWORK, format!("arrays:{x},test={x},layout=nchw"), None, "label"),
        (NETWORK, labelled(&eleven), None, "labels up to 10, the network has 10 outputs, 0 to 9"),
        (bare.to_str().unwrap(), labelled(&three), None, "it holds no tensor"),
    ] {
        let out = place("tuned.safetensors");
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.args(["tune", network, "--dataset", &dataset, "--epochs", "1", "--batch", "16", "--held-out", "10"]);
        command.args(teacher.iter().flat_map(|teacher| ["--teacher", *teacher]));
        let output = command.arg("--out").arg(&out).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(part), "{part}: {text}");
        assert!(!out.exists() && !out.with_extension("checkpoint").exists());
    }
}

/// The arguments of [`tune`] for a training of many epochs, each done in a moment.
const MANY_EPOCHS: [&str; 6] = ["--rate", "0.001", "--epochs", "12", "--limit", "196"];

/// A training that was killed behind its first epochs, in a folder of its own.
#[cfg(unix)]
fn killed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("tuned.checkpoint");
    let mut child = tune_command(dir.path(), &MANY_EPOCHS).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(checkpoint.exists());
    dir
}

#[cfg(unix)]
#[test]
fn neither_a_full_disk_nor_a_rate_that_is_too_high_costs_the_checkpoint_before() {
    let undisturbed = tempfile::tempdir().unwrap();
    assert!(tune(undisturbed.path(), &MANY_EPOCHS).status.success());
    let dir = killed();
    let checkpoint = dir.path().join("tuned.checkpoint");
    let before = fs::read(&checkpoint).unwrap();
    // No file may have more than 100 blocks of 1024 bytes, as on a disk that is full: the next checkpoint has more.
    let inner = tune_command(dir.path(), &[&MANY_EPOCHS[..], &["--resume"]].concat());
    let mut limited = Command::new("bash");
    limited.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    limited.args(["-c", "ulimit -f 100; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    let output = limited.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("the one before it is still there"), "{text}");
    assert!(text.contains("File too large") && text.contains("tuned.checkpoint"), "{text}");
    assert!(fs::read(&checkpoint).unwrap() == before);
    // Another training in the same place, whose loss is soon no number, leaves it as well, and says that it is there.
    let output = tune(dir.path(), &["--epochs", "1", "--rate", "1e30", "--clip", "1e30"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["the last good checkpoint is", "step 1: the loss or its gradient is not finite", "try 25"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(fs::read(&checkpoint).unwrap() == before);
    // Nothing was lost: it goes on from there, and ends as the one that nothing happened to.
    let output = tune(dir.path(), &[&MANY_EPOCHS[..], &["--resume"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tuned = [&undisturbed, &dir].map(|dir| fs::read(dir.path().join("tuned.safetensors")).unwrap());
    assert!(tuned[0] == tuned[1]);
    assert!(!checkpoint.exists());
}

fn train(dir: &Path, [network, dataset]: [&str; 2], extra: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["train", network, "--dataset", dataset, "--batch", "16", "--no-flip", "--held-out", "100"]);
    command.args(extra).arg("--out").arg(dir.join("trained.safetensors")).output().unwrap()
}

#[test]
fn a_network_learns_from_scratch_with_the_same_result_on_any_number_of_threads() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [json, trained] =
        ["report.json", "trained.safetensors"].map(|name| dirs.each_ref().map(|dir| dir.path().join(name)));
    for (at, n_threads) in ["1", "3"].into_iter().enumerate() {
        let how = ["--epochs", "4", "--limit", "1700", "--crop", "0", "--threads", n_threads, "--json"];
        let output = train(
            dirs[at].path(),
            ["scenes/quickstart/textures.safetensors", "textures"],
            &[&how[..], &[json[at].to_str().unwrap()]].concat(),
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(fs::read(&trained[0]).unwrap() == fs::read(&trained[1]).unwrap());
    let report: Value = serde_json::from_slice(&fs::read(&json[0]).unwrap()).unwrap();
    let accuracy = report["test_accuracy"].as_f64().unwrap();
    // One in ten is told right by chance.
    assert!(accuracy > 0.4, "{report}");
    // The file is a network like any other, with its graph, its BatchNorms and its preprocessing.
    let mut eval = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let output = eval.arg("eval").arg(&trained[0]).args(["--dataset", "textures"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.trim_end().lines().last().unwrap().starts_with(&format!("top1 {accuracy:.4}")), "{text}");
}

#[test]
fn a_named_architecture_is_built_for_the_images_and_other_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = train(dir.path(), ["lenet5", "shapes"], &["--epochs", "1", "--limit", "164", "--rate", "0.01"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let certificate: Value =
        serde_json::from_slice(&fs::read(dir.path().join("trained.certificate.json")).unwrap()).unwrap();
    // Of 32x32 images of three channels: 6 * 76 + 16 * 151 + 120 * (16 * 36 + 1) + 84 * 121 + 10 * 85.
    assert_eq!(certificate["params"], 456 + 2416 + 120 * 577 + 84 * 121 + 850);
    for (network, extra, part) in [
        ("lenet6", &[][..], "lenet5"),
        (NETWORK, &["--size", "16"], "leave --size out"),
        ("vgg16", &["--size", "16"], "features."),
    ] {
        let other = tempfile::tempdir().unwrap();
        let output = train(other.path(), [network, "shapes"], &[&["--epochs", "1"], extra].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(part), "{network}: {text}");
        assert!(!other.path().join("trained.safetensors").exists());
    }
}
