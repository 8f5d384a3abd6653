//! Direct convolution on register tiles. The input is copied once into a zero-padded buffer (only when there is padding), and every
//! output pixel is a window of that buffer; weights are packed in the order in which the tiles read them.
#![allow(unsafe_code)]

use secateur_net::{Conv2d, Shape};

use crate::KernelError;
use crate::aligned::AlignedVec;
use crate::layout;
use crate::simd::Isa;
use crate::tile::TileJob;
use crate::tiling::{PixelRun, pixel_runs, vector_groups};

/// Largest padded input, in values, over all images processed together.
const MAX_PADDED: usize = 1 << 28;

/// A convolution (any kernel, stride, padding, dilation, groups) with its weights packed for one instruction set.
#[derive(Clone, Debug)]
pub struct ConvKernel {
    windows: Windows,
    out_shape: Shape,
    batch: usize,
    /// How many inputs of a window are neighbours in memory.
    segment_len: usize,
    groups: Vec<VectorGroup>,
    /// By number of vectors in a group: how the pixels of one image, and of a whole batch, are cut into tiles.
    runs_one: [Vec<PixelRun>; 5],
    runs_batch: [Vec<PixelRun>; 5],
    weights: AlignedVec,
    bias: AlignedVec,
}

/// Output channels computed together; all offsets in values.
#[derive(Clone, Debug)]
struct VectorGroup {
    n_vectors: usize,
    last_lanes: usize,
    x_at: usize,
    out_at: usize,
    weights_at: usize,
    bias_at: usize,
}

/// Where the window of every output pixel lies in the padded input.
#[derive(Clone, Debug)]
pub struct Windows {
    in_shape: Shape,
    padding: [usize; 2],
    padded_len: usize,
    /// Start of every output pixel's window, images one after the other.
    pub pixel_offsets: Vec<u32>,
    /// Start of every kernel position (row-major) relative to the window.
    pub tap_offsets: Vec<u32>,
}

impl Windows {
    /// Windows of `batch` images of shape `in_shape`.
    ///
    /// # Errors
    /// When the padded input is too large; `node` names the culprit.
    pub fn new(
        node: &str,
        conv: &Conv2d,
        in_shape: Shape,
        out_shape: Shape,
        batch: usize,
    ) -> Result<Self, KernelError> {
        let [h, w] = [in_shape.h, in_shape.w].map(|n| n as u128);
        let [ph, pw] = conv.padding.map(|n| n as u128);
        let padded = [h + 2 * ph, w + 2 * pw, in_shape.c as u128];
        let len = padded.iter().fold(batch as u128, |n, &d| n.saturating_mul(d));
        if len > MAX_PADDED as u128 {
            let shape = padded.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            return Err(KernelError::PaddedInputTooLarge { node: node.into(), shape, max: MAX_PADDED });
        }
        let [h, w, c] = padded.map(|n| n as usize);
        let at = |image: usize, y: usize, x: usize| (((image * h + y) * w + x) * c) as u32;
        let mut pixel_offsets = Vec::with_capacity(batch * out_shape.h * out_shape.w);
        for image in 0..batch {
            for y in 0..out_shape.h {
                pixel_offsets.extend((0..out_shape.w).map(|x| at(image, y * conv.stride[0], x * conv.stride[1])));
            }
        }
        let [kh, kw] = conv.kernel;
        let taps = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx)));
        let tap_offsets = taps.map(|(ky, kx)| at(0, ky * conv.dilation[0], kx * conv.dilation[1])).collect();
        Ok(Self { in_shape, padding: conv.padding, padded_len: h * w * c, pixel_offsets, tap_offsets })
    }

    /// Makes one tap of those that are neighbours in memory (a kernel row without dilation, all channels); returns how many.
    fn merge_taps(&mut self, conv: &Conv2d) -> usize {
        if conv.dilation[1] != 1 {
            return 1;
        }
        self.tap_offsets = self.tap_offsets.iter().copied().step_by(conv.kernel[1]).collect();
        conv.kernel[1]
    }

    /// The padded form of `n` images: `x` itself when there is no padding, else a copy in `scratch`.
    pub fn padded<'a>(&self, x: &'a [f32], n: usize, scratch: &'a mut AlignedVec) -> &'a [f32] {
        assert_eq!(x.len(), n * self.in_shape.len(), "convolution input length");
        if self.padding == [0, 0] {
            return x;
        }
        scratch.grow(n * self.padded_len);
        let images = x.chunks_exact(self.in_shape.len()).zip(scratch.chunks_exact_mut(self.padded_len));
        let [rows, cols] = self.padding.map(|p| [p, p]);
        images.for_each(|(from, to)| layout::pad(from, self.in_shape, [0, 0], rows, cols, to));
        &scratch[..n * self.padded_len]
    }

    /// Checks that windows of `reach` values after the last tap, from channel `x_at` on, stay inside the padded images.
    pub fn assert_inside(&self, batch: usize, x_at: usize, reach: usize) {
        let last_pixel = self.pixel_offsets.iter().max().map_or(0, |&o| o as usize);
        let last_tap = self.tap_offsets.iter().max().map_or(0, |&o| o as usize);
        assert!(last_pixel + last_tap + x_at + reach <= batch * self.padded_len, "a window leaves the padded input");
    }
}

/// What is added to and done with the sums before they are stored.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Added to the output, same layout.
    pub residual: Option<&'a [f32]>,
    /// Smallest and largest output.
    pub clamp: [f32; 2],
}

impl ConvKernel {
    /// Packs `weight` `[out, in / groups, kh, kw]` and `bias` `[out]` for up to `batch` images of shape `in_shape` at a time.
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
        let mut windows = Windows::new(node, conv, in_shape, out_shape, batch)?;
        let in_group = conv.in_channels / conv.groups;
        let out_group = conv.out_channels / conv.groups;
        let [kh, kw] = conv.kernel;
        assert_eq!(weight.len(), conv.out_channels * in_group * kh * kw, "convolution weight length");
        windows.assert_inside(batch, conv.in_channels - in_group, in_group);
        let steps = kh * kw * in_group;
        let n_pixels = out_shape.h * out_shape.w;
        let sizes = vector_groups(isa, out_group, batch * n_pixels, steps);
        let n_lanes = conv.groups * sizes.iter().sum::<usize>() * isa.lanes();
        let (weights, bias_lanes) = (AlignedVec::zeros(n_lanes * steps), AlignedVec::zeros(n_lanes));
        let mut packed = Packed { weights, bias: bias_lanes, groups: Vec::new(), lanes: isa.lanes() };
        for group in 0..conv.groups {
            packed.push_conv_group(conv, group, &sizes, weight, bias);
        }
        let segment_len = in_group * if conv.groups == 1 { windows.merge_taps(conv) } else { 1 };
        let runs = |n: usize| {
            std::array::from_fn(|b| if sizes.contains(&b) { pixel_runs(isa, b, n, steps).0 } else { vec![] })
        };
        let runs_one = runs(n_pixels);
        let runs_batch = if batch == 1 { runs_one.clone() } else { runs(batch * n_pixels) };
        let Packed { weights, bias, groups, .. } = packed;
        Ok(Self { windows, out_shape, batch, segment_len, groups, runs_one, runs_batch, weights, bias })
    }

    /// Convolves `n` images `[n, H, W, C]`.
    pub fn run(&self, x: &[f32], n: usize, epilogue: Epilogue, out: &mut [f32], scratch: &mut AlignedVec) {
        assert!(n <= self.batch, "at most {} images at a time", self.batch);
        let out_len = self.out_shape.len();
        assert_eq!(out.len(), n * out_len, "convolution output length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == out.len()), "residual length");
        let x = self.windows.padded(x, n, scratch);
        if n == self.batch {
            return self.run_groups(x, &self.runs_batch, epilogue, out);
        }
        for image in 0..n {
            let part = image * out_len..(image + 1) * out_len;
            let residual = epilogue.residual.map(|r| &r[part.clone()]);
            let x = &x[image * self.windows.padded_len..][..self.windows.padded_len];
            self.run_groups(x, &self.runs_one, Epilogue { residual, ..epilogue }, &mut out[part]);
        }
    }

    fn run_groups(&self, x: &[f32], runs: &[Vec<PixelRun>; 5], epilogue: Epilogue, out: &mut [f32]) {
        let segments = &self.windows.tap_offsets;
        for group in &self.groups {
            let job = TileJob {
                x: x[group.x_at..].as_ptr(),
                pixel_offsets: &self.windows.pixel_offsets,
                segments,
                segment_len: self.segment_len,
                weights: self.weights[group.weights_at..].as_ptr(),
                bias: self.bias[group.bias_at..].as_ptr(),
                out: out[group.out_at..].as_mut_ptr(),
                residual: epilogue.residual.map_or(std::ptr::null(), |r| r[group.out_at..].as_ptr()),
                out_pitch: self.out_shape.c,
                last_lanes: group.last_lanes,
                clamp: epilogue.clamp,
            };
            for run in &runs[group.n_vectors] {
                assert!(
                    run.end() <= job.pixel_offsets.len() && run.end() * self.out_shape.c <= out.len(),
                    "tiles past the output"
                );
                // SAFETY: the instruction set was checked when the kernel was made. The runs cover exactly the pixels of `x` and `out`
                // (lengths asserted in `run`), windows stay inside `x` (asserted in `new`), each group writes its own channels of
                // `out`, weights and bias were packed for it, and `out` is borrowed exclusively.
                unsafe { (run.run)(&job, run.start, run.n_tiles) }
            }
        }
    }
}

struct Packed {
    weights: AlignedVec,
    bias: AlignedVec,
    groups: Vec<VectorGroup>,
    lanes: usize,
}

impl Packed {
    fn push_conv_group(&mut self, conv: &Conv2d, group: usize, sizes: &[usize], weight: &[f32], bias: Option<&[f32]>) {
        let in_group = conv.in_channels / conv.groups;
        let out_group = conv.out_channels / conv.groups;
        let steps = in_group * taps(conv);
        let end = (group + 1) * out_group;
        let mut first = group * out_group;
        for &n_vectors in sizes {
            let width = n_vectors * self.lanes;
            let used = width.min(end - first);
            let bias_at = self.groups.last().map_or(0, |g| g.bias_at + g.n_vectors * self.lanes);
            let last_lanes = used - (n_vectors - 1) * self.lanes;
            let weights_at = bias_at * steps;
            let x_at = group * in_group;
            self.groups.push(VectorGroup { n_vectors, last_lanes, x_at, out_at: first, weights_at, bias_at });
            if let Some(bias) = bias {
                self.bias[bias_at..bias_at + used].copy_from_slice(&bias[first..first + used]);
            }
            let filters = &weight[first * steps..(first + used) * steps];
            pack_filters(filters, [in_group, taps(conv)], width, &mut self.weights[weights_at..]);
            first += used;
        }
    }
}

/// `[filters, in, taps]` to `[taps, in, width]`; what lies behind the filters stays.
fn pack_filters(filters: &[f32], [n_in, n_taps]: [usize; 2], width: usize, packed: &mut [f32]) {
    for i in 0..n_in {
        for t in 0..n_taps {
            // Reads advance through all filters together, writes are dense: both stay within a few cache lines.
            let values = filters[i * n_taps + t..].iter().step_by(n_in * n_taps);
            packed[(t * n_in + i) * width..].iter_mut().zip(values).for_each(|(to, &w)| *to = w);
        }
    }
}

const fn taps(conv: &Conv2d) -> usize {
    conv.kernel[0] * conv.kernel[1]
}
