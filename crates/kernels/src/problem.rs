//! The least-squares problem of one linear map inside a half-pruned network.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use secateur_net::{Conv2d, NodeId, Shape};

use crate::activations::Activations;
use crate::aligned::AlignedVec;
use crate::conv::{ConvKernel, Epilogue};
use crate::elementwise;
use crate::gram::GramSums;
use crate::products::{Columns, add_products};
use crate::refit_target::{Behind, Effort, Target};
use crate::{Isa, KernelError, LinearMap, NormalEquations, Refit};

/// Most and fewest rows (of a vector per column) whose products are summed in f32 before they go into f64 sums.
const BLOCK_ROWS: [usize; 2] = [64, 16];
/// Values of a block's inputs that stay in the second-level cache.
const BLOCK_VALUES: usize = 192 << 10;
/// Most sums that are made side by side; fixed, so that they do not depend on the number of threads.
const SLOTS_MAX: usize = 8;
/// Memory that they may take together, in values.
const SLOTS_VALUES: usize = 8 << 20;
/// How often the targets of a classifier's logits are moved: its steps are short, but its rows are few.
const SOFTMAX_PASSES: usize = 30;
/// Share of a pass's step that is taken. Moved targets bound the loss by a quadratic with its minimum at the full step, so that
/// anything below twice the step lowers it too; nearly twice gets there in about half the passes.
const OVER_RELAXATION: f32 = 1.7;
/// Temperature at which logits are compared (Hinton et al. 2015).
const TEMPERATURE: f32 = 3.0;

/// Inputs as the network now makes them, targets as the original made them.
#[derive(Debug)]
pub struct Problem<'a> {
    /// The map, within the network as it now is.
    pub map: LinearMap,
    /// Its inputs and the target's other addends.
    pub activations: &'a Activations<'a>,
    /// The node it reads.
    pub source: NodeId,
    /// What is aimed at.
    pub target: &'a Target,
    /// Channels of the target.
    pub target_channels: usize,
    /// The channel of the target that each output of the map stands for.
    pub outputs: Vec<usize>,
    /// How much to take pains.
    pub effort: Effort,
    /// Working memory.
    pub blocks: &'a Blocks,
}

/// The rows of one block; those missing in the last block are zero.
#[derive(Debug, Default)]
pub struct Block {
    n_rows: usize,
    /// Inputs, `[rows, columns, LANES]`.
    x: AlignedVec,
    /// Targets less the other addends, `[rows, outputs, LANES]`.
    y: AlignedVec,
    /// The sums of the other addends, `[rows, outputs, LANES]`.
    others: AlignedVec,
    /// What the weights predict, then by how much the targets move, `[rows, outputs, LANES]`.
    fit: AlignedVec,
}

/// Working memory, to be used again.
pub type Blocks = Mutex<Vec<Block>>;

/// Where the inputs of a problem lie in memory.
struct Reading {
    /// Channels of the source in memory, and which of them are the map's inputs used.
    source: (usize, Vec<usize>),
    /// For every other addend: its channels in memory, and which of them belong to the map's outputs.
    others: Vec<(usize, Vec<usize>)>,
}

impl Problem<'_> {
    /// Normal equations for all inputs of the map.
    pub fn equations(&self, pool: &rayon::ThreadPool) -> NormalEquations {
        let isa = Isa::detect();
        let channels: Vec<usize> = (0..self.map.inputs.1).collect();
        let reading = self.reading(&channels);
        let n_columns = self.map.columns();
        let slots = pool.install(|| {
            self.each_slot(n_columns, n_columns + self.outputs.len(), |blocks, block| {
                let mut sums = GramSums::new(isa, &self.map);
                for at in blocks {
                    self.fill(at, &reading, block);
                    sums.add(&block.x, &block.y);
                }
                sums
            })
        });
        let n_rows = self.activations.images().n_images() * self.target.sample.per_image;
        let sums = slots.into_iter().reduce(|mut sum, more| {
            sum.merge(&more);
            sum
        });
        sums.expect("there is at least one slot").finish(self.map.clone(), n_rows as u64)
    }

    /// Weights from the inputs in `channels` (positions within the map's inputs, ascending).
    ///
    /// Least squares counts all errors alike; what stands behind the sum may not. So targets are moved to where an error of the
    /// fit matters no more than it does there, and the weights solved for again, a few times.
    ///
    /// # Errors
    /// As [`NormalEquations::refit`].
    pub fn solve(
        &self,
        pool: &rayon::ThreadPool,
        equations: &NormalEquations,
        channels: &[usize],
    ) -> Result<Refit, KernelError> {
        let n_out = self.outputs.len();
        let solver = equations.solver(channels)?;
        let mut refit = solver.refit(&equations.moment)?;
        let n_passes = match self.target.behind {
            Behind::Anything => 0,
            Behind::Clamp(_) => self.effort.clamp_passes(),
            Behind::Softmax => SOFTMAX_PASSES,
        };
        let reading = self.reading(channels);
        for _ in 0..n_passes {
            let mut moment = equations.moment.clone();
            let change = self.moment_change(pool, &refit, channels.len(), &reading);
            for (row, change) in self.columns(channels).zip(change.chunks_exact(n_out)) {
                moment[row * n_out..][..n_out].iter_mut().zip(change).for_each(|(m, c)| *m += c);
            }
            refit.move_towards(&solver.refit(&moment)?, OVER_RELAXATION);
        }
        Ok(refit)
    }

    /// For every column of the rows that `fill` writes, the row of the normal equations' X^T Y.
    fn columns(&self, channels: &[usize]) -> impl Iterator<Item = usize> {
        let taps = self.map.taps();
        let weights = (0..taps).flat_map(move |t| channels.iter().map(move |c| c * taps + t));
        weights.chain([self.map.columns() - 1])
    }

    fn n_rows(&self) -> usize {
        self.activations.images().len() * self.target.sample.per_image
    }

    /// Runs `work` on the blocks of each slot, slots side by side; a slot's sums are `n_columns` by `n_sums` values.
    fn each_slot<T: Send>(
        &self,
        n_columns: usize,
        n_sums: usize,
        work: impl Fn(&mut dyn Iterator<Item = usize>, &mut Block) -> T + Sync,
    ) -> Vec<T> {
        let lanes = self.activations.images().lanes();
        let block_rows = (BLOCK_VALUES / (n_columns * lanes)).clamp(BLOCK_ROWS[1], BLOCK_ROWS[0]);
        let n_blocks = self.n_rows().div_ceil(block_rows);
        let n_slots = (SLOTS_VALUES / (n_columns * n_sums)).clamp(1, SLOTS_MAX).min(n_blocks.max(1));
        let rows = block_rows * lanes;
        let idle = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |slot: usize| {
            let mut block = idle().pop().unwrap_or_default();
            block.n_rows = block_rows;
            block.x.reset(rows * n_columns);
            let of_outputs = [&mut block.y, &mut block.others, &mut block.fit];
            of_outputs.into_iter().for_each(|values| values.reset(rows * self.outputs.len()));
            let result = work(&mut (slot..n_blocks).step_by(n_slots), &mut block);
            idle().push(block);
            result
        };
        (0..n_slots).into_par_iter().with_max_len(1).map(run).collect()
    }

    /// Where to read the inputs `channels` (positions within the map's inputs) and the other addends.
    fn reading(&self, channels: &[usize]) -> Reading {
        let [input, output] = self.map.shapes();
        let (n_channels, at) = self.activations.channels(self.source, input.c);
        let source = (n_channels, channels.iter().map(|c| at[self.map.inputs.0 + c]).collect());
        let of_outputs = |&other: &NodeId| {
            let (n_channels, at) = self.activations.channels(other, output.c);
            let (from, n) = self.map.outputs;
            (n_channels, at[from..from + n].to_vec())
        };
        Reading { source, others: self.target.others.iter().map(of_outputs).collect() }
    }

    /// Writes the rows of block `at`.
    fn fill(&self, at: usize, reading: &Reading, block: &mut Block) {
        let images = self.activations.images();
        let lanes = images.lanes();
        let (per_group, n_rows) = (self.target.sample.per_image, block.n_rows);
        let [x_len, y_len] = [&block.x, &block.y].map(|values| values.len() / n_rows);
        let first_row = at * n_rows;
        let end = (first_row + n_rows).min(self.n_rows());
        let mut row = 0;
        for group in first_row / per_group..end.div_ceil(per_group) {
            let skipped = first_row.saturating_sub(group * per_group);
            let last = end.min((group + 1) * per_group) - group * per_group;
            let source = self.activations.whole(self.source, group);
            for (i, pixel) in self.target.sample.pixels(group).enumerate().take(last).skip(skipped) {
                let [y, others] = [&mut block.y, &mut block.others].map(|v| &mut v[row * y_len..][..y_len]);
                let x = &mut block.x[row * x_len..][..x_len];
                self.map.write_inputs((source, reading.source.0, lanes), pixel, &reading.source.1, x);
                self.sum_others(group, pixel, reading, others);
                self.write_targets(group * per_group + i, lanes, others, y);
                [x, y, others].into_iter().for_each(|values| images.clear_missing(group, values));
                row += 1;
            }
        }
        block.x[row * x_len..].fill(0.0);
        block.y[row * y_len..].fill(0.0);
        block.others[row * y_len..].fill(0.0);
    }

    /// The sums of the other addends of one row, `[outputs, LANES]`.
    fn sum_others(&self, group: usize, pixel: usize, reading: &Reading, sums: &mut [f32]) {
        let lanes = self.activations.images().lanes();
        sums.fill(0.0);
        for (&other, (n_channels, channels)) in self.target.others.iter().zip(&reading.others) {
            let values = &self.activations.whole(other, group)[pixel * n_channels * lanes..][..n_channels * lanes];
            for (from, to, n) in runs(channels) {
                elementwise::add_to(&mut sums[to * lanes..][..n * lanes], &values[from * lanes..][..n * lanes]);
            }
        }
    }

    /// The targets of row `row` of all less the other addends, `[outputs, LANES]`.
    fn write_targets(&self, row: usize, lanes: usize, others: &[f32], y: &mut [f32]) {
        let len = self.target_channels * lanes;
        let target = &self.target.values[row * len..][..len];
        for (from, to, n) in runs(&self.outputs) {
            let (part, n) = (to * lanes, n * lanes);
            let targets = &target[from * lanes..][..n];
            for ((y, other), target) in y[part..][..n].iter_mut().zip(&others[part..][..n]).zip(targets) {
                *y = target - other;
            }
        }
    }

    /// What moving the targets, given the fit of `refit` from `n_channels` inputs, adds to X^T Y: `[columns, outputs]`.
    fn moment_change(&self, pool: &rayon::ThreadPool, refit: &Refit, n_channels: usize, reading: &Reading) -> Vec<f64> {
        let isa = Isa::detect();
        let (n_out, taps) = (self.outputs.len(), self.map.taps());
        let n_columns = n_channels * taps + 1;
        let slots = pool.install(|| {
            self.each_slot(n_columns, n_out, |blocks, block| {
                let mut change = vec![0.0f64; n_columns * n_out];
                let predictor = predictor(isa, refit, [n_channels, taps, n_out], block.n_rows);
                for at in blocks {
                    self.fill(at, reading, block);
                    let Block { n_rows, x, y, others, fit } = &mut *block;
                    let plain = Epilogue { residual: None, clamp: [f32::NEG_INFINITY, f32::INFINITY] };
                    predictor.run(x, plain, fit);
                    replace_by_moves(self.target.behind, isa.lanes(), n_out, fit, y, others);
                    let columns = |values, n| Columns { values, row_len: n, first: 0, n };
                    let pair = [columns(&x[..], n_columns), columns(&fit[..], n_out)];
                    add_products(isa, pair, *n_rows, false, &mut change, n_out);
                }
                change
            })
        });
        let mut total = vec![0.0; n_columns * n_out];
        slots.iter().for_each(|slot| total.iter_mut().zip(slot).for_each(|(t, c)| *t += c));
        total
    }
}

/// Stretches of consecutive channels: the first, its place in the list, and how many.
fn runs(channels: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = 0;
    channels.chunk_by(|a, b| *b == a + 1).map(move |run| {
        at += run.len();
        (run[0], at - run.len(), run.len())
    })
}

/// A refit as a 1x1 convolution over the rows of a block, columns in the order of `fill`.
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

/// Replaces the fit of rows `[rows, outputs, lanes]` by how far their targets `y` move; `others` are the other addends.
fn replace_by_moves(behind: Behind, lanes: usize, n_out: usize, fit: &mut [f32], y: &[f32], others: &[f32]) {
    match behind {
        Behind::Anything => fit.fill(0.0),
        Behind::Clamp(clamp) => {
            for ((fit, y), other) in fit.iter_mut().zip(y).zip(others) {
                *fit = hidden_target(y + other, *fit + other, clamp) - (y + other);
            }
        }
        Behind::Softmax => {
            let len = n_out * lanes;
            let rows = fit.chunks_exact_mut(len).zip(y.chunks_exact(len)).zip(others.chunks_exact(len));
            for ((fit, y), others) in rows {
                for lane in 0..lanes {
                    let lane_of = |values: &[f32]| values[lane..].iter().step_by(lanes).copied().collect::<Vec<f32>>();
                    let mut moved = lane_of(fit);
                    replace_by_softmax_move(&mut moved, &lane_of(y), &lane_of(others));
                    fit[lane..].iter_mut().step_by(lanes).zip(moved).for_each(|(f, m)| *f = m);
                }
            }
        }
    }
}

/// Replaces the logits of one image by how far their targets `y` move towards the softmax wanted.
fn replace_by_softmax_move(fit: &mut [f32], y: &[f32], others: &[f32]) {
    let shares = |logits: &[f32]| softmax(logits.iter().zip(others).map(|(l, o)| (l + o) / TEMPERATURE).collect());
    let (now, wanted) = (shares(fit), shares(y));
    // Half the identity bounds the softmax's curvature (Böhning 1992): the minimum of the bound lies twice the gradient away.
    for (((fit, y), now), wanted) in fit.iter_mut().zip(y).zip(now).zip(wanted) {
        *fit += 2.0 * TEMPERATURE * (wanted - now) - y;
    }
}

/// The value nearest to `fit` that a clamp to `[low, high]` does not tell from `target`.
fn hidden_target(target: f32, fit: f32, [low, high]: [f32; 2]) -> f32 {
    // Plain comparisons without branches, which become vector instructions.
    let below = if fit < low { fit } else { low };
    let above = if fit > high { fit } else { high };
    let raised = if target <= low { below } else { target };
    if target >= high { above } else { raised }
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|l| *l = (*l - max).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|l| *l /= sum);
    logits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targets_that_the_clamp_hides_follow_the_fit() {
        let relu6 = [0.0, 6.0];
        assert_eq!(hidden_target(2.0, -1.0, relu6), 2.0);
        assert_eq!(hidden_target(-3.0, -1.0, relu6), -1.0);
        assert_eq!(hidden_target(-3.0, 0.5, relu6), 0.0);
        assert_eq!(hidden_target(7.0, 9.0, relu6), 9.0);
        assert_eq!(hidden_target(7.0, 4.0, relu6), 6.0);
    }

    #[test]
    fn softmax_steps_reach_the_wanted_shares_although_the_logits_differ() {
        let (y, others) = ([2.0, -1.0, 0.5], [0.3, 0.0, -0.2]);
        let mut fit = [0.0, 1.0, 7.0];
        for _ in 0..2000 {
            let mut change = fit;
            replace_by_softmax_move(&mut change, &y, &others);
            fit = std::array::from_fn(|o| y[o] + change[o]);
        }
        let shares = |logits: [f32; 3]| softmax((0..3).map(|o| (logits[o] + others[o]) / TEMPERATURE).collect());
        for (now, wanted) in shares(fit).iter().zip(shares(y)) {
            assert!((now - wanted).abs() < 1e-4, "{now} {wanted}");
        }
        assert!((fit.iter().sum::<f32>() - 8.0).abs() < 1e-2, "the mean of the logits is free and stays");
    }
}
