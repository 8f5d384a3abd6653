//! Directories of `compare`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::page::ReadPage;
use crate::run_directory::write_run;

fn spread(mean: f64) -> Value {
    json!({"mean": mean, "standard_error": 0.01, "of_seeds": [mean - 0.01, mean + 0.01]})
}

fn of_agent(name: &str, score: f64, against: &Value) -> Value {
    let points = |n: u32| -> Vec<Value> {
        let point = |at| json!({"at": at, "mean": score, "least": score - 0.1, "most": score + 0.05});
        (1..=n).map(point).collect()
    };
    let mut task = json!({
        "task": "half", "score": spread(score), "candidates": [6, 6], "test_accuracy": spread(0.9),
        "by_candidates": points(6), "by_seconds": points(4)
    });
    if !against.is_null() {
        task["against_reference"] = against.clone();
    }
    json!({"agent": name, "score": spread(score), "search_s": spread(3.0), "outside_evaluation": spread(0.02), "tasks": [task]})
}

fn write_comparison(folder: &Path) -> PathBuf {
    let path = folder.join("compared");
    fs::create_dir_all(&path).unwrap();
    let against = json!({"better": 0, "worse": 1, "not_distinguishable": 1});
    let found = json!({
        "scene": "scenes/small.ron", "directory": "elsewhere", "reward": "kl: exp(-divergence)", "candidates": 6,
        "seeds": [7, 8], "reference": "mtacp", "tasks": ["half"],
        "agents": [of_agent("mtacp", 0.9, &Value::Null), of_agent("random", 0.7, &against)],
        "ranking": {"mean_ranks": [1.0, 2.0], "blocks": 2, "critical_difference": 1.386}
    });
    fs::write(path.join("compare.json"), found.to_string()).unwrap();
    let settings = json!({
        "scene": "scenes/small.ron", "sets": ["images.reward=100"], "agents": ["Mtacp(start: Even)", "random"],
        "seeds": [7, 8], "candidates": 6
    });
    fs::write(path.join("comparison.json"), settings.to_string()).unwrap();
    for seed in [7, 8] {
        let run = write_run(folder);
        fs::rename(run, path.join(format!("seed-{seed}"))).unwrap();
    }
    path
}

#[test]
fn a_comparison_shows_ranks_curves_tests_and_the_runs_of_its_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_comparison(folder.path());
    let page = ReadPage::of(std::slice::from_ref(&path));
    assert_eq!(page.report.problems, Vec::<String>::new());
    let agents = page.table("Agents, the best first");
    assert_eq!(agents[1], ["mtacp", "1.00", "0.9000", "0.0100", "–", "3.0 s", "2.0 %"]);
    let tests = page.table("Each agent on each task");
    assert_eq!(tests[2], ["half", "random", "0.7000", "90.00 %", "1.00 %", "0", "1", "1"]);
    assert_eq!(page.texts("h2"), ["Comparison compared", "Run seed-7", "Run seed-8"]);
    let expected = format!(
        "secateur compare scenes/small.ron --agents 'Mtacp(start: Even),random' --seeds 7,8 --candidates 6 \
         --set images.reward=100 --out {}-again",
        path.display()
    );
    assert_eq!(page.texts(".command")[0], expected);
    let drawing = page.report.drawings.iter().find(|drawing| drawing.name == "c1-search-1-candidates").unwrap();
    assert_eq!(drawing.inline().matches("class=\"band\"").count(), 2, "a band from the worst seed to the best");
}

#[test]
fn a_comparison_that_has_not_ended_shows_the_runs_of_its_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_comparison(folder.path());
    fs::remove_file(path.join("compare.json")).unwrap();
    let page = ReadPage::of(std::slice::from_ref(&path));
    assert!(page.report.problems[0].contains("compare.json cannot be read"), "{:?}", page.report.problems);
    assert_eq!(page.texts("h2"), ["Comparison compared", "Run seed-7", "Run seed-8"]);
    fs::write(path.join("compare.json"), "{\"agents\": [").unwrap();
    assert!(ReadPage::of(&[path]).report.problems[0].contains("compare.json is damaged"));
}
