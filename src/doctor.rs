//! `doctor`: what this machine offers, and what is found under the roots.

use std::path::Path;

use secateur_formats::{DATASETS, DatasetEntry, Split, weight_extensions, weight_extensions_usage};
use secateur_gpu::AdapterReport;
use secateur_kernels::{Isa, Precision};
use secateur_run::{Roots, load_network};
use serde::Serialize;

use crate::arguments::DoctorArgs;
use crate::{Failure, screen};

pub(crate) fn doctor(arguments: &DoctorArgs) -> Result<(), Failure> {
    let roots = Roots::new(arguments.roots.data_root.clone(), arguments.roots.model_root.clone(), Default::default());
    let report = MachineReport::new(&roots);
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?,
        false => report.to_text(),
    };
    Ok(screen::result(text)?)
}

#[derive(Serialize)]
struct MachineReport {
    version: &'static str,
    instruction_sets: Vec<String>,
    /// Whether `precision: Bf16` runs here.
    bf16: bool,
    threads: usize,
    gpu: Vec<Adapter>,
    data_root: String,
    datasets: Vec<Finding>,
    model_root: String,
    networks: Vec<Finding>,
    /// What to do about what is missing.
    advice: Vec<String>,
}

/// A GPU adapter; sizes in bytes.
#[derive(Serialize)]
struct Adapter {
    name: String,
    backend: String,
    kind: String,
    driver: String,
    subgroup_min: u32,
    subgroup_max: u32,
    binding_max: u64,
    buffer_max: u64,
    workgroup_memory: u32,
    workgroup_invocations: u32,
    features: Vec<&'static str>,
    /// Whether `--device gpu` takes it.
    chosen: bool,
}

/// Something found under a root, or why it cannot be used.
#[derive(Serialize)]
struct Finding {
    name: String,
    usable: bool,
    detail: String,
}

impl MachineReport {
    fn new(roots: &Roots) -> Self {
        let mut advice = Vec::new();
        let datasets = datasets(&roots.data);
        for (entry, found) in DATASETS.iter().zip(&datasets) {
            if let (Some(files), false) = (entry.files, found.usable) {
                advice.push(format!(
                    "{}: {} under '{}', or set --data-root or SECATEUR_DATA to the folder that has it",
                    entry.word,
                    files.how_to_get,
                    roots.data.display()
                ));
            }
        }
        let networks = networks(&roots.models);
        if !networks.iter().any(|found| found.usable) {
            advice.push(format!(
                "networks: put {} files under '{}', or set --model-root or SECATEUR_MODELS to the folder that has them",
                weight_extensions_usage(),
                roots.models.display()
            ));
        }
        let gpu: Vec<Adapter> = secateur_gpu::adapters().into_iter().map(Adapter::from).collect();
        if gpu.is_empty() {
            advice.push(
                "GPU (only for --device gpu): install the card's Vulkan driver and loader (Debian: libvulkan1); a container \
                 needs the driver's graphics part too (NVIDIA_DRIVER_CAPABILITIES=all)"
                    .to_owned(),
            );
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            instruction_sets: Isa::available().iter().map(|isa| format!("{isa:?}")).collect(),
            bf16: Precision::Bf16.is_available(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            gpu,
            data_root: roots.data.display().to_string(),
            datasets,
            model_root: roots.models.display().to_string(),
            networks,
            advice,
        }
    }

    fn to_text(&self) -> String {
        let best = self.instruction_sets.first().map_or("", String::as_str);
        let bf16 = if self.bf16 { "can score in bf16" } else { "cannot score in bf16 (no AVX512-BF16)" };
        let mut lines = vec![
            format!("secateur     {}", self.version),
            format!(
                "CPU          {} threads, uses {best} (available: {}), {bf16}",
                self.threads,
                self.instruction_sets.join(", ")
            ),
        ];
        let gpu = if self.gpu.is_empty() { "none through Vulkan, Metal or DX12" } else { "WGPU_ADAPTER_NAME chooses" };
        lines.push(format!("GPU          {gpu}"));
        lines.extend(self.gpu.iter().map(Adapter::line));
        lines.push(format!("data root    {}", self.data_root));
        lines.extend(self.datasets.iter().map(Finding::line));
        lines.push(format!("model root   {}", self.model_root));
        lines.extend(self.networks.iter().map(Finding::line));
        if !self.advice.is_empty() {
            lines.push("to do".to_owned());
            lines.extend(self.advice.iter().map(|advice| format!("  {advice}")));
        }
        lines.join("\n")
    }
}

impl From<AdapterReport> for Adapter {
    fn from(report: AdapterReport) -> Self {
        Self {
            name: report.name,
            backend: report.backend,
            kind: report.kind,
            driver: report.driver,
            subgroup_min: report.subgroup_min,
            subgroup_max: report.subgroup_max,
            binding_max: report.binding_max,
            buffer_max: report.buffer_max,
            workgroup_memory: report.workgroup_memory,
            workgroup_invocations: report.workgroup_invocations,
            features: report.features,
            chosen: report.is_chosen,
        }
    }
}

impl Adapter {
    fn line(&self) -> String {
        let mark = if self.chosen { "used by --device gpu" } else { "not used" };
        format!(
            "  {}: {mark}; {}, {} ({}), subgroups of {} to {}, bindings up to {} MiB, {} KiB and {} invocations per workgroup, {}",
            self.name,
            self.kind,
            self.backend,
            self.driver,
            self.subgroup_min,
            self.subgroup_max,
            self.binding_max >> 20,
            self.workgroup_memory >> 10,
            self.workgroup_invocations,
            if self.features.is_empty() { "no optional feature".to_owned() } else { self.features.join(", ") }
        )
    }
}

impl Finding {
    fn line(&self) -> String {
        let mark = if self.usable { "" } else { "not usable: " };
        format!("  {}: {mark}{}", self.name, self.detail)
    }
}

/// Every data set, in the order of [`DATASETS`].
fn datasets(root: &Path) -> Vec<Finding> {
    let found = |entry: &DatasetEntry| {
        let name = entry.word.to_owned();
        let read = |split| entry.source().map_or(Ok(0), |source| source.read(root, split).map(|data| data.len()));
        if entry.source().is_none() {
            return Finding { name, usable: true, detail: format!("your own files: {}", entry.usage) };
        }
        if entry.files.is_none() {
            return Finding { name, usable: true, detail: "drawn, needs no file".into() };
        }
        match read(Split::Train).and_then(|train| Ok((train, read(Split::Test)?))) {
            Ok((train, test)) => {
                Finding { name, usable: true, detail: format!("{train} training images, {test} test images") }
            }
            Err(error) => Finding { name, usable: false, detail: error.to_string() },
        }
    };
    DATASETS.iter().map(found).collect()
}

/// Every weight file directly under the root, by name.
fn networks(root: &Path) -> Vec<Finding> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let is_weights = |path: &Path| {
        let extension = path.extension().unwrap_or_default();
        weight_extensions().iter().any(|known| extension == *known)
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_weights(path)).collect();
    paths.sort();
    paths.iter().map(|path| network(path)).collect()
}

fn network(path: &Path) -> Finding {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match load_network(path, None, None) {
        Ok(network) => {
            let graph = network.original.graph();
            let arch = network.arch.as_deref().unwrap_or("graph in the file");
            let (input, n_classes) = (graph.input(), graph.n_classes());
            Finding { name, usable: true, detail: format!("{arch}, {input} -> {n_classes} classes") }
        }
        Err(error) => Finding { name, usable: false, detail: format!("{error:#}") },
    }
}
