//! Refit of a map with more inputs than there are rows to fit it to, in the space of the rows.
//!
//! The least-squares weights with a ridge that pulls towards the weights W0 are W0 + X^T A with (X X^T + ridge) A = Y -
//! X W0 (the dual form of ridge regression; Saunders et al. 1998), columns of X and Y less their means, so that the
//! intercept is free. The matrix has one row for each row of the problem, however many inputs there are, and the same
//! solution as the normal equations of these rows.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::{Llt, Solve};
use faer::{Accum, Mat, Par, Side};
use rayon::prelude::*;

use crate::fit::gram::RIDGE;
use crate::fit::linear_map::GroupMaps;
use crate::fit::problem::{InputLayout, OVER_RELAXATION, RefitProblem};
use crate::fit::surrogate::replace_by_target_moves;
use crate::fit::wide::wide_rows_max;
use crate::fit::wide_rows::WideRows;
use crate::{KernelError, Refit};

/// Rows of X X^T that one thread makes at a time.
const TILE_ROWS: usize = 256;
/// Outputs that one thread works on at a time.
const TILE_OUTPUTS: usize = 64;

/// Rows of a wide problem with what they are fitted to.
struct WideData {
    x: WideRows,
    /// Targets less the other addends, and the sums of those, `[vectors of rows, outputs, lanes]`.
    y: Vec<f32>,
    others: Vec<f32>,
    /// Lanes of each vector of rows that hold one.
    lanes_used: Vec<usize>,
    lanes: usize,
    n_out: usize,
}

/// A solution: A, the right-hand side that it solves, and the mean of the targets.
struct Dual {
    a: Mat<f64>,
    rhs: Mat<f64>,
    mean: Vec<f64>,
}

impl RefitProblem<'_> {
    /// As [`RefitProblem::solve`], for a wide map, from as many rows as [`wide_rows_max`] allows; `weights` are the
    /// map's, `[outputs, inputs * taps]`.
    ///
    /// # Errors
    /// Activations or weights that are not finite.
    pub(crate) fn solve_wide(
        &self,
        pool: &rayon::ThreadPool,
        channels: &[usize],
        weights: &[f32],
    ) -> Result<Refit, KernelError> {
        let data = self.wide_data(&self.input_layout(channels), channels.len());
        let taps = self.map.taps();
        // Columns of X are ordered by taps, weights by channels.
        let weight_of = |column: usize| channels[column % channels.len()] * taps + column / channels.len();
        let n_weights = self.map.columns() - 1;
        let prior = |column: usize, output: usize| f64::from(weights[output * n_weights + weight_of(column)]);
        pool.install(|| {
            let means = data.x.means();
            let dual = self.solve_dual(&data, &means, &prior)?;
            self.refit_of(&data, &means, &dual, &prior)
        })
    }

    fn wide_data(&self, layout: &InputLayout, n_channels: usize) -> WideData {
        let images = self.activations.images();
        let (lanes, n_out) = (images.lanes(), self.outputs.len());
        let n_columns = n_channels * self.map.taps();
        let per_group = self.target.sample.per_image;
        let n_vectors = self.target.n_groups * per_group;
        let x = WideRows::new(n_columns, wide_rows_max(n_columns).min(n_vectors * lanes));
        let room = || Vec::with_capacity(n_vectors * n_out * lanes);
        let mut data = WideData { x, y: room(), others: room(), lanes_used: Vec::new(), lanes, n_out };
        let mut row = vec![0.0; (n_columns + 1) * lanes];
        let [mut y, mut others] = [(); 2].map(|()| vec![0.0; n_out * lanes]);
        for group in 0..self.target.n_groups {
            let values = self.activations.whole(self.source, group);
            let maps = GroupMaps { values, n_channels: layout.source.n_stored, lanes };
            let present = images.n_present(group);
            for (i, pixel) in self.target.sample.pixels(group).enumerate() {
                if data.x.is_full() {
                    return data;
                }
                let before = data.x.len();
                self.map.write_inputs(maps, pixel, &layout.source.used, &mut row);
                self.sum_others(group, pixel, layout, &mut others);
                self.write_targets(group * per_group + i, lanes, &others, &mut y);
                data.x.push(&row, lanes, present);
                data.y.extend_from_slice(&y);
                data.others.extend_from_slice(&others);
                data.lanes_used.push(data.x.len() - before);
            }
        }
        data
    }

    /// Solves for the targets, and again for where they move to, as often as [`RefitProblem::solve`] does.
    fn solve_dual(
        &self,
        data: &WideData,
        means: &[f64],
        prior: &(impl Fn(usize, usize) -> f64 + Sync),
    ) -> Result<Dual, KernelError> {
        let ridge = RIDGE * data.x.mean_diagonal();
        let factor = row_products(&data.x, means, ridge).llt(Side::Lower);
        let factor = factor.map_err(|_| KernelError::NotFinite { what: self.describe() })?;
        let before = fit_of_prior(&data.x, means, data.n_out, prior);
        let mut dual = Dual::solve(&factor, data.matrix(&data.y), &before);
        for _ in 0..self.n_passes() {
            let mut moves = data.vectors(|row, output| {
                let of_weights = before[(row, output)] + dual.rhs[(row, output)] - ridge * dual.a[(row, output)];
                (dual.mean[output] + of_weights) as f32
            });
            replace_by_target_moves(
                self.target.nonlinearity,
                data.lanes,
                data.n_out,
                &mut moves,
                &data.y,
                &data.others,
            );
            moves.iter_mut().zip(&data.y).for_each(|(moved, y)| *moved += y);
            dual.move_towards(&Dual::solve(&factor, data.matrix(&moves), &before), f64::from(OVER_RELAXATION));
        }
        Ok(dual)
    }

    /// The weights of a solution.
    fn refit_of(
        &self,
        data: &WideData,
        means: &[f64],
        dual: &Dual,
        prior: &(impl Fn(usize, usize) -> f64 + Sync),
    ) -> Result<Refit, KernelError> {
        let (n_columns, n_out, taps) = (data.x.n_columns(), data.n_out, self.map.taps());
        let n_channels = n_columns / taps;
        let mut refit = Refit { weight: vec![0.0; n_out * n_columns], bias: Vec::new() };
        let mut bias = dual.mean.clone();
        for (first, block) in data.x.centred_blocks(means) {
            let per_output = refit.weight.par_chunks_mut(n_columns).zip(&mut bias);
            per_output.enumerate().for_each(|(output, (weight, bias))| {
                let change = block.transpose() * dual.a.col(output);
                for (i, &change) in change.iter().enumerate() {
                    let column = first + i;
                    let new = (prior(column, output) + change) as f32;
                    weight[column % n_channels * taps + column / n_channels] = new;
                    *bias -= means[column] * f64::from(new);
                }
            });
        }
        refit.bias = bias.into_iter().map(|b| b as f32).collect();
        match refit.weight.iter().chain(&refit.bias).all(|w| w.is_finite()) {
            true => Ok(refit),
            false => Err(KernelError::NotFinite { what: self.describe() }),
        }
    }

    fn describe(&self) -> String {
        format!("the least-squares refit of node {}", self.map.node)
    }
}

impl WideData {
    /// Values `[vectors of rows, outputs, lanes]` as `[rows, outputs]`.
    fn matrix(&self, values: &[f32]) -> Mat<f64> {
        let mut matrix = Mat::zeros(self.x.len(), self.n_out);
        for (row, (vector, lane)) in self.rows().enumerate() {
            for output in 0..self.n_out {
                matrix[(row, output)] = f64::from(values[(vector * self.n_out + output) * self.lanes + lane]);
            }
        }
        matrix
    }

    /// The value of every (row, output) as `[vectors of rows, outputs, lanes]`; zero in lanes without a row.
    fn vectors(&self, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let mut values = vec![0.0; self.y.len()];
        for (row, (vector, lane)) in self.rows().enumerate() {
            for output in 0..self.n_out {
                values[(vector * self.n_out + output) * self.lanes + lane] = value(row, output);
            }
        }
        values
    }

    /// Vector and lane of every row.
    fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        self.lanes_used.iter().enumerate().flat_map(|(vector, &n)| (0..n).map(move |lane| (vector, lane)))
    }
}

impl Dual {
    /// For the targets `y`, where the weights pulled towards make `before`; both `[rows, outputs]`.
    fn solve(factor: &Llt<f64>, mut y: Mat<f64>, before: &Mat<f64>) -> Self {
        let (n_rows, n_out) = (y.nrows(), y.ncols());
        let mean: Vec<f64> = (0..n_out).map(|o| y.col(o).iter().sum::<f64>() / n_rows.max(1) as f64).collect();
        for (output, mean) in mean.iter().enumerate() {
            (0..n_rows).for_each(|row| y[(row, output)] -= mean + before[(row, output)]);
        }
        let tiles: Vec<usize> = (0..n_out).step_by(TILE_OUTPUTS).collect();
        let solved: Vec<Mat<f64>> =
            tiles.par_iter().map(|&o| factor.solve(y.subcols(o, TILE_OUTPUTS.min(n_out - o)))).collect();
        let a = Mat::from_fn(n_rows, n_out, |row, o| solved[o / TILE_OUTPUTS][(row, o % TILE_OUTPUTS)]);
        Self { a, rhs: y, mean }
    }

    fn move_towards(&mut self, other: &Self, step: f64) {
        let towards = |from: f64, to: f64| from + step * (to - from);
        self.a = Mat::from_fn(self.a.nrows(), self.a.ncols(), |i, j| towards(self.a[(i, j)], other.a[(i, j)]));
        self.rhs =
            Mat::from_fn(self.rhs.nrows(), self.rhs.ncols(), |i, j| towards(self.rhs[(i, j)], other.rhs[(i, j)]));
        self.mean.iter_mut().zip(&other.mean).for_each(|(from, &to)| *from = towards(*from, to));
    }
}

/// X X^T of centred columns with `ridge` on its diagonal, `[rows, rows]`, its lower triangle only. Made in tiles of
/// rows, each a sum over blocks of columns in their order, so that it does not depend on the number of threads.
fn row_products(x: &WideRows, means: &[f64], ridge: f64) -> Mat<f64> {
    let n = x.len();
    let height = |tile: usize| TILE_ROWS.min(n - tile * TILE_ROWS);
    let mut tiles: Vec<Mat<f64>> =
        (0..n.div_ceil(TILE_ROWS)).map(|t| Mat::zeros(height(t), t * TILE_ROWS + height(t))).collect();
    for (_, block) in x.centred_blocks(means) {
        tiles.par_iter_mut().enumerate().for_each(|(t, sums)| {
            let [rows, all] = [(t * TILE_ROWS, height(t)), (0, sums.ncols())].map(|(from, n)| block.subrows(from, n));
            matmul(sums.as_mut(), Accum::Add, rows, all.transpose(), 1.0, Par::Seq);
        });
    }
    Mat::from_fn(n, n, |i, j| match j {
        _ if j > i => 0.0,
        _ => tiles[i / TILE_ROWS][(i % TILE_ROWS, j)] + if i == j { ridge } else { 0.0 },
    })
}

/// What the weights that are pulled towards make of the centred rows, `[rows, outputs]`.
fn fit_of_prior(x: &WideRows, means: &[f64], n_out: usize, prior: &(impl Fn(usize, usize) -> f64 + Sync)) -> Mat<f64> {
    let width = |tile: usize| TILE_OUTPUTS.min(n_out - tile * TILE_OUTPUTS);
    let mut tiles: Vec<Mat<f64>> = (0..n_out.div_ceil(TILE_OUTPUTS)).map(|t| Mat::zeros(x.len(), width(t))).collect();
    for (first, block) in x.centred_blocks(means) {
        tiles.par_iter_mut().enumerate().for_each(|(t, fit)| {
            let weights = Mat::from_fn(block.ncols(), width(t), |i, o| prior(first + i, t * TILE_OUTPUTS + o));
            matmul(fit.as_mut(), Accum::Add, &block, &weights, 1.0, Par::Seq);
        });
    }
    Mat::from_fn(x.len(), n_out, |row, o| tiles[o / TILE_OUTPUTS][(row, o % TILE_OUTPUTS)])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fit::activations::Activations;
    use crate::fit::image_groups::ImageGroups;
    use crate::fit::problem::SpareBlocks;
    use crate::fit::target::{Effort, Nonlinearity, targets};
    use crate::{Isa, LinearMap};
    use secateur_net::random::{SplitMix, with_random_weights};
    use secateur_net::{Conv2d, GraphBuilder, Network, Op, Pointwise, Shape};

    /// Two convolutions whose sum is rectified, then one behind nothing, then a classifier.
    fn network() -> Network {
        let mut b = GraphBuilder::new(Shape { c: 3, h: 5, w: 4 });
        let conv = |c, n, k| Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(c, n, k, 1, k / 2) });
        let first = b.push("first", conv(3, 6, 1), &[0]);
        let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[first]);
        let aside = b.push("aside", conv(3, 4, 1), &[0]);
        let summed = b.push("summed", conv(6, 4, 3), &[relu]);
        let sum = b.push("sum", Op::Add, &[aside, summed]);
        let relu = b.push("relu2", Op::Pointwise(Pointwise::Relu), &[sum]);
        let free = b.push("free", conv(4, 5, 3), &[relu]);
        let flat = b.push("flat", Op::Flatten, &[free]);
        b.push("fc", Op::Linear { in_features: 100, out_features: 3, bias: true }, &[flat]);
        with_random_weights(b.finish().unwrap(), 2)
    }

    #[test]
    fn a_refit_in_the_space_of_rows_is_the_one_by_normal_equations() {
        let (network, pool) = (network(), rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let mut rng = SplitMix(4);
        let values: Vec<f32> = (0..150 * 60).map(|_| rng.signed()).collect();
        let images = ImageGroups::new(&values, 60, Isa::detect().lanes());
        let targets = targets(&pool, &network, &images, (1, &BTreeSet::new()), Effort::Thorough.into()).unwrap();
        let mut met = Vec::new();
        for (node, keep_every) in [(4, 2), (4, 1), (7, 2), (7, 1), (9, 3), (9, 1)] {
            let mut activations = Activations::new(&images, Vec::new());
            activations.advance(&pool, &network, node).unwrap();
            let target = &targets[&node];
            let map = LinearMap::of(network.graph(), node).remove(0);
            let (channels, outputs) =
                ((0..map.inputs.len).step_by(keep_every).collect::<Vec<_>>(), (0..map.outputs.len).collect());
            let weights: Vec<f32> = (0..map.outputs.len * (map.columns() - 1)).map(|_| 0.3 * rng.signed()).collect();
            let problem = RefitProblem {
                target_channels: map.outputs.len,
                outputs,
                source: network.graph().node(node).inputs[0],
                map,
                activations: &activations,
                target,
                effort: Effort::Thorough,
                blocks: &SpareBlocks::default(),
            };
            let equations = problem.equations(&pool).pulled_towards(&weights);
            let expected = problem.solve(&pool, &equations, &channels).unwrap();
            let got = problem.solve_wide(&pool, &channels, &weights).unwrap();
            let pairs = || got.weight.iter().chain(&got.bias).zip(expected.weight.iter().chain(&expected.bias));
            let scale = pairs().map(|(_, e)| e.abs()).fold(0.0, f32::max);
            let worst = pairs().map(|(g, e)| (g - e).abs()).fold(0.0, f32::max);
            assert_eq!(got.weight.len(), expected.weight.len());
            // With some inputs left out, the ridge is a share of the mean over those used, and not of the mean over
            // all.
            let tolerance = if keep_every == 1 { 5e-3 } else { 3e-2 };
            assert!(worst < tolerance * scale, "node {node}, one in {keep_every}: {worst} of {scale}");
            met.push(target.nonlinearity);
        }
        assert_eq!(
            [met[0], met[2], met[4]],
            [Nonlinearity::Clamp([0.0, f32::INFINITY]), Nonlinearity::Unknown, Nonlinearity::Softmax]
        );
    }
}
