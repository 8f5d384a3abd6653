//! `bench kernels --device gpu`: one row per layer shape, by the card's own timestamps.

use std::num::NonZeroUsize;

use anyhow::Context;
use secateur_gpu::{Candidates, ConvVariant, Gpu, GpuImages, GpuOptions};
use serde::Serialize;

use super::arguments::BenchKernelsArgs;
use super::eval_on_card::Row;
use super::json;
use super::kernels::{LAYERS, Layer, name, network, values};
use crate::{Failure, screen};

/// The shortest of so many dispatches counts.
const N_RUNS: usize = 5;

#[derive(Debug, Serialize)]
struct Measured {
    adapter: String,
    rows: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
struct Measurement {
    /// How convolutions are computed.
    variant: String,
    candidates: usize,
    images: usize,
    #[serde(flatten)]
    row: Row,
}

pub(super) fn kernels(arguments: &BenchKernelsArgs) -> Result<(), Failure> {
    let n_candidates = arguments.card.n_candidates();
    let variants = if arguments.all_isas { ConvVariant::ALL.map(Some).to_vec() } else { vec![None] };
    let mut measured = Measured { adapter: String::new(), rows: Vec::new() };
    for conv in variants {
        let gpu = secateur_run::open_gpu(&GpuOptions { conv, ..GpuOptions::default() })?;
        if measured.adapter.is_empty() {
            measured.adapter = gpu.name().to_owned();
            screen::result(format_args!("{}: up to {n_candidates} candidates in one dispatch", measured.adapter))?;
        }
        for &layer in LAYERS {
            let (candidates, images, row) = time(&gpu, layer, arguments)?;
            let variant = format!("{:?}", gpu.conv());
            screen::result(format_args!("{variant:<8}{} ({candidates} x {images} images)", row.line()))?;
            measured.rows.push(Measurement { variant, candidates, images, row });
        }
        secateur_run::keep_pipelines(&gpu);
    }
    json::write(arguments.json.as_deref(), &measured)
}

/// Candidates and images of the dispatch, and what it took.
fn time(gpu: &Gpu, layer: Layer, arguments: &BenchKernelsArgs) -> anyhow::Result<(usize, usize, Row)> {
    let network = network(layer)?;
    let shape = network.graph().input();
    let n_images = arguments.images.map_or(1000, NonZeroUsize::get);
    let images = GpuImages::new(gpu, shape, &values(n_images * shape.len()), None)?;
    let candidates = vec![&network; arguments.card.n_candidates()];
    let times = gpu.time_dispatches(&images, &Candidates::Repaired(&candidates), N_RUNS)?;
    let times = times.with_context(|| format!("adapter '{}' has no timestamps", gpu.name()))?;
    let dispatch = times.dispatches.first().context("a layer without a dispatch")?;
    let row = Row { layer: name(layer), ..Row::new(dispatch, arguments.card.peak_tflops) };
    Ok((times.n_candidates, times.n_images, row))
}
