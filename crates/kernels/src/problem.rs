//! The least-squares problem of one linear map inside a half-pruned network.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use secateur_net::NodeId;

use crate::activations::Activations;
use crate::gram::GramBuilder;
use crate::refit_target::{Behind, Target};
use crate::{KernelError, LinearMap, NormalEquations, Refit};

/// Rows whose products are summed in f32 before they go into f64 sums.
const BLOCK_ROWS: usize = 2048;
/// Blocks whose f32 sums are held at a time; a constant, so that sums do not depend on the number of threads.
const WAVE_BLOCKS: usize = 16;
/// How often targets that an activation hides are moved.
const CLAMP_PASSES: usize = 4;
/// How often the targets of a classifier's logits are moved: its steps are short, but its rows are few.
const SOFTMAX_PASSES: usize = 60;
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
}

/// Working memory of a thread.
#[derive(Default)]
struct Buffers {
    source: Vec<f32>,
    other: Vec<f32>,
    /// Rows of Z of a block, and the other addends of each row.
    rows: Vec<f32>,
    others: Vec<f32>,
    /// `[rows, outputs]`: what the weights predict, then by how much the targets move.
    fit: Vec<f32>,
}

impl Problem<'_> {
    /// Normal equations for all inputs of the map.
    pub fn equations(&self, pool: &rayon::ThreadPool) -> NormalEquations {
        let mut builder = GramBuilder::new(self.map.clone());
        let channels: Vec<usize> = (0..self.map.inputs.1).collect();
        let n_images = self.activations.n_images();
        let image_len = self.target.sample.per_image * builder.row_len();
        let others_len = self.target.sample.per_image * self.outputs.len();
        let block = self.block_images();
        let mut z = vec![0.0f32; block * image_len];
        pool.install(|| {
            for first in (0..n_images).step_by(block) {
                let z = &mut z[..block.min(n_images - first) * image_len];
                z.par_chunks_mut(image_len).enumerate().with_min_len(8).for_each_init(
                    Buffers::default,
                    |b, (i, rows)| {
                        b.others.resize(others_len, 0.0);
                        self.fill(first + i, &channels, rows, &mut b.others, (&mut b.source, &mut b.other));
                    },
                );
                builder.add(z);
            }
        });
        builder.finish()
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
            Behind::Clamp(_) => CLAMP_PASSES,
            Behind::Softmax => SOFTMAX_PASSES,
        };
        for _ in 0..n_passes {
            let mut moment = equations.moment.clone();
            let change = self.moment_change(pool, &refit, channels);
            for (row, change) in self.columns(channels).zip(change.chunks_exact(n_out)) {
                moment[row * n_out..][..n_out].iter_mut().zip(change).for_each(|(m, c)| *m += c);
            }
            refit = solver.refit(&moment)?;
        }
        Ok(refit)
    }

    /// For every column of the rows that `fill` writes, the row of the normal equations' X^T Y.
    fn columns(&self, channels: &[usize]) -> impl Iterator<Item = usize> {
        let taps = self.map.taps();
        let weights = (0..taps).flat_map(move |t| channels.iter().map(move |c| c * taps + t));
        weights.chain([self.map.columns() - 1])
    }

    fn block_images(&self) -> usize {
        (BLOCK_ROWS / self.target.sample.per_image).max(1)
    }

    /// Writes the rows of one image: the inputs `channels`, 1, and the targets less the other addends; and those addends' sums.
    fn fill(
        &self,
        image: usize,
        channels: &[usize],
        rows: &mut [f32],
        others: &mut [f32],
        (source_buffer, other_buffer): (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        let (per_image, n_out) = (self.target.sample.per_image, self.outputs.len());
        let row_len = rows.len() / per_image;
        let input = self.activations.read(self.source, image, source_buffer);
        for (pixel, row) in self.target.sample.pixels(image).zip(rows.chunks_exact_mut(row_len)) {
            self.map.write_inputs(input, pixel, channels, &mut row[..row_len - n_out]);
        }
        others.fill(0.0);
        for &other in &self.target.others {
            let values = self.activations.read(other, image, other_buffer);
            for (pixel, sums) in self.target.sample.pixels(image).zip(others.chunks_exact_mut(n_out)) {
                sums.iter_mut().zip(self.map.outputs_at(values, pixel)).for_each(|(o, v)| *o += v);
            }
        }
        let target = &self.target.values[image * per_image * self.target_channels..];
        let rows = rows.chunks_exact_mut(row_len).zip(others.chunks_exact(n_out));
        for ((row, others), target) in rows.zip(target.chunks_exact(self.target_channels)) {
            for ((y, other), &at) in row[row_len - n_out..].iter_mut().zip(others).zip(&self.outputs) {
                *y = target[at] - other;
            }
        }
    }

    /// What moving the targets, given the fit of `refit`, adds to X^T Y: `[columns, outputs]`.
    fn moment_change(&self, pool: &rayon::ThreadPool, refit: &Refit, channels: &[usize]) -> Vec<f64> {
        let n_out = self.outputs.len();
        let (n, taps) = (channels.len() * self.map.taps(), self.map.taps());
        let weights: Vec<f32> = (0..(n + 1) * n_out)
            .map(|i| match (i / n_out, i % n_out) {
                (column, o) if column == n => refit.bias[o],
                (column, o) => refit.weight[o * n + column % channels.len() * taps + column / channels.len()],
            })
            .collect();
        let n_blocks = self.activations.n_images().div_ceil(self.block_images());
        let mut change = vec![0.0f64; weights.len()];
        for wave in (0..n_blocks).step_by(WAVE_BLOCKS) {
            let blocks = (wave..(wave + WAVE_BLOCKS).min(n_blocks)).into_par_iter();
            let parts: Vec<Vec<f32>> = pool.install(|| {
                blocks
                    .map_init(Buffers::default, |buffers, b| self.block_change(b, &weights, channels, buffers))
                    .collect()
            });
            for part in parts {
                change.iter_mut().zip(part).for_each(|(sum, c)| *sum += f64::from(c));
            }
        }
        change
    }

    fn block_change(&self, block: usize, weights: &[f32], channels: &[usize], buffers: &mut Buffers) -> Vec<f32> {
        let (per_image, n_out) = (self.target.sample.per_image, self.outputs.len());
        let first = block * self.block_images();
        let n_images = self.block_images().min(self.activations.n_images() - first);
        let (n_rows, n_columns) = (n_images * per_image, weights.len() / n_out);
        let row_len = n_columns + n_out;
        let Buffers { source, other, rows, others, fit } = buffers;
        rows.resize(n_rows * row_len, 0.0);
        others.resize(n_rows * n_out, 0.0);
        fit.resize(n_rows * n_out, 0.0);
        let images = rows.chunks_exact_mut(per_image * row_len).zip(others.chunks_exact_mut(per_image * n_out));
        for (i, (rows, others)) in images.enumerate() {
            self.fill(first + i, channels, rows, others, (source, other));
        }
        let x = MatRef::from_row_major_slice(rows, n_rows, row_len).subcols(0, n_columns);
        let weights = MatRef::from_row_major_slice(weights, n_columns, n_out);
        let product = MatMut::from_row_major_slice_mut(fit, n_rows, n_out);
        matmul(product, Accum::Replace, x, weights, 1.0, Par::Seq);
        for ((row, others), fit) in
            rows.chunks_exact(row_len).zip(others.chunks_exact(n_out)).zip(fit.chunks_exact_mut(n_out))
        {
            replace_by_move(self.target.behind, fit, &row[n_columns..], others);
        }
        let mut change = vec![0.0f32; n_columns * n_out];
        let fit = MatRef::from_row_major_slice(fit, n_rows, n_out);
        let product = MatMut::from_row_major_slice_mut(&mut change, n_columns, n_out);
        matmul(product, Accum::Replace, x.transpose(), fit, 1.0, Par::Seq);
        change
    }
}

/// Replaces the fit of one row by how far its targets `y` move; `others` are the other addends.
fn replace_by_move(behind: Behind, fit: &mut [f32], y: &[f32], others: &[f32]) {
    match behind {
        Behind::Anything => fit.fill(0.0),
        Behind::Clamp(clamp) => {
            for ((fit, y), other) in fit.iter_mut().zip(y).zip(others) {
                *fit = hidden_target(y + other, *fit + other, clamp) - (y + other);
            }
        }
        Behind::Softmax => {
            let shares =
                |logits: &[f32]| softmax(logits.iter().zip(others).map(|(l, o)| (l + o) / TEMPERATURE).collect());
            let (now, wanted) = (shares(fit), shares(y));
            // Half the identity bounds the softmax's curvature (Böhning 1992): the minimum of the bound lies twice the gradient away.
            for (((fit, y), now), wanted) in fit.iter_mut().zip(y).zip(now).zip(wanted) {
                *fit += 2.0 * TEMPERATURE * (wanted - now) - y;
            }
        }
    }
}

/// The value nearest to `fit` that a clamp to `[low, high]` does not tell from `target`.
fn hidden_target(target: f32, fit: f32, [low, high]: [f32; 2]) -> f32 {
    if target <= low {
        fit.min(low)
    } else if target >= high {
        fit.max(high)
    } else {
        target
    }
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
            replace_by_move(Behind::Softmax, &mut change, &y, &others);
            fit = std::array::from_fn(|o| y[o] + change[o]);
        }
        let shares = |logits: [f32; 3]| softmax((0..3).map(|o| (logits[o] + others[o]) / TEMPERATURE).collect());
        for (now, wanted) in shares(fit).iter().zip(shares(y)) {
            assert!((now - wanted).abs() < 1e-4, "{now} {wanted}");
        }
        assert!((fit.iter().sum::<f32>() - 8.0).abs() < 1e-2, "the mean of the logits is free and stays");
    }
}
