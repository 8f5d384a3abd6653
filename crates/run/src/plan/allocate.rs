//! From removal paths and a bound to widths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use secateur_alloc::{AllocError, Allocation, Allocator, GroupCurve};
use secateur_kernels::{LinearMap, RemovalPath};
use secateur_net::{ChannelGroups, Cost, CostModel, Graph, GroupId};
use secateur_sim::{BudgetWall, CostBound, WidthBounds};

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
}

/// Widths for a bound.
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

    /// Widths that the group at `place` may have in a scene.
    pub(crate) fn bounds(&self, scene: &Scene, place: usize) -> WidthBounds {
        WidthBounds::new(self.n_channels(place), scene.channel_multiple, scene.keep_ratio_min)
    }

    /// The widths of least weighted error for each of the bounds.
    ///
    /// # Errors
    /// Errors that are not finite, a bound that cannot be reached.
    pub(crate) fn allocate(
        &self,
        scene: &Scene,
        weights: &[Sensitivity],
        bounds: &[CostBound],
    ) -> anyhow::Result<Vec<PlannedWidths>> {
        let curve = |place: usize, group: GroupId| {
            let widths = self.bounds(scene, place).widths().to_vec();
            let errors = widths.iter().map(|&width| weights[place].loss(self.error(place, width))).collect();
            GroupCurve { group, widths, errors }
        };
        let curves: Vec<GroupCurve> =
            self.groups.prunable().iter().enumerate().map(|(place, &group)| curve(place, group)).collect();
        let mut allocators: BTreeMap<Cost, Allocator> = BTreeMap::new();
        let mut out = Vec::with_capacity(bounds.len());
        for &bound in bounds {
            let start = Instant::now();
            if let std::collections::btree_map::Entry::Vacant(unknown) = allocators.entry(bound.cost) {
                unknown.insert(Allocator::new(self.groups, self.model, &curves, bound.cost)?);
            }
            let allocation = allocators[&bound.cost].within(bound.max)?;
            let widths = self.spend(scene, &allocation, bound)?;
            let order = self.groups.prunable();
            let error = order.iter().enumerate().map(|(place, &group)| self.error(place, widths[group])).sum();
            out.push(PlannedWidths { widths, error, allocation, allocate_s: start.elapsed().as_secs_f64() });
        }
        Ok(out)
    }

    /// What walks do with the budget that they leave: here, widths that cost nothing in error and are free.
    fn spend(&self, scene: &Scene, allocation: &Allocation, bound: CostBound) -> anyhow::Result<Vec<usize>> {
        let mut widths = allocation.widths.clone();
        if scene.spend_leftover {
            let wall =
                BudgetWall::new(self.groups, self.model.clone(), bound, scene.channel_multiple, scene.keep_ratio_min)
                    .map_err(|unreachable| {
                    let (cost, max, minimum) = (bound.cost.name(), bound.max, unreachable.minimum);
                    anyhow!(AllocError::Unreachable { cost, max, minimum })
                })?;
            let of_path = |place: usize, width: usize| self.paths[place].errors[self.n_channels(place) - width];
            wall.spend_leftover(&mut widths, of_path);
        }
        Ok(widths)
    }
}
