//! `--set path=value`: an edit of the scene's text that keeps everything else, comments included.

use std::ops::Range;

use ron::value::RawValue;

use crate::error::{Problem, SceneError, Source};
use crate::locate::{Body, LocatedValue, Missing};
use crate::path::{PathPart, parse_path, show_path};
use crate::ron_error::clip;
use crate::walk::{locate, locate_only};

/// What `--set` must know of the texts it edits.
#[derive(Clone, Copy)]
pub struct Format<'a> {
    /// A text with every field at its default.
    pub template: &'a str,
    /// Whether a text has the right fields with values of the right types.
    pub check: &'a dyn Fn(&str) -> Result<(), Problem>,
}

/// Replaces the value at a path by the text behind `=`, or adds the field where it is absent: `apply_set(text,
/// "seed=9", …)`, `"budgets[0].ratio=0.4"`, `"images.reward=500"`. Ranges and references are left to whoever reads the
/// text.
///
/// # Errors
/// A malformed assignment, a path that no scene has, a value that is no RON or of another type than its field;
/// positions are those in `assignment`. A `text` that is not well-formed RON is an error with positions in `text`.
pub fn apply_set(text: &str, assignment: &str, format: Format<'_>) -> Result<String, SceneError> {
    let before = (format.check)(text);
    if locate_only(text).is_none() {
        let problem = before.err().unwrap_or_else(|| Problem::new(0..0, "this text cannot be edited", None));
        return Err(Source::new("scene", text).error(vec![problem]));
    }
    let edited = Assignment::parse(assignment, format.template).and_then(|assigned| {
        let edited = assigned.edit(text)?;
        match (format.check)(&edited) {
            Err(problem) if before.is_ok() => Err(assigned.blame(&edited, &problem)),
            // A scene that was incomplete before is reported under its own name by whoever reads it.
            _ => Ok(edited),
        }
    });
    edited.map_err(|problem| Source::new("--set", assignment).error(vec![problem]))
}

/// A parsed `path=value`.
struct Assignment<'a> {
    text: &'a str,
    template: &'a str,
    path: Range<usize>,
    steps: Vec<PathPart>,
    value: Range<usize>,
}

impl<'a> Assignment<'a> {
    fn parse(text: &'a str, template: &'a str) -> Result<Self, Problem> {
        let Some(equals) = text.find('=') else {
            return Err(Problem::new(0..text.len(), "expected `path=value`, got no `=`", None));
        };
        let path = trimmed(text, 0..equals);
        let steps = parse_path(&text[path.clone()])
            .map_err(|(at, what)| Problem::new(path.start + at..path.start + at + 1, what, None))?;
        let value = equals + 1..text.len();
        let spelt = &text[value.clone()];
        match locate_only(spelt).filter(|node| RawValue::from_ron(&spelt[node.span.clone()]).is_ok()) {
            Some(node) => {
                let value = value.start + node.span.start..value.start + node.span.end;
                Ok(Self { text, template, path, steps, value })
            }
            None => {
                let message = format!("`{}` is not a RON value", clip(spelt.trim()));
                Err(Problem::new(trimmed(text, value), message, Some("text needs double quotes".to_owned())))
            }
        }
    }

    fn value(&self) -> &'a str {
        &self.text[self.value.clone()]
    }

    fn edit(&self, text: &str) -> Result<String, Problem> {
        match locate(text).follow(&self.steps) {
            Ok(node) => Ok(splice(text, node.span.clone(), self.value())),
            Err(missing) => self.insert(text, &missing),
        }
    }

    /// Adds the first absent field, and what the path names inside it.
    fn insert(&self, text: &str, missing: &Missing<'_>) -> Result<String, Problem> {
        let inside = match missing.depth {
            0 => "the scene".to_owned(),
            depth => format!("`{}`", show_path(&self.steps[..depth])),
        };
        let name = match &self.steps[missing.depth] {
            PathPart::Index(index) => {
                let n_entries = missing.nearest.unwrapped().len();
                return Err(self.at_path(format!("{inside} has {n_entries} entries, so there is no entry [{index}]")));
            }
            PathPart::Field(name) => name,
        };
        let Some(body) = missing.nearest.unwrapped().body.as_ref().filter(|body| takes_fields(body)) else {
            let got = clip(&text[missing.nearest.span.clone()]);
            return Err(self.at_path(format!("{inside} is `{got}`, which has no field `{name}`")));
        };
        let rest = &self.steps[missing.depth + 1..];
        match default_value(self.template, name).filter(|_| missing.depth == 0 && !rest.is_empty()) {
            Some(default) => self.edit(&with_entry(text, body, name, default)),
            None => Ok(with_entry(text, body, name, &self.nested(rest)?)),
        }
    }

    /// The value inside a new struct for each remaining step.
    fn nested(&self, rest: &[PathPart]) -> Result<String, Problem> {
        rest.iter().rev().try_fold(self.value().to_owned(), |value, step| match step {
            PathPart::Field(name) => Ok(format!("({name}: {value})")),
            PathPart::Index(index) => Err(self.at_path(format!("there is no list to take the entry [{index}]"))),
        })
    }

    /// A problem of the edited text, told at the part of the assignment that made it.
    fn blame(&self, edited: &str, problem: &Problem) -> Problem {
        let about = edited.get(problem.span()).unwrap_or_default();
        let span =
            match self.text[self.path.clone()].rfind(about).filter(|_| about != self.value() && !about.is_empty()) {
                Some(at) => self.path.start + at..self.path.start + at + about.len(),
                None => self.value.clone(),
            };
        Problem::new(span, problem.message(), problem.help().map(str::to_owned))
    }

    fn at_path(&self, message: String) -> Problem {
        Problem::new(self.path.clone(), message, None)
    }
}

/// Whether named entries may be added: a struct, a map, or nothing yet between the parentheses.
fn takes_fields(body: &Body) -> bool {
    body.bracket != b'[' && body.entries.iter().all(|entry| entry.key.is_some())
}

/// The default of a field, for one that is more than a plain struct: a choice, a list, a map.
fn default_value<'t>(template: &'t str, name: &str) -> Option<&'t str> {
    let root: LocatedValue = locate(template);
    let value = &template[root.entry(name)?.value.span.clone()];
    (!value.starts_with('(')).then_some(value)
}

/// `text` with a new last entry, laid out like the one before it.
fn with_entry(text: &str, body: &Body, name: &str, value: &str) -> String {
    let entry = if body.bracket == b'{' { format!("{name:?}: {value}") } else { format!("{name}: {value}") };
    let Some(last) = body.entries.last() else { return splice(text, body.start..body.start, &entry) };
    let start = last.key.as_ref().map_or(last.value.span.start, |key| key.span.start);
    let indent = &text[text[..start].rfind('\n').map_or(0, |at| at + 1)..start];
    let own_line = start > indent.len() && indent.trim().is_empty();
    let between = if own_line { format!(",\n{indent}") } else { ", ".to_owned() };
    splice(text, last.value.span.end..last.value.span.end, &format!("{between}{entry}"))
}

fn splice(text: &str, span: Range<usize>, new: &str) -> String {
    format!("{}{new}{}", &text[..span.start], &text[span.end..])
}

/// The span without blanks at both ends.
fn trimmed(text: &str, span: Range<usize>) -> Range<usize> {
    let part = &text[span.clone()];
    let start = span.start + (part.len() - part.trim_start().len());
    start..start.max(span.start + part.trim_end().len())
}
