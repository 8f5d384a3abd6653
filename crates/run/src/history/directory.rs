//! From a run directory, whole or not, to what a history holds of it.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::SystemTime;

use anyhow::{Context, ensure};
use secateur_formats::read_regular_file;
use secateur_history::{
    BoundRecord, CertificateRecord, GroupRecord, History, LayerRecord, NetworkRecord, ResultRecord, RunRecord,
    RunStatus, TaskRecord,
};
use serde::Deserialize;

use super::curves::TaskCurves;
use super::metrics::{RunCandidates, candidates};
use crate::directory::checkpoint::{Identity, newest_identity};
use crate::directory::entries::{PLAN_FILE, POLICY_FILE, TASK_CURVES_FILE};
use crate::reporter::is_failure_line;
use crate::scene::{AgentList, BoundSpec, BudgetBound, Scene, TaskSpec};
use crate::summary::{BudgetSummary, ControlSummary, GroupSummary, Summary, TaskSummary};

/// More than any file of a run directory that is read whole.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Records the run of a directory in a history, in place of what that knew of it. The scene may name any of `agents`.
/// Returns the run's number, and what of the directory cannot be read, for people.
///
/// # Errors
/// A directory that is none of a run; a history that cannot be written.
pub fn import_run(history: &mut History, run: &Path, agents: &AgentList) -> anyhow::Result<(i64, Vec<String>)> {
    let (record, notes) = read_run(run, agents, None)?;
    Ok((history.record(&record)?, notes))
}

/// What there is to record of a run; its identity is that of its checkpoints where it is not given. Also returns what
/// cannot be read, for people.
pub(super) fn read_run(
    run: &Path,
    agents: &AgentList,
    identity: Option<&Identity>,
) -> anyhow::Result<(RunRecord, Vec<String>)> {
    let no_run = || format!("'{}' is not a run directory", run.display());
    let scene_file = run.join("scene.ron");
    let text = String::from_utf8(read_regular_file(&scene_file, FILE_BYTES_MAX).with_context(no_run)?)
        .with_context(|| format!("'{}'", scene_file.display()))?;
    let found = candidates(&run.join("metrics.jsonl"))?;
    ensure!(found.is_run, "{}: its metrics.jsonl was written by no run", no_run());
    let mut notes = Vec::new();
    if found.n_damaged > 0 {
        notes.push(format!("{} lines of metrics.jsonl cannot be read and are left out", found.n_damaged));
    }
    let summary = summary(run, &mut notes);
    let scene = Scene::parse_with("scene.ron", &text, agents);
    if let Err(problem) = &scene {
        let first = problem.to_string().lines().next().unwrap_or_default().to_owned();
        notes.push(format!("scene.ron cannot be read here, tasks are those of the summary: {first}"));
    }
    let (scene, known) = (scene.ok(), identity.cloned().or_else(|| newest_identity(run)));
    let written = std::fs::metadata(&scene_file)?.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    // When the scene was written is when the run began: it is written once.
    let mut key = blake3::Hasher::new();
    key.update(text.as_bytes()).update(&written.as_nanos().to_le_bytes());
    let directory = run.canonicalize().with_context(no_run)?;
    let (tasks, all_hold) = tasks(run, scene.as_ref(), summary.as_ref(), known.as_ref(), &found);
    let of = |pick: fn(&Summary) -> &String| summary.as_ref().map(|summary| pick(summary).clone());
    let of_scene = |pick: fn(&Scene) -> String| scene.as_ref().map(pick);
    let record = RunRecord {
        key: key.finalize().to_hex().to_string(),
        metrics: found.hash.clone(),
        directory: directory.to_string_lossy().into_owned(),
        status: match &summary {
            _ if has_failed(run) => RunStatus::Failed,
            None => RunStatus::Unfinished,
            Some(_) if !all_hold => RunStatus::OverBudget,
            Some(Summary { interrupted: true, .. }) => RunStatus::Interrupted,
            Some(_) => RunStatus::Finished,
        },
        started_s: written.as_secs_f64(),
        wall_s: summary.as_ref().map(|summary| summary.wall_s),
        scene_file: of(|summary| &summary.scene),
        seed: scene.as_ref().map(|scene| scene.seed).or(summary.as_ref().map(|summary| summary.seed)),
        agent: of(|summary| &summary.agent).or(of_scene(|scene| scene.agent.entry.word.to_owned())),
        reward: of(|summary| &summary.reward.kind).or(of_scene(|scene| scene.reward.kind().name().to_owned())),
        scheduler: of(|summary| &summary.scheduler).or(of_scene(|scene| scene.scheduler.name().to_owned())),
        device: of(|summary| &summary.device).or(of_scene(|scene| scene.device.name().to_owned())),
        precision: of(|summary| &summary.precision).or(of_scene(|scene| scene.precision.to_string())),
        program: known.as_ref().map(|known| known.program.clone()),
        build: known.as_ref().map(|known| known.build.clone()).filter(|build| !build.is_empty()),
        instructions: known.as_ref().map(|known| known.instructions.clone()),
        candidates_scored: summary.as_ref().map(|summary| summary.candidates_scored),
        known_scores: None,
        networks: networks(run, summary.as_ref(), known.as_ref(), &tasks),
        tasks,
        policy: read_regular_file(&run.join(POLICY_FILE), FILE_BYTES_MAX).ok(),
        scene: text,
    };
    Ok((record, notes))
}

/// Whether the last line of `log.txt` is an error. What goes on behind it writes other lines.
fn has_failed(run: &Path) -> bool {
    let log = read_regular_file(&run.join("log.txt"), FILE_BYTES_MAX).unwrap_or_default();
    let last = log.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    is_failure_line(&String::from_utf8_lossy(last))
}

/// None for a run that has none yet, or one that is damaged.
fn summary(run: &Path, notes: &mut Vec<String>) -> Option<Summary> {
    let file = run.join("summary.json");
    if !file.exists() {
        return None;
    }
    let read = read_regular_file(&file, FILE_BYTES_MAX).map_err(anyhow::Error::from);
    match read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
        Ok(summary) => Some(summary),
        Err(error) => {
            notes.push(format!("summary.json cannot be read, the run counts as unfinished: {error:#}"));
            None
        }
    }
}

/// All tasks that anything tells of, and whether all certificates that there are hold.
fn tasks(
    run: &Path,
    scene: Option<&Scene>,
    summary: Option<&Summary>,
    known: Option<&Identity>,
    found: &RunCandidates,
) -> (Vec<TaskRecord>, bool) {
    let mut tasks: Vec<TaskRecord> = scene.map_or_else(Vec::new, tasks_of_scene);
    for summary in summary.iter().flat_map(|summary| &summary.tasks) {
        let task = match tasks.iter_mut().find(|task| task.name == summary.name) {
            Some(task) => task,
            None => {
                tasks.push(empty_task(&summary.name, &summary.network, &summary.dataset));
                let last = tasks.len() - 1;
                &mut tasks[last]
            }
        };
        fill(task, summary);
    }
    let mut hold = true;
    let curves: Vec<TaskCurves> = read_regular_file(&run.join(TASK_CURVES_FILE), FILE_BYTES_MAX)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let agent = summary.map_or("", |summary| &*summary.agent);
    for task in &mut tasks {
        task.results.iter_mut().for_each(|result| result.agent = agent.to_owned());
        let controls = summary.iter().flat_map(|summary| &summary.controls);
        task.results.extend(controls.filter(|control| control.task == task.name).map(control_result));
        task.curves = curves.iter().find(|of| of.task == task.name).map_or_else(Vec::new, |of| of.curves.clone());
        task.walks = found.walks.get(&task.name).cloned().unwrap_or_default();
        task.dataset_content = known.and_then(|known| content(known, "data set", &task.dataset));
        if let Some((certificate, holds)) = certificate(run, &task.name) {
            task.certificate = Some(certificate);
            hold &= holds;
        }
    }
    (tasks, hold)
}

fn tasks_of_scene(scene: &Scene) -> Vec<TaskRecord> {
    let bound = |bound: &BoundSpec| BoundRecord {
        kind: bound.kind.name().to_owned(),
        ratio: match bound.bound {
            BudgetBound::Ratio(ratio) => Some(ratio),
            BudgetBound::Max(_) => None,
        },
        max: match bound.bound {
            BudgetBound::Ratio(_) => None,
            BudgetBound::Max(max) => Some(max),
        },
    };
    let task = |task: &TaskSpec| TaskRecord {
        bounds: scene.budgets[task.budget].bounds.iter().map(bound).collect(),
        ..empty_task(&task.name, &scene.networks[task.network].name, &scene.datasets[task.dataset].name)
    };
    scene.tasks.iter().map(task).collect()
}

fn empty_task(name: &str, network: &str, dataset: &str) -> TaskRecord {
    TaskRecord {
        name: name.to_owned(),
        network: network.to_owned(),
        dataset: dataset.to_owned(),
        dataset_content: None,
        bounds: Vec::new(),
        groups: Vec::new(),
        curves: Vec::new(),
        walks: Vec::new(),
        results: Vec::new(),
        certificate: None,
    }
}

/// What was found for a task.
fn fill(task: &mut TaskRecord, summary: &TaskSummary) {
    let BudgetSummary { kind, ratio, max } = &summary.budget;
    let record =
        |kind: &String, ratio: f64, max: u64| BoundRecord { kind: kind.clone(), ratio: Some(ratio), max: Some(max) };
    task.bounds = match &summary.bounds[..] {
        [] => vec![record(kind, *ratio, *max)],
        several => several.iter().map(|bound| record(&bound.kind, bound.ratio, bound.max)).collect(),
    };
    let group =
        |group: &GroupSummary| GroupRecord { name: group.name.clone(), channels: group.channels, kept: group.kept };
    task.groups = summary.groups.iter().map(group).collect();
    task.results = vec![ResultRecord {
        agent: String::new(),
        is_control: false,
        walk: summary.walk_of_best,
        candidates_scored: None,
        macs: summary.macs,
        params: Some(summary.params),
        activation_bytes: Some(summary.activation_bytes),
        reward_accuracy: summary.reward_accuracy,
        test_accuracy_original: summary.test_accuracy_original,
        test_accuracy: summary.test_accuracy_before_tuning,
        test_accuracy_after_polish: summary.test_accuracy_after_polish,
        test_accuracy_after_tuning: summary.test_accuracy_after_tuning,
        test_output_error: summary.test_output_error,
    }];
}

fn control_result(control: &ControlSummary) -> ResultRecord {
    ResultRecord {
        agent: control.agent.clone(),
        is_control: true,
        candidates_scored: Some(control.candidates_scored),
        macs: control.macs,
        reward_accuracy: control.reward_accuracy,
        test_accuracy: control.test_accuracy_before_tuning,
        test_accuracy_after_polish: control.test_accuracy_after_polish,
        test_accuracy_after_tuning: control.test_accuracy_after_tuning,
        test_output_error: control.test_output_error,
        ..ResultRecord::default()
    }
}

/// blake3 of a network or data set, as a run's identity has it.
fn content(known: &Identity, what: &str, name: &str) -> Option<String> {
    let wanted = format!("{what} '{name}'");
    known.inputs.iter().find(|(name, _)| *name == wanted).map(|(_, hash)| hash.clone())
}

/// The networks of tasks.
fn networks(
    run: &Path,
    summary: Option<&Summary>,
    known: Option<&Identity>,
    tasks: &[TaskRecord],
) -> Vec<NetworkRecord> {
    let mut out: BTreeMap<&str, NetworkRecord> = BTreeMap::new();
    for task in tasks {
        let network = out.entry(&task.network).or_insert_with(|| NetworkRecord {
            name: task.network.clone(),
            content: known.and_then(|known| content(known, "network", &task.network)).unwrap_or_default(),
            ..NetworkRecord::default()
        });
        if let Some(of) = summary.iter().flat_map(|summary| &summary.tasks).find(|of| of.name == task.name) {
            network.macs = Some(of.original.macs);
            network.params = Some(of.original.params);
            network.activation_bytes = Some(of.original.activation_bytes);
        }
        if network.layers.is_empty() {
            network.layers = layers(run, &task.name).unwrap_or_default();
        }
    }
    out.into_values().collect()
}

/// What is read of `plan.json`.
#[derive(Deserialize)]
struct StatedPlan {
    layers: Vec<StatedLayer>,
}

/// A layer as it was.
#[derive(Deserialize)]
struct StatedLayer {
    name: String,
    kind: String,
    shape: Vec<usize>,
}

/// The layers of a task's network before it was cut, as the plan of its cut has them.
fn layers(run: &Path, task: &str) -> Option<Vec<LayerRecord>> {
    let plan: StatedPlan = serde_json::from_slice(&task_file(run, task, PLAN_FILE)?).ok()?;
    let record = |layer: StatedLayer| LayerRecord { name: layer.name, kind: layer.kind, shape: layer.shape };
    Some(plan.layers.into_iter().map(record).collect())
}

/// What is read of `certificate.json`.
#[derive(Deserialize)]
struct Stated {
    file: String,
    blake3: String,
    budgets: Vec<StatedBudget>,
}

/// A budget there.
#[derive(Deserialize)]
struct StatedBudget {
    ok: bool,
}

/// A task's certificate, and whether it holds.
fn certificate(run: &Path, task: &str) -> Option<(CertificateRecord, bool)> {
    let text = String::from_utf8(task_file(run, task, "certificate.json")?).ok()?;
    let stated: Stated = serde_json::from_str(&text).ok()?;
    let holds = stated.budgets.iter().all(|budget| budget.ok);
    Some((CertificateRecord { file: stated.file, blake3: stated.blake3, text }, holds))
}

/// A file in a task's folder. A foreign directory may name its tasks as it likes.
fn task_file(run: &Path, task: &str, name: &str) -> Option<Vec<u8>> {
    let mut parts = Path::new(task).components();
    let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    let file = run.join("tasks").join(task).join(name);
    is_name.then(|| read_regular_file(&file, FILE_BYTES_MAX).ok())?
}
