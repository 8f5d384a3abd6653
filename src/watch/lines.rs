//! How numbers stand in a terminal's cells.

/// Heights of a cell, from nothing to all of it.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The points of a curve in so many cells, each as high as the mean of the points that fall into it; a curve that never
/// changes is flat.
pub(super) fn sparkline(points: &[[f64; 2]], cells: usize) -> String {
    let values: Vec<f64> = points.iter().map(|point| point[1]).filter(|value| value.is_finite()).collect();
    let cells = cells.min(values.len());
    let mean = |cell: usize| {
        let part = &values[cell * values.len() / cells..(cell + 1) * values.len() / cells];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..cells).map(mean).collect();
    let (least, most) = means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
    let height = |mean: &f64| match most > least {
        true => HEIGHTS[((mean - least) / (most - least) * 7.0).round() as usize],
        false => HEIGHTS[3],
    };
    means.iter().map(height).collect()
}

/// Four digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e5 || (size > 0.0 && size < 1e-3) => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// Seconds, as people say them.
pub(super) fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A share as per cent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_as_high_as_its_points_and_never_longer_than_they_are() {
        let points = |values: &[f64]| values.iter().map(|&value| [0.0, value]).collect::<Vec<_>>();
        assert_eq!(sparkline(&points(&[0.0, 1.0, 2.0, 7.0]), 10), "▁▂▃█");
        // Means of 0 and 1, and of 6 and 8.
        assert_eq!(sparkline(&points(&[0.0, 1.0, 6.0, 8.0]), 2), "▁█");
        assert_eq!(sparkline(&points(&[2.0, 2.0]), 5), "▄▄");
        assert_eq!((sparkline(&[], 5), sparkline(&points(&[f64::NAN]), 5)), (String::new(), String::new()));
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!([number(0.12345), number(1234.5), number(2e-5)], ["0.1235", "1234.5", "2.00e-5"]);
        assert_eq!([time(119.4), time(150.0), time(7260.0)], ["119 s", "2 min 30 s", "2 h 1 min"]);
    }
}
