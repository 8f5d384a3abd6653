//! Sums of a least-squares problem over a sample of pixels, whose rows are written out.

use secateur_net::{Conv2d, Shape};

use crate::engine::conv::direct::{ConvKernel, Epilogue};
use crate::fit::gram::GramSums;
use crate::fit::linear_map::GroupMaps;
use crate::fit::problem::{BLOCK_VALUES, BlockBuffers, Blocking, InputLayout, RefitProblem};
use crate::fit::surrogate::replace_by_target_moves;
use crate::simd::products::{Columns, add_products};
use crate::{Isa, NormalEquations, Refit};

/// Most and fewest rows (of a vector per column) whose products are summed in f32 before they go into f64 sums.
const BLOCK_ROWS: [usize; 2] = [64, 16];

impl RefitProblem<'_> {
    /// Normal equations from the inputs of `layout`, all of the map's.
    pub(crate) fn equations_of_rows(&self, layout: &InputLayout, n_rows: u64) -> NormalEquations {
        let isa = Isa::detect();
        let (n_columns, n_out) = (self.map.columns(), self.outputs.len());
        let (cut, n_block_rows) = self.cut_rows(n_columns, n_columns + n_out);
        let sums = self.sum_slots(
            cut,
            |blocks, block| {
                let mut sums = GramSums::new(isa, &self.map);
                for at in blocks {
                    self.fill_rows(at, n_block_rows, layout, block);
                    sums.add(&block.x, &block.y);
                }
                sums
            },
            GramSums::merge,
        );
        sums.finish(self.map.clone(), n_rows)
    }

    /// What moving the targets, given the fit of `refit`, adds to X^T Y: `[columns, outputs]`.
    pub(crate) fn change_of_rows(&self, refit: &Refit, layout: &InputLayout) -> Vec<f64> {
        let isa = Isa::detect();
        let (n_out, taps, n_channels) = (self.outputs.len(), self.map.taps(), layout.source.used.len());
        let n_columns = n_channels * taps + 1;
        let (cut, n_rows) = self.cut_rows(n_columns, n_out);
        let predictor = predictor(isa, refit, [n_channels, taps, n_out], n_rows);
        self.sum_slots(
            cut,
            |blocks, block| {
                let mut change = vec![0.0f64; n_columns * n_out];
                for at in blocks {
                    self.fill_rows(at, n_rows, layout, block);
                    let BlockBuffers { x, y, others, fit } = &mut *block;
                    let plain = Epilogue { residual: None, clamp: [f32::NEG_INFINITY, f32::INFINITY] };
                    predictor.run(x, plain, fit);
                    replace_by_target_moves(self.target.nonlinearity, isa.lanes(), n_out, fit, y, others);
                    let pair = [Columns::of_rows(x, n_columns, 0, n_columns), Columns::of_rows(fit, n_out, 0, n_out)];
                    add_products(isa, pair, [1, 1, n_rows], false, &mut change, n_out);
                }
                change
            },
            |sum, more| sum.iter_mut().zip(more).for_each(|(s, m)| *s += m),
        )
    }

    fn n_rows(&self) -> usize {
        self.target.n_groups * self.target.sample.per_image
    }

    /// SpareBlocks of rows for sums of `n_columns` by `n_sums` values, and how many rows they have.
    fn cut_rows(&self, n_columns: usize, n_sums: usize) -> (Blocking, usize) {
        let lanes = self.activations.images().lanes();
        let n_rows = (BLOCK_VALUES / (n_columns * lanes)).clamp(BLOCK_ROWS[1], BLOCK_ROWS[0]);
        let lens = [n_columns, self.outputs.len()].map(|row| n_rows * row * lanes);
        (Blocking { n_blocks: self.n_rows().div_ceil(n_rows), lens, n_sums: n_columns * n_sums }, n_rows)
    }

    /// Writes the rows of block `at` of `n_rows` rows; those missing in the last block are zero.
    fn fill_rows(&self, at: usize, n_rows: usize, layout: &InputLayout, block: &mut BlockBuffers) {
        let images = self.activations.images();
        let lanes = images.lanes();
        let per_group = self.target.sample.per_image;
        let [x_len, y_len] = [&block.x, &block.y].map(|values| values.len() / n_rows);
        let first_row = at * n_rows;
        let end = (first_row + n_rows).min(self.n_rows());
        let mut row = 0;
        for group in first_row / per_group..end.div_ceil(per_group) {
            let skipped = first_row.saturating_sub(group * per_group);
            let last = end.min((group + 1) * per_group) - group * per_group;
            let values = self.activations.whole(self.source, group);
            let maps = GroupMaps { values, n_channels: layout.source.n_stored, lanes };
            for (i, pixel) in self.target.sample.pixels(group).enumerate().take(last).skip(skipped) {
                let [y, others] = [&mut block.y, &mut block.others].map(|v| &mut v[row * y_len..][..y_len]);
                let x = &mut block.x[row * x_len..][..x_len];
                self.map.write_inputs(maps, pixel, &layout.source.used, x);
                self.sum_others(group, pixel, layout, others);
                self.write_targets(group * per_group + i, lanes, others, y);
                [x, y, others].into_iter().for_each(|values| images.clear_missing(group, values));
                row += 1;
            }
        }
        block.x[row * x_len..].fill(0.0);
        block.y[row * y_len..].fill(0.0);
        block.others[row * y_len..].fill(0.0);
    }
}

/// A refit as a 1x1 convolution over the rows of a block, columns in the order of `fill_rows`.
fn predictor(isa: Isa, refit: &Refit, [n_channels, taps, n_out]: [usize; 3], n_rows: usize) -> ConvKernel {
    let n = n_channels * taps;
    let weight: Vec<f32> = (0..n_out * (n + 1))
        .map(|i| match (i / (n + 1), i % (n + 1)) {
            (o, column) if column == n => refit.bias[o],
            (o, column) => refit.weight[o * n + column % n_channels * taps + column / n_channels],
        })
        .collect();
    let row = |c: usize| Shape { c, h: 1, w: n_rows };
    ConvKernel::new(isa, &Conv2d::square(n + 1, n_out, 1, 1, 0), [row(n + 1), row(n_out)], &weight, None)
}
