//! The least a network can cost, and hence which budgets can be met.

use secateur_net::{ChannelGroups, Cost, CostModel, Graph, Network, Protocol};
use secateur_sim::{Unreachable, WidthRules};

/// The cost of a whole network as it stands.
pub fn full_cost(network: &Network, cost: Cost) -> u64 {
    full_costs(network, [cost])[0]
}

/// The costs of a whole network as it stands, in the order of `costs`.
pub fn full_costs<const N: usize>(network: &Network, costs: [Cost; N]) -> [u64; N] {
    let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
    let (model, full) = (CostModel::new(network.graph(), &groups), groups.full_widths());
    costs.map(|cost| model.count(cost, &full))
}

/// The least width of every group, frozen ones whole.
///
/// # Errors
/// A group without any width that its rules allow.
pub fn least_widths(groups: &ChannelGroups, rules: &WidthRules) -> Result<Vec<usize>, Unreachable> {
    let mut least = groups.full_widths();
    for group in groups.prunable() {
        least[group] = rules.bounds(group, least[group]).ok_or(Unreachable::Width { group })?.least();
    }
    Ok(least)
}

/// Groups and least widths of one network under one set of rules. What has the least widths has the least of all costs
/// at once, so that bounds can be met together if each of them can.
#[derive(Clone, Debug)]
pub struct Reachable {
    /// The groups the least widths belong to.
    pub groups: ChannelGroups,
    model: CostModel,
    least: Vec<usize>,
    /// Whether every group may keep all its channels.
    pub allows_full: bool,
}

impl Reachable {
    /// For `graph` as it is pruned (BatchNorm folded), and groups derived from it.
    ///
    /// # Errors
    /// A group without any width that its rules allow.
    pub fn new(graph: &Graph, groups: ChannelGroups, rules: &WidthRules) -> Result<Self, Unreachable> {
        let least = least_widths(&groups, rules)?;
        let model = CostModel::new(graph, &groups);
        let allows_full = rules.keep.values().all(|range| range.max >= 1.0);
        Ok(Self { groups, model, least, allows_full })
    }

    /// The counts that the least widths are held against.
    pub fn model(&self) -> &CostModel {
        &self.model
    }

    /// The cost with every channel.
    pub fn full(&self, cost: Cost) -> u64 {
        self.model.count(cost, &self.groups.full_widths())
    }

    /// The least that any candidate can cost.
    pub fn minimum(&self, cost: Cost) -> u64 {
        self.model.count(cost, &self.least)
    }
}

/// The smallest ratio with four decimals that allows `minimum` of `original`, if any up to 1 does.
pub fn least_ratio(minimum: u64, original: u64) -> Option<f64> {
    let steps = (minimum as f64 / original as f64 * 1e4).ceil();
    let ratio =
        [steps, steps + 1.0].map(|s| s / 1e4).into_iter().find(|r| (original as f64 * r).floor() >= minimum as f64);
    ratio.filter(|ratio| *ratio <= 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Shape, arch};

    #[test]
    fn resnet20_in_steps_of_eight_reaches_the_documented_share_of_its_macs() {
        let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10).unwrap();
        let groups = ChannelGroups::derive(&graph, Protocol::Inner);
        let least = Reachable::new(&graph, groups, &WidthRules::new(8, 0.1)).unwrap().minimum(Cost::Macs);
        let share = least as f64 / 40_551_040.0;
        assert!((share - 0.3055).abs() < 1e-4, "{share}");
        assert_eq!(least_ratio(least, 40_551_040), Some(0.3055));
    }

    #[test]
    fn the_least_ratio_is_enough_and_not_generous() {
        for original in [7, 1000, 40_551_040, 269_722] {
            for minimum in (1..=original).step_by(1 + original as usize / 97) {
                let ratio = least_ratio(minimum, original).unwrap();
                assert!((original as f64 * ratio).floor() as u64 >= minimum);
                assert!((ratio - minimum as f64 / original as f64) < 2.1e-4);
            }
        }
        assert_eq!(least_ratio(8, 7), None);
    }
}
