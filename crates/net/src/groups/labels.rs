//! Labels of channels, and which of them belong together.

use std::ops::Range;
use std::rc::Rc;

use super::frozen::Frozen;

/// Union-find over channel labels, with what is known of each class at its root.
#[derive(Default)]
pub(super) struct Labels {
    parent: Vec<u32>,
    produced: Vec<bool>,
    frozen: Vec<Option<Frozen>>,
}

/// Labels of the channel positions of one tensor; tensors with the same share them.
pub(super) type AxisLabels = Rc<[u32]>;

impl Labels {
    pub(super) fn fresh(&mut self, n: usize, produced: bool) -> Range<u32> {
        let from = self.parent.len() as u32;
        let all = from..from + n as u32;
        self.parent.extend(all.clone());
        self.produced.extend(std::iter::repeat_n(produced, n));
        self.frozen.extend(std::iter::repeat_n(None, n));
        all
    }
    pub(super) fn root(&mut self, mut a: u32) -> u32 {
        while self.parent[a as usize] != a {
            self.parent[a as usize] = self.parent[self.parent[a as usize] as usize];
            a = self.parent[a as usize];
        }
        a
    }
    /// The smaller root wins, so a class is named by its earliest label.
    pub(super) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b) as usize, a.max(b) as usize);
        if low == high {
            return;
        }
        self.parent[high] = low as u32;
        self.produced[low] |= self.produced[high];
        self.frozen[low] = self.frozen[low].or(self.frozen[high]);
    }
    pub(super) fn freeze(&mut self, labels: impl IntoIterator<Item = u32>, why: Frozen) {
        for label in labels {
            let root = self.root(label) as usize;
            self.frozen[root] = self.frozen[root].or(Some(why));
        }
    }
    /// Every label's root, once all are joined.
    pub(super) fn into_roots(mut self) -> (Vec<u32>, Vec<Option<Frozen>>) {
        for label in 0..self.parent.len() {
            self.parent[label] = self.root(label as u32);
        }
        let of = |(&produced, frozen): (&bool, Option<Frozen>)| frozen.or((!produced).then_some(Frozen::Constant));
        let frozen = self.produced.iter().zip(self.frozen).map(of).collect();
        (self.parent, frozen)
    }
}
