//! From a run to a Python callback, and from Ctrl-C to the run.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use secateur::run::{Observer, Stage, StageKind};

use crate::errors::of_panic;

/// Time between two looks for signals, and between two calls of the callback for one stage.
const EVERY: Duration = Duration::from_millis(50);

/// Tells a Python object what happens (its methods `begin`, `progress`, `end`, `note`), and asks a run to stop after
/// Ctrl-C or what the object raises.
pub(crate) struct Watching {
    told: Option<Py<PyAny>>,
    raised: Option<PyErr>,
    last: Instant,
    /// Whether there is nothing to keep yet, so that a run that is to stop ends at once.
    is_preparing: bool,
}

/// What unwinds out of a run that has nothing to keep.
struct Interruption;

impl Watching {
    pub(crate) fn new(told: Option<Py<PyAny>>) -> Self {
        Self { told, raised: None, last: Instant::now(), is_preparing: true }
    }

    fn tell(&mut self, call: impl FnOnce(Python<'_>, &Py<PyAny>) -> PyResult<()>) {
        if self.raised.is_none() {
            let told = &self.told;
            let looked = Python::attach(|py| {
                py.check_signals()?;
                told.as_ref().map_or(Ok(()), |told| call(py, told))
            });
            self.raised = looked.err();
            self.last = Instant::now();
        }
        if self.raised.is_some() && self.is_preparing {
            resume_unwind(Box::new(Interruption));
        }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= EVERY
    }

    /// `work` without the interpreter's lock. What the callback raised, and Ctrl-C, come before all else; `failed`
    /// makes an exception of an error, of which an interrupted run has its results.
    pub(crate) fn run<T: Send, E: Send>(
        py: Python<'_>,
        told: Option<Py<PyAny>>,
        work: impl FnOnce(&mut dyn Observer) -> Result<T, E> + Send,
        failed: impl FnOnce(Python<'_>, &E) -> PyErr,
    ) -> PyResult<T> {
        let (done, raised) = py.detach(|| {
            let mut watching = Self::new(told);
            let done = catch_unwind(AssertUnwindSafe(|| work(&mut watching)));
            (done, watching.raised)
        });
        let ended = match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(failed(py, &error)),
            Err(_) if raised.is_some() => return Err(raised.unwrap_or_else(|| unreachable!())),
            Err(payload) => return Err(of_panic(py, &*payload)),
        };
        match (ended, raised) {
            (ended, None) => ended,
            // Ctrl-C on a run with results: these come with it.
            (Err(error), Some(raised)) if raised.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) => {
                let is_interrupted = error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py);
                Err(if is_interrupted { error } else { raised })
            }
            (_, Some(raised)) => Err(raised),
        }
    }
}

impl Observer for Watching {
    fn begin(&mut self, stage: &Stage) {
        self.is_preparing = stage.kind == StageKind::Prepare;
        let kind = match stage.kind {
            StageKind::Prepare => "prepare",
            StageKind::Search => "search",
            StageKind::Refit => "refit",
            StageKind::Train => "train",
            StageKind::Test => "test",
        };
        let (name, total, done) = (stage.name.clone(), stage.total, stage.done);
        self.tell(|py, told| told.call_method1(py, "begin", (kind, name, total, done)).map(drop));
    }

    fn progress(&mut self, done: u64) {
        if self.is_due() {
            self.tell(|py, told| told.call_method1(py, "progress", (done,)).map(drop));
        }
    }

    fn end(&mut self) {
        self.tell(|py, told| told.call_method0(py, "end").map(drop));
    }

    fn note(&mut self, text: &str) {
        let text = text.to_owned();
        self.tell(|py, told| told.call_method1(py, "note", (text,)).map(drop));
    }

    fn should_stop(&mut self) -> bool {
        if self.is_due() {
            self.tell(|_, _| Ok(()));
        }
        self.raised.is_some()
    }
}
