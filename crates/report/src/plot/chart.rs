//! Curves and points over two axes.

use std::fmt::Write;

use super::axis::{Axis, AxisEnds};
use super::marks::{N_STYLES, mark};
use super::{Drawing, LETTER, escaped, shortened};

/// Pixels of the drawing and of what stands around its panel.
const WIDTH: f64 = 560.0;
const PANEL_HEIGHT: f64 = 280.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BELOW: f64 = 46.0;
const LEGEND_LINE: f64 = 20.0;
/// Longer names are shortened in the legend.
const LABEL_LETTERS: usize = 48;

/// How the points of a curve are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurveShape {
    /// From point to point.
    Line,
    /// Level until the next point: the best so far.
    Steps,
    /// From point to point, with a mark at each.
    MarkedLine,
    /// Only marks.
    Marks,
    /// A faint dashed line, as of a bound.
    Bound,
}

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub label: String,
    /// Which colour, mark and stroke; equal things have the same in all drawings of a report.
    pub style: usize,
    /// How points are joined.
    pub shape: CurveShape,
    /// x and y; points that are not finite are left out.
    pub points: Vec<[f64; 2]>,
    /// Least and most y at each point, drawn as whiskers of marks and as a band of lines; empty for none.
    pub intervals: Vec<[f64; 2]>,
}

impl Curve {
    /// Without intervals.
    pub fn new(label: impl Into<String>, style: usize, shape: CurveShape, points: Vec<[f64; 2]>) -> Self {
        Self { label: label.into(), style, shape, points, intervals: Vec::new() }
    }
}

/// Curves over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Name of its file without an ending.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What is to be seen in it, in words.
    pub alternative: String,
    /// From left to right.
    pub x: Axis,
    /// From below.
    pub y: Axis,
    /// In the order of the legend.
    pub curves: Vec<Curve>,
}

impl Chart {
    /// Whether there is a point to draw.
    pub fn is_empty(&self) -> bool {
        !self.curves.iter().flat_map(|curve| &curve.points).any(is_finite)
    }

    /// Draws it.
    pub fn draw(&self) -> Drawing {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).filter(|point| is_finite(point));
        let ends = self.curves.iter().flat_map(|curve| &curve.intervals).flatten().copied();
        let frame = ChartFrame {
            x: AxisEnds::of(&self.x, points().map(|point| point[0])),
            y: AxisEnds::of(&self.y, points().map(|point| point[1]).chain(ends)),
        };
        let mut body = String::new();
        self.axes(&mut body, &frame);
        for curve in &self.curves {
            frame.curve(&mut body, curve);
        }
        let height = self.legend(&mut body);
        Drawing {
            name: self.name.clone(),
            title: self.title.clone(),
            alternative: self.alternative.clone(),
            width: WIDTH,
            height,
            body,
        }
    }

    fn axes(&self, out: &mut String, frame: &ChartFrame) {
        let (right, bottom) = (WIDTH - RIGHT, TOP + PANEL_HEIGHT);
        for tick in frame.y.ticks() {
            let y = frame.y(tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escaped(&self.y.write(tick))
            );
        }
        for tick in frame.x.ticks() {
            let x = frame.x(tick);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                bottom + 17.0,
                escaped(&self.x.write(tick))
            );
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text class=\"label\" text-anchor=\"middle\" x=\"{}\" y=\"{}\">{}</text>\
             <text class=\"label\" text-anchor=\"middle\" transform=\"translate(15 {}) rotate(-90)\">{}</text>",
            (LEFT + right) / 2.0,
            bottom + 36.0,
            escaped(&self.x.label),
            (TOP + bottom) / 2.0,
            escaped(&self.y.label)
        );
    }

    /// Writes names in as many lines as they need, and tells where the drawing ends.
    fn legend(&self, out: &mut String) -> f64 {
        let (mut x, mut y) = (LEFT, TOP + PANEL_HEIGHT + BELOW + 14.0);
        // The axis names the only curve.
        if let [only] = &self.curves[..]
            && only.label == self.y.label
        {
            return y - 14.0;
        }
        for curve in &self.curves {
            let label = shortened(&curve.label, LABEL_LETTERS);
            let width = 40.0 + label.chars().count() as f64 * LETTER;
            if x > LEFT && x + width > WIDTH - RIGHT {
                (x, y) = (LEFT, y + LEGEND_LINE);
            }
            let style = curve.style % N_STYLES;
            let bound = if curve.shape == CurveShape::Bound { " bound" } else { "" };
            let _ = write!(out, "<g class=\"s{style}{bound}\">");
            if curve.shape != CurveShape::Marks {
                let _ = write!(out, "<path class=\"line\" d=\"M{x:.1} {0:.1}H{1:.1}\"/>", y - 4.0, x + 24.0);
            }
            if matches!(curve.shape, CurveShape::Marks | CurveShape::MarkedLine) {
                out.push_str(&mark(style, [x + 12.0, y - 4.0]));
            }
            let _ =
                write!(out, "</g><text class=\"name\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>", x + 30.0, escaped(&label));
            x += width + 12.0;
        }
        y + 12.0
    }
}

fn is_finite(point: &[f64; 2]) -> bool {
    point.iter().all(|at| at.is_finite())
}

/// The panel.
struct ChartFrame {
    x: AxisEnds,
    y: AxisEnds,
}

impl ChartFrame {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - self.y.share(value)) * PANEL_HEIGHT
    }

    fn at(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.x(x), self.y(y)]
    }

    fn curve(&self, out: &mut String, curve: &Curve) {
        let style = curve.style % N_STYLES;
        let bound = if curve.shape == CurveShape::Bound { " bound" } else { "" };
        let _ = write!(out, "<g class=\"s{style}{bound}\"><title>{}</title>", escaped(&curve.label));
        self.intervals(out, curve);
        let points: Vec<[f64; 2]> = curve.points.iter().copied().filter(is_finite).map(|p| self.at(p)).collect();
        if curve.shape != CurveShape::Marks
            && let [first, rest @ ..] = &points[..]
        {
            let mut d = format!("M{:.1} {:.1}", first[0], first[1]);
            for [x, y] in rest {
                let _ = match curve.shape {
                    CurveShape::Steps => write!(d, "H{x:.1}V{y:.1}"),
                    _ => write!(d, "L{x:.1} {y:.1}"),
                };
            }
            // A single point of a line would not be seen.
            if rest.is_empty() {
                d.push_str("h4");
            }
            let _ = write!(out, "<path class=\"line\" d=\"{d}\"/>");
        }
        if matches!(curve.shape, CurveShape::Marks | CurveShape::MarkedLine) {
            points.iter().for_each(|&point| out.push_str(&mark(style, point)));
        }
        out.push_str("</g>");
    }

    fn intervals(&self, out: &mut String, curve: &Curve) {
        let with: Vec<(f64, [f64; 2])> = curve
            .points
            .iter()
            .zip(&curve.intervals)
            .filter(|(point, interval)| is_finite(point) && is_finite(interval))
            .map(|(point, [least, most])| (self.x(point[0]), [self.y(*least), self.y(*most)]))
            .collect();
        if with.is_empty() {
            return;
        }
        match curve.shape {
            CurveShape::Marks | CurveShape::MarkedLine => {
                for (x, [low, high]) in with {
                    let (left, right) = (x - 3.0, x + 3.0);
                    let _ = write!(
                        out,
                        "<path class=\"whisker\" d=\"M{x:.1} {low:.1}V{high:.1}M{left:.1} {low:.1}H{right:.1}M{left:.1} {high:.1}H{right:.1}\"/>"
                    );
                }
            }
            CurveShape::Line | CurveShape::Steps | CurveShape::Bound => {
                let above = with.iter().map(|(x, [_, high])| format!("{x:.1},{high:.1}"));
                let below = with.iter().rev().map(|(x, [low, _])| format!("{x:.1},{low:.1}"));
                let band: Vec<String> = above.chain(below).collect();
                let _ = write!(out, "<polygon class=\"band\" points=\"{}\"/>", band.join(" "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(curves: Vec<Curve>) -> Chart {
        Chart {
            name: "c".into(),
            title: "a<b".into(),
            alternative: "\"quoted\" & more".into(),
            x: Axis::new("x"),
            y: Axis::new("y"),
            curves,
        }
    }

    /// x from 0 to 10 is 66 to 542 pixels, y from 0 to 1 is 294 to 14.
    #[test]
    fn points_stand_where_a_ruler_would_put_them() {
        let line = Curve::new("l", 0, CurveShape::Line, vec![[0.0, 0.0], [5.0, 0.5], [10.0, 1.0]]);
        let drawn = chart(vec![line.clone()]).draw().inline();
        assert!(drawn.contains("d=\"M66.0 294.0L304.0 154.0L542.0 14.0\""), "{drawn}");
        let steps = chart(vec![Curve { shape: CurveShape::Steps, ..line }]).draw().inline();
        assert!(steps.contains("d=\"M66.0 294.0H304.0V154.0H542.0V14.0\""), "{steps}");
    }

    #[test]
    fn what_is_not_finite_is_left_out_and_names_are_escaped() {
        let mut curve = Curve::new("<&>", 9, CurveShape::MarkedLine, vec![[0.0, 1.0], [f64::NAN, 2.0], [1.0, 3.0]]);
        curve.intervals = vec![[0.5, 1.5], [0.0, 1.0], [f64::NAN, 1.0]];
        let drawing = chart(vec![curve]).draw();
        let drawn = drawing.standalone();
        assert_eq!(drawn.matches("class=\"whisker\"").count(), 1);
        assert!(!drawn.contains("NaN") && !drawn.contains("<&>") && drawn.contains("&lt;&amp;&gt;"), "{drawn}");
        assert!(drawn.contains("a&lt;b") && drawn.contains("&quot;quoted&quot; &amp; more"), "{drawn}");
        assert!(chart(vec![Curve::new("", 0, CurveShape::Line, vec![[f64::NAN, 0.0]])]).is_empty());
    }
}
