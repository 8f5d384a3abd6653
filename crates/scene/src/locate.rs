//! Where things stand in RON text: every value and key with its byte span, found by path, so that a check that runs
//! after parsing can still point at the source.

use std::ops::Range;

use crate::path::PathPart;

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct LocatedValue {
    /// The value's bytes, with its type or variant name, without surrounding comments.
    pub(crate) span: Range<usize>,
    /// What is between the brackets, if it has any.
    pub(crate) body: Option<Body>,
}

/// The inside of `(…)`, `[…]` or `{…}`.
#[derive(Debug)]
pub(crate) struct Body {
    /// The opening bracket.
    pub(crate) bracket: u8,
    /// First byte after the opening bracket.
    pub(crate) start: usize,
    /// Entries in order.
    pub(crate) entries: Vec<LocatedEntry>,
}

/// One entry of a body: `value` or `key: value`.
#[derive(Debug)]
pub(crate) struct LocatedEntry {
    /// Key of a struct field or map entry.
    pub(crate) key: Option<Key>,
    /// The value.
    pub(crate) value: LocatedValue,
}

/// Key of a struct field or map entry.
#[derive(Debug)]
pub(crate) struct Key {
    /// Field name, or the content of a string key, escapes as written.
    pub(crate) name: String,
    /// Where it stands.
    pub(crate) span: Range<usize>,
}

/// A path that could be followed only in part.
#[derive(Debug)]
pub(crate) struct Missing<'a> {
    /// The last value that exists.
    pub(crate) nearest: &'a LocatedValue,
    /// Steps that led to it.
    pub(crate) depth: usize,
}

impl LocatedValue {
    /// Follows `steps`; `Some(x)` and newtypes are looked through.
    pub(crate) fn follow(&self, steps: &[PathPart]) -> Result<&LocatedValue, Missing<'_>> {
        let mut node = self;
        for (depth, step) in steps.iter().enumerate() {
            node = node.child(step).ok_or(Missing { nearest: node, depth })?;
        }
        Ok(node)
    }

    /// The entry of this name, the last of them if the text repeats it.
    pub(crate) fn entry(&self, name: &str) -> Option<&LocatedEntry> {
        self.unwrapped()
            .body
            .as_ref()?
            .entries
            .iter()
            .rev()
            .find(|entry| entry.key.as_ref().is_some_and(|k| k.name == name))
    }

    /// Number of entries between the brackets.
    pub(crate) fn len(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.entries.len())
    }

    /// The type or variant name and, for a value without brackets, all of it: what a message underlines.
    pub(crate) fn head(&self) -> Range<usize> {
        match &self.body {
            Some(body) if body.start > self.span.start + 1 => self.span.start..body.start - 1,
            Some(body) => self.span.start..body.start,
            None => self.span.clone(),
        }
    }

    /// The innermost value without brackets that holds byte `at`, and the path to it.
    pub(crate) fn scalar_at(&self, at: usize) -> Option<(Vec<PathPart>, &LocatedValue)> {
        let mut steps = Vec::new();
        let mut node = self;
        while let Some(body) = &node.body {
            let index = body.entries.iter().position(|entry| entry.value.span.contains(&at))?;
            let entry = &body.entries[index];
            match &entry.key {
                Some(key) => steps.push(PathPart::Field(key.name.clone())),
                None => steps.push(PathPart::Index(index)),
            }
            node = &entry.value;
        }
        Some((steps, node))
    }

    fn child(&self, step: &PathPart) -> Option<&LocatedValue> {
        match step {
            PathPart::Field(name) => self.entry(name).map(|entry| &entry.value),
            PathPart::Index(index) => {
                let entry = self.unwrapped().body.as_ref()?.entries.get(*index)?;
                entry.key.is_none().then_some(&entry.value)
            }
        }
    }

    /// Looks through `Some(x)` and `Name(x)` when `x` itself has brackets.
    pub(crate) fn unwrapped(&self) -> &LocatedValue {
        let mut node = self;
        while let Some(Body { bracket: b'(', entries, .. }) = &node.body {
            match entries.as_slice() {
                [LocatedEntry { key: None, value }] if value.body.is_some() => node = value,
                _ => break,
            }
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use crate::path::parse_path;
    use crate::walk::{locate, locate_only};

    const TEXT: &str = r####"#![enable(implicit_some)] /* a /* nested ( */ [ */
Scene(
    // list: [
    name: "a \" ) // b", raw: r##"x " "# )"##, c: '(', quote: '\'', bytes: b"x\"", d: b'"',
    list: [Macs(ratio: 0.3), Some(Macs(ratio: 4)), (1, (2, 3))],
    map: {"k.1": (w: -1.5e3), "l" : []}, r#type: Unit, unit: (), last: r"\"  ,
)"####;

    fn text_at(path: &str) -> Option<&'static str> {
        let node = locate(TEXT);
        let span = node.follow(&parse_path(path).unwrap()).ok()?.span.clone();
        Some(&TEXT[span])
    }

    #[test]
    fn every_kind_of_value_is_found_at_its_path() {
        for (path, expected) in [
            ("name", r#""a \" ) // b""#),
            ("raw", r###"r##"x " "# )"##"###),
            ("c", "'('"),
            ("quote", r"'\''"),
            ("bytes", r#"b"x\"""#),
            ("d", "b'\"'"),
            ("list[0]", "Macs(ratio: 0.3)"),
            ("list[0].ratio", "0.3"),
            ("list[1].ratio", "4"),
            ("list[2][1][0]", "2"),
            ("map[\"k.1\"].w", "-1.5e3"),
            ("map.l", "[]"),
            ("type", "Unit"),
            ("unit", "()"),
            ("last", r#"r"\""#),
        ] {
            assert_eq!(text_at(path), Some(expected), "{path}");
        }
        for path in ["list[3]", "list.x", "unit.a", "nope", "map[0]", "name.x"] {
            assert_eq!(text_at(path), None, "{path}");
        }
    }

    #[test]
    fn a_partial_path_tells_how_far_it_led() {
        let node = locate(TEXT);
        let missing = node.follow(&parse_path("list[0].max.x").unwrap()).unwrap_err();
        assert_eq!(missing.depth, 2);
        assert_eq!(&TEXT[missing.nearest.head()], "Macs");
    }

    #[test]
    fn a_broken_text_still_yields_what_came_before() {
        for text in
            ["(a: 1, b: ", "(a: 1, b: [", "(a: 1, b: \"", "(a: 1 b: 2)", "(a: 1, /* ", "(a: 1, 'x", "(a: 1, r#\"x"]
        {
            let node = locate(text);
            assert_eq!(&text[node.follow(&parse_path("a").unwrap()).unwrap().span.clone()], "1", "{text}");
            assert!(locate_only(text).is_none(), "{text}");
        }
        assert!(locate_only(" 7 // seven").is_some());
        assert!(locate_only("7 8").is_none());
        assert!(locate_only("").is_none());
    }

    #[test]
    fn deep_nesting_neither_overflows_nor_takes_long() {
        for opening in ["(", "[", "{", "Some(", "a: (", "(a: ", "{\"a\": ", "/*", "/", "'", "r#"] {
            let text = opening.repeat(10_000);
            locate(&text);
            locate_only(&text);
        }
    }
}
