//! Normal equations of a convolution or Linear node: everything a least-squares refit needs, gathered in one pass over data.
//!
//! For rows x (the inputs under the kernel at one output pixel, and a constant 1) and targets y, the matrices X^T X, X^T Y and
//! the energy of Y determine the least-squares weights of *any* subset of the inputs, so that a repair never looks at data
//! again (algorithms 1.4).

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::LinearMap;

/// Columns of one tile of the (symmetric) product; the unit of work of a thread.
const TILE: usize = 64;

/// Sums of one [`LinearMap`] while data is read.
#[derive(Debug)]
pub struct GramBuilder {
    map: LinearMap,
    /// Upper triangle of Z^T Z for Z = [X, 1, Y], in tiles of columns: tile t holds rows `0..min(d, (t + 1) * TILE)`, column-major.
    tiles: Vec<Vec<f64>>,
    n_rows: u64,
}

impl GramBuilder {
    /// Starts empty.
    pub fn new(map: LinearMap) -> Self {
        let d = map.columns() + map.outputs.1;
        let tiles = (0..d.div_ceil(TILE)).map(|t| vec![0.0; tile_rows(t, d) * tile_columns(t, d)]).collect();
        Self { map, tiles, n_rows: 0 }
    }

    /// What the equations are of.
    pub const fn map(&self) -> &LinearMap {
        &self.map
    }

    /// Length of a row of Z: X (taps in order, channels within a tap), the constant 1, Y.
    pub const fn row_len(&self) -> usize {
        self.map.columns() + self.map.outputs.1
    }

    /// Adds rows of Z, row-major: a few thousand at most, since their products are summed in f32 before they go into the f64
    /// sums. Runs on the current thread pool; the sums do not depend on its size.
    pub fn add(&mut self, z: &[f32]) {
        let d = self.row_len();
        debug_assert_eq!(z.len() % d, 0);
        let n_rows = z.len() / d;
        let z = MatRef::from_row_major_slice(z, n_rows, d);
        self.tiles.par_iter_mut().enumerate().for_each(|(t, tile)| add_tile(z, t, tile));
        self.n_rows += n_rows as u64;
    }

    /// The finished equations, input columns reordered to channel-major as in a weight tensor.
    pub fn finish(self) -> NormalEquations {
        let (n, taps, d) = (self.map.inputs.1, self.map.taps(), self.map.columns());
        let n_out = self.map.outputs.1;
        let at = |i: usize, j: usize| {
            let (i, j) = (i.min(j), i.max(j));
            let t = j / TILE;
            self.tiles[t][(j % TILE) * tile_rows(t, d + n_out) + i]
        };
        // Column c * taps + k of the result is column k * n + c of Z.
        let from: Vec<usize> = (0..n * taps).map(|j| (j % taps) * n + j / taps).chain([n * taps]).collect();
        let gram = (0..d * d).map(|i| at(from[i / d], from[i % d])).collect();
        let moment = (0..d * n_out).map(|i| at(from[i / n_out], d + i % n_out)).collect();
        let rows = self.n_rows.max(1) as f64;
        let variance = |o: usize| at(d + o, d + o) - at(d - 1, d + o).powi(2) / rows;
        // The floor keeps the rounding noise of a constant target from counting as all there is to explain.
        let floor = 1e-6 * (0..n_out).map(|o| at(d + o, d + o)).sum::<f64>();
        let energy = (0..n_out).map(variance).sum::<f64>().max(floor);
        NormalEquations { map: self.map, gram, moment, target_energy: energy, n_rows: self.n_rows }
    }
}

/// Sums of X^T X `[d, d]`, X^T Y `[d, out]`, both row-major, f64; `d = inputs * taps + 1`, intercept last.
#[derive(Clone, Debug)]
pub struct NormalEquations {
    /// What the equations are of.
    pub map: LinearMap,
    /// X^T X.
    pub gram: Vec<f64>,
    /// X^T Y.
    pub moment: Vec<f64>,
    /// Sum over outputs of the squared deviation of Y from its mean.
    pub target_energy: f64,
    /// Rows summed.
    pub n_rows: u64,
}

fn tile_rows(t: usize, d: usize) -> usize {
    d.min((t + 1) * TILE)
}

fn tile_columns(t: usize, d: usize) -> usize {
    tile_rows(t, d) - t * TILE
}

fn add_tile(z: MatRef<'_, f32>, t: usize, tile: &mut [f64]) {
    let (rows, columns) = (tile_rows(t, z.ncols()), tile_columns(t, z.ncols()));
    let mut product = vec![0.0f32; rows * columns];
    let into = MatMut::from_column_major_slice_mut(&mut product, rows, columns);
    matmul(into, Accum::Replace, z.subcols(0, rows).transpose(), z.subcols(t * TILE, columns), 1.0f32, Par::Seq);
    for (sum, &p) in tile.iter_mut().zip(&product) {
        *sum += f64::from(p);
    }
}
