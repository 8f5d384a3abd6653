//! The Gram matrix of a convolution's inputs from products of a map with itself shifted.
//!
//! A column of the least-squares problem is a channel under a tap. Over all output pixels, the product of two columns
//! depends on the taps' distance, and on the taps themselves only near the edges: a 3x3 kernel makes 45 pairs of taps
//! but 13 distances. So maps are multiplied once for each distance, piece by piece (middle, edges, corners), and every
//! pair of taps adds up the pieces it covers.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::LinearMap;
use crate::fit::linear_map::AxisGeometry;

/// A product of a map with itself: the pixels of `pixels` by those `shift` further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Rows and columns of input pixels.
    pub pixels: [Range<usize>; 2],
    /// Rows and columns to the other pixel; the first that is not zero is positive.
    pub shift: [isize; 2],
}

/// All products that a kernel of stride 1 needs.
#[derive(Clone, Debug)]
pub(crate) struct Shifts {
    /// What to multiply.
    pub pieces: Vec<Piece>,
    /// For every pair of taps, `first * taps + second`: the pieces that make up its product, and whether they are to be
    /// transposed.
    pub pairs: Vec<Vec<(usize, bool)>>,
}

/// Along one axis: pixels that are multiplied with those `shift` further by the same pairs of taps.
struct AxisPiece {
    shift: isize,
    pixels: Range<usize>,
    pairs: Vec<[usize; 2]>,
}

impl Shifts {
    /// Of a map whose stride is 1.
    pub(crate) fn new(map: &LinearMap) -> Self {
        let axes = map.axes();
        let [down, across] = axes.map(axis_pieces);
        let [_, n_across] = axes.map(|axis| axis.kernel);
        let n_taps = map.taps();
        let mut pieces = Vec::new();
        let mut pairs = vec![Vec::new(); n_taps * n_taps];
        for (row, column) in down.iter().flat_map(|row| across.iter().map(move |column| (row, column))) {
            let shift = [row.shift, column.shift];
            // The other half is this one's transpose.
            if shift < [0, 0] {
                continue;
            }
            for (&[row_a, row_b], &[column_a, column_b]) in
                row.pairs.iter().flat_map(|r| column.pairs.iter().map(move |c| (r, c)))
            {
                let [a, b] = [row_a * n_across + column_a, row_b * n_across + column_b];
                pairs[a * n_taps + b].push((pieces.len(), false));
                if a != b {
                    pairs[b * n_taps + a].push((pieces.len(), true));
                }
            }
            pieces.push(Piece { pixels: [row.pixels.clone(), column.pixels.clone()], shift });
        }
        Self { pieces, pairs }
    }
}

/// Every distance of two taps, and the pixels at the first of them cut where the pairs of taps that meet them change.
fn axis_pieces(axis: AxisGeometry) -> Vec<AxisPiece> {
    /// Two taps, and the pixels at the first of them for which both lie inside.
    type Pair = ([usize; 2], Range<usize>);
    let mut by_shift: BTreeMap<isize, Vec<Pair>> = BTreeMap::new();
    for (a, b) in (0..axis.kernel).flat_map(|a| (0..axis.kernel).map(move |b| (a, b))) {
        // Output o reads pixel `o + offset(tap)`.
        let [a_offset, b_offset] = [a, b].map(|tap| (tap * axis.dilation) as isize - axis.padding as isize);
        let shift = b_offset - a_offset;
        let start = 0.max(a_offset).max(-shift);
        let end = (axis.n_in as isize).min(axis.n_out as isize + a_offset).min(axis.n_in as isize - shift);
        if start < end {
            by_shift.entry(shift).or_default().push(([a, b], start as usize..end as usize));
        }
    }
    let mut pieces = Vec::new();
    for (shift, pairs) in by_shift {
        let mut ends: Vec<usize> = pairs.iter().flat_map(|(_, pixels)| [pixels.start, pixels.end]).collect();
        ends.sort_unstable();
        ends.dedup();
        for (start, end) in ends.iter().zip(&ends[1..]) {
            let covers = |pixels: &Range<usize>| pixels.start <= *start && *end <= pixels.end;
            let pairs: Vec<[usize; 2]> =
                pairs.iter().filter(|(_, pixels)| covers(pixels)).map(|(pair, _)| *pair).collect();
            if !pairs.is_empty() {
                pieces.push(AxisPiece { shift, pixels: *start..*end, pairs });
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Conv2d, GraphBuilder, Op, Shape};

    /// For every output pixel and pair of taps, the pixels multiplied, counted.
    fn naive([down, across]: [AxisGeometry; 2]) -> BTreeMap<(usize, usize), Vec<[isize; 4]>> {
        let mut met: BTreeMap<(usize, usize), Vec<[isize; 4]>> = BTreeMap::new();
        let at = |o: usize, tap: usize, axis: AxisGeometry| (o + tap * axis.dilation) as isize - axis.padding as isize;
        let n_taps = down.kernel * across.kernel;
        for (a, b) in (0..n_taps).flat_map(|a| (0..n_taps).map(move |b| (a, b))) {
            for (y, x) in (0..down.n_out).flat_map(|y| (0..across.n_out).map(move |x| (y, x))) {
                let pixel = |tap: usize| [at(y, tap / across.kernel, down), at(x, tap % across.kernel, across)];
                let [p, q] = [pixel(a), pixel(b)];
                let is_inside = |p: [isize; 2]| {
                    (0..down.n_in as isize).contains(&p[0]) && (0..across.n_in as isize).contains(&p[1])
                };
                if is_inside(p) && is_inside(q) {
                    met.entry((a, b)).or_default().push([p[0], p[1], q[0], q[1]]);
                }
            }
        }
        met.values_mut().for_each(|pixels| pixels.sort_unstable());
        met
    }

    #[test]
    fn pieces_cover_every_product_of_two_taps_once() {
        for (kernel, padding, dilation, size) in [
            ([3, 3], [1, 1], [1, 1], [8, 8]),
            ([3, 3], [1, 1], [1, 1], [1, 2]),
            ([3, 3], [0, 0], [1, 1], [4, 5]),
            ([1, 1], [0, 0], [1, 1], [3, 2]),
            ([1, 5], [2, 0], [1, 1], [3, 7]),
            ([3, 2], [2, 1], [2, 3], [9, 8]),
            ([7, 7], [3, 3], [1, 1], [2, 3]),
        ] {
            let conv = Conv2d { kernel, padding, dilation, ..Conv2d::square(2, 2, 1, 1, 0) };
            let mut builder = GraphBuilder::new(Shape { c: 2, h: size[0], w: size[1] });
            let node = builder.push("conv", Op::Conv2d(conv), &[0]);
            let graph = builder.finish().unwrap();
            let map = LinearMap::of(&graph, node).remove(0);
            let shifts = Shifts::new(&map);
            let mut met: BTreeMap<(usize, usize), Vec<[isize; 4]>> = BTreeMap::new();
            for (pair, pieces) in shifts.pairs.iter().enumerate() {
                for &(piece, transposed) in pieces {
                    let Piece { pixels: [rows, columns], shift } = &shifts.pieces[piece];
                    for (y, x) in rows.clone().flat_map(|y| columns.clone().map(move |x| (y as isize, x as isize))) {
                        let [y2, x2] = [y + shift[0], x + shift[1]];
                        let pixels = if transposed { [y2, x2, y, x] } else { [y, x, y2, x2] };
                        met.entry((pair / map.taps(), pair % map.taps())).or_default().push(pixels);
                    }
                }
            }
            met.values_mut().for_each(|pixels| pixels.sort_unstable());
            assert_eq!(met, naive(map.axes()), "kernel {kernel:?} on {size:?}");
        }
    }

    #[test]
    fn a_3x3_kernel_needs_13_shifts() {
        let mut builder = GraphBuilder::new(Shape { c: 1, h: 8, w: 8 });
        let node = builder.push("conv", Op::Conv2d(Conv2d::square(1, 1, 3, 1, 1)), &[0]);
        let graph = builder.finish().unwrap();
        let shifts = Shifts::new(&LinearMap::of(&graph, node)[0]);
        let distinct: std::collections::BTreeSet<[isize; 2]> = shifts.pieces.iter().map(|p| p.shift).collect();
        assert_eq!((distinct.len(), shifts.pieces.len()), (13, 29));
        let pixels: usize = shifts.pieces.iter().map(|p| p.pixels.iter().map(Range::len).product::<usize>()).sum();
        assert!(pixels < 45 * 64 / 4, "less than a quarter of the products of all pairs of taps: {pixels}");
    }
}
