//! What a page is made of, before it is HTML.

use crate::plot::Drawing;

/// A part of a section.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// A paragraph.
    Text(String),
    /// A list of sentences that deserve attention.
    Warnings(Vec<String>),
    /// What became of every task.
    Cards(Vec<TaskCard>),
    /// A few numbers, large.
    Facts(Vec<LabelledNumber>),
    /// A table.
    Table(DataTable),
    /// A drawing, and its numbers as a table that can be opened.
    Figure(Figure),
    /// A command to copy.
    Command(String),
}

/// A number with its meaning.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LabelledNumber {
    pub(crate) value: String,
    pub(crate) label: String,
}

/// A table whose first column names its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DataTable {
    pub(crate) caption: String,
    pub(crate) header: Vec<ColumnHead>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Head of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnHead {
    pub(crate) text: String,
    /// Numbers stand at the right.
    pub(crate) is_number: bool,
}

impl DataTable {
    /// Heads that begin with `>` are of numbers.
    pub(crate) fn new(caption: impl Into<String>, heads: &[&str]) -> Self {
        let head = |text: &&str| ColumnHead {
            text: text.trim_start_matches('>').to_owned(),
            is_number: text.starts_with('>'),
        };
        Self { caption: caption.into(), header: heads.iter().map(head).collect(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Whether its columns are named.
    pub(crate) fn has_header(&self) -> bool {
        self.header.iter().any(|head| !head.text.is_empty())
    }

    /// Without the columns in which nothing but `nothing` stands.
    pub(crate) fn without_columns_of(mut self, nothing: &str) -> Self {
        for column in (0..self.header.len()).rev() {
            if self.rows.iter().all(|row| row[column] == nothing) {
                self.header.remove(column);
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        self
    }

    /// Class of the cells of a column.
    pub(crate) fn class(&self, column: &usize) -> &'static str {
        match self.header.get(*column) {
            Some(ColumnHead { is_number: true, .. }) => "number",
            _ => "words",
        }
    }
}

/// A drawing with its numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) drawing: Drawing,
    /// Its numbers; without rows where the page has them elsewhere.
    pub(crate) numbers: DataTable,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskCard {
    pub(crate) name: String,
    pub(crate) budget: String,
    /// Dense, pruned, polished, tuned.
    pub(crate) steps: Vec<LabelledNumber>,
    /// What the last of them differs from the first in.
    pub(crate) change: Option<String>,
    pub(crate) costs: Vec<CostBar>,
    pub(crate) verdict: CertificateVerdict,
    pub(crate) files: Vec<String>,
}

/// A cost before and after.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CostBar {
    pub(crate) kind: String,
    pub(crate) text: String,
    /// Share of the original's cost, per cent; at most 100.
    pub(crate) percent: String,
}

/// What the certificate says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CertificateVerdict {
    /// `good`, `bad` or `open`.
    pub(crate) class: &'static str,
    pub(crate) text: String,
}

/// A heading and what stands under it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PageSection {
    /// Unlike all others of the page.
    pub(crate) id: String,
    pub(crate) heading: String,
    pub(crate) blocks: Vec<Block>,
}

impl PageSection {
    pub(crate) fn new(prefix: &str, id: &str, heading: &str) -> Self {
        Self { id: format!("{prefix}{id}"), heading: heading.to_owned(), blocks: Vec::new() }
    }

    pub(crate) fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    pub(crate) fn figure(&mut self, drawing: Drawing, numbers: DataTable) {
        self.blocks.push(Block::Figure(Figure { drawing, numbers }));
    }
}
