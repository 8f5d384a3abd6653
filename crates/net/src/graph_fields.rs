//! The keys of one object of a graph file: each known, there once, and of its kind.

use std::fmt;

use crate::graph_tree::Tree;
use crate::tap::Tap;

/// Characters of a foreign name that a message shows.
const SHOWN: usize = 80;

/// A name as messages show it.
pub fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// What is wrong in a graph file, and where.
#[derive(Debug)]
pub struct Refusal(String);

impl Refusal {
    /// Of the object `at`.
    pub fn of(at: &str, problem: impl fmt::Display) -> Self {
        Self(format!("{at}: {problem}"))
    }
    /// Of one of its keys.
    pub fn of_key(at: &str, key: &str, problem: impl fmt::Display) -> Self {
        Self(format!("{at}: key `{key}`: {problem}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The entries of an object that has no unknown key and none twice.
pub struct Fields {
    at: String,
    known: &'static [&'static str],
    entries: Vec<(String, Tree)>,
}

impl Fields {
    /// Of `tree`, which messages call `at`.
    pub fn new(at: String, tree: Tree, known: &'static [&'static str]) -> Result<Self, Refusal> {
        let list = || if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let entries = match tree {
            Tree::Map(entries) => entries,
            Tree::Nothing => Vec::new(),
            other => return Err(Refusal::of(&at, format!("expected an object with the keys {}, got {other}", list()))),
        };
        for (i, (key, _)) in entries.iter().enumerate() {
            if !known.contains(&key.as_str()) {
                return Err(Refusal::of(&at, format!("unknown key `{}`; known: {}", shown(key), list())));
            }
            if entries[..i].iter().any(|(earlier, _)| earlier == key) {
                return Err(Refusal::of(&at, format!("key `{key}` stands there twice")));
            }
        }
        Ok(Self { at, known, entries })
    }

    /// The value of `key`, whatever it is.
    pub fn take(&mut self, key: &str) -> Result<Tree, Refusal> {
        let found = self.entries.iter().position(|(known, _)| known == key);
        let missing = || Refusal::of(&self.at, format!("key `{key}` is missing; expected {}", self.known.join(", ")));
        let at = found.ok_or_else(missing)?;
        Ok(self.entries.swap_remove(at).1)
    }

    /// A whole number from 0.
    pub fn count(&mut self, key: &str) -> Result<usize, Refusal> {
        let value = self.take(key)?;
        count(&value).ok_or_else(|| self.unexpected(key, "a whole number from 0", &value))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str) -> Result<bool, Refusal> {
        match self.take(key)? {
            Tree::Flag(flag) => Ok(flag),
            other => Err(self.unexpected(key, "true or false", &other)),
        }
    }

    /// Any number, rounded to f32.
    pub fn number(&mut self, key: &str) -> Result<f32, Refusal> {
        match self.take(key)? {
            Tree::Number(number) => Ok(number as f32),
            Tree::Count(count) => Ok(count as f32),
            other => Err(self.unexpected(key, "a number", &other)),
        }
    }

    /// A number that may be left out, `otherwise` then.
    pub fn number_or(&mut self, key: &str, otherwise: f32) -> Result<f32, Refusal> {
        if !self.has(key) {
            return Ok(otherwise);
        }
        let number = self.number(key)?;
        let problem = "expected a number that f32 holds; leave the key out where there is no bound";
        if number.is_finite() { Ok(number) } else { Err(Refusal::of_key(&self.at, key, problem)) }
    }

    /// `true` or `false`, or left out, `otherwise` then.
    pub fn flag_or(&mut self, key: &str, otherwise: bool) -> Result<bool, Refusal> {
        if self.has(key) { self.flag(key) } else { Ok(otherwise) }
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> Result<String, Refusal> {
        match self.take(key)? {
            Tree::Text(text) => Ok(text),
            other => Err(self.unexpected(key, "a text", &other)),
        }
    }

    /// A list of whole numbers from 0.
    pub fn counts(&mut self, key: &str) -> Result<Vec<usize>, Refusal> {
        let value = self.take(key)?;
        let counts = if let Tree::List(values) = &value { values.iter().map(count).collect() } else { None };
        counts.ok_or_else(|| self.unexpected(key, "a list of earlier nodes' numbers", &value))
    }

    /// Two whole numbers from 0, `meaning` such as `[rows, columns]`.
    pub fn pair(&mut self, key: &str, meaning: &str) -> Result<[usize; 2], Refusal> {
        self.pair_or(key, meaning, "")
    }

    /// Rows and columns of padding, the same on opposite sides; `help` for other paddings.
    pub fn padding(&mut self, help: &str) -> Result<[usize; 2], Refusal> {
        self.pair_or("padding", "[rows above and below, columns left and right]", help)
    }

    /// Padding above and below, left and right: two pairs, or two numbers where they are the same on opposite sides.
    pub fn padding_of_sides(&mut self) -> Result<[[usize; 2]; 2], Refusal> {
        let value = self.take("padding")?;
        let pair = |values: &[Tree]| if let [a, b] = values { Some([count(a)?, count(b)?]) } else { None };
        let sides = |value: &Tree| if let Tree::List(values) = value { pair(values) } else { None };
        let values = if let Tree::List(values) = &value { values.as_slice() } else { &[] };
        let uneven = if let [rows, cols] = values { sides(rows).zip(sides(cols)) } else { None };
        let even = pair(values).map(|[rows, cols]| ([rows; 2], [cols; 2]));
        even.or(uneven).map(|(rows, cols)| [rows, cols]).ok_or_else(|| {
            let n = if values.len() > 2 { format!(" ({} values)", values.len()) } else { String::new() };
            let expected = "expected [rows above and below, columns left and right], two whole numbers from 0, or, for \
                            other numbers on opposite sides, [[above, below], [left, right]]";
            Refusal::of_key(&self.at, "padding", format!("{expected}, got {value}{n}"))
        })
    }

    fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == key)
    }

    /// A list of taps, each `[first, second, share]`, or `first` alone.
    pub fn taps(&mut self, key: &str) -> Result<Vec<Tap>, Refusal> {
        let value = self.take(key)?;
        let taps = if let Tree::List(values) = &value { values.iter().map(tap).collect() } else { None };
        taps.ok_or_else(|| self.unexpected(key, "a list of sources, each [first, second, share] or a number", &value))
    }

    fn pair_or(&mut self, key: &str, meaning: &str, help: &str) -> Result<[usize; 2], Refusal> {
        let value = self.take(key)?;
        let values = if let Tree::List(values) = &value { values.as_slice() } else { &[] };
        let pair = if let [a, b] = values { count(a).zip(count(b)) } else { None };
        pair.map(|(a, b)| [a, b]).ok_or_else(|| {
            let n = if values.len() > 2 { format!(" ({} values)", values.len()) } else { String::new() };
            let help = if help.is_empty() { String::new() } else { format!("; {help}") };
            let problem = format!("expected {meaning}, two whole numbers from 0, got {value}{n}{help}");
            Refusal::of_key(&self.at, key, problem)
        })
    }

    fn unexpected(&self, key: &str, expected: &str, got: &Tree) -> Refusal {
        Refusal::of_key(&self.at, key, format!("expected {expected}, got {got}"))
    }
}

fn tap(value: &Tree) -> Option<Tap> {
    let Tree::List(values) = value else { return count(value).map(Tap::nearest) };
    let [first, second, share] = values.as_slice() else { return None };
    let share = match share {
        Tree::Number(share) => *share as f32,
        Tree::Count(share) => *share as f32,
        _ => return None,
    };
    Some(Tap { first: count(first)?, second: count(second)?, share })
}

fn count(value: &Tree) -> Option<usize> {
    if let Tree::Count(count) = value { usize::try_from(*count).ok() } else { None }
}
