//! `--device gpu` through the binary, on any adapter found (software Vulkan in CI).

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Whether there is an adapter; a loud skip where there is none and none is required.
fn has_adapter() -> bool {
    let found = !secateur::gpu::adapters().is_empty();
    let is_required = std::env::var("SECATEUR_REQUIRE_GPU").as_deref() == Ok("1");
    assert!(found || !is_required, "SECATEUR_REQUIRE_GPU=1, but no adapter was found");
    if !found {
        eprintln!("SKIPPED: no GPU adapter (Debian: mesa-vulkan-drivers and libvulkan1 bring a software one)");
    }
    found
}

fn secateur(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// A short search with random widths: what is scored does not depend on the scores, so that devices can be compared.
const SMALL: [&str; 9] = [
    "selection=L1",
    "budgets=[Macs(ratio: 0.6)]",
    "agent=Random",
    "walks_per_task=6",
    "actors_per_task=3",
    "finalists=1",
    "images=(reward: 500, calibration: 100, walk: 40, refit: 100)",
    "controls=[Uniform]",
    "datasets=[(name: \"shapes\", source: Procedural(kind: Shapes, seed: 1, train: 700, test: 100)),
               (name: \"textures\", source: Procedural(kind: Textures, seed: 2, train: 700, test: 100))]",
];

fn run(out: &Path, device: &str) -> Output {
    let mut command = secateur(&["run", "scenes/quickstart.ron", "--device", device, "--out"]);
    command.arg(out);
    for set in SMALL {
        command.args(["--set", set]);
    }
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Accuracy and divergence of every candidate by (agent, task, walk).
fn candidates(out: &Path) -> BTreeMap<(String, String, u64), (f64, f64)> {
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    lines
        .filter(|l| l["event"] == "candidate")
        .map(|l| {
            let key = (text(&l["agent"]), text(&l["task"]), l["walk"].as_u64().unwrap());
            (key, (l["accuracy"].as_f64().unwrap(), l["divergence"].as_f64().unwrap()))
        })
        .collect()
}

#[test]
fn a_run_on_the_card_scores_the_candidates_as_the_processor_does() {
    if !has_adapter() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let outs: Vec<PathBuf> = ["cpu", "gpu"].map(|device| dir.path().join(device)).to_vec();
    for (out, device) in outs.iter().zip(["cpu", "gpu"]) {
        let output = run(out, device);
        assert!(output.status.success(), "{}", stderr(&output));
        let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
        assert!(summary["device"].as_str().unwrap().starts_with(device), "{}", summary["device"]);
        assert!(!summary["device"].as_str().unwrap().contains("then cpu"), "{}", summary["warnings"]);
        assert_eq!(summary["warnings"].as_array().unwrap().len(), 0, "{}", summary["warnings"]);
        let scene = fs::read_to_string(out.join("scene.ron")).unwrap();
        assert!(scene.to_lowercase().contains(&format!("device: {device}")), "{scene}");
        for task in summary["tasks"].as_array().unwrap() {
            let file = out.join(task["model_file"].as_str().unwrap()).with_file_name("certificate.json");
            let certificate: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            assert_eq!(certificate["budgets"][0]["ok"], true);
        }
    }
    let (cpu, gpu) = (candidates(&outs[0]), candidates(&outs[1]));
    assert_eq!(cpu.len(), 14);
    assert_eq!(cpu.keys().collect::<Vec<_>>(), gpu.keys().collect::<Vec<_>>());
    for (key, (accuracy, divergence)) in &cpu {
        let (on_card, divergence_on_card) = gpu[key];
        // 2 of 1,000 at most.
        assert!((accuracy - on_card).abs() <= 0.002 + 1e-9, "{key:?}: {accuracy} {on_card}");
        assert!((divergence - divergence_on_card).abs() <= 1e-4, "{key:?}: {divergence} {divergence_on_card}");
    }
}

#[test]
fn eval_on_the_card_counts_as_the_processor_does() {
    if !has_adapter() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let eval = |device: &str| {
        let network = "scenes/quickstart/shapes.safetensors";
        // Two pieces: the second is handed over while the card has the first.
        let mut command = secateur(&["eval", network, "--dataset", "shapes:1", "--limit", "600", "--device", device]);
        let output = command.env("XDG_CACHE_HOME", cache.path()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap().to_owned();
        let n: usize = last.split(['(', ' ']).find_map(|word| word.parse().ok()).unwrap();
        assert!(last.ends_with("of 600)"), "{last}");
        n
    };
    let (cpu, gpu) = (eval("cpu"), eval("gpu"));
    assert!(cpu.abs_diff(gpu) <= 1, "{cpu} {gpu}");
    // What was compiled is kept for the next process, which gets along with a file that is damaged.
    let hands_out = secateur::gpu::adapters()[0].features.contains(&"pipeline cache");
    let kept = || fs::read_dir(cache.path().join("secateur")).into_iter().flatten().map(|f| f.unwrap().path());
    assert_eq!(kept().count(), usize::from(hands_out));
    assert_eq!(eval("gpu"), gpu);
    for file in kept() {
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(eval("gpu"), gpu);
        assert!(fs::read(&file).unwrap().len() > whole.len() / 2, "written anew");
    }
}

#[test]
fn a_missing_adapter_is_an_error_that_names_doctor_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut run = secateur(&["run", "scenes/quickstart.ron", "--device", "gpu", "--out"]);
    let mut eval =
        secateur(&["eval", "scenes/quickstart/shapes.safetensors", "--dataset", "shapes", "--device", "gpu"]);
    run.arg(&out);
    for command in [&mut run, &mut eval] {
        let output = command.env("WGPU_ADAPTER_NAME", "no such adapter").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(text.contains("no GPU adapter") && text.contains("secateur doctor"), "{text}");
    }
    assert!(!out.exists());
}
