//! Runs from the library: what an observer sees, what it can stop, and what comes back.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;

use secateur::run::{Incomplete, Observer, RunError, RunEvent, RunSpec, Stage, StageKind, Summary};
use secateur::sim::PluginList;
use serde_json::Value;

use crate::timeless;

/// Two tasks, few walks and images.
fn spec(out: &Path) -> RunSpec {
    let sets = [
        "budgets=[Macs(ratio: 0.6)]",
        "agent=Random",
        "walks_per_task=6",
        "actors_per_task=1",
        "finalists=2",
        "images=(reward: 60, calibration: 60, walk: 20, refit: 60)",
        "controls=[Uniform]",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 100)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 200, test: 100))]",
    ];
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    RunSpec { sets: sets.map(str::to_owned).to_vec(), out: Some(out.to_owned()), ..RunSpec::new(scene) }
}

/// Keeps all it sees, and asks to stop after so many walks.
#[derive(Default)]
struct Watching {
    stages: Vec<StageKind>,
    lines: Vec<Value>,
    n_walks: usize,
    stops_after: Option<usize>,
}

impl Observer for Watching {
    fn begin(&mut self, stage: &Stage) {
        assert!(stage.done <= stage.total, "{stage}");
        self.stages.push(stage.kind);
    }
    fn event(&mut self, event: &RunEvent<'_>) {
        self.n_walks += usize::from(matches!(event, RunEvent::Candidate { .. }));
        self.lines.push(serde_json::to_value(event).unwrap());
    }
    fn should_stop(&mut self) -> bool {
        self.stops_after.is_some_and(|n| self.n_walks >= n)
    }
}

fn metrics(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn summary(out: &Path) -> Summary {
    serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap()
}

/// Times of equal runs differ.
fn without_times(mut summary: Summary) -> Summary {
    (summary.wall_s, summary.search_wall_s) = (0.0, 0.0);
    summary.search_times_s.clear();
    summary
}

#[test]
fn a_run_returns_what_it_wrote_and_its_observer_sees_the_lines_of_the_metrics_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (out, mut watching) = (dir.path().join("run"), Watching::default());
    let result = secateur::run(&spec(&out), &PluginList::default(), &mut watching).unwrap();
    assert_eq!((&result.directory, &result.summary), (&out, &summary(&out)));
    assert_eq!(watching.lines, metrics(&out));
    // Six walks of the agent and one of the control on each of two tasks.
    assert_eq!((watching.n_walks, result.summary.walks), (14, 12));
    let mut order = watching.stages.clone();
    order.dedup();
    assert_eq!(order, [StageKind::Prepare, StageKind::Search, StageKind::Refit, StageKind::Test]);
    for task in &result.summary.tasks {
        assert!(task.macs <= task.budget.max && out.join(&task.model_file).is_file());
    }
}

#[test]
fn an_observer_that_stops_a_run_gets_what_there_is_and_the_run_goes_on_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    let expected = secateur::run(&spec(&whole), &PluginList::default(), &mut ()).unwrap();
    let mut stopping = Watching { stops_after: Some(5), ..Watching::default() };
    let ended = secateur::run(&spec(&stopped), &PluginList::default(), &mut stopping);
    let Err(RunError::Incomplete { reason: Incomplete::Interrupted, result }) = ended else {
        panic!("not interrupted: {ended:?}")
    };
    assert!(result.summary.interrupted && (5..14).contains(&stopping.n_walks), "{}", stopping.n_walks);
    assert_eq!(result.summary, summary(&stopped));
    assert!(result.summary.tasks.iter().all(|task| task.macs <= task.budget.max));
    let spec = RunSpec { resume: true, ..spec(&stopped) };
    let resumed = secateur::run(&spec, &PluginList::default(), &mut ()).unwrap();
    assert_eq!(without_times(resumed.summary), without_times(expected.summary));
    assert_eq!(timeless::events(&stopped), timeless::events(&whole));
}

#[test]
fn mistakes_come_back_as_errors_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let run = |spec: RunSpec| secateur::run(&spec, &PluginList::default(), &mut ()).unwrap_err();
    let mut bad = spec(&out);
    bad.sets.push("walks_per_task=0".into());
    let error = run(bad.clone());
    assert!(matches!(error, RunError::BadScene(_)), "{error}");
    assert!(matches!(secateur::run::check(&bad, &PluginList::default()), Err(RunError::BadScene(_))));
    let error = run(RunSpec { threads: "9999".parse().ok(), ..spec(&out) });
    assert!(matches!(error, RunError::BadArguments(_)) && error.to_string().contains("at most 1024"), "{error}");
    let error = run(RunSpec { scene: dir.path().join("none.ron"), ..spec(&out) });
    assert!(matches!(error, RunError::BadArguments(_)) && error.to_string().contains("none.ron"), "{error}");
    assert!(!out.exists());
}
