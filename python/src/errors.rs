//! Rust's errors as Python's, with the same text. Their classes are in `secateur/errors.py`.

use std::path::Path;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use secateur::run::{Incomplete, RunError, RunResult};
use secateur::sim::panic_message;

/// An exception of `secateur.errors` by name.
pub(crate) fn raise(py: Python<'_>, class: &str, text: &str) -> PyErr {
    let made = || PyModule::import(py, "secateur.errors")?.getattr(class)?.call1((text,));
    match made() {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// What came of a run, for `secateur.RunResult`.
pub(crate) type Ran = (String, String);

/// The directory and the summary of a run.
pub(crate) fn ran(py: Python<'_>, result: &RunResult) -> PyResult<Ran> {
    let summary = serde_json::to_string(&result.summary).map_err(|error| raise(py, "RunFailed", &error.to_string()))?;
    Ok((path_text(py, &result.directory)?, summary))
}

fn path_text(py: Python<'_>, path: &Path) -> PyResult<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        raise(py, "ArgumentError", &format!("'{}' is no Unicode, which Python needs here", path.display()))
    })
}

/// The exception of an error; what there is of an incomplete run is its attribute `result`.
pub(crate) fn of_run(py: Python<'_>, error: &RunError) -> PyErr {
    let text = error.to_string();
    match error {
        RunError::Failed(_) => raise(py, "RunFailed", &text),
        RunError::BadArguments(_) => raise(py, "ArgumentError", &text),
        RunError::BadScene(_) => raise(py, "SceneError", &text),
        RunError::Incomplete { reason, result } => {
            let class = if matches!(reason, Incomplete::Interrupted) { "Interrupted" } else { "IncompleteRun" };
            let raised = raise(py, class, &text);
            match ran(py, result).and_then(|ran| raised.value(py).setattr("_ran", ran)) {
                Ok(()) => raised,
                Err(other) => other,
            }
        }
    }
}

/// The exception of an argument that cannot be used.
pub(crate) fn of_argument(py: Python<'_>, error: &anyhow::Error) -> PyErr {
    raise(py, "ArgumentError", &format!("{error:#}"))
}

/// The exception of work that failed.
pub(crate) fn of_work(py: Python<'_>, error: &anyhow::Error) -> PyErr {
    raise(py, "RunFailed", &format!("{error:#}"))
}

/// The exception of a panic: a fault of ours, which is no reason for a program to end that has work of its own.
pub(crate) fn of_panic(py: Python<'_>, payload: &(dyn std::any::Any + Send)) -> PyErr {
    let text = format!("secateur has a fault, please report it: {}", panic_message(payload));
    raise(py, "RunFailed", &text)
}

/// `work` without the interpreter's lock; a panic becomes an exception, and `failed` makes one of an error.
pub(crate) fn detached<T: Send, E: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
    failed: impl FnOnce(Python<'_>, &E) -> PyErr,
) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(done) => done.map_err(|error| failed(py, &error)),
        Err(payload) => Err(of_panic(py, &*payload)),
    }
}
