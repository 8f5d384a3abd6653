//! What a run leaves behind: its directory, its checkpoints, its log, and what its observer sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secateur_sim::{TaskSetup, Winner};
use secateur_train::SearchEvent;

use crate::directory::checkpoint::{Checkpoints, Identity, RunState};
use crate::directory::run_directory::RunDirectory;
use crate::error::RunError;
use crate::events::{METRICS_SCHEMA, RunEvent};
use crate::reporter::Reporter;
use crate::saved_search::SearchTimes;
use crate::summary::BoundSummary;

/// The open run directory and the observer. Whatever is written to `metrics.jsonl`, the observer gets as an event.
pub(crate) struct Journal<'o> {
    pub(crate) reporter: Reporter<'o>,
    /// In front of the directory, whose lock must not go while a checkpoint is written there.
    checkpoints: Checkpoints,
    pub(crate) directory: RunDirectory,
    start: Instant,
    /// Time that the run took in earlier processes.
    wall_before_s: f64,
}

impl<'o> Journal<'o> {
    /// Begins, or goes on, in an open run directory.
    pub(crate) fn new(
        mut reporter: Reporter<'o>,
        directory: RunDirectory,
        identity: Arc<Identity>,
        checkpoint_every: Duration,
    ) -> anyhow::Result<Self> {
        reporter.log_to(directory.log_file()?)?;
        let checkpoints = Checkpoints::new(directory.path(), identity, checkpoint_every)?;
        Ok(Self { reporter, checkpoints, directory, start: Instant::now(), wall_before_s: 0.0 })
    }

    /// The run began at `start` in this process, and took `wall_before_s` seconds in earlier ones.
    pub(crate) fn count_from(&mut self, start: Instant, wall_before_s: f64) {
        (self.start, self.wall_before_s) = (start, wall_before_s);
    }

    /// Time that the run took, earlier processes included.
    pub(crate) fn wall_s(&self) -> f64 {
        self.wall_before_s + self.start.elapsed().as_secs_f64()
    }

    /// The first line of a run that begins.
    pub(crate) fn begin(&mut self, seed: u64) -> Result<(), RunError> {
        let start = RunEvent::Start { schema: METRICS_SCHEMA, seed };
        self.directory.append(&start)?;
        self.reporter.event(&start);
        Ok(self.directory.flush()?)
    }

    /// The events of a tick of a search by `agent`, which took `times` until then.
    pub(crate) fn record(
        &mut self,
        agent: &str,
        tasks: &[TaskSetup],
        events: &[SearchEvent],
        times: SearchTimes,
    ) -> Result<(), RunError> {
        self.directory.look()?;
        for event in events {
            let event = RunEvent::of_search(agent, tasks, event, times);
            self.directory.append(&event)?;
            self.reporter.event(&event);
        }
        Ok(self.directory.flush()?)
    }

    /// One event.
    pub(crate) fn record_event(&mut self, event: &RunEvent<'_>) -> Result<(), RunError> {
        self.directory.append(event)?;
        self.reporter.event(event);
        Ok(self.directory.flush()?)
    }

    /// The result of a task.
    pub(crate) fn record_result(
        &mut self,
        task: &TaskSetup,
        winner: &Winner,
        bounds: Vec<BoundSummary>,
    ) -> Result<(), RunError> {
        self.record_event(&RunEvent::result(task, winner, bounds))
    }

    /// Whether enough time has passed since the last checkpoint.
    pub(crate) fn checkpoint_is_due(&self) -> bool {
        self.checkpoints.is_due()
    }

    /// Begins to write a checkpoint whose making began at `start`; the journal fills in its own part. One that cannot
    /// be written is reported to the user, and is no reason to stop.
    pub(crate) fn write_checkpoint(&mut self, state: RunState, start: Instant) {
        let state = RunState { metrics_bytes: self.directory.metrics_bytes(), wall_s: self.wall_s(), ..state };
        let written = self.directory.metrics_file().and_then(|metrics| self.checkpoints.write(state, metrics));
        match written {
            Ok(()) => self.reporter.log(&format!("checkpoint after {:.1} ms", start.elapsed().as_secs_f64() * 1e3)),
            Err(error) => self.reporter.note(&format!("warning: {error:#}; the run goes on")),
        }
    }

    /// Waits until the last checkpoint is on disk.
    pub(crate) fn wait_for_checkpoint(&mut self) {
        if let Err(error) = self.checkpoints.wait() {
            self.reporter.note(&format!("warning: {error:#}; the run goes on without it"));
        }
    }
}
