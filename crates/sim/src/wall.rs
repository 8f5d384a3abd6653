//! The exact budget wall: integer arithmetic that lets no walk end above its budget, whatever the policy asks for.

use std::sync::Arc;

use secateur_net::{ChannelGroups, Cost, CostModel, GroupId};

/// Widths a group may take, ascending; the last is its full width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidthBounds {
    widths: Vec<usize>,
    /// By a number of channels up to the full width: how many of the widths are less.
    n_less: Vec<usize>,
}

impl WidthBounds {
    /// Multiples of `channel_multiple` in [max(1, ceil(`keep_ratio_min` · n)), n], and n itself.
    pub fn new(n_channels: usize, channel_multiple: usize, keep_ratio_min: f64) -> Self {
        // The tolerance keeps 0.1 * 30 = 3.0000000000000004 from becoming 4.
        let least = ((keep_ratio_min * n_channels as f64 - 1e-9).ceil() as usize).clamp(1, n_channels);
        let mut widths: Vec<usize> =
            (least..n_channels).filter(|w| w.is_multiple_of(channel_multiple.max(1))).collect();
        widths.push(n_channels);
        let n_less = (0..=n_channels).map(|n| widths.partition_point(|&w| w < n)).collect();
        Self { widths, n_less }
    }
    /// All widths, ascending.
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }
    /// Smallest width.
    pub fn least(&self) -> usize {
        self.widths[0]
    }
    /// Full width.
    pub fn full(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }
    /// The width nearest to `keep_ratio` of all channels; of two equally near, the larger.
    pub fn nearest(&self, keep_ratio: f32) -> usize {
        let wanted = f64::from(keep_ratio) * self.full() as f64;
        // The next whole number; widths below it are below what is wanted.
        let whole = wanted as usize;
        let above = self.n_less.get(whole.saturating_add(usize::from((whole as f64) < wanted)));
        let Some(&above) = above else { return self.full() };
        let wide = self.widths[above];
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

/// An upper bound on a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostBound {
    /// What is bounded.
    pub cost: Cost,
    /// The most it may be.
    pub max: u64,
}

/// One budget on one network, for widths decided in walk order.
///
/// All costs are monotone in every width, so a decision is safe exactly when the network with the widths decided so far
/// and the least widths after them meets the bound.
#[derive(Clone, Debug)]
pub struct BudgetWall {
    model: Arc<CostModel>,
    bound: CostBound,
    order: Vec<GroupId>,
    bounds: Vec<WidthBounds>,
    least: Vec<usize>,
}

/// A budget that even the narrowest network exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Least cost any candidate can have.
    pub minimum: u64,
}

impl BudgetWall {
    /// The wall of `bound` for the prunable groups, in walk order.
    ///
    /// # Errors
    /// When the least widths of all groups together still exceed it.
    pub fn new(
        groups: &ChannelGroups,
        model: Arc<CostModel>,
        bound: CostBound,
        channel_multiple: usize,
        keep_ratio_min: f64,
    ) -> Result<Self, Unreachable> {
        let order = groups.prunable();
        let bounds: Vec<WidthBounds> = order
            .iter()
            .map(|&g| WidthBounds::new(groups.group(g).n_channels, channel_multiple, keep_ratio_min))
            .collect();
        let mut least = groups.full_widths();
        for (&g, bounds) in order.iter().zip(&bounds) {
            least[g] = bounds.least();
        }
        let minimum = model.count(bound.cost, &least);
        if minimum > bound.max {
            return Err(Unreachable { minimum });
        }
        Ok(Self { model, bound, order, bounds, least })
    }
    /// Groups in walk order.
    pub fn order(&self) -> &[GroupId] {
        &self.order
    }
    /// Allowed widths of the group at place `layer` of the walk.
    pub fn bounds(&self, layer: usize) -> &WidthBounds {
        &self.bounds[layer]
    }
    /// Widths at the start of a walk: the least of every prunable group, frozen groups whole.
    pub fn least_widths(&self) -> &[usize] {
        &self.least
    }
    /// What is bounded.
    pub const fn cost(&self) -> Cost {
        self.bound.cost
    }
    /// The bound.
    pub const fn max(&self) -> u64 {
        self.bound.max
    }
    /// Multiply-accumulates per image of a network of these widths.
    pub fn macs(&self, widths: &[usize]) -> u64 {
        self.model.count(Cost::Macs, widths)
    }
    /// What a network of these widths costs, and what it may cost.
    pub fn tell(&self, widths: &[usize]) -> String {
        let Self { bound: CostBound { cost, max }, model, .. } = self;
        format!("{} {}, of which {max} are allowed", model.count(*cost, widths), cost.name())
    }
    /// Whether a network of these widths meets the budget.
    pub fn allows(&self, widths: &[usize]) -> bool {
        self.model.count(self.bound.cost, widths) <= self.bound.max
    }

    /// The width for the group at place `layer`: the allowed width nearest to `keep_ratio`, or the largest that some
    /// completion can afford if that is less. `widths` holds the decisions so far and the least widths after them.
    pub fn clamp(&self, widths: &mut [usize], layer: usize, keep_ratio: f32) -> usize {
        let allowed = self.bounds[layer].widths();
        let group = self.order[layer];
        let wanted = self.bounds[layer].nearest(keep_ratio);
        let n = allowed.partition_point(|&w| w <= wanted);
        let affordable = allowed[..n].partition_point(|&w| {
            widths[group] = w;
            self.allows(widths)
        });
        // The least width is affordable as long as every earlier decision went through here.
        let width = allowed[affordable.saturating_sub(1)];
        widths[group] = width;
        width
    }

    /// The largest keep ratio that this and every later group can share, between the least ratio and 1: what `uniform`
    /// keeps. `trial` holds the decisions so far; what is in it for later groups is overwritten.
    pub fn even_ratio(&self, trial: &mut [usize], layer: usize) -> f32 {
        let mut affordable = |ratio: f32| {
            for (bounds, &group) in self.bounds.iter().zip(&self.order).skip(layer) {
                trial[group] = bounds.nearest(ratio);
            }
            self.allows(trial)
        };
        if affordable(1.0) {
            return 1.0;
        }
        let (mut low, mut high) = (0.0f32, 1.0f32);
        for _ in 0..16 {
            let middle = 0.5 * (low + high);
            if affordable(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Spends what is left of the budget after a walk, one width step at a time, each time on the group whose step buys
    /// the largest drop of reconstruction error per multiply-accumulate; ties go to the earlier group. `error(layer,
    /// width)` is the relative reconstruction error of a group at a width.
    pub fn spend_leftover(&self, widths: &mut [usize], error: impl Fn(usize, usize) -> f64) {
        loop {
            let macs = self.model.count(Cost::Macs, widths);
            let mut best: Option<(f64, GroupId, usize)> = None;
            for (layer, (&group, bounds)) in self.order.iter().zip(&self.bounds).enumerate() {
                let width = widths[group];
                let Some(wider) = bounds.above(width) else { continue };
                widths[group] = wider;
                if self.allows(widths) {
                    let spent = (self.model.count(Cost::Macs, widths) - macs).max(1) as f64;
                    let gain = (error(layer, width) - error(layer, wider)) / spent;
                    if best.is_none_or(|(most, ..)| gain > most) {
                        best = Some((gain, group, wider));
                    }
                }
                widths[group] = width;
            }
            match best {
                Some((_, group, wider)) => widths[group] = wider,
                None => return,
            }
        }
    }
}
