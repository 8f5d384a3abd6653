//! How a run shows that it lives: a bar with the time left on a terminal, a line now and then elsewhere, and log.txt.

use std::cell::RefCell;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::screen;

/// Lines between which at least this much time passes, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Progress of one stage after the other.
pub(super) struct Progress {
    quiet: bool,
    start: Instant,
    stage: RefCell<Option<Stage>>,
    /// What was said so far, until there is a file to write it to.
    log: RefCell<Log>,
}

enum Log {
    Kept(Vec<String>),
    Written(File),
}

struct Stage {
    name: String,
    /// Units done when it began, and all units.
    first: u64,
    total: u64,
    start: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, start: Instant::now(), stage: RefCell::new(None), log: RefCell::new(Log::Kept(Vec::new())) }
    }

    /// Writes what was said so far, and from now on what is said, to `file`.
    pub(super) fn log_to(&self, mut file: File) -> std::io::Result<()> {
        if let Log::Kept(lines) = &*self.log.borrow() {
            lines.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        }
        self.log.replace(Log::Written(file));
        Ok(())
    }

    /// A line of log.txt only.
    pub(super) fn log(&self, text: &str) {
        let line = format!("{:9.2} {text}", self.start.elapsed().as_secs_f64());
        match &mut *self.log.borrow_mut() {
            Log::Kept(lines) => lines.push(line),
            // The log is a view of metrics.jsonl, whose errors are reported: a lost line is no reason to stop.
            Log::Written(file) => drop(writeln!(file, "{line}")),
        }
    }

    /// Begins a stage of `total` units, of which an earlier process did the `first`.
    pub(super) fn begin(&self, name: &str, total: u64, first: u64) {
        self.clear();
        self.log(&format!("{name}: {first} of {total}"));
        if self.quiet {
            return;
        }
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:32} {bar:30} {pos}/{len}  {elapsed} gone, {eta} left");
            let bar = ProgressBar::new(total).with_message(name.to_owned()).with_position(first);
            // So that what is done already tells nothing of the time that the rest takes.
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(250));
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let now = Instant::now();
        *self.stage.borrow_mut() = Some(Stage { name: name.into(), first, total, start: now, last_line: now, bar });
    }

    /// Tells how many units are done.
    pub(super) fn set(&self, done: u64) {
        let mut stage = self.stage.borrow_mut();
        let Some(stage) = stage.as_mut() else { return };
        if let Some(bar) = &stage.bar {
            bar.set_position(done);
        } else if stage.last_line.elapsed() >= LINE_EVERY
            && let Some(left) = seconds_left(stage.start.elapsed().as_secs_f64(), (stage.first, done, stage.total))
        {
            screen::status(format!("{}: {done} of {}, about {left:.0} s left", stage.name, stage.total));
            stage.last_line = Instant::now();
        }
    }

    /// A line above the bar.
    pub(super) fn note(&self, text: &str) {
        self.log(text);
        if self.quiet {
            return;
        }
        match self.stage.borrow().as_ref().and_then(|s| s.bar.as_ref()) {
            Some(bar) => bar.suspend(|| screen::status(text)),
            None => screen::status(text),
        }
    }

    /// Ends the stage.
    pub(super) fn clear(&self) {
        if let Some(stage) = self.stage.borrow_mut().take()
            && let Some(bar) = stage.bar
        {
            bar.finish_and_clear();
        }
    }
}

/// Time for the rest of `total` units, if those from `first` to `done` took `elapsed_s`.
fn seconds_left(elapsed_s: f64, (first, done, total): (u64, u64, u64)) -> Option<f64> {
    let n_done = done.checked_sub(first).filter(|&n| n > 0)?;
    Some(elapsed_s * total.saturating_sub(done) as f64 / n_done as f64)
}

#[cfg(test)]
mod tests {
    use super::seconds_left;

    #[test]
    fn what_an_earlier_process_did_tells_nothing_of_the_time_left() {
        assert_eq!(seconds_left(10.0, (0, 25, 100)), Some(30.0));
        // 10 s for five units, so 90 s for the remaining 45; not 10 / 55 * 45.
        assert_eq!(seconds_left(10.0, (50, 55, 100)), Some(90.0));
        assert_eq!(seconds_left(10.0, (50, 50, 100)), None);
        assert_eq!((seconds_left(1.0, (0, 0, 100)), seconds_left(1.0, (0, 101, 100))), (None, Some(0.0)));
    }
}
