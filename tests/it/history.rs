//! What is kept of runs between them: the record of each, and the scores of its candidates.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use secateur::run::{Observer, RunError, RunSpec, Stage, StageKind};
use secateur::sim::PluginList;
use serde_json::Value;

use crate::timeless::{events, summary};

pub(crate) const SCENE: &str = "scenes/quickstart.ron";
/// A run of a few seconds.
pub(crate) const SHORT: &[&str] = &[
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 60))]",
    "budgets=[Macs(ratio: 0.5)]",
    "images=(reward: 60, calibration: 30, walk: 10, refit: 30, probe: 20, finalists: 0)",
    "walks_per_task=8",
    "controls=[Random(candidates: 4)]",
    "finalists=1",
    "refit_in_pairs=false",
];

/// A folder with a history of its own.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("NO_COLOR", "1");
        command.env("SECATEUR_HISTORY", self.at("history.sqlite")).env("XDG_CACHE_HOME", self.at("cache"));
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints that succeeds.
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.said(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Runs the short scene; returns what was said on the way.
    pub(crate) fn run(&self, name: &str, more: &[&str]) -> String {
        let out = self.at(name);
        let sets = SHORT.iter().flat_map(|set| ["--set", *set]);
        let arguments: Vec<&str> = ["run", SCENE, "--out", out.to_str().unwrap()]
            .into_iter()
            .chain(sets)
            .chain(more.iter().copied())
            .collect();
        let output = self.output(&arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        told
    }
}

fn metrics_of(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["event"] == "candidate")
        .collect()
}

#[test]
fn a_run_is_recorded_shown_exported_and_forgotten() {
    let place = Place::new();
    let none_yet = place.output(&["history", "list"]);
    assert_eq!(none_yet.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none_yet.stderr).contains("history import"));
    place.run("first", &[]);
    let runs = place.json(&["history", "list"]);
    let run = &runs[0];
    let n_walks = metrics_of(&place.at("first")).len();
    assert_eq!((&run["id"], &run["status"], &run["tasks"]), (&1.into(), &"finished".into(), &1.into()));
    assert_eq!(run["walks"], n_walks);
    let found = summary(&place.at("first"));
    for name in ["1", place.at("first").to_str().unwrap()] {
        let shown = place.json(&["history", "show", name]);
        assert_eq!(shown["results"][0]["macs"], found["tasks"][0]["macs"]);
        assert_eq!(shown["results"][0]["test_accuracy"], found["tasks"][0]["test_accuracy_before_tuning"]);
        let policy = fs::read(shown["policy"].as_str().unwrap()).unwrap();
        assert_eq!(policy, fs::read(place.at("first/policy.safetensors")).unwrap());
        assert_eq!(shown["build"].as_str().unwrap().len(), 64);
        assert_eq!(shown["results"][0]["network_content"], blake3_of("scenes/quickstart/shapes.safetensors"));
    }
    assert!(place.said(&["history", "show", "1"]).contains("shapes-shapes-macs0.5"));
    let unknown = place.output(&["history", "show", "7"]);
    assert!(unknown.status.code() == Some(2) && String::from_utf8_lossy(&unknown.stderr).contains("history list"));
    let csv = place.at("csv");
    place.said(&["history", "export", "--csv", csv.to_str().unwrap()]);
    let text = fs::read_to_string(csv.join("walks.csv")).unwrap();
    assert_eq!(text.lines().count(), n_walks + 1);
    assert!(fs::read_to_string(csv.join("layers.csv")).unwrap().contains("conv2a,Conv2d,\"[16,16,3,3]\""));
    let pruned = place.json(&["history", "prune", "--older-than", "1h"]);
    assert_eq!(pruned["runs"], 0);
    let pruned = place.json(&["history", "prune", "--older-than", "0d"]);
    assert_eq!((&pruned["runs"], &pruned["networks"], &pruned["policies"]), (&1.into(), &1.into(), &1.into()));
    assert!(place.at("first/summary.json").exists());
    // Forgotten, and taken in again.
    let again = place.said(&["history", "import", place.at("first").to_str().unwrap()]);
    assert!(again.contains("is run"), "{again}");
    assert_eq!(place.json(&["history", "list"])[0]["walks"], n_walks);
}

fn blake3_of(file: &str) -> String {
    blake3::hash(&fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()).to_hex().to_string()
}

#[test]
fn a_history_that_cannot_be_used_is_told_and_the_run_goes_on() {
    let place = Place::new();
    fs::write(place.at("history.sqlite"), "no data base at all, but long enough to be taken for one. ".repeat(40))
        .unwrap();
    let told = place.run("damaged", &[]);
    assert!(told.contains("is damaged") && told.contains("is not recorded"), "{told}");
    assert_eq!(told.matches("is not recorded").count(), 1, "{told}");
    let nowhere = place.run("nowhere", &["--history", "/proc/nowhere/history.sqlite"]);
    assert!(nowhere.contains("'/proc/nowhere'") && nowhere.contains("is not recorded"), "{nowhere}");
    assert_eq!(summary(&place.at("damaged")), summary(&place.at("nowhere")));
    // Switched off, in either way, nothing is said, and no file is made.
    for off in [["--history", "none"], ["--set", "history=None"]] {
        let told = place.run(&off.concat(), &off);
        assert!(!told.contains("recorded"), "{told}");
    }
    assert!(fs::read_to_string(place.at("history.sqlite")).unwrap().starts_with("no data base"));
    let file = place.at("of scene.sqlite");
    place.run("of scene", &["--set", &format!("history.file={file:?}")]);
    let runs = place.json(&["history", "list", "--history", file.to_str().unwrap()]);
    assert_eq!(runs.as_array().unwrap().len(), 1);
}

#[test]
fn runs_that_were_killed_or_damaged_are_taken_in_as_far_as_they_go() {
    let place = Place::new();
    place.run("whole", &["--history", "none"]);
    let import = |name: &str| place.output(&["history", "import", place.at(name).to_str().unwrap()]);
    let copy = |name: &str| {
        let copied = Command::new("cp").arg("-rp").args([place.at("whole"), place.at(name)]).status().unwrap();
        assert!(copied.success());
    };
    // Killed: no summary, and half a line.
    copy("killed");
    fs::remove_file(place.at("killed/summary.json")).unwrap();
    let metrics = fs::read(place.at("killed/metrics.jsonl")).unwrap();
    fs::write(place.at("killed/metrics.jsonl"), &metrics[..metrics.len() / 2]).unwrap();
    assert!(import("killed").status.success());
    // Damaged files.
    copy("damaged");
    fs::write(place.at("damaged/summary.json"), "{").unwrap();
    fs::write(place.at("damaged/metrics.jsonl"), [&metrics[..], b"rubbish\n"].concat()).unwrap();
    let told = String::from_utf8(import("damaged").stderr).unwrap();
    assert!(told.contains("summary.json cannot be read") && told.contains("1 lines of metrics.jsonl"), "{told}");
    let runs = place.json(&["history", "list"]);
    // One run: copies that keep their times are the same.
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs}");
    assert_eq!(runs[0]["status"], "unfinished");
    assert_eq!(runs[0]["walks"], metrics_of(&place.at("whole")).len());
    assert!(import("whole").status.success());
    assert_eq!(place.json(&["history", "list"])[0]["status"], "finished");
    // None of a run.
    fs::create_dir(place.at("none")).unwrap();
    let refused = import("none");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not a run directory"));
    assert_eq!(refused.status.code(), Some(2));
    fs::copy("scenes/quickstart.ron", place.at("none/scene.ron")).unwrap();
    fs::write(place.at("none/metrics.jsonl"), "mine\n").unwrap();
    assert!(String::from_utf8_lossy(&import("none").stderr).contains("written by no run"));
    assert!(!events(&place.at("whole")).is_empty());
}

/// How many candidates earlier runs had scored, as `run` says it.
fn n_known(told: &str) -> u64 {
    let line = told.lines().find(|line| line.contains("had been scored by earlier runs"));
    line.map_or(0, |line| line.split_whitespace().find_map(|word| word.parse().ok()).unwrap())
}

#[test]
fn a_run_ends_alike_whether_its_candidates_were_scored_before_or_not() {
    let place = Place::new();
    let cold = place.run("cold", &["--history", "none"]);
    let filling = place.run("filling", &["--threads", "1"]);
    let warm = place.run("warm", &["--threads", "2"]);
    assert_eq!((n_known(&cold), n_known(&filling)), (0, 0), "{filling}");
    let n_scored = metrics_of(&place.at("warm")).iter().filter(|line| line["cached"] == false).count() as u64;
    assert_eq!(n_known(&warm), n_scored, "{warm}");
    for other in ["filling", "warm"] {
        assert_eq!(summary(&place.at("cold")), summary(&place.at(other)), "{other}");
        assert_eq!(events(&place.at("cold")), events(&place.at(other)), "{other}");
    }
    let runs = place.said(&["history", "export", "--csv", place.at("csv").to_str().unwrap()]);
    assert!(runs.contains("scores.csv"));
    let table = fs::read_to_string(place.at("csv/runs.csv")).unwrap();
    assert!(table.lines().next().unwrap().ends_with("known_scores,finished"));
    assert!(table.trim_end().ends_with(&format!(",{n_scored},2")));
    // Half of them known: those of the agent, and of other walks of the control.
    let more = ["--set", "controls=[Random(candidates: 9)]"];
    let half = place.run("half", &more);
    place.run("half cold", &[&more[..], &["--history", "none"]].concat());
    assert!(n_known(&half) >= n_scored, "{half}");
    assert_eq!(summary(&place.at("half cold")), summary(&place.at("half")));
    assert_eq!(events(&place.at("half cold")), events(&place.at("half")));
}

#[test]
fn whatever_a_score_follows_from_makes_it_another_score() {
    let place = Place::new();
    place.run("first", &[]);
    let changed: [&[&str]; 9] = [
        &["--set", "images.reward=61"],
        &["--set", "images.walk=11"],
        &["--set", "images.seed=1"],
        &["--set", "repair=Off"],
        &["--set", "repair=Original"],
        &["--set", "reward=Accuracy"],
        &["--set", "tune_before_score=(steps: 2, batch: 8)"],
        &["--set", "tune_before_score=(steps: 3, batch: 8)"],
        &["--set", "tune_before_score=(steps: 2, batch: 8, rate: 0.002)"],
    ];
    for (i, more) in changed.iter().enumerate() {
        let told = place.run(&format!("changed {i}"), more);
        assert_eq!(n_known(&told), 0, "{more:?}: {told}");
    }
    // Other weights in a file of the same name.
    let weights = place.at("shapes.safetensors");
    let mut bytes =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/shapes.safetensors")).unwrap();
    let file = format!("networks[0].file={weights:?}");
    fs::write(&weights, &bytes).unwrap();
    assert!(n_known(&place.run("same weights", &["--set", &file])) > 0);
    // Not in the last digits, which folding may round away.
    let last = bytes.len() - 2;
    bytes[last] ^= 0x20;
    fs::write(&weights, &bytes).unwrap();
    assert_eq!(n_known(&place.run("other weights", &["--set", &file])), 0);
    // Tuned scores are known to runs that tune likewise, untuned ones to those whose tuning takes no step.
    let tuned = place.run("tuned again", &["--set", "tune_before_score=(steps: 2, batch: 8)"]);
    assert!(n_known(&tuned) > 0 && summary(&place.at("tuned again")) == summary(&place.at("changed 6")));
    assert!(
        n_known(&place.run("no steps", &["--set", "tune_before_score=(steps: 0)", "--set", "images.refit=64"])) > 0
    );
    // What does not matter to a score matters not.
    assert!(n_known(&place.run("more finalists", &["--set", "finalists=2"])) > 0);
    // Switched off, none are taken, and the run is recorded.
    let off = place.run("off", &["--set", "history.scores=false"]);
    assert_eq!(n_known(&off), 0);
    assert!(place.said(&["history", "list"]).contains("off"));
}

#[test]
#[cfg(unix)]
fn a_run_that_was_killed_goes_on_with_scores_of_its_own_and_ends_alike() {
    let place = Place::new();
    let long = ["--set", "walks_per_task=150", "--checkpoint-every", "0.05"];
    place.run("whole", &[&long[..], &["--history", "none"]].concat());
    let out = place.at("killed");
    let sets = SHORT.iter().flat_map(|set| ["--set", *set]);
    let arguments: Vec<&str> =
        ["run", SCENE, "--out", out.to_str().unwrap()].into_iter().chain(sets).chain(long).collect();
    let mut child = place.command(&arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
    let checkpoints = || fs::read_dir(out.join("checkpoints")).map_or(0, Iterator::count);
    while checkpoints() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.join("summary.json").exists(), "the run ended before it was killed");
    let runs = place.json(&["history", "list"]);
    assert_eq!((&runs[0]["status"], runs.as_array().unwrap().len()), (&"unfinished".into(), 1));
    place.run("killed", &[&long[..], &["--resume"]].concat());
    assert_eq!(summary(&place.at("whole")), summary(&out));
    assert_eq!(events(&place.at("whole")), events(&out));
    let runs = place.json(&["history", "list"]);
    assert_eq!((&runs[0]["status"], runs.as_array().unwrap().len()), (&"finished".into(), 1));
    // Its scores are those that a whole run computes.
    assert!(n_known(&place.run("again", &long)) > 0);
    assert_eq!(summary(&place.at("whole")), summary(&place.at("again")));
}

/// Puts a file where a task's folder will be, once the search is over.
struct InTheWay(PathBuf);

impl Observer for InTheWay {
    fn begin(&mut self, stage: &Stage) {
        if stage.kind == StageKind::Refit && self.0.is_dir() {
            fs::remove_dir_all(&self.0).unwrap();
            fs::write(&self.0, "in the way").unwrap();
        }
    }
}

#[test]
fn a_run_that_fails_is_recorded_as_failed_and_says_why_until_it_goes_on() {
    let place = Place::new();
    let out = place.at("fails");
    let run = |observer: &mut dyn Observer, resume| {
        let spec = RunSpec {
            sets: SHORT.iter().map(|set| (*set).to_owned()).collect(),
            out: Some(out.clone()),
            resume,
            history: Some(place.at("history.sqlite")),
            ..RunSpec::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(SCENE))
        };
        secateur::run(&spec, &PluginList::default(), observer)
    };
    let error = run(&mut InTheWay(out.join("tasks")), false).unwrap_err();
    assert!(matches!(error, RunError::Failed(_)), "{error:?}");
    let status = || place.json(&["history", "list"])[0]["status"].clone();
    assert_eq!(status(), "failed");
    let report = secateur::report::HtmlReport::of(std::slice::from_ref(&out)).unwrap();
    let told = format!("the run failed: {}", error.to_string().lines().next().unwrap());
    assert!(report.problems[0].contains(&told), "{:?}", report.problems);
    // Looked at again, it is what it was; a copy knows it, too.
    place.said(&["history", "import", out.to_str().unwrap()]);
    assert_eq!(status(), "failed");
    fs::remove_file(out.join("tasks")).unwrap();
    fs::create_dir(out.join("tasks")).unwrap();
    run(&mut (), true).unwrap();
    assert_eq!(status(), "finished");
    assert!(secateur::report::HtmlReport::of(&[out]).unwrap().problems.is_empty());
}
