//! Runs that end too early and go on: kill -9 at any moment, signals, damaged and foreign checkpoints.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use secateur::net::random::SplitMix;
use serde_json::Value;

use crate::timeless;

/// Two tasks, few walks and images: seconds in the dev profile, most of them in the search.
const SMALL: [&str; 10] = [
    "budgets=[Macs(ratio: 0.6)]",
    "walks_per_task=30",
    "actors_per_task=2",
    "finalists=1",
    "tune_before_score=(steps: 2, batch: 16)",
    "polish=(epochs: 2, batch: 32)",
    "tune=(epochs: 3, batch: 32)",
    "images=(reward: 100, calibration: 100, walk: 30, refit: 60)",
    "controls=[Uniform, Random(candidates: 6)]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100)),
               (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 300, test: 100))]",
];

fn command(out: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out").arg(out);
    for set in SMALL {
        command.args(["--set", set]);
    }
    command.args(extra).stdout(Stdio::null());
    command
}

fn run(out: &Path, extra: &[&str]) -> Output {
    command(out, extra).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All that must not depend on how often a run was stopped: the summary without its times, metrics, networks,
/// certificates.
fn results(out: &Path) -> (Value, Vec<Value>, Vec<Vec<u8>>) {
    let summary = timeless::summary(out);
    let files = summary["tasks"].as_array().unwrap().iter().flat_map(|task| {
        let model = out.join(task["model_file"].as_str().unwrap());
        [fs::read(&model).unwrap(), fs::read(model.with_file_name("certificate.json")).unwrap()]
    });
    let files = files.collect();
    (summary, timeless::events(out), files)
}

/// Checkpoint files, newest first.
fn checkpoints(out: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(out.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by(|a, b| b.cmp(a));
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// Whether a checkpoint lies there whole.
fn has_checkpoint(out: &Path) -> bool {
    let is_one =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path().extension().is_some_and(|e| e == "checkpoint");
    fs::read_dir(out.join("checkpoints")).is_ok_and(|mut entries| entries.any(is_one))
}

/// Whether it ended by itself within `limit`.
fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// How often the run is killed; a longer session sets SECATEUR_KILLS.
fn n_kills() -> u64 {
    std::env::var("SECATEUR_KILLS").map_or(3, |n| n.parse().unwrap())
}

#[test]
fn kill_9_at_any_moment_and_resume_give_the_undisturbed_result() {
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    let start = Instant::now();
    let output = run(&undisturbed, &["--quiet", "--checkpoint-every", "0.1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (expected, took) = (results(&undisturbed), start.elapsed());
    let mut n_gone_on = 0;
    for kill in 0..n_kills() {
        // The moments are spread over the whole run: one third of it each, somewhere within the third.
        let place = (kill as f64 % 3.0 + f64::from(SplitMix(77 + kill).below(1000) as u32) / 1000.0) / 3.0;
        let out = dir.path().join(format!("killed-{kill}"));
        let mut child = command(&out, &["--quiet", "--checkpoint-every", "0.1"]).stderr(Stdio::null()).spawn().unwrap();
        if !ends_within(&mut child, took.mul_f64(place)) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let goes_on = has_checkpoint(&out);
        n_gone_on += u64::from(goes_on);
        let output = run(&out, &["--resume", "--checkpoint-every", "0.1", "--threads", "1"]);
        assert!(output.status.success(), "kill {kill} at {place:.2}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("going on"), goes_on, "kill {kill} at {place:.2}: {}", stderr(&output));
        assert!(results(&out) == expected, "kill {kill} at {place:.2}: another result; {}", stderr(&output));
    }
    assert!(2 * n_gone_on >= n_kills(), "only {n_gone_on} of {} runs had a checkpoint to go on from", n_kills());
}

#[test]
fn a_run_killed_again_and_again_ends_as_if_nothing_had_happened() {
    let dir = tempfile::tempdir().unwrap();
    let (undisturbed, out) = (dir.path().join("undisturbed"), dir.path().join("run"));
    let start = Instant::now();
    assert!(run(&undisturbed, &["--quiet"]).status.success());
    let took = start.elapsed();
    let (mut done, mut n_gone_on) = (false, 0);
    for life in 0..40 {
        n_gone_on += usize::from(has_checkpoint(&out));
        let args = ["--quiet", "--resume", "--checkpoint-every", "0"];
        let mut child = command(&out, &args).stderr(Stdio::null()).spawn().unwrap();
        // Later lives are longer, so that the last stages, which have no checkpoints of their own, get done; none is so
        // long that it could do all of the work.
        done = ends_within(&mut child, took.mul_f64((0.4 + 0.1 * f64::from(life)).min(0.9)));
        if done {
            assert!(child.wait().unwrap().success());
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(done);
    let log = fs::read_to_string(out.join("log.txt")).unwrap();
    assert!(n_gone_on > 0 && log.matches("going on in").count() == n_gone_on, "{n_gone_on}: {log}");
    assert!(results(&out) == results(&undisturbed));
}

/// Enough finalists and images that there are two rounds of refits.
const MANY_REFITS: [&str; 8] = [
    "--set",
    "finalists=4",
    "--set",
    "walks_per_task=12",
    "--set",
    "images=(reward: 100, calibration: 100, walk: 30, refit: 1000)",
    "--set",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 1400, test: 100)),
               (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 1400, test: 100))]",
];

#[test]
fn a_run_killed_between_refits_does_not_do_finished_ones_again() {
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    let args = [&["--quiet", "--checkpoint-every", "0"], &MANY_REFITS[..]].concat();
    assert!(run(&undisturbed, &args).status.success());
    let expected = results(&undisturbed);
    // One is killed, the other interrupted: the latter refits the best of each task before it ends.
    for signal in ["KILL", "INT"] {
        let out = dir.path().join(signal);
        let mut child = command(&out, &args).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !fs::read_to_string(out.join("metrics.jsonl")).is_ok_and(|text| text.contains("\"result\"")) {
            assert!(start.elapsed() < Duration::from_secs(240) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
        );
        assert!(!child.wait().unwrap().success());
        let n_before = fs::read_to_string(out.join("log.txt")).unwrap().lines().count();
        let output = run(&out, &[&["--resume"], &args[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let log = fs::read_to_string(out.join("log.txt")).unwrap();
        let resumed: Vec<&str> = log.lines().skip(n_before).collect();
        let known = |stage: &str| {
            let at = resumed.iter().position(|line| line.contains(stage))?;
            let (n, _) = resumed.get(at + 1)?.trim().split_once(" were refitted before")?;
            n.rsplit(' ').next()?.parse::<u64>().ok()
        };
        // Of the first network, all four finalists of two searches and the only one of `uniform`, then at least those
        // whose result was written.
        assert_eq!(known("first refit of shapes"), Some(9), "{signal}: {log}");
        assert!(known("final refit of shapes") >= Some(2), "{signal}: {log}");
        assert!(results(&out) == expected, "{signal}: another result");
    }
}

#[test]
fn signals_drain_the_run_and_resume_takes_it_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    assert!(run(&undisturbed, &["--quiet"]).status.success());
    for signal in ["INT", "TERM"] {
        let out = dir.path().join(signal);
        let mut child = command(&out, &["--quiet"]).stderr(Stdio::null()).spawn().unwrap();
        let found = |text: String| ["shapes-shapes", "textures-textures"].iter().all(|t| text.contains(t));
        let start = Instant::now();
        while !fs::read_to_string(out.join("metrics.jsonl")).is_ok_and(found) {
            assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signal}");
        let (summary, ..) = results(&out);
        assert_eq!((&summary["interrupted"], summary["tasks"].as_array().unwrap().len()), (&Value::Bool(true), 2));
        assert!(summary["walks"].as_u64().unwrap() < 60, "{signal} came too late");
        assert_eq!(checkpoints(&out).len(), 1);
        let output = run(&out, &["--resume"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(results(&out) == results(&undisturbed), "{signal}: another result");
    }
}

#[test]
fn checkpoints_that_cannot_be_used_are_passed_over_or_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    assert!(run(&whole, &["--quiet", "--checkpoint-every", "0"]).status.success());
    assert_eq!(checkpoints(&whole).len(), 3, "the last three are kept");
    let expected = results(&whole);
    let copied = |name: &str| {
        let out = dir.path().join(name);
        copy(&whole, &out);
        out
    };

    let damaged = copied("damaged");
    let newest = &checkpoints(&damaged)[..2];
    let bytes = fs::read(&newest[0]).unwrap();
    fs::write(&newest[0], &bytes[..bytes.len() / 2]).unwrap();
    let mut bytes = fs::read(&newest[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest[1], bytes).unwrap();
    let output = run(&damaged, &["--resume"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("cannot be used: its checksum").count(), 2, "{}", stderr(&output));
    assert!(results(&damaged) == expected);

    let all_damaged = copied("all-damaged");
    checkpoints(&all_damaged).iter().for_each(|file| fs::write(file, b"").unwrap());
    refused(&all_damaged, &[], "cut short");

    let other_scene = copied("other-scene");
    refused(&other_scene, &["--set", "seed=8"], "`seed` is 7 there and 8 here");
    refused(&other_scene, &["--set", "budgets[0].ratio=0.7"], "`budgets[0].ratio` is 0.6 there and 0.7 here");
    assert!(results(&other_scene) == expected, "a refused run changed something");

    let short_metrics = copied("short-metrics");
    let text = fs::read(short_metrics.join("metrics.jsonl")).unwrap();
    fs::write(short_metrics.join("metrics.jsonl"), &text[..100]).unwrap();
    refused(&short_metrics, &[], "metrics.jsonl has 100 bytes");

    let other_format = copied("other-format");
    let newest = &checkpoints(&other_format)[0];
    fs::write(newest, with_format(&fs::read(newest).unwrap(), 0)).unwrap();
    refused(&other_format, &[], "it has format 0, this program reads format");
}

fn refused(out: &Path, extra: &[&str], why: &str) {
    let output = run(out, &[&["--resume"], extra].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(why), "expected '{why}' in: {}", stderr(&output));
}

/// The file a program with another format would have written.
fn with_format(bytes: &[u8], format: u32) -> Vec<u8> {
    let mut lines = bytes.splitn(3, |&b| b == b'\n');
    let (_, _, body) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
    let head = format!("secateur checkpoint {format}\n");
    let hash = blake3::hash(&[head.as_bytes(), body].concat());
    [head.as_bytes(), hash.to_hex().as_bytes(), b"\n", body].concat()
}

#[test]
fn a_killed_run_with_a_learner_on_its_own_thread_goes_on_and_counts_every_walk_once() {
    let dir = tempfile::tempdir().unwrap();
    for (i, scheduler) in ["scheduler=Async", "scheduler=BoundedLag(max: 1)"].into_iter().enumerate() {
        let out = dir.path().join(i.to_string());
        let args = ["--quiet", "--checkpoint-every", "0", "--set", scheduler, "--set", "executor=Multi"];
        let mut child = command(&out, &args).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let walks = || fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |t| t.matches("candidate").count());
        while walks() < 20 {
            assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let output = run(&out, &[&args[1..], &["--resume"]].concat());
        assert!(output.status.success() && stderr(&output).contains("going on"), "{}", stderr(&output));
        assert!(stderr(&output).contains("need not end as if it had never stopped"), "{}", stderr(&output));
        let (summary, lines, _) = results(&out);
        assert_eq!(summary["walks"], 60, "{scheduler}");
        let of_agent = |event: &'static str| lines.iter().filter(move |l| l["event"] == event && l["agent"] == "mtacp");
        let mut ended: Vec<(String, u64)> =
            of_agent("candidate").map(|l| (l["task"].to_string(), l["walk"].as_u64().unwrap())).collect();
        ended.sort();
        assert_eq!(ended.len(), 60, "{scheduler}");
        ended.dedup();
        assert_eq!(ended.len(), 60, "{scheduler}");
        // Also of updates that were made while a checkpoint waited for the learner.
        let all: Vec<u64> = (1..=summary["learner_updates"].as_u64().unwrap()).collect();
        for event in ["learned", "scheduled"] {
            let told: Vec<u64> = of_agent(event).map(|l| l["n_updates"].as_u64().unwrap()).collect();
            assert_eq!(told, all, "{scheduler}: {event}");
        }
    }
}

#[test]
fn resume_without_a_checkpoint_starts_afresh_and_never_over_somebody_elses_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new");
    let output = run(&out, &["--resume", "--set", "walks_per_task=2", "--set", "controls=[]"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("starts afresh"), "{}", stderr(&output));
    let mine = dir.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.tex"), "years of work").unwrap();
    refused(&mine, &[], "is not a run directory: it holds 'thesis.tex'");
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 1);
    // A scene that somebody wrote is no run's, and is not replaced by one with its defaults filled in.
    let own_scene = dir.path().join("own-scene");
    fs::create_dir(&own_scene).unwrap();
    for metrics in [None, Some("{\"mine\": 1}\n")] {
        fs::write(own_scene.join("scene.ron"), "(my: \"scene\")").unwrap();
        metrics.iter().for_each(|text| fs::write(own_scene.join("metrics.jsonl"), text).unwrap());
        refused(&own_scene, &[], "its scene.ron was written by no run");
        assert_eq!(fs::read_to_string(own_scene.join("scene.ron")).unwrap(), "(my: \"scene\")");
    }
}

#[test]
fn checkpoints_that_cannot_be_written_are_told_and_do_not_stop_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (undisturbed, out) = (dir.path().join("undisturbed"), dir.path().join("run"));
    let few = ["--set", "walks_per_task=12", "--set", "controls=[]"];
    assert!(run(&undisturbed, &[&["--quiet"], &few[..]].concat()).status.success());
    let mut child = command(&out, &[&["--checkpoint-every", "0"], &few[..]].concat());
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !has_checkpoint(&out) {
        assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    // A file in the folder's place: no checkpoint can be written from now on.
    while fs::remove_dir_all(out.join("checkpoints")).is_err() || fs::write(out.join("checkpoints"), "").is_err() {
        assert!(start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: write a checkpoint"), "{}", stderr(&output));
    assert!(results(&out) == results(&undisturbed));
}

#[test]
fn four_threads_give_what_one_gives() {
    let dir = tempfile::tempdir().unwrap();
    let of = |threads: &str| {
        let out = dir.path().join(threads);
        assert!(run(&out, &["--quiet", "--threads", threads]).status.success());
        results(&out)
    };
    let one = of("1");
    assert!(one == of("2") && one == of("4"));
}
