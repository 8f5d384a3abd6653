//! Channels that must be removed together: classes of labels, joined as operations couple them.

use std::collections::HashMap;

/// Labels of channel positions, and what has been found to belong together.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    parent: Vec<u32>,
    /// Of a root, which reason keeps the class whole.
    frozen: Vec<Option<u32>>,
    /// Of a root, whether some convolution or product makes it: places of constants are never removed alone.
    is_produced: Vec<bool>,
    reasons: Vec<String>,
    /// By reason, its place in `reasons`.
    known: HashMap<String, u32>,
}

impl Classes {
    /// New labels, each a class of its own.
    pub fn fresh(&mut self, n: usize, is_produced: bool) -> Vec<u32> {
        let first = self.parent.len() as u32;
        self.parent.extend((0..n as u32).map(|i| first + i));
        self.frozen.resize(self.parent.len(), None);
        self.is_produced.resize(self.parent.len(), is_produced);
        (first..first + n as u32).collect()
    }

    /// How many labels there are.
    pub const fn len(&self) -> usize {
        self.parent.len()
    }

    /// The label that stands for a class: its first.
    pub fn root(&mut self, label: u32) -> u32 {
        let mut at = label;
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    /// From now on both are one class, frozen if one of them was.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (first, last) = (a.min(b), a.max(b));
        self.parent[last as usize] = first;
        self.is_produced[first as usize] |= self.is_produced[last as usize];
        let reason = self.frozen[first as usize].or(self.frozen[last as usize]);
        self.frozen[first as usize] = reason;
    }

    /// The classes of these labels may not be removed; the first reason stays.
    pub fn freeze(&mut self, labels: impl IntoIterator<Item = u32>, reason: &str) {
        let number = *self.known.entry(reason.to_owned()).or_insert_with(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() as u32 - 1
        });
        for label in labels {
            let root = self.root(label);
            self.frozen[root as usize].get_or_insert(number);
        }
    }

    /// Why the class of a root may not be removed.
    pub fn reason(&self, root: u32) -> Option<&str> {
        match self.frozen[root as usize] {
            Some(number) => Some(&self.reasons[number as usize]),
            None if self.is_produced[root as usize] => None,
            None => Some("holds constants only"),
        }
    }
}
