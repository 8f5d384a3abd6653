//! Training images that decide between the finalists of a task: none that anything was chosen or fitted on.
//!
//! A search has seen the reward images as often as it scored candidates: its best is in part the one that they happen to
//! suit. These images are looked at for a few finalists only.

use rayon::ThreadPool;
use secateur_formats::Dataset;
use secateur_net::Network;
use secateur_sim::{Prepared, RewardKind, Score};

use crate::prepare::shuffled;
use crate::scene::Images;
use crate::split_accuracy::{FirstImages, correct_images};
use crate::split_error::{ComparedNetworks, compare_outputs};

/// Most of these images for every reward image: judging a finalist is to cost no more than a few walks.
const TIMES_REWARD: usize = 10;

/// Their places in the training split `data`: the last of the order whose first images serve all other purposes. Files
/// that could not be read made the others reach further.
pub(crate) fn finalist_images(images: &Images, data: &Dataset) -> Vec<usize> {
    let used = images.reward + images.calibration.max(images.refit) + data.failures().len();
    let n = data.len().saturating_sub(used).min(images.finalists).min(TIMES_REWARD * images.reward);
    let mut order = shuffled(data.len(), images.seed);
    order.split_off(data.len() - n)
}

/// What a network is paid on some images.
///
/// # Errors
/// Outputs that are not finite.
pub(crate) fn reward_on(
    network: &Network,
    prepared: &Prepared,
    images: FirstImages<'_>,
    pool: &ThreadPool,
) -> anyhow::Result<f64> {
    let kind = prepared.reward.kind;
    let mut score = Score::default();
    match kind {
        RewardKind::Accuracy => {
            let correct = correct_images(network, images, pool, |_| {})?;
            let n_correct = correct.iter().filter(|&&is_correct| is_correct).count();
            score.accuracy = Some(n_correct as f64 / correct.len().max(1) as f64);
        }
        RewardKind::Kl | RewardKind::OutputError => {
            let outputs = &prepared.reward.outputs;
            let are_logits = kind == RewardKind::Kl;
            let compared = ComparedNetworks { dense: &prepared.network, other: network, outputs, are_logits };
            let agreement = compare_outputs(&compared, images, pool, |_| {})?;
            (score.divergence, score.output_error) = (agreement.divergence, Some(agreement.error));
        }
    }
    Ok(score.reward(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_formats::{DatasetSource, Split};

    #[test]
    fn they_are_apart_from_all_others_as_many_as_are_left_and_no_more_than_asked_for() {
        let source: DatasetSource = "shapes:1".parse().unwrap();
        let data = source.read(std::path::Path::new(""), Split::Train).unwrap();
        let n = data.len();
        let images = Images { reward: 1000, calibration: 500, refit: 2000, ..Images::default() };
        let order = shuffled(n, images.seed);
        let apart = finalist_images(&images, &data);
        assert_eq!(apart.len(), n - 3000);
        assert!(apart.iter().all(|place| !order[..3000].contains(place)));
        assert_eq!(finalist_images(&Images { finalists: 7, ..images }, &data), order[n - 7..]);
        assert_eq!(finalist_images(&Images { reward: 20, ..images }, &data).len(), 200, "ten times the reward images");
        for none in [Images { finalists: 0, ..images }, Images { refit: n - 1000, ..images }] {
            assert!(finalist_images(&none, &data).is_empty());
        }
    }
}
