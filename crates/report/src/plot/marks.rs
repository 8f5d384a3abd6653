//! Marks of points: curves differ by shape as well as by colour.

/// Colours, shapes and strokes that there are; further curves begin anew.
pub(super) const N_STYLES: usize = 8;

/// The mark of a curve at a place, filled by the class `mark`.
pub(super) fn mark(style: usize, [x, y]: [f64; 2]) -> String {
    let polygon = |points: &[[f64; 2]]| {
        let points: Vec<String> = points.iter().map(|[dx, dy]| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!("<polygon class=\"mark\" points=\"{}\"/>", points.join(" "))
    };
    match style % N_STYLES {
        0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => polygon(&[[-3.6, -3.6], [3.6, -3.6], [3.6, 3.6], [-3.6, 3.6]]),
        2 => polygon(&[[0.0, -4.8], [4.6, 3.6], [-4.6, 3.6]]),
        3 => polygon(&[[0.0, -5.2], [5.2, 0.0], [0.0, 5.2], [-5.2, 0.0]]),
        4 => polygon(&[[0.0, 4.8], [4.6, -3.6], [-4.6, -3.6]]),
        5 => polygon(&[[-5.0, -1.5], [5.0, -1.5], [5.0, 1.5], [-5.0, 1.5]]),
        6 => polygon(&[[-1.5, -5.0], [1.5, -5.0], [1.5, 5.0], [-1.5, 5.0]]),
        _ => format!("<circle class=\"mark hollow\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>"),
    }
}
