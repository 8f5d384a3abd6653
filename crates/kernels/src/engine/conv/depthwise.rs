//! Depthwise convolution (one filter per channel) of a group of images. Taps outside the image are skipped.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "the index is a channel, and also makes up addresses")]

use std::ops::Range;

use secateur_net::{Conv2d, Shape};

use crate::engine::arithmetic::pack_filters;
use crate::engine::conv::direct::{Epilogue, set_bias, valid_taps};
use crate::engine::conv::tile::Finish;
use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};

/// A depthwise convolution with as many outputs as inputs, for one instruction set.
#[derive(Clone, Debug)]
pub(crate) struct DepthwiseKernel {
    conv: Conv2d,
    shapes: [Shape; 2],
    lanes: usize,
    /// Rows and columns of taps inside the image, for every output row and column.
    valid: [Vec<Range<usize>>; 2],
    /// `[taps, C]`
    weights: Vec<f32>,
    /// `[C]`
    bias: Vec<f32>,
    run: DepthwiseFn,
}

/// All channels of one output pixel; steps in values.
struct RowJob {
    x: *const f32,
    taps: [usize; 2],
    tap_steps: [usize; 2],
    weights: *const f32,
    weights_step: usize,
    bias: *const f32,
    n_channels: usize,
    out: *mut f32,
    finish: Finish,
}

/// # Safety
/// The processor must have the function's instruction set, and every address the job names must be valid for all its
/// taps and channels.
type DepthwiseFn = unsafe fn(&RowJob);

/// Channels whose sums are held in registers together: enough to hide the latency of a multiply-add.
const TILE: usize = 8;

impl DepthwiseKernel {
    /// Packs `weight` `[channels, 1, kh, kw]` and `bias` `[channels]`.
    pub(crate) fn new(isa: Isa, conv: &Conv2d, shapes: [Shape; 2], weight: &[f32], bias: Option<&[f32]>) -> Self {
        let [input, output] = shapes;
        let run = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => run_avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => run_avx2,
            _ => run_portable as DepthwiseFn,
        };
        let mut kernel = Self {
            conv: conv.clone(),
            shapes,
            lanes: isa.lanes(),
            valid: [valid_taps(conv, 0, input.h, output.h), valid_taps(conv, 1, input.w, output.w)],
            weights: vec![0.0; input.c * conv.kernel[0] * conv.kernel[1]],
            bias: vec![0.0; input.c],
            run,
        };
        kernel.set_weights(weight, bias);
        kernel
    }

    /// Packs other weights and another bias, of the same shapes; allocates nothing.
    pub(crate) fn set_weights(&mut self, weight: &[f32], bias: Option<&[f32]>) {
        let n_taps = self.conv.kernel[0] * self.conv.kernel[1];
        assert_eq!(weight.len(), self.weights.len(), "depthwise weight length");
        pack_filters(weight, [1, n_taps], self.shapes[0].c, &mut self.weights);
        set_bias(&mut self.bias, bias);
    }

    /// Bytes that [`Self::new`] allocates.
    pub(crate) fn bytes(conv: &Conv2d, [input, output]: [Shape; 2]) -> u64 {
        let n_weights = [conv.kernel[0], conv.kernel[1], input.c].iter().fold(1u64, |n, &f| n.saturating_mul(f as u64));
        let tables = size_of::<Range<usize>>() as u64 * (output.h + output.w) as u64;
        n_weights.saturating_add(input.c as u64).saturating_mul(4) + tables
    }

    /// Convolves one group of images `[H, W, C, LANES]`.
    pub(crate) fn run(&self, x: &[f32], epilogue: Epilogue, out: &mut [f32]) {
        self.run_rows(x, 0..self.shapes[1].h, epilogue, out);
    }

    /// Computes the output rows `rows`; `out` and the residual are theirs alone.
    pub(crate) fn run_rows(&self, x: &[f32], rows: Range<usize>, epilogue: Epilogue, out: &mut [f32]) {
        let (conv, [input, output], lanes) = (&self.conv, &self.shapes, self.lanes);
        let c = input.c;
        assert!(rows.end <= output.h, "depthwise output rows");
        assert_eq!(x.len(), input.len() * lanes, "depthwise input length");
        assert_eq!(out.len(), rows.len() * output.w * c * lanes, "depthwise output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        let first = rows.start;
        for oy in rows {
            let rows = &self.valid[0][oy];
            for (ox, columns) in self.valid[1].iter().enumerate() {
                let to = ((oy - first) * output.w + ox) * c * lanes;
                let has_taps = !rows.is_empty() && !columns.is_empty();
                let (from, weights) = if has_taps {
                    let y = oy * conv.stride[0] + rows.start * conv.dilation[0] - conv.padding[0];
                    let x = ox * conv.stride[1] + columns.start * conv.dilation[1] - conv.padding[1];
                    ((y * input.w + x) * c * lanes, (rows.start * conv.kernel[1] + columns.start) * c)
                } else {
                    (0, 0)
                };
                let job = RowJob {
                    x: x[from..].as_ptr(),
                    taps: if has_taps { [rows.len(), columns.len()] } else { [0, 0] },
                    tap_steps: [input.w * conv.dilation[0] * c * lanes, conv.dilation[1] * c * lanes],
                    weights: self.weights[weights..].as_ptr(),
                    weights_step: conv.kernel[1] * c,
                    bias: self.bias.as_ptr(),
                    n_channels: c,
                    out: out[to..].as_mut_ptr(),
                    finish: epilogue.from(to),
                };
                // SAFETY: the instruction set was checked when the kernel was made. `valid_taps` names only taps inside
                // `x`, whose length, like that of `out` and the residual, is asserted above; weights and bias hold `c`
                // channels; `out` is borrowed exclusively.
                unsafe { (self.run)(&job) }
            }
        }
    }
}

#[inline(always)]
unsafe fn run_pixel<L: Lanes>(job: &RowJob) {
    let whole = job.n_channels / TILE * TILE;
    // SAFETY: the caller's promise (`DepthwiseFn`) covers all channels.
    unsafe {
        for first in (0..whole).step_by(TILE) {
            run_channels::<L, TILE>(job, first);
        }
        for first in whole..job.n_channels {
            run_channels::<L, 1>(job, first);
        }
    }
}

#[inline(always)]
unsafe fn run_channels<L: Lanes, const C: usize>(job: &RowJob, first: usize) {
    // SAFETY: the caller's promise (`DepthwiseFn`) covers all taps of channels `first .. first + C`.
    unsafe {
        // Plain loops: within closures the vector instructions would not always be inlined.
        let mut acc = [L::splat(0.0); C];
        for c in 0..C {
            acc[c] = L::splat(*job.bias.add(first + c));
        }
        for row in 0..job.taps[0] {
            for column in 0..job.taps[1] {
                let x = job.x.add(row * job.tap_steps[0] + column * job.tap_steps[1] + first * L::LANES);
                let w = job.weights.add(row * job.weights_step + column * job.n_channels + first);
                for c in 0..C {
                    acc[c] = L::fma(L::load(x.add(c * L::LANES)), L::splat(*w.add(c)), acc[c]);
                }
            }
        }
        for c in 0..C {
            let at = (first + c) * L::LANES;
            L::store(job.out.add(at), job.finish.apply::<L>(acc[c], at));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(job: &RowJob) {
    // SAFETY: same contract, and this function enables the instructions.
    unsafe { run_pixel::<Avx512>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(job: &RowJob) {
    // SAFETY: same contract, and this function enables the instructions.
    unsafe { run_pixel::<Avx2>(job) }
}

unsafe fn run_portable(job: &RowJob) {
    // SAFETY: same contract.
    unsafe { run_pixel::<Portable>(job) }
}
