//! How far two tasks are from each other: by what their groups lose at the same depth, and by their budgets.

use secateur_history::CurveRecord;

/// Depths at which curves are compared.
const N_DEPTHS: usize = 16;
/// Shares of a group's channels, likewise.
const SHARES: [f64; 3] = [0.25, 0.5, 0.75];
/// Smaller errors are none.
const ERROR_MIN: f64 = 1e-6;
/// Between budgets of different costs.
const OTHER_COST: f64 = 1.0;

/// What of a task tells how far it is from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor<'a> {
    pub(super) curves: &'a [CurveRecord],
    /// What the first bound is of.
    pub(super) bound: &'a str,
    /// It, as a share of the original's cost.
    pub(super) ratio: f64,
}

impl Descriptor<'_> {
    /// Mean absolute difference of the natural logarithms of errors, and the difference of the budgets' shares.
    pub(super) fn distance(&self, other: &Self) -> f64 {
        let pairs = self.log_errors().zip(other.log_errors());
        let (n, sum) = pairs.fold((0usize, 0.0), |(n, sum), (a, b)| (n + 1, sum + (a - b).abs()));
        let budgets = if self.bound == other.bound { (self.ratio - other.ratio).abs() } else { OTHER_COST };
        sum / n.max(1) as f64 + budgets
    }

    fn log_errors(&self) -> impl Iterator<Item = f64> + '_ {
        let last = self.curves.len().saturating_sub(1);
        let places = (0..N_DEPTHS).map(move |depth| (depth * last + (N_DEPTHS - 1) / 2) / (N_DEPTHS - 1));
        places.filter_map(|place| self.curves.get(place)).flat_map(|curve| SHARES.map(|share| log_error(curve, share)))
    }
}

/// At the least width that is not below this share of the channels.
fn log_error(curve: &CurveRecord, share: f64) -> f64 {
    let wanted = share * curve.channels as f64;
    let level = curve.widths.partition_point(|&width| (width as f64) < wanted);
    curve.errors.get(level).copied().unwrap_or(0.0).max(ERROR_MIN).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(scale: f64) -> CurveRecord {
        let errors = (1..=8).map(|width| scale * (1.0 - f64::from(width) / 9.0)).collect();
        CurveRecord { name: "g".to_owned(), channels: 8, widths: (1..=8).collect(), errors, weight: 1.0 }
    }

    #[test]
    fn the_distance_is_the_difference_of_log_errors_and_of_budgets() {
        let [same, doubled] = [1.0, 2.0].map(|scale| vec![curve(scale); 9]);
        let deep = vec![curve(1.0); 27];
        let of = |curves, ratio| Descriptor { curves, bound: "macs", ratio };
        let here = of(&same, 0.5);
        assert_eq!(here.distance(&of(&same, 0.5)), 0.0);
        assert!((here.distance(&of(&doubled, 0.5)) - 2f64.ln()).abs() < 1e-12);
        // A network of another depth whose groups lose the same is near.
        assert!((here.distance(&of(&deep, 0.7)) - 0.2).abs() < 1e-12);
        assert_eq!(here.distance(&Descriptor { bound: "params", ..here }), OTHER_COST);
        // Half of the depths: half of the difference.
        let half: Vec<CurveRecord> = (0..16).map(|i| curve(if i < 8 { 1.0 } else { 2.0 })).collect();
        let distance = of(&vec![curve(1.0); 16], 0.5).distance(&of(&half, 0.5));
        assert!((distance - 0.5 * 2f64.ln()).abs() < 1e-12, "{distance}");
    }
}
