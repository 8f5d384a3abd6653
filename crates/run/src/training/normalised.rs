//! BatchNorm brought back for a training, where none is left: a repaired network has it folded into its convolutions.

use anyhow::Context;
use rayon::ThreadPool;
use secateur_kernels::channel_moments;
use secateur_net::{Network, insert_batch_norms, norm_places};

use super::images::TrainingImages;

/// Images that running statistics start from.
const STATISTICS_IMAGES: usize = 1024;
/// Most values of images that are held at once for it.
const VALUES_MAX: usize = 1 << 25;

/// The same function with a BatchNorm behind every convolution that has none and that a batch has statistics of; they
/// start at those of the first images that are learned from. With them, larger learning rates and fewer epochs do.
/// [`super::session::Training::network`] folds them again.
///
/// # Errors
/// Images that cannot be read.
pub fn with_batch_norms(network: &Network, images: &TrainingImages<'_>, pool: &ThreadPool) -> anyhow::Result<Network> {
    let places = norm_places(network.graph());
    if places.is_empty() {
        return Ok(network.clone());
    }
    let most = STATISTICS_IMAGES.min(VALUES_MAX / network.graph().input().len()).max(1);
    let n = images.places.len().min(most);
    let loaded = images.data.load_first(n, &images.places, images.preprocessing, pool)?;
    let moments =
        channel_moments(pool, network, &places, &loaded.images).context("statistics of the images to learn from")?;
    Ok(insert_batch_norms(network, &moments)?)
}
