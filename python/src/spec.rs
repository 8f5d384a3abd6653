//! What is run, and running it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use pyo3::prelude::*;
use secateur::rl::ErrorWeights;
use secateur::run::RunSpec;
use secateur::sim::PluginList;
use serde::{Deserialize, Serialize};

use crate::errors::{Ran, of_argument, of_run, ran};
use crate::watching::Watching;

/// A scene and the means to run it: what the command line's arguments say. Can be pickled: it has the text of the
/// scene, and networks and data by their paths.
#[pyclass(name = "Spec", module = "secateur._secateur", frozen, from_py_object)]
#[derive(Clone, Serialize, Deserialize)]
pub struct PySpec {
    scene: PathBuf,
    text: Option<String>,
    sets: Vec<String>,
    out: Option<PathBuf>,
    resume: bool,
    checkpoint_every_s: f64,
    data_root: Option<PathBuf>,
    model_root: Option<PathBuf>,
    threads: Option<usize>,
    memory: Option<u64>,
}

#[pymethods]
impl PySpec {
    #[new]
    #[pyo3(signature = (scene, *, text=None, sets=Vec::new(), out=None, resume=false, checkpoint_every_s=30.0, data_root=None,
                        model_root=None, threads=None, memory=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        scene: PathBuf,
        text: Option<String>,
        sets: Vec<String>,
        out: Option<PathBuf>,
        resume: bool,
        checkpoint_every_s: f64,
        data_root: Option<PathBuf>,
        model_root: Option<PathBuf>,
        threads: Option<usize>,
        memory: Option<u64>,
    ) -> Self {
        Self { scene, text, sets, out, resume, checkpoint_every_s, data_root, model_root, threads, memory }
    }

    /// The same with the scene's text and absolute paths in it, for another process.
    fn whole(&self, py: Python<'_>) -> PyResult<Self> {
        self.try_whole().map_err(|error| of_argument(py, &error))
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, json: &str) -> PyResult<Self> {
        let spec = serde_json::from_str(json).context("this is no pickled scene of this version of secateur");
        spec.map_err(|error| of_argument(py, &error))
    }

    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        serde_json::to_string(self).map_err(|error| of_argument(py, &error.into()))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        let whole = self.whole(py)?;
        Ok((py.get_type::<Self>().getattr("from_json")?, (whole.to_json(py)?,)))
    }

    fn __repr__(&self) -> String {
        format!("Spec({:?})", self.scene.display())
    }
}

impl PySpec {
    fn try_whole(&self) -> anyhow::Result<Self> {
        let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
        let text = match &self.text {
            Some(text) => text.clone(),
            None => {
                std::fs::read_to_string(&self.scene).with_context(|| format!("scene '{}'", self.scene.display()))?
            }
        };
        Ok(Self {
            scene: std::path::absolute(&self.scene)?,
            text: Some(text),
            data_root: absolute(&self.data_root)?,
            model_root: absolute(&self.model_root)?,
            ..self.clone()
        })
    }

    pub(crate) fn spec(&self, py: Python<'_>) -> PyResult<RunSpec> {
        self.try_spec().map_err(|error| of_argument(py, &error))
    }

    fn try_spec(&self) -> anyhow::Result<RunSpec> {
        let threads = self.threads.map(|n| NonZeroUsize::new(n).context("threads: expected at least 1, got 0"));
        let every = Duration::try_from_secs_f64(self.checkpoint_every_s);
        ensure!(every.is_ok(), "checkpoint_every_s: expected seconds, got {}", self.checkpoint_every_s);
        Ok(RunSpec {
            text: self.text.clone(),
            sets: self.sets.clone(),
            out: self.out.clone(),
            resume: self.resume,
            checkpoint_every: every?,
            data_root: self.data_root.clone(),
            model_root: self.model_root.clone(),
            threads: threads.transpose()?,
            memory: self.memory,
            ..RunSpec::new(self.scene.clone())
        })
    }
}

/// Runs a scene; returns its directory and its summary as JSON.
#[pyfunction]
#[pyo3(signature = (spec, watching=None))]
pub fn run(py: Python<'_>, spec: &PySpec, watching: Option<Py<PyAny>>) -> PyResult<Ran> {
    let spec = spec.spec(py)?;
    let work = |observer: &mut dyn secateur::run::Observer| secateur::run(&spec, &PluginList::default(), observer);
    let result = Watching::run(py, watching, work, of_run)?;
    ran(py, &result)
}

/// Plans a scene; returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (spec, weights, watching=None))]
pub fn plan(py: Python<'_>, spec: &PySpec, weights: &str, watching: Option<Py<PyAny>>) -> PyResult<String> {
    let known = ErrorWeights::ALL.into_iter().find(|known| known.name() == weights);
    let weights = known.with_context(|| {
        let names = ErrorWeights::ALL.map(|known| format!("'{}'", known.name()));
        format!("weights: expected one of {}, got '{weights}'", names.join(", "))
    });
    let weights = weights.map_err(|error| of_argument(py, &error))?;
    let spec = spec.spec(py)?;
    let work = |observer: &mut dyn secateur::run::Observer| {
        secateur::run::plan(&spec, weights, &PluginList::default(), observer)
    };
    let report = Watching::run(py, watching, work, of_run)?;
    serde_json::to_string(&report).map_err(|error| of_argument(py, &error.into()))
}

/// A scene with every field at its default.
#[pyfunction]
pub fn template() -> &'static str {
    secateur::scene::template()
}
