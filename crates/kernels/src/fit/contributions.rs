//! What each channel that a wide map reads adds to the map's outputs: enough to rank the channels where normal
//! equations of all inputs would be too large.
//!
//! With z_c the part of the outputs that channel c makes under the map's own weights, the outputs are the sum of all
//! z_c and an intercept. Backward elimination on the least-squares problem of that sum with one factor for each channel
//! (a column each, outputs and rows together as rows) ranks channels by what their loss costs after the other channels
//! were scaled to make up for it.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;
use secateur_net::GroupChannel;

use crate::fit::wide_rows::WideRows;
use crate::{LinearMap, NormalEquations};

/// Channels whose parts are held against each other: so that the equations of any number of channels stay small, those
/// further apart in order count as independent.
const CHANNELS_MAX: usize = 512;
/// Most values of one channel's part: rows times outputs.
const VALUES_MAX: usize = 1 << 18;
/// Memory for the parts of some rows, in values: 134 MB.
const BLOCK_VALUES: usize = 1 << 24;

/// The parts of some channels of a wide map.
#[derive(Debug)]
pub struct Contributions {
    /// One column for each of `channels`, one output: the sum of all parts.
    pub equations: NormalEquations,
    /// The channels, ascending by their first position.
    pub channels: Vec<GroupChannel>,
}

/// Rows that are enough for a map with `n_out` outputs.
pub(crate) fn contribution_rows(n_out: usize, n_rows_max: usize) -> usize {
    (VALUES_MAX / n_out.max(1)).clamp(1, n_rows_max)
}

/// The parts of all channels on the map's input axis `axis` (one slot for each of its inputs), from rows of its inputs;
/// `weights` are the map's, `[outputs, inputs * taps]`.
pub(crate) fn contributions(
    map: &LinearMap,
    axis: &[GroupChannel],
    x: &WideRows,
    weights: &[f32],
) -> Vec<Contributions> {
    let columns = columns_by_channel(map, axis);
    let means = x.means();
    // The outputs less their means, `[rows, outputs]`: the sum of all parts.
    let mut outputs = vec![0.0; x.len() * map.outputs.len];
    let grams: Vec<Mat<f64>> = columns
        .chunks(CHANNELS_MAX)
        .map(|some| {
            let rows = CentredRows { map, x, means: &means, weights };
            gram_of_parts(&rows, some, &mut outputs)
        })
        .collect();
    let energy: f64 = outputs.iter().map(|y| y * y).sum();
    let equations = grams.iter().map(|gram| equations_of(map, gram, energy, x.len()));
    let channels = columns.chunks(CHANNELS_MAX).map(|some| some.iter().map(|(slot, _)| *slot).collect());
    equations.zip(channels).map(|(equations, channels)| Contributions { equations, channels }).collect()
}

/// The equations of one factor for each channel whose parts have the products `gram`.
fn equations_of(map: &LinearMap, gram: &Mat<f64>, target_energy: f64, n_rows: usize) -> NormalEquations {
    let n = gram.nrows();
    let mut with_intercept = vec![0.0; (n + 1) * (n + 1)];
    (0..n * n).for_each(|i| with_intercept[i / n * (n + 1) + i % n] = gram[(i / n, i % n)]);
    // Parts are centred, so that the intercept has no product with them.
    with_intercept[(n + 1) * (n + 1) - 1] = (n_rows * map.outputs.len) as f64;
    let moment = (0..n).map(|i| (0..n).map(|j| gram[(i, j)]).sum()).chain([0.0]).collect();
    let equations = NormalEquations {
        map: map.of_channel_factors(n),
        gram: with_intercept,
        moment,
        pull: vec![0.0; n + 1],
        target_energy,
        n_rows: n_rows as u64,
    };
    equations.pulled_towards(&vec![1.0; n])
}

/// The channels of an axis, each with its columns of X (taps in order, channels within a tap).
fn columns_by_channel(map: &LinearMap, axis: &[GroupChannel]) -> Vec<(GroupChannel, Vec<usize>)> {
    let mut place = std::collections::BTreeMap::new();
    let mut columns: Vec<(GroupChannel, Vec<usize>)> = Vec::new();
    for (position, &slot) in axis.iter().enumerate() {
        let at = *place.entry((slot.group, slot.channel)).or_insert(columns.len());
        if at == columns.len() {
            columns.push((slot, Vec::new()));
        }
        columns[at].1.extend((0..map.taps()).map(|tap| tap * axis.len() + position));
    }
    columns
}

/// Rows of a wide map, less the means of its columns, and what they are multiplied with.
struct CentredRows<'a> {
    map: &'a LinearMap,
    x: &'a WideRows,
    means: &'a [f64],
    weights: &'a [f32],
}

impl CentredRows<'_> {
    /// What `columns` of `rows` make of every output: `[outputs, rows]`, rows next to each other.
    fn part(&self, columns: &[usize], rows: Range<usize>, part: &mut [f64]) {
        let (taps, n_weights) = (self.map.taps(), self.map.columns() - 1);
        let n_inputs = n_weights / taps;
        let value = |row: usize, i: usize| f64::from(self.x.row(rows.start + row)[columns[i]]) - self.means[columns[i]];
        let weight = |i: usize, output: usize| {
            let of_filter = columns[i] % n_inputs * taps + columns[i] / n_inputs;
            f64::from(self.weights[output * n_weights + of_filter])
        };
        let (x, w) =
            (Mat::from_fn(rows.len(), columns.len(), value), Mat::from_fn(columns.len(), self.map.outputs.len, weight));
        let part = MatMut::from_column_major_slice_mut(part, rows.len(), self.map.outputs.len);
        matmul(part, Accum::Replace, &x, &w, 1.0, Par::Seq);
    }
}

/// Sums over rows and outputs of the products of the centred parts of two channels each; adds the parts to `outputs`.
fn gram_of_parts(rows: &CentredRows<'_>, channels: &[(GroupChannel, Vec<usize>)], outputs: &mut [f64]) -> Mat<f64> {
    let (n, n_out, n_all) = (channels.len(), rows.map.outputs.len, rows.x.len());
    let mut gram = Mat::zeros(n, n);
    let n_block = (BLOCK_VALUES / (n * n_out)).clamp(1, n_all.max(1));
    for first in (0..n_all).step_by(n_block) {
        let block = first..(first + n_block).min(n_all);
        let len = block.len() * n_out;
        let mut parts = vec![0.0; len * n];
        let each = parts.par_chunks_exact_mut(len).zip(channels);
        each.for_each(|(part, (_, columns))| rows.part(columns, block.clone(), part));
        let outputs = &mut outputs[first * n_out..][..len];
        for part in parts.chunks_exact(len) {
            outputs.iter_mut().zip(part).for_each(|(y, z)| *y += z);
        }
        let parts = MatRef::from_column_major_slice(&parts, len, n);
        matmul(gram.as_mut(), Accum::Add, parts.transpose(), parts, 1.0, Par::Seq);
    }
    gram
}
