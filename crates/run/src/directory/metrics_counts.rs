//! Counts over the lines of `metrics.jsonl`. A checkpoint counts the same events, so the two must agree.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::entries::open_to_read;

/// Longer lines are none of ours: one has two numbers for each of the network's groups.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Counts over the searches of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentCounts {
    /// By task: candidates, and those whose score was known.
    pub(crate) candidates: BTreeMap<String, (u64, u64)>,
    pub(crate) n_updates: u64,
    /// Walks that began again.
    pub(crate) n_restarts: u64,
}

/// By name of the agent.
pub(crate) type MetricsCounts = BTreeMap<String, AgentCounts>;

/// A line; what is not counted is left out.
#[derive(Deserialize)]
struct MetricsLine<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    agent: Cow<'a, str>,
    #[serde(borrow, default)]
    task: Cow<'a, str>,
    #[serde(default)]
    cached: bool,
}

/// Counts what the first `n_bytes` of the file tell, a line at a time.
///
/// # Errors
/// A file that is shorter, a line that is no event, a last line that is cut short.
pub(crate) fn count_metrics(path: &Path, n_bytes: u64) -> anyhow::Result<MetricsCounts> {
    let (file, found) = open_to_read(path).context("metrics.jsonl")?;
    ensure!(n_bytes <= found, "metrics.jsonl has {found} bytes, expected at least {n_bytes}");
    let mut lines = BufReader::new(file.take(n_bytes));
    let (mut told, mut line) = (MetricsCounts::new(), Vec::new());
    for number in 1u64.. {
        line.clear();
        let n = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).context("metrics.jsonl")?;
        if n == 0 {
            break;
        }
        let at = || format!("line {number} of metrics.jsonl is not what a run wrote");
        ensure!(line.ends_with(b"\n"), "{}: it is cut short", at());
        count(serde_json::from_slice(&line).with_context(at)?, &mut told);
    }
    Ok(told)
}

fn count(line: MetricsLine<'_>, told: &mut MetricsCounts) {
    if !matches!(&*line.event, "candidate" | "learned" | "restarted") {
        return;
    }
    let agent = told.entry(line.agent.into_owned()).or_default();
    match &*line.event {
        "candidate" => {
            let (ended, cached) = agent.candidates.entry(line.task.into_owned()).or_default();
            *ended += 1;
            *cached += u64::from(line.cached);
        }
        "learned" => agent.n_updates += 1,
        _ => agent.n_restarts += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn events_are_counted_by_agent_and_task_up_to_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("metrics.jsonl");
        let head = "{\"event\":\"start\",\"schema\":1}\n\
             {\"event\":\"candidate\",\"agent\":\"random\",\"task\":\"a\",\"cached\":false,\"widths\":[1,2]}\n\
             {\"event\":\"candidate\",\"agent\":\"random\",\"task\":\"a\",\"cached\":true}\n\
             {\"event\":\"learned\",\"agent\":\"mtacp\",\"n_updates\":1}\n\
             {\"event\":\"restarted\",\"agent\":\"mtacp\",\"task\":\"\\u0061\",\"message\":\"boo\"}\n";
        fs::write(&file, format!("{head}{{\"event\":\"learned\",\"agent\":\"mtacp\"}}\nhalf")).unwrap();
        let told = count_metrics(&file, head.len() as u64).unwrap();
        let random = AgentCounts { candidates: [("a".to_owned(), (2, 1))].into(), ..AgentCounts::default() };
        let mtacp = AgentCounts { n_updates: 1, n_restarts: 1, ..AgentCounts::default() };
        assert_eq!(told, [("random".to_owned(), random), ("mtacp".to_owned(), mtacp)].into());
        let error = |n_bytes| format!("{:#}", count_metrics(&file, n_bytes).unwrap_err());
        let n_bytes = fs::metadata(&file).unwrap().len();
        assert!(error(n_bytes).contains("line 7 of metrics.jsonl"), "{}", error(n_bytes));
        assert!(error(head.len() as u64 - 1).contains("line 5") && error(n_bytes + 1).contains("expected at least"));
    }
}
