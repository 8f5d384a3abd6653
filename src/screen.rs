//! All that is printed: results to stdout, notes, progress and errors to stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::Failure;

/// Work that is done sooner needs no bar.
const BAR_AFTER: Duration = Duration::from_secs(2);

/// A line (or several) of results.
///
/// # Errors
/// When stdout cannot be written, unless its reader went away (`| head`), which is no failure of ours.
pub(crate) fn result(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{}", printable(&text.to_string())) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Results as a table, or as JSON.
///
/// # Errors
/// As [`result`].
pub(crate) fn show<T: Serialize>(report: &T, as_json: bool, to_text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    match as_json {
        true => json(report),
        false => Ok(result(to_text(report))?),
    }
}

/// Results as JSON alone.
///
/// # Errors
/// As [`result`].
pub(crate) fn json(report: &impl Serialize) -> Result<(), Failure> {
    Ok(result(serde_json::to_string_pretty(report).map_err(anyhow::Error::from)?)?)
}

/// A remark beside the results. There is nobody to tell when stderr is closed.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "note: {}", printable(&text.to_string()));
}

/// What is going on.
pub(crate) fn status(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&text.to_string()));
}

/// Why the command ends.
pub(crate) fn failure(failure: &Failure) {
    let text = match failure {
        Failure::BadScene(error) if is_coloured() => error.to_coloured(),
        other => printable(&other.to_string()),
    };
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Names in foreign files may hold control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// A bar on stderr, shown only on a terminal and only for work that takes a while.
#[derive(Debug)]
pub(crate) struct Progress {
    total: u64,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        Self { total, start: Instant::now(), bar: None }
    }

    pub(crate) fn set(&mut self, done: u64) {
        if self.bar.is_none() && self.start.elapsed() > BAR_AFTER && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} images, {eta} left");
            self.bar = style.ok().map(|style| ProgressBar::new(self.total).with_style(style));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_of_foreign_names_are_escaped() {
        assert_eq!(printable("a\u{1b}[31m\u{7}é\nb"), "a\\u{1b}[31m\\u{7}é\nb");
    }
}
