//! What the processor could do at most.
#![allow(unsafe_code)]

use std::time::Instant;

use crate::KernelError;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::tile::{TileJob, TileKernel};
use crate::simd::aligned::AlignedVec;

/// Most multiply-adds per second of one core with `arithmetic`, as GFLOP/s (a multiply-add counts two): the fastest of
/// the register tiles on data that stay in the first-level cache, best of several runs of a millisecond or so.
///
/// # Errors
/// When this processor lacks the instructions.
pub fn peak_gflops(arithmetic: impl Into<Arithmetic>) -> Result<f64, KernelError> {
    let arithmetic = arithmetic.into().checked()?;
    let tiles = arithmetic.tiles().iter().filter(|tile| tile.n_pixels * tile.n_channels >= 8);
    Ok(tiles.map(|tile| gflops(arithmetic, tile)).fold(0.0, f64::max))
}

/// Input words of a pixel, and how often a tile goes through them: enough steps that its beginning and end cost next to
/// nothing.
const N_IN: usize = 32;
const N_TURNS: usize = 16;

fn gflops(arithmetic: Arithmetic, tile: &TileKernel) -> f64 {
    let &TileKernel { n_pixels: p, n_channels: c, run } = tile;
    let lanes = arithmetic.lanes();
    let (x, weights) = (AlignedVec::zeros(p * N_IN * lanes), AlignedVec::zeros(N_IN * c));
    let (bias, mut out) = (vec![0.0; c], AlignedVec::zeros(p * c * lanes));
    let job = TileJob {
        x: x.as_ptr(),
        pixel_step: N_IN * lanes,
        // Every row of taps is the same one again.
        taps: [N_TURNS, 1],
        tap_steps: [0, 0],
        n_in: N_IN,
        weights: weights.as_ptr(),
        weights_step: 0,
        bias: bias.as_ptr(),
        out: out.as_mut_ptr(),
        out_step: c * lanes,
        finish: None,
    };
    let n_products = p * c * N_IN * N_TURNS;
    let n_runs = 4_000_000 / n_products;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..n_runs {
            // SAFETY: the callers checked that this processor has the instructions; all buffers hold one tile of P
            // pixels and C channels.
            unsafe { run(&job, 1) }
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (n_products * lanes * arithmetic.channels_per_word() * n_runs) as f64 / best / 1e9
}
