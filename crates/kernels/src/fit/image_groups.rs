//! All images of a data set, in groups of one image to a lane.

use secateur_net::Network;

use crate::KernelError;
use crate::simd::aligned::AlignedVec;
use crate::simd::interleave::interleave;

/// Images `[groups, H, W, C, LANES]`; the last group may have lanes without an image, which are zero.
#[derive(Clone, Debug)]
pub(crate) struct ImageGroups {
    values: AlignedVec,
    lanes: usize,
    image_len: usize,
    n_images: usize,
}

impl ImageGroups {
    /// Of `images` `[N, H, W, C]` of `image_len` values each.
    pub(crate) fn new(images: &[f32], image_len: usize, lanes: usize) -> Self {
        let n_images = images.len() / image_len;
        let mut values = AlignedVec::zeros(n_images.div_ceil(lanes) * image_len * lanes);
        let groups = images.chunks(image_len * lanes).zip(values.chunks_exact_mut(image_len * lanes));
        groups.for_each(|(images, group)| interleave(images, image_len, lanes, group));
        Self { values, lanes, image_len, n_images }
    }
    /// The first `n` groups, or all if there are fewer.
    pub(crate) fn first(&self, n: usize) -> Self {
        let n_images = self.n_images.min(n * self.lanes);
        let mut values = AlignedVec::zeros(n_images.div_ceil(self.lanes) * self.lanes * self.image_len);
        let len = values.len();
        values.copy_from_slice(&self.values[..len]);
        Self { values, n_images, ..*self }
    }
    /// Number of groups.
    pub(crate) const fn len(&self) -> usize {
        self.n_images.div_ceil(self.lanes)
    }
    /// Images of a group.
    pub(crate) const fn lanes(&self) -> usize {
        self.lanes
    }
    /// Number of images.
    pub(crate) const fn n_images(&self) -> usize {
        self.n_images
    }
    /// One group `[H, W, C, LANES]`.
    pub(crate) fn group(&self, group: usize) -> &[f32] {
        let len = self.image_len * self.lanes;
        &self.values[group * len..(group + 1) * len]
    }
    /// Lanes of a group that hold an image.
    pub(crate) fn n_present(&self, group: usize) -> usize {
        (self.n_images - group * self.lanes).min(self.lanes)
    }
    /// Sets the lanes without an image of values `[.., LANES]` of a group to zero.
    pub(crate) fn clear_missing(&self, group: usize, values: &mut [f32]) {
        let present = self.n_present(group);
        if present < self.lanes {
            values.chunks_exact_mut(self.lanes).for_each(|value| value[present..].fill(0.0));
        }
    }
}

/// Whole, finite images, at least one.
pub(crate) fn check_images(network: &Network, images: &[f32]) -> Result<(), KernelError> {
    let per_image = network.graph().input().len();
    if images.is_empty() || !images.len().is_multiple_of(per_image) {
        return Err(KernelError::PartialImage { got: images.len(), per_image });
    }
    if images.iter().any(|x| !x.is_finite()) {
        return Err(KernelError::NotFinite { what: "the normal equations' images".into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_without_an_image_are_cleared_in_the_last_group_only() {
        let images: Vec<f32> = (1..=22).map(|i| i as f32).collect();
        let groups = ImageGroups::new(&images, 2, 8);
        assert_eq!((groups.len(), groups.n_images()), (2, 11));
        assert_eq!(groups.group(1)[..4], [17.0, 19.0, 21.0, 0.0]);
        let mut values = vec![1.0; 16];
        groups.clear_missing(0, &mut values);
        assert_eq!(values, [1.0; 16]);
        groups.clear_missing(1, &mut values);
        assert_eq!(values.chunks(8).map(|v| v.iter().sum::<f32>()).collect::<Vec<_>>(), [3.0, 3.0]);
    }
}
