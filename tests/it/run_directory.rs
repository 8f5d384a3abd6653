//! Run directories that others write to, take away, fill with links and pipes, or that lie on a full disk: what is
//! said, how it ends, and that nothing is written where it must not be.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::timeless;

/// One task, few walks and images: below a second in the dev profile.
const SMALL: [&str; 6] = [
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\")]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 120, test: 40))]",
    "budgets=[Macs(ratio: 0.6)]",
    "images=(reward: 40, calibration: 40, walk: 16, refit: 40)",
    "actors_per_task=2",
    "finalists=2",
];
const FEW: [&str; 4] = ["--set", "walks_per_task=6", "--set", "controls=[]"];
const MORE: [&str; 4] = ["--set", "walks_per_task=60", "--set", "controls=[]"];
const ENDLESS: [&str; 4] = ["--set", "walks_per_task=1000000", "--set", "controls=[]"];

fn scene() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")
}

fn command(out: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(scene()).arg("--out").arg(out).args(["--threads", "1"]);
    for set in SMALL {
        command.args(["--set", set]);
    }
    command.args(extra).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(out: &Path, extra: &[&str]) -> Output {
    command(out, extra).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file below a folder with its bytes, links and pipes by their kind.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        let bytes = if kind.is_file() { fs::read(&path).unwrap() } else { format!("{kind:?}").into_bytes() };
        if kind.is_dir() {
            out.extend(content(&path));
        }
        out.push((path, bytes));
    }
    out.sort();
    out
}

fn wait_for(child: &mut Child, what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing happens");
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_walked(out: &Path) -> bool {
    fs::read_to_string(out.join("metrics.jsonl")).is_ok_and(|text| text.contains("\"candidate\""))
}

fn n_checkpoints(out: &Path) -> usize {
    let is_one = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|e| e == "checkpoint");
    fs::read_dir(out.join("checkpoints")).map_or(0, |entries| entries.flatten().filter(is_one).count())
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A run that was killed behind its first checkpoint.
fn killed(out: &Path) {
    let mut child = command(out, &[&["--quiet", "--checkpoint-every", "0"], &MORE[..]].concat()).spawn().unwrap();
    wait_for(&mut child, || n_checkpoints(out) > 1);
    kill(child);
    // What is left of the lock holds nobody up, and goes with the next run.
    fs::remove_file(out.join(".lock")).unwrap();
}

fn refused(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for part in parts {
        assert!(message.contains(part), "expected '{part}' in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

/// Every line of the metrics is JSON, every network has the certificate that was counted from it, and no temporary file
/// is left.
fn check_sound(out: &Path) {
    if let Ok(text) = fs::read_to_string(out.join("metrics.jsonl")) {
        text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect(line)));
    }
    for (path, bytes) in content(out) {
        assert!(path.extension() != Some(OsStr::new("tmp")), "'{}' is left", path.display());
        if path.ends_with("model.safetensors") {
            let certificate: Value =
                serde_json::from_slice(&fs::read(path.with_file_name("certificate.json")).unwrap()).unwrap();
            assert_eq!(certificate["blake3"], blake3::hash(&bytes).to_hex().as_str(), "'{}'", path.display());
            assert_eq!(certificate["budgets"][0]["ok"], true);
        }
    }
}

#[test]
fn of_two_runs_in_one_directory_exactly_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let out = dir.path().join(format!("two-{round}"));
        // Half of the time one of them resumes what is not there yet.
        let extra = if round % 2 == 0 { &["--quiet"][..] } else { &["--quiet", "--resume"][..] };
        let children =
            [&["--quiet"][..], extra].map(|extra| command(&out, &[extra, &ENDLESS].concat()).spawn().unwrap());
        let [mut first, mut second] = children;
        let start = Instant::now();
        let (loser, mut winner) = loop {
            match (first.try_wait().unwrap(), second.try_wait().unwrap()) {
                (Some(_), Some(_)) => panic!("round {round}: both ended"),
                (Some(_), None) => break (first, second),
                (None, Some(_)) => break (second, first),
                (None, None) => std::thread::sleep(Duration::from_millis(2)),
            }
            assert!(start.elapsed() < Duration::from_secs(60), "round {round}: both go on");
        };
        let output = loser.wait_with_output().unwrap();
        let directory = format!("'{}'", out.display());
        refused(&output, &[&directory, "--out"]);
        assert!(stderr(&output).contains("in use") || stderr(&output).contains("not an empty"), "{}", stderr(&output));
        wait_for(&mut winner, || has_walked(&out));
        signal(&winner, "KILL");
        winner.wait().unwrap();
        let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let whole = text.rsplit_once('\n').unwrap().0;
        whole.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect(line)));
        assert_eq!(whole.matches("\"start\"").count(), 1);
    }
}

#[test]
fn a_living_run_is_not_resumed_and_a_killed_one_is_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let endless = [&["--quiet", "--checkpoint-every", "0"], &ENDLESS[..]].concat();
    let mut child = command(&out, &endless).spawn().unwrap();
    wait_for(&mut child, || n_checkpoints(&out) > 0);
    for extra in [&["--resume"][..], &[]] {
        // Its scene may even be another one.
        for scene in [&ENDLESS, &FEW] {
            let id = format!("process {}", child.id());
            refused(&run(&out, &[extra, &scene[..]].concat()), &["in use", &id, &format!("'{}'", out.display())]);
        }
    }
    assert!(child.try_wait().unwrap().is_none());
    kill(child);
    let mut again = command(&out, &[&["--resume"], &endless[..]].concat()).spawn().unwrap();
    let n = fs::read_to_string(out.join("metrics.jsonl")).unwrap().len();
    wait_for(&mut again, || fs::read_to_string(out.join("metrics.jsonl")).unwrap().len() > n);
    signal(&again, "TERM");
    assert_eq!(again.wait().unwrap().code(), Some(130));
    assert!(!out.join(".lock").exists());
    check_sound(&out);
}

#[test]
fn what_cannot_be_a_run_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "mine").unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/net.safetensors"), "mine").unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    symlink(at("absent"), at("dangling")).unwrap();
    let before = content(dir.path());
    for name in ["file", "file/below", "full", "pipe", "dangling"] {
        for extra in [&[][..], &["--resume"]] {
            refused(&run(&at(name), &[extra, &FEW].concat()), &[name]);
        }
    }
    refused(&run(Path::new("/"), &FEW), &["'/'"]);
    refused(&run(Path::new("/"), &[&["--resume"], &FEW[..]].concat()), &["'/'"]);
    assert!(content(dir.path()) == before, "something was changed");
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    // A link to a folder is where the user wants it.
    fs::create_dir(at("scratch")).unwrap();
    symlink(at("scratch"), at("link")).unwrap();
    let output = run(&at("link"), &FEW);
    assert!(output.status.success(), "{}", stderr(&output));
    check_sound(&at("scratch"));
}

#[test]
fn links_pipes_and_devices_in_a_run_directory_are_refused_and_what_they_point_at_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, precious, elsewhere) =
        (dir.path().join("whole"), dir.path().join("precious"), dir.path().join("elsewhere"));
    killed(&whole);
    fs::write(&precious, "mine").unwrap();
    fs::create_dir(&elsewhere).unwrap();
    fs::create_dir_all(whole.join("tasks/shapes-shapes-macs0.6")).unwrap();
    let files =
        ["metrics.jsonl", "scene.ron", "log.txt", "summary.json", "tasks/shapes-shapes-macs0.6/model.safetensors"];
    let more_files =
        ["certificate.json", "plan.json", "cut.py"].map(|name| format!("tasks/shapes-shapes-macs0.6/{name}"));
    let more_files = [&more_files.each_ref().map(String::as_str)[..], &[".lock"]].concat();
    let folders = ["tasks", "checkpoints", "tasks/shapes-shapes-macs0.6"];
    let put_away = |name: &str| {
        let place = whole.join(name);
        fs::rename(&place, dir.path().join("away")).ok().map(|()| place)
    };
    for name in files.iter().chain(&more_files).chain(&folders) {
        let away = put_away(name);
        let place = whole.join(name);
        for target in [&precious, &elsewhere, Path::new("/dev/zero"), Path::new("pipe"), Path::new("wrong kind")] {
            match target.to_str() {
                Some("pipe") => assert!(Command::new("mkfifo").arg(&place).status().unwrap().success()),
                Some("wrong kind") if folders.contains(name) => fs::write(&place, "").unwrap(),
                Some("wrong kind") => fs::create_dir(&place).unwrap(),
                _ => symlink(target, &place).unwrap(),
            }
            let before = content(&whole);
            let file_name = Path::new(name).file_name().unwrap().to_str().unwrap();
            refused(&run(&whole, &[&["--resume"], &MORE[..]].concat()), &[file_name, "expected a"]);
            assert!(content(&whole) == before, "{name} as {target:?}: something was changed");
            fs::remove_file(&place).or_else(|_| fs::remove_dir(&place)).unwrap();
        }
        away.iter().for_each(|place| fs::rename(dir.path().join("away"), place).unwrap());
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    let output = run(&whole, &[&["--resume"], &MORE[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    check_sound(&whole);
}

/// Peak resident memory and the rest of what a run says, from a shell that measures its child.
fn peak_kb(command: &mut Command) -> (Output, u64) {
    let child = command.spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(text) = fs::read_to_string(&status) {
            let Some(line) = text.lines().find(|line| line.starts_with("VmHWM")) else { break };
            peak = line.split_whitespace().nth(1).map_or(peak, |n| n.parse().unwrap());
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    let output = child.wait_with_output().unwrap();
    (output, watcher.join().unwrap())
}

#[test]
fn checkpoints_that_are_no_files_or_endless_are_passed_over_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    killed(&out);
    let at = |number: u32| out.join(format!("checkpoints/{number:06}.checkpoint"));
    symlink("/dev/zero", at(900)).unwrap();
    assert!(Command::new("mkfifo").arg(at(901)).status().unwrap().success());
    fs::create_dir(at(902)).unwrap();
    fs::File::create(at(903)).unwrap().set_len(3 << 30).unwrap();
    // The head of a sound one, and holes behind it.
    let newest = (0..900).rev().map(at).find(|path| path.exists()).unwrap();
    for (number, n_bytes) in [(904, 3u64 << 30), (905, 600 << 20)] {
        fs::copy(&newest, at(number)).unwrap();
        fs::OpenOptions::new().write(true).open(at(number)).unwrap().set_len(n_bytes).unwrap();
    }
    fs::write(out.join("checkpoints/18446744073709551615.checkpoint"), "").unwrap();
    symlink(&newest, at(906)).unwrap();
    fs::OpenOptions::new().write(true).open(out.join("metrics.jsonl")).unwrap().set_len(3 << 30).unwrap();
    let start = Instant::now();
    let (output, peak) = peak_kb(&mut command(&out, &[&["--resume"], &MORE[..]].concat()));
    let message = stderr(&output);
    assert!(output.status.success(), "{message}");
    for number in 900..=906 {
        let name = format!("{number:06}.checkpoint' cannot be used");
        assert!(message.contains(&name), "{number}: {message}");
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(peak < 500_000, "{peak} kB");
    for number in 900..=906 {
        // Whole files among them may have gone as older checkpoints do.
        drop(fs::remove_file(at(number)).or_else(|_| fs::remove_dir(at(number))));
    }
    check_sound(&out);
    assert!(fs::metadata(out.join("metrics.jsonl")).unwrap().len() < 1 << 20);
    // Without any checkpoint the metrics are looked at, but not all of them.
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    fs::remove_file(out.join("summary.json")).unwrap();
    let metrics = fs::OpenOptions::new().write(true).truncate(true).open(out.join("metrics.jsonl")).unwrap();
    metrics.set_len(3 << 30).unwrap();
    let (output, peak) = peak_kb(&mut command(&out, &[&["--resume"], &MORE[..]].concat()));
    refused(&output, &["is not a run directory: its scene.ron was written by no run"]);
    assert!(peak < 500_000, "{peak} kB");
}

#[test]
fn a_run_directory_that_vanishes_is_a_failure_and_nothing_is_reported_as_written() {
    let dir = tempfile::tempdir().unwrap();
    for (i, way) in ["remove", "move", "replace", "metrics", "lock"].into_iter().enumerate() {
        let out = dir.path().join(i.to_string());
        let many = ["--set", "walks_per_task=3000", "--set", "controls=[]", "--set", "agent=Random"];
        let mut child = command(&out, &many).stdout(Stdio::piped()).spawn().unwrap();
        wait_for(&mut child, || has_walked(&out));
        match way {
            "remove" => while fs::remove_dir_all(&out).is_err() {},
            "metrics" => fs::remove_file(out.join("metrics.jsonl")).unwrap(),
            "lock" => fs::remove_file(out.join(".lock")).unwrap(),
            _ => fs::rename(&out, dir.path().join(format!("{i}-moved"))).unwrap(),
        }
        if way == "replace" {
            fs::create_dir(&out).unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{way}: {message}");
        assert!(message.contains("removed"), "{way}: {message}");
        assert!(message.contains(&out.display().to_string()), "{way}: {message}");
        assert!(output.stdout.is_empty(), "{way}: {}", String::from_utf8_lossy(&output.stdout));
        if way == "replace" {
            assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "something was written into another's folder");
        }
    }
}

#[test]
fn a_limit_on_the_size_of_files_leaves_no_network_without_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    assert!(run(&undisturbed, &[&["--quiet"], &FEW[..]].concat()).status.success());
    let sizes: Vec<u64> =
        content(&undisturbed).iter().map(|(_, bytes)| bytes.len() as u64).filter(|&n| n > 64).collect();
    // Below and above every file that is written, in the shell's blocks of 1024 bytes.
    let mut blocks: Vec<u64> = sizes.iter().flat_map(|n| [n / 1024, n / 1024 + 1]).chain([0]).collect();
    blocks.sort_unstable();
    blocks.dedup();
    let mut n_failed = 0;
    for block in blocks {
        let out = dir.path().join(format!("limit-{block}"));
        let inner = command(&out, &[&["--checkpoint-every", "0"], &FEW[..]].concat());
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("ulimit -f {block}; exec \"$0\" \"$@\"")]).arg(inner.get_program());
        let output = limited.args(inner.get_args()).output().unwrap();
        let message = stderr(&output);
        let code = output.status.code();
        assert!(matches!(code, Some(0..=2)) && !message.contains("panicked"), "{block}: {code:?} {message}");
        n_failed += u32::from(code != Some(0));
        if code != Some(0) {
            assert!(message.contains("File too large"), "{block}: {message}");
        }
        if out.exists() {
            // The last line may be cut short.
            let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
            let whole = metrics.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect(line)));
            fs::write(out.join("metrics.jsonl"), if whole.is_empty() { String::new() } else { format!("{whole}\n") })
                .unwrap();
            check_sound(&out);
        }
        let output = run(&out, &[&["--quiet", "--resume"], &FEW[..]].concat());
        assert!(output.status.success(), "{block}: {}", stderr(&output));
        for (path, bytes) in
            content(&undisturbed).iter().filter(|(path, _)| path.starts_with(undisturbed.join("tasks")))
        {
            let again = out.join(path.strip_prefix(&undisturbed).unwrap());
            assert!(path.is_dir() || fs::read(again).unwrap() == *bytes, "{block}: '{}' differs", path.display());
        }
    }
    assert!(n_failed >= 3, "only {n_failed} limits were too low");
}

#[test]
fn folders_whose_names_are_no_unicode_are_as_good_as_any() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(OsString::from_vec(b"sc\xffne".to_vec()));
    fs::create_dir(&folder).unwrap();
    let text = fs::read_to_string(scene()).unwrap();
    let name = OsString::from_vec(b"my\xfe.ron".to_vec());
    fs::write(folder.join(&name), text).unwrap();
    let quickstart = scene().with_file_name("quickstart");
    fs::create_dir(folder.join("quickstart")).unwrap();
    for entry in fs::read_dir(quickstart).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join("quickstart").join(path.file_name().unwrap())).unwrap();
    }
    let secateur = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
        command.current_dir(dir.path());
        command
    };
    let run = |out: Option<&Path>, resume: bool| {
        let mut command = secateur();
        command.arg("run").arg(folder.join(&name)).args(FEW).arg("--quiet");
        for set in SMALL {
            command.args(["--set", set]);
        }
        if let Some(out) = out {
            command.arg("--out").arg(out);
        }
        if resume {
            command.arg("--resume");
        }
        command.output().unwrap()
    };
    let inside = folder.join(OsString::from_vec(b"o\xfdut".to_vec()));
    for out in [Some(inside.as_path()), Some(&*dir.path().join("plain")), None] {
        let output = run(out, false);
        assert!(output.status.success(), "{}", stderr(&output));
        let place =
            out.map_or_else(|| dir.path().join("runs").join(OsString::from_vec(b"my\xfe".to_vec())), Path::to_owned);
        check_sound(&place);
        assert!(run(out, true).status.success());
    }
    // The written scene names its networks as seen from where it lies.
    let output = secateur().arg("check").arg(inside.join("scene.ron")).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn sigterm_at_any_moment_ends_a_run_within_seconds_and_resume_gives_the_undisturbed_result() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["--quiet", "--set", "walks_per_task=40", "--set", "controls=[Random(candidates: 4)]"];
    let undisturbed = dir.path().join("undisturbed");
    let start = Instant::now();
    assert!(run(&undisturbed, &sets).status.success());
    let took = start.elapsed();
    let results = |out: &Path| {
        let tasks: Vec<Vec<u8>> = content(&out.join("tasks")).into_iter().map(|(_, bytes)| bytes).collect();
        (timeless::summary(out), timeless::events(out), tasks)
    };
    let expected = results(&undisturbed);
    let mut n_stopped = 0;
    for moment in 0..8 {
        let out = dir.path().join(moment.to_string());
        let mut child = command(&out, &sets).spawn().unwrap();
        // Not before the program listens: what it does then is nobody's business but the system's.
        std::thread::sleep(Duration::from_millis(20) + took.mul_f64(f64::from(moment) / 8.0));
        if child.try_wait().unwrap().is_none() {
            signal(&child, "TERM");
        }
        let start = Instant::now();
        let code = child.wait().unwrap().code();
        assert!(start.elapsed() < Duration::from_secs(15), "moment {moment}");
        assert!(matches!(code, Some(0 | 130)), "moment {moment}: {code:?}");
        n_stopped += u32::from(code == Some(130));
        if code == Some(130) {
            let output = run(&out, &[&["--resume"], &sets[..]].concat());
            assert!(output.status.success(), "moment {moment}: {}", stderr(&output));
        }
        assert!(results(&out) == expected, "moment {moment}: another result");
        check_sound(&out);
    }
    assert!(n_stopped >= 4, "only {n_stopped} runs were stopped");
}

/// A convolution of so many channels in front of a classifier that ranking them takes a minute.
fn wide_network(file: &Path) {
    use secateur::formats::{Preprocessing, write_network};
    use secateur::net::random::with_random_weights;
    use secateur::net::{Conv2d, GraphBuilder, Op, Pointwise, Shape};
    let mut g = GraphBuilder::new(Shape { c: 3, h: 32, w: 32 });
    let conv = g.push("conv", Op::Conv2d(Conv2d::square(3, 4096, 4, 32, 0)), &[0]);
    let relu = g.push("relu", Op::Pointwise(Pointwise::Relu), &[conv]);
    let flat = g.push("flat", Op::Flatten, &[relu]);
    g.push("linear", Op::Linear { in_features: 4096, out_features: 10, bias: true }, &[flat]);
    write_network(file, &with_random_weights(g.finish().unwrap(), 1), &Preprocessing::imagenet()).unwrap();
}

#[test]
fn signals_are_obeyed_at_once_while_channels_are_ranked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wide.safetensors");
    wide_network(&file);
    let network = format!("networks=[(name: \"wide\", file: {file:?})]");
    for (name, code) in [("TERM", 130), ("INT", 130)] {
        let out = dir.path().join(name);
        let mut child = command(&out, &["--quiet", "--set", &network]).spawn().unwrap();
        wait_for(&mut child, || {
            fs::read_to_string(out.join("log.txt")).is_ok_and(|text| text.contains("ranking channels"))
        });
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{name}: {:?}", start.elapsed());
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("interrupted"), "{name}: {}", stderr(&output));
    }
}
