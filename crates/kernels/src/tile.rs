//! The innermost loops: a register tile of `P` output pixels by `B` vectors of output channels, for every instruction set.
//!
//! Each output value is one chain of multiply-adds in a fixed order (bias first, then segment by segment), whatever `P` and `B`:
//! how pixels are cut into tiles never changes a result.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Isa, Lanes, Portable};

/// One group of `B` output-channel vectors of a convolution, over any pixels.
///
/// Input values of output pixel `q` are the segments `x[pixel_offsets[q] + s ..][.. segment_len]` for `s` in `segments`.
#[derive(Debug)]
pub struct TileJob<'a> {
    /// Input, already offset to the first channel read.
    pub x: *const f32,
    /// Where each output pixel's window starts.
    pub pixel_offsets: &'a [u32],
    /// Starts of the contiguous runs of a window.
    pub segments: &'a [u32],
    /// Values per run.
    pub segment_len: usize,
    /// `[segments * segment_len, B * LANES]`
    pub weights: *const f32,
    /// `[B * LANES]`, initial value of the sums.
    pub bias: *const f32,
    /// Output, already offset to the first channel written.
    pub out: *mut f32,
    /// Added before clamping; null for none. Same layout as `out`.
    pub residual: *const f32,
    /// Values from one output pixel to the next.
    pub out_pitch: usize,
    /// Used lanes of the last vector, `1..=LANES`.
    pub last_lanes: usize,
    /// Smallest and largest output.
    pub clamp: [f32; 2],
}

/// Computes `n_tiles` tiles from output pixel `start` on.
///
/// # Safety
/// The processor must have the function's instruction set; every address the job names must be valid for pixels
/// `start .. start + n_tiles * P`: reads of input, weights, bias and residual, writes of output; output must not overlap the rest.
pub type TileFn = unsafe fn(&TileJob, start: usize, n_tiles: usize);

#[inline(always)]
unsafe fn run_tiles<L: Lanes, const P: usize, const B: usize>(job: &TileJob, start: usize, n_tiles: usize) {
    for first in (0..n_tiles).map(|t| start + t * P) {
        // SAFETY: the caller's promise (`TileFn`) covers these P pixels.
        unsafe {
            let acc = sum_windows::<L, P, B>(job, first);
            finish_tile::<L, P, B>(job, first, &acc);
        }
    }
}

#[inline(always)]
unsafe fn sum_windows<L: Lanes, const P: usize, const B: usize>(job: &TileJob, first: usize) -> [[L::V; B]; P] {
    // SAFETY: the caller's promise (`TileFn`) covers the windows of these P pixels and all weights.
    unsafe {
        let offsets = job.pixel_offsets.as_ptr().add(first);
        let windows: [*const f32; P] = std::array::from_fn(|p| job.x.add(*offsets.add(p) as usize));
        let bias: [L::V; B] = std::array::from_fn(|b| L::load(job.bias.add(b * L::LANES)));
        let mut acc = [bias; P];
        let mut w = job.weights;
        for &segment in job.segments {
            let x: [*const f32; P] = std::array::from_fn(|p| windows[p].add(segment as usize));
            for i in 0..job.segment_len {
                let wv: [L::V; B] = std::array::from_fn(|b| L::load(w.add(b * L::LANES)));
                for p in 0..P {
                    let xv = L::splat(*x[p].add(i));
                    for b in 0..B {
                        acc[p][b] = L::fma(xv, wv[b], acc[p][b]);
                    }
                }
                w = w.add(B * L::LANES);
            }
        }
        acc
    }
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the indices are pixel and vector, and also make up addresses")]
unsafe fn finish_tile<L: Lanes, const P: usize, const B: usize>(job: &TileJob, first: usize, acc: &[[L::V; B]; P]) {
    // SAFETY: the caller's promise (`TileFn`) covers output and residual of these P pixels, `last_lanes` values in the last vector.
    unsafe {
        let mask = L::mask(job.last_lanes);
        let (low, high) = (L::splat(job.clamp[0]), L::splat(job.clamp[1]));
        for p in 0..P {
            for b in 0..B {
                let at = (first + p) * job.out_pitch + b * L::LANES;
                let whole = b + 1 < B || job.last_lanes == L::LANES;
                let mut v = acc[p][b];
                if !job.residual.is_null() {
                    let r = job.residual.add(at);
                    v = L::add(v, if whole { L::load(r) } else { L::load_first(r, mask) });
                }
                v = L::clamp(v, low, high);
                if whole { L::store(job.out.add(at), v) } else { L::store_first(job.out.add(at), v, mask) }
            }
        }
    }
}

macro_rules! tile_table {
    ($name:ident, $run:ident, $lanes:ty, $([$feature:literal],)? $( $b:literal: [$($p:literal),*] ),*) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $run<const P: usize, const B: usize>(job: &TileJob, start: usize, n_tiles: usize) {
            // SAFETY: same contract, and this function enables the instructions.
            unsafe { run_tiles::<$lanes, P, B>(job, start, n_tiles) }
        }
        /// `(B, P, function)` of all tiles, `P` ascending for each `B`.
        static $name: &[(usize, usize, TileFn)] = &[$($(($b, $p, $run::<$p, $b>)),*),*];
    };
}

// 32 registers hold P * B sums, B weight vectors and an input value.
#[cfg(target_arch = "x86_64")]
tile_table!(AVX512, run_avx512, Avx512, ["avx512f"],
    1: [1, 2, 4, 6, 8, 12, 16, 20, 24], 2: [1, 2, 4, 6, 8, 10, 12, 14], 3: [1, 2, 4, 6, 8], 4: [1, 2, 4, 6]);
// 16 registers.
#[cfg(target_arch = "x86_64")]
tile_table!(AVX2, run_avx2, Avx2, ["avx2,fma"], 1: [1, 2, 4, 8, 12], 2: [1, 2, 4, 6], 3: [1, 2, 4], 4: [1, 2]);
tile_table!(PORTABLE, run_portable, Portable, 1: [1, 2, 4, 6], 2: [1, 2, 3], 3: [1, 2], 4: [1]);

/// All tiles of an instruction set as `(B, P, function)`.
pub fn tiles(isa: Isa) -> &'static [(usize, usize, TileFn)] {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => AVX512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => AVX2,
        _ => PORTABLE,
    }
}
