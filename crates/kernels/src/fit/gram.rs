//! Normal equations of a convolution or Linear node: everything a least-squares refit needs, gathered in one pass over
//! data.
//!
//! For rows x (the inputs under the kernel at one output pixel, and a constant 1) and targets y, the matrices X^T X,
//! X^T Y and the energy of Y determine the least-squares weights of *any* subset of the inputs, so that a repair never
//! looks at data again (algorithms 1.4).

use rayon::prelude::*;

use crate::simd::products::{Columns, F32_ROWS, add_products, add_squares};
use crate::{Isa, LinearMap};

/// Ridge as a share of the mean diagonal of X^T X.
pub const RIDGE: f64 = 1e-4;

/// Rows of one tile of the (symmetric) product: few enough that the tile's columns stay in the second-level cache.
const TILE: usize = 64;

/// Sums of one [`LinearMap`] while data is read.
#[derive(Clone, Debug)]
pub(crate) struct GramSums {
    isa: Isa,
    /// Columns of X, outputs.
    size: (usize, usize),
    /// Upper triangle of X^T X in tiles of rows: tile t holds rows `t * TILE ..` of columns `t * TILE ..`.
    tiles: Vec<Vec<f64>>,
    /// X^T Y, `[columns, outputs]`.
    moment: Vec<f64>,
    /// Diagonal of Y^T Y.
    energy: Vec<f64>,
}

impl GramSums {
    /// No rows yet.
    pub(crate) fn new(isa: Isa, map: &LinearMap) -> Self {
        let (d, n_out) = (map.columns(), map.outputs.len);
        let tiles = (0..d).step_by(TILE).map(|first| vec![0.0; TILE.min(d - first) * (d - first)]).collect();
        Self { isa, size: (d, n_out), tiles, moment: vec![0.0; d * n_out], energy: vec![0.0; n_out] }
    }

    /// Adds rows of X (taps in order, channels within a tap, 1) and Y, `[rows, columns, LANES]` each.
    pub(crate) fn add(&mut self, x: &[f32], y: &[f32]) {
        let (isa, (d, n_out)) = (self.isa, self.size);
        let n_rows = x.len() / (d * isa.lanes());
        // Products are summed in f32: only those of some rows at a time.
        let blocks = || (0..n_rows).step_by(F32_ROWS).map(|start| (start, [1, 1, F32_ROWS.min(n_rows - start)]));
        let columns = |start, first, n| Columns { start, ..Columns::of_rows(x, d, first, n) };
        self.tiles.par_iter_mut().enumerate().for_each(|(t, sums)| {
            let first = t * TILE;
            for (start, counts) in blocks() {
                let pair = [columns(start, first, TILE.min(d - first)), columns(start, first, d - first)];
                add_products(isa, pair, counts, true, sums, d - first);
            }
        });
        for (start, counts) in blocks() {
            let targets = Columns { start, ..Columns::of_rows(y, n_out, 0, n_out) };
            add_products(isa, [columns(start, 0, d), targets], counts, false, &mut self.moment, n_out);
            add_squares(isa, targets, counts, &mut self.energy);
        }
    }

    /// Adds another's sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mine = self.tiles.iter_mut().chain([&mut self.moment, &mut self.energy]);
        for (sums, more) in mine.zip(other.tiles.iter().chain([&other.moment, &other.energy])) {
            sums.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        }
    }

    /// The finished equations of `map` from `n_rows` rows, input columns reordered to channel-major as in a weight
    /// tensor.
    pub(crate) fn finish(self, map: LinearMap, n_rows: u64) -> NormalEquations {
        let (n, taps, (d, _)) = (map.inputs.len, map.taps(), self.size);
        let at = |i: usize, j: usize| {
            let (i, j) = (i.min(j), i.max(j));
            let first = i / TILE * TILE;
            self.tiles[i / TILE][(i - first) * (d - first) + j - first]
        };
        // Column c * taps + k of the result is column k * n + c of X.
        let from: Vec<usize> = (0..n * taps).map(|j| (j % taps) * n + j / taps).chain([n * taps]).collect();
        let gram = (0..d * d).map(|i| at(from[i / d], from[i % d])).collect();
        NormalEquations::new(map, gram, &self.moment, &self.energy, n_rows)
    }
}

/// Sums of X^T X `[d, d]`, X^T Y `[d, out]`, both row-major, f64; `d = inputs * taps + 1`, intercept last.
#[derive(Clone, Debug)]
pub struct NormalEquations {
    /// What the equations are of.
    pub map: LinearMap,
    /// X^T X.
    pub gram: Vec<f64>,
    /// X^T Y, and the ridge times the weights that it pulls towards, see [`Self::pulled_towards`].
    pub moment: Vec<f64>,
    /// What the ridge counts when a column loses the weights that it is pulled towards, `[columns]`: a refit without
    /// the column is not charged for it.
    pub pull: Vec<f64>,
    /// Sum over outputs of the squared deviation of Y from its mean.
    pub target_energy: f64,
    /// Rows summed.
    pub n_rows: u64,
}

impl NormalEquations {
    /// From the sums of `n_rows` rows: X^T X as it is to be, X^T Y with its taps in order, channels within a tap, and
    /// Y^T Y's diagonal.
    pub(crate) fn new(map: LinearMap, gram: Vec<f64>, moment: &[f64], energy: &[f64], n_rows: u64) -> Self {
        let (n_out, intercept) = (energy.len(), map.columns() - 1);
        let ordered = Self::channels_first(&map, moment, n_out);
        let rows = n_rows.max(1) as f64;
        let variance = |o: usize| energy[o] - moment[intercept * n_out + o].powi(2) / rows;
        // The floor keeps the rounding noise of a constant target from counting as all there is to explain.
        let floor = 1e-6 * energy.iter().sum::<f64>();
        let target_energy = (0..n_out).map(variance).sum::<f64>().max(floor);
        Self { map, gram, moment: ordered, pull: vec![0.0; intercept + 1], target_energy, n_rows }
    }

    /// A moment whose columns are taps in order, channels within a tap, in the order of a weight tensor.
    pub(crate) fn channels_first(map: &LinearMap, moment: &[f64], n_out: usize) -> Vec<f64> {
        let (n, taps) = (map.inputs.len, map.taps());
        let from = |row: usize| if row == n * taps { row } else { row % taps * n + row / taps };
        (0..=n * taps).flat_map(|row| &moment[from(row) * n_out..][..n_out]).copied().collect()
    }

    /// What the ridge adds to the diagonal of X^T X, but for the intercept.
    pub(crate) fn ridge(&self) -> f64 {
        let d = self.map.columns();
        RIDGE * (0..d).map(|i| self.gram[i * d + i]).sum::<f64>() / d as f64
    }

    /// The equations whose ridge pulls towards `weights`, `[outputs, inputs * taps]`, and not towards zero. With the
    /// map's weights before anything was removed, a refit moves them only as far as the rows ask for: not at all where
    /// what was removed did nothing.
    #[must_use]
    pub fn pulled_towards(mut self, weights: &[f32]) -> Self {
        let (ridge, n_out) = (self.ridge(), self.map.outputs.len);
        let n_weights = self.map.columns() - 1;
        for (o, filter) in weights.chunks_exact(n_weights).enumerate() {
            let columns = self.moment.chunks_exact_mut(n_out).zip(&mut self.pull);
            for ((row, pull), &weight) in columns.zip(filter) {
                row[o] += ridge * f64::from(weight);
                *pull += ridge * f64::from(weight).powi(2);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Conv2d, GraphBuilder, Op, Shape};

    #[test]
    fn many_rows_at_once_are_summed_as_exactly_as_few() {
        let mut graph = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
        let node = graph.push("conv", Op::Conv2d(Conv2d::square(2, 1, 1, 1, 0)), &[0]);
        let map = LinearMap::of(&graph.finish().unwrap(), node).remove(0);
        for isa in Isa::available() {
            let (lanes, n_rows) = (isa.lanes(), 6000);
            let row = |values: &[f32]| values.iter().flat_map(|&v| vec![v; lanes]).collect::<Vec<f32>>();
            let (x, y) = (row(&[0.7, 0.3, 1.0]).repeat(n_rows), row(&[0.9]).repeat(n_rows));
            let mut sums = GramSums::new(isa, &map);
            sums.add(&x, &y);
            let sum = |a: f32, b: f32| f64::from(a) * f64::from(b) * (n_rows * lanes) as f64;
            let got = [&sums.tiles[0][..3], &sums.moment[..], &sums.energy[..]].concat();
            let expected = [
                [sum(0.7, 0.7), sum(0.7, 0.3), sum(0.7, 1.0)],
                [sum(0.7, 0.9), sum(0.3, 0.9), sum(1.0, 0.9)],
                [sum(0.9, 0.9); 3],
            ];
            // As many roundings as there are rows of a block, one for the lanes each.
            let bound = (F32_ROWS + lanes) as f64 * 0.5 * f64::from(f32::EPSILON);
            for (got, expected) in got.iter().zip(expected.as_flattened()) {
                assert!((got / expected - 1.0).abs() < bound, "{isa:?}: got {got}, expected {expected}");
            }
        }
    }
}
