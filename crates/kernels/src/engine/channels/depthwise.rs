//! Depthwise convolution (one filter per channel) on maps whose vectors are channels. Taps outside the image are
//! skipped.
#![allow(unsafe_code)]
#![expect(clippy::needless_range_loop, reason = "indices are pixels and vectors, and also make up addresses")]

use std::ops::Range;

use secateur_net::Conv2d;

use super::maps::ChannelMap;
use crate::engine::conv::direct::{Epilogue, inner_outputs, set_bias, valid_taps};
use crate::engine::conv::tile::Finish;
use crate::simd::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::simd::lanes::{Avx2, Avx512};
use crate::simd::lanes::{Lanes, Portable};

/// A depthwise convolution with as many outputs as inputs.
#[derive(Clone, Debug)]
pub(crate) struct ChannelDepthwiseKernel {
    conv: Conv2d,
    maps: [ChannelMap; 2],
    /// Rows and columns of taps inside the image, for every output row and column.
    valid: [Vec<Range<usize>>; 2],
    /// Output columns all of whose taps are inside.
    inner: Range<usize>,
    /// `[taps, pitch]`
    weights: Vec<f32>,
    /// `[pitch]`
    bias: Vec<f32>,
    run: PixelsFn,
}

/// All channels of some neighbouring output pixels that have the same taps; steps in values.
struct PixelsJob {
    x: *const f32,
    /// From one output pixel's input to the next.
    pixel_step: usize,
    taps: [usize; 2],
    tap_steps: [usize; 2],
    weights: *const f32,
    weights_step: usize,
    bias: *const f32,
    /// Values of a pixel of the output, and of a tap's weights.
    pitch: usize,
    n_pixels: usize,
    out: *mut f32,
    finish: Finish,
}

/// # Safety
/// The processor must have the function's instruction set, and every address the job names must be valid for all its
/// pixels, taps and vectors of channels. Output must not overlap the rest.
type PixelsFn = unsafe fn(&PixelsJob);

impl ChannelDepthwiseKernel {
    /// Packs `weight` `[channels, 1, kh, kw]` and `bias` `[channels]`.
    pub(crate) fn new(isa: Isa, conv: &Conv2d, maps: [ChannelMap; 2], weight: &[f32], bias: Option<&[f32]>) -> Self {
        let [input, output] = maps;
        let (c, pitch) = (output.shape.c, output.pitch);
        let n_taps = conv.kernel[0] * conv.kernel[1];
        assert_eq!(weight.len(), n_taps * c, "depthwise weight length");
        let mut weights = vec![0.0; n_taps * pitch];
        for (tap, weights) in weights.chunks_exact_mut(pitch).enumerate() {
            weights.iter_mut().zip(weight[tap..].iter().step_by(n_taps)).for_each(|(to, &w)| *to = w);
        }
        let mut of_output = vec![0.0; pitch];
        set_bias(&mut of_output[..c], bias);
        let valid =
            [valid_taps(conv, 0, input.shape.h, output.shape.h), valid_taps(conv, 1, input.shape.w, output.shape.w)];
        let run = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => run_avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => run_avx2,
            _ => run_portable as PixelsFn,
        };
        let inner = inner_outputs(valid[1].iter().cloned(), conv.kernel[1]);
        Self { conv: conv.clone(), maps, valid, inner, weights, bias: of_output, run }
    }

    /// Bytes that [`Self::new`] allocates.
    pub(crate) fn bytes(conv: &Conv2d, output: ChannelMap) -> u64 {
        let values = (conv.kernel[0] * conv.kernel[1] + 1).saturating_mul(output.pitch) as u64;
        values.saturating_mul(4) + (size_of::<Range<usize>>() * (output.shape.h + output.shape.w)) as u64
    }

    /// Computes the output rows `rows` of a group of images, counted through all of them. `x` is the whole group, `out`
    /// and the residual are these rows alone.
    pub(crate) fn run_rows(&self, x: &[f32], rows: Range<usize>, epilogue: Epilogue, out: &mut [f32]) {
        let [input, output] = &self.maps;
        let row_len = output.shape.w * output.pitch;
        assert_eq!(input.pitch, output.pitch, "depthwise channels");
        assert!(x.len().is_multiple_of(input.len()), "depthwise input length");
        assert!(rows.end <= x.len() / input.len() * output.shape.h, "depthwise output rows");
        assert_eq!(out.len(), rows.len() * row_len, "depthwise output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        for (at, row) in rows.enumerate() {
            let (image, row) = (row / output.shape.h, row % output.shape.h);
            let x = &x[image * input.len()..][..input.len()];
            let mut run = |columns: Range<usize>| self.run_pixels(x, row, columns, epilogue, at * row_len, out);
            (0..self.inner.start).for_each(|column| run(column..column + 1));
            run(self.inner.clone());
            (self.inner.end..output.shape.w).for_each(|column| run(column..column + 1));
        }
    }

    /// Computes some columns of an image's row, all of which have the same taps inside the image. The row lies at
    /// `row_at` of `out`.
    fn run_pixels(
        &self,
        x: &[f32],
        row: usize,
        columns: Range<usize>,
        epilogue: Epilogue,
        row_at: usize,
        out: &mut [f32],
    ) {
        if columns.is_empty() {
            return;
        }
        let (conv, w, pitch) = (&self.conv, self.maps[0].shape.w, self.maps[1].pitch);
        let taps = [&self.valid[0][row], &self.valid[1][columns.start]];
        let has_taps = taps.iter().all(|taps| !taps.is_empty());
        let place = |at: usize, axis: usize| {
            at * conv.stride[axis] + taps[axis].start * conv.dilation[axis] - conv.padding[axis]
        };
        let (from, weights) = if has_taps {
            let from = (place(row, 0) * w + place(columns.start, 1)) * pitch;
            (from, (taps[0].start * conv.kernel[1] + taps[1].start) * pitch)
        } else {
            (0, 0)
        };
        let to = row_at + columns.start * pitch;
        assert!(to + columns.len() * pitch <= out.len(), "depthwise output");
        let job = PixelsJob {
            x: x[from..].as_ptr(),
            pixel_step: conv.stride[1] * pitch,
            taps: if has_taps { taps.map(Range::len) } else { [0, 0] },
            tap_steps: [w * conv.dilation[0] * pitch, conv.dilation[1] * pitch],
            weights: self.weights[weights..].as_ptr(),
            weights_step: conv.kernel[1] * pitch,
            bias: self.bias.as_ptr(),
            pitch,
            n_pixels: columns.len(),
            out: out[to..].as_mut_ptr(),
            finish: epilogue.from(to),
        };
        // SAFETY: the instructions were checked when the plan was compiled. `valid_taps` names only taps inside `x`, a
        // whole image, and the columns share them; weights and bias hold `pitch` values for each tap; output and
        // residual, which is as long, hold the pixels (asserted here and in `run_rows`); `out` is borrowed exclusively.
        unsafe { (self.run)(&job) }
    }
}

/// Sums in registers hide the latency of a multiply-add: of many pixels, else of some vectors.
#[inline(always)]
unsafe fn run_job<L: Lanes>(job: &PixelsJob) {
    // SAFETY: the caller's promise (`PixelsFn`) covers all pixels and vectors.
    unsafe {
        let mut pixel = 0;
        while pixel + 8 <= job.n_pixels {
            run_vectors::<L, 8, 1>(job, pixel);
            pixel += 8;
        }
        while pixel + 4 <= job.n_pixels {
            run_vectors::<L, 4, 2>(job, pixel);
            pixel += 4;
        }
        while pixel < job.n_pixels {
            run_vectors::<L, 1, 4>(job, pixel);
            pixel += 1;
        }
    }
}

/// All vectors of `P` pixels, `V` at a time.
#[inline(always)]
unsafe fn run_vectors<L: Lanes, const P: usize, const V: usize>(job: &PixelsJob, pixel: usize) {
    // SAFETY: the caller's promise (`PixelsFn`) covers all vectors of these pixels.
    unsafe {
        let mut at = 0;
        while at + V * L::LANES <= job.pitch {
            run_tile::<L, P, V>(job, pixel, at);
            at += V * L::LANES;
        }
        while at < job.pitch {
            run_tile::<L, P, 1>(job, pixel, at);
            at += L::LANES;
        }
    }
}

#[inline(always)]
unsafe fn run_tile<L: Lanes, const P: usize, const V: usize>(job: &PixelsJob, pixel: usize, at: usize) {
    // SAFETY: the caller's promise (`PixelsFn`) covers all taps of these vectors of these pixels.
    unsafe {
        // Plain loops: within closures the vector instructions would not always be inlined.
        let mut acc = [[L::splat(0.0); V]; P];
        for v in 0..V {
            let bias = L::load(job.bias.add(at + v * L::LANES));
            for p in 0..P {
                acc[p][v] = bias;
            }
        }
        let first = job.x.add(pixel * job.pixel_step + at);
        for row in 0..job.taps[0] {
            let mut x = first.add(row * job.tap_steps[0]);
            let mut w = job.weights.add(row * job.weights_step + at);
            for _ in 0..job.taps[1] {
                for v in 0..V {
                    let wv = L::load(w.add(v * L::LANES));
                    for p in 0..P {
                        acc[p][v] = L::fma(L::load(x.add(p * job.pixel_step + v * L::LANES)), wv, acc[p][v]);
                    }
                }
                x = x.wrapping_add(job.tap_steps[1]);
                w = w.wrapping_add(job.pitch);
            }
        }
        for p in 0..P {
            for v in 0..V {
                let to = (pixel + p) * job.pitch + at + v * L::LANES;
                L::store(job.out.add(to), job.finish.apply::<L>(acc[p][v], to));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(job: &PixelsJob) {
    // SAFETY: same contract, and this function enables the instructions.
    unsafe { run_job::<Avx512>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(job: &PixelsJob) {
    // SAFETY: same contract, and this function enables the instructions.
    unsafe { run_job::<Avx2>(job) }
}

unsafe fn run_portable(job: &PixelsJob) {
    // SAFETY: same contract.
    unsafe { run_job::<Portable>(job) }
}
