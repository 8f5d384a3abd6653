//! What each channel that a wide map reads adds to the map's outputs: enough to rank the channels where normal equations of all
//! inputs would be too large.
//!
//! With z_c the part of the outputs that channel c makes under the map's own weights, the outputs are the sum of all z_c and an
//! intercept. Backward elimination on the least-squares problem of that sum with one factor for each channel (a column each,
//! outputs and rows together as rows) ranks channels by what their loss costs after the other channels were scaled to make up for it.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use secateur_net::Slot;

use crate::wide_rows::WideRows;
use crate::{LinearMap, NormalEquations};

/// Channels whose parts are held against each other: so that the equations of any number of channels stay small, those further apart
/// in order count as independent.
const CHANNELS_MAX: usize = 1_024;
/// Most values of one channel's part: rows times outputs.
const VALUES_MAX: usize = 1 << 18;
/// Memory for the parts of some rows, in values.
const BLOCK_VALUES: usize = 1 << 22;

/// The parts of some channels of a wide map.
#[derive(Debug)]
pub struct Contributions {
    /// One column for each of `channels`, one output: the sum of all parts.
    pub equations: NormalEquations,
    /// The channels, ascending by their first position.
    pub channels: Vec<Slot>,
}

/// Rows that are enough for a map with `n_out` outputs.
pub fn contribution_rows(n_out: usize, n_rows_max: usize) -> usize {
    (VALUES_MAX / n_out.max(1)).clamp(1, n_rows_max)
}

/// The parts of all channels on the map's input axis `axis` (one slot for each of its inputs), from rows of its inputs; `weights` are the
/// map's, `[outputs, inputs * taps]`.
pub fn contributions(map: &LinearMap, axis: &[Slot], x: &WideRows, weights: &[f32]) -> Vec<Contributions> {
    let columns = columns_by_channel(map, axis);
    let means = x.means();
    let energy = output_energy(map, x, &means, weights);
    columns
        .chunks(CHANNELS_MAX)
        .map(|some| {
            let gram = gram_of_parts(map, some, x, &means, weights);
            let n = some.len();
            let mut with_intercept = vec![0.0; (n + 1) * (n + 1)];
            (0..n * n).for_each(|i| with_intercept[i / n * (n + 1) + i % n] = gram[(i / n, i % n)]);
            with_intercept[(n + 1) * (n + 1) - 1] = (x.len() * map.outputs.1) as f64;
            let moment = (0..n).map(|i| (0..n).map(|j| gram[(i, j)]).sum()).chain([0.0]).collect();
            let equations = NormalEquations {
                map: map.of_channel_factors(n),
                gram: with_intercept,
                moment,
                pull: vec![0.0; n + 1],
                target_energy: energy,
                n_rows: x.len() as u64,
            };
            let channels = some.iter().map(|(slot, _)| *slot).collect();
            Contributions { equations: equations.pulled_towards(&vec![1.0; n]), channels }
        })
        .collect()
}

/// The channels of an axis, each with its columns of X (taps in order, channels within a tap).
fn columns_by_channel(map: &LinearMap, axis: &[Slot]) -> Vec<(Slot, Vec<usize>)> {
    let mut place = std::collections::BTreeMap::new();
    let mut columns: Vec<(Slot, Vec<usize>)> = Vec::new();
    for (position, &slot) in axis.iter().enumerate() {
        let at = *place.entry((slot.group, slot.channel)).or_insert(columns.len());
        if at == columns.len() {
            columns.push((slot, Vec::new()));
        }
        columns[at].1.extend((0..map.taps()).map(|tap| tap * axis.len() + position));
    }
    columns
}

/// Sums over rows and outputs of the products of the centred parts of two channels each.
fn gram_of_parts(
    map: &LinearMap,
    channels: &[(Slot, Vec<usize>)],
    x: &WideRows,
    means: &[f64],
    weights: &[f32],
) -> Mat<f64> {
    let (n, n_out) = (channels.len(), map.outputs.1);
    let mut gram = Mat::zeros(n, n);
    let n_rows = (BLOCK_VALUES / (n * n_out)).clamp(1, x.len().max(1));
    for first in (0..x.len()).step_by(n_rows) {
        let rows = first..(first + n_rows).min(x.len());
        let mut parts = Mat::zeros(rows.len() * n_out, n);
        for (channel, (_, columns)) in channels.iter().enumerate() {
            let part = parts.col_as_slice_mut(channel);
            for (row, part) in rows.clone().zip(part.chunks_exact_mut(n_out)) {
                add_part(map, columns, x.row(row), means, weights, part);
            }
        }
        matmul(gram.as_mut(), Accum::Add, parts.transpose(), &parts, 1.0, Par::Seq);
    }
    gram
}

/// Adds what `columns` of a centred row make of every output.
fn add_part(map: &LinearMap, columns: &[usize], row: &[f32], means: &[f64], weights: &[f32], part: &mut [f64]) {
    let (taps, n_weights) = (map.taps(), map.columns() - 1);
    let n_inputs = n_weights / taps;
    for (output, part) in part.iter_mut().enumerate() {
        let filter = &weights[output * n_weights..][..n_weights];
        let term = |&c: &usize| (f64::from(row[c]) - means[c]) * f64::from(filter[c % n_inputs * taps + c / n_inputs]);
        *part += columns.iter().map(term).sum::<f64>();
    }
}

/// Sum over outputs of the squared deviation of the map's outputs from their mean.
fn output_energy(map: &LinearMap, x: &WideRows, means: &[f64], weights: &[f32]) -> f64 {
    let all: Vec<usize> = (0..x.n_columns()).collect();
    let of_row = |row: usize| {
        let mut outputs = vec![0.0; map.outputs.1];
        add_part(map, &all, x.row(row), means, weights, &mut outputs);
        outputs.iter().map(|y| y * y).sum::<f64>()
    };
    (0..x.len()).map(of_row).sum()
}
