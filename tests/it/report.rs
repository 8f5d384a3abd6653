//! Reports, completions and manual pages, through the whole command line.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn secateur(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_secateur")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(out: &Path, extra: &[&str]) -> Output {
    let scene = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron");
    let mut arguments = vec!["run", path(&scene), "--out", path(out)];
    let sets = [
        "budgets=[Macs(ratio: 0.5), Macs(ratio: 0.7)]",
        "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 300, test: 100))]",
        "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\", datasets: [\"shapes\"])]",
        "images=(reward: 100, calibration: 100, walk: 30, refit: 60, probe: 50)",
        "actors_per_task=2",
        "walks_per_task=8",
        "finalists=1",
        "refit_in_pairs=false",
        "controls=[Uniform, Random(candidates: 4)]",
        "tune=(epochs: 2, held_out: 50)",
    ];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    arguments.extend(extra);
    secateur(&arguments)
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[test]
fn a_run_leaves_a_page_with_the_numbers_of_its_summary_and_the_command_writes_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = run(&out, &[]);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("the report is '"), "{}", text(&ended.stderr));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let tasks = summary["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let share = |key: &str| format!("{:.2} %", 100.0 * task[key].as_f64().unwrap());
        let numbers = ["macs", "params"].map(|key| thousands(task[key].as_u64().unwrap()));
        let shares = ["test_accuracy_original", "test_accuracy_before_tuning"].map(share);
        for shown in numbers.iter().chain(&shares) {
            assert!(
                page.contains(&format!("<td class=\"number\">{shown}</td>")),
                "{shown} of {} is not shown",
                task["name"]
            );
        }
    }
    assert_eq!(page.matches("certified: within budget</span>").count(), 2);
    // The searches of the agent and both controls, and the epochs of both winners' trainings.
    for drawn in [
        "id=\"search-1-candidates-title\"",
        "id=\"accuracy-cost-1-title\"",
        "id=\"tune-loss-title\"",
        "id=\"widths-1-title\"",
    ] {
        assert!(page.contains(drawn), "no drawing with {drawn}");
    }
    let (again, drawings) = (folder.path().join("again.html"), folder.path().join("drawings"));
    let reported = secateur(&["report", path(&out), "-o", path(&again), "--svg", path(&drawings)]);
    assert!(reported.status.success(), "{}", text(&reported.stderr));
    assert_eq!(text(&reported.stdout).trim(), path(&again));
    assert_eq!(fs::read_to_string(&again).unwrap(), page, "the same files give the same page");
    let n = fs::read_dir(&drawings).unwrap().count();
    assert_eq!(n, page.matches("<svg ").count(), "a file for each drawing");

    // A page in a run directory is no reason to refuse to go on from it.
    fs::remove_file(out.join("summary.json")).unwrap();
    let unfinished = secateur(&["report", path(&out)]);
    assert!(unfinished.status.success(), "{}", text(&unfinished.stderr));
    assert!(text(&unfinished.stderr).contains("summary.json is missing: the run has not ended"));
    let resumed = run(&out, &["--resume", "--quiet"]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert!(!text(&resumed.stderr).contains("report"), "quiet: {}", text(&resumed.stderr));
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("certified: within budget"));
}

#[test]
fn a_folder_where_the_page_would_stand_is_refused_before_anything_is_searched() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    fs::create_dir_all(out.join("report.html/taken")).unwrap();
    fs::write(out.join("metrics.jsonl"), "").unwrap();
    let ended = run(&out, &["--resume"]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(
        text(&ended.stderr).contains("report.html' is a folder, expected a regular file"),
        "{}",
        text(&ended.stderr)
    );
    assert!(!out.join("summary.json").exists());
}

#[test]
fn what_is_no_run_ends_with_what_to_name_instead() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for (given, told) in [(folder.path(), "is empty"), (&folder.path().join("absent"), "cannot be read")] {
        let ended = secateur(&["report", path(given)]);
        assert_eq!(ended.status.code(), Some(2));
        assert!(text(&ended.stderr).contains(told), "{}", text(&ended.stderr));
    }
    fs::write(&file, "{}").unwrap();
    let ended = secateur(&["report", path(&file)]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(text(&ended.stderr).contains("is a file: name the directory"), "{}", text(&ended.stderr));
}

#[test]
fn completions_are_scripts_that_their_shell_reads_and_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = secateur(&["completions", shell]);
        assert!(script.status.success(), "{}", text(&script.stderr));
        for command in ["report", "compare-networks", "completions"] {
            assert!(text(&script.stdout).contains(command), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("secateur.bash");
    fs::write(&script, secateur(&["completions", "bash"]).stdout).unwrap();
    match Command::new("bash").arg("-n").arg(&script).output() {
        Ok(read) => assert!(read.status.success(), "{}", text(&read.stderr)),
        Err(error) => eprintln!("SKIPPED: no bash to read the script ({error})"),
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let written = secateur(&["man", "--out", path(folder.path())]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    let help = text(&secateur(&["--help"]).stdout);
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 12, "{commands:?}");
    for command in commands {
        let page = fs::read_to_string(folder.path().join(format!("secateur-{command}.1"))).unwrap();
        let head = page.lines().find(|line| line.starts_with(".TH")).unwrap().replace("\\-", "-");
        assert!(head.contains(&format!("secateur-{command} 1")), "{head}");
    }
    let first = text(&secateur(&["man"]).stdout);
    assert_eq!(first.trim_end(), fs::read_to_string(folder.path().join("secateur.1")).unwrap().trim_end());
}
