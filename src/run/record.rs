//! The run directory: scene, metrics, networks, certificates, summary. Whole files are written aside and renamed.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use secateur_formats::{write_atomic, write_network};
use secateur_rl::{Unroll, save_unrolls};
use secateur_scene::{Scene, apply_set};
use secateur_sim::{Event, TaskSetup, Winner};
use serde_json::{Map, Value, json};

use super::summary::{Summary, model_file};
use crate::certificate::certify;
use crate::resolve::Resolved;

/// Version of the lines of `metrics.jsonl`.
const METRICS_SCHEMA: u32 = 1;

/// An open run directory.
pub(super) struct RunDirectory {
    path: PathBuf,
    metrics: BufWriter<File>,
    metrics_bytes: u64,
    /// Tasks whose certificate does not hold.
    over_budget: Vec<String>,
}

impl RunDirectory {
    /// Creates the directory with the resolved scene and the first line of the metrics.
    pub(super) fn create(path: &Path, scene: &Scene, resolved: &Resolved) -> anyhow::Result<Self> {
        let at = || format!("run directory '{}'", path.display());
        std::fs::create_dir_all(path.join("tasks")).with_context(at)?;
        // Metrics come first: by them a run that is killed now is told from a folder with somebody's scene.ron.
        let metrics = File::create(path.join("metrics.jsonl")).with_context(at)?;
        write_atomic(&path.join("scene.ron"), resolved_scene(scene, resolved)?.as_bytes())?;
        let mut out = Self::new(path, metrics, 0);
        out.line(&json!({"event": "start", "schema": METRICS_SCHEMA, "seed": scene.seed}))?;
        out.metrics.flush().with_context(at)?;
        Ok(out)
    }

    /// Opens the directory of a run that is to go on; `metrics.jsonl` is cut back to `metrics_bytes`.
    pub(super) fn reopen(path: &Path, metrics_bytes: u64) -> anyhow::Result<Self> {
        let open = || {
            let mut metrics = OpenOptions::new().write(true).open(path.join("metrics.jsonl"))?;
            metrics.set_len(metrics_bytes)?;
            metrics.seek(SeekFrom::End(0))?;
            Ok::<_, std::io::Error>(metrics)
        };
        let metrics = open().with_context(|| format!("metrics.jsonl of '{}'", path.display()))?;
        Ok(Self::new(path, metrics, metrics_bytes))
    }

    fn new(path: &Path, metrics: File, metrics_bytes: u64) -> Self {
        Self { path: path.to_owned(), metrics: BufWriter::new(metrics), metrics_bytes, over_budget: Vec::new() }
    }

    /// Length of `metrics.jsonl`.
    pub(super) fn metrics_bytes(&self) -> u64 {
        self.metrics_bytes
    }

    /// `metrics.jsonl`, for a thread that sees it safely onto the disk.
    pub(super) fn metrics_file(&self) -> anyhow::Result<File> {
        self.metrics.get_ref().try_clone().context("metrics.jsonl")
    }

    /// Writes a batch that could not be learned from; returns the file.
    pub(super) fn write_batch(&self, n_updates: u64, batch: &[Unroll]) -> anyhow::Result<PathBuf> {
        let file = self.path.join(format!("failed-batch-{n_updates}.safetensors"));
        write_atomic(&file, &save_unrolls(batch)?)?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// log.txt, at its end.
    pub(super) fn log_file(&self) -> anyhow::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.path.join("log.txt")).context("log.txt")
    }

    /// Appends the events of a tick.
    pub(super) fn record(&mut self, agent: &str, tasks: &[TaskSetup], events: &[Event]) -> anyhow::Result<()> {
        for event in events {
            self.line(&event_json(agent, tasks, event))?;
        }
        self.metrics.flush().context("metrics.jsonl")
    }

    fn line(&mut self, value: &Value) -> anyhow::Result<()> {
        let line = format!("{value}\n");
        self.metrics_bytes += line.len() as u64;
        self.metrics.write_all(line.as_bytes()).context("metrics.jsonl")
    }

    /// Writes a task's network and its certificate, counted from the written file.
    pub(super) fn write_network(
        &mut self,
        task: usize,
        winner: &Winner,
        scene: &Scene,
        resolved: &Resolved,
    ) -> anyhow::Result<()> {
        let spec = &scene.tasks[task];
        let file = self.path.join(model_file(&spec.name));
        let folder = file.parent().unwrap_or(&self.path);
        std::fs::create_dir_all(folder).with_context(|| format!("'{}'", folder.display()))?;
        write_network(&file, &winner.emitted(), &resolved.networks[spec.network].preprocessing)?;
        let budget = &resolved.budgets[task];
        let certificate = certify(&file, &[(budget.cost.name(), budget.max)])?;
        let text = serde_json::to_string_pretty(&certificate)?;
        write_atomic(&folder.join("certificate.json"), format!("{text}\n").as_bytes())?;
        if !certificate.holds() {
            self.over_budget.push(spec.name.clone());
        }
        Ok(())
    }

    /// Appends a task's result.
    pub(super) fn tell_result(&mut self, task: &TaskSetup, winner: &Winner) -> anyhow::Result<()> {
        let walk = task.is_searched.then_some(winner.walk);
        self.line(&json!({"event": "result", "task": task.name, "walk": walk, "reward": winner.reward,
            "accuracy": winner.score.accuracy, "macs": winner.macs}))?;
        self.metrics.flush().context("metrics.jsonl")
    }

    /// Which certificates do not hold, if any.
    pub(super) fn over_budget(&self) -> Option<String> {
        let tasks = self.over_budget.join(", ");
        (!tasks.is_empty()).then(|| format!("the certificate of {tasks} exceeds its budget; see certificate.json"))
    }

    /// Writes the summary, which comes last.
    pub(super) fn write_summary(&self, summary: &Summary) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(summary)?;
        Ok(write_atomic(&self.path.join("summary.json"), format!("{text}\n").as_bytes())?)
    }
}

/// The scene with every default filled in; networks given relative to the scene file get the path where they were found, so
/// that it can be run from here.
fn resolved_scene(scene: &Scene, resolved: &Resolved) -> anyhow::Result<String> {
    let mut text = scene.to_ron();
    for (i, network) in resolved.networks.iter().enumerate().filter(|(i, _)| scene.networks[*i].file.starts_with('.')) {
        let path = std::path::absolute(&network.path).with_context(|| format!("'{}'", network.path.display()))?;
        text = apply_set(&text, &format!("networks[{i}].file={:?}", path.to_string_lossy()))?;
    }
    Ok(text)
}

fn event_json(agent: &str, tasks: &[TaskSetup], event: &Event) -> Value {
    match event {
        Event::Candidate { task, actor, walk, noise_free, cached, reward, score, macs, widths, spent, is_best } => {
            json!({
                "event": "candidate", "agent": agent, "task": tasks[*task].name, "actor": actor, "walk": walk,
                "noise_free": noise_free, "cached": cached, "reward": reward, "accuracy": score.accuracy,
                "divergence": score.divergence, "macs": macs, "widths": widths, "spent": spent, "is_best": is_best,
            })
        }
        Event::Restarted { task, actor, walk, message } => json!({
            "event": "restarted", "agent": agent, "task": tasks[*task].name, "actor": actor, "walk": walk,
            "message": message,
        }),
        Event::Learned { n_updates, numbers, .. } => update_json("learned", agent, *n_updates, numbers),
        Event::Scheduled { n_updates, numbers } => update_json("scheduled", agent, *n_updates, numbers),
        Event::Note { plugin, numbers } => {
            let numbers: Map<String, Value> = numbers.iter().map(|(name, x)| (name.clone(), json!(x))).collect();
            json!({"event": "note", "agent": agent, "plugin": plugin, "numbers": numbers})
        }
    }
}

/// An event of a learner's update.
fn update_json(event: &str, agent: &str, n_updates: u64, numbers: &[(&'static str, f64)]) -> Value {
    let numbers = numbers.iter().map(|&(name, x)| (name.to_owned(), json!(x)));
    let head = [("event", json!(event)), ("agent", json!(agent)), ("n_updates", json!(n_updates))];
    let head = head.into_iter().map(|(name, x)| (name.to_owned(), x));
    Value::Object(head.chain(numbers).collect::<Map<_, _>>())
}
