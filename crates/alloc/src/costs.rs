//! A cost as a formula in the widths of the groups that may be pruned.

use secateur_net::{ChannelGroups, Cost, CostModel};

/// `constant + sum linear[i] w_i + sum square[i] w_i^2 + sum over pairs b_ij w_i w_j`, and sums that may not exceed the
/// bound either. Groups are counted by their place among those that may be pruned.
#[derive(Clone, Debug, Default)]
pub(crate) struct CostForm {
    pub(crate) constant: u64,
    pub(crate) linear: Vec<u64>,
    pub(crate) square: Vec<u64>,
    /// By place: the other places that it shares a term with, ascending, and the factor.
    pub(crate) pairs: Vec<Vec<(usize, u64)>>,
    /// Peak memory is the largest of these.
    pub(crate) sums: Vec<LinearSum>,
}

/// `constant + sum of factor * width`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinearSum {
    pub(crate) constant: u64,
    /// Places, ascending, and their factors, none of them 0.
    pub(crate) terms: Vec<(usize, u64)>,
}

impl LinearSum {
    pub(crate) fn at(&self, widths: &[u64]) -> u64 {
        self.constant + self.terms.iter().map(|&(place, factor)| factor * widths[place]).sum::<u64>()
    }

    /// Whether it is at least `other` for all widths.
    fn covers(&self, other: &Self) -> bool {
        let factor = |place: usize| self.terms.iter().find(|&&(p, _)| p == place).map_or(0, |&(_, factor)| factor);
        self.constant >= other.constant && other.terms.iter().all(|&(place, least)| factor(place) >= least)
    }
}

impl CostForm {
    /// The formula of `cost`.
    pub(crate) fn new(groups: &ChannelGroups, model: &CostModel, cost: Cost) -> Self {
        match cost {
            Cost::Macs | Cost::Params => Self::quadratic(groups, model, cost),
            Cost::ActivationBytes => Self::peak(groups, model),
        }
    }

    /// Found by differences: a count of one or two channels is as exact as any other.
    fn quadratic(groups: &ChannelGroups, model: &CostModel, cost: Cost) -> Self {
        let order = groups.prunable();
        let mut widths = groups.full_widths();
        order.iter().for_each(|&group| widths[group] = 0);
        let constant = model.count(cost, &widths);
        let mut at = |places: &[usize]| {
            places.iter().for_each(|&place| widths[order[place]] += 1);
            let count = model.count(cost, &widths);
            places.iter().for_each(|&place| widths[order[place]] = 0);
            count
        };
        let n = order.len();
        let one: Vec<u64> = (0..n).map(|i| at(&[i]) - constant).collect();
        let square: Vec<u64> = (0..n).map(|i| (at(&[i, i]) - constant - 2 * one[i]) / 2).collect();
        let linear = one.iter().zip(&square).map(|(one, square)| one - square).collect();
        let mut pairs = vec![Vec::new(); n];
        for i in 0..n {
            for j in 0..i {
                let factor = at(&[i, j]) - constant - one[i] - one[j];
                if factor > 0 {
                    pairs[i].push((j, factor));
                    pairs[j].push((i, factor));
                }
            }
        }
        pairs.iter_mut().for_each(|list| list.sort_unstable());
        Self { constant, linear, square, pairs, sums: Vec::new() }
    }

    fn peak(groups: &ChannelGroups, model: &CostModel) -> Self {
        let order = groups.prunable();
        let full = groups.full_widths();
        let mut place_of = vec![None; full.len()];
        order.iter().enumerate().for_each(|(place, &group)| place_of[group] = Some(place));
        let mut sums: Vec<LinearSum> = Vec::new();
        for live in model.live_bytes() {
            let mut sum = LinearSum { constant: 0, terms: Vec::new() };
            for (group, bytes) in live {
                match place_of[group] {
                    Some(place) => sum.terms.push((place, bytes)),
                    None => sum.constant += bytes * full[group] as u64,
                }
            }
            sum.terms.sort_unstable();
            if !sums.iter().any(|known| known.covers(&sum)) {
                sums.retain(|known| !sum.covers(known));
                sums.push(sum);
            }
        }
        let n = order.len();
        Self { constant: 0, linear: vec![0; n], square: vec![0; n], pairs: vec![Vec::new(); n], sums }
    }

    /// The cost at these widths.
    pub(crate) fn at(&self, widths: &[u64]) -> u64 {
        self.products(widths).max(self.sums.iter().map(|sum| sum.at(widths)).max().unwrap_or(0))
    }

    /// The part that adds up.
    pub(crate) fn products(&self, widths: &[u64]) -> u64 {
        let of = |i: usize| {
            let before = self.pairs[i].iter().filter(|&&(j, _)| j < i);
            let shared: u64 = before.map(|&(j, factor)| factor * widths[j]).sum();
            widths[i] * (self.linear[i] + self.square[i] * widths[i] + shared)
        };
        self.constant + (0..widths.len()).map(of).sum::<u64>()
    }
}
