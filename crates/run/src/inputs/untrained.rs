//! Networks before any training.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rayon::ThreadPool;
use secateur_formats::{Dataset, ImageNeeds, Preprocessing};
use secateur_net::arch::{self, ARCHITECTURES};
use secateur_net::{Shape, fold_batch_norm};
use secateur_sim::whole_output;
use secateur_tune::initial_network;

use super::images::decoded_images;
use super::load::{LoadedNetwork, load_network};
use super::roots::Roots;

/// Images that tell the mean and deviation of channels.
const STATISTICS_IMAGES: usize = 10_000;

/// What a network that is to be trained from scratch is built of.
#[derive(Clone, Debug)]
pub struct Untrained<'a> {
    /// The name of a builder, or a network whose graph and preprocessing are taken, and whose parameters are not.
    pub what: &'a Path,
    /// Of its parameters.
    pub seed: u64,
    /// Rows and columns of images that come in any size, for a builder.
    pub size: Option<[usize; 2]>,
}

/// The network that `untrained` asks for, with parameters drawn anew. A builder's reads the images of `data` and has
/// their classes, and its preprocessing is the mean and deviation of their channels.
///
/// # Errors
/// A network that is neither, images that cannot be read, or that are too small for the builder.
pub fn untrained_network(
    untrained: &Untrained<'_>,
    roots: &Roots,
    data: &Dataset,
    pool: &ThreadPool,
) -> anyhow::Result<LoadedNetwork> {
    let Untrained { what, seed, size } = *untrained;
    let name = what.to_string_lossy();
    if !ARCHITECTURES.contains(&&*name) {
        let hint = || format!("architectures that can be named: {}", ARCHITECTURES.join(", "));
        ensure!(size.is_none(), "'{name}' has a size of its own; leave --size out, or name an architecture");
        let mut loaded = load_network(&roots.find_network(what).with_context(hint)?, None, None)?;
        ensure!(loaded.document.is_none(), "'{name}' is an ONNX file, whose graph is kept as it is: tune it instead");
        loaded.original = initial_network(loaded.original.graph().clone(), seed);
        loaded.folded = fold_batch_norm(&loaded.original)?;
        return Ok(loaded);
    }
    let input = size.map_or(data.shape, |[h, w]| Shape { h, w, ..data.shape });
    ensure!(input.h > 0 && input.w > 0, "images of '{}' come in any size; say which with --size", data.name);
    let graph = arch::build(&name, input, data.n_classes).with_context(|| format!("{name} for images of {input}"))?;
    let original = initial_network(graph, seed);
    let folded = fold_batch_norm(&original)?;
    let cache = decoded_images();
    let data = data.for_network(&ImageNeeds { input, outputs: data.n_classes, cache: cache.as_deref() })?;
    Ok(LoadedNetwork {
        name: name.to_string(),
        path: PathBuf::from(what),
        arch: Some(name.to_string()),
        document: None,
        outputs: vec![whole_output(original.graph())],
        ends_early: None,
        original,
        folded,
        preprocessing: measured(&data, pool)?,
        assumptions: Vec::new(),
    })
}

/// The mean and deviation of each channel over the first images, to three digits.
fn measured(data: &Dataset, pool: &ThreadPool) -> anyhow::Result<Preprocessing> {
    let channels = data.shape.c;
    let plain = Preprocessing::new(vec![0.0; channels], vec![1.0; channels])?;
    let order: Vec<usize> = (0..data.len()).collect();
    let (mut sums, mut n_pixels) = (vec![[0.0f64; 2]; channels], 0usize);
    // A few at a time, as they may be large.
    for places in order[..order.len().min(STATISTICS_IMAGES)].chunks(256) {
        let loaded = data.load_first(places.len(), places, &plain, pool)?;
        for pixel in loaded.images.chunks_exact(channels) {
            for ([sum, squares], &x) in sums.iter_mut().zip(pixel) {
                *sum += f64::from(x);
                *squares += f64::from(x) * f64::from(x);
            }
            n_pixels += 1;
        }
    }
    ensure!(n_pixels > 0, "'{}' has no image that could be read", data.name);
    let n = n_pixels as f64;
    let rounded = |x: f64| ((1000.0 * x).round() / 1000.0) as f32;
    let mean = sums.iter().map(|[sum, _]| rounded(sum / n)).collect();
    // A channel that is the same everywhere has no deviation to divide by.
    let deviation = |[sum, squares]: &[f64; 2]| rounded((squares / n - (sum / n).powi(2)).max(0.0).sqrt());
    let std = sums.iter().map(|sums| Some(deviation(sums)).filter(|&deviation| deviation > 0.0).unwrap_or(1.0));
    Ok(Preprocessing::new(mean, std.collect())?)
}
