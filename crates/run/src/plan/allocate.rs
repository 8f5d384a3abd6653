//! From removal paths and a budget to widths.

use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use secateur_alloc::{Allocation, Allocator, GroupCurve};
use secateur_kernels::{LinearMap, RemovalPath};
use secateur_net::{ChannelGroups, Cost, CostModel, Graph, GroupId};
use secateur_sim::{BudgetWall, CostBound, WidthBounds, WidthRules};

use super::sensitivity::Sensitivity;
use crate::scene::Scene;

/// The groups of a network, and how they lose their channels.
#[derive(Clone, Copy)]
pub(crate) struct Ranked<'a> {
    pub(crate) groups: &'a ChannelGroups,
    pub(crate) model: &'a Arc<CostModel>,
    /// In walk order.
    pub(crate) paths: &'a [Arc<RemovalPath>],
    /// By place in walk order: whether the error of its readers was measured, see [`is_measured`].
    pub(crate) measured: &'a [bool],
    /// Which widths they may take.
    pub(crate) rules: &'a WidthRules,
}

/// Widths for a budget.
#[derive(Clone, Debug)]
pub(crate) struct PlannedWidths {
    /// Of every group.
    pub(crate) widths: Vec<usize>,
    /// Sum of the groups' errors, unweighted.
    pub(crate) error: f64,
    /// What was allocated, errors weighted.
    pub(crate) allocation: Allocation,
    pub(crate) allocate_s: f64,
}

/// Whether something is refitted behind a group: other groups, such as those that only transposed convolutions read,
/// have errors of zero, which mean nothing.
pub(crate) fn is_measured(graph: &Graph, groups: &ChannelGroups, group: GroupId) -> bool {
    groups.group(group).consumers.iter().any(|&node| !LinearMap::of(graph, node).is_empty())
}

impl Ranked<'_> {
    /// The error of the group at `place` of the walk at a width; where none was measured, the share of its channels
    /// that is gone.
    pub(crate) fn error(&self, place: usize, width: usize) -> f64 {
        let n = self.n_channels(place);
        match self.measured[place] {
            true => self.paths[place].errors[n - width],
            false => 1.0 - width as f64 / n as f64,
        }
    }

    fn n_channels(&self, place: usize) -> usize {
        self.groups.group(self.groups.prunable()[place]).n_channels
    }

    /// Widths that the group at `place` may have.
    pub(crate) fn bounds(&self, place: usize) -> WidthBounds {
        let bounds = self.rules.bounds(self.groups.prunable()[place], self.n_channels(place));
        bounds.expect("a scene whose rules leave a group without a width is refused")
    }

    /// The widths of least weighted error for each of the budgets.
    ///
    /// # Errors
    /// Errors that are not finite, a budget that cannot be met.
    pub(crate) fn allocate(
        &self,
        scene: &Scene,
        weights: &[Sensitivity],
        budgets: &[Vec<CostBound>],
    ) -> anyhow::Result<Vec<PlannedWidths>> {
        let curve = |place: usize, group: GroupId| {
            let widths = self.bounds(place).widths().to_vec();
            let errors = widths.iter().map(|&width| weights[place].loss(self.error(place, width))).collect();
            GroupCurve { group, widths, errors }
        };
        let curves: Vec<GroupCurve> =
            self.groups.prunable().iter().enumerate().map(|(place, &group)| curve(place, group)).collect();
        let mut costs: Vec<Cost> = budgets.iter().flatten().map(|bound| bound.cost).collect();
        costs.sort_unstable();
        costs.dedup();
        // What all budgets share counts for the first.
        let mut start = Instant::now();
        let allocator = Allocator::new(self.groups, self.model, &curves, &costs)?;
        let mut out = Vec::with_capacity(budgets.len());
        for budget in budgets {
            let limits: Vec<(Cost, u64)> = budget.iter().map(|bound| (bound.cost, bound.max)).collect();
            let allocation = allocator.within(&limits)?;
            let widths = self.spend(scene, &allocation, budget)?;
            let order = self.groups.prunable();
            let error = order.iter().enumerate().map(|(place, &group)| self.error(place, widths[group])).sum();
            let allocate_s = std::mem::replace(&mut start, Instant::now()).elapsed().as_secs_f64();
            out.push(PlannedWidths { widths, error, allocation, allocate_s });
        }
        Ok(out)
    }

    /// What walks do with the budget that they leave: here, widths that cost nothing in error and are free.
    fn spend(&self, scene: &Scene, allocation: &Allocation, budget: &[CostBound]) -> anyhow::Result<Vec<usize>> {
        let mut widths = allocation.widths.clone();
        if scene.spend_leftover {
            let wall = BudgetWall::new(self.groups, self.model.clone(), self.rules, budget)
                .map_err(|why| anyhow!("allocate: {why}"))?;
            let of_path = |place: usize, width: usize| self.paths[place].errors[self.n_channels(place) - width];
            wall.spend_leftover(&mut widths, of_path);
        }
        Ok(widths)
    }
}
