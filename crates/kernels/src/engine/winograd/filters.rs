//! The transforms of filters, done once when a network is compiled: in f64, on some filters side by side.

use super::geometry::POINTS;

/// Filters transformed together.
pub(crate) const FILTERS: usize = 8;

/// G g of one line of some filters' taps at the points 0, a, -a, b, -b and infinity.
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

/// G g G^T of some 3x3 filters, `[tap][filter]` to `[point][filter]`.
pub(crate) fn transform_filters(g: &[[f32; FILTERS]; 9], points: [f64; 2]) -> [[f32; FILTERS]; POINTS] {
    let g = g.map(|tap| tap.map(f64::from));
    let columns: [_; 3] = std::array::from_fn(|j| filter_line([&g[j], &g[3 + j], &g[6 + j]], points));
    let mut out = [[0.0; FILTERS]; POINTS];
    for i in 0..6 {
        let row = filter_line([&columns[0][i], &columns[1][i], &columns[2][i]], points);
        for (j, values) in row.into_iter().enumerate() {
            out[i * 6 + j] = values.map(|value| value as f32);
        }
    }
    out
}
