//! Sums of a least-squares problem over all pixels, without writing out its rows.

use secateur_net::{Conv2d, Shape};

use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::fit::activations::StoredChannels;
use crate::fit::linear_map::gather;
use crate::fit::map_sums::{MapProducts, MapSums, Maps};
use crate::fit::problem::{BLOCK_VALUES, BlockBuffers, Blocking, InputLayout, RefitProblem};
use crate::fit::surrogate::replace_by_target_moves;
use crate::{Isa, NormalEquations, Refit};

/// Pixels, as vectors, of the maps in one block, if one group's are not more.
const BLOCK_PIXELS: usize = 128;

/// How one group of images lies in a block.
#[derive(Clone, Copy)]
struct MapLens {
    /// Groups of images in a block.
    n_groups: usize,
    /// Values of a group's inputs, and of its outputs.
    x: usize,
    y: usize,
}

impl RefitProblem<'_> {
    /// Normal equations from the inputs of `layout`, all of the map's.
    pub(crate) fn equations_of_maps(&self, layout: &InputLayout, n_rows: u64) -> NormalEquations {
        let products = MapProducts::new(Isa::detect(), &self.map, self.map.inputs.len, self.outputs.len());
        let lens = self.map_lens(self.map.inputs.len);
        let sums = self.sum_slots(
            self.cut_maps(lens, products.n_sums()),
            |blocks, block| {
                let mut sums = products.empty();
                for at in blocks {
                    let n_groups = self.fill_maps(at, lens, layout, block);
                    let BlockBuffers { x, y, .. } = &*block;
                    products.add(Maps { x: &x[..n_groups * lens.x], y: &y[..n_groups * lens.y], n_groups }, &mut sums);
                }
                sums
            },
            MapSums::merge,
        );
        products.finish(&sums, n_rows)
    }

    /// What moving the targets, given the fit of `refit`, adds to X^T Y: `[columns, outputs]`.
    pub(crate) fn change_of_maps(&self, refit: &Refit, layout: &InputLayout) -> Vec<f64> {
        let isa = Isa::detect();
        let (n_in, n_out) = (layout.source.used.len(), self.outputs.len());
        let products = MapProducts::new(isa, &self.map, n_in, n_out);
        let lens = self.map_lens(n_in);
        let predictor = self.map_predictor(isa, refit, n_in);
        self.sum_slots(
            self.cut_maps(lens, products.empty_moment().len()),
            |blocks, block| {
                let mut change = products.empty_moment();
                let mut scratch = Scratch::new();
                for at in blocks {
                    let n_groups = self.fill_maps(at, lens, layout, block);
                    let BlockBuffers { x, y, others, fit } = &mut *block;
                    let (x, fit) = (&x[..n_groups * lens.x], &mut fit[..n_groups * lens.y]);
                    for (x, fit) in x.chunks_exact(lens.x).zip(fit.chunks_exact_mut(lens.y)) {
                        predictor.run(&|_| x, Tail::default(), fit, &mut scratch);
                    }
                    replace_by_target_moves(self.target.nonlinearity, isa.lanes(), n_out, fit, y, others);
                    self.clear_missing(at * lens.n_groups, fit, lens.y);
                    products.add_moment(Maps { x, y: fit, n_groups }, &mut change);
                }
                change
            },
            |sum, more| sum.iter_mut().zip(more).for_each(|(s, m)| *s += m),
        )
    }

    fn map_lens(&self, n_in: usize) -> MapLens {
        let [input, output] = self.map.shapes();
        let lanes = self.activations.images().lanes();
        let x = input.h * input.w * (n_in + 1) * lanes;
        let y = output.h * output.w * self.outputs.len() * lanes;
        let n_groups = (BLOCK_PIXELS / (input.h * input.w)).min(BLOCK_VALUES / x).max(1);
        MapLens { n_groups, x, y }
    }

    fn cut_maps(&self, lens: MapLens, n_sums: usize) -> Blocking {
        let n_blocks = self.target.n_groups.div_ceil(lens.n_groups);
        Blocking { n_blocks, lens: [lens.x, lens.y].map(|len| lens.n_groups * len), n_sums }
    }

    /// Writes the maps of block `at`, and returns how many groups it has.
    fn fill_maps(&self, at: usize, lens: MapLens, layout: &InputLayout, block: &mut BlockBuffers) -> usize {
        let images = self.activations.images();
        let lanes = images.lanes();
        let first = at * lens.n_groups;
        let n_groups = lens.n_groups.min(self.target.n_groups - first);
        let [_, output] = self.map.shapes();
        let StoredChannels { n_stored, used: channels } = &layout.source;
        for (i, group) in (first..first + n_groups).enumerate() {
            let source = self.activations.whole(self.source, group);
            let pixels = block.x[i * lens.x..][..lens.x].chunks_exact_mut((channels.len() + 1) * lanes);
            for (pixel, values) in pixels.zip(source.chunks_exact(n_stored * lanes)) {
                let (inputs, one) = pixel.split_at_mut(channels.len() * lanes);
                gather(values, lanes, channels, inputs);
                one.fill(1.0);
            }
            let n_pixels = output.h * output.w;
            let y_len = self.outputs.len() * lanes;
            for pixel in 0..n_pixels {
                let part = i * lens.y + pixel * y_len..i * lens.y + (pixel + 1) * y_len;
                let [y, others] = [&mut block.y[part.clone()], &mut block.others[part]];
                self.sum_others(group, pixel, layout, others);
                self.write_targets(group * n_pixels + pixel, lanes, others, y);
            }
        }
        self.clear_missing(first, &mut block.x[..n_groups * lens.x], lens.x);
        self.clear_missing(first, &mut block.y[..n_groups * lens.y], lens.y);
        n_groups
    }

    /// Sets the lanes without an image to zero in values of `len` a group, the first of group `first`.
    fn clear_missing(&self, first: usize, values: &mut [f32], len: usize) {
        let groups = values.chunks_exact_mut(len).enumerate();
        groups.for_each(|(i, values)| self.activations.images().clear_missing(first + i, values));
    }

    /// A refit from `n_in` inputs as a convolution that ignores the channel of ones.
    fn map_predictor(&self, isa: Isa, refit: &Refit, n_in: usize) -> OpKernel {
        let [input, output] = self.map.shapes();
        let (axes, n_out, taps) = (self.map.axes(), self.outputs.len(), self.map.taps());
        let conv = Conv2d {
            kernel: axes.map(|axis| axis.kernel),
            padding: axes.map(|axis| axis.padding),
            dilation: axes.map(|axis| axis.dilation),
            ..Conv2d::square(n_in + 1, n_out, 1, 1, 0)
        };
        let no_weights = vec![0.0; taps];
        let weight: Vec<f32> =
            refit.weight.chunks_exact(n_in * taps).flat_map(|w| w.iter().chain(&no_weights)).copied().collect();
        let shapes = [Shape { c: n_in + 1, ..input }, Shape { c: n_out, ..output }];
        OpKernel::convolution(isa, &conv, shapes, &weight, Some(&refit.bias))
    }
}
