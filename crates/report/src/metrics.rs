//! `metrics.jsonl`: what happened in a run, line by line. Lines that cannot be read are counted, not feared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// Version of the lines that this program knows.
const SCHEMA: u64 = 1;

/// A walk's candidate and its score.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScoredWalk {
    pub(crate) agent: String,
    pub(crate) task: String,
    pub(crate) reward: f64,
    pub(crate) accuracy: Option<f64>,
    pub(crate) macs: Option<u64>,
    pub(crate) is_noise_free: bool,
    /// Whether the score was known, and nothing was computed.
    pub(crate) is_cached: bool,
    pub(crate) search_s: f64,
}

/// Numbers of an agent's learner after an update, by name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LearnerUpdate {
    pub(crate) n_updates: f64,
    pub(crate) numbers: BTreeMap<String, f64>,
}

/// An epoch of a winner's training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainingEpoch {
    pub(crate) stage: String,
    pub(crate) agent: String,
    pub(crate) task: String,
    pub(crate) epoch: f64,
    pub(crate) loss: Option<f64>,
    pub(crate) accuracy: Option<f64>,
    pub(crate) held_out: Option<f64>,
}

/// All events that are drawn, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics {
    pub(crate) walks: Vec<ScoredWalk>,
    pub(crate) updates: BTreeMap<String, Vec<LearnerUpdate>>,
    pub(crate) epochs: Vec<TrainingEpoch>,
    /// Walks that were done again because a candidate panicked.
    pub(crate) n_restarted: usize,
}

impl Metrics {
    /// Reads a file; what is wrong with it goes to `problems`.
    pub(crate) fn read(file: &Path, problems: &mut Vec<String>) -> Option<Self> {
        let lines = match File::open(file) {
            Ok(open) => BufReader::new(open).split(b'\n'),
            Err(error) => {
                problems.push(format!("metrics.jsonl cannot be read ({error}): curves of the search are left out"));
                return None;
            }
        };
        let (mut metrics, mut bad) = (Self::default(), Vec::new());
        for (at, line) in lines.enumerate() {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    problems.push(format!("metrics.jsonl cannot be read behind line {at} ({error})"));
                    break;
                }
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice::<Value>(&line) {
                Ok(event) if event["event"].is_string() => metrics.add(&event, problems),
                Ok(_) | Err(_) => bad.push(at + 1),
            }
        }
        if let Some(first) = bad.first() {
            let lines = if bad.len() == 1 { "1 line is".to_owned() } else { format!("{} lines are", bad.len()) };
            problems.push(format!(
                "metrics.jsonl is damaged or was not written to its end: {lines} no event and left out, the first is line {first}"
            ));
        }
        Some(metrics)
    }

    fn add(&mut self, event: &Value, problems: &mut Vec<String>) {
        let text = |key: &str| event[key].as_str().unwrap_or("?").to_owned();
        match event["event"].as_str() {
            Some("start") => {
                let schema = event["schema"].as_u64();
                if schema != Some(SCHEMA) {
                    let found = schema.map_or_else(|| "an unknown version".to_owned(), |n| format!("version {n}"));
                    problems.push(format!(
                        "metrics.jsonl has lines of {found}, this program knows version {SCHEMA}: what it understands is shown"
                    ));
                }
            }
            Some("candidate") => {
                let Some(reward) = event["reward"].as_f64() else { return };
                self.walks.push(ScoredWalk {
                    agent: text("agent"),
                    task: text("task"),
                    reward,
                    accuracy: event["accuracy"].as_f64(),
                    macs: event["macs"].as_u64(),
                    is_noise_free: event["noise_free"].as_bool().unwrap_or(false),
                    is_cached: event["cached"].as_bool().unwrap_or(false),
                    search_s: event["search_s"].as_f64().unwrap_or(f64::NAN),
                });
            }
            Some("learned") => {
                let Some(n_updates) = event["n_updates"].as_f64() else { return };
                let fields = event.as_object().into_iter().flatten();
                let numbers = fields.filter(|(name, _)| *name != "n_updates");
                let numbers = numbers.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
                self.updates.entry(text("agent")).or_default().push(LearnerUpdate { n_updates, numbers });
            }
            Some("epoch") => {
                let Some(epoch) = event["epoch"].as_f64() else { return };
                self.epochs.push(TrainingEpoch {
                    stage: text("stage"),
                    agent: text("agent"),
                    task: text("task"),
                    epoch,
                    loss: event["loss"].as_f64(),
                    accuracy: event["accuracy"].as_f64(),
                    held_out: event["held_out"].as_f64(),
                });
            }
            Some("restarted") => self.n_restarted += 1,
            // Results stand in summary.json; other events are for other readers.
            _ => {}
        }
    }
}
