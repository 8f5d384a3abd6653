//! Winners that a run trains: polished without labels, fine-tuned, and what becomes of those that get no better.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::timeless;

/// One network, few walks, and so few refit images that gradients on all others do better.
const SMALL: [&str; 8] = [
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\")]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 1500, test: 300))]",
    "budgets=[Macs(ratio: 0.3)]",
    "walks_per_task=8",
    "actors_per_task=2",
    "finalists=1",
    "images=(reward: 200, calibration: 50, walk: 20, refit: 50, finalists: 300)",
    "controls=[Uniform]",
];

fn run(out: &Path, sets: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out").arg(out);
    SMALL.iter().chain(sets).for_each(|set| {
        command.args(["--set", set]);
    });
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn events(out: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == kind).collect()
}

#[test]
fn winners_are_polished_and_tuned_and_what_is_written_is_certified_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let sets = [
        "polish=(epochs: 10, batch: 16, rate: 0.0005, controls: true)",
        "tune=(epochs: 3, batch: 32, held_out: 150, crop: 0, flip: false, controls: true)",
    ];
    let output = run(&out, &sets);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = json(&out.join("summary.json"));
    let (task, control) = (&summary["tasks"][0], &summary["controls"][0]);
    // What decides is the reward on images that nothing was learned from.
    let polish = &task["polish"];
    assert_eq!((&polish["images"], &polish["epochs"]), (&1000.into(), &10.into()), "{polish}");
    assert_eq!((&task["tuning"]["images"], &task["tuning"]["epochs"]), (&1350.into(), &3.into()));
    for (stage, key) in [("polish", "test_accuracy_after_polish"), ("tuning", "test_accuracy_after_tuning")] {
        let of = &task[stage];
        let number = |name: &str| of[name].as_f64().unwrap();
        assert_eq!(of["kept"].as_bool().unwrap(), number("held_out_after") > number("held_out_before"), "{of}");
        assert_eq!(task[key].is_number(), of["kept"].as_bool().unwrap());
    }
    assert!(polish["kept"].as_bool().unwrap(), "{polish}");
    let gain = polish["test_paired"]["gain"].as_f64().unwrap();
    let number = |of: &Value, name: &str| of[name].as_f64().unwrap();
    let expected = number(task, "test_accuracy_after_polish") - number(task, "test_accuracy_before_tuning");
    assert!((gain - expected).abs() < 1e-9, "{gain} {expected}");
    assert!(control["test_paired_after_training"].is_object() && control["test_accuracy_after_polish"].is_number());
    // The control's gains are still those before any gradient.
    let gain = number(task, "test_accuracy_before_tuning") - number(control, "test_accuracy_before_tuning");
    assert!((number(control, "test_accuracy_gain") - gain).abs() < 1e-9);
    let file = out.join(task["model_file"].as_str().unwrap());
    let certificate = json(&file.with_file_name("certificate.json"));
    assert_eq!((&certificate["macs"], &certificate["budgets"][0]["ok"]), (&task["macs"], &true.into()));
    assert_eq!(certificate["params"], task["params"]);
    let epochs = events(&out, "epoch");
    assert_eq!(epochs.len(), 2 * (10 + 3));
    assert!(epochs.iter().all(|e| e["stage"] == "polish" || e["held_out"].is_number() && e["accuracy"].is_number()));
    let of_agent = epochs.iter().filter(|e| e["stage"] == "polish" && e["agent"] == "mtacp");
    let losses: Vec<f64> = of_agent.map(|e| number(e, "loss")).collect();
    assert!(losses[9] < losses[0], "{losses:?}");
    assert_eq!(events(&out, "trained").len(), 4);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("polished"), "{table}");
}

#[test]
fn a_training_that_fails_or_does_not_help_leaves_the_network_as_it_was_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, out) = (dir.path().join("plain"), dir.path().join("run"));
    assert!(run(&plain, &["polish=None"]).status.success());
    let written = |out: &Path| fs::read(out.join("tasks/shapes-shapes-macs0.3/model.safetensors")).unwrap();
    for (sets, part) in [
        (["polish=None", "tune=(epochs: 1, batch: 32, rate: 1e30)"], "step 1: the loss or its gradient is not finite"),
        (["polish=(epochs: 1, batch: 32, rate: 1e30)", "tune=None"], "the learning rate rises to"),
        (["polish=None", "tune=(epochs: 1, batch: 32, rate: 0.3)"], "the network stays as it was"),
        (["polish=None", "tune=(epochs: 1, batch: 4000)"], "a step takes 4000"),
        (["polish=(batch: 4000)", "tune=None"], "a step takes 4000"),
    ] {
        let output = run(&out, &sets);
        assert!(output.status.success(), "{sets:?}: {}", stderr(&output));
        let summary = json(&out.join("summary.json"));
        let warnings = summary["warnings"].to_string();
        assert!(warnings.contains(part), "{sets:?}: {warnings}");
        let task = &summary["tasks"][0];
        assert!(task["test_accuracy_after_tuning"].is_null() && task["test_accuracy_after_polish"].is_null());
        assert!(written(&out) == written(&plain), "{sets:?}");
        fs::remove_dir_all(&out).unwrap();
    }
}

/// The candidates of an agent: task, walk, widths, reward.
fn candidates(out: &Path, agent: &str) -> Vec<([Value; 3], f64)> {
    let of = |e: &Value| (["task", "walk", "widths"].map(|key| e[key].clone()), e["reward"].as_f64().unwrap());
    events(out, "candidate").iter().filter(|e| e["agent"] == agent).map(of).collect()
}

/// The iterative team of Q-learners whose networks are as they are cut, and candidates that no score decides about.
const CUT: [&str; 7] = [
    "budgets=[Macs(ratio: 0.5)]",
    "agent=QmixFp(profile: Paper, batch: 2)",
    "selection=L2",
    "repair=Off",
    "images.refit=64",
    "walks_per_task=6",
    "controls=[Random(candidates: 6)]",
];

#[test]
fn candidates_that_are_tuned_before_they_are_scored_score_higher_and_alike_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let run_cut = |name: &str, tune: &str, threads: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_secateur"))
            .arg("run")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron"))
            .args(SMALL.iter().chain(&CUT).chain(&[tune]).flat_map(|set| ["--set", *set]))
            .args(["--threads", threads, "--history", "none", "--out"])
            .arg(out(name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
    };
    let tune = "tune_before_score=(steps: 8, batch: 16, rate: 0.002)";
    run_cut("untuned", "tune_before_score=None", "2");
    run_cut("no steps", "tune_before_score=(steps: 0)", "2");
    run_cut("one", tune, "1");
    run_cut("three", tune, "3");
    // Whatever the threads: the same summary, the same metrics, the same network.
    assert_eq!(timeless::summary(&out("one")), timeless::summary(&out("three")));
    assert_eq!(timeless::events(&out("one")), timeless::events(&out("three")));
    // No step is no tuning.
    for agent in ["qmix_fp", "random"] {
        assert_eq!(candidates(&out("no steps"), agent), candidates(&out("untuned"), agent));
    }
    // The control draws the same candidates, tuned or not; nothing but scores is different.
    let [before, after] = ["untuned", "one"].map(|name| candidates(&out(name), "random"));
    let drawn = |of: &[([Value; 3], f64)]| of.iter().map(|(which, _)| which.clone()).collect::<Vec<_>>();
    assert_eq!(drawn(&before), drawn(&after));
    let mean = |of: &[([Value; 3], f64)]| of.iter().map(|(_, reward)| reward).sum::<f64>() / of.len() as f64;
    assert!(mean(&after) > mean(&before) + 0.02, "{before:?} {after:?}");
    // What it cost is told: steps in the summary, seconds with every candidate.
    let summary = json(&out("one").join("summary.json"));
    assert_eq!(summary["tuning_steps"].as_u64(), Some(8 * summary["candidates_scored"].as_u64().unwrap()));
    assert!(summary["search_times_s"]["qmix_fp"]["tuning"].as_f64().unwrap() > 0.0);
    let seconds = events(&out("one"), "candidate").iter().map(|e| e["tuning_s"].as_f64()).collect::<Vec<_>>();
    assert!(seconds.iter().all(|s| s.is_some_and(|s| s > 0.0)));
    assert!(json(&out("untuned").join("summary.json"))["tuning_steps"].is_null());
    // Winners are those of the final refit, here cut as they were scored first: tuned scores are none of a network that
    // was not tuned.
    let result = events(&out("one"), "result")[0].clone();
    let best = candidates(&out("one"), "qmix_fp").iter().map(|(_, reward)| *reward).fold(0.0, f64::max);
    assert!(result["reward"].as_f64().unwrap() < best, "{result} {best}");
}

#[test]
fn tuning_before_the_score_that_cannot_be_done_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (sets, code, parts) in [
        (&["tune_before_score=(batch: 51)"][..], 2, ["`tune_before_score.batch` is 51", "`images.refit`"]),
        (&["tune_before_score=(batch: 0)"], 2, ["`tune_before_score.batch` is 0", "expected at least 1"]),
        (&["tune_before_score=(batch: 5, rate: 0.0)"], 2, ["`tune_before_score.rate` is 0", "> 0"]),
        (&["tune_before_score=(batch: 5, rate: 1e30)"], 1, ["step ", "try 25"]),
    ] {
        let output = run(&dir.path().join("run"), sets);
        assert_eq!(output.status.code(), Some(code), "{sets:?}: {}", stderr(&output));
        parts.iter().for_each(|part| assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output)));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out");
    let output =
        command.arg(dir.path().join("small")).args(["--set", "tune_before_score=(batch: 256)", "--memory", "20M"]);
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("of its candidates at a time in steps of 256 images"), "{}", stderr(&output));
}

#[test]
fn settings_out_of_range_are_told_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    for (set, part) in [
        ("polish=(epochs: 0)", "`polish.epochs` is 0, expected at least 1"),
        ("polish=(rate: -1.0)", "`polish.rate` is -1, expected a finite number > 0"),
        ("tune=(batch: 0)", "`tune.batch` is 0, expected at least 1"),
        ("tune=(distillation: 1.5)", "`tune.distillation` is 1.5, expected a share from 0 to 1"),
        ("tune=(temperature: 0.0)", "`tune.temperature` is 0, expected a finite number > 0"),
    ] {
        let output = run(&dir.path().join("run"), &[set]);
        assert_eq!(output.status.code(), Some(2), "{set}");
        assert!(stderr(&output).contains(part), "{set}: {}", stderr(&output));
    }
}
