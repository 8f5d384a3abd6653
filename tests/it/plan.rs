//! `plan`, `inspect --curves` and the control `Knapsack` through the binary, on the shipped quickstart networks.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use secateur::run::{PlanReport, Summary};
use serde_json::Value;

/// Few images.
const SMALL: [&str; 2] = [
    "images=(reward: 120, calibration: 120, walk: 40, refit: 120)",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 200)),
               (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 400, test: 200))]",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program, with a cache of its own.
fn secateur(cache: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.current_dir(root()).env("XDG_CACHE_HOME", cache).args(arguments).output().unwrap()
}

fn plan_scene(cache: &Path, more: &[&str]) -> Output {
    let sets = SMALL.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["plan", "scenes/quickstart.ron", "--json"].into_iter().chain(sets).collect();
    secateur(cache, &[&arguments, more].concat())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Without what may differ between equal plans.
fn report(output: &Output) -> PlanReport {
    assert!(output.status.success(), "{}", stderr(output));
    let mut report: PlanReport = serde_json::from_slice(&output.stdout).unwrap();
    report.tasks.iter_mut().for_each(|task| task.allocate_s = 0.0);
    report
}

fn cache_files(cache: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join("secateur")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn plans_meet_their_budgets_and_are_the_same_for_any_threads_from_the_cache_and_after_damage_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let [cold, other] = ["cold", "other"].map(|name| dir.path().join(name));
    let budgets =
        ["--budget", "macs=0.5", "--budget", "params=0.6", "--budget", "activation_bytes=1.0", "--weights", "equal"];
    let first = report(&plan_scene(&cold, &[&budgets[..], &["--threads", "1"]].concat()));
    assert_eq!(first.tasks.len(), 6);
    for task in &first.tasks {
        assert!(task.cost <= task.budget.max, "{task:?}");
        assert!(task.unchanged || task.gap == Some(0.0) && task.predicted_error > 0.0, "{task:?}");
        assert!(task.unchanged == (task.budget.kind == "activation_bytes"), "{task:?}");
        let error: f64 = task.groups.iter().map(|group| group.error).sum();
        assert!((error - task.predicted_error).abs() < 1e-12);
        assert!(task.groups.iter().any(|group| group.kept < group.channels) != task.unchanged);
        let expected = task.expected_accuracy.unwrap();
        assert!(expected > 0.15 && expected <= 1.0 && task.original_accuracy.unwrap() > 0.8, "{task:?}");
    }
    assert_eq!(report(&plan_scene(&other, &[&budgets[..], &["--threads", "3"]].concat())), first);
    // From the cache, which is then damaged in several ways.
    let again = plan_scene(&cold, &budgets);
    assert_eq!(report(&again), first);
    assert!(!stderr(&again).contains("damaged"), "{}", stderr(&again));
    assert_eq!((cache_files(&cold, "curves").len(), cache_files(&cold, "scores").len()), (2, 2));
    for (extension, damage) in [
        ("curves", (|bytes: &mut Vec<u8>| bytes[40] ^= 1) as fn(&mut Vec<u8>)),
        ("curves", |bytes| bytes.truncate(20)),
        ("scores", |bytes| bytes.clear()),
        // Whole, but no curves: hash and content fit each other.
        ("curves", |bytes| *bytes = [blake3::hash(&[0]).as_bytes(), &[0][..]].concat()),
    ] {
        for file in cache_files(&cold, extension) {
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
        }
        let mended = plan_scene(&cold, &budgets);
        assert_eq!(report(&mended), first);
        assert_eq!(stderr(&mended).matches("is damaged and made anew").count(), 2, "{}", stderr(&mended));
        assert!(!stderr(&plan_scene(&cold, &budgets)).contains("damaged"));
    }
}

#[test]
fn what_is_written_has_the_planned_widths_and_a_certificate_that_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, out) = (dir.path().join("cache"), dir.path().join("out"));
    let weights = ["--write", out.to_str().unwrap()];
    let output = plan_scene(&cache, &[&["--budget", "macs=0.6"][..], &weights].concat());
    let planned = report(&output);
    let summary: Summary = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!((summary.agent.as_str(), summary.tasks.len(), summary.controls.len()), ("knapsack", 2, 0));
    for (task, planned) in summary.tasks.iter().zip(&planned.tasks) {
        let widths: Vec<usize> = task.groups.iter().map(|group| group.kept).collect();
        assert_eq!(widths, planned.groups.iter().map(|group| group.kept).collect::<Vec<_>>());
        assert_eq!((task.macs, task.macs <= task.budget.max), (planned.macs, true));
        assert_eq!(planned.candidates_scored, 1 + planned.groups.len());
        let folder = out.join("tasks").join(&task.name);
        let certificate: Value = serde_json::from_slice(&fs::read(folder.join("certificate.json")).unwrap()).unwrap();
        assert_eq!(certificate["macs"], planned.macs);
        assert_eq!(certificate["budgets"][0]["ok"], true);
        assert!(folder.join("model.safetensors").exists() && folder.join("model.onnx").exists());
    }
    let n_groups: usize = planned.tasks.iter().map(|task| task.groups.len()).sum();
    assert_eq!(summary.candidates_scored, 2 + n_groups as u64);
}

#[test]
fn a_network_is_planned_for_the_budgets_of_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let network = "scenes/quickstart/shapes.safetensors";
    let images = "images=(reward: 120, calibration: 120, walk: 40, refit: 120)";
    let more = ["--budget", "macs=0.5", "--budget", "params=20000", "--set", images];
    let output = secateur(dir.path(), &[&["plan", network, "--dataset", "shapes:1"][..], &more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", stderr(&output));
    for words in ["shapes-shapes-macs0.5", "shapes-shapes-params20000", "expected top-1", "may find better widths"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn plans_that_cannot_be_made_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, out) = (dir.path().join("cache"), dir.path().join("out"));
    let network = "scenes/quickstart/shapes.safetensors";
    let of_network =
        |more: &[&str]| secateur(&cache, &[&["plan", network, "--write", out.to_str().unwrap()], more].concat());
    let shapes = ["--dataset", "shapes:1"];
    for (arguments, words) in [
        (
            &[&shapes[..], &["--budget", "macs=0.0001"]].concat()[..],
            "is below the least that network 'shapes' can reach",
        ),
        (&[&shapes[..], &["--budget", "params=2"]].concat(), "is below the least that network 'shapes' can reach"),
        (&[&shapes[..], &["--budget", "macs=0.5", "--set", "images.refit=9000"]].concat(), "training images"),
        (&[&shapes[..], &["--budget", "macs=1.5"]].concat(), "expected macs, params or activation_bytes"),
        (&[&shapes[..], &["--budget", "macs=0.5", "--budget", "macs=0.5"]].concat(), "is the same bound as"),
        (&shapes, "--budget is missing"),
        (&["--budget", "macs=0.5"], "--dataset is missing"),
        (&["--budget", "macs=0.5", "--dataset", "shape"], "unknown data set"),
    ] {
        let output = of_network(arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(words), "{arguments:?}: {message}");
        assert!(!out.exists() && !cache.exists());
    }
    let output = secateur(&cache, &["plan", "scenes/quickstart.ron", "--dataset", "shapes"]);
    assert!(stderr(&output).contains("--dataset is for a network"), "{}", stderr(&output));
}

#[test]
fn curves_fall_with_the_width_and_are_shown_as_table_json_and_drawing() {
    let dir = tempfile::tempdir().unwrap();
    let drawing = dir.path().join("curves.svg");
    let network = "scenes/quickstart/shapes.safetensors";
    let curves = ["inspect", network, "--curves", "--dataset", "shapes:1", "--images", "150"];
    let output = secateur(dir.path(), &[&curves[..], &["--json", "--threads", "1"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = report["groups"].as_array().unwrap();
    assert!(!groups.is_empty());
    for group in groups {
        let errors: Vec<f64> = group["errors"].as_array().unwrap().iter().map(|e| e.as_f64().unwrap()).collect();
        assert_eq!(Some(errors.len() as u64), group["channels"].as_u64());
        assert!(errors.windows(2).all(|pair| pair[0] >= pair[1]), "{group}");
        assert_eq!((errors[errors.len() - 1], group["measured"].as_bool()), (0.0, Some(true)));
        assert!(errors[0] > 0.0);
    }
    let other = dir.path().join("other");
    let again = secateur(&other, &[&curves[..], &["--json", "--threads", "3"]].concat());
    assert_eq!(again.stdout, output.stdout);
    let table = secateur(dir.path(), &[&curves[..], &["--svg", drawing.to_str().unwrap()]].concat());
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("50 %") && text.contains(groups[0]["name"].as_str().unwrap()), "{text}");
    let drawn = fs::read_to_string(&drawing).unwrap();
    // A line for each group in the chart, and one in its legend.
    assert_eq!(drawn.matches("class=\"line\"").count(), 2 * groups.len());
    for (arguments, words) in [
        (&["--images", "9000000"][..], "has 8000 training images, 9000000 are asked for"),
        (&["--size", "31"], "leave `size` out"),
    ] {
        let output = secateur(dir.path(), &[&curves[..5], arguments].concat());
        assert!(!output.status.success() && stderr(&output).contains(words), "{}", stderr(&output));
    }
    let output = secateur(dir.path(), &["inspect", network, "--curves"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn the_knapsack_is_a_control_whose_probes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (control, is_probed) in [("Knapsack()", true), ("Knapsack(weights: Equal)", false)] {
        let controls = format!("controls=[Uniform, {control}]");
        let sets = ["walks_per_task=3", "finalists=1", "budgets=[Macs(ratio: 0.6)]", &controls];
        let out = out.join(is_probed.to_string());
        let sets = SMALL.iter().chain(&sets).flat_map(|set| ["--set", set]);
        let run = ["run", "scenes/quickstart.ron", "--out", out.to_str().unwrap()];
        let output = secateur(dir.path(), &run.into_iter().chain(sets).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", stderr(&output));
        let summary: Summary = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
        let knapsack: Vec<_> = summary.controls.iter().filter(|control| control.agent == "knapsack").collect();
        assert_eq!(knapsack.len(), 2);
        for (control, task) in knapsack.iter().zip(&summary.tasks) {
            let probes = if is_probed { task.groups.len() as u64 } else { 0 };
            assert_eq!((&control.task, control.candidates_scored), (&task.name, 1 + probes));
            assert!(control.macs <= task.budget.max);
        }
    }
}
