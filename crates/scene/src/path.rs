//! Paths into a scene such as `budgets[1].ratio` or `plugins["penalty"].weight`.

use std::fmt::Write;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathPart {
    /// A struct field or the key of a map.
    Field(String),
    /// A place in a list or tuple, from 0.
    Index(usize),
}

/// Parses `text`; the error is (byte offset in `text`, what was expected).
pub(crate) fn parse_path(text: &str) -> Result<Vec<PathPart>, (usize, String)> {
    let mut steps = Vec::new();
    let mut rest = text;
    let at = |rest: &str| text.len() - rest.len();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').ok_or_else(|| (at(rest), "`[` without `]`".to_owned()))?;
            steps.push(parse_bracket(&inner[..end]).map_err(|what| (at(inner), what))?);
            rest = &inner[end + 1..];
        } else {
            if !steps.is_empty() {
                rest = rest.strip_prefix('.').ok_or_else(|| (at(rest), "expected `.` or `[`".to_owned()))?;
            }
            let len = rest.find(['.', '[', ']', '"', ' ']).unwrap_or(rest.len());
            if len == 0 {
                return Err((at(rest), "expected a field name".to_owned()));
            }
            steps.push(PathPart::Field(rest[..len].to_owned()));
            rest = &rest[len..];
        }
    }
    if steps.is_empty() { Err((0, "expected a path such as `budgets[0].ratio`".to_owned())) } else { Ok(steps) }
}

/// What stands between the brackets: an index or a quoted map key.
fn parse_bracket(inner: &str) -> Result<PathPart, String> {
    let inner = inner.trim();
    if let Some(key) = inner.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return Ok(PathPart::Field(key.to_owned()));
    }
    inner.parse().map(PathPart::Index).map_err(|_| "expected an index or a quoted name between `[` and `]`".to_owned())
}

/// The path as text, as messages show it.
pub(crate) fn show_path(steps: &[PathPart]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            PathPart::Index(index) => write!(out, "[{index}]").expect("writing to a String cannot fail"),
            PathPart::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{PathPart, parse_path, show_path};

    #[test]
    fn paths_parse_and_print_alike() {
        for text in ["seed", "budgets[1].ratio", "a.b.c", "a[0][12]", "plugins.x.weight"] {
            assert_eq!(show_path(&parse_path(text).unwrap()), text);
        }
        let quoted = parse_path("plugins[\"my.plugin\"].w").unwrap();
        assert_eq!(quoted[1], PathPart::Field("my.plugin".to_owned()));
    }

    #[test]
    fn malformed_paths_say_where() {
        for (text, at) in
            [("", 0), (".a", 0), ("a.", 2), ("a[", 1), ("a[x]", 2), ("a[-1]", 2), ("a]b", 1), ("a b", 1), ("a..b", 2)]
        {
            assert_eq!(parse_path(text).unwrap_err().0, at, "{text:?}");
        }
    }
}
