//! The candidates that a `metrics.jsonl` tells of.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use anyhow::Context;
use secateur_history::WalkRecord;
use serde::Deserialize;

use crate::directory::entries::open_to_read;

/// Longer lines are none of ours.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct RunCandidates {
    /// By task, in the order of the run.
    pub(super) walks: BTreeMap<String, Vec<WalkRecord>>,
    /// blake3 of the file, if it tells of any.
    pub(super) hash: Option<String>,
    /// Whether the first line is that of a run; also of one that was killed before it wrote it.
    pub(super) is_run: bool,
    /// Lines that cannot be read; the last one of a run that was killed is none of them.
    pub(super) n_damaged: usize,
}

/// A line; of other events than candidates only the name.
#[derive(Deserialize)]
struct RunLine {
    event: String,
    #[serde(default)]
    task: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    walk: u64,
    #[serde(default)]
    noise_free: bool,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    is_best: bool,
    #[serde(default)]
    reward: f64,
    accuracy: Option<f64>,
    divergence: Option<f64>,
    output_error: Option<f64>,
    #[serde(default)]
    macs: u64,
    #[serde(default)]
    widths: Vec<usize>,
    search_s: Option<f64>,
}

/// Reads the candidates of a run.
///
/// # Errors
/// A file that cannot be read; one that is not there has no candidates.
pub(super) fn candidates(file: &Path) -> anyhow::Result<RunCandidates> {
    let mut out = RunCandidates::default();
    match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(out),
        _ => {}
    }
    let (opened, n_bytes) = open_to_read(file)?;
    // A run that goes on writes more meanwhile.
    let mut reader = BufReader::new(opened.take(n_bytes));
    let mut hasher = blake3::Hasher::new();
    let (mut line, mut n_lines) = (Vec::new(), 0usize);
    loop {
        line.clear();
        let n = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if n.with_context(|| format!("'{}'", file.display()))? == 0 {
            break;
        }
        hasher.update(&line);
        match serde_json::from_slice::<RunLine>(&line) {
            Ok(read) => {
                out.is_run |= n_lines == 0 && read.event == "start";
                if read.event == "candidate" {
                    let (task, walk) = read.walk_record();
                    out.walks.entry(task).or_default().push(walk);
                }
            }
            // Without its end it is the last of a run that was killed.
            Err(_) => out.n_damaged += usize::from(line.ends_with(b"\n")),
        }
        n_lines += 1;
    }
    out.is_run |= n_lines == 0;
    out.hash = (!out.walks.is_empty()).then(|| hasher.finalize().to_hex().to_string());
    Ok(out)
}

impl RunLine {
    /// Its task, and the rest.
    fn walk_record(self) -> (String, WalkRecord) {
        let walk = WalkRecord {
            agent: self.agent,
            walk: self.walk,
            noise_free: self.noise_free,
            cached: self.cached,
            is_best: self.is_best,
            reward: self.reward,
            accuracy: self.accuracy,
            divergence: self.divergence,
            output_error: self.output_error,
            macs: self.macs,
            widths: self.widths,
            search_s: self.search_s,
        };
        (self.task, walk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_read_are_counted_and_the_others_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("metrics.jsonl");
        assert!(candidates(&file).unwrap().walks.is_empty());
        let line = |walk| {
            format!(
                r#"{{"event":"candidate","agent":"a","task":"t","actor":0,"walk":{walk},"noise_free":true,"cached":false,"reward":0.1,"divergence":0.30000000000000004,"macs":7,"widths":[1,2],"spent":{{}},"is_best":true,"search_s":1.5}}"#
            )
        };
        let start = r#"{"event":"start","schema":1,"seed":7}"#;
        let text = format!("{start}\n{}\nrubbish\n{{\"event\":\"learned\"}}\n{}\n{{\"eve", line(0), line(1));
        std::fs::write(&file, &text).unwrap();
        let read = candidates(&file).unwrap();
        assert_eq!((read.is_run, read.n_damaged), (true, 1));
        assert_eq!(read.hash, Some(blake3::hash(text.as_bytes()).to_hex().to_string()));
        let walks = &read.walks["t"];
        assert_eq!(walks.iter().map(|walk| walk.walk).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((walks[0].divergence, walks[0].accuracy), (Some(0.1 + 0.2), None));
        std::fs::write(&file, "rubbish\n").unwrap();
        assert!(!candidates(&file).unwrap().is_run);
    }
}
