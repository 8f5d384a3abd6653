//! Products of pixels and filters, `[pixels, K] x [K, filters]`: register tiles of `P` pixels by `V` vectors of output
//! channels.
//!
//! Each output value is one chain of multiply-adds in a fixed order, whatever `P` and `V`: how pixels and channels are
//! cut into tiles never changes a result.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are pixels and vectors, and also make up addresses")]

use std::ops::Range;

use crate::engine::conv::direct::Epilogue;
use crate::engine::conv::tile::Finish;
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};
use crate::simd::prefetch::prefetch;

/// `V` vectors of output channels of consecutive pixels. Steps are in values.
#[derive(Debug)]
struct PixelProductJob {
    /// First value of the first pixel.
    x: *const f32,
    /// From one pixel to the next.
    x_step: usize,
    /// The values that are multiplied for an output lie in so many runs, of so many values.
    runs: [usize; 2],
    /// From one run to the next.
    run_step: usize,
    /// `[K, V, LANES]`
    weights: *const f32,
    /// `[V, LANES]`, initial value of the sums.
    bias: *const f32,
    /// First pixel, first of the vectors.
    out: *mut f32,
    /// From one pixel to the next.
    out_step: usize,
    /// What becomes of the sums; `None` stores them as they are.
    finish: Option<Finish>,
}

/// Computes `n_tiles` tiles, pixel after pixel.
///
/// # Safety
/// The processor must have the function's instruction set; every address the job names must be valid for `n_tiles * P`
/// pixels: reads of pixels, weights, bias and residual, writes of output; output must not overlap the rest.
type ProductFn = unsafe fn(&PixelProductJob, n_tiles: usize);

/// A size of register tile and what computes it.
#[derive(Clone, Copy, Debug)]
struct ProductTile {
    n_pixels: usize,
    n_vectors: usize,
    run: ProductFn,
}

/// Weights are asked for so many values before they are multiplied: those of large layers come from memory, one page
/// after the other, and the processor's own prefetching ends with each page.
const AHEAD: usize = 2048;

#[inline(always)]
unsafe fn run_tiles<L: Lanes, const P: usize, const V: usize>(job: &PixelProductJob, n_tiles: usize) {
    for first in (0..n_tiles).map(|t| t * P) {
        // SAFETY: the caller's promise (`ProductFn`) covers these P pixels.
        unsafe {
            // Plain loops: within closures the vector instructions would not always be inlined.
            let mut acc = [[L::splat(0.0); V]; P];
            for v in 0..V {
                let bias = L::load(job.bias.add(v * L::LANES));
                for p in 0..P {
                    acc[p][v] = bias;
                }
            }
            // What is read only once all products are added up is asked for before.
            if let Some(finish) = job.finish
                && !finish.residual.is_null()
            {
                for p in 0..P {
                    for v in 0..V {
                        prefetch(finish.residual.wrapping_add((first + p) * job.out_step + v * L::LANES));
                    }
                }
            }
            let step = job.x_step;
            let mut w = job.weights;
            for run in 0..job.runs[0] {
                let mut x = job.x.add(first * step + run * job.run_step);
                for _ in 0..job.runs[1] {
                    let mut wv = [L::splat(0.0); V];
                    for v in 0..V {
                        wv[v] = L::load(w.add(v * L::LANES));
                        prefetch(w.wrapping_add(v * L::LANES + AHEAD));
                    }
                    for p in 0..P {
                        let xv = L::splat(*x.add(p * step));
                        for v in 0..V {
                            acc[p][v] = L::fma(xv, wv[v], acc[p][v]);
                        }
                    }
                    x = x.add(1);
                    w = w.add(V * L::LANES);
                }
            }
            for p in 0..P {
                for v in 0..V {
                    let at = (first + p) * job.out_step + v * L::LANES;
                    let value = match job.finish {
                        Some(finish) => finish.apply::<L>(acc[p][v], at),
                        None => acc[p][v],
                    };
                    L::store(job.out.add(at), value);
                }
            }
        }
    }
}

macro_rules! product_table {
    ($name:ident, $run:ident, $lanes:ty, $([$feature:literal],)? $( $v:literal: [$($p:literal),*] ),*) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $run<const P: usize, const V: usize>(job: &PixelProductJob, n_tiles: usize) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { run_tiles::<$lanes, P, V>(job, n_tiles) }
        }
        static $name: &[ProductTile] =
            &[$($(ProductTile { n_pixels: $p, n_vectors: $v, run: $run::<$p, $v> }),*),*];
    };
}

// 32 registers hold P * V sums, V vectors of weights and a value.
#[cfg(target_arch = "x86_64")]
product_table!(AVX512, run_avx512, Avx512, ["avx512f"],
    1: [1, 2, 3, 4, 6, 8, 12], 2: [1, 2, 3, 4, 6, 8, 12], 3: [1, 2, 3, 4, 6, 8], 4: [1, 2, 3, 4, 5, 6]);
// 16 registers.
#[cfg(target_arch = "x86_64")]
product_table!(AVX2, run_avx2, Avx2, ["avx2,fma"], 1: [1, 2, 4, 8], 2: [1, 2, 4, 6], 3: [1, 2, 3, 4]);
product_table!(PORTABLE, run_portable, Portable, 1: [1, 2, 4], 2: [1, 2]);

fn tiles(isa: Isa) -> &'static [ProductTile] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => AVX512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => AVX2,
        _ => PORTABLE,
    }
}

/// Most vectors of a tile.
fn widest(isa: Isa) -> usize {
    tiles(isa).iter().map(|tile| tile.n_vectors).max().expect("there are tiles")
}

/// Products of so many values go in wide tiles, whose weights stay in the first-level cache; of more, weights come from
/// the second for every tile, and tiles of many pixels and few vectors read less.
const SHORT: usize = 128;

/// Into how many blocks of tiles' width the vectors are cut.
fn n_blocks(isa: Isa, k: usize, n_vectors: usize) -> usize {
    let fewest = n_vectors.div_ceil(widest(isa));
    if k <= SHORT { fewest } else { (n_vectors / 2).max(fewest) }
}

/// Numbers of pixels for which the cheapest cut into tiles is kept; of more, the largest tiles go first.
const MAX_CUT: usize = 24;

/// How pixels of some vectors are cut into tiles.
#[derive(Clone, Debug)]
struct PixelCut {
    /// Tiles of these vectors.
    menu: Vec<ProductTile>,
    /// The first tile of the cheapest cut of `n` pixels, for every `n`.
    first: Vec<usize>,
    largest: usize,
}

impl PixelCut {
    fn new(isa: Isa, n_vectors: usize) -> Self {
        let menu: Vec<_> = tiles(isa).iter().filter(|tile| tile.n_vectors == n_vectors).copied().collect();
        // In cycles of two multiply-adds or two loads; a chain of multiply-adds takes four cycles a link.
        let cost = |tile: &ProductTile| {
            let (p, v) = (tile.n_pixels as f64, tile.n_vectors as f64);
            (p * v / 2.0).max((p + v) / 2.0).max(4.0) + 0.25
        };
        let mut best = vec![(0.0, 0); MAX_CUT + 1];
        for n in 1..=MAX_CUT {
            let fitting = menu.iter().enumerate().filter(|(_, tile)| tile.n_pixels <= n);
            let costs = fitting.map(|(i, tile)| (best[n - tile.n_pixels].0 + cost(tile), i));
            best[n] = costs.min_by(|x, y| x.0.total_cmp(&y.0)).expect("the one-pixel tile always fits");
        }
        let largest = (0..menu.len()).max_by_key(|&i| menu[i].n_pixels).expect("there are tiles");
        Self { menu, first: best.into_iter().map(|(_, first)| first).collect(), largest }
    }

    /// Calls `run(tile, first pixel, tiles)` until all `n_pixels` are done.
    fn for_each(&self, n_pixels: usize, mut run: impl FnMut(ProductFn, usize, usize)) {
        let largest = &self.menu[self.largest];
        let n_large = n_pixels.saturating_sub(MAX_CUT - largest.n_pixels) / largest.n_pixels;
        let mut at = n_large * largest.n_pixels;
        if n_large > 0 {
            run(largest.run, 0, n_large);
        }
        while at < n_pixels {
            let tile = &self.menu[self.first[n_pixels - at]];
            run(tile.run, at, 1);
            at += tile.n_pixels;
        }
    }
}

/// Pixels, or what lies under a kernel at each of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelRows<'a> {
    /// First value of the first.
    pub values: &'a [f32],
    /// From one to the next.
    pub step: usize,
    /// How many.
    pub n: usize,
    /// In how many runs of the same length the values of each lie.
    pub n_runs: usize,
    /// From one run to the next.
    pub run_step: usize,
}

impl<'a> PixelRows<'a> {
    /// `n` pixels whose values lie side by side.
    pub(crate) const fn new(values: &'a [f32], step: usize, n: usize) -> Self {
        Self { values, step, n, n_runs: 1, run_step: 0 }
    }
}

/// Where products go: all vectors of channels of the same number of pixels.
#[derive(Debug)]
pub(crate) struct ProductOutput<'a> {
    /// First value of the first pixel.
    pub values: &'a mut [f32],
    /// From one pixel to the next.
    pub step: usize,
    /// What becomes of the sums, which are stored as they are without; its residual lies as `values` do.
    pub epilogue: Option<Epilogue<'a>>,
}

/// Filters packed for products, one set or several of the same size.
#[derive(Clone, Debug)]
pub(crate) struct PackedFilters {
    k: usize,
    n_filters: usize,
    n_vectors: usize,
    lanes: usize,
    /// First vector and how many.
    blocks: Vec<[usize; 2]>,
    /// By number of vectors, less one.
    cuts: Vec<PixelCut>,
    /// `[sets, blocks, K, block's vectors, LANES]`, zeros behind the last filter.
    weights: AlignedVec,
}

/// Values of a filter that are packed at a time: two lines of what is read.
const SET_RUN: usize = 32;

impl PackedFilters {
    /// `n_sets` sets of `n_filters` filters of `k` values, all zero.
    pub(crate) fn zeros(isa: Isa, k: usize, n_filters: usize, n_sets: usize) -> Self {
        let lanes = isa.lanes();
        let n_vectors = n_filters.div_ceil(lanes);
        let widest = widest(isa);
        let n_blocks = n_blocks(isa, k, n_vectors);
        let start = |b: usize| b * n_vectors / n_blocks;
        Self {
            k,
            n_filters,
            n_vectors,
            lanes,
            blocks: (0..n_blocks).map(|b| [start(b), start(b + 1) - start(b)]).collect(),
            cuts: (1..=widest).map(|v| PixelCut::new(isa, v)).collect(),
            weights: AlignedVec::zeros(n_sets * n_vectors * lanes * k),
        }
    }

    /// Bytes that [`Self::zeros`] allocates.
    pub(crate) fn bytes(isa: Isa, k: usize, n_filters: usize, n_sets: usize) -> u64 {
        let n_vectors = n_filters.div_ceil(isa.lanes());
        let widest = widest(isa);
        let n_weights = (n_sets * n_vectors * isa.lanes()) as u64;
        let cut = (size_of::<PixelCut>() + (MAX_CUT + 1) * size_of::<usize>() + 7 * size_of::<ProductTile>()) as u64;
        let blocks = (n_blocks(isa, k, n_vectors) * size_of::<[usize; 2]>()) as u64;
        AlignedVec::bytes(n_weights.saturating_mul(k as u64)) + blocks + widest as u64 * cut
    }

    /// Sets the values `at` of all filters of a set to `value(filter, at)`.
    pub(crate) fn set(&mut self, set: usize, at: Range<usize>, value: impl Fn(usize, usize) -> f32) {
        let lanes = self.lanes;
        let of_set = &mut self.weights[set * self.n_vectors * lanes * self.k..];
        for &[first, n] in &self.blocks {
            let block = &mut of_set[first * self.k * lanes..];
            let filters = first * lanes..self.n_filters.min((first + n) * lanes);
            // Few values of each filter at a time: what is read lies side by side, what is written stays in the cache.
            for start in at.clone().step_by(SET_RUN) {
                for filter in filters.clone() {
                    for at in start..at.end.min(start + SET_RUN) {
                        block[at * n * lanes + filter - filters.start] = value(filter, at);
                    }
                }
            }
        }
    }

    /// Products of `x` and a set of filters, added to `bias` `[vectors, LANES]`.
    pub(crate) fn multiply(&self, set: usize, x: PixelRows<'_>, bias: &[f32], out: &mut ProductOutput<'_>) {
        if x.n == 0 {
            return;
        }
        let lanes = self.lanes;
        let run_len = self.k / x.n_runs;
        assert_eq!(x.n_runs * run_len, self.k, "runs of a product");
        assert!((x.n - 1) * x.step + (x.n_runs - 1) * x.run_step + run_len <= x.values.len(), "pixels of a product");
        assert!((x.n - 1) * out.step + self.n_vectors * lanes <= out.values.len(), "output of a product");
        let residual = out.epilogue.and_then(|epilogue| epilogue.residual);
        assert!(residual.is_none_or(|r| r.len() == out.values.len()), "residual of a product");
        assert!(bias.len() >= self.n_vectors * lanes, "bias of a product");
        let of_set = &self.weights[set * self.n_vectors * lanes * self.k..][..self.n_vectors * lanes * self.k];
        for &[first, n_vectors] in &self.blocks {
            let weights = &of_set[first * self.k * lanes..];
            self.cuts[n_vectors - 1].for_each(x.n, |run, at, n_tiles| {
                let to = at * out.step + first * lanes;
                let job = PixelProductJob {
                    x: x.values[at * x.step..].as_ptr(),
                    x_step: x.step,
                    runs: [x.n_runs, run_len],
                    run_step: x.run_step,
                    weights: weights.as_ptr(),
                    bias: bias[first * lanes..].as_ptr(),
                    out: out.values[to..].as_mut_ptr(),
                    out_step: out.step,
                    finish: out.epilogue.map(|epilogue| epilogue.from(to)),
                };
                // SAFETY: the instructions were checked when the plan was compiled. The cut's tiles are among the
                // `x.n` pixels, whose values, outputs and residuals lie within the slices (asserted); weights hold
                // `k` steps of the block's vectors; `out` is borrowed exclusively.
                unsafe { run(&job, n_tiles) }
            });
        }
    }
}
