//! Cuts a convolution's output into register tiles: which output channels go together, and which pixels.

use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::tile::{TileFn, TileKernel};

/// Tiles of one size over consecutive output pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelRun {
    /// First output pixel.
    pub start: usize,
    /// Number of tiles.
    pub n_tiles: usize,
    /// Computes them.
    pub run: TileFn,
}

/// The cheapest way to cut `n_pixels` pixels of `c` channels into tiles, and its relative cost.
pub(crate) fn pixel_runs(arithmetic: Arithmetic, c: usize, n_pixels: usize) -> (Vec<PixelRun>, f64) {
    let menu: Vec<&TileKernel> = arithmetic.tiles().iter().filter(|tile| tile.n_channels == c).collect();
    let mut best = vec![(0.0, 0); n_pixels + 1];
    for n in 1..=n_pixels {
        let fitting = menu.iter().enumerate().filter(|(_, tile)| tile.n_pixels <= n);
        let costs = fitting.map(|(i, tile)| (best[n - tile.n_pixels].0 + arithmetic.step_cost(tile.n_pixels, c), i));
        best[n] = costs.min_by(|x, y| x.0.total_cmp(&y.0)).expect("the one-pixel tile always fits");
    }
    let mut counts = vec![0; menu.len()];
    let mut left = n_pixels;
    while left > 0 {
        counts[best[left].1] += 1;
        left -= menu[best[left].1].n_pixels;
    }
    let mut runs = Vec::with_capacity(counts.iter().filter(|&&n| n > 0).count());
    let mut start = 0;
    for (tile, n_tiles) in menu.iter().zip(counts).rev().filter(|(_, n)| *n > 0) {
        runs.push(PixelRun { start, n_tiles, run: tile.run });
        start += n_tiles * tile.n_pixels;
    }
    (runs, best[n_pixels].0)
}

/// Bytes of the runs of `n_pixels` pixels of `c` channels.
pub(crate) fn runs_bytes(arithmetic: Arithmetic, c: usize, n_pixels: usize) -> u64 {
    // Tiles of each size make one run at most, however many pixels there are.
    let n_sizes = arithmetic.tiles().iter().filter(|tile| tile.n_channels == c).count().min(n_pixels);
    (n_sizes * size_of::<PixelRun>()) as u64
}

/// Numbers of blocks that [`channel_blocks`] tries at most: all of them up to 6,000 channels or so; beyond, its time
/// would grow with their square.
const MAX_TRIED: usize = 2048;

/// The cheapest way to cut `n_channels` output channels into blocks that go with runs of `n_pixels`: the blocks' sizes,
/// of which all but the last are whole words.
pub(crate) fn channel_blocks(arithmetic: Arithmetic, n_channels: usize, n_pixels: usize) -> Vec<usize> {
    let per_word = arithmetic.channels_per_word();
    let n_words = arithmetic.words(n_channels);
    let largest = arithmetic.tiles().iter().map(|tile| tile.n_channels).max().expect("there are tiles");
    let fewest = n_channels.div_ceil(largest);
    let even = |n_blocks: usize| -> Vec<usize> {
        let end = |b: usize| (b * n_words / n_blocks * per_word).min(n_channels);
        (0..n_blocks).map(|b| end(b + 1) - end(b)).collect()
    };
    let costs: Vec<f64> =
        (0..=largest).map(|c| if c == 0 { 0.0 } else { pixel_runs(arithmetic, c, n_pixels).1 }).collect();
    let counts = fewest..=n_words.min(3 * fewest).min(fewest + MAX_TRIED);
    let options = counts.map(even).map(|blocks| (blocks.iter().map(|&c| costs[c]).sum::<f64>(), blocks));
    options.min_by(|x, y| x.0.total_cmp(&y.0)).expect("there is at least one output channel").1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_pixel_once_and_in_order() {
        for arithmetic in Arithmetic::available() {
            for c in 1..=6 {
                for n in [1, 2, 3, 5, 7, 16, 30, 31, 64, 100] {
                    let (runs, cost) = pixel_runs(arithmetic, c, n);
                    let mut next = 0;
                    for run in &runs {
                        assert_eq!(run.start, next);
                        let same = |tile: &&TileKernel| tile.n_channels == c && std::ptr::fn_addr_eq(tile.run, run.run);
                        next += run.n_tiles * arithmetic.tiles().iter().find(same).unwrap().n_pixels;
                    }
                    assert_eq!(next, n, "{arithmetic:?} c={c}");
                    assert!(cost.is_finite());
                }
            }
        }
    }

    #[test]
    fn blocks_hold_all_channels_and_have_a_tile() {
        for arithmetic in Arithmetic::available() {
            for n_channels in 1..200 {
                for n_pixels in [1, 4, 30] {
                    let blocks = channel_blocks(arithmetic, n_channels, n_pixels);
                    assert_eq!(blocks.iter().sum::<usize>(), n_channels);
                    let whole = &blocks[..blocks.len() - 1];
                    assert!(whole.iter().all(|c| c % arithmetic.channels_per_word() == 0));
                    let is_one_pixel = |tile: &TileKernel, c| tile.n_pixels == 1 && tile.n_channels == c;
                    assert!(blocks.iter().all(|&c| arithmetic.tiles().iter().any(|tile| is_one_pixel(tile, c))));
                }
            }
        }
    }
}
