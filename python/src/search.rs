//! A search whose candidates Python scores, wherever it likes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use secateur::run::{AskTell, AskedCandidate, CandidateEvaluator, Observer, RunError, SearchProgress};
use secateur::sim::Score;

use crate::errors::{Ran, detached, of_argument, of_run, ran};
use crate::spec::PySpec;
use crate::watching::Watching;

/// Time between two looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A candidate that a search asks a score of. Can be pickled.
#[pyclass(name = "Candidate", module = "secateur", frozen, eq, from_py_object)]
#[derive(Clone, PartialEq)]
pub struct PyCandidate(AskedCandidate);

#[pymethods]
impl PyCandidate {
    #[staticmethod]
    fn from_json(py: Python<'_>, json: &str) -> PyResult<Self> {
        let candidate = serde_json::from_str(json).context("this is no candidate of this version of secateur");
        candidate.map(Self).map_err(|error| of_argument(py, &error))
    }
    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        serde_json::to_string(&self.0).map_err(|error| of_argument(py, &error.into()))
    }
    /// blake3 of what decides about scores.
    #[getter]
    fn search(&self) -> &str {
        &self.0.search
    }
    /// Name of the task.
    #[getter]
    fn task(&self) -> &str {
        &self.0.task_name
    }
    /// Number of the walk within its task.
    #[getter]
    fn walk(&self) -> u64 {
        self.0.walk
    }
    /// Kept channels of every group.
    #[getter]
    fn kept(&self) -> Vec<Vec<usize>> {
        self.0.kept.clone()
    }
    /// Number of kept channels of every group.
    #[getter]
    fn widths(&self) -> Vec<usize> {
        self.0.widths()
    }
    /// Multiply-accumulates per image.
    #[getter]
    fn macs(&self) -> u64 {
        self.0.macs
    }
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((py.get_type::<Self>().getattr("from_json")?, (self.to_json(py)?,)))
    }
    fn __hash__(&self) -> u64 {
        (self.0.task as u64) << 48 ^ self.0.walk
    }
    fn __repr__(&self) -> String {
        format!("Candidate(task='{}', walk={}, macs={})", self.0.task_name, self.0.walk, self.0.macs)
    }
}

/// Accuracy, divergence and output error.
type Measured = (Option<f64>, Option<f64>, Option<f64>);

/// What was measured of a candidate on the reward images. Can be pickled.
#[pyclass(name = "Score", module = "secateur", frozen, eq, from_py_object)]
#[derive(Clone, PartialEq)]
pub struct PyScore(Score);

#[pymethods]
impl PyScore {
    #[new]
    #[pyo3(signature = (accuracy=None, divergence=None, output_error=None))]
    fn new(accuracy: Option<f64>, divergence: Option<f64>, output_error: Option<f64>) -> Self {
        Self(Score { accuracy, divergence, output_error })
    }
    /// Top-1, [0, 1].
    #[getter]
    fn accuracy(&self) -> Option<f64> {
        self.0.accuracy
    }
    /// Kullback-Leibler divergence from the dense network, nats.
    #[getter]
    fn divergence(&self) -> Option<f64> {
        self.0.divergence
    }
    /// Share of the dense outputs' variance.
    #[getter]
    fn output_error(&self) -> Option<f64> {
        self.0.output_error
    }
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>, Measured) {
        let Score { accuracy, divergence, output_error } = self.0;
        (py.get_type::<Self>().into_any(), (accuracy, divergence, output_error))
    }
    fn __repr__(&self) -> String {
        let Score { accuracy, divergence, output_error } = self.0;
        let shown = |x: Option<f64>| x.map_or_else(|| "None".to_owned(), |x| x.to_string());
        let [accuracy, divergence, output_error] = [accuracy, divergence, output_error].map(shown);
        format!("Score(accuracy={accuracy}, divergence={divergence}, output_error={output_error})")
    }
}

/// Scores candidates of a scene. Pickled, it is the scene's text and paths; the process that it comes to prepares
/// networks and images when it scores its first candidate. One of a search's inputs has neither.
#[pyclass(name = "Evaluator", module = "secateur._secateur", frozen)]
pub struct PyEvaluator {
    spec: Option<PySpec>,
    ready: Mutex<Option<CandidateEvaluator>>,
    difference: Option<String>,
}

#[pymethods]
impl PyEvaluator {
    #[new]
    fn new(spec: PySpec) -> Self {
        Self { spec: Some(spec), ready: Mutex::default(), difference: None }
    }

    /// An evaluator of what `Search.worker_inputs` gave: a contiguous buffer of bytes.
    #[staticmethod]
    #[pyo3(signature = (inputs, threads=None, may_differ=false))]
    fn of_worker_inputs(
        py: Python<'_>,
        inputs: &Bound<'_, PyAny>,
        threads: Option<usize>,
        may_differ: bool,
    ) -> PyResult<Self> {
        let expected = || anyhow!("inputs: expected the contiguous bytes that Search.worker_inputs gave");
        let buffer = PyBuffer::<u8>::get(inputs).map_err(|_| of_argument(py, &expected()))?;
        let bytes = buffer.to_vec(py).map_err(|_| of_argument(py, &expected()))?;
        let threads = threads.map(|n| NonZeroUsize::new(n).context("threads: expected at least 1, got 0"));
        let threads = threads.transpose().map_err(|error| of_argument(py, &error))?;
        let make = || {
            let mut difference = None;
            let note = |how: &str| {
                difference = Some(how.to_owned());
                may_differ
            };
            let ready = CandidateEvaluator::of_worker_inputs(&bytes, threads, note)?;
            Ok((ready, difference))
        };
        let (ready, difference) = detached(py, make, |py, error: &RunError| of_run(py, error))?;
        Ok(Self { spec: None, ready: Mutex::new(Some(ready)), difference })
    }

    /// How this machine's scores may differ from those of the search's; None where they do not.
    #[getter]
    fn difference(&self) -> Option<&str> {
        self.difference.as_deref()
    }

    /// Prepares networks and images, if that was not done.
    #[pyo3(signature = (watching=None))]
    fn prepare(&self, py: Python<'_>, watching: Option<Py<PyAny>>) -> PyResult<()> {
        self.ready(py, watching).map(drop)
    }

    /// The score of a candidate.
    fn score(&self, py: Python<'_>, candidate: &PyCandidate) -> PyResult<PyScore> {
        let ready = self.ready(py, None)?;
        detached(py, || ready.score(&candidate.0).map(PyScore), of_run)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (PySpec,))> {
        let no_spec = || anyhow!("an evaluator of a search's inputs is not pickled; send the inputs");
        let spec = self.spec.clone().ok_or_else(|| of_argument(py, &no_spec()))?;
        Ok((py.get_type::<Self>().into_any(), (spec,)))
    }
}

impl PyEvaluator {
    fn ready(&self, py: Python<'_>, watching: Option<Py<PyAny>>) -> PyResult<CandidateEvaluator> {
        let known = || self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(ready) = py.detach(known) {
            return Ok(ready);
        }
        let no_spec = || anyhow!("an evaluator that is neither of a scene nor of a search's inputs");
        let spec = self.spec.as_ref().ok_or_else(|| of_argument(py, &no_spec()))?.spec(py)?;
        let prepare = |observer: &mut dyn Observer| CandidateEvaluator::new(&spec, observer);
        let made = Watching::run(py, watching, prepare, of_run)?;
        Ok(py.detach(|| self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(made).clone()))
    }
}

/// The best candidate of a task: task, candidate, score, reward.
type Best = (String, PyCandidate, PyScore, f32);

/// The search of a scene's agent, whose candidates others score.
#[pyclass(name = "Search", module = "secateur._secateur", frozen)]
pub struct PySearch {
    spec: PySpec,
    search: AskTell,
}

#[pymethods]
impl PySearch {
    #[new]
    #[pyo3(signature = (spec, file=None, watching=None))]
    fn new(py: Python<'_>, spec: PySpec, file: Option<PathBuf>, watching: Option<Py<PyAny>>) -> PyResult<Self> {
        let of = spec.spec(py)?;
        let start = |observer: &mut dyn Observer| match &file {
            Some(file) => AskTell::load(&of, file, observer),
            None => AskTell::new(&of, observer),
        };
        let search = Watching::run(py, watching, start, of_run)?;
        Ok(Self { spec, search })
    }

    fn ask(&self, py: Python<'_>, n: usize) -> PyResult<Vec<PyCandidate>> {
        loop {
            let asked = detached(py, || self.search.ask_within(n, LOOK_EVERY), of_run)?;
            if let Some(asked) = asked {
                return Ok(asked.into_iter().map(PyCandidate).collect());
            }
            py.check_signals()?;
        }
    }

    fn tell(&self, py: Python<'_>, candidate: &PyCandidate, score: &PyScore) -> PyResult<()> {
        detached(py, || self.search.tell(&candidate.0, score.0), of_run)
    }

    fn ask_again(&self, py: Python<'_>) -> usize {
        py.detach(|| self.search.ask_again())
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.search.is_done()
    }

    #[getter]
    fn n_told(&self) -> usize {
        self.search.n_told()
    }

    fn best(&self, py: Python<'_>) -> Vec<Best> {
        let best = py.detach(|| self.search.best());
        let of = |best: secateur::run::BestCandidate| {
            (best.candidate.task_name.clone(), PyCandidate(best.candidate), PyScore(best.score), best.reward)
        };
        best.into_iter().map(of).collect()
    }

    fn save(&self, py: Python<'_>, file: PathBuf) -> PyResult<()> {
        detached(py, || self.search.save(&file), of_run)
    }

    fn evaluator(&self, py: Python<'_>) -> PyEvaluator {
        let ready = py.detach(|| self.search.evaluator());
        PyEvaluator { spec: Some(self.spec.clone()), ready: Mutex::new(Some(ready)), difference: None }
    }

    /// What a worker needs, as bytes.
    fn worker_inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = detached(py, || self.search.worker_inputs(), of_run)?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Walks or candidates that are counted, and of how many.
    #[getter]
    fn progress(&self) -> (u64, u64) {
        let SearchProgress { done, total } = self.search.progress();
        (done, total)
    }

    #[pyo3(signature = (watching=None))]
    fn finish(&self, py: Python<'_>, watching: Option<Py<PyAny>>) -> PyResult<Ran> {
        let result = Watching::run(py, watching, |observer| self.search.finish(observer), of_run)?;
        ran(py, &result)
    }
}
