//! `bench schedulers` through the binary: what it counts, not how fast it is.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(extra: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secateur")).args(["bench", "schedulers"]).args(extra).output().unwrap()
}

fn report(extra: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    let output = bench(&[extra, &["--json", file.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("walks/s"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn number(run: &Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} in {run}"))
}

fn check_runs(report: &Value, n_runs: usize, n_walks: f64) {
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), n_runs);
    for run in runs {
        assert_eq!(number(run, "walks"), n_walks);
        assert!((number(run, "walks_per_s") * number(run, "wall_s") - n_walks).abs() < 1e-6);
        assert!(number(run, "act_s") > 0.0 && number(run, "learn_s") > 0.0);
        assert!(number(run, "free_env_steps_per_s") > number(run, "env_steps_per_s"));
        assert!((0.0..1.0).contains(&number(run, "scheduling_share")));
        let shares = run["step_shares"].as_array().unwrap();
        let total: f64 = shares.iter().map(|share| share[1].as_f64().unwrap()).sum();
        assert!(shares.len() == 12 && total > 0.0 && total <= 1.0, "{run}");
        if let Some(max) = run["scheduler"].as_str().unwrap().strip_prefix("bounded_lag:") {
            assert!(number(run, "lag_max") <= max.parse().unwrap());
        }
        let best: Vec<f64> =
            run["best_reward_at_s"].as_array().unwrap().iter().map(|p| p[1].as_f64().unwrap()).collect();
        assert!(best.len() <= 10 && best.is_sorted());
    }
}

#[test]
fn synthetic_searches_are_measured_under_every_scheduler_and_executor() {
    let report = report(&[
        "--score-ms",
        "0.5",
        "--walks",
        "24",
        "--actors",
        "1,3",
        "--variants",
        "lockstep,async,bounded_lag:0",
        "--executors",
        "single,multi",
        "--threads",
        "2",
    ]);
    check_runs(&report, 12, 24.0);
    assert_eq!((number(&report, "score_ms"), number(&report, "learn_ms")), (0.5, 0.25));
    assert!(number(&report, "queue_trajectories_per_s") > 0.0);
}

#[test]
fn a_scene_is_measured_with_its_own_agent() {
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let mut arguments = vec![scene.to_str().unwrap(), "--walks", "4", "--actors", "2", "--variants", "lockstep,async"];
    for set in [
        "budgets=[Macs(ratio: 0.6)]",
        "images=(reward: 50, calibration: 50, walk: 20, refit: 20)",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 200, test: 20)),
                   (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 200, test: 20))]",
    ] {
        arguments.extend(["--set", set]);
    }
    let report = report(&arguments);
    check_runs(&report, 2, 8.0);
    assert!(report["score_ms"].is_null() && report["environment"].as_str().unwrap().contains("quickstart"));
}

#[test]
fn arguments_out_of_range_are_refused() {
    for (argument, value) in
        [("--score-ms", "101"), ("--score-ms", "NaN"), ("--variants", "fast"), ("--actors", "0"), ("--walks", "0")]
    {
        let output = bench(&[argument, value]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(argument));
    }
}
