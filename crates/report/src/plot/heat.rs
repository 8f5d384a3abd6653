//! Numbers in cells that are the darker the more there is.

use std::fmt::Write;

use super::{Drawing, LETTER, escaped, shortened};

const CELL_HEIGHT: f64 = 20.0;
const CELL_WIDTH: f64 = 86.0;
const HEADER_LINE: f64 = 15.0;
/// Longer names are shortened; their whole text stands in the table beside the drawing.
const ROW_LETTERS: usize = 30;
const COLUMN_LETTERS: usize = 13;
/// Lines that a column's name is broken into.
const COLUMN_LINES: usize = 3;

/// A table of shares, drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Name of its file without an ending.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What is to be seen in it, in words.
    pub alternative: String,
    /// Names of the columns, and of the rows from above.
    pub columns: Vec<String>,
    /// See `columns`.
    pub rows: Vec<String>,
    /// For each row and column a share from 0 to 1, and what is written into the cell; none for a cell of which nothing
    /// is known.
    pub cells: Vec<Vec<Option<(f64, String)>>>,
}

impl HeatMap {
    /// Draws it.
    pub fn draw(&self) -> Drawing {
        let letters = self.rows.iter().map(|row| row.chars().count().min(ROW_LETTERS)).max().unwrap_or(0);
        let left = 16.0 + letters as f64 * LETTER;
        let headers: Vec<Vec<String>> = self.columns.iter().map(|column| broken(column)).collect();
        let lines = headers.iter().map(Vec::len).max().unwrap_or(0);
        let top = 10.0 + lines as f64 * HEADER_LINE;
        let mut body = String::new();
        for (column, header) in headers.iter().enumerate() {
            let x = left + (column as f64 + 0.5) * CELL_WIDTH;
            for (line, text) in header.iter().enumerate() {
                let y = top - 8.0 - (header.len() - 1 - line) as f64 * HEADER_LINE;
                let _ = write!(
                    body,
                    "<text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                    escaped(text)
                );
            }
        }
        for (row, name) in self.rows.iter().enumerate() {
            let y = top + row as f64 * CELL_HEIGHT;
            let _ = write!(
                body,
                "<text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left - 8.0,
                y + 14.0,
                escaped(&shortened(name, ROW_LETTERS))
            );
            for (column, cell) in self.cells[row].iter().enumerate() {
                let x = left + column as f64 * CELL_WIDTH;
                self.cell(&mut body, [x, y], [row, column], cell.as_ref());
            }
        }
        Drawing {
            name: self.name.clone(),
            title: self.title.clone(),
            alternative: self.alternative.clone(),
            width: left + self.columns.len() as f64 * CELL_WIDTH + 10.0,
            height: top + self.rows.len() as f64 * CELL_HEIGHT + 10.0,
            body,
        }
    }

    fn cell(&self, out: &mut String, [x, y]: [f64; 2], [row, column]: [usize; 2], cell: Option<&(f64, String)>) {
        let Some((share, text)) = cell else { return };
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let _ = write!(
            out,
            "<g><title>{}, {}: {}</title><rect class=\"cell\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{}\" height=\"{}\" \
             fill-opacity=\"{share:.3}\"/><text class=\"{}\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(&self.rows[row]),
            escaped(&self.columns[column]),
            escaped(text),
            CELL_WIDTH - 2.0,
            CELL_HEIGHT - 2.0,
            if share > 0.55 { "in-dark" } else { "in-light" },
            x + CELL_WIDTH / 2.0 - 1.0,
            y + 13.0,
            escaped(text)
        );
    }
}

/// A column's name in lines, broken behind what often joins words.
fn broken(name: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in name.split_inclusive(['-', '_', ' ', '/', ',']) {
        let fits = lines.last().is_some_and(|line| line.chars().count() + part.chars().count() <= COLUMN_LETTERS);
        match lines.last_mut() {
            Some(line) if fits || line.is_empty() => line.push_str(part),
            _ => lines.push(part.to_owned()),
        }
    }
    if lines.len() > COLUMN_LINES {
        let rest = lines.split_off(COLUMN_LINES - 1).concat();
        lines.push(rest);
    }
    lines.iter().map(|line| shortened(line.trim(), COLUMN_LETTERS)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_cell_is_drawn_as_dark_as_its_share() {
        let map = HeatMap {
            name: "h".into(),
            title: "t".into(),
            alternative: "a".into(),
            columns: vec!["shapes-shapes-macs0.5".into(), "b".into()],
            rows: vec!["conv<1>".into(), "conv2".into()],
            cells: vec![
                vec![Some((0.25, "4 of 16".into())), None],
                vec![Some((1.0, "8".into())), Some((2.0, "9".into()))],
            ],
        };
        let drawn = map.draw().inline();
        assert_eq!(drawn.matches("<rect class=\"cell\"").count(), 3);
        assert!(drawn.contains("fill-opacity=\"0.250\"") && drawn.contains(">4 of 16<"), "{drawn}");
        assert!(drawn.contains("conv&lt;1&gt;") && !drawn.contains("conv<1>"), "{drawn}");
        assert_eq!(broken("shapes-shapes-macs0.5"), ["shapes-", "shapes-", "macs0.5"]);
    }
}
