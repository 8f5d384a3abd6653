//! `retarget`: other budgets by the policy of an earlier run, through the whole command line.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::timeless;

fn secateur(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secateur")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A run of few walks.
fn run(out: &Path, extra: &[&str]) {
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let sets = [
        "budgets=[Macs(ratio: 0.5), Macs(ratio: 0.7)]",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100))]",
        "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]",
        "images=(reward: 100, calibration: 100, walk: 30, refit: 60, probe: 50)",
        "walks_per_task=12",
        "finalists=1",
        "controls=[]",
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(scene).arg("--out").arg(out).arg("--quiet");
    for set in sets.iter().chain(extra) {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

fn results(out: &Path) -> (Value, Vec<Value>, Vec<u8>) {
    let summary = timeless::summary(out);
    let model = fs::read(out.join(summary["tasks"][0]["model_file"].as_str().unwrap())).unwrap();
    (summary, timeless::events(out), model)
}

#[test]
fn policies_of_agents_that_learn_by_deterministic_gradients_answer_too() {
    for agent in ["Amc()", "Cacp()"] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        run(dir.path().join("run").as_path(), &[&format!("agent={agent}")]);
        let output =
            secateur(&["retarget", &path("run"), "--budget", "0.6", "--candidates", "2", "--out", &path("one")]);
        assert!(output.status.success(), "{agent}: {}", stderr(&output));
        let (summary, ..) = results(&dir.path().join("one"));
        let task = &summary["tasks"][0];
        assert!(task["macs"].as_u64().unwrap() <= task["budget"]["max"].as_u64().unwrap(), "{agent}: {task}");
        assert_eq!(summary["learner_updates"], 0, "{agent}");
    }
}

#[test]
fn a_budget_that_was_not_in_the_scene_is_answered_by_the_policy_and_certified() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    run(dir.path().join("run").as_path(), &[]);
    for (out, threads) in [("one", "1"), ("two", "2")] {
        let given = ["retarget", &path("run"), "--budget", "0.6", "--budget", "0.42", "--candidates", "3"];
        let output = secateur(&[&given[..], &["--out", &path(out), "--threads", threads]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stderr(&output).contains("answered in "), "{}", stderr(&output));
    }
    let found = results(&dir.path().join("one"));
    assert!(found == results(&dir.path().join("two")), "another number of threads, another answer");
    let (summary, events, _) = found;
    let tasks = summary["tasks"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().map(|task| task["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shapes-shapes-macs0.6", "shapes-shapes-macs0.42"]);
    for task in tasks {
        assert!(task["macs"].as_u64().unwrap() <= task["budget"]["max"].as_u64().unwrap());
        let folder = dir.path().join("one/tasks").join(task["name"].as_str().unwrap());
        let certificate: Value = serde_json::from_slice(&fs::read(folder.join("certificate.json")).unwrap()).unwrap();
        assert_eq!(certificate["budgets"][0]["ok"], true, "{certificate}");
    }
    assert_eq!((&summary["walks"], &summary["learner_updates"]), (&Value::from(6), &Value::from(0)));
    let walks = events.iter().filter(|event| event["event"] == "candidate");
    let noise_free: Vec<u64> =
        walks.filter(|walk| walk["noise_free"] == true).map(|walk| walk["walk"].as_u64().unwrap()).collect();
    assert_eq!(noise_free, [2, 2], "the last of each task is the policy's own");

    // A budget that was learned is answered as the run's last noise-free walks did.
    let output = secateur(&["retarget", &path("run"), "--budget", "0.7", "--candidates", "1", "--out", &path("same")]);
    assert!(output.status.success(), "{}", stderr(&output));
    let of_policy = |events: &[Value], task: &str| {
        let own =
            |event: &&Value| event["event"] == "candidate" && event["task"] == task && event["noise_free"] == true;
        events.iter().rev().find(own).unwrap()["widths"].clone()
    };
    let (before, after) = (timeless::events(&dir.path().join("run")), timeless::events(&dir.path().join("same")));
    assert_eq!(of_policy(&after, "shapes-shapes-macs0.7"), of_policy(&before, "shapes-shapes-macs0.7"));
}

#[test]
fn a_run_without_a_policy_that_fits_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    run(dir.path().join("random").as_path(), &["agent=Random"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    let refused = |run: &str, extra: &[&str]| {
        let output = secateur(&[&["retarget", run, "--budget", "0.6", "--out", &path("none")], extra].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(!dir.path().join("none").exists());
        stderr(&output)
    };
    let told = refused(&path("random"), &[]);
    assert!(told.contains("has no policy.safetensors: its agent, random, learns no policy"), "{told}");
    for missing in ["empty", "nowhere"] {
        let told = refused(&path(missing), &[]);
        assert!(told.contains("is not the directory of a run that came to its end"), "{told}");
    }
    let told = refused(&path("random"), &["--budget", "2x"]);
    assert!(told.contains("expected macs"), "{told}");
}
