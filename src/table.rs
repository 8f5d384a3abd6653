//! Aligned plain text.

use std::fmt;

/// Most characters of a cell.
const CELL_CHARS_MAX: usize = 200;

/// Columns under a header; a header that starts with `>` aligns its column to the right.
#[derive(Debug)]
pub(crate) struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        let right = header.iter().map(|h| h.starts_with('>')).collect();
        Self { right, rows: vec![header.iter().map(|h| h.trim_start_matches('>').to_owned()).collect()] }
    }

    /// A row of as many cells as the header has. Long ones are cut: a name in a file may have any length.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let mut cells = cells.into();
        cells.iter_mut().for_each(shorten);
        self.rows.push(cells);
    }
}

/// Cuts a text to as many characters as a column may have.
fn shorten(text: &mut String) {
    if let Some((cut, _)) = text.char_indices().nth(CELL_CHARS_MAX - 1)
        && cut + text[cut..].chars().next().map_or(0, char::len_utf8) < text.len()
    {
        text.truncate(cut);
        text.push('…');
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |i: usize| self.rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        for (n, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                line.push_str("  ");
                let padded = if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&padded);
            }
            let end = if n + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_cell_of_any_length_is_cut_to_what_a_column_may_have() {
        for (length, shown) in [(199, 199), (200, 200), (201, 200), (100_000, 200)] {
            let mut table = Table::new(&["name"]);
            table.row(["é".repeat(length)]);
            let row = table.to_string().lines().nth(1).map(|line| line.trim().to_owned());
            assert_eq!(row.as_ref().map(|r| (r.chars().count(), r.ends_with('…'))), Some((shown, length > 200)));
        }
    }

    #[test]
    fn columns_are_aligned_as_their_header_says() {
        let mut table = Table::new(&["name", ">n"]);
        table.row(["é".into(), "7".into()]);
        table.row(["longer".into(), "1234".into()]);
        assert_eq!(table.to_string(), "  name       n\n  é          7\n  longer  1234");
    }
}
