//! Checkpoints that were changed: by chance, or by somebody who renewed the checksum. Never a panic, never much memory,
//! never counters that are not the run's.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use secateur::net::random::SplitMix;
use secateur::run::read_checkpoint;
use serde_json::Value;

/// Counts the bytes that live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one test allocates is not counted for another.
static ALONE: Mutex<()> = Mutex::new(());

/// Most bytes that live during `work` beyond those that lived before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let done = work();
    (done, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// A learning agent, then a control: seconds in the dev profile.
const SETS: [&str; 8] = [
    "networks=[(name: \"shapes\", file: \"./quickstart/shapes.safetensors\")]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 120, test: 40))]",
    "budgets=[Macs(ratio: 0.6), Params(ratio: 0.8)]",
    "images=(reward: 40, calibration: 40, walk: 16, refit: 40)",
    "actors_per_task=2",
    "walks_per_task=8",
    "finalists=2",
    "controls=[Random(candidates: 4)]",
];

fn command(out: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.arg("run").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart.ron")).arg("--out").arg(out);
    for set in SETS {
        command.args(["--set", set]);
    }
    command.args(["--quiet", "--threads", "1"]).args(extra).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn checkpoints(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "checkpoint")).collect();
    files.sort();
    files
}

/// Real checkpoints: in the first search, in the second, behind both with refits. With each, the metrics of its run.
fn real(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let out = dir.join("real");
    let mut child = command(&out, &["--checkpoint-every", "0"]).spawn().unwrap();
    let mut seen: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    loop {
        let ended = child.try_wait().unwrap().is_some();
        for path in checkpoints(&out) {
            if seen.iter().all(|(known, _)| *known != path)
                && let Ok(bytes) = fs::read(&path)
            {
                seen.push((path, bytes));
            }
        }
        if ended {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    seen.sort();
    let metrics = fs::read(out.join("metrics.jsonl")).unwrap();
    let n = seen.len();
    assert!(n >= 4, "only {n} checkpoints");
    [0, n / 3, 2 * n / 3, n - 1].map(|i| (seen[i].1.clone(), metrics.clone())).to_vec()
}

/// Where the bytes behind the two lines begin.
fn body_at(bytes: &[u8]) -> usize {
    bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(1).unwrap().0 + 1
}

/// The file that somebody makes who changes the body and renews the checksum.
fn resealed(bytes: &[u8], body: &[u8]) -> Vec<u8> {
    let head_len = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
    let head = &bytes[..head_len];
    let hash = blake3::hash(&[head, body].concat());
    [head, hash.to_hex().as_bytes(), b"\n", body].concat()
}

/// Bytes flipped, cut off, added or repeated somewhere.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = SplitMix(seed);
    let mut out = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(out.len().max(1));
        match rng.below(6) {
            0 => out.truncate(at),
            1 => out.extend((0..rng.below(300)).map(|i| (i * 7) as u8)),
            // Lengths and counts far beyond what follows.
            2 => drop(out.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])),
            3 => out.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << rng.below(8)),
            4 => out.iter_mut().skip(at).take(9).for_each(|b| *b = 0xff),
            _ => {
                let again: Vec<u8> = out.iter().skip(at).take(40).copied().collect();
                drop(out.splice(at..at, again));
            }
        }
    }
    out
}

#[test]
fn changed_bytes_are_refused_and_no_bytes_take_much_memory() {
    let _alone = ALONE.lock().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let real = real(dir.path());
    for (bytes, _) in &real {
        assert!(read_checkpoint(bytes).unwrap() == *bytes, "it does not come back as it was");
    }
    let cases = std::env::var("SECATEUR_CASES").map_or(400, |n| n.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(which in 0..real.len(), seed: u64)| {
        let bytes = &real[which].0;
        let changed = mutated(bytes, seed);
        let (read, peak) = peak_of(|| read_checkpoint(&changed));
        prop_assert!(read.is_err() || changed == *bytes, "changed bytes were taken for whole");
        prop_assert!(peak < 64 * changed.len() + (8 << 20), "{peak} bytes for {}", changed.len());
        // With the checksum renewed it may be one, but of no more memory.
        let body = mutated(&bytes[body_at(bytes)..], seed);
        let forged = resealed(bytes, &body);
        let (_, peak) = peak_of(|| read_checkpoint(&forged).is_ok());
        prop_assert!(peak < 64 * forged.len() + (8 << 20), "{peak} bytes for {}", forged.len());
    });
    // As many empty lists as there are bytes.
    let body_from = body_at(&real[0].0);
    for filler in [0u8, 1, 0x80, 0xff] {
        let body = [&real[0].0[body_from..body_from + 4], &vec![filler; 1 << 20]].concat();
        let forged = resealed(&real[0].0, &body);
        let (_, peak) = peak_of(|| read_checkpoint(&forged).is_ok());
        assert!(peak < 64 * forged.len(), "{peak} bytes for {}", forged.len());
    }
}

/// The counters of a summary that do not follow from what the agent decides, which forged weights may change.
fn counters(out: &Path) -> Vec<Value> {
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    ["walks", "env_steps", "learner_updates"].map(|key| summary[key].clone()).to_vec()
}

#[test]
fn forged_counters_are_refused_or_do_not_count() {
    let _alone = ALONE.lock().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let real = real(dir.path());
    let expected = counters(&dir.path().join("real"));
    let n_forgeries: u64 = std::env::var("SECATEUR_FORGERIES").map_or(12, |n| n.parse().unwrap());
    let (mut n_refused, mut n_accepted) = (0, 0);
    for (which, (bytes, metrics)) in real.iter().enumerate() {
        let body = &bytes[body_at(bytes)..];
        for forgery in 0..n_forgeries {
            let mut rng = SplitMix(1000 * which as u64 + forgery);
            let mut body = body.to_vec();
            // The counters of tasks and searches lie near the beginning and the end of what follows the identity.
            let len = body.len();
            let at = if forgery % 2 == 0 { len - 1 - rng.below(len.min(80)) } else { rng.below(len) };
            body[at] = body[at].wrapping_add(1 + rng.below(3) as u8) & 0x7f;
            let out = dir.path().join(format!("forged-{which}-{forgery}"));
            fs::create_dir_all(out.join("checkpoints")).unwrap();
            fs::write(out.join("metrics.jsonl"), metrics).unwrap();
            fs::write(out.join("checkpoints/000000.checkpoint"), resealed(bytes, &body)).unwrap();
            let output = command(&out, &["--resume"]).output().unwrap();
            let message = stderr(&output);
            assert!(!message.contains("panicked"), "{which}, byte {at}: {message}");
            match output.status.code() {
                Some(0) => {
                    n_accepted += 1;
                    assert_eq!(counters(&out), expected, "{which}, byte {at}: {message}");
                }
                Some(1 | 2) => {
                    n_refused += 1;
                    assert!(!out.join("summary.json").exists(), "{which}, byte {at}: {message}");
                }
                code => panic!("{which}, byte {at}: {code:?} {message}"),
            }
        }
    }
    eprintln!("{n_refused} forgeries were refused, {n_accepted} changed no counter");
    // How many are refused depends on which checkpoints were caught and how much of them are replayed tensors and
    // images, where a byte more or less is as good a value as before.
    assert!(n_refused > 0 && n_accepted > 0);
}
