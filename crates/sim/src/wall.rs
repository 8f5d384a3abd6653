//! The exact budget wall: integer arithmetic that lets no walk end above its budget, whatever the policy asks for.

use std::fmt;
use std::sync::Arc;

use secateur_net::{ChannelGroups, Cost, CostModel, GroupId};

use crate::widths::{WidthBounds, WidthRules};

/// An upper bound on a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostBound {
    /// What is bounded.
    pub cost: Cost,
    /// The most it may be.
    pub max: u64,
}

/// The bounds of one task on one network, for widths decided in walk order.
///
/// All costs are monotone in every width, so a decision is safe exactly when the network with the widths decided so far
/// and the least widths after them meets every bound: the completion with the least widths has the least of all costs
/// at once. The wall of several bounds is the tightest of their single walls, and no dead end either.
#[derive(Clone, Debug)]
pub struct BudgetWall {
    model: Arc<CostModel>,
    limits: Vec<CostBound>,
    order: Vec<GroupId>,
    bounds: Vec<WidthBounds>,
    least: Vec<usize>,
}

/// Why there is no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Even the narrowest network exceeds a bound.
    Bound {
        /// The bound.
        bound: CostBound,
        /// Least cost any candidate can have.
        minimum: u64,
    },
    /// A group has no width that all rules allow.
    Width {
        /// The group.
        group: GroupId,
    },
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound { bound: CostBound { cost, max }, minimum } => {
                write!(f, "the budget is {max} {}, but no candidate costs less than {minimum}", cost.name())
            }
            Self::Width { group } => write!(f, "group {group} has no width that its keep range allows"),
        }
    }
}

impl BudgetWall {
    /// The wall of `limits` for the prunable groups, in walk order; without limits, every width is allowed.
    ///
    /// # Errors
    /// When the least widths of all groups together still exceed one of them, the first of those.
    pub fn new(
        groups: &ChannelGroups,
        model: Arc<CostModel>,
        rules: &WidthRules,
        limits: &[CostBound],
    ) -> Result<Self, Unreachable> {
        let order = groups.prunable();
        let widths =
            |&group: &GroupId| rules.bounds(group, groups.group(group).n_channels).ok_or(Unreachable::Width { group });
        let bounds: Vec<WidthBounds> = order.iter().map(widths).collect::<Result<_, _>>()?;
        let mut least = groups.full_widths();
        for (&g, bounds) in order.iter().zip(&bounds) {
            least[g] = bounds.least();
        }
        for &bound in limits {
            let minimum = model.count(bound.cost, &least);
            if minimum > bound.max {
                return Err(Unreachable::Bound { bound, minimum });
            }
        }
        Ok(Self { model, limits: limits.to_vec(), order, bounds, least })
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
    /// The bounds, in the order in which they were given.
    pub fn limits(&self) -> &[CostBound] {
        &self.limits
    }
    /// Multiply-accumulates per image of a network of these widths.
    pub fn macs(&self, widths: &[usize]) -> u64 {
        self.model.count(Cost::Macs, widths)
    }
    /// Where there are several bounds, what a network of these widths costs for each of them; else nothing.
    pub fn several_costs(&self, widths: &[usize]) -> Vec<u64> {
        let limits = if self.limits.len() > 1 { &*self.limits } else { &[] };
        limits.iter().map(|limit| self.model.count(limit.cost, widths)).collect()
    }
    /// What a network of these widths costs, and what it may cost.
    pub fn tell(&self, widths: &[usize]) -> String {
        let of = |&CostBound { cost, max }: &CostBound| {
            format!("{} {}, of which {max} are allowed", self.model.count(cost, widths), cost.name())
        };
        self.limits.iter().map(of).collect::<Vec<_>>().join("; ")
    }
    /// Whether a network of these widths meets every bound.
    pub fn allows(&self, widths: &[usize]) -> bool {
        self.limits.iter().all(|limit| self.model.count(limit.cost, widths) <= limit.max)
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
