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

#[cfg(test)]
mod tests {
    use secateur_formats::procedural::{Kind, generate};
    use secateur_formats::{Preprocessing, Split};
    use secateur_kernels::{Arithmetic, Isa, Plan};
    use secateur_net::random::with_random_weights;
    use secateur_net::{Network, arch, fold_batch_norm};
    use secateur_tune::{Augmentation, Decay, LossSettings, OptimiserSettings, SgdSettings, Trainer, TrainerSettings};

    use super::*;
    use crate::training::session::Training;

    /// A training of `network` for one epoch at this learning rate.
    fn training<'a>(network: &Network, images: TrainingImages<'a>, rate: f32) -> Training<'a> {
        let settings = TrainerSettings {
            batch: 32,
            n_steps: images.places.len() / 32,
            rate,
            warm_up: 0.1,
            decay: Decay::Linear,
            optimiser: OptimiserSettings::Sgd(SgdSettings::default()),
            clip: 5.0,
            half_life: 0.05,
            loss: LossSettings { distillation: 0.0, temperature: 1.0, smoothing: 0.0 },
        };
        let trainer = Trainer::new(network, Isa::detect(), settings).unwrap();
        Training::new(images, trainer, None, true).unwrap()
    }

    #[test]
    fn a_network_stays_the_function_it_was_and_comes_out_folded() {
        let data = generate(Kind::Shapes, 3, Split::Train, 256);
        let preprocessing = Preprocessing::new(vec![0.5; 3], vec![0.25; 3]).unwrap();
        let images = TrainingImages {
            data: &data,
            preprocessing: &preprocessing,
            places: (0..256).collect(),
            augmentation: Augmentation { crop: 0, flip: false },
            seed: 1,
        };
        let graph = arch::build("resnet20", data.shape, 10).unwrap();
        let network = fold_batch_norm(&with_random_weights(graph, 2)).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let logits = |network: &Network| {
            let loaded = data.load_first(64, &images.places, &preprocessing, &pool).unwrap();
            Plan::compile(network, Arithmetic::default()).unwrap().logits(&pool, &loaded.images).unwrap()
        };
        let difference = |network: &Network, other: &Network| {
            let pairs = logits(network).into_iter().zip(logits(other));
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let largest = logits(&network).into_iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let with_norms = with_batch_norms(&network, &images, &pool).unwrap();
        assert!(with_norms.graph().nodes().len() > network.graph().nodes().len());
        let mut training = training(&with_norms, images.clone(), 1e-9);
        let before = training.network().unwrap();
        assert_eq!(before.graph(), network.graph());
        assert!(difference(&before, &network) <= 1e-4 * largest);
        // Statistics of batches are about those of all images, so that it stays so while hardly anything is learned.
        while !training.is_done() {
            training.step(&pool).unwrap();
        }
        let after = training.network().unwrap();
        assert!(difference(&after, &network) <= 0.2 * largest);
        assert!(difference(&after, &network) > 0.0);
    }
}
