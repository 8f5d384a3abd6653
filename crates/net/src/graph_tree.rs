//! Values of a self-describing format, as they stand there.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// One value.
#[derive(Debug)]
pub enum Tree {
    /// `null`, or nothing at all.
    Nothing,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number from 0.
    Count(u64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// An object, its entries in their order, repeated ones too.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
}

/// As it was written, but short.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Flag(flag) => flag.fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "\"{}\"", crate::graph_fields::shown(text)),
            Self::List(values) if values.len() > 8 => write!(f, "a list of {} values", values.len()),
            Self::List(values) => {
                let each = |value: &Self| match value {
                    Self::List(_) => "[…]".to_owned(),
                    other => other.to_string(),
                };
                write!(f, "[{}]", values.iter().map(each).collect::<Vec<_>>().join(", "))
            }
            Self::Map(entries) if entries.is_empty() => f.write_str("an empty object"),
            Self::Map(entries) => {
                let keys = entries.iter().take(4).map(|(key, _)| format!("`{}`", crate::graph_fields::shown(key)));
                write!(f, "an object with {}", keys.collect::<Vec<_>>().join(", "))?;
                if entries.len() > 4 { write!(f, " and {} more keys", entries.len() - 4) } else { Ok(()) }
            }
        }
    }
}

/// Reads a [`Tree`] of at most so many values more; each takes many times the bytes it is written with.
#[derive(Clone, Copy)]
pub struct TreeSeed<'a>(pub &'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for TreeSeed<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Tree, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| Error::custom("graph: a node with too many values"))?);
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeSeed<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }
    fn visit_u64<E>(self, count: u64) -> Result<Tree, E> {
        Ok(Tree::Count(count))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(u64::try_from(number).map_or(Tree::Number(number as f64), Tree::Count))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Number(number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Tree::Map(entries))
    }
}
