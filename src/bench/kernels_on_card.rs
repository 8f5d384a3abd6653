//! `bench kernels --device gpu`: one row per layer shape and way to compute it, by the card's own timestamps.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use secateur_gpu::{
    CONV_BLOCK_MAX, CONV_TILES, Candidates, ConvChoice, ConvVariant, DispatchTimes, Gpu, GpuImages, Repeats,
};
use secateur_net::Network;
use serde::Serialize;

use super::arguments::BenchKernelsArgs;
use super::eval_on_card::{REPEATS, Row};
use super::json;
use super::kernels::{LAYERS, Layer, name, network, values};
use crate::{Failure, screen};

/// How long the card is woken by the first way to compute a layer, once the shaders of all ways are compiled.
const AWAKE: Repeats = Repeats { n: 1, at_least: Duration::from_millis(500) };

#[derive(Debug, Serialize)]
struct KernelsReport {
    adapter: String,
    rows: Vec<Measurement>,
}

#[derive(Clone, Debug, Serialize)]
struct Measurement {
    /// How a dense convolution is computed, invocations of a workgroup, and most output quads that are computed
    /// together; nothing of other layers.
    variant: &'static str,
    tile: u32,
    block: usize,
    /// Whether scoring computes them like this.
    is_default: bool,
    candidates: usize,
    images: usize,
    #[serde(flatten)]
    row: Row,
}

impl Measurement {
    fn line(&self) -> String {
        let Self { variant, tile, block, candidates, images, row, .. } = self;
        format!("{variant:<7} tile {tile:<4} block {block} {} ({candidates} x {images} images)", row.line())
    }
}

pub(super) fn kernels(arguments: &BenchKernelsArgs) -> Result<(), Failure> {
    let mut gpu = secateur_run::open_gpu(&arguments.card.options())?;
    let mut measured = KernelsReport { adapter: gpu.name().to_owned(), rows: Vec::new() };
    let n_candidates = arguments.card.n_candidates();
    screen::result(format_args!("{}: up to {n_candidates} candidates in one dispatch", measured.adapter))?;
    for &layer in LAYERS {
        let rows = LayerOnCard::new(&gpu, layer, arguments)?.time(&mut gpu, arguments)?;
        print(&rows, arguments.all_tiles)?;
        measured.rows.extend(rows);
        // Whoever stops a long measurement keeps what it has found.
        json::write(arguments.json.as_deref(), &measured)?;
    }
    secateur_run::keep_pipelines(&gpu);
    Ok(())
}

/// Every row, or of a whole grid the default and the fastest.
fn print(rows: &[Measurement], is_grid: bool) -> Result<(), Failure> {
    let fastest = rows.iter().min_by(|a, b| a.row.seconds.total_cmp(&b.row.seconds));
    for row in rows.iter().filter(|row| !is_grid || row.is_default) {
        screen::result(row.line())?;
    }
    match fastest {
        Some(row) if is_grid && !row.is_default => Ok(screen::result(format_args!("{}, the fastest", row.line()))?),
        _ => Ok(()),
    }
}

/// A layer on the card, for all candidates.
struct LayerOnCard {
    name: String,
    network: Network,
    n_candidates: usize,
    images: GpuImages,
    /// Ways to compute it.
    ways: Vec<ConvChoice>,
}

impl LayerOnCard {
    fn new(gpu: &Gpu, layer: Layer, arguments: &BenchKernelsArgs) -> anyhow::Result<Self> {
        let network = network(layer)?;
        let shape = network.graph().input();
        let n_images = arguments.images.map_or(1000, NonZeroUsize::get);
        let images = GpuImages::new(gpu, shape, &values(n_images * shape.len()), None)?;
        let n_candidates = arguments.card.n_candidates();
        Ok(Self { name: name(layer), network, n_candidates, images, ways: ways(gpu.conv(), layer, arguments) })
    }

    fn time(self, gpu: &mut Gpu, arguments: &BenchKernelsArgs) -> anyhow::Result<Vec<Measurement>> {
        let default = gpu.conv();
        let mut rows = Vec::new();
        for way in &self.ways {
            self.time_way(gpu, *way, Repeats { n: 1, at_least: Duration::ZERO })?;
        }
        self.time_way(gpu, default, AWAKE)?;
        for way in &self.ways {
            let times = self.time_way(gpu, *way, REPEATS)?;
            let dispatch = times.dispatches.first().context("a layer without a dispatch")?;
            rows.push(Measurement {
                variant: dispatch.conv.map_or("", |conv| conv.variant.name()),
                tile: dispatch.conv.map_or(0, |conv| conv.tile),
                block: dispatch.conv.map_or(0, |conv| conv.block_max),
                is_default: *way == default,
                candidates: times.n_candidates,
                images: times.n_images,
                row: Row { layer: self.name.clone(), ..Row::new(dispatch, arguments.card.peak_tflops) },
            });
        }
        gpu.set_conv(default);
        Ok(rows)
    }

    fn time_way(&self, gpu: &mut Gpu, way: ConvChoice, repeats: Repeats) -> anyhow::Result<DispatchTimes> {
        gpu.set_conv(way);
        let candidates = vec![&self.network; self.n_candidates];
        let times = gpu.time_dispatches(&self.images, &Candidates::Repaired(&candidates), repeats)?;
        times.with_context(|| format!("adapter '{}' has no timestamps", gpu.name()))
    }
}

/// The default way, and those that are asked for besides; layers with groups are computed in one way.
fn ways(default: ConvChoice, (_, c_out, .., groups): Layer, arguments: &BenchKernelsArgs) -> Vec<ConvChoice> {
    let mut ways = vec![default];
    if groups > 1 {
        return ways;
    }
    let others = ConvVariant::ALL.into_iter().filter(|variant| *variant != default.variant && arguments.all_isas);
    let variants = std::iter::once(default.variant).chain(others).map(|variant| ConvChoice { variant, ..default });
    if !arguments.all_tiles {
        ways.extend(variants.skip(1));
        return ways;
    }
    // Blocks of more quads than the layer has are cut to those.
    let n_blocks = CONV_BLOCK_MAX.min(c_out.div_ceil(4));
    for way in variants {
        for tile in CONV_TILES.map(Some) {
            ways.extend((1..=n_blocks).map(|block| ConvChoice { tile, block_max: Some(block), ..way }));
        }
    }
    ways
}
