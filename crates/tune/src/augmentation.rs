//! Training images, moved and mirrored: which way follows from seed, epoch and image alone.

use secateur_net::Shape;
use secateur_net::random::SplitMix;
use serde::{Deserialize, Serialize};

/// How images are changed before each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Most pixels that an image is moved by in each direction; what comes in from outside is black.
    pub crop: usize,
    /// Whether half of the images are mirrored, left to right.
    pub flip: bool,
}

/// Which image in which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageDraw {
    /// Of the training.
    pub seed: u64,
    /// From 0.
    pub epoch: u64,
    /// Its index in the data set.
    pub image: u64,
}

/// An image as a network reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picture<'a> {
    /// `[H, W, C]`
    pub values: &'a [f32],
    /// Its shape.
    pub shape: Shape,
    /// Values of a black pixel, `[C]`.
    pub black: &'a [f32],
}

impl Augmentation {
    /// Writes `picture`, moved and mirrored, to `out`.
    pub fn apply(&self, draw: ImageDraw, picture: Picture<'_>, out: &mut [f32]) {
        let Picture { values: image, shape, black } = picture;
        let mut rng = stream(draw.seed, draw.epoch, draw.image + 1);
        let range = 2 * self.crop + 1;
        // From 0 to twice the crop: rows and columns of the padded image that are cut off in front.
        let [down, across] = [rng.below(range), rng.below(range)];
        let is_mirrored = self.flip && rng.below(2) == 1;
        for (at, pixel) in out.chunks_exact_mut(shape.c).enumerate() {
            let [row, column] = [at / shape.w, at % shape.w];
            let column = if is_mirrored { shape.w - 1 - column } else { column };
            // Wraps around where it lies in front of the image.
            let [row, column] = [(row + down).wrapping_sub(self.crop), (column + across).wrapping_sub(self.crop)];
            let is_inside = row < shape.h && column < shape.w;
            pixel.copy_from_slice(if is_inside {
                &image[(row * shape.w + column) * shape.c..][..shape.c]
            } else {
                black
            });
        }
    }
}

/// The order in which an epoch sees `n` images.
pub fn epoch_order(seed: u64, epoch: u64, n: usize) -> Vec<usize> {
    let mut rng = stream(seed, epoch, 0);
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, rng.below(last + 1));
    }
    order
}

/// Random numbers of their own for every key.
fn stream(seed: u64, epoch: u64, key: u64) -> SplitMix {
    let [a, b] = [SplitMix(seed).next_u64(), SplitMix(epoch ^ 0x9e37_79b9_7f4a_7c15).next_u64()];
    SplitMix(SplitMix(a ^ b.rotate_left(17) ^ key.wrapping_mul(0xd134_2543_de82_ef95)).next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { c: 2, h: 3, w: 4 };

    fn augmented(how: Augmentation, image: u64) -> Vec<f32> {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let mut out = vec![f32::NAN; 24];
        how.apply(
            ImageDraw { seed: 1, epoch: 2, image },
            Picture { values: &values, shape: SHAPE, black: &[-1.0, -2.0] },
            &mut out,
        );
        out
    }

    #[test]
    fn images_are_moved_and_mirrored_each_in_its_own_way_again_and_again() {
        let plain: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let still = Augmentation { crop: 0, flip: false };
        assert_eq!(augmented(still, 5), plain);
        let flipped: Vec<bool> =
            (0..200).map(|i| augmented(Augmentation { crop: 0, flip: true }, i) != plain).collect();
        assert!((70..130).contains(&flipped.iter().filter(|&&f| f).count()));
        let mirrored = (0..200).find(|&i| flipped[i as usize]).unwrap();
        assert_eq!(augmented(Augmentation { crop: 0, flip: true }, mirrored)[..4], [6.0, 7.0, 4.0, 5.0]);
        let moved = Augmentation { crop: 2, flip: false };
        let places: Vec<Vec<f32>> = (0..400).map(|i| augmented(moved, i)).collect();
        assert_eq!(places, (0..400).map(|i| augmented(moved, i)).collect::<Vec<_>>());
        let mut distinct = places;
        distinct.sort_by(|a, b| a.partial_cmp(b).unwrap());
        distinct.dedup();
        assert_eq!(distinct.len(), 25);
        assert!(distinct.iter().flatten().all(|&x| (-2.0..24.0).contains(&x)), "what comes in is black");
    }

    #[test]
    fn every_epoch_sees_every_image_once_in_another_order() {
        let (one, two) = (epoch_order(7, 0, 50), epoch_order(7, 1, 50));
        assert!(one != two && one == epoch_order(7, 0, 50));
        for mut order in [one, two] {
            order.sort_unstable();
            assert!(order.into_iter().eq(0..50));
        }
    }
}
