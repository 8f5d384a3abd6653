//! `compare`: agents side by side, through the whole command line.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::timeless;

const AGENTS: &str = "Mtacp(start: Even),random,knapsack";

fn command(out: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command
        .arg("compare")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron"))
        .arg("--out")
        .arg(out);
    let sets = [
        "budgets=[Macs(ratio: 0.5), Macs(ratio: 0.7)]",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100))]",
        "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]",
        "images=(reward: 100, calibration: 100, walk: 30, refit: 60, probe: 50)",
        "actors_per_task=2",
    ];
    for set in sets {
        command.args(["--set", set]);
    }
    command.args(extra).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn compare(out: &Path, extra: &[&str]) -> Output {
    let given = ["--agents", AGENTS, "--seeds", "7,8", "--candidates", "6"];
    command(out, &[&given, extra].concat()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The comparison without what depends on the clock or the place.
fn found(out: &Path) -> Value {
    let text = fs::read_to_string(out.join("compare.json")).unwrap();
    let mut found: Value = serde_json::from_str(&text).unwrap();
    found.as_object_mut().unwrap().remove("directory");
    for agent in found["agents"].as_array_mut().unwrap() {
        for key in ["search_s", "outside_evaluation"] {
            agent.as_object_mut().unwrap().remove(key).unwrap();
        }
        for task in agent["tasks"].as_array_mut().unwrap() {
            task.as_object_mut().unwrap().remove("by_seconds").unwrap();
        }
    }
    found
}

/// Scored candidates and the best of their rewards, by agent and task, counted anew from the run of a seed.
fn counted(run: &Path) -> BTreeMap<(String, String), (usize, f64)> {
    let mut out = BTreeMap::new();
    for event in timeless::events(run) {
        if event["event"] == "candidate" && event["cached"] == false {
            let name = |key: &str| event[key].as_str().unwrap().to_owned();
            let (n, best) = out.entry((name("agent"), name("task"))).or_insert((0, f64::MIN));
            *n += 1;
            *best = event["reward"].as_f64().unwrap().max(*best);
        }
    }
    out
}

#[test]
fn a_comparison_tells_what_the_runs_of_its_seeds_found_at_equal_numbers_of_candidates() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("all");
    let output = compare(&out, &["--threads", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found_all = found(&out);
    let runs = [7, 8].map(|seed| counted(&out.join(format!("seed-{seed}"))));
    let agents = found_all["agents"].as_array().unwrap();
    assert_eq!(agents.len(), 3);
    for agent in agents {
        let word = agent["agent"].as_str().unwrap();
        for task in agent["tasks"].as_array().unwrap() {
            let key = (word.to_owned(), task["task"].as_str().unwrap().to_owned());
            for (seed, run) in runs.iter().enumerate() {
                let (n, best) = run[&key];
                assert_eq!(task["candidates"][seed], n, "{key:?}");
                assert_eq!(task["score"]["of_seeds"][seed], best, "{key:?}");
                assert!(if word == "knapsack" { n == 1 } else { n <= 6 }, "{key:?}: {n}");
            }
            let end = task["by_candidates"].as_array().unwrap().last().unwrap();
            assert_eq!((&end["at"], &end["mean"]), (&Value::from(6.0), &task["score"]["mean"]));
            assert_eq!(task["against_reference"].is_null(), word == "mtacp");
        }
    }
    let random = &runs[0][&("random".to_owned(), "shapes-shapes-macs0.5".to_owned())];
    assert_eq!(random.0, 6, "it hardly repeats itself");
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(screen.contains("after 6 scored candidates per task, mean ± standard error of 2 seeds"), "{screen}");
    assert!(screen.contains("seeds better, worse than mtacp"), "{screen}");
    let csv = fs::read_to_string(out.join("curves.csv")).unwrap();
    assert!(csv.lines().all(|line| line.split(',').count() == 6) && csv.lines().count() > 12, "{csv}");
    assert!(fs::read_to_string(out.join("curves.svg")).unwrap().ends_with("</svg>\n"));

    // Killed at any moment, it goes on to the same; another number of threads changes nothing.
    let killed = dir.path().join("killed");
    for millis in [300, 900] {
        let mut child = command(
            &killed,
            &["--agents", AGENTS, "--seeds", "7,8", "--candidates", "6", "--threads", "1", "--resume"],
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = compare(&killed, &["--threads", "1", "--resume"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(found(&killed), found_all);

    // What is there is another comparison, or no comparison to begin in.
    let refused = |extra: &[&str]| {
        let output = command(&out, extra).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{extra:?}");
        stderr(&output)
    };
    let same = ["--candidates", "6", "--resume", "--agents"];
    let other_seeds = refused(&[&same[..], &[AGENTS, "--seeds", "7"]].concat());
    assert!(other_seeds.contains("seeds 7,8, this one of"), "{other_seeds}");
    let other_agents = refused(&[&same[..], &["random", "--seeds", "7,8"]].concat());
    assert!(other_agents.contains("agents Mtacp(start: Even),Random(),Knapsack(), this one of"), "{other_agents}");
    let taken = refused(&["--agents", AGENTS]);
    assert!(taken.contains("is not an empty directory; go on there with --resume"), "{taken}");
    assert_eq!(found(&out), found_all, "what is refused changes nothing");
}

#[test]
fn mistakes_are_told_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("none");
    for (agents, told) in [
        ("mtacp,randon", "no agent is called 'randon'; there are mtacp"),
        ("random,Random", "has random twice"),
        ("Mtacp(no_such: 3)", "no_such"),
        ("Random(candidates: 3)", "which --candidates says"),
        (",", "--agents names none"),
    ] {
        let output = command(&out, &["--agents", agents]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{agents}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{agents}: {}", stderr(&output));
        assert!(!out.exists(), "{agents}");
    }
}
