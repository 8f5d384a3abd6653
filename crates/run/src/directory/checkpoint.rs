//! Checkpoint files: a run at the end of a tick, written aside and renamed, checked before it is believed.
//!
//! A file is the line `secateur checkpoint <format>`, the line `<blake3 of all but this line>`, and postcard of
//! [`Identity`] and [`RunState`]. [`FORMAT`] rises whenever a type inside changes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use secateur_formats::write_atomic;
use secateur_scene::first_difference;
use serde::{Deserialize, Serialize};

use super::entries::{FileId, make_folder, open_to_read};
use crate::card::CardRecord;
use crate::refits::SavedRefits;
use crate::saved_search::{CurrentSearch, FinishedSearch};
use crate::training::trained::Trainings;

/// Version of the files' content.
const FORMAT: u32 = 8;
const MAGIC: &str = "secateur checkpoint ";
/// Files kept; the older ones are there for when the newest is damaged.
const N_KEPT: usize = 3;
const EXTENSION: &str = "checkpoint";
/// Larger files are none of ours.
const BYTES_MAX: u64 = 2 << 30;
/// Numbers of files end here, so that there always is a next one.
const NUMBER_MAX: u64 = 1 << 53;
/// The first two lines are shorter.
const LINE_BYTES_MAX: u64 = 256;

/// What a run is a run of. A checkpoint continues only a run with an equal one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Version of the program: another one may compute other numbers.
    pub(crate) program: String,
    /// blake3 of the program's file, by which builds of one version, and their plugins, differ; empty where it cannot
    /// be read.
    pub(crate) build: String,
    /// Instruction set that the processor's engine uses: sums are ordered by the number of its lanes.
    pub(crate) instructions: String,
    /// The resolved scene.
    pub(crate) scene: String,
    /// Name and blake3 of every network and data set.
    pub(crate) inputs: Vec<(String, String)>,
}

impl Identity {
    /// blake3 of all of it: two runs with the same one compute the same.
    pub(crate) fn fingerprint(&self) -> anyhow::Result<String> {
        let bytes = postcard::to_stdvec(self).context("encode what a run is")?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    }
}

/// A run between two ticks, or two refits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Searches that ended, in order.
    pub(crate) finished: Vec<FinishedSearch>,
    /// The search that was going on, if one was.
    pub(crate) current: Option<CurrentSearch>,
    /// Refits of finalists that ended.
    pub(crate) refits: SavedRefits,
    /// Trainings of winners.
    pub(crate) trainings: Trainings,
    /// State of the card, where one scores.
    pub(crate) card: Option<CardRecord>,
    /// Length of `metrics.jsonl`.
    pub(crate) metrics_bytes: u64,
    /// Time the run had taken.
    pub(crate) wall_s: f64,
}

/// The checkpoint folder of a run.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    /// Of the folder.
    id: FileId,
    identity: Arc<Identity>,
    every: Duration,
    last: Instant,
    next_number: u64,
    writing: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Checkpoints {
    pub(crate) fn new(run: &Path, identity: Arc<Identity>, every: Duration) -> anyhow::Result<Self> {
        let folder = run.join("checkpoints");
        make_folder(&folder)?;
        let id = FileId::of(&std::fs::symlink_metadata(&folder).with_context(|| format!("'{}'", folder.display()))?);
        let next_number = numbered(&folder)?.first().map_or(0, |(number, _)| number + 1);
        Ok(Self { folder, id, identity, every, last: Instant::now(), next_number, writing: None })
    }

    /// Whether enough time has passed for another one, and the one before is on disk.
    pub(crate) fn is_due(&self) -> bool {
        self.last.elapsed() >= self.every && self.writing.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Hands `state` to a thread that encodes and writes it. `metrics` reaches the disk first.
    ///
    /// # Errors
    /// Why the checkpoint before this one was not written; this one is written regardless.
    pub(crate) fn write(&mut self, state: RunState, metrics: File) -> anyhow::Result<()> {
        let before = self.wait();
        let identity = self.identity.clone();
        let (folder, id) = (self.folder.clone(), self.id);
        let path = folder.join(format!("{:06}.{EXTENSION}", self.next_number));
        (self.next_number, self.last) = (self.next_number + 1, Instant::now());
        let write = move || {
            metrics.sync_data().context("metrics.jsonl")?;
            let bytes = seal(FORMAT, &encode(&identity, &state)?);
            let n_bytes = bytes.len() as u64;
            ensure!(n_bytes <= BYTES_MAX, "it has {n_bytes} bytes; at most {BYTES_MAX} are read again");
            let is_folder = std::fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_dir());
            ensure!(is_folder && id.is_at(&folder), "'{}' was removed or replaced", folder.display());
            write_atomic(&path, &bytes)?;
            forget_old(&folder)
        };
        let spawned = std::thread::Builder::new().name("checkpoint".into()).spawn(write);
        self.writing = Some(spawned.context("start the thread that writes checkpoints")?);
        before
    }

    /// Waits until the last checkpoint is on disk.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn wait(&mut self) -> anyhow::Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let written = writing.join().unwrap_or_else(|_| Err(anyhow!("the thread that writes checkpoints panicked")));
        written.context("write a checkpoint")
    }
}

/// Whether there are checkpoints in a run directory, sound or not.
pub(crate) fn has_checkpoints(run: &Path) -> bool {
    numbered(&run.join("checkpoints")).is_ok_and(|files| !files.is_empty())
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        // A process that ends in the middle would leave half a file. A failure can no longer be reported.
        drop(self.wait());
    }
}

/// The newest checkpoint of the run directory `run` that can be read and is `plausible`, and a warning for each newer
/// one that is not; none if there are no checkpoints at all.
///
/// # Errors
/// A checkpoint of another run, naming the difference; checkpoints of which none can be read.
pub(crate) fn newest(
    run: &Path,
    identity: &Identity,
    plausible: impl Fn(&RunState) -> anyhow::Result<()>,
) -> anyhow::Result<Option<(RunState, Vec<String>)>> {
    let mut warnings = Vec::new();
    let metrics_bytes = std::fs::symlink_metadata(run.join("metrics.jsonl")).map_or(0, |m| m.len());
    for (_, path) in numbered(&run.join("checkpoints"))? {
        match read(&path).and_then(|bytes| open(&bytes, metrics_bytes, identity, &plausible)) {
            Ok(Opened::Whole(state)) => return Ok(Some((*state, warnings))),
            Ok(Opened::Foreign(difference)) => bail!("checkpoint '{}' is of another run: {difference}", path.display()),
            Err(damage) => warnings.push(format!("checkpoint '{}' cannot be used: {damage:#}", path.display())),
        }
    }
    if warnings.is_empty() {
        return Ok(None);
    }
    bail!("{}; name another directory with --out to start afresh", warnings.join("; "))
}

/// What the newest checkpoint in `run` that can be read says of the run; none without one.
pub(crate) fn newest_identity(run: &Path) -> Option<Identity> {
    let checkpoints = numbered(&run.join("checkpoints")).ok()?;
    checkpoints.iter().find_map(|(_, path)| {
        let bytes = read(path).ok()?;
        let (format, body) = unseal(&bytes).ok()?;
        (format == FORMAT).then(|| decode_identity(body).ok())?.map(|(identity, _)| identity)
    })
}

enum Opened {
    Whole(Box<RunState>),
    /// How it differs.
    Foreign(String),
}

/// Errors are damage.
fn open(
    bytes: &[u8],
    metrics_bytes: u64,
    identity: &Identity,
    plausible: impl Fn(&RunState) -> anyhow::Result<()>,
) -> anyhow::Result<Opened> {
    let (format, body) = unseal(bytes)?;
    if format != FORMAT {
        return Ok(Opened::Foreign(format!("it has format {format}, this program reads format {FORMAT}")));
    }
    let (theirs, rest) = decode_identity(body)?;
    if let Some(difference) = difference(&theirs, identity) {
        return Ok(Opened::Foreign(difference));
    }
    let state = decode_state(rest)?;
    if state.metrics_bytes > metrics_bytes {
        bail!("metrics.jsonl has {metrics_bytes} bytes, expected at least {}", state.metrics_bytes);
    }
    plausible(&state)?;
    Ok(Opened::Whole(Box::new(state)))
}

/// Reads a checkpoint file's bytes, for tests that make them up, and writes them again. Takes a small multiple of their
/// memory, whatever they are.
///
/// # Errors
/// What is damaged.
#[doc(hidden)]
pub fn read_checkpoint(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (identity, state) = decode(bytes)?;
    Ok(seal(FORMAT, &encode(&identity, &state)?))
}

/// The bytes of a checkpoint file with the body `body`, whatever it is, for tests that make them up.
#[doc(hidden)]
pub fn seal_checkpoint(body: &[u8]) -> Vec<u8> {
    seal(FORMAT, body)
}

/// The whole of a file's bytes.
fn decode(bytes: &[u8]) -> anyhow::Result<(Identity, RunState)> {
    let (format, body) = unseal(bytes)?;
    ensure!(format == FORMAT, "it has format {format}, this program reads format {FORMAT}");
    let (identity, rest) = decode_identity(body)?;
    Ok((identity, decode_state(rest)?))
}

fn decode_identity(bytes: &[u8]) -> anyhow::Result<(Identity, &[u8])> {
    postcard::take_from_bytes(bytes).context("its head")
}

fn decode_state(bytes: &[u8]) -> anyhow::Result<RunState> {
    let (state, rest) = postcard::take_from_bytes::<RunState>(bytes).context("its body")?;
    ensure!(rest.is_empty(), "it has {} bytes behind its end", rest.len());
    Ok(state)
}

/// The bytes of a file whose checksum is right. Until that is known, little of it is in memory.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let (mut file, n_bytes) = open_to_read(path)?;
    ensure!(n_bytes <= BYTES_MAX, "it has {n_bytes} bytes, at most {BYTES_MAX} are read");
    check_sum(&mut BufReader::new(&file))?;
    file.rewind()?;
    let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).unwrap_or(0));
    file.take(n_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As the check of [`unseal`], of a file that is not in memory.
fn check_sum(file: &mut impl BufRead) -> anyhow::Result<()> {
    let mut line = || {
        let mut line = Vec::new();
        file.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        ensure!(line.ends_with(b"\n"), "it is cut short");
        Ok(line)
    };
    let (head, stated) = (line()?, line()?);
    ensure!(head.starts_with(MAGIC.as_bytes()), "its first line is damaged");
    let found = blake3::Hasher::new().update(&head).update_reader(file)?.finalize().to_hex();
    let stated = String::from_utf8_lossy(&stated);
    ensure!(found.as_str() == stated.trim_end(), "its checksum is {found}, expected {}", stated.trim_end());
    Ok(())
}

/// The first difference between a checkpoint's run and this one.
pub(crate) fn difference(theirs: &Identity, ours: &Identity) -> Option<String> {
    if theirs.program != ours.program {
        return Some(format!("it was written by version {}, this is version {}", theirs.program, ours.program));
    }
    if theirs.build != ours.build {
        let short = |build: &str| build.get(..12).unwrap_or("unknown").to_owned();
        let (theirs, ours) = (short(&theirs.build), short(&ours.build));
        return Some(format!("it was written by another build of this version: {theirs}, this is {ours}"));
    }
    if theirs.instructions != ours.instructions {
        let (theirs, ours) = (&theirs.instructions, &ours.instructions);
        return Some(format!("it was computed with {theirs}, which gives other last digits than {ours} here"));
    }
    if let Some(d) = first_difference(&theirs.scene, &ours.scene) {
        let or_nothing = |text: String| if text.is_empty() { "nothing".to_owned() } else { text };
        return Some(format!("`{}` is {} there and {} here", d.path, or_nothing(d.first), or_nothing(d.second)));
    }
    let differs = theirs.inputs.iter().zip(&ours.inputs).find(|(a, b)| a != b);
    differs.map(|((name, _), _)| format!("{name} has other content than it had then"))
}

fn encode(identity: &Identity, state: &RunState) -> anyhow::Result<Vec<u8>> {
    let head = postcard::to_stdvec(identity).context("encode a checkpoint")?;
    postcard::to_extend(state, head).context("encode a checkpoint")
}

/// The file of a body.
fn seal(format: u32, body: &[u8]) -> Vec<u8> {
    let head = format!("{MAGIC}{format}\n");
    let mut out = format!("{head}{}\n", hash(head.as_bytes(), body)).into_bytes();
    out.extend_from_slice(body);
    out
}

/// Format and body of a file, if it is whole.
fn unseal(bytes: &[u8]) -> anyhow::Result<(u32, &[u8])> {
    let line = |from: usize| {
        let end =
            bytes[from..].iter().take(LINE_BYTES_MAX as usize).position(|&b| b == b'\n').context("it is cut short")?;
        Ok::<_, anyhow::Error>((std::str::from_utf8(&bytes[from..from + end]).unwrap_or_default(), from + end + 1))
    };
    let (head, at) = line(0)?;
    let format = head.strip_prefix(MAGIC).and_then(|f| f.parse().ok()).context("its first line is damaged")?;
    let (stated, from) = line(at)?;
    let (found, body) = (hash(&bytes[..at], &bytes[from..]), &bytes[from..]);
    ensure!(found == stated, "its checksum is {found}, expected {stated}");
    Ok((format, body))
}

fn hash(head: &[u8], body: &[u8]) -> String {
    blake3::Hasher::new().update(head).update(body).finalize().to_hex().to_string()
}

/// Checkpoint files by number, newest first; none if there is no such folder.
fn numbered(folder: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("'{}'", folder.display())),
    };
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("'{}'", folder.display()))?.path();
        let is_one = path.extension().is_some_and(|e| e == EXTENSION);
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        out.extend(number.filter(|&number| is_one && number < NUMBER_MAX).map(|number| (number, path)));
    }
    out.sort_by(|a, b| b.cmp(a));
    Ok(out)
}

fn forget_old(folder: &Path) -> anyhow::Result<()> {
    // What is no file of ours is passed over when a run goes on, and left where it is.
    let is_file = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    for (_, path) in numbered(folder)?.into_iter().filter(|(_, path)| is_file(path)).skip(N_KEPT) {
        std::fs::remove_file(&path).with_context(|| format!("'{}'", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_two_runs_apart_is_named() {
        let ours = Identity {
            program: "0.1.0".into(),
            build: "0123456789abcdef".into(),
            instructions: "AVX-512".into(),
            scene: "(seed: 7)".into(),
            inputs: vec![("network 'a'".into(), "00".into())],
        };
        assert_eq!(difference(&ours, &ours), None);
        let of = |change: fn(&mut Identity)| {
            let mut theirs = ours.clone();
            change(&mut theirs);
            difference(&theirs, &ours).unwrap()
        };
        assert!(of(|i| i.program = "0.2.0".into()).contains("by version 0.2.0, this is version 0.1.0"));
        let other_build = of(|i| i.build = "fedcba9876543210".into());
        assert!(other_build.ends_with("another build of this version: fedcba987654, this is 0123456789ab"));
        assert!(of(|i| i.build.clear()).contains("unknown"));
        assert!(
            of(|i| i.instructions = "AVX2".into()).contains("with AVX2, which gives other last digits than AVX-512")
        );
        assert!(of(|i| i.scene = "(seed: 8)".into()).contains("`seed` is 8 there and 7 here"));
        assert!(of(|i| i.inputs[0].1 = "11".into()).contains("network 'a' has other content"));
    }
}
