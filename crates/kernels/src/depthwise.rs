//! Depthwise convolution (one filter per channel), vectorised over channels.
#![allow(unsafe_code)]

use secateur_net::{Conv2d, Shape};

use crate::KernelError;
use crate::aligned::AlignedVec;
use crate::conv::{Epilogue, Windows};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Isa, Lanes, Portable};

/// A depthwise convolution with as many outputs as inputs, its weights packed for one instruction set.
#[derive(Clone, Debug)]
pub struct DepthwiseKernel {
    windows: Windows,
    out_shape: Shape,
    /// `[vectors, taps, LANES]`
    weights: AlignedVec,
    /// `[vectors, LANES]`
    bias: AlignedVec,
    run: DepthwiseFn,
}

/// One image's arguments, all offsets in values.
struct Job<'a> {
    x: *const f32,
    pixel_offsets: &'a [u32],
    tap_offsets: &'a [u32],
    weights: *const f32,
    bias: *const f32,
    out: *mut f32,
    residual: *const f32,
    n_channels: usize,
    clamp: [f32; 2],
}

/// # Safety
/// The processor must have the function's instruction set, and every address the job names must be valid for all its pixels and channels.
type DepthwiseFn = unsafe fn(&Job);

/// Output pixels whose sums are held in registers together.
const TILE: usize = 6;

impl DepthwiseKernel {
    /// Packs `weight` `[channels, 1, kh, kw]` and `bias` `[channels]`.
    ///
    /// # Errors
    /// When the padded input is too large; `node` names the culprit.
    pub fn new(
        (node, isa, batch): (&str, Isa, usize),
        conv: &Conv2d,
        [in_shape, out_shape]: [Shape; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        let windows = Windows::new(node, conv, in_shape, out_shape, batch)?;
        windows.assert_inside(batch, 0, in_shape.c);
        let (c, lanes, n_taps) = (in_shape.c, isa.lanes(), conv.kernel[0] * conv.kernel[1]);
        assert_eq!(weight.len(), c * n_taps, "depthwise weight length");
        let n_vectors = c.div_ceil(lanes);
        let mut packed = AlignedVec::zeros(n_vectors * n_taps * lanes);
        for (channel, filter) in weight.chunks_exact(n_taps).enumerate() {
            let (vector, lane) = (channel / lanes, channel % lanes);
            filter.iter().enumerate().for_each(|(t, &w)| packed[(vector * n_taps + t) * lanes + lane] = w);
        }
        let mut packed_bias = AlignedVec::zeros(n_vectors * lanes);
        if let Some(bias) = bias {
            packed_bias[..c].copy_from_slice(bias);
        }
        Ok(Self { windows, out_shape, weights: packed, bias: packed_bias, run: function(isa) })
    }

    /// Convolves `n` images `[n, H, W, C]`.
    pub fn run(&self, x: &[f32], n: usize, epilogue: Epilogue, out: &mut [f32], scratch: &mut AlignedVec) {
        assert_eq!(out.len(), n * self.out_shape.len(), "depthwise output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        let job = Job {
            x: self.windows.padded(x, n, scratch).as_ptr(),
            pixel_offsets: &self.windows.pixel_offsets[..n * self.out_shape.h * self.out_shape.w],
            tap_offsets: &self.windows.tap_offsets,
            weights: self.weights.as_ptr(),
            bias: self.bias.as_ptr(),
            out: out.as_mut_ptr(),
            residual: epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            n_channels: self.out_shape.c,
            clamp: epilogue.clamp,
        };
        // SAFETY: the instruction set was checked when the kernel was made; output and residual hold `n` images (asserted above),
        // windows stay inside the padded input (asserted in `new`; images come one after the other, so `n` of them need only the
        // first `n` padded images), weights and bias were packed for these channels, and `out` is borrowed exclusively.
        unsafe { (self.run)(&job) }
    }
}

fn function(isa: Isa) -> DepthwiseFn {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => run_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => run_avx2,
        _ => run_portable,
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_avx512(job: &Job) {
    // SAFETY: same contract; this function enables the instructions.
    unsafe { run_image::<Avx512>(job) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(job: &Job) {
    // SAFETY: same contract; this function enables the instructions.
    unsafe { run_image::<Avx2>(job) }
}

unsafe fn run_portable(job: &Job) {
    // SAFETY: same contract.
    unsafe { run_image::<Portable>(job) }
}

#[inline(always)]
unsafe fn run_image<L: Lanes>(job: &Job) {
    let n_pixels = job.pixel_offsets.len();
    let n_tiled = n_pixels / TILE * TILE;
    // SAFETY: the caller's promise (`DepthwiseFn`) covers all pixels and channels; tiles and the pixels after them stay below `n_pixels`.
    unsafe {
        (0..n_tiled).step_by(TILE).for_each(|first| run_channels::<L, TILE>(job, first));
        (n_tiled..n_pixels).for_each(|first| run_channels::<L, 1>(job, first));
    }
}

#[inline(always)]
unsafe fn run_channels<L: Lanes, const P: usize>(job: &Job, first: usize) {
    let n_whole = job.n_channels / L::LANES;
    // SAFETY: the caller's promise; whole vectors end at or before the last channel, the masked one covers the rest.
    unsafe {
        (0..n_whole).for_each(|vector| run_vector::<L, P, true>(job, first, vector));
        if n_whole * L::LANES < job.n_channels {
            run_vector::<L, P, false>(job, first, n_whole);
        }
    }
}

/// One vector of channels (`WHOLE`, or the masked last one) of `P` output pixels.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the index is a pixel, and also makes up addresses")]
unsafe fn run_vector<L: Lanes, const P: usize, const WHOLE: bool>(job: &Job, first: usize, vector: usize) {
    let channel = vector * L::LANES;
    let n_taps = job.tap_offsets.len();
    // SAFETY: the caller's promise; masked forms touch only channels that exist.
    unsafe {
        let mask = L::mask((job.n_channels - channel).min(L::LANES));
        let load = |p: *const f32| if WHOLE { L::load(p) } else { L::load_first(p, mask) };
        let windows: [*const f32; P] =
            std::array::from_fn(|p| job.x.add(*job.pixel_offsets.get_unchecked(first + p) as usize + channel));
        let weights = job.weights.add(vector * n_taps * L::LANES);
        let mut acc = [L::load(job.bias.add(channel)); P];
        for (t, &tap) in job.tap_offsets.iter().enumerate() {
            let w = L::load(weights.add(t * L::LANES));
            for p in 0..P {
                acc[p] = L::fma(load(windows[p].add(tap as usize)), w, acc[p]);
            }
        }
        let (low, high) = (L::splat(job.clamp[0]), L::splat(job.clamp[1]));
        for p in 0..P {
            let at = (first + p) * job.n_channels + channel;
            let sum = if job.residual.is_null() { acc[p] } else { L::add(acc[p], load(job.residual.add(at))) };
            let v = L::clamp(sum, low, high);
            if WHOLE { L::store(job.out.add(at), v) } else { L::store_first(job.out.add(at), v, mask) }
        }
    }
}
