//! The run directory: scene, metrics, networks, certificates, summary. Whole files are written aside and renamed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use secateur_formats::{write_atomic, write_network};
use secateur_scene::{Scene, apply_set};
use secateur_sim::{Event, TaskSetup};
use serde_json::{Map, Value, json};

use super::Run;
use super::finish::Finished;
use super::summary::{Summary, model_file};
use crate::certificate::certify;
use crate::resolve::Resolved;

/// Version of the lines of `metrics.jsonl`.
const METRICS_SCHEMA: u32 = 1;

/// An open run directory.
pub(super) struct RunDirectory {
    path: PathBuf,
    metrics: BufWriter<File>,
}

impl RunDirectory {
    /// Creates the directory with the resolved scene and the first line of the metrics.
    pub(super) fn create(path: &Path, scene: &Scene, resolved: &Resolved) -> anyhow::Result<Self> {
        let at = || format!("run directory '{}'", path.display());
        std::fs::create_dir_all(path.join("tasks")).with_context(at)?;
        write_atomic(&path.join("scene.ron"), resolved_scene(scene, resolved)?.as_bytes())?;
        let metrics = File::create(path.join("metrics.jsonl")).with_context(at)?;
        let mut out = Self { path: path.to_owned(), metrics: BufWriter::new(metrics) };
        out.line(&json!({"event": "start", "schema": METRICS_SCHEMA, "seed": scene.seed}))?;
        out.metrics.flush().with_context(at)?;
        Ok(out)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the events of a tick.
    pub(super) fn record(&mut self, agent: &str, tasks: &[TaskSetup], events: &[Event]) -> anyhow::Result<()> {
        for event in events {
            self.line(&event_json(agent, tasks, event))?;
        }
        self.metrics.flush().context("metrics.jsonl")
    }

    fn line(&mut self, value: &Value) -> anyhow::Result<()> {
        writeln!(self.metrics, "{value}").context("metrics.jsonl")
    }

    /// Writes networks, certificates and, last, the summary. Tells which certificate does not hold, if any.
    pub(super) fn write_results(
        &self,
        run: &Run<'_>,
        finished: &[Finished],
        summary: &Summary,
    ) -> anyhow::Result<Option<String>> {
        let mut over = None;
        for finished in finished {
            let name = &run.tasks[finished.task].name;
            let file = self.path.join(model_file(name));
            let folder = file.parent().unwrap_or(&self.path);
            std::fs::create_dir_all(folder).with_context(|| format!("'{}'", folder.display()))?;
            let preprocessing = &run.resolved.networks[run.scene.tasks[finished.task].network].preprocessing;
            write_network(&file, &finished.winner.network, preprocessing)?;
            let budget = &run.resolved.budgets[finished.task];
            let certificate = certify(&file, &[(budget.cost.name(), budget.max)])?;
            let text = serde_json::to_string_pretty(&certificate)?;
            write_atomic(&folder.join("certificate.json"), format!("{text}\n").as_bytes())?;
            if !certificate.holds() {
                over.get_or_insert(format!(
                    "the certificate of task '{name}' exceeds its budget; see certificate.json"
                ));
            }
        }
        let text = serde_json::to_string_pretty(summary)?;
        write_atomic(&self.path.join("summary.json"), format!("{text}\n").as_bytes())?;
        Ok(over)
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
        Event::Candidate { task, actor, walk, noise_free, cached, reward, score, macs, is_best } => json!({
            "event": "candidate", "agent": agent, "task": tasks[*task].name, "actor": actor, "walk": walk,
            "noise_free": noise_free, "cached": cached, "reward": reward, "accuracy": score.accuracy,
            "divergence": score.divergence, "macs": macs, "is_best": is_best,
        }),
        Event::Learned { n_updates, numbers } => {
            let numbers = numbers.iter().map(|&(name, x)| (name.to_owned(), json!(x)));
            let head = [("event", json!("learned")), ("agent", json!(agent)), ("n_updates", json!(n_updates))];
            let head = head.into_iter().map(|(name, x)| (name.to_owned(), x));
            Value::Object(head.chain(numbers).collect::<Map<_, _>>())
        }
        Event::Note { plugin, numbers } => {
            let numbers: Map<String, Value> = numbers.iter().map(|(name, x)| (name.clone(), json!(x))).collect();
            json!({"event": "note", "agent": agent, "plugin": plugin, "numbers": numbers})
        }
    }
}
