//! Run directories as `run` writes them, small.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A task of `summary.json`.
pub fn task(name: &str, macs: u64, accuracy: f64) -> Value {
    json!({
        "name": name, "network": "shapes", "dataset": "drawn",
        "budget": {"kind": "macs", "ratio": 0.5, "max": 2_408_688},
        "original": {"macs": 4_817_376, "params": 55_962, "activation_bytes": 81_920},
        "macs": macs, "params": 28_155, "activation_bytes": 81_920,
        "groups": [{"name": "conv2a", "channels": 16, "kept": 4}, {"name": "conv3a", "channels": 32, "kept": 28}],
        "reward_accuracy": 0.897, "reward_accuracy_original": 0.952,
        "test_accuracy_original": 0.922, "test_accuracy_before_tuning": accuracy, "test_accuracy_after_tuning": null,
        "noise_free_reward_mean": 0.6858,
        "against_random": {
            "noise_free_walks": 8, "noise_free_reward_mean": 0.6858, "random_walks": 40, "random_reward_mean": 0.4880,
            "random_reward_standard_error": 0.0269, "beats_random": true
        },
        "unchanged": false, "walk_of_best": 3, "model_file": format!("tasks/{name}/model.safetensors")
    })
}

/// A control of `summary.json`, on 2,000 test images.
pub fn control(task: &str, agent: &str, accuracy: f64) -> Value {
    json!({
        "task": task, "agent": agent, "candidates_scored": 1, "reward_accuracy": 0.891,
        "test_accuracy_before_tuning": accuracy, "macs": 2_393_000, "reward_accuracy_gain": 0.006,
        "test_accuracy_gain": 0.016,
        "test_paired": {
            "images": 2000, "only_first": 109, "only_second": 77, "gain": 0.016,
            "gain_interval": [0.00267, 0.02933], "p_value": 0.0228, "is_distinguishable": true
        },
        "walk_reward_mean": null, "walk_reward_standard_error": null
    })
}

/// All of `summary.json`.
pub fn summary(tasks: &[Value], controls: &[Value]) -> Value {
    json!({
        "scene": "scenes/small.ron", "seed": 7,
        "reward": {"kind": "Kl", "formula": "exp(-divergence)", "measures": "divergence", "unit": "nats", "better": "lower"},
        "agent": "mtacp", "scheduler": "lockstep", "executor": "single", "device": "cpu", "precision": "f32",
        "warnings": ["the card was given up"], "interrupted": false, "wall_s": 257.3, "search_wall_s": 28.4,
        "search_times_s": {"mtacp": {"wall": 28.4, "evaluation": 27.2}},
        "walks": 400, "env_steps": 2000, "learner_updates": 23, "candidates_scored": 236, "cache_hits": 174,
        "tasks": tasks, "controls": controls
    })
}

/// A line of `metrics.jsonl`.
pub fn candidate(agent: &str, task: &str, walk: u64, reward: f64) -> Value {
    json!({
        "event": "candidate", "agent": agent, "task": task, "actor": 0, "walk": walk, "noise_free": walk % 4 == 3,
        "cached": walk % 5 == 4, "reward": reward, "accuracy": reward, "macs": 2_402_784, "widths": [5, 24], "spent": {},
        "is_best": false, "search_s": walk as f64 * 0.5 + 0.25
    })
}

/// Events of a search for the tasks, of a learner with three updates, and of three epochs of fine-tuning.
pub fn metrics(tasks: &[&str]) -> Vec<Value> {
    let mut events = vec![json!({"event": "start", "schema": 1, "seed": 7})];
    for task in tasks {
        for walk in 0..20 {
            events.push(candidate("mtacp", task, walk, 0.5 + 0.02 * walk as f64));
            events.push(candidate("random", task, walk, 0.6 - 0.01 * walk as f64));
        }
        for epoch in 1..=3 {
            events.push(json!({
                "event": "epoch", "stage": "tune", "agent": "mtacp", "task": task, "epoch": epoch,
                "loss": 1.0 / f64::from(epoch), "accuracy": 0.9, "held_out": 0.8 + 0.01 * f64::from(epoch)
            }));
        }
    }
    for update in 1..=3 {
        let entropy = 1.0 / f64::from(update);
        events.push(json!({
            "event": "learned", "agent": "mtacp", "n_updates": update, "entropy": entropy, "lag_mean": 0.0,
            "queue_depth": update, "value_loss": null
        }));
    }
    events
}

/// Writes `metrics.jsonl`.
pub fn write_metrics(folder: &Path, events: &[Value]) {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    fs::write(folder.join("metrics.jsonl"), lines).unwrap();
}

/// Writes a task's folder: a network of 5,000 bytes and its certificate.
pub fn write_task(run: &Path, name: &str, holds: bool) {
    let folder = run.join("tasks").join(name);
    fs::create_dir_all(&folder).unwrap();
    let network = vec![7u8; 5000];
    fs::write(folder.join("model.safetensors"), &network).unwrap();
    let certificate = json!({
        "file": "model.safetensors", "blake3": blake3::hash(&network).to_hex().as_str(), "operations": [],
        "macs": 2_393_568, "params": 28_155, "activation_bytes": 81_920,
        "budgets": [{"kind": "macs", "max": 2_408_688, "value": 2_393_568, "ok": holds}]
    });
    fs::write(folder.join("certificate.json"), certificate.to_string()).unwrap();
}

/// A whole run with two tasks and a control.
pub fn write_run(folder: &Path) -> PathBuf {
    let run = folder.join("a run");
    fs::create_dir_all(&run).unwrap();
    let names = ["half", "most"];
    let tasks = [task(names[0], 2_393_568, 0.874), task(names[1], 3_352_032, 0.909)];
    let controls = names.map(|name| control(name, "random", 0.858));
    fs::write(run.join("summary.json"), summary(&tasks, &controls).to_string()).unwrap();
    write_metrics(&run, &metrics(&names));
    names.iter().for_each(|name| write_task(&run, name, true));
    let curves = json!([{"network": "shapes", "dataset": "drawn", "groups": [
        {"name": "conv2a", "channels": 4, "measured": true, "errors": [0.0, 0.125, 0.5]},
        {"name": "conv3a", "channels": 2, "measured": false, "errors": [0.0, 0.0]},
    ]}]);
    fs::write(run.join("error_curves.json"), curves.to_string()).unwrap();
    fs::write(run.join("scene.ron"), "(version: 1)").unwrap();
    fs::write(run.join("log.txt"), "     0.10 warning: one file is slow\n     0.20 something else\n").unwrap();
    run
}
