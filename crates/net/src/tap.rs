//! Where the rows and columns of a resized image come from.

use serde::{Serialize, Serializer};

/// Where one row (or column) of a resized image comes from: `(1 - share) * input[first] + share * input[second]`.
/// Files have it as `[first, second, share]`, or as `first` alone where nothing is added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tap {
    /// Row of the input that has the share `1 - share`.
    pub first: usize,
    /// Row of the input that has the share `share`.
    pub second: usize,
    /// From 0 to 1.
    pub share: f32,
}

impl Tap {
    /// Row `row` alone.
    pub const fn nearest(row: usize) -> Self {
        Self { first: row, second: row, share: 0.0 }
    }
}

impl Serialize for Tap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if *self == Self::nearest(self.first) {
            return self.first.serialize(to);
        }
        (self.first, self.second, self.share).serialize(to)
    }
}
