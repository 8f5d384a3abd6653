//! An agent that a program brings itself: `examples/evolution.rs`, through the whole command line.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use secateur::rl::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, RlError};
use secateur::run::{Roots, resolve};
use secateur::scene::{AgentList, Scene};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::timeless;

/// One task, few images.
const SMALL: [&str; 5] = [
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\")]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 200))]",
    "images=(reward: 120, calibration: 120, walk: 40, refit: 120)",
    "budgets=[Macs(ratio: 0.5)]",
    "finalists=2",
];

/// The example, built as `cargo test` without a filter would have done.
fn evolution() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--workspace", "--example", "evolution"]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    profile.join("examples/evolution")
}

fn command(program: &Path, out: &Path, sets: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out").arg(out);
    for set in SMALL.iter().chain(sets) {
        command.args(["--set", set]);
    }
    command.env("NO_COLOR", "1");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The summary without times, and the events without them.
fn results(out: &Path) -> (Value, Vec<Value>) {
    (timeless::summary(out), timeless::events(out))
}

#[test]
fn an_agent_of_the_callers_own_searches_learns_and_is_a_control_too() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let sets = [
        "agent=Mutation(population: 8, sigma: 0.4)",
        "walks_per_task=40",
        "controls=[Mutation(candidates: 8), Random(candidates: 8)]",
    ];
    let output = command(&evolution(), &out, &sets).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("keeps"), "better candidates of a learning agent are told: {}", stderr(&output));
    let (summary, events) = results(&out);
    assert_eq!((&summary["agent"], &summary["walks"]), (&"mutation".into(), &40.into()));
    assert_eq!(
        summary["learner_updates"], 4,
        "33 noisy walks of one task make four batches of eight, and a rest of one: {summary}"
    );
    let controls: Vec<&Value> =
        summary["controls"].as_array().unwrap().iter().map(|control| &control["agent"]).collect();
    assert_eq!(controls, ["mutation", "random"]);
    // The first four updates are the agent's, those behind them the control's.
    let best = events.iter().filter(|e| e["event"] == "learned").map(|e| e["best_reward_mean"].as_f64().unwrap());
    let best: Vec<f64> = best.take(4).collect();
    assert!(best.windows(2).all(|pair| pair[0] <= pair[1]) && best.len() == 4, "{best:?}");
    // What is written is the whole scene, its settings included.
    let scene = fs::read_to_string(out.join("scene.ron")).unwrap();
    assert!(scene.contains("Mutation(population: 8, sigma: 0.4)"), "{scene}");
}

#[test]
fn a_run_of_an_agent_of_the_callers_own_that_is_killed_goes_on_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let (program, killed, whole) = (evolution(), dir.path().join("killed"), dir.path().join("whole"));
    let sets = ["agent=Mutation()", "walks_per_task=120", "controls=[]"];
    assert!(command(&program, &whole, &sets).output().unwrap().status.success());
    let mut child = command(&program, &killed, &sets).args(["--checkpoint-every", "0.05", "--quiet"]).spawn().unwrap();
    let start = Instant::now();
    let n_learned =
        || fs::read_to_string(killed.join("metrics.jsonl")).unwrap_or_default().matches("\"learned\"").count();
    let has_checkpoint = || fs::read_dir(killed.join("checkpoints")).is_ok_and(|files| files.count() > 0);
    while (n_learned() < 3 || !has_checkpoint()) && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing was learned");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = command(&program, &killed, &sets).arg("--resume").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("going on"), "{}", stderr(&output));
    assert_eq!(results(&killed), results(&whole));
}

#[test]
fn mistakes_about_such_an_agent_are_told_as_of_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let program = evolution();
    for (set, words) in [
        ("agent=Mutation(popluation: 3)", "did you mean `population`?"),
        ("agent=Mutation(population: 0)", "`agent.population` is 0, expected 1..=1000"),
        ("agent=Mutation(sigma: -1)", "`agent.sigma` is -1.0, expected a number above 0"),
        ("agent=Mutatoin()", "did you mean `Mutation`?"),
        ("controls=[Mutation(candidates: 0)]", "`controls[0].candidates` is 0"),
    ] {
        let output = command(&program, &out, &[set]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{set}: {message}");
        assert!(message.contains(words), "{set}: {message}");
        assert!(!out.exists());
    }
    // The plain program knows no such agent, and says which it knows.
    let plain = command(Path::new(env!("CARGO_BIN_EXE_secateur")), &out, &["agent=Mutation()"]).output().unwrap();
    let message = stderr(&plain);
    assert_eq!(plain.status.code(), Some(2));
    assert!(message.contains("expected one of `Mtacp`, `Uniform`, `Random`, `Knapsack`"), "{message}");
}

/// An agent that needs several tasks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Comparing {}

impl AgentKind for Comparing {
    const ENTRY: AgentEntry = AgentEntry::learning("Comparing", "comparing", "compares tasks");
}

impl AgentSettings for Comparing {
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        let (what, expected) = ("n_tasks".to_owned(), "at least 2".to_owned());
        Err(RlError::OutOfRange { op: "comparing", what, expected, got: environment.n_tasks.to_string() })
    }
}

#[test]
fn an_agent_that_cannot_serve_the_scene_says_so_before_the_search_where_it_is_named() {
    let mut agents = AgentList::default();
    agents.add::<Comparing>();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart");
    let text = |agent: &str, controls: &str| {
        format!(
            "(version: 1, seed: 1, networks: [(name: \"n\", file: \"./shapes.safetensors\")],
              datasets: [(name: \"d\", source: Procedural(kind: Shapes, seed: 1, train: 80, test: 20))],
              budgets: [Macs(ratio: 0.5)], images: (reward: 20, calibration: 20, walk: 20, refit: 20),
              agent: {agent},\n controls: [{controls}])"
        )
    };
    let problem = |agent: &str, controls: &str| {
        let scene = Scene::parse_with("s.ron", &text(agent, controls), &agents).unwrap();
        let roots = Roots { data: folder.clone(), models: folder.clone(), scene_dir: folder.clone() };
        resolve(&scene, &roots).map(drop).map_err(|error| (error.line_col(), error.to_string()))
    };
    assert!(problem("Random", "Uniform").is_ok());
    let (place, message) = problem("Comparing()", "").unwrap_err();
    assert_eq!(place, (4, 22), "{message}");
    assert!(message.contains("comparing: n_tasks is 1, expected at least 2"), "{message}");
    let (place, message) = problem("Random", "Uniform, Comparing(candidates: 3)").unwrap_err();
    assert_eq!(place, (5, 22), "{message}");
}
