//! Where a run goes, and whether it goes on from what is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use secateur_formats::is_temporary_name;
use secateur_kernels::Isa;
use secateur_scene::to_ron;
use secateur_train::Scheduler;

use super::checkpoint::{Identity, RunState, has_checkpoints, newest};
use super::entries::{FILES, FOLDERS, check_entries, first_line};
use super::lock::{LOCK_FILE, RunLock};
use super::plausible::plausible;
use crate::build::build;
use crate::error::RunError;
use crate::inputs::resolve::Resolved;
use crate::scene::{HistoryChoice, Scene, edit};
use crate::spec::RunSpec;

/// Runs of one name that are looked through.
const RUNS_MAX: usize = 10_000;

/// A run directory that is this process's, and what is to be continued there.
pub(crate) struct Claim {
    pub(crate) lock: RunLock,
    pub(crate) state: Option<RunState>,
    /// For the user.
    pub(crate) notes: Vec<String>,
}

/// Finds the directory of a run and locks it. Without `--resume` it is empty.
///
/// # Errors
/// A directory that is taken, in use, or holds a run that this one cannot continue: nothing is written then.
pub(crate) fn claim(
    spec: &RunSpec,
    scene: &Scene,
    resolved: &Resolved,
    identity: &Identity,
) -> Result<Claim, RunError> {
    let refused = |error: anyhow::Error| RunError::BadArguments(error);
    if !spec.resume {
        let lock = match &spec.out {
            Some(out) => take_free(out).map_err(refused)?,
            None => new_run(&spec.scene)?,
        };
        let notes = lock.warning.iter().map(|warning| format!("warning: {warning}")).collect();
        return Ok(Claim { lock, state: None, notes });
    }
    let lock = match spec.out.clone().or_else(|| last_run(&spec.scene)) {
        Some(path) => take_again(&path).map_err(|error| refused(error.context("--resume")))?,
        None => new_run(&spec.scene)?,
    };
    go_on(lock, scene, resolved, identity).map_err(|error| refused(error.context("--resume")))
}

/// The state to continue from in the directory, with notes for the user.
fn go_on(lock: RunLock, scene: &Scene, resolved: &Resolved, identity: &Identity) -> anyhow::Result<Claim> {
    let path = lock.directory();
    check_entries(path, scene.tasks.iter().map(|task| task.name.as_str()))?;
    let metrics = path.join("metrics.jsonl");
    let (state, mut notes) = match newest(path, identity, |state| plausible(state, scene, resolved, &metrics))? {
        Some((state, warnings)) => (Some(state), warnings),
        None => (None, Vec::new()),
    };
    notes.extend(lock.warning.iter().map(|warning| format!("warning: {warning}")));
    if state.is_some() && scene.scheduler != Scheduler::Lockstep {
        let scheduler = scene.scheduler.name();
        notes.push(format!("under scheduler {scheduler} a run that goes on need not end as if it had never stopped"));
    }
    notes.push(match &state {
        Some(state) => format!("going on in '{}' after {:.0} s of the run", path.display(), state.wall_s),
        None => {
            check_is_run(path)?;
            format!("no checkpoint in '{}': the run starts afresh", path.display())
        }
    });
    Ok(Claim { lock, state, notes })
}

/// What the run of a scene is.
pub(crate) fn identity(scene: &Scene, resolved: &Resolved) -> anyhow::Result<Identity> {
    let mut text = scene.to_ron();
    // Where a run is recorded makes it no other run; what it learns from there does.
    text = match scene.history.as_ref().filter(|history| history.learns()) {
        None => edit(&text, "history=None")?,
        Some(history) => {
            let history = HistoryChoice { file: None, scores: false, ..history.clone() };
            edit(&text, &format!("history={}", to_ron(&history)))?
        }
    };
    let mut inputs = Vec::new();
    for (i, network) in resolved.networks.iter().enumerate() {
        // What counts is the content, wherever the file lies now.
        let name = network.path.file_name().unwrap_or_default().to_string_lossy();
        text = edit(&text, &format!("networks[{i}].file={name:?}"))?;
        let bytes = std::fs::read(&network.path).with_context(|| format!("'{}'", network.path.display()))?;
        inputs.push((format!("network '{}'", network.name), blake3::hash(&bytes).to_hex().to_string()));
    }
    for dataset in &resolved.datasets {
        let mut hasher = blake3::Hasher::new();
        for split in [&dataset.train, &dataset.test] {
            split.identify(|bytes| {
                hasher.update(bytes);
            });
        }
        inputs.push((format!("data set '{}'", dataset.name), hasher.finalize().to_hex().to_string()));
    }
    Ok(Identity {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        build: build().unwrap_or_default(),
        instructions: format!("{:?}", Isa::detect()),
        scene: text,
        inputs,
    })
}

/// Takes a directory that is empty or not there.
fn take_free(path: &Path) -> anyhow::Result<RunLock> {
    let taken = || anyhow!("--out '{}' is not an empty directory; name a new one or empty it", path.display());
    // Checked first without a lock file, which would be written into a folder of the user's. A run that is going on
    // there has one.
    if !is_free(path) && !path.join(LOCK_FILE).exists() {
        return Err(taken());
    }
    let lock = RunLock::take(path).context("--out")?;
    // Checked again, now that no other run can fill it.
    if is_free(path) { Ok(lock) } else { Err(taken()) }
}

/// Takes a directory that a run may go on in.
fn take_again(path: &Path) -> anyhow::Result<RunLock> {
    if path.exists() && !has_checkpoints(path) {
        check_is_run(path)?;
    }
    RunLock::take(path)
}

/// Whether there is nothing in a directory but what a run leaves that was killed as it began.
fn is_free(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK_FILE)),
        Err(_) => std::fs::symlink_metadata(path).is_err(),
    }
}

/// Refuses a directory with anything in it that no run writes: it would be written over.
fn check_is_run(path: &Path) -> anyhow::Result<()> {
    if is_free(path) {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(|| format!("'{}'", path.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_entry = FILES.iter().chain(&FOLDERS).chain(&[LOCK_FILE]).any(|known| *known == name);
        if !is_entry && !is_temporary_name(&name) && !name.starts_with("failed-batch-") {
            bail!("'{}' is not a run directory: it holds '{name}'", path.display());
        }
    }
    // A run has metrics before it has anything that would be written over.
    if path.join("scene.ron").exists() && !is_metrics(&path.join("metrics.jsonl")) {
        bail!("'{}' is not a run directory: its scene.ron was written by no run", path.display());
    }
    if path.join("summary.json").exists() {
        bail!("'{}' holds results and no checkpoint to go on from; name another directory", path.display());
    }
    Ok(())
}

/// Whether this is the `metrics.jsonl` of a run, or of one that was killed before it wrote the first line.
fn is_metrics(file: &Path) -> bool {
    let Some(first) = first_line(file) else { return false };
    first.is_empty() || serde_json::from_str::<serde_json::Value>(&first).is_ok_and(|line| line["event"] == "start")
}

/// `runs/<scene>`, `runs/<scene>-2`, …
fn numbered_runs(scene: &Path) -> impl Iterator<Item = PathBuf> {
    let stem = scene.file_stem().unwrap_or_default().to_owned();
    (1..RUNS_MAX).map(move |n| {
        let mut name = stem.clone();
        if n > 1 {
            name.push(format!("-{n}"));
        }
        Path::new("runs").join(name)
    })
}

/// The last run of a scene that is there.
fn last_run(scene: &Path) -> Option<PathBuf> {
    numbered_runs(scene).take_while(|path| path.exists()).last()
}

/// The first run of a scene that is not there yet, claimed by making its directory, so that runs started together do
/// not meet.
fn new_run(scene: &Path) -> Result<RunLock, RunError> {
    for path in numbered_runs(scene) {
        if std::fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match RunLock::take(&path) {
            Ok(lock) if is_free(&path) => return Ok(lock),
            Ok(_) => {}
            // Another run was as fast.
            Err(_) if path.join(LOCK_FILE).exists() => {}
            Err(error) => return Err(RunError::BadArguments(error)),
        }
    }
    let name = scene.file_stem().unwrap_or_default().display().to_string();
    Err(RunError::BadArguments(anyhow!("runs/ has {RUNS_MAX} runs of '{name}'; name another with --out")))
}
