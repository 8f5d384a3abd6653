//! How good an agent is over all its budgets at once.

/// The area under the best reward that is had for at most so much of the cost, from nothing (0) to all of it (1): the
/// hypervolume (Zitzler and Thiele 1999) of points of cost share and reward, from the corner of full cost and reward 0.
pub(super) fn hypervolume(points: &[(f64, f64)]) -> f64 {
    let mut points: Vec<(f64, f64)> = points.iter().map(|&(share, reward)| (share.min(1.0), reward.max(0.0))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ends = points.iter().skip(1).map(|&(share, _)| share).chain([1.0]);
    let mut best = 0f64;
    let widths = points.iter().zip(ends);
    widths.fold(0.0, |area, (&(share, reward), end)| {
        best = best.max(reward);
        area + best * (end - share)
    })
}

#[cfg(test)]
mod tests {
    use super::hypervolume;

    #[test]
    fn areas_are_those_worked_out_by_hand() {
        assert!((hypervolume(&[(0.5, 0.8)]) - 0.4).abs() < 1e-12);
        assert!((hypervolume(&[(0.7, 0.9), (0.3, 0.5)]) - (0.4 * 0.5 + 0.3 * 0.9)).abs() < 1e-12);
        // A point that costs more and is worse adds nothing.
        assert!((hypervolume(&[(0.3, 0.5), (0.7, 0.2)]) - 0.7 * 0.5).abs() < 1e-12);
        assert_eq!(hypervolume(&[(0.5, -3.0)]), 0.0);
    }
}
