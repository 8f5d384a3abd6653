//! From a run to its observer and to `log.txt`.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use crate::error::RunError;
use crate::events::RunEvent;
use crate::observer::{Observer, Stage, StageKind};

/// Tells the observer what happens, and writes stages and notes to `log.txt`, each with the seconds since the process
/// began the run.
pub(crate) struct Reporter<'o> {
    observer: &'o mut dyn Observer,
    start: Instant,
    log: Log,
    is_in_stage: bool,
}

enum Log {
    /// Lines that are kept until there is a file for them.
    Kept(Vec<String>),
    Written(File),
}

/// What stands in front of the error that a run ended with, in the last line of its `log.txt`.
const FAILURE: &str = "error: ";

/// The line of `log.txt` for a run that ends with an error `seconds` after it began.
pub(crate) fn failure_line(seconds: f64, error: &RunError) -> String {
    let text = error.to_string();
    format!("{seconds:9.2} {FAILURE}{}", text.lines().collect::<Vec<_>>().join(" "))
}

/// Whether [`failure_line`] wrote it.
pub(crate) fn is_failure_line(line: &str) -> bool {
    let text = line.trim_start().split_once(' ');
    text.is_some_and(|(seconds, text)| seconds.parse::<f64>().is_ok() && text.starts_with(FAILURE))
}

impl<'o> Reporter<'o> {
    pub(crate) fn new(observer: &'o mut dyn Observer) -> Self {
        Self { observer, start: Instant::now(), log: Log::Kept(Vec::new()), is_in_stage: false }
    }

    /// Writes the lines so far, and from now on every line, to `file`.
    pub(crate) fn log_to(&mut self, mut file: File) -> std::io::Result<()> {
        if let Log::Kept(lines) = &self.log {
            lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        }
        self.log = Log::Written(file);
        Ok(())
    }

    /// A line of `log.txt` only.
    pub(crate) fn log(&mut self, text: &str) {
        let line = format!("{:9.2} {text}", self.start.elapsed().as_secs_f64());
        match &mut self.log {
            Log::Kept(lines) => lines.push(line),
            // The log repeats what metrics.jsonl has, whose errors are reported: a lost line is no reason to stop.
            Log::Written(file) => drop(writeln!(file, "{line}")),
        }
    }

    /// Begins a stage of `total` units, of which an earlier process did `done`.
    pub(crate) fn begin(&mut self, kind: StageKind, name: &str, total: u64, done: u64) {
        self.end();
        let stage = Stage { kind, name: name.to_owned(), total, done };
        self.log(&stage.to_string());
        self.observer.begin(&stage);
        self.is_in_stage = true;
    }

    pub(crate) fn progress(&mut self, done: u64) {
        self.observer.progress(done);
    }

    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.is_in_stage) {
            self.observer.end();
        }
    }

    /// A sentence for the user, which `log.txt` gets, too.
    pub(crate) fn note(&mut self, text: &str) {
        self.log(text);
        self.observer.note(text);
    }

    pub(crate) fn event(&mut self, event: &RunEvent<'_>) {
        self.observer.event(event);
    }

    pub(crate) fn should_stop(&mut self) -> bool {
        self.observer.should_stop()
    }
}
