//! The page as HTML.

use askama::Template;

use crate::block::{Block, PageSection};
use crate::plot::{Drawing, PLOT_CSS};

/// A page.
#[derive(Template)]
#[template(path = "report.html")]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) parts: Vec<PagePart>,
    /// How it follows a run that goes on; none for a page that stays as it is.
    pub(crate) live: Option<LiveRefresh>,
}

/// How a page that a server shows follows what it is of. It can be read without its script, which asks the server again
/// and replaces what changed; without scripts the whole page is loaded again, three times as seldom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRefresh {
    /// Of the only script that the server lets run; nobody who names things in a run may know it.
    pub nonce: String,
    /// Seconds between two looks.
    pub every_s: u32,
}

/// Sections of one run or comparison.
pub(crate) struct PagePart {
    /// Unlike all others of the page.
    pub(crate) id: String,
    /// Empty where the page has one part only.
    pub(crate) heading: String,
    pub(crate) sections: Vec<PageSection>,
}

impl PagePart {
    pub(crate) fn drawings(&self) -> impl Iterator<Item = &Drawing> {
        let blocks = self.sections.iter().flat_map(|section| &section.blocks);
        blocks.filter_map(|block| if let Block::Figure(figure) = block { Some(&figure.drawing) } else { None })
    }

    /// Level of the sections' headings.
    fn level(&self) -> u8 {
        if self.heading.is_empty() { 2 } else { 3 }
    }
}

impl Page {
    /// Everything that stands in the file.
    pub(crate) fn html(&self) -> String {
        // Writing to a string fails only where a value's own `Display` does, and none here can.
        self.render().unwrap_or_else(|error| unreachable!("a page of plain texts is written: {error}"))
    }

    /// A text cut at backticks: every second part is code.
    fn words<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        text.split('`')
    }

    /// What the script does with a page stands in the page itself.
    fn live_script(&self) -> &'static str {
        include_str!("../templates/live.js")
    }

    fn css(&self) -> String {
        format!("{}{PLOT_CSS}", include_str!("../templates/report.css"))
    }
}
