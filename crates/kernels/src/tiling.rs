//! Cuts a convolution's output into register tiles: which output-channel vectors go together, and which pixels.

use crate::simd::Isa;
use crate::tile::{TileFn, tiles};

/// Tiles of one size over consecutive output pixels.
#[derive(Clone, Copy, Debug)]
pub struct PixelRun {
    /// First output pixel.
    pub start: usize,
    /// Pixels per tile.
    pub tile_pixels: usize,
    /// Number of tiles.
    pub n_tiles: usize,
    /// Computes them.
    pub run: TileFn,
}

impl PixelRun {
    /// The output pixel after the last.
    pub const fn end(&self) -> usize {
        self.start + self.n_tiles * self.tile_pixels
    }
}

/// Groups of output-channel vectors, as their sizes; the sum is the number of vectors.
pub type VectorGroups = Vec<usize>;

/// Weights of one vector group beyond this no longer stay in the first-level cache next to the input.
const RESIDENT_BYTES: usize = 24 << 10;

/// Relative time of one step (one input value of every pixel) of a tile, in cycles of two multiply-adds.
fn step_cost(b: usize, p: usize, weights_resident: bool) -> f64 {
    let arithmetic = (p * b) as f64 / 2.0;
    let loads = (p + b) as f64 / 2.0;
    let latency = 4.0;
    let streaming = if weights_resident { 0.0 } else { b as f64 * 0.5 };
    arithmetic.max(loads).max(latency) + 0.5 + streaming
}

/// Pixels left to the exact search after the bulk has been cut into the best tile.
const SEARCHED: usize = 96;

/// The cheapest way to cut `n_pixels` into tiles of `b` vectors, and its relative cost.
pub fn pixel_runs(isa: Isa, b: usize, n_pixels: usize, steps: usize) -> (Vec<PixelRun>, f64) {
    let resident = steps * b * isa.lanes() * size_of::<f32>() <= RESIDENT_BYTES;
    let menu: Vec<(usize, TileFn, f64)> =
        tiles(isa).iter().filter(|t| t.0 == b).map(|&(_, p, run)| (p, run, step_cost(b, p, resident))).collect();
    let rate = |t: &(usize, TileFn, f64)| t.2 / t.0 as f64;
    let bulk = *menu.iter().min_by(|x, y| rate(x).total_cmp(&rate(y))).expect("every group size has a one-pixel tile");
    let n_bulk = n_pixels.saturating_sub(SEARCHED).div_ceil(bulk.0);
    let rest = n_pixels - n_bulk * bulk.0;
    let mut best = vec![(0.0, 0); rest + 1];
    for n in 1..=rest {
        let fitting = menu.iter().enumerate().filter(|(_, t)| t.0 <= n).map(|(i, t)| (best[n - t.0].0 + t.2, i));
        best[n] = fitting.min_by(|x, y| x.0.total_cmp(&y.0)).expect("the one-pixel tile always fits");
    }
    let mut counts = vec![0; menu.len()];
    let mut left = rest;
    while left > 0 {
        counts[best[left].1] += 1;
        left -= menu[best[left].1].0;
    }
    let mut runs = Vec::new();
    let mut start = 0;
    for (i, &(p, run, _)) in menu.iter().enumerate().rev() {
        let n_tiles = counts[i] + if p == bulk.0 { n_bulk } else { 0 };
        if n_tiles > 0 {
            runs.push(PixelRun { start, tile_pixels: p, n_tiles, run });
            start += n_tiles * p;
        }
    }
    (runs, n_bulk as f64 * bulk.2 + best[rest].0)
}

/// The cheapest grouping of the vectors that hold `n_channels` output channels.
pub fn vector_groups(isa: Isa, n_channels: usize, n_pixels: usize, steps: usize) -> VectorGroups {
    let n_vectors = n_channels.div_ceil(isa.lanes());
    let grouped = |largest: usize| -> VectorGroups {
        let rest = n_vectors % largest;
        std::iter::repeat_n(largest, n_vectors / largest).chain((rest > 0).then_some(rest)).collect()
    };
    let cost = |groups: &VectorGroups| -> f64 {
        let largest = groups[0];
        let rest = groups[groups.len() - 1];
        let whole = pixel_runs(isa, largest, n_pixels, steps).1 * (groups.len() - 1) as f64;
        whole + pixel_runs(isa, rest, n_pixels, steps).1
    };
    let candidates = (1..=n_vectors.min(4)).map(grouped).map(|g| (cost(&g), g));
    candidates.min_by(|x, y| x.0.total_cmp(&y.0)).expect("there is at least one output channel").1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_pixel_once_and_in_order() {
        for isa in Isa::available() {
            for b in 1..=4 {
                for n in [1, 2, 3, 5, 7, 16, 31, 64, 95, 97, 100, 255, 1024, 3025] {
                    let (runs, cost) = pixel_runs(isa, b, n, 144);
                    let mut next = 0;
                    for run in &runs {
                        assert_eq!(run.start, next);
                        next = run.end();
                    }
                    assert_eq!(next, n, "{isa:?} b={b}");
                    assert!(cost.is_finite());
                }
            }
        }
    }

    #[test]
    fn groups_hold_all_channels_without_an_idle_vector() {
        for isa in Isa::available() {
            for n_channels in 1..200 {
                let groups = vector_groups(isa, n_channels, 64, 9 * n_channels);
                assert_eq!(groups.iter().sum::<usize>(), n_channels.div_ceil(isa.lanes()));
                assert!(groups.iter().all(|&b| (1..=4).contains(&b)));
            }
        }
    }
}
