//! Reading RON into a type, and ron's errors in our words, with the best place the text offers.

use std::ops::Range;

use ron::error::{Error as RonError, SpannedError};
use ron::extensions::Extensions;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::error::{Problem, byte_at};
use crate::locate::LocatedValue;
use crate::path::{PathPart, show_path};
use crate::suggest::did_you_mean;
use crate::walk::locate;

/// Longest piece of source that is quoted inside a message, in characters.
const QUOTED_LEN_MAX: usize = 40;

/// How this crate reads and writes RON everywhere: fields of `Option` need no `Some(…)`, newtypes no parentheses.
pub(crate) fn ron_options() -> ron::Options {
    ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES)
}

/// A piece of a scene that is read on its own.
pub(crate) struct Part<'a> {
    /// Where it begins in the scene's text.
    pub(crate) start: usize,
    /// Path of the value in the scene; empty for the whole, or for a piece that messages tell of by itself.
    pub(crate) path: &'a [PathPart],
    /// Names that are known beside those that serde tells, for suggestions.
    pub(crate) also_known: &'a [&'static str],
}

/// Reads all of `text` as a `T`.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    read_part(text, &Part { start: 0, path: &[], also_known: &[] })
}

/// Reads the text of a part as a `T`.
pub(crate) fn read_part<T: DeserializeOwned>(text: &str, part: &Part<'_>) -> Result<T, Problem> {
    let explain = |error, steps| explain((text, part), error, steps).shift(part.start);
    let mut deserializer =
        ron::Deserializer::from_str_with_options(text, &ron_options()).map_err(|error| explain(error, Vec::new()))?;
    let mut track = serde_path_to_error::Track::new();
    let value = T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track))
        .map_err(|code| explain(deserializer.span_error(code), steps_of(&track.path())))?;
    deserializer.end().map_err(|code| explain(deserializer.span_error(code), Vec::new()))?;
    Ok(value)
}

/// serde's path without the variant names, which our paths do not spell.
fn steps_of(path: &serde_path_to_error::Path) -> Vec<PathPart> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(PathPart::Index(*index)),
            Segment::Map { key } => Some(PathPart::Field(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Where an error is: the value it is about, and ron's own span.
struct Place<'a> {
    text: &'a str,
    part: &'a Part<'a>,
    node: &'a LocatedValue,
    /// Path of `node` as messages name it.
    name: String,
    cursor: Range<usize>,
}

fn explain((text, part): (&str, &Part<'_>), error: SpannedError, mut steps: Vec<PathPart>) -> Problem {
    let root = locate(text);
    if let (RonError::NoSuchStructField { found: name, .. }, Some(PathPart::Field(last))) = (&error.code, steps.last())
        && name == last
    {
        steps.pop(); // the error is about the struct that has no such field
    }
    if let Err(missing) = root.follow(&steps) {
        let depth = missing.depth;
        steps.truncate(depth);
    }
    let node = root.follow(&steps).unwrap_or(&root);
    if node.span.is_empty() && text[node.span.start..].trim().is_empty() {
        return ends_early(text.len());
    }
    let start = byte_at(text, error.span.start.line, error.span.start.col);
    let end = byte_at(text, error.span.end.line, error.span.end.col);
    let whole = show_path(&[part.path, &steps].concat());
    let name = if whole.is_empty() { "the scene".to_owned() } else { format!("`{whole}`") };
    let place = Place { text, part, node, name, cursor: start..end };
    explain_names(&place, &error.code).unwrap_or_else(|| explain_values(&root, &place, &error.code))
}

/// Misspelt, missing and repeated names.
fn explain_names(place: &Place<'_>, code: &RonError) -> Option<Problem> {
    let Place { node, name, .. } = place;
    Some(match code {
        RonError::NoSuchStructField { expected, found, .. } => {
            let span = node.entry(found).and_then(|entry| entry.key.as_ref()).map(|key| key.span.clone());
            let known = expected.iter().chain(place.part.also_known).copied();
            let help = did_you_mean(found, known);
            Problem::new(
                span.unwrap_or(place.cursor.clone()),
                format!("unknown field `{}` in {name}", clip(found)),
                help,
            )
        }
        RonError::NoSuchEnumVariant { expected, found, .. } => {
            let help = did_you_mean(found, expected.iter().copied());
            Problem::new(node.head(), format!("{name}: unknown value `{}`", clip(found)), help)
        }
        RonError::MissingStructField { field, .. } => {
            Problem::new(node.head(), format!("{name} lacks the field `{field}`"), Some(format!("add `{field}: …`")))
        }
        RonError::DuplicateStructField { field, .. } => {
            let span = node.entry(field).and_then(|entry| entry.key.as_ref()).map(|key| key.span.clone());
            Problem::new(span.unwrap_or(place.cursor.clone()), format!("{name} has the field `{field}` twice"), None)
        }
        RonError::ExpectedNamedStructLike(_) | RonError::ExpectedStructLike if node.body.is_none() => {
            let got = clip(&place.text[node.span.clone()]);
            let help =
                got.starts_with(char::is_alphabetic).then(|| format!("write `{got}()` to take all its defaults"));
            Problem::new(node.span.clone(), format!("{name}: expected fields in parentheses, got `{got}`"), help)
        }
        _ => return None,
    })
}

/// Values of another kind than their field, and broken syntax.
fn explain_values(root: &LocatedValue, place: &Place<'_>, code: &RonError) -> Problem {
    let Place { text, node, name, cursor, part } = place;
    if let Some(expected) = expected_kind(code) {
        let got = clip(&text[node.span.clone()]);
        let help = matches!(code, RonError::ExpectedString).then(|| "text needs double quotes".to_owned());
        return Problem::new(node.head(), format!("{name}: expected {expected}, got `{got}`"), help);
    }
    match code {
        RonError::IntegerOutOfBounds => {
            let got = clip(&text[node.span.clone()]);
            Problem::new(node.head(), format!("{name}: `{got}` is out of the range of this whole number"), None)
        }
        RonError::InvalidValueForType { expected, found } => {
            Problem::new(node.head(), format!("{name}: expected {expected}, got {}", clip(found)), None)
        }
        RonError::ExpectedDifferentLength { expected, found } => {
            Problem::new(node.head(), format!("{name}: expected {expected}, got {found} elements"), None)
        }
        RonError::ExceededRecursionLimit => {
            Problem::new(cursor.clone(), "nested too deeply: ron follows at most 128 levels", None)
        }
        RonError::ExpectedComma => explain_comma(root, (text, part), cursor),
        RonError::Eof => ends_early(cursor.end),
        RonError::TrailingCharacters => {
            Problem::new(cursor.end..cursor.end + 1, "nothing may follow the scene's closing parenthesis", None)
        }
        other => Problem::new(cursor.clone(), lower_first(&other.to_string()), None),
    }
}

fn ends_early(at: usize) -> Problem {
    Problem::new(at..at, "the text ends where a value or a closing bracket was expected", None)
}

/// ron stops inside a number such as `3.5` that must be whole and asks for a comma there.
fn explain_comma(root: &LocatedValue, (text, part): (&str, &Part<'_>), cursor: &Range<usize>) -> Problem {
    match root.scalar_at(cursor.end) {
        Some((steps, node)) if node.span.start < cursor.end => {
            let path = show_path(&[part.path, &steps].concat());
            let got = clip(&text[node.span.clone()]);
            Problem::new(node.span.clone(), format!("`{path}`: expected a whole number, got `{got}`"), None)
        }
        _ => Problem::new(cursor.end..cursor.end + 1, "expected a comma or a closing bracket before this", None),
    }
}

/// What ron wanted, for errors that mean "a value of another kind".
fn expected_kind(code: &RonError) -> Option<&'static str> {
    Some(match code {
        RonError::ExpectedArray => "a list `[…]`",
        RonError::ExpectedBoolean => "`true` or `false`",
        RonError::ExpectedFloat => "a number",
        RonError::ExpectedInteger => "a whole number",
        RonError::ExpectedMap => "a map `{…}`",
        RonError::ExpectedString => "a string",
        RonError::ExpectedStructLike | RonError::ExpectedNamedStructLike(_) => "fields in parentheses",
        RonError::ExpectedIdentifier => "a name",
        RonError::ExpectedUnit => "`()`",
        _ => return None,
    })
}

/// A piece of source short enough for a message.
pub fn clip(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(QUOTED_LEN_MAX).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
