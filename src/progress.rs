//! How a run shows that it lives: a bar with the time left on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use secateur_run::{Observer, Stage, StageKind};

use crate::interrupt::Interrupt;
use crate::screen;

/// Lines between which at least this much time passes, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Shows one stage after the other, and asks the run to stop after Ctrl-C or SIGTERM.
pub(crate) struct RunProgress {
    quiet: bool,
    interrupt: Interrupt,
    shown: Option<Shown>,
}

/// The stage that is shown.
struct Shown {
    stage: Stage,
    start: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl RunProgress {
    pub(crate) fn new(quiet: bool, interrupt: Interrupt) -> Self {
        Self { quiet, interrupt, shown: None }
    }
}

impl Observer for RunProgress {
    fn begin(&mut self, stage: &Stage) {
        if stage.kind != StageKind::Prepare {
            self.interrupt.keep();
        }
        if self.quiet {
            return;
        }
        let bar = std::io::stderr().is_terminal().then(|| bar(stage));
        let now = Instant::now();
        self.shown = Some(Shown { stage: stage.clone(), start: now, last_line: now, bar });
    }

    fn progress(&mut self, done: u64) {
        let Some(Shown { stage, start, last_line, bar }) = &mut self.shown else { return };
        if let Some(bar) = bar {
            bar.set_position(done);
        } else if last_line.elapsed() >= LINE_EVERY
            && let Some(left) = seconds_left(stage, done, start.elapsed().as_secs_f64())
        {
            screen::status(format!("{}: {done} of {}, about {left:.0} s left", stage.name, stage.total));
            *last_line = Instant::now();
        }
    }

    fn end(&mut self) {
        if let Some(Shown { bar: Some(bar), .. }) = self.shown.take() {
            bar.finish_and_clear();
        }
    }

    fn note(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        match self.shown.as_ref().and_then(|shown| shown.bar.as_ref()) {
            Some(bar) => bar.suspend(|| screen::status(text)),
            None => screen::status(text),
        }
    }

    fn should_stop(&mut self) -> bool {
        self.interrupt.is_set()
    }
}

fn bar(stage: &Stage) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:32} {bar:30} {pos}/{len}  {elapsed} gone, {eta} left");
    let bar = ProgressBar::new(stage.total).with_message(stage.name.clone()).with_position(stage.done);
    // So that what an earlier process did tells nothing of the time that the rest takes.
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(250));
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Time for the rest of a stage, if its units up to `done` took `elapsed_s` in this process.
fn seconds_left(stage: &Stage, done: u64, elapsed_s: f64) -> Option<f64> {
    let n_done = done.checked_sub(stage.done).filter(|&n| n > 0)?;
    Some(elapsed_s * stage.total.saturating_sub(done) as f64 / n_done as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_process_did_tells_nothing_of_the_time_left() {
        let stage = |done| Stage { kind: StageKind::Search, name: "walks".into(), total: 100, done };
        let left = |before, done, elapsed_s| seconds_left(&stage(before), done, elapsed_s);
        assert_eq!(left(0, 25, 10.0), Some(30.0));
        // 10 s for five units, so 90 s for the remaining 45; not 10 / 55 * 45.
        assert_eq!(left(50, 55, 10.0), Some(90.0));
        assert_eq!(left(50, 50, 10.0), None);
        assert_eq!((left(0, 0, 1.0), left(0, 101, 1.0)), (None, Some(0.0)));
    }
}
