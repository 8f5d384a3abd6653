//! Sums of a least-squares problem over all output pixels of whole maps: its rows are never written out, as the columns
//! of a convolution's inputs are one map, shifted.

use std::ops::Range;

use rayon::prelude::*;

use crate::fit::linear_map::AxisGeometry;
use crate::fit::shifts::{Piece, Shifts};
use crate::simd::products::{Columns, F32_ROWS, add_products, add_squares};
use crate::{Isa, LinearMap, NormalEquations};

/// The maps of some groups of images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maps<'a> {
    /// Inputs and a channel of ones, `[groups, H, W, inputs + 1, LANES]`; lanes without an image are zero.
    pub x: &'a [f32],
    /// Outputs or what is to become of them, `[groups, H, W, outputs, LANES]`, the same.
    pub y: &'a [f32],
    /// Number of groups.
    pub n_groups: usize,
}

/// How the sums of one map of stride 1 are made.
#[derive(Debug)]
pub(crate) struct MapProducts<'a> {
    isa: Isa,
    map: &'a LinearMap,
    /// Inputs used, of the map's.
    n_in: usize,
    n_out: usize,
    shifts: Shifts,
}

/// Sums while data is read.
#[derive(Debug)]
pub(crate) struct MapSums {
    /// One matrix for each piece, `[inputs, inputs]`, where the shift is zero with a row and column for the ones.
    pieces: Vec<Vec<f64>>,
    /// X^T Y, `[taps, inputs, outputs]`, then the intercept's.
    moment: Vec<f64>,
    /// Diagonal of Y^T Y.
    energy: Vec<f64>,
}

impl<'a> MapProducts<'a> {
    /// For `n_in` of the inputs of `map`, and `n_out` outputs.
    pub(crate) fn new(isa: Isa, map: &'a LinearMap, n_in: usize, n_out: usize) -> Self {
        Self { isa, map, n_in, n_out, shifts: Shifts::new(map) }
    }

    /// Whether all pixels of a map can be summed this way.
    pub(crate) fn suits(map: &LinearMap) -> bool {
        map.axes().iter().all(|axis| axis.stride == 1)
    }

    /// No images yet.
    pub(crate) fn empty(&self) -> MapSums {
        let pieces = self.shifts.pieces.iter().map(|piece| vec![0.0; self.side(piece).pow(2)]).collect();
        MapSums { pieces, moment: self.empty_moment(), energy: vec![0.0; self.n_out] }
    }

    /// X^T Y of no images.
    pub(crate) fn empty_moment(&self) -> Vec<f64> {
        vec![0.0; (self.n_in * self.map.taps() + 1) * self.n_out]
    }

    /// Values of the sums.
    pub(crate) fn n_sums(&self) -> usize {
        let of_pieces: usize = self.shifts.pieces.iter().map(|piece| self.side(piece).pow(2)).sum();
        of_pieces + (self.n_in * self.map.taps() + 1) * self.n_out
    }

    fn side(&self, piece: &Piece) -> usize {
        self.n_in + usize::from(piece.shift == [0, 0])
    }

    /// Adds maps to all sums.
    pub(crate) fn add(&self, maps: Maps<'_>, sums: &mut MapSums) {
        let pieces = self.shifts.pieces.par_iter().zip(&mut sums.pieces);
        pieces.for_each(|(piece, sums)| self.add_piece(piece, maps, sums));
        self.add_moment(maps, &mut sums.moment);
        let n_rows = maps.y.len() / (self.n_out * self.isa.lanes());
        for start in (0..n_rows).step_by(F32_ROWS) {
            let targets = Columns { start, ..Columns::of_rows(maps.y, self.n_out, 0, self.n_out) };
            add_squares(self.isa, targets, [1, 1, F32_ROWS.min(n_rows - start)], &mut sums.energy);
        }
    }

    fn add_piece(&self, piece: &Piece, maps: Maps<'_>, sums: &mut [f64]) {
        let [down, across] = self.map.axes();
        let n = self.side(piece);
        let [rows, columns] = &piece.pixels;
        for band in bands(rows, maps.n_groups * columns.len()) {
            let start = band.start * across.n_in + columns.start;
            let first = Columns {
                start,
                steps: [down.n_in * across.n_in, across.n_in, 1],
                ..Columns::of_rows(maps.x, self.n_in + 1, 0, n)
            };
            let shift = piece.shift[0] * across.n_in as isize + piece.shift[1];
            let second =
                Columns { start: start.checked_add_signed(shift).expect("pieces lie within the map"), ..first };
            let counts = [maps.n_groups, band.len(), columns.len()];
            add_products(self.isa, [first, second], counts, piece.shift == [0, 0], sums, n);
        }
    }

    /// Adds X^T Y `[taps, inputs, outputs]` and the intercept's.
    pub(crate) fn add_moment(&self, maps: Maps<'_>, sums: &mut [f64]) {
        let [down, across] = self.map.axes();
        let (of_taps, of_intercept) = sums.split_at_mut(self.map.taps() * self.n_in * self.n_out);
        let y_steps = [down.n_out * across.n_out, across.n_out, 1];
        let y = |start| Columns { start, steps: y_steps, ..Columns::of_rows(maps.y, self.n_out, 0, self.n_out) };
        for (tap, sums) in of_taps.chunks_exact_mut(self.n_in * self.n_out).enumerate() {
            let taps = [tap / across.kernel, tap % across.kernel];
            let [rows, columns] = [outputs_inside(down, taps[0]), outputs_inside(across, taps[1])];
            for band in bands(&rows, maps.n_groups * columns.len()) {
                let [row, column] = [input_of(down, taps[0], band.start), input_of(across, taps[1], columns.start)];
                let x = Columns {
                    start: row * across.n_in + column,
                    steps: [down.n_in * across.n_in, across.n_in, 1],
                    ..Columns::of_rows(maps.x, self.n_in + 1, 0, self.n_in)
                };
                let pair = [x, y(band.start * across.n_out + columns.start)];
                add_products(self.isa, pair, [maps.n_groups, band.len(), columns.len()], false, sums, self.n_out);
            }
        }
        let ones = [1.0f32; 16];
        let ones = Columns { steps: [0; 3], ..Columns::of_rows(&ones, 1, 0, 1) };
        for band in bands(&(0..down.n_out), maps.n_groups * across.n_out) {
            let counts = [maps.n_groups, band.len(), across.n_out];
            add_products(self.isa, [ones, y(band.start * across.n_out)], counts, false, of_intercept, self.n_out);
        }
    }

    /// The finished equations from `n_rows` rows.
    pub(crate) fn finish(&self, sums: &MapSums, n_rows: u64) -> NormalEquations {
        let (n, taps) = (self.n_in, self.map.taps());
        let d = n * taps + 1;
        let mut gram = vec![0.0; d * d];
        let at = |piece: usize, i: usize, j: usize| {
            let side = self.side(&self.shifts.pieces[piece]);
            // Where the shift is zero, the matrix is symmetric and one half of it made.
            let (i, j) = if side > n { (i.min(j), i.max(j)) } else { (i, j) };
            sums.pieces[piece][i * side + j]
        };
        gram.par_chunks_exact_mut(d).take(d - 1).enumerate().for_each(|(row, values)| {
            let (c, tap) = (row / taps, row % taps);
            for other in 0..taps {
                for &(piece, transposed) in &self.shifts.pairs[tap * taps + other] {
                    for o in 0..n {
                        values[o * taps + other] += if transposed { at(piece, o, c) } else { at(piece, c, o) };
                    }
                }
            }
            for &(piece, _) in &self.shifts.pairs[tap * taps + tap] {
                values[d - 1] += at(piece, c, n);
            }
        });
        for i in 0..d - 1 {
            gram[(d - 1) * d + i] = gram[i * d + d - 1];
        }
        gram[d * d - 1] = n_rows as f64;
        NormalEquations::new(self.map.clone(), gram, &sums.moment, &sums.energy, n_rows)
    }
}

impl MapSums {
    /// Adds another's sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mine = self.pieces.iter_mut().chain([&mut self.moment, &mut self.energy]);
        for (sums, more) in mine.zip(other.pieces.iter().chain([&other.moment, &other.energy])) {
            sums.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        }
    }
}

/// Cuts rows of pixels into bands, so that one of them with `n_beside` pixels to a row is about as long as may be
/// summed in f32 (longer where a single row is).
fn bands(rows: &Range<usize>, n_beside: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let n = (F32_ROWS / n_beside.max(1)).max(1);
    let end = rows.end;
    rows.clone().step_by(n).map(move |start| start..(start + n).min(end))
}

/// Outputs whose input under `tap` lies inside the map.
fn outputs_inside(axis: AxisGeometry, tap: usize) -> Range<usize> {
    let offset = tap * axis.dilation;
    let end = (axis.n_in + axis.padding).saturating_sub(offset).min(axis.n_out);
    axis.padding.saturating_sub(offset).min(end)..end
}

/// The input under `tap` of output `o`, which lies inside.
fn input_of(axis: AxisGeometry, tap: usize, o: usize) -> usize {
    (o + tap * axis.dilation).saturating_sub(axis.padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::gram::GramSums;
    use crate::fit::linear_map::GroupMaps;
    use secateur_net::{Conv2d, GraphBuilder, Op, Shape};

    #[test]
    fn sums_over_maps_are_those_over_rows_written_out() {
        for (kernel, padding, dilation, [h, w], [n_in, n_out]) in [
            ([3, 3], [1, 1], [1, 1], [8, 8], [7, 5]),
            ([3, 3], [1, 1], [1, 1], [2, 1], [3, 2]),
            ([1, 1], [0, 0], [1, 1], [1, 1], [9, 4]),
            ([5, 1], [1, 0], [1, 1], [6, 12], [2, 3]),
            ([3, 2], [2, 1], [2, 3], [9, 8], [2, 2]),
        ] {
            let conv = Conv2d { kernel, padding, dilation, ..Conv2d::square(n_in, n_out, 1, 1, 0) };
            let mut graph = GraphBuilder::new(Shape { c: n_in, h, w });
            let node = graph.push("conv", Op::Conv2d(conv), &[0]);
            let map = LinearMap::of(&graph.finish().unwrap(), node).remove(0);
            let [input, output] = map.shapes();
            for isa in Isa::available() {
                let (lanes, n_groups) = (isa.lanes(), 3);
                let value = |i: usize| (i * 7919 % 23) as f32 - 11.0;
                let x: Vec<f32> = (0..n_groups * h * w * (n_in + 1) * lanes)
                    .map(|i| if i / lanes % (n_in + 1) == n_in { 1.0 } else { value(i) })
                    .collect();
                let n_pixels = output.h * output.w;
                let y: Vec<f32> = (0..n_groups * n_pixels * n_out * lanes).map(|i| value(i + 5)).collect();
                let products = MapProducts::new(isa, &map, n_in, n_out);
                let mut sums = products.empty();
                for x_group in 0..n_groups {
                    let one = |v: &'_ [f32]| v.len() / n_groups * x_group..v.len() / n_groups * (x_group + 1);
                    let mut more = products.empty();
                    products.add(Maps { x: &x[one(&x)], y: &y[one(&y)], n_groups: 1 }, &mut more);
                    sums.merge(&more);
                }
                let mut at_once = products.empty();
                products.add(Maps { x: &x, y: &y, n_groups }, &mut at_once);
                let channels: Vec<usize> = (0..n_in).collect();
                let mut rows = vec![0.0; n_groups * n_pixels * map.columns() * lanes];
                for (at, row) in rows.chunks_exact_mut(map.columns() * lanes).enumerate() {
                    let group = &x[at / n_pixels * input.h * input.w * (n_in + 1) * lanes..];
                    let group = &group[..input.h * input.w * (n_in + 1) * lanes];
                    map.write_inputs(
                        GroupMaps { values: group, n_channels: n_in + 1, lanes },
                        at % n_pixels,
                        &channels,
                        row,
                    );
                }
                let mut expected = GramSums::new(isa, &map);
                expected.add(&rows, &y);
                let n_rows = (n_groups * n_pixels * lanes) as u64;
                let expected = expected.finish(map.clone(), n_rows);
                for sums in [&sums, &at_once] {
                    let got = products.finish(sums, n_rows);
                    assert_eq!(got.gram, expected.gram, "{isa:?}: kernel {kernel:?} on {h} x {w}");
                    assert_eq!(got.moment, expected.moment, "{isa:?}: kernel {kernel:?} on {h} x {w}");
                    assert_eq!(got.target_energy, expected.target_energy);
                }
            }
        }
    }
}
