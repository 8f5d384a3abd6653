//! The files of a run directory, as far as they can be read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::metrics::Metrics;
use crate::progress::{FileProgress, RunProgressState};

/// A task's files.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TaskFiles {
    /// `certificate.json`; null where there is none that can be read.
    pub(crate) certificate: Value,
    /// Whether the network's file is the one that was certified; none where that cannot be told.
    pub(crate) is_certified_file: Option<bool>,
    /// Networks with their sizes in bytes.
    pub(crate) networks: Vec<(String, u64)>,
}

/// A run directory.
#[derive(Clone, Debug)]
pub(crate) struct RunFiles {
    pub(crate) path: PathBuf,
    /// The folder's name.
    pub(crate) name: String,
    /// `summary.json`; null where there is none that can be read.
    pub(crate) summary: Value,
    pub(crate) metrics: Option<Metrics>,
    /// `error_curves.json`; null where there is none that can be read.
    pub(crate) curves: Value,
    pub(crate) progress: FileProgress,
    /// By task.
    pub(crate) tasks: BTreeMap<String, TaskFiles>,
    /// `log.txt`, line by line.
    pub(crate) log: Vec<String>,
    /// Whether there is a scene, by which the run can be repeated.
    pub(crate) has_scene: bool,
    /// The program that wrote the networks.
    pub(crate) program: Option<String>,
    /// What is missing or damaged.
    pub(crate) problems: Vec<String>,
}

impl RunFiles {
    /// Reads what there is.
    ///
    /// # Errors
    /// With one sentence if there is nothing of a run.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mut problems = Vec::new();
        let has = |file: &str| path.join(file).is_file();
        if !has("summary.json") && !has("metrics.jsonl") && !path.join("tasks").is_dir() {
            return Err(match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
                Ok(true) => format!("'{shown}' is empty: name the directory that `secateur run --out` wrote"),
                Ok(false) => format!(
                    "'{shown}' holds neither summary.json nor metrics.jsonl: name the directory of a run or a comparison"
                ),
                Err(error) => format!("'{shown}' cannot be read: {error}"),
            });
        }
        let summary = read_summary(path, &mut problems);
        let metrics = Metrics::read(&path.join("metrics.jsonl"), &mut problems);
        let curves = read_curves(path, &mut problems);
        let log = fs::read(path.join("log.txt")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let log: Vec<String> = log.unwrap_or_default().lines().map(str::to_owned).collect();
        let progress = FileProgress::read(path, &summary, &log, metrics.as_ref());
        match &progress.state {
            RunProgressState::Failed(error) => {
                // What it says of a run that was killed is not so.
                problems.retain(|problem| !problem.starts_with("summary.json is missing"));
                problems.insert(0, format!("the run failed: {error}"));
            }
            RunProgressState::GoesOn if !summary.is_null() => {
                problems.insert(0, "the run was interrupted and goes on: results are those of before".to_owned());
            }
            _ => {}
        }
        let (tasks, program) = read_tasks(path, &summary, &mut problems);
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = real.file_name().map_or_else(|| shown.to_string(), |name| name.to_string_lossy().into_owned());
        let has_scene = has("scene.ron");
        Ok(Self {
            path: path.to_owned(),
            name,
            summary,
            metrics,
            curves,
            progress,
            tasks,
            log,
            has_scene,
            program,
            problems,
        })
    }

    /// What `summary.json` says of every task that has a network.
    pub(crate) fn task_summaries(&self) -> &[Value] {
        items(&self.summary["tasks"])
    }

    /// What `summary.json` says of every control and task.
    pub(crate) fn control_summaries(&self) -> &[Value] {
        items(&self.summary["controls"])
    }

    /// Name of the run's agent.
    pub(crate) fn agent(&self) -> &str {
        let first_walk = || self.metrics.as_ref()?.walks.first().map(|walk| walk.agent.as_str());
        self.summary["agent"].as_str().or_else(first_walk).unwrap_or("the agent")
    }
}

/// The elements of an array; none of anything else.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn read_summary(path: &Path, problems: &mut Vec<String>) -> Value {
    let text = match fs::read(path.join("summary.json")) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            problems.push(
                "summary.json is missing: the run has not ended, or was killed. What its search found so far is shown; \
                 `secateur run` with --resume brings it to its end"
                    .to_owned(),
            );
            return Value::Null;
        }
        Err(error) => {
            problems.push(format!("summary.json cannot be read ({error}): results are left out"));
            return Value::Null;
        }
    };
    let summary: Value = match serde_json::from_slice(&text) {
        Ok(summary) => summary,
        Err(error) => {
            problems.push(format!("summary.json is damaged ({error}): results are left out"));
            return Value::Null;
        }
    };
    let missing: Vec<&str> = ["scene", "seed", "agent", "tasks", "controls", "warnings", "walks", "wall_s"]
        .into_iter()
        .filter(|key| summary[key].is_null())
        .collect();
    if !missing.is_empty() {
        problems.push(format!(
            "summary.json lacks {}: it is damaged, or another version of the program wrote it; what is there is shown",
            missing.join(", ")
        ));
    }
    for (at, task) in items(&summary["tasks"]).iter().enumerate() {
        let keys = ["name", "network", "dataset", "budget", "original", "macs", "params", "groups"];
        let missing: Vec<&str> = keys.into_iter().filter(|key| task[key].is_null()).collect();
        if !missing.is_empty() {
            let name =
                task["name"].as_str().map_or_else(|| format!("task {}", at + 1), |name| format!("task '{name}'"));
            problems.push(format!("summary.json lacks {} of {name}", missing.join(", ")));
        }
    }
    summary
}

/// Runs of earlier versions have none.
fn read_curves(path: &Path, problems: &mut Vec<String>) -> Value {
    let Ok(text) = fs::read(path.join("error_curves.json")) else { return Value::Null };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        problems.push(format!("error_curves.json is damaged ({error}): error curves are left out"));
        Value::Null
    })
}

/// Files of every task, and the program that wrote them.
fn read_tasks(
    path: &Path,
    summary: &Value,
    problems: &mut Vec<String>,
) -> (BTreeMap<String, TaskFiles>, Option<String>) {
    let mut program = None;
    let mut tasks = BTreeMap::new();
    let folder = path.join("tasks");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for task in items(&summary["tasks"]).iter().filter_map(|task| task["name"].as_str()) {
        if !names.iter().any(|name| name == task) {
            problems
                .push(format!("the folder tasks/{task} is missing: there is no network, certificate or plan of it"));
        }
    }
    for name in names {
        let of_task = folder.join(&name);
        let mut files = TaskFiles::default();
        for network in ["model.safetensors", "model.onnx", "model.onnx.data"] {
            if let Ok(metadata) = fs::metadata(of_task.join(network))
                && metadata.is_file()
            {
                files.networks.push((network.to_owned(), metadata.len()));
            }
        }
        match fs::read(of_task.join("certificate.json")).map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(certificate)) => files.certificate = certificate,
            Ok(Err(error)) => problems.push(format!("tasks/{name}/certificate.json is damaged ({error})")),
            Err(error) => problems.push(format!("tasks/{name}/certificate.json cannot be read ({error})")),
        }
        if let (Some(file), Some(hash)) = (files.certificate["file"].as_str(), files.certificate["blake3"].as_str()) {
            // A name that leads out of the folder is none that the program wrote.
            let is_plain = Path::new(file).file_name().is_some_and(|plain| plain == file);
            let bytes = if is_plain { fs::read(of_task.join(file)).ok() } else { None };
            files.is_certified_file = bytes.map(|bytes| blake3::hash(&bytes).to_hex().as_str() == hash);
            if files.is_certified_file == Some(false) {
                problems.push(format!("tasks/{name}/{file} is not the file that was certified: it was changed since"));
            }
        }
        if program.is_none()
            && let Ok(text) = fs::read(of_task.join("plan.json"))
            && let Ok(plan) = serde_json::from_slice::<Value>(&text)
        {
            program = plan["program"].as_str().map(str::to_owned);
        }
        tasks.insert(name, files);
    }
    (tasks, program)
}
