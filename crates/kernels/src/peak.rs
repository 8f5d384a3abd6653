//! What the processor could do at most.
#![allow(unsafe_code)]

use std::time::Instant;

use crate::aligned::AlignedVec;
use crate::simd::Isa;
use crate::tile::{TileJob, tiles};

/// Most multiply-adds per second of one core with the best instruction set, as GFLOP/s (a multiply-add counts two): the fastest of
/// the register tiles on data that stay in the first-level cache, best of several runs of a millisecond or so.
pub fn peak_gflops() -> f64 {
    let isa = Isa::detect();
    const N_IN: usize = 64;
    let lanes = isa.lanes();
    let measure = |&(p, c, run): &(usize, usize, crate::tile::TileFn)| {
        let (x, weights) = (AlignedVec::zeros(p * N_IN * lanes), AlignedVec::zeros(N_IN * c));
        let (bias, mut out) = (vec![0.0; c], AlignedVec::zeros(p * c * lanes));
        let job = TileJob {
            x: x.as_ptr(),
            pixel_step: N_IN * lanes,
            taps: [1, 1],
            tap_steps: [0, 0],
            n_in: N_IN,
            weights: weights.as_ptr(),
            weights_step: 0,
            bias: bias.as_ptr(),
            out: out.as_mut_ptr(),
            out_step: c * lanes,
            finish: None,
        };
        let n_runs = 4_000_000 / (p * c * N_IN);
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..n_runs {
                // SAFETY: `Isa::detect` names what this processor has; all buffers hold one tile of P pixels and C channels.
                unsafe { run(&job, 1) }
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        2.0 * (p * c * N_IN * lanes * n_runs) as f64 / best / 1e9
    };
    tiles(isa).iter().filter(|(p, c, _)| p * c >= 8).map(measure).fold(0.0, f64::max)
}
