//! Widths that a channel group may take.

use std::collections::BTreeMap;

use secateur_net::GroupId;

/// Shares of n channels are compared with whole numbers up to this, so that 0.1 * 30 = 3.0000000000000004 is not 4.
const ROUNDING: f64 = 1e-9;

/// The share of its channels that a group is to keep, beside what holds for all groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeepRange {
    /// The least share, [0, 1].
    pub min: f64,
    /// The largest share, `min`..=1. The same as `min` asks for the allowed width nearest to it.
    pub max: f64,
}

impl KeepRange {
    /// What both ranges ask for; none if they contradict each other.
    pub fn and(self, other: Self) -> Option<Self> {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        (both.min <= both.max).then_some(both)
    }
}

/// Which widths the groups of a network may take.
#[derive(Clone, Debug, PartialEq)]
pub struct WidthRules {
    /// Widths are multiples of this.
    pub channel_multiple: usize,
    /// Smallest keep ratio of a group.
    pub keep_ratio_min: f64,
    /// Groups with a range of their own.
    pub keep: BTreeMap<GroupId, KeepRange>,
}

impl WidthRules {
    /// The same rules for all groups.
    pub const fn new(channel_multiple: usize, keep_ratio_min: f64) -> Self {
        Self { channel_multiple, keep_ratio_min, keep: BTreeMap::new() }
    }

    /// Widths of a group of `n_channels` that may be pruned; none if its range holds no width that is allowed
    /// otherwise.
    pub fn bounds(&self, group: GroupId, n_channels: usize) -> Option<WidthBounds> {
        let bounds = WidthBounds::new(n_channels, self.channel_multiple, self.keep_ratio_min);
        match self.keep.get(&group) {
            Some(&range) if range.max < self.keep_ratio_min - ROUNDING => None,
            Some(&range) => bounds.within(range),
            None => Some(bounds),
        }
    }
}

/// Widths a group may take, ascending; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidthBounds {
    widths: Vec<usize>,
    /// By a number of channels up to that of the unpruned group: how many of the widths are less.
    n_less: Vec<usize>,
}

impl WidthBounds {
    /// Multiples of `channel_multiple` in [max(1, ceil(`keep_ratio_min` · n)), n], and n itself.
    pub fn new(n_channels: usize, channel_multiple: usize, keep_ratio_min: f64) -> Self {
        let least = ((keep_ratio_min * n_channels as f64 - ROUNDING).ceil() as usize).clamp(1, n_channels);
        let mut widths: Vec<usize> =
            (least..n_channels).filter(|w| w.is_multiple_of(channel_multiple.max(1))).collect();
        widths.push(n_channels);
        Self::of(widths, n_channels)
    }
    fn of(widths: Vec<usize>, n_channels: usize) -> Self {
        let n_less = (0..=n_channels).map(|n| widths.partition_point(|&w| w < n)).collect();
        Self { widths, n_less }
    }
    /// Those of the widths that are in a range, or the one nearest to it where the range is a single share; none if
    /// there is none.
    pub fn within(&self, range: KeepRange) -> Option<Self> {
        let n = self.n_channels();
        if range.min == range.max {
            return Some(Self::of(vec![self.nearest(range.min as f32)], n));
        }
        let (least, most) = (range.min * n as f64 - ROUNDING, range.max * n as f64 + ROUNDING);
        let widths: Vec<usize> =
            self.widths.iter().copied().filter(|&w| (least..=most).contains(&(w as f64))).collect();
        (!widths.is_empty()).then(|| Self::of(widths, n))
    }
    /// All widths, ascending.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }
    /// Smallest width.
    pub fn least(&self) -> usize {
        self.widths[0]
    }
    /// Largest width: that of the unpruned group, unless a range forbids it.
    pub fn most(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }
    /// Channels of the unpruned group.
    pub fn n_channels(&self) -> usize {
        self.n_less.len() - 1
    }
    /// The width nearest to `keep_ratio` of all channels; of two equally near, the larger.
    pub fn nearest(&self, keep_ratio: f32) -> usize {
        let wanted = f64::from(keep_ratio) * self.n_channels() as f64;
        // The next whole number; widths below it are below what is wanted.
        let whole = wanted as usize;
        let above = self.n_less.get(whole.saturating_add(usize::from((whole as f64) < wanted)));
        let Some((above, &wide)) = above.and_then(|&above| Some((above, self.widths.get(above)?))) else {
            return self.most();
        };
        match above.checked_sub(1).map(|below| self.widths[below]) {
            Some(narrow) if wanted - (narrow as f64) < wide as f64 - wanted => narrow,
            _ => wide,
        }
    }
    /// The next larger width.
    pub fn above(&self, width: usize) -> Option<usize> {
        self.widths.iter().copied().find(|&w| w > width)
    }
}
