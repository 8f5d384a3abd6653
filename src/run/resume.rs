//! Where a run goes, and whether it goes on from what is there.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use secateur_kernels::Isa;
use secateur_scene::{Scene, SchedulerKind, apply_set};

use super::checkpoint::{Identity, RunState, newest};
use crate::Failure;
use crate::arguments::RunArgs;
use crate::resolve::Resolved;

/// Entries of a run directory, beside temporary files.
const ENTRIES: [&str; 6] = ["scene.ron", "metrics.jsonl", "log.txt", "tasks", "checkpoints", "summary.json"];
/// Runs of one name that are looked through.
const RUNS_MAX: usize = 10_000;

/// A run directory, and what is to be continued there.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) state: Option<RunState>,
    /// To be told to the user once there is somebody to tell.
    pub(super) notes: Vec<String>,
}

/// Finds the place of a run. Without `--resume` it is empty.
///
/// # Errors
/// A directory that is taken, or holds a run that this one cannot continue: nothing is written then.
pub(super) fn place(arguments: &RunArgs, scene: &Scene, identity: &Identity) -> Result<Place, Failure> {
    let path = match (&arguments.out, arguments.resume) {
        (Some(out), true) => out.clone(),
        (Some(out), false) if is_free(out) => out.clone(),
        (Some(out), false) => {
            let problem = format!("--out '{}' is not an empty directory; name a new one or empty it", out.display());
            return Err(Failure::BadArguments(anyhow!(problem)));
        }
        (None, resume) => runs_path(&arguments.scene, resume)?,
    };
    if !arguments.resume {
        return Ok(Place { path, state: None, notes: Vec::new() });
    }
    let (state, mut notes) = match newest(&path, identity).map_err(|e| Failure::BadArguments(e.context("--resume")))? {
        Some((state, warnings)) => (Some(state), warnings),
        None => (None, Vec::new()),
    };
    if state.is_some() && scene.scheduler != SchedulerKind::Lockstep {
        let scheduler = scene.scheduler.name();
        notes.push(format!("under scheduler {scheduler} a run that goes on need not end as if it had never stopped"));
    }
    notes.push(match &state {
        Some(state) => format!("going on in '{}' after {:.0} s of the run", path.display(), state.wall_s),
        None => {
            check_is_run(&path).map_err(Failure::BadArguments)?;
            format!("no checkpoint in '{}': the run starts afresh", path.display())
        }
    });
    Ok(Place { path, state, notes })
}

/// What the run of a scene is.
pub(super) fn identity(scene: &Scene, resolved: &Resolved) -> anyhow::Result<Identity> {
    let mut text = scene.to_ron();
    let mut inputs = Vec::new();
    for (i, network) in resolved.networks.iter().enumerate() {
        // What counts is the content, wherever the file lies now.
        let name = network.path.file_name().unwrap_or_default().to_string_lossy();
        text = apply_set(&text, &format!("networks[{i}].file={name:?}"))?;
        let bytes = std::fs::read(&network.path).with_context(|| format!("'{}'", network.path.display()))?;
        inputs.push((format!("network '{}'", network.name), blake3::hash(&bytes).to_hex().to_string()));
    }
    for dataset in &resolved.datasets {
        let mut hasher = blake3::Hasher::new();
        for split in [&dataset.train, &dataset.test] {
            hasher.update(&split.images);
            for label in &split.labels {
                hasher.update(&label.to_le_bytes());
            }
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

/// blake3 of this program's file; none if it cannot be read.
fn build() -> Option<String> {
    // On Linux this is the file that was started, even if another has taken its place since.
    let file = File::open("/proc/self/exe").or_else(|_| File::open(std::env::current_exe()?)).ok()?;
    Some(blake3::Hasher::new().update_reader(file).ok()?.finalize().to_hex().to_string())
}

fn is_free(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !path.exists(),
    }
}

/// Refuses a directory with anything in it that no run writes: it would be written over.
fn check_is_run(path: &Path) -> anyhow::Result<()> {
    if is_free(path) {
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(|| format!("'{}'", path.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_ours = ENTRIES.contains(&name.as_str()) || name.ends_with(".tmp") || name.starts_with("failed-batch-");
        if !is_ours {
            bail!("--resume: '{}' is not a run directory: it holds '{name}'", path.display());
        }
    }
    // A run has metrics before it has anything that would be written over.
    if path.join("scene.ron").exists() && !is_metrics(&path.join("metrics.jsonl")) {
        bail!("--resume: '{}' is not a run directory: its scene.ron was written by no run", path.display());
    }
    if path.join("summary.json").exists() {
        bail!("--resume: '{}' holds results and no checkpoint to go on from; name another directory", path.display());
    }
    Ok(())
}

/// Whether this is the `metrics.jsonl` of a run, or of one that was killed before it wrote the first line.
fn is_metrics(file: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    let first = text.lines().next().map(serde_json::from_str::<serde_json::Value>);
    first.is_none_or(|line| line.is_ok_and(|line| line["event"] == "start"))
}

/// Of `runs/<scene>`, `runs/<scene>-2`, …: the last that is there if `resume`, else the first that is not, claimed by creating it.
fn runs_path(scene: &Path, resume: bool) -> Result<PathBuf, Failure> {
    let stem = scene.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let path = |n: usize| Path::new("runs").join(if n == 1 { stem.clone() } else { format!("{stem}-{n}") });
    if let (true, Some(last)) = (resume, (1..RUNS_MAX).map(path).take_while(|p| p.exists()).last()) {
        return Ok(last);
    }
    for n in 1..RUNS_MAX {
        // Creating it claims it, so that runs started together do not meet.
        match std::fs::create_dir_all("runs").and_then(|()| std::fs::create_dir(path(n))) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            claimed => return claimed.map(|()| path(n)).map_err(Failure::from),
        }
    }
    Err(Failure::BadArguments(anyhow!("runs/ has {RUNS_MAX} runs of '{stem}'; name another with --out")))
}
