//! The main job through the binary, on the shipped quickstart networks with few walks.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use secateur::formats::{Preprocessing, write_network};
use secateur::kernels::Precision;
use secateur::net::random::with_random_weights;
use secateur::net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape};
use secateur::run::load_network;
use serde_json::Value;

/// Small enough for the dev profile: two tasks, few walks and images.
const SMALL: [&str; 7] = [
    "budgets=[Macs(ratio: 0.6)]",
    "walks_per_task=12",
    "actors_per_task=2",
    "finalists=2",
    "images=(reward: 120, calibration: 120, walk: 40, refit: 120)",
    "controls=[Uniform, Random(candidates: 4)]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 200)),
               (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 400, test: 200))]",
];

fn scene() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")
}

fn run(program: &Path, out: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("run").arg(scene()).arg("--out").arg(out);
    for set in SMALL {
        command.args(["--set", set]);
    }
    command.args(extra).output().unwrap()
}

fn secateur() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_secateur"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Without the keys that may differ between equal runs.
fn without_times(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !key.ends_with("_s"));
    }
    value
}

#[test]
fn a_run_leaves_networks_within_budget_and_is_the_same_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    for (out, threads) in [(&one, "1"), (&two, "2")] {
        let output = run(&secateur(), out, &["--threads", threads]);
        assert!(output.status.success(), "{}", stderr(&output));
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.contains("over uniform") && table.contains("shapes-shapes-macs0.6"), "{table}");
    }
    let summary = json(&one.join("summary.json"));
    assert_eq!(without_times(summary.clone()), without_times(json(&two.join("summary.json"))));
    assert_eq!(summary["walks"], 24);
    assert_eq!(summary["controls"].as_array().unwrap().len(), 4);
    for task in summary["tasks"].as_array().unwrap() {
        let file = one.join(task["model_file"].as_str().unwrap());
        let certificate = json(&file.with_file_name("certificate.json"));
        assert_eq!(certificate["budgets"][0]["ok"], true);
        assert_eq!(certificate["macs"], task["macs"]);
        assert_eq!(certificate["params"], task["params"]);
        assert!(task["macs"].as_u64().unwrap() <= task["budget"]["max"].as_u64().unwrap());
        assert!(task["test_accuracy_after_tuning"].is_null());
        let other = fs::read(two.join(task["model_file"].as_str().unwrap())).unwrap();
        assert_eq!(fs::read(&file).unwrap(), other, "written networks differ");
        let plan = one.join(task["plan_file"].as_str().unwrap());
        assert_eq!(plan, file.with_file_name("plan.json"));
        assert_eq!(fs::read(&plan).unwrap(), fs::read(two.join(task["plan_file"].as_str().unwrap())).unwrap());
        assert_eq!(json(&plan)["network"], task["network"]);
        assert_eq!(fs::read_to_string(file.with_file_name("cut.py")).unwrap(), secateur::run::CUT_SCRIPT);
    }
    let metrics = fs::read_to_string(one.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["schema"], 1);
    let of = |agent: &str| lines.iter().filter(|l| l["event"] == "candidate" && l["agent"] == agent).count();
    assert_eq!([of("mtacp"), of("random"), of("uniform")], [24, 8, 2]);
    assert!(lines.iter().any(|l| l["event"] == "learned"));
    // The resolved scene is a scene.
    let check = Command::new(secateur()).arg("check").arg(one.join("scene.ron")).output().unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
}

#[test]
fn walks_are_scored_in_bf16_when_the_scene_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = run(&secateur(), &out, &["--set", "precision=Bf16"]);
    if Precision::Bf16.is_available() {
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(json(&out.join("summary.json"))["precision"], "bf16");
        assert!(String::from_utf8_lossy(&output.stdout).contains("candidates scored in bf16"));
    } else {
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("precision bf16: this processor does not have AVX512-BF16"));
        assert!(!out.exists());
    }
}

#[test]
fn a_written_network_evaluates_to_the_accuracy_in_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let sets = ["--set", "controls=[]", "--set", "agent=Uniform"];
    assert!(run(&secateur(), &out, &sets).status.success());
    let summary = json(&out.join("summary.json"));
    let task = &summary["tasks"][0];
    let eval = Command::new(secateur())
        .arg("eval")
        .arg(out.join(task["model_file"].as_str().unwrap()))
        .args(["--dataset", "shapes:1", "--limit", "200"])
        .output()
        .unwrap();
    let text = String::from_utf8(eval.stdout).unwrap();
    let last = text.lines().last().unwrap();
    let accuracy = task["test_accuracy_before_tuning"].as_f64().unwrap();
    assert_eq!(last, format!("top1 {accuracy:.4} ({} of 200)", (accuracy * 200.0).round() as u32));
}

#[test]
fn a_run_directory_that_is_not_empty_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let output = run(&secateur(), dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not an empty directory"), "{}", stderr(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Ctrl-C once the search has found something.
#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_the_best_so_far_and_says_so() {
    use std::time::{Duration, Instant};
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut command = Command::new(secateur());
    command.arg("run").arg(scene()).arg("--out").arg(&out).arg("--quiet");
    for set in SMALL.iter().chain(&["walks_per_task=1000000", "controls=[]"]) {
        command.args(["--set", set]);
    }
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let both_found = |text: String| ["shapes-shapes", "textures-textures"].iter().all(|t| text.contains(t));
    while !fs::read_to_string(out.join("metrics.jsonl")).is_ok_and(both_found) {
        assert!(begun.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(), "no candidate");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let summary = json(&out.join("summary.json"));
    assert_eq!(summary["interrupted"], true);
    for task in summary["tasks"].as_array().unwrap() {
        let file = out.join(task["model_file"].as_str().unwrap());
        assert_eq!(json(&file.with_file_name("certificate.json"))["budgets"][0]["ok"], true);
    }
    assert_eq!(summary["tasks"].as_array().unwrap().len(), 2);
}

/// The example program, built as `cargo test` without a filter would have done.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--workspace", "--example", name]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    profile.join("examples").join(name)
}

#[test]
fn the_example_plugin_changes_rewards_through_the_whole_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let program = example("activation_penalty");
    let rewards = |out: &str, extra: &[&str]| -> Vec<(f64, f64)> {
        let out = dir.path().join(out);
        let output = run(
            &program,
            &out,
            &[&["--set", "agent=Random", "--set", "controls=[]", "--set", "reward=Accuracy"], extra].concat(),
        );
        assert!(output.status.success(), "{}", stderr(&output));
        let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let lines = metrics.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        let candidates = lines.filter(|l| l["event"] == "candidate");
        candidates.map(|l| (l["reward"].as_f64().unwrap(), l["accuracy"].as_f64().unwrap())).collect()
    };
    let plain = rewards("plain", &[]);
    assert!(plain.iter().all(|(reward, accuracy)| (reward - accuracy).abs() < 1e-6));
    let paid = rewards("paid", &["--set", "plugins={\"activation_penalty\": (weight: 0.5)}"]);
    assert!(
        paid.iter().all(|(reward, accuracy)| (0.0..=0.5 + 1e-6).contains(&(accuracy - reward)) && reward < accuracy)
    );
}

#[test]
fn plugins_that_are_unknown_or_misconfigured_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let sets = ["--set", "plugins={\"activation_penalty\": (weight: 0.5)}"];
    let output = run(&secateur(), &out, &sets);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("unknown plugin 'activation_penalty'"), "{}", stderr(&output));
    let sets = ["--set", "plugins={\"activation_penalty\": (wait: 0.5)}"];
    let output = run(&example("activation_penalty"), &out, &sets);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("quickstart.ron:") && stderr(&output).contains("weight"), "{}", stderr(&output));
    assert!(!out.exists());
}

/// Convolutions and a classifier without any bias or BatchNorm, on 3x32x32 images, written beside the scenes of a test.
fn write_without_biases(path: &Path) -> Network {
    let mut b = GraphBuilder::new(Shape { c: 3, h: 32, w: 32 });
    let mut last = 0;
    for (name, c, n) in [("a", 3, 8), ("b", 8, 12)] {
        last = b.push(name, Op::Conv2d(Conv2d::square(c, n, 3, 2, 1)), &[last]);
        last = b.push(format!("{name}.relu"), Op::Pointwise(Pointwise::Relu), &[last]);
    }
    last = b.push("mean", Op::GlobalAvgPool, &[last]);
    b.push("fc", Op::Linear { in_features: 12, out_features: 10, bias: false }, &[last]);
    let network = with_random_weights(b.finish().unwrap(), 3);
    let preprocessing = Preprocessing::new(vec![0.5; 3], vec![0.25; 3]).unwrap();
    write_network(path, &network, &preprocessing).unwrap();
    network
}

/// Runs a scene of `networks` with `budgets` on few images; returns the summary and its folder.
fn run_on_shapes(dir: &Path, networks: &str, budgets: &str) -> (Value, PathBuf) {
    let scene = dir.join("scene.ron");
    let text = format!(
        r#"(version: 1, seed: 3, networks: [{networks}],
            datasets: [(name: "shapes", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 60))],
            budgets: [{budgets}], images: (reward: 60, calibration: 60, walk: 40, refit: 60),
            walks_per_task: 6, finalists: 2, controls: [Uniform, Random(candidates: 2)])"#
    );
    fs::write(&scene, text).unwrap();
    let out = dir.join("out");
    let output = Command::new(secateur()).arg("run").arg(&scene).arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (json(&out.join("summary.json")), out)
}

#[test]
fn a_budget_at_or_above_the_original_returns_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let network = write_without_biases(&dir.path().join("plain.safetensors"));
    let budgets = "Params(ratio: 1.0), Macs(ratio: 1.0), ActivationBytes(ratio: 1.0), Params(max: 99999), Params(ratio: 0.8), Macs(ratio: 0.6)";
    let (summary, out) = run_on_shapes(dir.path(), r#"(name: "plain", file: "./plain.safetensors")"#, budgets);
    let tasks = summary["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 6);
    for (i, task) in tasks.iter().enumerate() {
        let folder = out.join("tasks").join(task["name"].as_str().unwrap());
        let certificate = json(&folder.join("certificate.json"));
        assert_eq!(certificate["budgets"][0]["ok"], true, "{task}");
        let written = load_network(&folder.join("model.safetensors"), None, None).unwrap();
        for cost in ["macs", "params", "activation_bytes"] {
            assert_eq!(task[cost], certificate[cost], "the summary and the file agree: {task}");
        }
        if i < 4 {
            assert_eq!(written.original, network, "{task}");
            assert_eq!((&task["unchanged"], &task["walk_of_best"]), (&Value::Bool(true), &Value::Null));
            assert_eq!(task["original"]["params"], task["params"]);
            assert_eq!(task["test_accuracy_before_tuning"], task["test_accuracy_original"]);
        } else {
            assert_eq!(task["unchanged"], false);
            assert_ne!(written.original, network);
        }
    }
    assert_eq!(summary["walks"], 12, "only two tasks are searched");
    assert_eq!(summary["controls"].as_array().unwrap().len(), 4);
}

#[test]
fn where_every_budget_allows_the_whole_network_nothing_is_searched_and_batch_norm_stays() {
    let dir = tempfile::tempdir().unwrap();
    let given = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/shapes.safetensors");
    let network = format!(r#"(name: "n", file: {given:?})"#);
    let (summary, out) = run_on_shapes(dir.path(), &network, "Macs(ratio: 1.0), Params(ratio: 0.9999)");
    let [as_given, folded] = &summary["tasks"].as_array().unwrap()[..] else { panic!("{summary}") };
    let written = |task: &Value| {
        let path = out.join(task["model_file"].as_str().unwrap());
        load_network(&path, None, None).unwrap()
    };
    let given = load_network(&given, None, None).unwrap();
    assert_eq!(written(as_given).original, given.original);
    assert_eq!(written(folded).original, given.folded, "BatchNorm has more parameters than the biases it folds into");
    assert_eq!((&as_given["unchanged"], &folded["unchanged"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!((&as_given["walk_of_best"], &folded["walk_of_best"]), (&Value::Null, &Value::Null));
    assert!(folded["params"].as_u64() < folded["original"]["params"].as_u64());
    assert_eq!((&summary["walks"], &summary["candidates_scored"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_layer_behind_a_flatten_of_16384_features_is_refitted_and_told_of_beforehand() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = GraphBuilder::new(Shape { c: 3, h: 32, w: 32 });
    let conv = b.push("conv", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(3, 16, 3, 1, 1) }), &[0]);
    let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[conv]);
    let flat = b.push("flat", Op::Flatten, &[relu]);
    b.push("fc", Op::Linear { in_features: 16_384, out_features: 10, bias: true }, &[flat]);
    let network = with_random_weights(b.finish().unwrap(), 3);
    let preprocessing = Preprocessing::new(vec![0.5; 3], vec![0.25; 3]).unwrap();
    write_network(&dir.path().join("wide.safetensors"), &network, &preprocessing).unwrap();
    let (summary, out) = run_on_shapes(dir.path(), r#"(name: "wide", file: "./wide.safetensors")"#, "Macs(ratio: 0.8)");
    let task = &summary["tasks"][0];
    assert!(task["macs"].as_u64() < task["original"]["macs"].as_u64());
    assert!(out.join(task["model_file"].as_str().unwrap()).exists());
    let checked = Command::new(secateur()).arg("check").arg(dir.path().join("scene.ron")).output().unwrap();
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && told.contains("'fc' reads 16384 values"), "{told}");
    assert!(fs::read_to_string(out.join("log.txt")).unwrap().contains("'fc' reads 16384 values"));
}
