//! Drawings: SVG without scripts, with a title and a description for those who do not see it, in colours that follow
//! the reader's light or dark scheme.

mod axis;
mod chart;
mod heat;
mod marks;

use std::fmt::Write;

pub use axis::{Axis, AxisScale, TickFormat};
pub use chart::{Chart, Curve, CurveShape};
pub use heat::HeatMap;

/// Colours and strokes of the classes that drawings use.
pub(crate) const PLOT_CSS: &str = include_str!("../../templates/plot.css");

/// Pixels over a drawing among others, for its title.
const TITLE: f64 = 28.0;
/// Pixels that a letter of the drawings' text takes at most, on average; there is nothing to measure text with.
const LETTER: f64 = 6.4;

/// Pixels that a drawing is never squeezed below: its words could not be read any more.
const READABLE_WIDTH: f64 = 410.0;

/// A finished drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Name of its file without an ending; unlike all others of a report.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What is to be seen in it, in words.
    pub alternative: String,
    width: f64,
    height: f64,
    body: String,
}

impl Drawing {
    /// Drawings in rows of `columns`, each under its title, as one.
    pub fn stacked(name: &str, title: &str, drawings: &[Self], columns: usize) -> Self {
        let columns = columns.clamp(1, drawings.len().max(1));
        let cell =
            drawings.iter().fold([0.0, 0.0], |[w, h]: [f64; 2], one| [w.max(one.width), h.max(one.height + TITLE)]);
        let mut body = String::new();
        for (at, one) in drawings.iter().enumerate() {
            let (x, y) = ((at % columns) as f64 * cell[0], (at / columns) as f64 * cell[1]);
            let _ = write!(
                body,
                "<g transform=\"translate({x:.0} {y:.0})\"><text class=\"label\" x=\"12\" y=\"18\">{}</text>\
                 <g transform=\"translate(0 {TITLE})\">{}</g></g>",
                escaped(&one.title),
                one.body
            );
        }
        let told = drawings.iter().map(|one| format!("{}: {}", one.title, one.alternative));
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            alternative: told.collect::<Vec<_>>().join(" "),
            width: columns as f64 * cell[0],
            height: drawings.len().div_ceil(columns) as f64 * cell[1],
            body,
        }
    }

    /// As part of an HTML page that has the classes' colours.
    pub fn inline(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg role=\"img\" class=\"plot\" viewBox=\"0 0 {:.0} {:.0}\" width=\"{:.0}\" height=\"{:.0}\" \
             style=\"min-width:{:.0}px\" \
             aria-labelledby=\"{name}-title {name}-text\"><title id=\"{name}-title\">{}</title><desc id=\"{name}-text\">{}</desc>{}</svg>",
            self.width,
            self.height,
            self.width,
            self.height,
            self.width.min(READABLE_WIDTH),
            escaped(&self.title),
            escaped(&self.alternative),
            self.body,
            name = escaped(&self.name),
        );
        out
    }

    /// As a file of its own.
    pub fn standalone(&self) -> String {
        let attributes = "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\"";
        let whole = self.inline().replacen("<svg role=\"img\"", attributes, 1);
        let style = format!("<style>{PLOT_CSS}</style><rect class=\"paper\" width=\"100%\" height=\"100%\"/>");
        whole.replacen("</desc>", &format!("</desc>{style}"), 1) + "\n"
    }
}

/// Text that may stand in an SVG or HTML file.
fn escaped(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let text: String = printable.collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The first `most` letters.
fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
