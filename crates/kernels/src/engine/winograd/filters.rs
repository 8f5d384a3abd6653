//! The transforms of filters, done once when a network is compiled: in f64, on some filters side by side.

use super::geometry::POINTS;
use crate::simd::isa::PlainLoops;

/// Filters transformed together.
pub(crate) const FILTERS: usize = 8;

/// G g of one line of some filters' taps at the points 0, a, -a, b, -b and infinity.
#[inline(always)]
pub(crate) fn filter_line<const N: usize>(taps: [&[f64; N]; 3], [a, b]: [f64; 2]) -> [[f64; N]; 6] {
    let (a2, b2) = (a * a, b * b);
    let (of_zero, of_a, of_b) = (a2 * b2, 2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
    let mut out = [[0.0; N]; 6];
    for f in 0..N {
        let [g0, g1, g2] = taps.map(|tap| tap[f]);
        let (even_a, odd_a) = (g0 + a2 * g2, a * g1);
        let (even_b, odd_b) = (g0 + b2 * g2, b * g1);
        out[0][f] = g0 / of_zero;
        out[1][f] = (even_a + odd_a) / of_a;
        out[2][f] = (even_a - odd_a) / of_a;
        out[3][f] = (even_b + odd_b) / of_b;
        out[4][f] = (even_b - odd_b) / of_b;
        out[5][f] = g2;
    }
    out
}

/// G g G^T of some 3x3 filters.
pub(crate) struct FilterTransform<'a> {
    /// `[tap][filter]`
    pub taps: &'a [[f32; FILTERS]; 9],
    /// See [`crate::engine::arithmetic::Arithmetic::finite_points`].
    pub points: [f64; 2],
    /// `[point][filter]`
    pub out: &'a mut [[f32; FILTERS]; POINTS],
}

impl PlainLoops for FilterTransform<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { taps, points, out } = self;
        let g = taps.map(|tap| tap.map(f64::from));
        let mut columns = [[[0.0; FILTERS]; 6]; 3];
        for j in 0..3 {
            columns[j] = filter_line([&g[j], &g[3 + j], &g[6 + j]], points);
        }
        for i in 0..6 {
            let row = filter_line([&columns[0][i], &columns[1][i], &columns[2][i]], points);
            for j in 0..6 {
                for f in 0..FILTERS {
                    out[i * 6 + j][f] = row[j][f] as f32;
                }
            }
        }
    }
}
