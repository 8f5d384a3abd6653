//! The innermost loops: a register tile of `P` output pixels by `C` output channels, for every instruction set. Each of
//! its sums is a vector whose lanes are different images, so no channel count leaves a lane idle.
//!
//! Each output value is one chain of multiply-adds in a fixed order (bias first, then tap by tap), whatever `P` and
//! `C`: how pixels and channels are cut into tiles never changes a result.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are pixels and channels, and also make up addresses")]

use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};
use crate::simd::prefetch::prefetch;

/// `C` output channels of consecutive output pixels of a group of images. Steps are in values.
#[derive(Debug)]
pub(crate) struct TileJob {
    /// Input of the first pixel at the first tap.
    pub x: *const f32,
    /// From one output pixel's input to the next.
    pub pixel_step: usize,
    /// Rows and columns of taps.
    pub taps: [usize; 2],
    /// From one tap to the next below and beside it.
    pub tap_steps: [usize; 2],
    /// Input channels, neighbours in memory.
    pub n_in: usize,
    /// `[tap columns, n_in, C]` per row of taps.
    pub weights: *const f32,
    /// From one row of taps' weights to the next.
    pub weights_step: usize,
    /// `[C]`, initial value of the sums.
    pub bias: *const f32,
    /// First output pixel, first of the channels.
    pub out: *mut f32,
    /// From one output pixel to the next.
    pub out_step: usize,
    /// What becomes of the sums; `None` stores them as they are.
    pub finish: Option<Finish>,
}

/// What is done with sums before they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    /// Added before clamping; null for none. Same layout as the output.
    pub residual: *const f32,
    /// Smallest and largest output.
    pub clamp: [f32; 2],
}

/// Computes `n_tiles` tiles, pixel after pixel.
///
/// # Safety
/// The processor must have the function's instruction set; every address the job names must be valid for `n_tiles * P`
/// pixels: reads of input, weights, bias and residual, writes of output; output must not overlap the rest.
pub(crate) type TileFn = unsafe fn(&TileJob, n_tiles: usize);

/// A size of register tile and what computes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileKernel {
    /// Pixels, P.
    pub n_pixels: usize,
    /// Output channels, C.
    pub n_channels: usize,
    /// Computes tiles of this size.
    pub run: TileFn,
}

#[inline(always)]
unsafe fn run_tiles<L: Lanes, const P: usize, const C: usize>(job: &TileJob, n_tiles: usize) {
    for first in (0..n_tiles).map(|t| t * P) {
        // SAFETY: the caller's promise (`TileFn`) covers these P pixels.
        unsafe {
            let acc = sum_taps::<L, P, C>(job, first);
            finish_tile::<L, P, C>(job, first, &acc);
        }
    }
}

/// Pixels are asked for so many values before they are multiplied: those of wide layers come from the second-level
/// cache, some runs side by side.
const AHEAD: usize = 256;

#[inline(always)]
unsafe fn sum_taps<L: Lanes, const P: usize, const C: usize>(job: &TileJob, first: usize) -> [[L::V; C]; P] {
    // SAFETY: the caller's promise (`TileFn`) covers all taps of these P pixels and all weights.
    unsafe {
        // Plain loops: within closures the vector instructions would not always be inlined.
        let mut acc = [[L::splat(0.0); C]; P];
        for c in 0..C {
            let bias = L::splat(*job.bias.add(c));
            for p in 0..P {
                acc[p][c] = bias;
            }
        }
        let first = job.x.add(first * job.pixel_step);
        for row in 0..job.taps[0] {
            let x_row = first.add(row * job.tap_steps[0]);
            let mut w = job.weights.add(row * job.weights_step);
            for column in 0..job.taps[1] {
                let mut x = x_row.add(column * job.tap_steps[1]);
                for _ in 0..job.n_in {
                    let mut xv = [L::splat(0.0); P];
                    for p in 0..P {
                        xv[p] = L::load(x.add(p * job.pixel_step));
                        prefetch(x.wrapping_add(p * job.pixel_step + AHEAD));
                    }
                    for c in 0..C {
                        let wv = L::splat(*w.add(c));
                        for p in 0..P {
                            acc[p][c] = L::fma(xv[p], wv, acc[p][c]);
                        }
                    }
                    x = x.add(L::LANES);
                    w = w.add(C);
                }
            }
        }
        acc
    }
}

#[inline(always)]
unsafe fn finish_tile<L: Lanes, const P: usize, const C: usize>(job: &TileJob, first: usize, acc: &[[L::V; C]; P]) {
    // SAFETY: the caller's promise (`TileFn`) covers output and residual of these P pixels.
    unsafe {
        for p in 0..P {
            for c in 0..C {
                let at = (first + p) * job.out_step + c * L::LANES;
                let value = match job.finish {
                    Some(finish) => finish.apply::<L>(acc[p][c], at),
                    None => acc[p][c],
                };
                L::store(job.out.add(at), value);
            }
        }
    }
}

impl Finish {
    /// The final value of the sums at offset `at` of the output.
    ///
    /// # Safety
    /// The processor must have the instructions of `L`; the residual, if any, must hold a vector at `at`.
    #[inline(always)]
    pub(crate) unsafe fn apply<L: Lanes>(self, sum: L::V, at: usize) -> L::V {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = if self.residual.is_null() { sum } else { L::add(sum, L::load(self.residual.add(at))) };
            L::clamp(sum, L::splat(self.clamp[0]), L::splat(self.clamp[1]))
        }
    }
}

macro_rules! tile_table {
    ($name:ident, $run:ident, $lanes:ty, $([$feature:literal],)? $( $p:literal: [$($c:literal),*] ),*) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $run<const P: usize, const C: usize>(job: &TileJob, n_tiles: usize) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { run_tiles::<$lanes, P, C>(job, n_tiles) }
        }
        static $name: &[TileKernel] =
            &[$($(TileKernel { n_pixels: $p, n_channels: $c, run: $run::<$p, $c> }),*),*];
    };
}

// 32 registers hold P * C sums, P inputs and a weight.
#[cfg(target_arch = "x86_64")]
tile_table!(AVX512, run_avx512, Avx512, ["avx512f"],
    1: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 2: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    3: [1, 2, 3, 4, 5, 6, 7, 8], 4: [1, 2, 3, 4, 5, 6], 6: [1, 2, 3, 4], 8: [1, 2, 3]);
// 16 registers.
#[cfg(target_arch = "x86_64")]
tile_table!(AVX2, run_avx2, Avx2, ["avx2,fma"],
    1: [1, 2, 3, 4, 5, 6], 2: [1, 2, 3, 4, 5, 6], 3: [1, 2, 3, 4], 4: [1, 2]);
tile_table!(PORTABLE, run_portable, Portable, 1: [1, 2, 3, 4, 5, 6], 2: [1, 2, 3, 4], 3: [1, 2]);

/// All tiles of an instruction set; every number of channels up to the largest comes with one pixel.
pub(crate) fn tiles(isa: Isa) -> &'static [TileKernel] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => AVX512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => AVX2,
        _ => PORTABLE,
    }
}
