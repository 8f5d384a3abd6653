//! A network by itself: what it is, what it computes, and fewer of its channels.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use secateur::kernels::{Arithmetic, OutputAim, Plan};
use secateur::net::{Cost, Network, Protocol};
use secateur::run::{
    CHUNK_IMAGES, NetworkChoices, Observer, Roots, Stage, StageKind, WidthPruned, full_costs, load_network_as,
    thread_pool,
};
use serde_json::json;

use crate::arrays::ImageArray;
use crate::errors::{detached, of_argument, of_work};
use crate::watching::Watching;

/// A network, with all of its channels or some.
#[pyclass(name = "Network", module = "secateur._secateur", frozen, subclass)]
pub struct PyNetwork {
    pruned: WidthPruned,
    protocol: Protocol,
    /// The network compiled for the processor, once it was run.
    plan: Mutex<Option<Arc<Plan>>>,
    pool: Arc<rayon::ThreadPool>,
}

#[pymethods]
impl PyNetwork {
    /// Reads a network: safetensors, .pth, .th or ONNX, by path or by its name under the model root.
    #[staticmethod]
    #[pyo3(signature = (path, *, arch=None, mean=None, std=None, size=None, protocol="full", model_root=None, threads=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn load(
        py: Python<'_>,
        path: PathBuf,
        arch: Option<String>,
        mean: Option<Vec<f32>>,
        std: Option<Vec<f32>>,
        size: Option<[usize; 2]>,
        protocol: &str,
        model_root: Option<PathBuf>,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let load = || -> anyhow::Result<Self> {
            let protocol = protocol_named(protocol)?;
            ensure!(mean.is_some() == std.is_some(), "mean and std: expected both or neither");
            let mean_std = mean.zip(std);
            let path = Roots::new(None, model_root, PathBuf::new()).find_network(&path)?;
            let choices = NetworkChoices { arch: arch.as_deref(), mean_std: mean_std.as_ref(), size };
            let source = Arc::new(load_network_as(&path, &choices)?);
            let threads =
                threads.map(|n| std::num::NonZeroUsize::new(n).context("threads: expected at least 1, got 0"));
            let pool = Arc::new(thread_pool(threads.transpose()?)?);
            Ok(Self { pruned: WidthPruned::whole(source, protocol)?, protocol, plan: Mutex::default(), pool })
        };
        detached(py, load, of_argument)
    }

    /// What there is to know of the network, as JSON.
    fn _inspect(&self) -> String {
        let WidthPruned { source, groups, kept, network, .. } = &self.pruned;
        let input = network.graph().input();
        let widths = kept.widths();
        let group = |(id, width): (usize, &usize)| {
            let group = groups.group(id);
            json!({ "name": group.name, "channels": group.n_channels, "kept": width, "frozen": group.frozen.as_ref().map(ToString::to_string) })
        };
        // As it was given, BatchNorm and all; as it is written once it lost channels.
        let counted = if self.is_pruned() { network } else { &source.original };
        let [macs, params, activation_bytes] = full_costs(counted, [Cost::Macs, Cost::Params, Cost::ActivationBytes]);
        json!({
            "name": source.name,
            "file": source.path.display().to_string(),
            "assumptions": source.assumptions,
            "input": [input.c, input.h, input.w],
            "classes": network.graph().n_classes(),
            "mean": source.preprocessing.mean,
            "std": source.preprocessing.std,
            "protocol": self.protocol.name(),
            "groups": widths.iter().enumerate().map(group).collect::<Vec<_>>(),
            "macs": macs,
            "params": params,
            "activation_bytes": activation_bytes,
        })
        .to_string()
    }

    /// The network with so many channels of each group that is named, those of largest L2 norm.
    fn prune(&self, py: Python<'_>, widths: BTreeMap<String, usize>) -> PyResult<Self> {
        let prune = || -> anyhow::Result<Self> {
            let full = self.pruned.groups.full_widths();
            ensure!(
                self.pruned.kept.widths() == full,
                "the network was pruned before; prune the one that it came from"
            );
            let pruned = WidthPruned::new(self.pruned.source.clone(), self.protocol, &widths)?;
            Ok(Self { pruned, protocol: self.protocol, plan: Mutex::default(), pool: self.pool.clone() })
        };
        detached(py, prune, of_argument)
    }

    /// The same widths, refitted on images `[N, C, H, W]`; `values`: outputs are any numbers, not the logits of classes.
    #[pyo3(signature = (images, values, watching=None))]
    fn _refitted(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        values: bool,
        watching: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let images = self.images(images).map_err(|error| of_argument(py, &error))?;
        let (input, n) = (self.network().graph().input(), images.len());
        let images = images.nhwc(py, 0..n, input, &self.pruned.source.preprocessing);
        let refit = |observer: &mut dyn Observer| {
            let name = format!("{} on {n} images", self.pruned.source.name);
            observer.begin(&Stage { kind: StageKind::Refit, name, total: 1, done: 0 });
            let outputs = if values { OutputAim::Values } else { OutputAim::Softmax };
            let pruned = self.pruned.refitted(&images, outputs, &self.pool)?;
            observer.end();
            Ok(Self { pruned, protocol: self.protocol, plan: Mutex::default(), pool: self.pool.clone() })
        };
        Watching::run(py, watching, refit, of_work)
    }

    /// Writes model.safetensors, model.onnx, plan.json and cut.py into a folder.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        detached(py, || self.pruned.write(&folder, &self.pool), of_work)
    }

    /// Outputs of images `[N, C, H, W]`, written into a float32 array `[N, outputs]`.
    fn _logits(&self, py: Python<'_>, images: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let images = self.images(images).map_err(|error| of_argument(py, &error))?;
        let n_outputs = self.network().graph().n_classes();
        let written = PyBuffer::<f32>::get(out)?;
        if written.shape() != [images.len(), n_outputs] || !written.is_c_contiguous() || written.readonly() {
            let error =
                anyhow::anyhow!("out: expected a contiguous float32 array of shape [{}, {n_outputs}]", images.len());
            return Err(of_argument(py, &error));
        }
        self.each_chunk(py, &images, |range, plan, chunk| {
            let logits = py.detach(|| plan.logits(&self.pool, &chunk))?;
            let places = written.as_mut_slice(py).unwrap_or_default();
            let places = &places[range.start * n_outputs..range.end * n_outputs];
            places.iter().zip(&logits).for_each(|(place, value)| place.set(*value));
            Ok(())
        })
    }

    /// How many images are predicted as their label.
    fn _n_correct(&self, py: Python<'_>, images: &Bound<'_, PyAny>, labels: Vec<u16>) -> PyResult<usize> {
        let images = self.images(images).map_err(|error| of_argument(py, &error))?;
        if labels.len() != images.len() {
            let error =
                anyhow::anyhow!("labels: expected one for each of {} images, got {}", images.len(), labels.len());
            return Err(of_argument(py, &error));
        }
        let mut n_correct = 0;
        self.each_chunk(py, &images, |range, plan, chunk| {
            n_correct += py.detach(|| plan.n_correct(&self.pool, &chunk, &labels[range]))?;
            Ok(())
        })?;
        Ok(n_correct)
    }

    /// Whether it lost channels.
    #[getter]
    fn is_pruned(&self) -> bool {
        self.pruned.kept.widths() != self.pruned.groups.full_widths()
    }

    fn __repr__(&self) -> String {
        let (input, n) = (self.network().graph().input(), self.network().graph().n_classes());
        let pruned = if self.is_pruned() { ", pruned" } else { "" };
        format!("Network('{}', {}x{}x{} -> {n}{pruned})", self.pruned.source.name, input.c, input.h, input.w)
    }
}

impl PyNetwork {
    fn network(&self) -> &Network {
        &self.pruned.network
    }

    fn images(&self, images: &Bound<'_, PyAny>) -> anyhow::Result<ImageArray> {
        ImageArray::new(images, self.network().graph().input())
    }

    fn plan(&self, py: Python<'_>) -> PyResult<Arc<Plan>> {
        let compile = || {
            let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(plan) = &*plan {
                return Ok(plan.clone());
            }
            let compiled = Arc::new(Plan::compile(self.network(), Arithmetic::default())?);
            Ok(plan.insert(compiled).clone())
        };
        detached(py, compile, of_work)
    }

    fn each_chunk(
        &self,
        py: Python<'_>,
        images: &ImageArray,
        mut work: impl FnMut(std::ops::Range<usize>, &Plan, Vec<f32>) -> anyhow::Result<()>,
    ) -> PyResult<()> {
        let (plan, input) = (self.plan(py)?, self.network().graph().input());
        let n = images.len();
        for from in (0..n).step_by(CHUNK_IMAGES) {
            py.check_signals()?;
            let range = from..n.min(from + CHUNK_IMAGES);
            let chunk = images.nhwc(py, range.clone(), input, &self.pruned.source.preprocessing);
            let at = || format!("images {from} to {}", range.end - 1);
            work(range.clone(), &plan, chunk).with_context(at).map_err(|error| of_work(py, &error))?;
        }
        Ok(())
    }
}

fn protocol_named(name: &str) -> anyhow::Result<Protocol> {
    match name {
        "full" => Ok(Protocol::Full),
        "inner" => Ok(Protocol::Inner),
        _ => anyhow::bail!("protocol: expected 'full' or 'inner', got '{name}'"),
    }
}
