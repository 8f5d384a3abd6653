//! The register tiles of `tile.rs` for pairs of bf16 (AVX512-BF16): a word of input and of weights is two channels,
//! sums are f32.
//!
//! Each sum is one chain in a fixed order: bias first, then tap by tap, word by word, the processor's own order within
//! a pair.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are pixels and channels, and also make up addresses")]

use std::arch::x86_64::*;

use crate::engine::conv::tile::{Finish, TileJob, TileKernel};
use crate::simd::pairs::Interleave;

/// Lanes of a vector.
const LANES: usize = 16;

/// # Safety
/// As [`TileFn`](super::tile::TileFn), in words: with a `finish`, outputs are pairs (an odd last channel gets zero for
/// a partner), without they are f32 sums.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn run<const P: usize, const C: usize>(job: &TileJob, n_tiles: usize) {
    for first in (0..n_tiles).map(|t| t * P) {
        // SAFETY: the caller's promise covers these P pixels, and this function has the instructions.
        unsafe {
            let acc = sum_taps::<P, C>(job, first);
            match job.finish {
                Some(finish) => finish_tile::<P, C>(job, first, finish, &acc),
                None => store_sums::<P, C>(job, first, &acc),
            }
        }
    }
}

#[inline(always)]
unsafe fn sum_taps<const P: usize, const C: usize>(job: &TileJob, first: usize) -> [[__m512; C]; P] {
    // SAFETY: the caller's promise (`TileFn`) covers all taps of these P pixels and all weights. Pairs are 32 bits as
    // f32 are.
    unsafe {
        // Plain loops: within closures the vector instructions would not always be inlined.
        let mut acc = [[_mm512_setzero_ps(); C]; P];
        for c in 0..C {
            let bias = _mm512_set1_ps(*job.bias.add(c));
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
                    let mut xv = [_mm512_setzero_ps(); P];
                    for p in 0..P {
                        xv[p] = _mm512_loadu_ps(x.add(p * job.pixel_step));
                    }
                    for c in 0..C {
                        let wv = _mm512_set1_ps(*w.add(c));
                        for p in 0..P {
                            acc[p][c] = dot(acc[p][c], xv[p], wv);
                        }
                    }
                    x = x.add(LANES);
                    w = w.add(C);
                }
            }
        }
        acc
    }
}

/// `acc + x.even * w.even + x.odd * w.odd`
#[inline(always)]
unsafe fn dot(acc: __m512, x: __m512, w: __m512) -> __m512 {
    // SAFETY: the caller's function has the instructions; vectors of one size.
    unsafe {
        _mm512_dpbf16_ps(acc, std::mem::transmute::<__m512, __m512bh>(x), std::mem::transmute::<__m512, __m512bh>(w))
    }
}

#[inline(always)]
unsafe fn store_sums<const P: usize, const C: usize>(job: &TileJob, first: usize, acc: &[[__m512; C]; P]) {
    // SAFETY: the caller's promise (`TileFn`) covers the output of these P pixels.
    unsafe {
        for p in 0..P {
            for c in 0..C {
                _mm512_storeu_ps(job.out.add((first + p) * job.out_step + c * LANES), acc[p][c]);
            }
        }
    }
}

#[inline(always)]
unsafe fn finish_tile<const P: usize, const C: usize>(
    job: &TileJob,
    first: usize,
    finish: Finish,
    acc: &[[__m512; C]; P],
) {
    // SAFETY: the caller's promise (`TileFn`) covers output and residual of these P pixels.
    unsafe {
        let finish = FinishPair::new(finish);
        for p in 0..P {
            for word in 0..C.div_ceil(2) {
                let at = (first + p) * job.out_step + word * LANES;
                let odd = if 2 * word + 1 < C { acc[p][2 * word + 1] } else { _mm512_setzero_ps() };
                let value = finish.apply(acc[p][2 * word], odd, at, 2 * word + 1 < C);
                _mm512_storeu_ps(job.out.add(at), value);
            }
        }
    }
}

/// A [`Finish`] of pairs.
#[derive(Clone, Copy)]
pub(crate) struct FinishPair {
    residual: *const f32,
    low: __m512,
    high: __m512,
    interleave: Interleave,
}

impl FinishPair {
    /// # Safety
    /// The processor must have AVX-512F, AVX512BW and AVX512-BF16.
    #[inline(always)]
    pub(crate) unsafe fn new(finish: Finish) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let [low, high] = finish.clamp;
            Self {
                residual: finish.residual,
                low: _mm512_set1_ps(low),
                high: _mm512_set1_ps(high),
                interleave: Interleave::new(),
            }
        }
    }
    /// The final pair of two sums at offset `at` of the output; without an odd channel its half is zero.
    ///
    /// # Safety
    /// As [`FinishPair::new`]; the residual, if any, must hold a vector at `at`.
    #[inline(always)]
    pub(crate) unsafe fn apply(self, even: __m512, odd: __m512, at: usize, has_odd: bool) -> __m512 {
        // SAFETY: the caller's promise. max and min return their second operand when either is NaN.
        unsafe {
            let (mut even, mut odd) = (even, odd);
            if !self.residual.is_null() {
                let residual = Interleave::unpack(_mm512_loadu_ps(self.residual.add(at)));
                even = _mm512_add_ps(even, residual[0]);
                odd = _mm512_add_ps(odd, residual[1]);
            }
            even = _mm512_min_ps(self.high, _mm512_max_ps(self.low, even));
            odd = if has_odd { _mm512_min_ps(self.high, _mm512_max_ps(self.low, odd)) } else { _mm512_setzero_ps() };
            self.interleave.pack(even, odd)
        }
    }
}

macro_rules! tile_table {
    ($( $p:literal: [$($c:literal),*] ),*) => {
        /// All tiles: 32 registers hold P * C sums, P inputs and a weight.
        pub(crate) static TILES: &[TileKernel] =
            &[$($(TileKernel { n_pixels: $p, n_channels: $c, run: run::<$p, $c> }),*),*];
    };
}

tile_table!(
    1: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], 2: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    3: [1, 2, 3, 4, 5, 6, 7, 8], 4: [1, 2, 3, 4, 5, 6], 6: [1, 2, 3, 4], 8: [1, 2]);
