//! Whatever `check` accepts, `run` starts and ends well; whatever `check` refuses, `run` refuses with the same words
//! and leaves nothing.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Values of every field, extreme ones and ones that no scene may have among them. The first are sound; one scene takes
/// most fields from them, so that not all scenes are refused.
const FIELDS: [(&str, &[&str], &[&str]); 20] = [
    ("keep_ratio_min", &["0.1", "0.5", "0.2"], &["1.0", "0.999999999", "1e-300", "0.0", "-1.0", "1.5", "NaN", "inf"]),
    ("channel_multiple", &["1", "2", "3"], &["64", "0", "65", "7"]),
    ("protocol", &["Inner", "Full"], &["Outer"]),
    ("selection", &["L1", "L2", "Reconstruction", "Random"], &["Best"]),
    ("repair", &["Sequential", "Original", "Off"], &["On"]),
    ("reward", &["Accuracy", "Kl", "OutputError()"], &["OutputError", "OutputError(weights: {\"none\": 1.0})"]),
    ("precision", &["F32"], &["Bf16"]),
    ("device", &["Cpu"], &["Gpu"]),
    ("agent", &["Uniform", "Random", "Mtacp()"], &["Mtacp(profile: Paper)"]),
    ("actors_per_task", &["1", "2", "3"], &["200", "0", "4097"]),
    ("walks_per_task", &["1", "2", "3"], &["0", "1000000001"]),
    ("ends_after", &["Walks", "Scored"], &["Candidates"]),
    ("scheduler", &["Lockstep", "Async", "BoundedLag(max: 0)"], &["BoundedLag(max: 1000)", "BoundedLag(max: 1001)"]),
    ("executor", &["Single", "Multi"], &["Single"]),
    ("queue_capacity", &["1", "2", "64"], &["0", "1000001"]),
    ("controls", &["[]", "[Uniform]", "[Random(candidates: 2)]"], &["[Random(candidates: 0)]", "[Uniform, Uniform]"]),
    ("finalists", &["1", "2"], &["64", "0", "65"]),
    ("spend_leftover", &["true", "false"], &["true"]),
    ("seed", &["7"], &["0", "18446744073709551615", "18446744073709551616"]),
    (
        "budgets",
        &["[Macs(ratio: 0.6)]", "[Params(ratio: 0.7)]", "[ActivationBytes(ratio: 0.9)]"],
        &["[Macs(ratio: 1.0)]", "[Macs(ratio: 1e-9)]", "[Macs(max: 1)]", "[Params(max: 18446744073709551615)]", "[]"],
    ),
];
const COUNTS: (&[&str], &[&str]) = (&["40", "17"], &["1", "2", "0", "61", "18446744073709551615"]);
const NORMALISATIONS: (&[&str], &[&str]) = (
    &["", "mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]"],
    &[
        "mean: [3e38, 0.0, 0.0], std: [1e-3, 1.0, 1.0]",
        "mean: [0.0, 0.0, 0.0], std: [1e-44, 1.0, 1.0]",
        "mean: [0.0, 0.0, 0.0], std: [1e30, 1e30, 1e30]",
        "mean: [0.5, 0.5], std: [0.25, 0.25]",
        "mean: [1e20, 1e20, 1e20], std: [1e-10, 1e-10, 1e-10]",
    ],
);

const LABELS: (&[&str], &[&str]) = (&["", ", labels: Given"], &[", labels: None", ", labels: Some"]);

/// One value out of those that are sound, or now and then out of the others.
fn value((sound, odd): (&'static [&'static str], &'static [&'static str])) -> impl Strategy<Value = &'static str> {
    prop_oneof![24 => select(sound), 1 => select(odd)]
}

fn scene() -> impl Strategy<Value = String> {
    let fields: Vec<_> = FIELDS
        .iter()
        .map(|&(name, sound, odd)| {
            prop_oneof![
                4 => value((sound, odd)).prop_map(move |value| format!("    {name}: {value},\n")),
                // Walks and actors are never left out: their defaults take long.
                1 => Just(match name {
                    "seed" | "budgets" | "walks_per_task" | "controls" => format!("    {name}: {},\n", sound[0]),
                    _ => String::new(),
                }),
            ]
        })
        .collect();
    let counts = prop::collection::vec(value(COUNTS), 4);
    (fields, counts, value(NORMALISATIONS), value((&["20"], &["1", "0"])), value(LABELS)).prop_map(
        |(fields, counts, normalisation, test, labels)| {
            let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/shapes.safetensors");
            let [reward, calibration, walk, refit] = counts[..] else { unreachable!() };
            format!(
                "(\n    version: 1,\n    networks: [(name: \"n\", file: {quickstart:?}, {normalisation})],\n    \
                 datasets: [(name: \"d\", source: Procedural(kind: Shapes, seed: 1, train: 80, test: {test}){labels})],\n    \
                 images: (reward: {reward}, calibration: {calibration}, walk: {walk}, refit: {refit}),\n{})\n",
                fields.concat()
            )
        },
    )
}

fn secateur(arguments: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.args(arguments).env("NO_COLOR", "1").output().unwrap()
}

/// Says whether the scene was accepted.
fn agree(text: &str, place: &Path) -> Result<bool, TestCaseError> {
    let (scene, out): (PathBuf, PathBuf) = (place.join("scene.ron"), place.join("out"));
    fs::write(&scene, text).unwrap();
    // What a case left that failed.
    drop(fs::remove_dir_all(&out));
    let checked = secateur(&["check".as_ref(), &scene, "--threads".as_ref(), "1".as_ref()]);
    let flags = ["--quiet", "--threads", "1"].map(Path::new);
    let ran = secateur(&[&[Path::new("run"), &*scene, Path::new("--out"), &*out], &flags[..]].concat());
    let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    if checked.status.success() {
        prop_assert_eq!(ran.status.code(), Some(0), "accepted, but: {}", stderr(&ran));
        prop_assert!(out.join("summary.json").exists());
        fs::remove_dir_all(&out).unwrap();
    } else {
        prop_assert_eq!(checked.status.code(), Some(2), "{}", stderr(&checked));
        prop_assert_eq!(ran.status.code(), Some(2), "refused, but: {}", stderr(&ran));
        prop_assert_eq!(stderr(&ran), stderr(&checked));
        prop_assert!(stderr(&checked).contains("scene.ron:"), "no place: {}", stderr(&checked));
        prop_assert!(!out.exists());
    }
    Ok(checked.status.success())
}

/// A longer session sets SECATEUR_CASES.
fn n_cases() -> u32 {
    std::env::var("SECATEUR_CASES").map_or(24, |n| n.parse().unwrap())
}

#[test]
fn what_check_accepts_runs_and_what_it_refuses_is_refused_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut counts = [0u32; 2];
    let counts_cell = std::cell::RefCell::new(&mut counts);
    let config = Config { cases: n_cases(), failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    TestRunner::new(config)
        .run(&scene(), |text| {
            let accepted = agree(&text, dir.path())?;
            counts_cell.borrow_mut()[usize::from(accepted)] += 1;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.iter().all(|&n| n > 0), "only one kind of scene was drawn: {counts:?}");
}

/// One odd value at a time in an else sound scene: which value it is that the two see differently is then plain.
#[test]
fn every_odd_value_is_seen_alike() {
    let dir = tempfile::tempdir().unwrap();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/quickstart/shapes.safetensors");
    let scene = |normalisation: &str, counts: [&str; 4], changed: (&str, &str)| {
        let value = |name: &str, sound: &str| if changed.0 == name { changed.1.to_owned() } else { sound.to_owned() };
        let fields: String = FIELDS.iter().map(|f| format!("    {}: {},\n", f.0, value(f.0, f.1[0]))).collect();
        let [reward, calibration, walk, refit] = counts;
        format!(
            "(\n    version: 1,\n    networks: [(name: \"n\", file: {quickstart:?}, {normalisation})],\n    \
             datasets: [(name: \"d\", source: Procedural(kind: Shapes, seed: 1, train: 80, test: 20))],\n    \
             images: (reward: {reward}, calibration: {calibration}, walk: {walk}, refit: {refit}),\n{fields})\n"
        )
    };
    let counts = ["40"; 4];
    let mut scenes = Vec::new();
    for (name, _, odd) in FIELDS {
        scenes.extend(odd.iter().map(|value| scene("", counts, (name, value))));
    }
    scenes.extend(NORMALISATIONS.1.iter().map(|normalisation| scene(normalisation, counts, ("", ""))));
    for place in 0..4 {
        for odd in COUNTS.1 {
            let mut counts = counts;
            counts[place] = odd;
            scenes.push(scene("", counts, ("", "")));
        }
    }
    let failures: Vec<String> = scenes
        .iter()
        .filter_map(|text| agree(text, dir.path()).err().map(|error| format!("{error}\n{text}")))
        .collect();
    assert!(failures.is_empty(), "{} disagreements:\n{}", failures.len(), failures.join("\n"));
}
