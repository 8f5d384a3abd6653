//! Groups of images whose values lie side by side: `[N, H, W, C]` to and from `[H, W, C, LANES]`, one image to a lane.

/// Writes `n <= lanes` images of `len` values each, value by value; lanes without an image are zero.
pub fn interleave(images: &[f32], len: usize, lanes: usize, out: &mut [f32]) {
    assert_eq!(out.len(), len * lanes, "a group of images");
    assert!(images.len() <= out.len(), "at most one image to a lane");
    if images.len() < out.len() {
        out.fill(0.0);
    }
    // Blocks of values that stay in the first-level cache, in both layouts.
    const BLOCK: usize = 64;
    for first in (0..len).step_by(BLOCK) {
        let block = BLOCK.min(len - first);
        let into = &mut out[first * lanes..][..block * lanes];
        for (lane, image) in images.chunks_exact(len).enumerate() {
            let values = into[lane..].iter_mut().step_by(lanes);
            values.zip(&image[first..first + block]).for_each(|(to, &from)| *to = from);
        }
    }
}

/// The inverse: as many images of `len` values as `images` holds.
pub fn separate(group: &[f32], len: usize, lanes: usize, images: &mut [f32]) {
    assert_eq!(group.len(), len * lanes, "a group of images");
    for (lane, image) in images.chunks_exact_mut(len).enumerate() {
        image.iter_mut().zip(group[lane..].iter().step_by(lanes)).for_each(|(to, &from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_back_and_missing_ones_are_zero() {
        for (len, lanes, n) in [(1, 8, 8), (5, 8, 3), (70, 16, 15), (128, 16, 16), (3, 8, 0)] {
            let images: Vec<f32> = (0..n * len).map(|i| i as f32 + 1.0).collect();
            let mut group = vec![f32::NAN; len * lanes];
            interleave(&images, len, lanes, &mut group);
            for (at, &value) in group.iter().enumerate() {
                let (i, lane) = (at / lanes, at % lanes);
                assert_eq!(value, if lane < n { (lane * len + i) as f32 + 1.0 } else { 0.0 });
            }
            let mut back = vec![f32::NAN; n * len];
            separate(&group, len, lanes, &mut back);
            assert_eq!(back, images);
        }
    }
}
