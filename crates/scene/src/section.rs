//! [`Section`]: a choice that a scene makes by name, with settings that only the one who knows the name can read.

use std::ops::Range;

use serde::de::DeserializeOwned;

use crate::document::Document;
use crate::error::Problem;
use crate::fields::fields_of;
use crate::locate::LocatedEntry;
use crate::path::{PathPart, parse_path};
use crate::ron_error::{Part, clip, read_part};
use crate::suggest::did_you_mean;

/// A choice that a scene makes by name, `Mtacp(profile: Paper)` or `Uniform`, not read yet.
///
/// # Example
/// ```
/// use secateur_scene::Document;
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Cosine {
///     steps: u32,
/// }
///
/// let scene = Document::new("my.ron", "(decay: Cosine(stepz: 100))");
/// let decay = scene.section("decay").unwrap();
/// assert_eq!(decay.name(), "Cosine");
/// let mistake = decay.settings::<Cosine>().err().unwrap();
/// assert_eq!(mistake.help(), Some("did you mean `steps`?"));
/// println!("{}", scene.error(vec![mistake]));
/// ```
#[derive(Clone, Debug)]
pub struct Section {
    document: Document,
    path: String,
    name: Range<usize>,
    /// From the opening parenthesis to the closing one, if there are any.
    settings: Option<Range<usize>>,
    /// The settings with what was taken out replaced by blanks.
    text: String,
    /// Names that were taken out, or looked for.
    taken: Vec<&'static str>,
}

impl Section {
    pub(crate) fn new(document: Document, path: &str) -> Result<Self, Problem> {
        let steps = parse_path(path).unwrap_or_default();
        let found = document.root().follow(&steps).map(|node| {
            let settings = node.body.as_ref().map(|body| body.start - 1..node.span.end);
            let name_end = settings.as_ref().map_or(node.span.end, |settings| settings.start);
            (node.span.start..name_end, settings)
        });
        let Ok((whole, settings)) = found else {
            return Err(document.problem(path, format!("`{path}` is missing"), None));
        };
        // A blank or a comment may stand between name and parenthesis.
        let written = &document.text()[whole.clone()];
        let written = written.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
        let name = whole.start..whole.start + written.len();
        if !written.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            let got = clip(&document.text()[whole.start..settings.as_ref().map_or(whole.end, |s| s.end)]);
            return Err(document.problem(path, format!("`{path}`: expected a name, got `{got}`"), None));
        }
        let text = settings.clone().map_or_else(String::new, |settings| document.text()[settings].to_owned());
        Ok(Self { document, path: path.to_owned(), name, settings, text, taken: Vec::new() })
    }

    /// The name that stands before the parentheses.
    pub fn name(&self) -> &str {
        &self.document.text()[self.name.clone()]
    }

    /// Its path in the scene.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name is none of `known`.
    pub fn unknown_name<'a>(&self, known: impl IntoIterator<Item = &'a str> + Clone) -> Problem {
        let message = format!("`{}`: unknown value `{}`", self.path, clip(self.name()));
        Problem::new(self.name.clone(), message, did_you_mean(self.name(), known))
    }

    /// Takes a field out of the settings: [`Self::settings`] does not see it any more, and suggests it where a name is
    /// unknown.
    ///
    /// # Errors
    /// A field that is no `T`, or is there twice.
    pub fn take<T: DeserializeOwned>(&mut self, field: &'static str) -> Result<Option<T>, Problem> {
        self.taken.push(field);
        let Some(start) = self.settings.as_ref().map(|settings| settings.start) else { return Ok(None) };
        let entries: Vec<Cut> = self.entries(field);
        if let [_, second, ..] = entries.as_slice() {
            let message = format!("`{}` has the field `{field}` twice", self.path);
            return Err(Problem::new(second.key.clone(), message, None));
        }
        let Some(entry) = entries.into_iter().next() else { return Ok(None) };
        let mut steps = self.steps();
        steps.push(PathPart::Field(field.to_owned()));
        let part = Part { start: entry.value.start, path: &steps, also_known: &[] };
        let value = read_part(&self.document.text()[entry.value.clone()], &part)?;
        let cut = entry.key.start - start..entry.end - start;
        self.text.replace_range(cut.clone(), &" ".repeat(cut.len()));
        Ok(Some(value))
    }

    /// The settings as a `T`, which is a struct. A name without parentheses is enough for one without fields.
    ///
    /// # Errors
    /// Anything that is not a `T`.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let (start, text) = match &self.settings {
            Some(settings) => (settings.start, self.text.as_str()),
            None if self.taken.is_empty() && fields_of::<T>().is_empty() => (self.name.end, "()"),
            None => return Err(self.no_parentheses()),
        };
        read_part(text, &Part { start, path: &self.steps(), also_known: &self.taken })
    }

    /// A problem at a setting; `path` is that within the settings.
    pub fn problem(&self, path: &str, message: &str) -> Problem {
        let whole = format!("{}.{path}", self.path);
        self.document.problem(&whole, format!("`{whole}` {message}"), None)
    }

    fn no_parentheses(&self) -> Problem {
        let (path, name) = (&self.path, clip(self.name()));
        let help = format!("write `{name}()` to take all its defaults");
        let message = format!("`{path}`: expected fields in parentheses, got `{name}`");
        Problem::new(self.name.clone(), message, Some(help))
    }

    fn steps(&self) -> Vec<PathPart> {
        parse_path(&self.path).unwrap_or_default()
    }

    fn entries(&self, field: &str) -> Vec<Cut> {
        let Ok(node) = self.document.root().follow(&self.steps()) else { return Vec::new() };
        let Some(body) = &node.body else { return Vec::new() };
        let start_of = |entry: &LocatedEntry| entry.key.as_ref().map_or(entry.value.span.start, |key| key.span.start);
        let cut = |(i, entry): (usize, &LocatedEntry)| {
            let key = entry.key.as_ref().filter(|key| key.name == field)?;
            let end = body.entries.get(i + 1).map_or(node.span.end - 1, start_of);
            Some(Cut { key: key.span.clone(), value: entry.value.span.clone(), end })
        };
        body.entries.iter().enumerate().filter_map(cut).collect()
    }
}

/// Where an entry stands.
struct Cut {
    key: Range<usize>,
    value: Range<usize>,
    /// Where the next entry begins, or the closing parenthesis stands.
    end: usize,
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::document::Document;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Pair {
        a: u8,
        b: f64,
    }

    impl Default for Pair {
        fn default() -> Self {
            Self { a: 1, b: 0.5 }
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoSettings {}

    /// What `value` in `(list: [<value>])` is with the field `n` taken out, or the message with its place.
    fn read(value: &str) -> Result<(String, Option<u8>, Pair), String> {
        let document = Document::new("s.ron", &format!("(list: [{value}])"));
        let told = |problem| document.error(vec![problem]).to_string();
        let mut section = document.section("list[0]").map_err(told)?;
        let n = section.take("n").map_err(told)?;
        Ok((section.name().to_owned(), n, section.settings().map_err(told)?))
    }

    #[test]
    fn a_field_is_taken_out_wherever_it_stands() {
        let pair = |a| Pair { a, ..Pair::default() };
        for (value, n, a) in [
            ("X()", None, 1),
            ("X(n: 3)", Some(3), 1),
            ("X ( n : 3 , )", Some(3), 1),
            ("X /* , */ (n: /* x */ 3 /* , */, a: 7)", Some(3), 7),
            ("X(a: 7, n: 3 /* ) */)", Some(3), 7),
            ("X(a: 7, // n: 4,\n n: 3, b: 0.5,)", Some(3), 7),
        ] {
            assert_eq!(read(value), Ok(("X".to_owned(), n, pair(a))), "{value}");
        }
    }

    #[test]
    fn mistakes_are_told_at_their_place_in_the_whole_text_with_their_whole_path() {
        for (value, place, words) in [
            ("X", "1:9", "`list[0]`: expected fields in parentheses, got `X`"),
            ("X", "1:9", "write `X()`"),
            ("5", "1:9", "`list[0]`: expected a name, got `5`"),
            ("\"X\"", "1:9", "`list[0]`: expected a name"),
            ("(a: 1)", "1:9", "`list[0]`: expected a name, got `(a: 1)`"),
            ("X(n: 300)", "1:14", "`list[0].n`: `300` is out of the range"),
            ("X(n: 3, n: 4)", "1:17", "`list[0]` has the field `n` twice"),
            ("X(n: 3,\n  a: -1)", "2:6", "`list[0].a`"),
            ("X(n: 3, a: 2.5)", "1:20", "`list[0].a`: expected a whole number, got `2.5`"),
            ("X(n: 3, c: 1)", "1:17", "unknown field `c` in `list[0]`"),
            ("X(zzzz: 1)", "1:11", "expected one of `a`, `b`, `n`"),
            ("X(nn: 1)", "1:11", "did you mean `n`?"),
            ("X(n: 3, b: x)", "1:20", "`list[0].b`: expected a number, got `x`"),
        ] {
            let told = read(value).expect_err(value);
            assert!(told.contains(&format!("s.ron:{place}\n")) && told.contains(words), "{value}: {words}\n{told}");
        }
    }

    #[test]
    fn a_name_is_enough_where_there_is_nothing_to_set() {
        let document = Document::new("s.ron", "(one: X, two: X(), three: X(a: 1))");
        let read = |path| document.section(path).and_then(|section| section.settings::<NoSettings>());
        assert!(read("one").is_ok() && read("two").is_ok() && read("three").is_err());
    }
}
