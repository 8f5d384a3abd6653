//! Plugins through the whole command line: what they do to a run's results, its report and its exit code.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Stdio;
use std::process::{Command, Output};
#[cfg(unix)]
use std::time::{Duration, Instant};

use secateur::kernels::Calibration;
use secateur::net::{ChannelGroups, Conv2d, GraphBuilder, Network, Op, Protocol, Shape, Tensor};
use secateur::sim::{Criterion, RankedGroup};
use serde_json::Value;

use crate::timeless;

#[expect(dead_code, reason = "the whole program, of which the criterion is tested here")]
#[path = "../../examples/nearest_twin.rs"]
mod nearest_twin;

/// Two tasks, few walks and images.
const SMALL: [&str; 7] = [
    "reward=Accuracy",
    "budgets=[Macs(ratio: 0.6)]",
    "walks_per_task=12",
    "actors_per_task=2",
    "finalists=2",
    "images=(reward: 120, calibration: 120, walk: 40, refit: 120)",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 400, test: 200)),
               (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 400, test: 200))]",
];

const TASKS: [&str; 2] = ["shapes-shapes-macs0.6", "textures-textures-macs0.6"];

/// A program with plugins, built as `cargo test` without a filter would have done.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--workspace", "--example", name]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    profile.join("examples").join(name)
}

fn command(program: &Path, out: &Path, sets: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out").arg(out);
    for set in SMALL.iter().chain(sets) {
        command.args(["--set", set]);
    }
    command
}

fn run(program: &Path, out: &Path, sets: &[&str]) -> Output {
    command(program, out, sets).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Candidates of one task and agent in the metrics, by walk: (reward, accuracy).
fn candidates(out: &Path, agent: &str, task: &str) -> Vec<(f64, f64)> {
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut walks: Vec<Value> =
        lines.filter(|l| l["event"] == "candidate" && l["agent"] == agent && l["task"] == task).collect();
    walks.sort_by_key(|l| l["walk"].as_u64().unwrap());
    walks.iter().map(|l| (l["reward"].as_f64().unwrap(), l["accuracy"].as_f64().unwrap())).collect()
}

fn near(got: &Value, expected: f64) {
    let got = got.as_f64().unwrap();
    assert!((got - expected).abs() < 1e-6, "expected {expected}, got {got}");
}

#[test]
fn a_network_that_grew_behind_the_wall_fails_its_certificate_and_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let regrowth = format!("plugins={{\"regrowth\": (tasks: [{:?}])}}", TASKS[1]);
    let output = run(&program("plugins_for_tests"), &out, &["agent=Uniform", "controls=[]", &regrowth]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains(TASKS[1]) && message.contains("exceeds its budget"), "{message}");
    assert!(!message.contains(&format!("certificate of {}", TASKS[0])), "{message}");
    // The results are there all the same, with what is wrong in them.
    let summary = json(&out.join("summary.json"));
    for (task, holds) in summary["tasks"].as_array().unwrap().iter().zip([true, false]) {
        let file = out.join(task["model_file"].as_str().unwrap());
        let certificate = json(&file.with_file_name("certificate.json"));
        let budget = &certificate["budgets"][0];
        assert_eq!((&budget["kind"], &budget["ok"]), (&"macs".into(), &holds.into()));
        assert_eq!(budget["max"], task["budget"]["max"]);
        assert_eq!(budget["value"].as_u64().unwrap() <= budget["max"].as_u64().unwrap(), holds);
        assert_eq!(certificate["macs"] == task["original"]["macs"], !holds, "{certificate}");
        assert_eq!(certificate["blake3"], blake3::hash(&fs::read(&file).unwrap()).to_hex().as_str());
    }
}

/// Winner of a task: its walk, and the share of the original's activation memory that the written file needs by its
/// certificate.
fn winner(out: &Path, task: usize) -> (usize, f64) {
    let summary = json(&out.join("summary.json"));
    let task = &summary["tasks"][task];
    let certificate = json(&out.join(task["model_file"].as_str().unwrap()).with_file_name("certificate.json"));
    let bytes = |value: &Value| value["activation_bytes"].as_u64().unwrap() as f64;
    (task["walk_of_best"].as_u64().unwrap() as usize, bytes(&certificate) / bytes(&task["original"]))
}

#[test]
fn a_plugin_that_charges_for_memory_makes_a_smaller_network_win() {
    let weight = 50.0;
    let dir = tempfile::tempdir().unwrap();
    let (plain, paid) = (dir.path().join("plain"), dir.path().join("paid"));
    let program = program("activation_penalty");
    // Random walks are the same whatever they are paid, so the two runs choose between the same candidates.
    // With residual streams frozen, the first operation alone would decide on the peak.
    let random = ["agent=Random", "controls=[]", "finalists=1", "protocol=Full", "channel_multiple=1"];
    let plugins = format!("plugins={{\"activation_penalty\": (weight: {weight})}}");
    stdout(&run(&program, &plain, &random));
    stdout(&run(&program, &paid, &[&random[..], &[&plugins]].concat()));
    for (task, name) in TASKS.iter().enumerate() {
        let accuracies: Vec<f64> = candidates(&plain, "random", name).iter().map(|c| c.1).collect();
        let walks = candidates(&paid, "random", name);
        assert_eq!(accuracies, walks.iter().map(|c| c.1).collect::<Vec<_>>());
        // What the plugin took off each walk, as a share of the original's memory.
        let shares: Vec<f64> = walks.iter().map(|(reward, accuracy)| (accuracy - reward) / weight).collect();
        let ((plain_walk, plain_share), (paid_walk, paid_share)) = (winner(&plain, task), winner(&paid, task));
        assert_ne!(plain_walk, paid_walk, "{name}");
        assert!(paid_share < plain_share, "{name}: {paid_share} {plain_share}");
        // The certificates agree with what was charged: the plugin's reason is the reason.
        assert!((shares[plain_walk] - plain_share).abs() < 1e-6, "{name}: {} {plain_share}", shares[plain_walk]);
        assert!((shares[paid_walk] - paid_share).abs() < 1e-6, "{name}: {} {paid_share}", shares[paid_walk]);
        // Without the plugin the most accurate walk wins, with it the one that needs the least memory.
        assert!(accuracies.iter().all(|&a| a <= accuracies[plain_walk]), "{name}");
        assert!(shares.iter().all(|&s| s >= paid_share - 1e-6), "{name}: {shares:?}");
    }
}

#[test]
fn the_final_policy_is_held_against_random_walks() {
    let dir = tempfile::tempdir().unwrap();
    let program = program("plugins_for_tests");
    // Four random walks are paid 0.1 to 0.4: mean 0.25, variance 0.05/3, standard error √(0.05/12) = 0.0645497, so the
    // bar is at 0.3790994. The last quarter of twelve walks, three, is free of noise.
    for (last, mean, beats) in [("0.35, 0.38, 0.41", 0.38, true), ("0.35, 0.38, 0.407", 0.379, false)] {
        let out = dir.path().join(beats.to_string());
        let pay = format!("0.1, 0.2, 0.3, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9, {last}");
        let plugins = format!("plugins={{\"fixed_pay\": (rewards: [{pay}])}}");
        let text = stdout(&run(&program, &out, &["controls=[Uniform, Random(candidates: 4)]", &plugins]));
        let summary = json(&out.join("summary.json"));
        for task in summary["tasks"].as_array().unwrap() {
            let judged = &task["against_random"];
            near(&task["noise_free_reward_mean"], mean);
            near(&judged["noise_free_reward_mean"], mean);
            near(&judged["random_reward_mean"], 0.25);
            near(&judged["random_reward_standard_error"], 0.064_549_7);
            assert_eq!((&judged["noise_free_walks"], &judged["random_walks"]), (&3.into(), &4.into()));
            assert_eq!(judged["beats_random"], beats);
            let verdict =
                format!("{mean:.4} (3 walks)  0.2500 ± 0.0645 (4 walks)  {}", if beats { "yes" } else { "no" });
            let name = task["name"].as_str().unwrap();
            let line = text.lines().find(|l| l.contains(name) && l.contains('±')).unwrap();
            assert_eq!(
                line.split_whitespace().skip(1).collect::<Vec<_>>(),
                verdict.split_whitespace().collect::<Vec<_>>()
            );
        }
        // One walk of `uniform` has no standard error.
        let uniform = summary["controls"].as_array().unwrap().iter().find(|c| c["agent"] == "uniform").unwrap();
        near(&uniform["walk_reward_mean"], 0.1);
        assert!(uniform["walk_reward_standard_error"].is_null());
    }
}

#[test]
fn a_control_that_beats_the_agent_is_named_with_the_gains_over_each_control() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // One random walk has little chance against the best of eight, the first of which is itself.
    let sets = ["agent=Random", "walks_per_task=1", "controls=[Uniform, Random(candidates: 8)]"];
    let text = stdout(&run(Path::new(env!("CARGO_BIN_EXE_secateur")), &out, &sets));
    let summary = json(&out.join("summary.json"));
    let mut n_beaten = 0;
    for task in summary["tasks"].as_array().unwrap() {
        // An agent that does not learn has no final policy.
        assert!(task["against_random"].is_null() && !text.contains("final policy"));
        let name = task["name"].as_str().unwrap();
        let row = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        for control in summary["controls"].as_array().unwrap().iter().filter(|c| c["task"] == name) {
            let gain = |key: &str| task[key].as_f64().unwrap() - control[key].as_f64().unwrap();
            let gains = [gain("reward_accuracy"), gain("test_accuracy_before_tuning")];
            near(&control["reward_accuracy_gain"], gains[0]);
            near(&control["test_accuracy_gain"], gains[1]);
            assert!(row.contains(&format!("{:+.2}, {:+.2}", 100.0 * gains[0], 100.0 * gains[1])), "{row}");
            let [theirs, ours] = [control, task].map(|of| 100.0 * of["reward_accuracy"].as_f64().unwrap());
            let agent = control["agent"].as_str().unwrap();
            let note =
                format!("note: {agent} beats random on {name}: {theirs:.2} against {ours:.2} % of the reward images");
            assert_eq!(text.lines().any(|line| line.starts_with(&note)), theirs > ours, "{note}\n{text}");
            n_beaten += usize::from(theirs > ours);
        }
    }
    assert!(n_beaten > 0, "{text}");
}

#[cfg(unix)]
#[test]
fn a_run_asked_to_stop_while_the_last_batches_are_learned_from_goes_on_behind_that_search() {
    let dir = tempfile::tempdir().unwrap();
    let (out, undisturbed) = (dir.path().join("stopped"), dir.path().join("undisturbed"));
    let program = program("plugins_for_tests");
    let results = |out: &Path| (timeless::summary(out), timeless::events(out));
    // Five walks of two tasks do not make whole batches.
    let sets = ["walks_per_task=5", "controls=[Uniform]"];
    assert!(run(&program, &undisturbed, &sets).status.success());
    let sets = [&sets[..], &["plugins={\"stop_at_last_batches\": ()}"]].concat();
    let output = run(&program, &out, &sets);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let summary = json(&out.join("summary.json"));
    assert_eq!((&summary["interrupted"], &summary["walks"]), (&Value::Bool(true), &Value::from(10)));
    let mut command = command(&program, &out, &sets);
    let output = command.arg("--resume").output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("going on"), "{}", stderr(&output));
    assert!(results(&out) == results(&undisturbed));
}

/// A convolution of three 1x1 filters over two channels, one of three to one, and a linear map.
fn three_filters(filters: [[f32; 2]; 3]) -> Network {
    let mut g = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
    let a = g.push("a", Op::Conv2d(Conv2d::square(2, 3, 1, 1, 0)), &[0]);
    let b = g.push("b", Op::Conv2d(Conv2d::square(3, 1, 1, 1, 0)), &[a]);
    let flat = g.push("flat", Op::Flatten, &[b]);
    g.push("out", Op::Linear { in_features: 1, out_features: 2, bias: false }, &[flat]);
    let tensor = |shape: &[usize], data: Vec<f32>| Tensor::new(shape.to_vec(), data).unwrap();
    let weights = [
        ("a.weight".to_owned(), tensor(&[3, 2, 1, 1], filters.concat())),
        ("b.weight".to_owned(), tensor(&[1, 3, 1, 1], vec![9.0, 0.0, 0.5])),
        ("out.weight".to_owned(), tensor(&[2, 1], vec![1.0, -1.0])),
    ];
    Network::new(g.finish().unwrap(), weights.into()).unwrap()
}

#[test]
fn filters_that_point_the_same_way_are_the_least_important() {
    // The first is like any other; the cosine between the others is 18 / 30.
    let network = three_filters([[0.0, 0.0], [3.0, 4.0], [6.0, 0.0]]);
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let calibration = Calibration { equations: Vec::new(), contributions: Vec::new() };
    let group = groups.prunable()[0];
    let (groups, calibration) = (&groups, &calibration);
    let of = RankedGroup { network: &network, groups, group, place: 0, calibration, images: &[] };
    assert_eq!(nearest_twin::NearestTwin.importance(&of).unwrap(), [0.0, 0.4, 0.4]);
}

#[test]
fn a_scene_selects_channels_by_the_criterion_of_a_plugin_and_is_told_when_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let program = program("nearest_twin");
    let sets = ["agent=Uniform", "controls=[]", "walks_per_task=1", "finalists=1"];
    let weights = |selection: &str| {
        let out = dir.path().join(selection);
        let selection = format!("selection={selection}");
        stdout(&run(&program, &out, &[&sets[..], &[&selection]].concat()));
        let summary = json(&out.join("summary.json"));
        let task = &summary["tasks"][0];
        assert!(task["macs"].as_u64() <= task["budget"]["max"].as_u64());
        fs::read(out.join(task["model_file"].as_str().unwrap())).unwrap()
    };
    let [twin, norm] = ["Custom(\"nearest_twin\")", "L2"].map(weights);
    assert!(twin != norm, "equal widths, other channels");
    for (program, selection, told) in [
        (program.as_path(), "Custom(\"nearest_twn\")", "plugins of this binary bring: nearest_twin"),
        (Path::new(env!("CARGO_BIN_EXE_secateur")), "Custom(\"nearest_twin\")", "no plugin of this binary brings one"),
    ] {
        let out = dir.path().join("none");
        let output = run(program, &out, &[&format!("selection={selection}")]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("unknown criterion") && message.contains(told), "{message}");
    }
}

/// What must not depend on where candidates are scored.
fn results(out: &Path) -> (Value, Value, Vec<Vec<u8>>) {
    let summary = json(&out.join("summary.json"));
    let files = summary["tasks"].as_array().unwrap().iter().map(|task| task["model_file"].as_str().unwrap());
    let networks = files.map(|file| fs::read(out.join(file)).unwrap()).collect();
    (summary["tasks"].clone(), summary["controls"].clone(), networks)
}

#[test]
fn scores_that_come_from_elsewhere_change_nothing_under_lockstep_and_all_walks_end_under_async() {
    let dir = tempfile::tempdir().unwrap();
    let program = program("score_elsewhere");
    let (here, elsewhere, late) = (dir.path().join("here"), dir.path().join("elsewhere"), dir.path().join("late"));
    let plugin = |pause_ms: u32| format!("plugins={{\"score_elsewhere\": (pause_ms: {pause_ms})}}");
    let controls = "controls=[Random(candidates: 4)]";
    stdout(&run(&program, &here, &[controls]));
    stdout(&run(&program, &elsewhere, &[controls, &plugin(1)]));
    assert!(results(&here) == results(&elsewhere));
    stdout(&run(&program, &late, &[controls, "scheduler=Async", &plugin(5)]));
    let summary = json(&late.join("summary.json"));
    assert_eq!(summary["walks"], 24);
    for task in TASKS {
        assert_eq!((candidates(&late, "mtacp", task).len(), candidates(&late, "random", task).len()), (12, 4));
    }
}

#[cfg(unix)]
#[test]
fn a_run_stopped_while_scores_are_on_their_way_asks_for_them_again_and_ends_with_every_walk_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let program = program("score_elsewhere");
    let sets = ["controls=[]", "scheduler=Async", "plugins={\"score_elsewhere\": (pause_ms: 100)}"];
    let mut child = command(&program, &out, &sets).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let n_told = || fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |text| text.matches("candidate").count());
    let start = Instant::now();
    // Between two scores, so that others are on their way.
    while n_told() < 3 {
        assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let output = command(&program, &out, &sets).arg("--resume").output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("going on"), "{}", stderr(&output));
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let walks = lines.filter(|line| line["event"] == "candidate");
    let mut walks: Vec<(String, u64)> =
        walks.map(|line| (line["task"].as_str().unwrap().to_owned(), line["walk"].as_u64().unwrap())).collect();
    walks.sort_unstable();
    let expected: Vec<(String, u64)> =
        TASKS.iter().flat_map(|task| (0..12).map(|walk| ((*task).to_owned(), walk))).collect();
    assert_eq!(walks, expected);
    assert_eq!(json(&out.join("summary.json"))["interrupted"], Value::Bool(false));
}
