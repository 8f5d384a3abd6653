//! How far a run is: the stage that its `log.txt` tells of, what is left of it, and whether anybody works on it.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use crate::metrics::Metrics;

/// Walks that the speed of a search is told by: the last of them, as later ones may take longer.
const SPEED_OVER: usize = 64;

/// Whether a run goes on, and if not, how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunProgressState {
    /// There is no summary yet and a lock in the directory: it goes on, unless it was killed.
    GoesOn,
    /// There is no summary, and no lock either.
    Stopped,
    /// It ended with this error.
    Failed(String),
    /// It was asked to stop, and wrote what it had.
    Interrupted,
    /// It came to its end.
    Finished,
}

/// The part of a run that its log told of last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoggedStage {
    /// What is done to what.
    pub name: String,
    /// Units of it that are known to be done.
    pub done: u64,
    /// All units.
    pub total: u64,
    /// Seconds that the rest takes at the pace of the last walks; none where that is not known.
    pub left_s: Option<f64>,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileProgress {
    /// Whether it goes on.
    pub state: RunProgressState,
    /// What it was at when it last wrote to its log; none without a log.
    pub stage: Option<LoggedStage>,
    /// Process that holds, or held, the directory.
    pub process: Option<u32>,
    /// When anything was last written.
    pub written: Option<SystemTime>,
}

impl FileProgress {
    /// Of a directory; `log` are the lines of its `log.txt`.
    pub(crate) fn read(path: &Path, summary: &serde_json::Value, log: &[String], metrics: Option<&Metrics>) -> Self {
        let changed = |name: &str| fs::metadata(path.join(name)).and_then(|metadata| metadata.modified()).ok();
        let summarised = changed("summary.json");
        let written = ["metrics.jsonl", "log.txt"].into_iter().filter_map(changed).chain(summarised).max();
        let lock = fs::read_to_string(path.join(".lock"));
        let failure = log.last().and_then(|line| failure(line));
        // A run that goes on behind its summary, because it was interrupted, writes the next one at its end.
        let goes_on_again = lock.is_ok() && written > summarised;
        let state = match (failure, summarised.is_some()) {
            (Some(failure), _) => RunProgressState::Failed(failure.to_owned()),
            (None, true) if goes_on_again => RunProgressState::GoesOn,
            (None, true) if summary["interrupted"] == true => RunProgressState::Interrupted,
            (None, true) => RunProgressState::Finished,
            (None, false) if lock.is_ok() => RunProgressState::GoesOn,
            (None, false) => RunProgressState::Stopped,
        };
        let stage = log.iter().rev().find_map(|line| LoggedStage::of(line)).map(|stage| match metrics {
            Some(metrics) => stage.with_walks(metrics),
            None => stage,
        });
        Self { state, stage, process: lock.ok().and_then(|id| id.trim().parse().ok()), written }
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        let stage = self.stage.as_ref().map(|stage| {
            let left = stage.left_s.filter(|_| self.state == RunProgressState::GoesOn);
            let left = left.map_or_else(String::new, |left| format!(", about {} left", crate::numbers::seconds(left)));
            format!("{}: {} of {}{left}", stage.name, stage.done, stage.total)
        });
        let at = |what: &str| match &stage {
            Some(stage) => format!("{what}; {stage}."),
            None => format!("{what}."),
        };
        match &self.state {
            RunProgressState::GoesOn => at("The run goes on, unless it was killed"),
            RunProgressState::Stopped => at("The run ended before it had results; --resume goes on with it"),
            RunProgressState::Failed(error) => format!("The run failed: {error}"),
            RunProgressState::Interrupted => "The run was interrupted; --resume goes on with it.".to_owned(),
            RunProgressState::Finished => "The run has come to its end.".to_owned(),
        }
    }
}

/// What a line of `log.txt` says behind its seconds.
fn text(line: &str) -> Option<&str> {
    let (seconds, text) = line.trim_start().split_once(' ')?;
    seconds.parse::<f64>().is_ok().then_some(text)
}

/// The error that a line says the run ended with.
fn failure(line: &str) -> Option<&str> {
    text(line)?.strip_prefix("error: ")
}

impl LoggedStage {
    /// The stage that a line of `log.txt` says to begin: `mtacp walks: 0 of 900`.
    fn of(line: &str) -> Option<Self> {
        let (name, numbers) = text(line)?.rsplit_once(": ")?;
        let (done, total) = numbers.split_once(" of ")?;
        Some(Self { name: name.to_owned(), done: done.parse().ok()?, total: total.parse().ok()?, left_s: None })
    }

    /// The agent whose walks it is of.
    fn agent(&self) -> Option<&str> {
        self.name.strip_suffix(" walks")
    }

    /// With the walks that were recorded since it began.
    fn with_walks(mut self, metrics: &Metrics) -> Self {
        let Some(agent) = self.agent() else { return self };
        let ends: Vec<f64> =
            metrics.walks.iter().filter(|walk| walk.agent == agent).map(|walk| walk.search_s).collect();
        self.done = (ends.len() as u64).clamp(self.done, self.total.max(self.done));
        let last = &ends[ends.len().saturating_sub(SPEED_OVER)..];
        if let [first, .., end] = last
            && end > first
        {
            // The first of them tells when the others began.
            let each_s = (end - first) / (last.len() - 1) as f64;
            self.left_s = Some(each_s * (self.total - self.done) as f64);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ScoredWalk;
    use serde_json::json;

    fn walks(agent: &str, ends: &[f64]) -> Metrics {
        let walk = |&search_s: &f64| ScoredWalk {
            agent: agent.to_owned(),
            task: "t".to_owned(),
            reward: 0.5,
            accuracy: None,
            macs: None,
            is_noise_free: false,
            is_cached: false,
            search_s,
        };
        Metrics { walks: ends.iter().map(walk).collect(), ..Metrics::default() }
    }

    #[test]
    fn the_last_stage_of_a_log_is_told_with_the_time_that_its_walks_leave() {
        let log =
            ["     0.10 ranking channels a: b on c: 0 of 100", "     7.96 mtacp walks: 0 of 20", "    9.00 a note"];
        let log = log.map(str::to_owned);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".lock"), "4711\n").unwrap();
        // Two seconds each, of which four are done: 16 are left.
        let metrics = walks("mtacp", &[2.0, 4.0, 6.0, 8.0]);
        let progress = FileProgress::read(folder.path(), &json!(null), &log, Some(&metrics));
        let stage = progress.stage.clone().unwrap();
        assert_eq!((stage.name.as_str(), stage.done, stage.total), ("mtacp walks", 4, 20));
        assert_eq!((stage.left_s, progress.process), (Some(32.0), Some(4711)));
        assert_eq!(progress.state, RunProgressState::GoesOn);
        assert!(progress.sentence().contains("mtacp walks: 4 of 20, about 32 s left"), "{}", progress.sentence());
        // Walks of another agent tell nothing, and more walks than there are to be do no harm.
        let of_another = FileProgress::read(folder.path(), &json!(null), &log, Some(&walks("random", &[1.0, 2.0])));
        assert_eq!(of_another.stage.map(|stage| (stage.done, stage.left_s)), Some((0, None)));
        let too_many = FileProgress::read(folder.path(), &json!(null), &log, Some(&walks("mtacp", &[1.0; 30])));
        assert_eq!(too_many.stage.map(|stage| (stage.done, stage.left_s)), Some((20, None)));
    }

    #[test]
    fn how_a_run_ended_is_told_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let state = |summary, log: &[&str]| {
            let log: Vec<String> = log.iter().map(|line| (*line).to_owned()).collect();
            FileProgress::read(folder.path(), &summary, &log, None).state
        };
        let failed = "    3.00 error: the disk is full: 1 of 2";
        assert_eq!(state(json!(null), &["nothing of a log"]), RunProgressState::Stopped);
        let told = RunProgressState::Failed("the disk is full: 1 of 2".to_owned());
        assert_eq!(state(json!(null), &[failed]), told);
        assert_eq!(state(json!(null), &[failed, "    0.00 mtacp walks: 3 of 4"]), RunProgressState::Stopped);
        fs::write(folder.path().join("summary.json"), "{}").unwrap();
        assert_eq!(state(json!({"interrupted": true}), &[]), RunProgressState::Interrupted);
        assert_eq!(state(json!({}), &[]), RunProgressState::Finished);
        assert_eq!(state(json!({}), &[failed]), told);
        // Going on behind a summary: something is newer than it.
        fs::write(folder.path().join(".lock"), "").unwrap();
        let newer = fs::File::create(folder.path().join("metrics.jsonl")).unwrap();
        let later = fs::metadata(folder.path().join("summary.json")).unwrap().modified().unwrap();
        newer.set_modified(later + std::time::Duration::from_secs(5)).unwrap();
        assert_eq!(state(json!({"interrupted": true}), &[]), RunProgressState::GoesOn);
    }
}
