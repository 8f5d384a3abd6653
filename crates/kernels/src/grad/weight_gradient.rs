//! The gradient of a convolution's weights: for every tap, products of the input under it with the output's gradient.

use std::ops::Range;

use secateur_net::{Conv2d, Shape};

use crate::engine::conv::direct::taps_inside;
use crate::grad::channels::{add_products_of_channels, add_sums_of_channels};
use crate::grad::winograd_weights::{TransformScratch, WinogradWeights};
use crate::simd::isa::Isa;
use crate::simd::products::{Columns, add_products};

/// Gives the gradient of one convolution's weights and bias.
#[derive(Debug)]
pub(crate) struct WeightGradient {
    isa: Isa,
    conv: Conv2d,
    shapes: [Shape; 2],
    /// For every row and column of taps, the outputs that have it inside the input.
    outputs: [Vec<Range<usize>>; 2],
    /// Where that takes fewer operations.
    by_tiles: Option<WinogradWeights>,
}

/// Working memory of sums.
#[derive(Debug, Default)]
pub(crate) struct ProductScratch {
    sums: Vec<f64>,
    lanes: Vec<f32>,
    transforms: TransformScratch,
}

/// Rows of products that are summed in f32, lane by lane, before they go into f64 sums.
const F32_PIXELS: usize = 4096;

impl WeightGradient {
    /// Of `conv` between these shapes.
    pub(crate) fn new(isa: Isa, conv: &Conv2d, shapes: [Shape; 2]) -> Self {
        let [input, output] = shapes;
        let outputs = [(0, input.h, output.h), (1, input.w, output.w)].map(|(axis, n_in, n_out)| {
            let inside: Vec<Range<usize>> = taps_inside(conv, axis, n_in, n_out).collect();
            (0..conv.kernel[axis]).map(|tap| outputs_with(&inside, tap)).collect()
        });
        Self { isa, conv: conv.clone(), shapes, outputs, by_tiles: WinogradWeights::new(isa, conv, shapes) }
    }

    /// Adds to `gradient` `[out, in / groups, kh, kw]` that of one group of images, given its input `x` and its
    /// output's gradient `g`; lanes without an image are zero in `g`, and finite in `x`.
    pub(crate) fn add(&self, [x, g]: [&[f32]; 2], gradient: &mut [f32], scratch: &mut ProductScratch) {
        let conv = &self.conv;
        if let Some(by_tiles) = &self.by_tiles {
            return by_tiles.add([x, g], gradient, &mut scratch.transforms);
        }
        if conv.is_depthwise() && conv.in_channels == conv.out_channels {
            return self.add_depthwise([x, g], gradient, scratch);
        }
        let sums = &mut scratch.sums;
        let [in_group, out_group] = [conv.in_channels, conv.out_channels].map(|n| n / conv.groups);
        let n_taps = conv.kernel[0] * conv.kernel[1];
        sums.clear();
        sums.resize(in_group * out_group, 0.0);
        for conv_group in 0..conv.groups {
            let gradient = &mut gradient[conv_group * out_group * in_group * n_taps..];
            for tap in 0..n_taps {
                sums.fill(0.0);
                self.add_tap([x, g], tap, conv_group, sums);
                add_transposed(sums, [in_group, out_group], &mut gradient[tap..], n_taps);
            }
        }
    }

    /// As [`Self::add`], with a filter for every channel.
    fn add_depthwise(&self, [x, g]: [&[f32]; 2], gradient: &mut [f32], scratch: &mut ProductScratch) {
        let (conv, [input, output], lanes) = (&self.conv, &self.shapes, self.isa.lanes());
        let n_taps = conv.kernel[0] * conv.kernel[1];
        let sums = &mut scratch.lanes;
        sums.resize(input.c * lanes, 0.0);
        for tap in 0..n_taps {
            let taps = [tap / conv.kernel[1], tap % conv.kernel[1]];
            let [rows, columns] = [&self.outputs[0][taps[0]], &self.outputs[1][taps[1]]];
            if rows.is_empty() || columns.is_empty() {
                continue;
            }
            sums.fill(0.0);
            let place = |axis: usize, at: usize| self.place(axis, taps[axis], at);
            for row in rows.clone() {
                let x = &x[(place(0, row) * input.w + place(1, columns.start)) * input.c * lanes..];
                let g = &g[(row * output.w + columns.start) * output.c * lanes..];
                let g = &g[..columns.len() * output.c * lanes];
                add_products_of_channels(self.isa, x, g, [conv.stride[1] * input.c, output.c], sums);
            }
            for (c, lanes) in sums.chunks_exact(lanes).enumerate() {
                gradient[c * n_taps + tap] += lanes.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
            }
        }
    }

    /// Row or column of the input under a tap of output `at`.
    const fn place(&self, axis: usize, tap: usize, at: usize) -> usize {
        at * self.conv.stride[axis] + tap * self.conv.dilation[axis] - self.conv.padding[axis]
    }

    /// Adds the products `[in / groups, out / groups]` of one tap.
    fn add_tap(&self, [x, g]: [&[f32]; 2], tap: usize, conv_group: usize, sums: &mut [f64]) {
        let (conv, [input, output]) = (&self.conv, &self.shapes);
        let [in_group, out_group] = [conv.in_channels, conv.out_channels].map(|n| n / conv.groups);
        let taps = [tap / conv.kernel[1], tap % conv.kernel[1]];
        let [rows, columns] = [&self.outputs[0][taps[0]], &self.outputs[1][taps[1]]];
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        let place = |axis: usize, at: usize| self.place(axis, taps[axis], at);
        let rows_at_a_time = (F32_PIXELS / columns.len()).max(1);
        for first in rows.clone().step_by(rows_at_a_time) {
            let x = Columns {
                values: x,
                row_len: input.c,
                first: conv_group * in_group,
                n: in_group,
                start: place(0, first) * input.w + place(1, columns.start),
                steps: [0, conv.stride[0] * input.w, conv.stride[1]],
            };
            let g = Columns {
                values: g,
                row_len: output.c,
                first: conv_group * out_group,
                n: out_group,
                start: first * output.w + columns.start,
                steps: [0, output.w, 1],
            };
            let counts = [1, rows_at_a_time.min(rows.end - first), columns.len()];
            add_products(self.isa, [x, g], counts, false, sums, out_group);
        }
    }
}

/// Adds `sums` `[inputs, outputs]` to every `step`-th value of `gradient`, which is `[outputs, inputs]`.
fn add_transposed(sums: &[f64], [n_in, n_out]: [usize; 2], gradient: &mut [f32], step: usize) {
    // Outputs at a time: as many lines of the gradient as the cache holds.
    const BLOCK: usize = 16;
    for first in (0..n_out).step_by(BLOCK) {
        for (input, sums) in sums.chunks_exact(n_out).enumerate() {
            for (output, sum) in sums[first..].iter().take(BLOCK).enumerate() {
                gradient[((first + output) * n_in + input) * step] += *sum as f32;
            }
        }
    }
}

/// The outputs that have `tap` among their taps: a range, since they have ranges that move on.
fn outputs_with(inside: &[Range<usize>], tap: usize) -> Range<usize> {
    let has = |at: &usize| inside[*at].contains(&tap);
    let Some(start) = (0..inside.len()).find(has) else { return 0..0 };
    start..(start..inside.len()).take_while(has).last().map_or(start, |last| last + 1)
}

/// Adds to `gradient` `[channels]` the sums of `g` `[pixels, channels, LANES]`.
pub(crate) fn add_bias_gradient(isa: Isa, g: &[f32], gradient: &mut [f32], scratch: &mut ProductScratch) {
    let pixel_len = gradient.len() * isa.lanes();
    scratch.lanes.resize(pixel_len, 0.0);
    for g in g.chunks(F32_PIXELS * pixel_len) {
        scratch.lanes.fill(0.0);
        add_sums_of_channels(isa, g, &mut scratch.lanes);
        for (to, lanes) in gradient.iter_mut().zip(scratch.lanes.chunks_exact(isa.lanes())) {
            *to += lanes.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_give_what_taps_give() {
        for (n_in, n_out, [h, w], padding) in
            [(16, 16, [32, 32], 1), (40, 24, [15, 18], 1), (33, 31, [14, 13], 2), (12, 70, [18, 17], 0)]
        {
            let conv = Conv2d { padding: [padding; 2], ..Conv2d::square(n_in, n_out, 3, 1, 1) };
            let input = Shape { c: n_in, h, w };
            let output = Shape { c: n_out, h: h + 2 * padding - 2, w: w + 2 * padding - 2 };
            for isa in Isa::available() {
                let value = |i: usize, n: usize| (i * 7919 % n) as f32 / n as f32 - 0.5;
                let x: Vec<f32> = (0..input.len() * isa.lanes()).map(|i| value(i, 1009)).collect();
                let g: Vec<f32> = (0..output.len() * isa.lanes()).map(|i| value(i, 997)).collect();
                let mut kernel = WeightGradient::new(isa, &conv, [input, output]);
                assert!(kernel.by_tiles.is_some(), "{conv:?} on {h} x {w}");
                let mut gradients = [(); 2].map(|()| vec![1.0; n_in * n_out * 9]);
                let mut scratch = ProductScratch::default();
                kernel.add([&x, &g], &mut gradients[0], &mut scratch);
                kernel.by_tiles = None;
                kernel.add([&x, &g], &mut gradients[1], &mut scratch);
                let most = gradients[1].iter().fold(0.0f32, |most, g| most.max(g.abs()));
                let off = gradients[0].iter().zip(&gradients[1]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(most > 2.0 && off < 1e-4 * most, "{isa:?}, {conv:?} on {h} x {w}: {off} of {most}");
            }
        }
    }
}
