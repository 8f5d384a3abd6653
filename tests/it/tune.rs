//! `tune` through the binary, on drawn images and the shipped networks.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const NETWORK: &str = "scenes/quickstart/shapes.safetensors";

fn tune(dir: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    let [out, json] = ["tuned.safetensors", "report.json"].map(|name| dir.join(name));
    let common = ["--dataset", "shapes", "--limit", "300", "--batch", "32", "--no-flip"];
    let held_out = if extra.contains(&"--held-out") { &[][..] } else { &["--held-out", "100"] };
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.args(["tune", NETWORK]).args(common).args(held_out).args(extra);
    command.arg("--out").arg(out).arg("--json").arg(json).output().unwrap()
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
