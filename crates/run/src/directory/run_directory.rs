//! The run directory: scene, metrics, networks, certificates, summary. Whole files are written aside and renamed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use secateur_certify::certify_as;
use secateur_formats::{StagedFile, read_regular_file, stage_network, write_atomic};
use secateur_rl::{Unroll, save_unrolls};
use secateur_sim::Winner;

use super::entries::{
    BESIDE_NETWORK, CURVES_FILE, FileId, ONNX_FILE, PLAN_FILE, POLICY_FILE, SOURCES_FILE, TASK_CURVES_FILE, TaskFile,
    make_folder, open_to_read, open_to_write, remove_temporary,
};
use super::lock::RunLock;
use super::onnx_files::OnnxFiles;
use crate::events::RunEvent;
use crate::history::curves::TaskCurves;
use crate::inputs::resolve::Resolved;
use crate::plan::measured::NetworkCurves;
use crate::scene::{Scene, edit};
use crate::summary::{Summary, model_file};

/// Between two looks at whether the directory is still there, while lines are appended.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// More than a learner's state and the walks of a few tasks take.
const SOURCES_BYTES_MAX: u64 = 2 << 30;

/// The network that was found for a task.
pub(crate) struct TaskNetwork<'a> {
    /// The task's index.
    pub(crate) task: usize,
    pub(crate) winner: &'a Winner,
    /// The same as an ONNX model.
    pub(crate) onnx: Option<OnnxFiles>,
    /// What was removed, and how to do the same in PyTorch.
    pub(crate) plan: Vec<TaskFile>,
}

/// An open run directory.
pub(crate) struct RunDirectory {
    lock: RunLock,
    metrics: BufWriter<File>,
    metrics_id: FileId,
    metrics_bytes: u64,
    last_look: Instant,
    /// Length and blake3 of every file that was written whole.
    written: BTreeMap<PathBuf, (u64, blake3::Hash)>,
    /// Tasks whose certificate does not hold.
    over_budget: Vec<String>,
}

impl RunDirectory {
    /// Begins a run with the resolved scene and no metrics.
    pub(crate) fn create(lock: RunLock, scene: &Scene, resolved: &Resolved) -> anyhow::Result<Self> {
        let path = lock.directory().to_owned();
        let at = || format!("run directory '{}'", path.display());
        remove_temporary(&path, task_names(scene));
        make_folder(&path.join("tasks")).with_context(at)?;
        // Metrics come first: a run that is killed now can be told by them from a folder with a scene.ron of the
        // user's.
        let metrics = open_to_write(&path.join("metrics.jsonl"), OpenOptions::new().write(true)).with_context(at)?;
        metrics.set_len(0).with_context(at)?;
        let mut out = Self::new(lock, metrics, 0)?;
        out.write_whole(&path.join("scene.ron"), resolved_scene(scene, resolved, &path)?.as_bytes())?;
        Ok(out)
    }

    /// Opens the directory of a run that is to go on; `metrics.jsonl` is cut back to `metrics_bytes`.
    pub(crate) fn reopen(lock: RunLock, scene: &Scene, metrics_bytes: u64) -> anyhow::Result<Self> {
        remove_temporary(lock.directory(), task_names(scene));
        let path = lock.directory().join("metrics.jsonl");
        let mut metrics = open_to_write(&path, OpenOptions::new().write(true))?;
        let cut = metrics.set_len(metrics_bytes).and_then(|()| metrics.seek(SeekFrom::End(0)));
        cut.with_context(|| format!("'{}'", path.display()))?;
        Self::new(lock, metrics, metrics_bytes)
    }

    fn new(mut lock: RunLock, metrics: File, metrics_bytes: u64) -> anyhow::Result<Self> {
        lock.keep();
        let metrics_id = FileId::of(&metrics.metadata().context("metrics.jsonl")?);
        let (metrics, last_look) = (BufWriter::new(metrics), Instant::now());
        Ok(Self {
            lock,
            metrics,
            metrics_id,
            metrics_bytes,
            last_look,
            written: BTreeMap::new(),
            over_budget: Vec::new(),
        })
    }

    /// Whether all that is written next will be where it is said to be.
    ///
    /// # Errors
    /// The directory, its lock or its metrics are gone, or others took their place.
    fn check(&self) -> anyhow::Result<()> {
        self.lock.check()?;
        let path = self.path().join("metrics.jsonl");
        ensure!(
            self.metrics_id.is_at(&path),
            "'{}' was removed or replaced while the run was going on; go on with --resume if it comes back",
            path.display()
        );
        Ok(())
    }

    /// Whether all that was written is there, unchanged.
    ///
    /// # Errors
    /// The first that is not.
    pub(crate) fn check_written(&self) -> anyhow::Result<()> {
        self.check()?;
        for (path, expected) in &self.written {
            let is_there = open_to_read(path).and_then(|(file, n_bytes)| {
                let hash = blake3::Hasher::new().update_reader(file.take(n_bytes))?.finalize();
                Ok((n_bytes, hash) == *expected)
            });
            let found =
                is_there.with_context(|| format!("'{}' was written, but is there no longer", path.display()))?;
            ensure!(found, "'{}' was changed after it was written", path.display());
        }
        Ok(())
    }

    fn write_whole(&mut self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        self.check()?;
        write_atomic(path, bytes)?;
        self.note_written(path, bytes);
        Ok(())
    }

    fn note_written(&mut self, path: &Path, bytes: &[u8]) {
        self.written.insert(path.to_owned(), (bytes.len() as u64, blake3::hash(bytes)));
    }

    /// Writes down what was measured of the networks before they are searched.
    pub(crate) fn write_curves(&mut self, curves: &[NetworkCurves]) -> anyhow::Result<()> {
        self.write_whole(&self.path().join(CURVES_FILE), &serde_json::to_vec(curves)?)
    }

    /// Length of `metrics.jsonl`.
    pub(crate) fn metrics_bytes(&self) -> u64 {
        self.metrics_bytes
    }

    /// `metrics.jsonl`, for a thread that sees it safely onto the disk.
    pub(crate) fn metrics_file(&self) -> anyhow::Result<File> {
        self.metrics.get_ref().try_clone().context("metrics.jsonl")
    }

    /// Writes a batch that could not be learned from; returns the file.
    pub(crate) fn write_batch(&mut self, n_updates: u64, batch: &[Unroll]) -> anyhow::Result<PathBuf> {
        let file = self.path().join(format!("failed-batch-{n_updates}.safetensors"));
        self.write_whole(&file, &save_unrolls(batch)?)?;
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        self.lock.directory()
    }

    /// log.txt, at its end.
    pub(crate) fn log_file(&self) -> anyhow::Result<File> {
        open_to_write(&self.path().join("log.txt"), OpenOptions::new().append(true))
    }

    /// Now and then, whether the directory still is this run's.
    ///
    /// # Errors
    /// That it is not.
    pub(crate) fn look(&mut self) -> anyhow::Result<()> {
        if self.last_look.elapsed() >= LOOK_EVERY {
            self.check()?;
            self.last_look = Instant::now();
        }
        Ok(())
    }

    /// Appends a line to the metrics.
    pub(crate) fn append(&mut self, event: &RunEvent<'_>) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(event).context("metrics.jsonl")?;
        line.push(b'\n');
        self.metrics_bytes += line.len() as u64;
        self.metrics.write_all(&line).context("metrics.jsonl")
    }

    /// Hands what was appended to the system.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.metrics.flush().context("metrics.jsonl")
    }

    /// Writes a task's network, as safetensors and as ONNX if there is such a model, the plan by which it was cut, and
    /// their certificate, counted from the bytes written: all, or nothing. At no moment is there a network without
    /// its certificate, or with that
    /// of another.
    pub(crate) fn write_network(
        &mut self,
        found: TaskNetwork<'_>,
        scene: &Scene,
        resolved: &Resolved,
    ) -> anyhow::Result<()> {
        self.check()?;
        let spec = &scene.tasks[found.task];
        let file = self.path().join(model_file(&spec.name));
        make_folder(&self.path().join("tasks"))?;
        make_folder(file.parent().unwrap_or(self.path()))?;
        let preprocessing = &resolved.networks[spec.network].preprocessing;
        let network = stage_network(&file, &found.winner.emitted(), preprocessing)?;
        let budget = &resolved.budgets[found.task];
        let mut certificate = certify_as(&file, network.staged_at(), &budget.named())?;
        let (onnx, counted) = found.onnx.map(|onnx| (onnx.files, onnx.certificate)).unzip();
        certificate.onnx = counted;
        let beside: Vec<TaskFile> = onnx.into_iter().flatten().chain(found.plan).collect();
        let stage = |beside: &TaskFile| StagedFile::new(&file.with_file_name(beside.name), &beside.bytes);
        let staged_beside: Vec<StagedFile> = beside.iter().map(stage).collect::<Result<_, _>>()?;
        let text = format!("{}\n", serde_json::to_string_pretty(&certificate)?);
        let certificate_file = file.with_file_name("certificate.json");
        let staged = StagedFile::new(&certificate_file, text.as_bytes())?;
        // All are safely on the disk, so that what is left to do takes no room.
        remove_other(&file, Some(&certificate.blake3))?;
        for name in BESIDE_NETWORK {
            let now = beside.iter().find(|file| file.name == name).map(|file| blake3::hash(&file.bytes).to_string());
            remove_other(&file.with_file_name(name), now.as_deref())?;
        }
        staged.commit()?;
        staged_beside.into_iter().try_for_each(StagedFile::commit)?;
        network.commit()?;
        let bytes = std::fs::read(&file).with_context(|| format!("'{}'", file.display()))?;
        ensure!(blake3::hash(&bytes).to_hex().as_str() == certificate.blake3, "'{}' was changed", file.display());
        self.note_written(&file, &bytes);
        self.note_written(&certificate_file, text.as_bytes());
        beside.iter().for_each(|beside| self.note_written(&file.with_file_name(beside.name), &beside.bytes));
        // Written again after a training.
        self.over_budget.retain(|name| *name != spec.name);
        if !certificate.holds() {
            self.over_budget.push(spec.name.clone());
        }
        Ok(())
    }

    /// Path in the run directory of a task's ONNX model, if one was written.
    pub(crate) fn onnx_file(&self, task: &str) -> Option<String> {
        self.written_file(task, ONNX_FILE)
    }

    /// Path in the run directory of a task's plan, if one was written.
    pub(crate) fn plan_file(&self, task: &str) -> Option<String> {
        self.written_file(task, PLAN_FILE)
    }

    fn written_file(&self, task: &str, name: &str) -> Option<String> {
        let file = format!("tasks/{task}/{name}");
        self.written.contains_key(&self.path().join(&file)).then_some(file)
    }

    /// Tasks whose certificates do not hold.
    pub(crate) fn over_budget(&self) -> &[String] {
        &self.over_budget
    }

    /// Writes what the agent has learned.
    pub(crate) fn write_policy(&mut self, state: &[u8]) -> anyhow::Result<()> {
        self.write_whole(&self.path().join(POLICY_FILE), state)
    }

    /// Writes what the run learns of earlier ones.
    pub(crate) fn write_sources(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.write_whole(&self.path().join(SOURCES_FILE), bytes)
    }

    /// What an earlier process wrote of that; none if it wrote nothing.
    pub(crate) fn read_sources(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let file = self.path().join(SOURCES_FILE);
        match std::fs::symlink_metadata(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => Ok(Some(read_regular_file(&file, SOURCES_BYTES_MAX)?)),
        }
    }

    /// Writes the error curves of the tasks.
    pub(crate) fn write_task_curves(&mut self, curves: &[TaskCurves]) -> anyhow::Result<()> {
        let text = serde_json::to_string(curves).context(TASK_CURVES_FILE)?;
        self.write_whole(&self.path().join(TASK_CURVES_FILE), text.as_bytes())
    }

    /// Writes the summary, which comes last.
    pub(crate) fn write_summary(&mut self, summary: &Summary) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(summary)?;
        self.write_whole(&self.path().join("summary.json"), format!("{text}\n").as_bytes())
    }
}

fn task_names(scene: &Scene) -> impl Iterator<Item = &str> {
    scene.tasks.iter().map(|task| task.name.as_str())
}

/// Removes a network that an earlier process wrote, unless it is the one with this blake3: its certificate is about to
/// go.
fn remove_other(file: &Path, blake3: Option<&str>) -> anyhow::Result<()> {
    let found = open_to_read(file)
        .and_then(|(file, n_bytes)| Ok(blake3::Hasher::new().update_reader(file.take(n_bytes))?.finalize().to_hex()));
    if blake3.is_some_and(|blake3| found.is_ok_and(|found| found.as_str() == blake3)) {
        return Ok(());
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("replace '{}'", file.display())),
    }
}

/// The scene with every default filled in; networks given relative to the scene file get the path where they were
/// found, so that it can be run from here. A path that is no Unicode, which a scene cannot hold, is written relative to
/// `directory`, if that helps.
fn resolved_scene(scene: &Scene, resolved: &Resolved, directory: &Path) -> anyhow::Result<String> {
    let mut text = scene.to_ron();
    for (i, network) in resolved.networks.iter().enumerate().filter(|(i, _)| scene.networks[*i].file.starts_with('.')) {
        let path = std::path::absolute(&network.path).with_context(|| format!("'{}'", network.path.display()))?;
        let from_here = || relative(&path, &std::path::absolute(directory).ok()?);
        if let Some(path) = path.to_str().map(str::to_owned).or_else(from_here) {
            text = edit(&text, &format!("networks[{i}].file={path:?}"))?;
        }
    }
    Ok(text)
}

/// `path` as seen from the folder `from`, both absolute, if that can be said in Unicode. Links on the way up would lead
/// elsewhere.
fn relative(path: &Path, from: &Path) -> Option<String> {
    let (path, from) = (path.canonicalize().ok()?, from.canonicalize().ok()?);
    let n_common = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(n_common).map(|_| Component::ParentDir);
    let down = path.components().skip(n_common);
    let relative: PathBuf = std::iter::once(Component::CurDir).chain(up).chain(down).collect();
    Some(relative.to_str()?.to_owned())
}
