//! Convolutions without groups on maps whose vectors are channels, as products of pixels and filters: of the map itself
//! where the kernel is one pixel or multiplies few values, else of what lies under each kernel, gathered for a strip of
//! output pixels at a time.

use std::ops::Range;

use secateur_net::Conv2d;

use super::maps::ChannelMap;
use super::product::{PackedFilters, PixelRows, ProductOutput};
use crate::engine::conv::direct::{Epilogue, inner_outputs, set_bias, taps_inside};
use crate::engine::fusion::is_of_pixels;
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// Values of a strip's pixels: a part of a second-level cache, where they stay while all filters pass.
const STRIP: usize = 64 << 10;
/// Output pixels of a strip are a multiple of this, which all larger register tiles divide...
const STRIP_STEP: usize = 24;
/// ... and at least so many: filters are read once for each strip.
const MIN_STRIP: usize = 48;

/// Gathering so few values takes a good part of the time of multiplying them: kernels read them where they are, row
/// after row...
const MAX_IN_PLACE: usize = 256;
/// ... if a row has so many output pixels: what is left of it behind the largest register tiles is slower.
const MIN_IN_PLACE: usize = 24;

/// The map of a group of images that a convolution reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaledMap<'a> {
    /// Of all images.
    pub values: &'a [f32],
    /// By which channels are multiplied first, `[images, pitch]`; only where the kernel is one pixel.
    pub factors: Option<&'a [f32]>,
}

/// What strips of output pixels are computed from, where what they read is gathered, and what is done with them.
struct PixelStrips<'a, F> {
    map: ScaledMap<'a>,
    gathered: &'a mut AlignedVec,
    finish: F,
}

/// A convolution without groups, its weights packed.
#[derive(Clone, Debug)]
pub(crate) struct ChannelConvKernel {
    isa: Isa,
    conv: Conv2d,
    maps: [ChannelMap; 2],
    filters: PackedFilters,
    /// `[pitch]`
    bias: Vec<f32>,
    /// Output pixels that are computed together.
    strip: usize,
    /// Output rows and columns whose taps are read where they are.
    in_place: [Range<usize>; 2],
}

/// Values that are multiplied for an output.
const fn n_products(conv: &Conv2d) -> usize {
    conv.kernel[0] * conv.kernel[1] * conv.in_channels
}

/// Output pixels that are computed together.
fn strip_len(k: usize) -> usize {
    (STRIP / k).next_multiple_of(STRIP_STEP).max(MIN_STRIP)
}

/// Output rows and columns whose taps are read where they are: all of them inside, side by side in each row.
fn read_in_place(conv: &Conv2d, [input, output]: [ChannelMap; 2]) -> [Range<usize>; 2] {
    let sizes = [(input.shape.h, output.shape.h), (input.shape.w, output.shape.w)];
    let inner = [0, 1].map(|axis| {
        let (n_in, n_out) = sizes[axis];
        inner_outputs(taps_inside(conv, axis, n_in, n_out), conv.kernel[axis])
    });
    let is_in_place = !is_of_pixels(conv)
        && input.pitch == conv.in_channels
        && conv.dilation[1] == 1
        && n_products(conv) <= MAX_IN_PLACE
        && inner[1].len() >= MIN_IN_PLACE;
    if is_in_place { inner } else { [0..0, 0..0] }
}

impl ChannelConvKernel {
    /// Packs `weight` `[out, in, kh, kw]` and `bias` `[out]`.
    pub(crate) fn new(isa: Isa, conv: &Conv2d, maps: [ChannelMap; 2], weight: &[f32], bias: Option<&[f32]>) -> Self {
        let (k, n_out) = (n_products(conv), conv.out_channels);
        let n_taps = conv.kernel[0] * conv.kernel[1];
        assert_eq!(weight.len(), n_out * k, "convolution weight length");
        let mut filters = PackedFilters::zeros(isa, k, n_out, 1);
        for tap in 0..n_taps {
            let first = tap * conv.in_channels;
            let value = |filter: usize, at: usize| weight[filter * k + (at - first) * n_taps + tap];
            filters.set(0, first..first + conv.in_channels, value);
        }
        let mut of_output = vec![0.0; maps[1].pitch];
        set_bias(&mut of_output[..n_out], bias);
        let in_place = read_in_place(conv, maps);
        Self { isa, conv: conv.clone(), maps, filters, bias: of_output, strip: strip_len(k), in_place }
    }

    /// Bytes that [`Self::new`] allocates, and those of the working memory of [`Self::run_rows`], with factors or
    /// without.
    pub(crate) fn bytes(isa: Isa, conv: &Conv2d, output: ChannelMap, is_scaled: bool) -> (u64, u64) {
        let k = n_products(conv);
        let filters = PackedFilters::bytes(isa, k, conv.out_channels, 1);
        let gathered = if is_of_pixels(conv) && !is_scaled { 0 } else { AlignedVec::bytes((strip_len(k) * k) as u64) };
        (filters + 4 * output.pitch as u64, gathered)
    }

    /// Computes the output rows `rows` of a group of images, counted through all of them. The map is the whole group's,
    /// `out` and the residual are these rows alone. `finish(values)` is called for each strip of them, for what
    /// no clamp is.
    pub(crate) fn run_rows(
        &self,
        map: ScaledMap<'_>,
        rows: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
        gathered: &mut AlignedVec,
        finish: impl Fn(&mut [f32]),
    ) {
        let [input, output] = &self.maps;
        let (row_len, h, x) = (output.shape.w * output.pitch, output.shape.h, map.values);
        assert!(x.len().is_multiple_of(input.len()), "convolution input length");
        assert!(rows.end <= x.len() / input.len() * h, "convolution output rows");
        assert_eq!(out.len(), rows.len() * row_len, "convolution output length");
        assert!(map.factors.is_none() || is_of_pixels(&self.conv), "factors of a convolution of several pixels");
        let mut strips = PixelStrips { map, gathered, finish };
        let [inner_rows, inner_columns] = &self.in_place;
        if inner_rows.is_empty() {
            self.run_strips(rows.start * output.shape.w, epilogue, out, &mut strips);
            return;
        }
        for ((at, row), out) in rows.enumerate().zip(out.chunks_exact_mut(row_len)) {
            let (epilogue, first) = (epilogue.part(at * row_len..(at + 1) * row_len), row * output.shape.w);
            if !inner_rows.contains(&(row % h)) {
                self.run_strips(first, epilogue, out, &mut strips);
                continue;
            }
            let [start, end] = [inner_columns.start, inner_columns.end].map(|column| column * output.pitch);
            self.run_strips(first, epilogue.part(0..start), &mut out[..start], &mut strips);
            let inner = epilogue.part(start..end);
            self.run_in_place(row, inner, &mut out[start..end], &strips);
            self.run_strips(first + inner_columns.end, epilogue.part(end..row_len), &mut out[end..], &mut strips);
        }
    }

    /// Computes output pixels from `first` on, counted through all images, as many as `out` holds.
    fn run_strips<F: Fn(&mut [f32])>(
        &self,
        first: usize,
        epilogue: Epilogue,
        out: &mut [f32],
        strips: &mut PixelStrips<'_, F>,
    ) {
        let [input, output] = &self.maps;
        let (pitch, x, k) = (output.pitch, strips.map.values, n_products(&self.conv));
        let plain = is_of_pixels(&self.conv) && strips.map.factors.is_none();
        if !plain {
            strips.gathered.grow(self.strip * k);
        }
        for (strip, out) in out.chunks_mut(self.strip * pitch).enumerate() {
            let (first, n) = (first + strip * self.strip, out.len() / pitch);
            let epilogue = epilogue.part(strip * self.strip * pitch..strip * self.strip * pitch + out.len());
            let pixels = if plain {
                PixelRows::new(&x[first * input.pitch..], input.pitch, n)
            } else {
                let gathered = &mut strips.gathered[..n * k];
                match strips.map.factors {
                    Some(factors) => self.scale(x, factors, first, gathered),
                    None => {
                        for (at, into) in gathered.chunks_exact_mut(k).enumerate() {
                            self.gather(x, first + at, into);
                        }
                    }
                }
                PixelRows::new(gathered, k, n)
            };
            let mut to = ProductOutput { values: out, step: pitch, epilogue: Some(epilogue) };
            self.filters.multiply(0, pixels, &self.bias, &mut to);
            (strips.finish)(to.values);
        }
    }

    /// Computes the inner columns of output row `row`, counted through all images, from the map where it is.
    fn run_in_place<F: Fn(&mut [f32])>(
        &self,
        row: usize,
        epilogue: Epilogue,
        out: &mut [f32],
        strips: &PixelStrips<'_, F>,
    ) {
        let (conv, [input, output], columns) = (&self.conv, &self.maps, &self.in_place[1]);
        let row_len = input.shape.w * input.pitch;
        let (image, y) = (row / output.shape.h, row % output.shape.h);
        let top = y * conv.stride[0] - conv.padding[0];
        let left = columns.start * conv.stride[1] - conv.padding[1];
        let pixels = PixelRows {
            values: &strips.map.values[image * input.len() + top * row_len + left * input.pitch..],
            step: conv.stride[1] * input.pitch,
            n: columns.len(),
            n_runs: conv.kernel[0],
            run_step: conv.dilation[0] * row_len,
        };
        let mut to = ProductOutput { values: out, step: output.pitch, epilogue: Some(epilogue) };
        self.filters.multiply(0, pixels, &self.bias, &mut to);
        (strips.finish)(to.values);
    }

    /// Pixels from `first` on, counted through all images, each channel multiplied by its image's factor.
    fn scale(&self, x: &[f32], factors: &[f32], first: usize, into: &mut [f32]) {
        let [input, output] = &self.maps;
        let (k, per_image) = (self.conv.in_channels, output.shape.h * output.shape.w);
        let of_image = factors.len() / (x.len() / input.len());
        let pixels = x[first * input.pitch..].chunks_exact(input.pitch);
        for ((at, into), pixel) in (first..).zip(into.chunks_exact_mut(k)).zip(pixels) {
            let factors = &factors[at / per_image * of_image..][..k];
            let values = into.iter_mut().zip(pixel).zip(factors);
            self.isa.vectorized(|| values.for_each(|((into, value), factor)| *into = value * factor));
        }
    }

    /// What lies under the kernel of output pixel `at`, counted through all images, `[kh, kw, in]`; zeros beside the
    /// image.
    fn gather(&self, x: &[f32], at: usize, into: &mut [f32]) {
        let (conv, [input, output]) = (&self.conv, &self.maps);
        let (c, [kh, kw]) = (conv.in_channels, conv.kernel);
        let (w, h) = (output.shape.w, output.shape.h);
        let (image, y, x_out) = (at / (w * h), at / w % h, at % w);
        let x = &x[image * input.len()..][..input.len()];
        let left = (x_out * conv.stride[1]).wrapping_sub(conv.padding[1]);
        let is_run = input.pitch == c && conv.dilation[1] == 1 && left < input.shape.w && left + kw <= input.shape.w;
        for (ky, into) in into.chunks_exact_mut(kw * c).enumerate().take(kh) {
            let row = (y * conv.stride[0] + ky * conv.dilation[0]).wrapping_sub(conv.padding[0]);
            if row >= input.shape.h {
                into.fill(0.0);
            } else if is_run {
                into.copy_from_slice(&x[(row * input.shape.w + left) * c..][..kw * c]);
            } else {
                for (kx, into) in into.chunks_exact_mut(c).enumerate() {
                    let column = left.wrapping_add(kx * conv.dilation[1]);
                    if column < input.shape.w {
                        into.copy_from_slice(&x[(row * input.shape.w + column) * input.pitch..][..c]);
                    } else {
                        into.fill(0.0);
                    }
                }
            }
        }
    }
}
