//! [`SceneError`]: everything that is wrong with a scene, each problem with its place in the text.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Problems shown in full; a hostile scene may hold thousands.
const SHOWN_MAX: usize = 20;

/// The text of a scene and the name that messages give it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// File name for messages.
    pub(crate) origin: String,
    /// The whole text.
    pub(crate) text: Arc<str>,
}

impl Source {
    pub(crate) fn new(origin: &str, text: &str) -> Self {
        Self { origin: origin.to_owned(), text: Arc::from(text) }
    }

    pub(crate) fn error(self, mut problems: Vec<Problem>) -> SceneError {
        problems.iter_mut().for_each(|problem| problem.clip_to(&self.text));
        problems.sort_by_key(|problem| problem.span.start);
        count_lines(&self.text, &mut problems);
        SceneError { source: self, problems }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    span: Range<usize>,
    line: usize,
    column: usize,
    message: String,
    help: Option<String>,
}

impl Problem {
    /// A problem at these bytes of the text; [`Source::error`] counts its line and column.
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Self {
        Self { span, line: 1, column: 1, message: message.into(), help }
    }

    /// Line and column of its first character, both from 1; a column is one Unicode scalar value.
    pub fn line_col(&self) -> (usize, usize) {
        (self.line, self.column)
    }

    /// What is wrong: field, expected, got.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead, if that can be guessed.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Its bytes in the text.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Moves the span from a part of the text to the whole text.
    pub(crate) fn shift(mut self, by: usize) -> Self {
        self.span = self.span.start + by..self.span.end + by;
        self
    }

    /// Clips the span to the first of its lines and to whole characters of `text`.
    fn clip_to(&mut self, text: &str) {
        let start = text.floor_char_boundary(self.span.start);
        let end = text.ceil_char_boundary(self.span.end.max(start));
        self.span = start..start + text[start..end].lines().next().unwrap_or_default().trim_end().len();
    }
}

/// What is wrong with a scene. `Display` shows file, line, column and source line of every problem, without colour.
#[derive(Clone, Debug)]
pub struct SceneError {
    source: Source,
    problems: Vec<Problem>,
}

impl SceneError {
    /// Every problem, in the order of the text; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The name that messages give the text.
    pub fn origin(&self) -> &str {
        &self.source.origin
    }

    /// Line and column of the first problem, both from 1.
    pub fn line_col(&self) -> (usize, usize) {
        self.problems.first().map_or((1, 1), Problem::line_col)
    }

    /// The message as `Display` writes it, with colours for a terminal.
    pub fn to_coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    /// Adds the problems of `other`, which must be about the same text.
    pub fn merge(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.problems.sort_by_key(|problem| problem.span.start);
        self
    }

    fn render(&self, renderer: &Renderer) -> String {
        let shown = self.problems.iter().take(SHOWN_MAX);
        let mut parts: Vec<String> = shown.map(|problem| self.render_problem(problem, renderer)).collect();
        if self.problems.len() > SHOWN_MAX {
            parts.push(format!("… and {} more problems", self.problems.len() - SHOWN_MAX));
        }
        parts.join("\n\n")
    }

    /// Only the lines around the problem go to the renderer, so that a message costs the same in a file of any size.
    fn render_problem(&self, problem: &Problem, renderer: &Renderer) -> String {
        let text = &self.source.text;
        let from = text[..problem.span.start].rfind('\n').map_or(0, |at| at + 1);
        let to = text[problem.span.end..].find('\n').map_or(text.len(), |at| problem.span.end + at);
        let span = problem.span.start - from..problem.span.end - from;
        let snippet = Snippet::source(&text[from..to])
            .path(self.source.origin.as_str())
            .line_start(problem.line)
            .annotation(AnnotationKind::Primary.span(span));
        let mut group = Group::with_title(Level::ERROR.primary_title(problem.message.as_str())).element(snippet);
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for SceneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for SceneError {}

/// Sets line and column of sorted problems in one pass: counting anew for each would be quadratic.
fn count_lines(text: &str, problems: &mut [Problem]) {
    let (mut at, mut line, mut column) = (0, 1, 1);
    for problem in problems {
        let (n_lines, last) = line_col(&text[at..problem.span.start], problem.span.start - at);
        column = if n_lines == 1 { column + last - 1 } else { last };
        line += n_lines - 1;
        at = problem.span.start;
        (problem.line, problem.column) = (line, column);
    }
}

/// Line and column, both from 1, of a byte on a character boundary.
pub(crate) fn line_col(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.bytes().filter(|b| *b == b'\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The byte at a line and column, both from 1; the end of the text if there is no such place.
pub(crate) fn byte_at(text: &str, line: usize, column: usize) -> usize {
    let line_start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text[line_start..];
    line_start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::{Problem, Source, byte_at, line_col};

    #[test]
    fn line_and_column_count_characters_and_are_inverse() {
        let text = "añb\n\nçd";
        for (at, _) in text.char_indices() {
            let (line, column) = line_col(text, at);
            assert_eq!(byte_at(text, line, column), at);
        }
        assert_eq!(line_col(text, text.find('d').unwrap()), (3, 2));
        assert_eq!(byte_at(text, 99, 1), text.len());
    }

    #[test]
    fn a_message_shows_file_line_column_source_and_help() {
        let text = "(\n    seed: 7,\n    sede: 8,\n)";
        let at = text.find("sede").unwrap();
        let problem = Problem::new(at..at + 4, "unknown field `sede`", Some("did you mean `seed`?".to_owned()));
        let error = Source::new("a.ron", text).error(vec![problem]);
        let expected = "error: unknown field `sede`\n --> a.ron:3:5\n  |\n3 |     sede: 8,\n  |     ^^^^\n  |\n  = help: did you mean `seed`?";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.line_col(), (3, 5));
        assert!(error.to_coloured().contains("\u{1b}["));
    }

    #[test]
    fn spans_outside_the_text_or_across_lines_are_clipped() {
        for text in ["", "\n", "é\nb", "\u{1b}[31m\t\r\n\u{202e}x"] {
            for start in 0..12 {
                for end in 0..14 {
                    let error = Source::new("a.ron", text).error(vec![Problem::new(start..end, "x", None)]);
                    assert!(error.to_string().contains("a.ron:"), "{text:?} {start} {end}: {error}");
                    assert!(!error.to_string().contains('\u{1b}'));
                }
            }
        }
    }

    #[test]
    fn thousands_of_problems_stay_readable() {
        let problems = (0..5000).map(|i| Problem::new(i..i + 1, "x", None)).collect();
        let error = Source::new("a.ron", &"a".repeat(5000)).error(problems);
        assert!(error.to_string().ends_with("… and 4980 more problems"));
    }
}
