//! What the run of one seed left behind, as far as comparisons need it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::curve::Anytime;
use crate::summary::Summary;

/// The searches of one seed.
#[derive(Debug)]
pub(super) struct SeedRecords {
    pub(super) summary: Summary,
    /// By agent, then task.
    pub(super) searches: BTreeMap<String, BTreeMap<String, Anytime>>,
}

/// A line of `metrics.jsonl`; of other events than candidates only the name.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    task: String,
    #[serde(default)]
    cached: bool,
    #[serde(default)]
    reward: f64,
    #[serde(default)]
    search_s: f64,
}

impl SeedRecords {
    /// Reads a run that came to its end; of every search the first `candidates` scored ones of each task count.
    pub(super) fn read(directory: &Path, candidates: usize) -> anyhow::Result<Self> {
        let summary = read_summary(directory)?;
        let file = directory.join("metrics.jsonl");
        let lines = BufReader::new(File::open(&file).with_context(|| format!("'{}'", file.display()))?).lines();
        let mut searches: BTreeMap<String, BTreeMap<String, Anytime>> = BTreeMap::new();
        for (at, line) in lines.enumerate() {
            let context = || format!("'{}', line {}", file.display(), at + 1);
            let line: Line = serde_json::from_str(&line.with_context(context)?).with_context(context)?;
            if line.event == "candidate" && !line.cached {
                let anytime = searches.entry(line.agent).or_default().entry(line.task).or_default();
                anytime.add(line.reward, line.search_s, candidates);
            }
        }
        ensure!(!searches.is_empty(), "'{}' tells of no candidate: is anything left to search?", file.display());
        Ok(Self { summary, searches })
    }
}

fn read_summary(directory: &Path) -> anyhow::Result<Summary> {
    let file = directory.join("summary.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("'{}'", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("'{}'", file.display()))
}
