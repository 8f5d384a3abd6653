//! The rows of a wide map's least-squares problem, written out.

use faer::Mat;

/// Columns that are centred and widened to f64 at a time.
const BLOCK_COLUMNS: usize = 256;

/// Inputs under the kernel of some output pixels, `[rows, columns]`; taps in order, channels within a tap, without an
/// intercept.
#[derive(Debug)]
pub(crate) struct WideRows {
    values: Vec<f32>,
    n_columns: usize,
    n_rows_max: usize,
}

impl WideRows {
    /// No rows yet, with room for `n_rows_max`; no more are taken.
    pub(crate) fn new(n_columns: usize, n_rows_max: usize) -> Self {
        Self { values: Vec::with_capacity(n_columns * n_rows_max), n_columns, n_rows_max }
    }
    /// Rows so far.
    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.n_columns
    }
    /// Whether no further row is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.n_rows_max
    }
    /// Columns.
    pub(crate) const fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Adds a row of each of the first `n_lanes` lanes of `row` `[columns + 1, lanes]`, whose last column is the
    /// intercept.
    pub(crate) fn push(&mut self, row: &[f32], lanes: usize, n_lanes: usize) {
        for lane in 0..n_lanes.min(self.n_rows_max - self.len()) {
            self.values.extend(row[lane..self.n_columns * lanes].iter().step_by(lanes));
        }
    }

    /// Mean of every column.
    pub(crate) fn means(&self) -> Vec<f64> {
        let mut means = vec![0.0; self.n_columns];
        for row in self.values.chunks_exact(self.n_columns) {
            means.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x));
        }
        let n_rows = self.len().max(1) as f64;
        means.iter_mut().for_each(|mean| *mean /= n_rows);
        means
    }

    /// Mean of the columns' sums of squares, an intercept of ones included: what the ridge is a share of.
    pub(crate) fn mean_diagonal(&self) -> f64 {
        let squares: f64 = self.values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        (squares + self.len() as f64) / (self.n_columns + 1) as f64
    }

    /// All columns, less their means, some at a time: the first one's index, and `[rows, columns]`.
    pub(crate) fn centred_blocks<'a>(&'a self, means: &'a [f64]) -> impl Iterator<Item = (usize, Mat<f64>)> + 'a {
        (0..self.n_columns).step_by(BLOCK_COLUMNS).map(|first| {
            let n = BLOCK_COLUMNS.min(self.n_columns - first);
            let value =
                |row: usize, i: usize| f64::from(self.values[row * self.n_columns + first + i]) - means[first + i];
            (first, Mat::from_fn(self.len(), n, value))
        })
    }

    /// A row, `[columns]`.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.n_columns..][..self.n_columns]
    }
}
