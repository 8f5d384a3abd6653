//! Tasks with several bounds at once, and groups that keep a share of their own, through the binary, on the shipped
//! quickstart networks.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use secateur::run::{PlanReport, Summary};
use serde_json::Value;

use crate::timeless;

/// Three bounds that bind, two groups with a share of their own, few images and walks.
const SMALL: [&str; 10] = [
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"],
                keep: {\"conv2a\": 1.0, \"conv4*\": (min: 0.25, max: 0.75)})]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100))]",
    "budgets=[Budget([Macs(ratio: 0.5), Params(ratio: 0.4), ActivationBytes(ratio: 0.8)])]",
    "protocol=Full",
    "walks_per_task=30",
    "actors_per_task=2",
    "finalists=1",
    "seed=3",
    "images=(reward: 100, calibration: 100, walk: 30, refit: 60)",
    "controls=[Uniform, Random(candidates: 6), Knapsack()]",
];
const KINDS: [&str; 3] = ["macs", "params", "activation_bytes"];

fn command(subcommand: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg(subcommand).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron"));
    // What is set outdoes a budget of the command line.
    let is_wanted = |set: &&str| !(more.contains(&"--budget") && set.starts_with("budgets="));
    for set in SMALL.into_iter().filter(is_wanted) {
        command.args(["--set", set]);
    }
    command.args(more);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(out: &Path, more: &[&str]) -> Output {
    command("run", &[&["--out", out.to_str().unwrap()], more].concat()).output().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn check_kept<'a>(groups: impl Iterator<Item = (&'a str, usize, usize)>) {
    let mut n_checked = 0;
    for (name, channels, kept) in groups {
        let share = kept as f64 / channels as f64;
        let is_kept = match name {
            "conv2a" => share == 1.0,
            "conv4a" | "conv4b" => (0.25..=0.75).contains(&share),
            _ => continue,
        };
        assert!(is_kept, "{name}: {kept} of {channels}");
        n_checked += 1;
    }
    assert!(n_checked >= 3, "{n_checked}");
}

#[test]
fn every_bound_is_met_by_agent_and_controls_and_listed_in_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = run(&out, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary: Summary = serde_json::from_value(json(&out.join("summary.json"))).unwrap();
    let task = &summary.tasks[0];
    assert_eq!(task.name, "shapes-shapes-macs0.5-params0.4-activation_bytes0.8");
    assert_eq!(task.bounds.iter().map(|bound| &*bound.kind).collect::<Vec<_>>(), KINDS);
    assert_eq!((&task.budget.kind, task.budget.max), (&task.bounds[0].kind, task.bounds[0].max));
    let values = [task.macs, task.params, task.activation_bytes];
    let folder = out.join("tasks").join(&task.name);
    let certificate = json(&folder.join("certificate.json"));
    for (place, bound) in task.bounds.iter().enumerate() {
        assert!(bound.value == values[place] && bound.value <= bound.max, "{bound:?}");
        let told = format!("{} <= {}", bound.kind, bound.max);
        assert!(table.contains(&told), "{told}: {table}");
        let certified = &certificate["budgets"][place];
        assert_eq!((&certified["kind"], &certified["ok"]), (&Value::from(&*bound.kind), &Value::Bool(true)));
        assert_eq!((&certified["max"], &certified["value"]), (&Value::from(bound.max), &Value::from(bound.value)));
    }
    // Peak memory of an ONNX model depends on who runs it.
    let of_onnx = certificate["onnx"]["budgets"].as_array().unwrap();
    assert_eq!(
        of_onnx.iter().map(|b| (b["kind"].as_str().unwrap(), &b["ok"])).collect::<Vec<_>>(),
        [("macs", &Value::Bool(true)), ("params", &Value::Bool(true)),]
    );
    check_kept(task.groups.iter().map(|group| (&*group.name, group.channels, group.kept)));
    assert_eq!(summary.controls.len(), 3);
    for control in &summary.controls {
        assert_eq!(control.bounds.len(), 3);
        assert!(control.bounds.iter().all(|bound| bound.value <= bound.max), "{control:?}");
    }
    check_metrics(&out.join("metrics.jsonl"), &summary);
}

/// Every candidate of every agent is within every bound.
fn check_metrics(metrics: &Path, summary: &Summary) {
    let task = &summary.tasks[0];
    let mut n_candidates = 0;
    for line in fs::read_to_string(metrics).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        match event["event"].as_str().unwrap() {
            "candidate" => {
                n_candidates += 1;
                assert_eq!(event["costs"]["macs"], event["macs"]);
                for bound in &task.bounds {
                    assert!(event["costs"][&bound.kind].as_u64().unwrap() <= bound.max, "{event}");
                }
                let widths = event["widths"].as_array().unwrap().iter().map(|width| width.as_u64().unwrap() as usize);
                check_kept(task.groups.iter().zip(widths).map(|(group, width)| (&*group.name, group.channels, width)));
            }
            "result" => assert_eq!(event["bounds"], serde_json::to_value(&task.bounds).unwrap()),
            _ => {}
        }
    }
    assert!(n_candidates >= 38, "{n_candidates}");
}

/// What must not depend on how often a run was stopped.
fn results(out: &Path) -> (Value, Vec<Value>, Vec<u8>) {
    let summary = timeless::summary(out);
    let model = out.join(summary["tasks"][0]["model_file"].as_str().unwrap());
    (summary, timeless::events(out), fs::read(model).unwrap())
}

#[test]
fn a_joint_run_that_is_killed_goes_on_to_the_undisturbed_result() {
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    let start = Instant::now();
    let output = run(&undisturbed, &["--quiet", "--checkpoint-every", "0.05"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (expected, took) = (results(&undisturbed), start.elapsed());
    let mut n_gone_on = 0;
    for place in [0.5, 0.7, 0.85] {
        let out = dir.path().join(format!("killed-{place}"));
        let arguments = ["--quiet", "--checkpoint-every", "0.05", "--out", out.to_str().unwrap()];
        let mut child = command("run", &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + took.mul_f64(place);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(child.kill());
        child.wait().unwrap();
        let output = run(&out, &["--resume", "--threads", "1"]);
        assert!(output.status.success(), "killed at {place}: {}", stderr(&output));
        n_gone_on += u32::from(stderr(&output).contains("going on"));
        assert!(results(&out) == expected, "killed at {place}: another result; {}", stderr(&output));
    }
    assert!(n_gone_on > 0, "no run had a checkpoint to go on from");
}

#[test]
fn a_plan_meets_every_bound_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |more: &[&str]| command("plan", more).env("XDG_CACHE_HOME", dir.path()).output().unwrap();
    let output = plan(&[
        "--json",
        "--weights",
        "equal",
        "--budget",
        "0.6,params=0.4,activation_bytes=60000",
        "--budget",
        "macs=0.6",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: PlanReport = serde_json::from_slice(&output.stdout).unwrap();
    let [joint, single] = &report.tasks[..] else { panic!("{report:?}") };
    assert_eq!((joint.name.as_str(), joint.bounds.len()), ("shapes-shapes-macs0.6-params0.4-activation_bytes60000", 3));
    assert!(single.bounds.is_empty() && joint.gap == Some(0.0), "{report:?}");
    for (bound, value) in joint.bounds.iter().zip([joint.macs, joint.params, joint.activation_bytes]) {
        assert!(bound.value == value && value <= bound.max, "{bound:?}");
    }
    // More bounds leave fewer widths, each of them one that fewer bounds leave, too.
    assert!(joint.predicted_error > single.predicted_error, "{report:?}");
    for task in [joint, single] {
        check_kept(task.groups.iter().map(|group| (&*group.name, group.channels, group.kept)));
    }
    let text = plan(&["--weights", "equal", "--budget", "macs=0.6,params=0.4"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains(" macs, ") && text.contains(" params"), "{text}");
}

#[test]
fn bounds_and_shares_that_cannot_be_met_together_are_refused_with_what_binds() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let both = "budgets=[Budget([Macs(ratio: 0.9), Params(max: 10), ActivationBytes(max: 10)])]";
    let keep = |entries: &str| {
        format!("networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", keep: {{{entries}}})]")
    };
    for (set, words) in [
        // Of three bounds the two that bind, each with its minimum.
        (
            both.to_owned(),
            &["budget of 10 params is below", "budget of 10 activation_bytes is below", "at least `max: "][..],
        ),
        (
            keep("\"conv4a\": 1.0, \"conv3?\": (min: 0.9)"),
            &["params is below the least", "and its `keep`", "no `keep`"],
        ),
        (keep("\"conv5*\": 1.0"), &["`conv5*` matches no group of network 'shapes'", "nearest are `conv"]),
        (keep("\"fc\": 0.5"), &["matches only groups", "'fc' (network output)"]),
        (keep("\"conv4a\": 0.5, \"conv*a\": (min: 0.6)"), &["contradicts", "for group 'conv4a'"]),
        (keep("\"conv4a\": 0.01"), &["has no width that is 0.01 of its 48 channels", "keep_ratio_min 0.1"]),
    ] {
        let output = run(&out, &["--set", &set]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{set}: {message}");
        words.iter().for_each(|words| assert!(message.contains(words), "{set}: {words}: {message}"));
        assert!(!message.contains("budget of 4335638 macs") && !out.exists(), "{message}");
    }
}

/// A group that must lose channels is pruned though the budget would allow it whole.
#[test]
fn a_largest_share_holds_where_the_budget_allows_the_whole_network() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let sets = ["budgets=[Budget([Macs(ratio: 1.0), Params(ratio: 1.0)])]", "walks_per_task=4", "controls=[]"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let output = run(&out, &sets);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Summary = serde_json::from_value(json(&out.join("summary.json"))).unwrap();
    assert!(!summary.tasks[0].unchanged);
    check_kept(summary.tasks[0].groups.iter().map(|group| (&*group.name, group.channels, group.kept)));
}
