//! From error curves and bounds to widths.

use std::collections::BTreeMap;

use secateur_net::{ChannelGroups, Cost, CostModel, GroupId};

use crate::costs::CostForm;
use crate::descent::descend;
use crate::error::AllocError;
use crate::instance::{Choice, Instance, Level};
use crate::labels;
use crate::order::{DecisionOrder, Neighbours};
use crate::relaxation::Decisions;

/// Pairs (state, level) of one decision that are looked at together.
const TABLE_MAX: f64 = (1 << 21) as f64;
/// Fewer levels of a group than this say nothing: a search over them is coarser than descent.
const LEVELS_MIN: usize = 6;
/// Refinements of a coarse choice; each at least halves the steps until they are single levels.
const REFINEMENTS_MAX: usize = 24;

/// What a group loses at each width that it may have.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupCurve {
    /// The group; it may be pruned.
    pub group: GroupId,
    /// Allowed widths, ascending; at least one.
    pub widths: Vec<usize>,
    /// Weighted error at each of them: finite, at least 0. An error above that of a narrower width counts as that one.
    pub errors: Vec<f64>,
}

/// Widths within all bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// Width of every group, frozen ones whole.
    pub widths: Vec<usize>,
    /// What they cost, bound by bound.
    pub costs: Vec<u64>,
    /// Sum of the weighted errors.
    pub error: f64,
    /// No widths within the bounds have a smaller sum; none where that is not known.
    pub lower_bound: Option<f64>,
}

/// The groups, costs and error curves of one network, for any number of bounds.
#[derive(Debug)]
pub struct Allocator {
    forms: BTreeMap<Cost, CostForm>,
    order: Vec<GroupId>,
    full: Vec<usize>,
    levels: Vec<Vec<Level>>,
}

impl Allocator {
    /// Prepares the allocation of `costs`; there is one curve for every group that may be pruned, in their order.
    ///
    /// # Errors
    /// [`AllocError::NotFinite`] and [`AllocError::Curve`] for curves that cannot be used.
    pub fn new(
        groups: &ChannelGroups,
        model: &CostModel,
        curves: &[GroupCurve],
        costs: &[Cost],
    ) -> Result<Self, AllocError> {
        let levels = all_levels(groups, curves)?;
        let order = groups.prunable();
        let forms = costs.iter().map(|&cost| (cost, CostForm::new(groups, model, cost))).collect();
        Ok(Self { forms, order, full: groups.full_widths(), levels })
    }

    /// The widths of least error that are within each of `limits`, pairs of a cost that was prepared and the most that
    /// it may be; of several on one cost, the least counts.
    ///
    /// # Errors
    /// [`AllocError::Unreachable`] when the least widths exceed one of them, [`AllocError::Unprepared`].
    pub fn within(&self, limits: &[(Cost, u64)]) -> Result<Allocation, AllocError> {
        self.solve(&self.levels, limits)
    }

    /// The widths of least summed loss that are within each of `limits`, for other losses than the curves': any finite
    /// numbers, whether they rise or fall with the width. Of equal losses of a group the narrowest width. `losses` has
    /// one entry for every group that may be pruned, in their order, and holds losses for errors; errors and bound of
    /// what is returned are sums of losses. Cheaper than a new allocator, whose cost formulas are kept.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Self::within`].
    pub fn least_loss(
        &self,
        groups: &ChannelGroups,
        losses: &[GroupCurve],
        limits: &[(Cost, u64)],
    ) -> Result<Allocation, AllocError> {
        let least = |curve: &GroupCurve| curve.errors.iter().copied().fold(f64::INFINITY, f64::min);
        let shifted = |curve: &GroupCurve| {
            let least = least(curve);
            let errors = curve.errors.iter().map(|loss| loss - least).collect();
            GroupCurve { group: curve.group, widths: curve.widths.clone(), errors }
        };
        let curves: Vec<GroupCurve> = losses.iter().map(shifted).collect();
        let mut found = self.solve(&all_levels(groups, &curves)?, limits)?;
        let shift: f64 = losses.iter().map(least).sum();
        found.lower_bound = found.lower_bound.map(|bound| bound + shift);
        found.error += shift;
        // Levels count a narrower width's smaller loss for the wider ones, too.
        for curve in losses {
            let below =
                curve.widths.iter().zip(&curve.errors).filter(|(width, _)| **width <= found.widths[curve.group]);
            if let Some((&width, _)) = below.min_by(|a, b| a.1.total_cmp(b.1)) {
                found.widths[curve.group] = width;
            }
        }
        let chosen: Vec<u64> = self.order.iter().map(|&group| found.widths[group] as u64).collect();
        found.costs = limits.iter().map(|(cost, _)| self.forms[cost].at(&chosen)).collect();
        Ok(found)
    }

    fn solve(&self, all: &[Vec<Level>], limits: &[(Cost, u64)]) -> Result<Allocation, AllocError> {
        let least: Vec<u64> = all.iter().map(|levels| levels[0].width).collect();
        let mut bounds: BTreeMap<Cost, u64> = BTreeMap::new();
        for &(cost, max) in limits {
            let form = self.forms.get(&cost).ok_or(AllocError::Unprepared { cost: cost.name() })?;
            let minimum = form.at(&least);
            if minimum > max {
                return Err(AllocError::Unreachable { cost: cost.name(), max, minimum });
            }
            bounds.entry(cost).and_modify(|known| *known = max.min(*known)).or_insert(max);
        }
        let bounds: Vec<(&CostForm, u64)> = bounds.iter().map(|(cost, &max)| (&self.forms[cost], max)).collect();
        let instance = Instance::new(&bounds, all.to_vec());
        let (choice, lower_bound) = solve(&instance);
        let chosen = instance.widths(&choice);
        let mut widths = self.full.clone();
        self.order.iter().zip(&chosen).for_each(|(&group, &width)| widths[group] = width as usize);
        let costs = limits.iter().map(|(cost, _)| self.forms[cost].at(&chosen)).collect();
        Ok(Allocation { widths, costs, error: instance.error(&choice), lower_bound })
    }
}

/// Levels of every group that may be pruned, in their order.
fn all_levels(groups: &ChannelGroups, curves: &[GroupCurve]) -> Result<Vec<Vec<Level>>, AllocError> {
    let order = groups.prunable();
    for (place, &group) in order.iter().enumerate() {
        let fault = |what: String| AllocError::Curve { group: groups.group(group).name.clone(), what };
        match curves.get(place) {
            Some(curve) if curve.group == group => check_curve(groups, curve)?,
            _ => return Err(fault(format!("is not at place {place} of the {} curves", curves.len()))),
        }
    }
    Ok(curves.iter().take(order.len()).map(levels).collect())
}

fn check_curve(groups: &ChannelGroups, curve: &GroupCurve) -> Result<(), AllocError> {
    let group = groups.group(curve.group);
    let fault = |what: &str| AllocError::Curve { group: group.name.clone(), what: what.to_owned() };
    if curve.widths.is_empty() || curve.widths.len() != curve.errors.len() {
        return Err(fault("needs one error for each of at least one width"));
    }
    let ascends = curve.widths.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascends || curve.widths[0] == 0 || curve.widths[curve.widths.len() - 1] > group.n_channels {
        return Err(fault(&format!("needs ascending widths from 1 to {}", group.n_channels)));
    }
    let bad = curve.widths.iter().zip(&curve.errors).find(|(_, error)| !error.is_finite() || **error < 0.0);
    bad.map_or(Ok(()), |(&width, &error)| Err(AllocError::NotFinite { group: group.name.clone(), width, error }))
}

/// Errors that do not rise with the width.
fn levels(curve: &GroupCurve) -> Vec<Level> {
    let mut least = f64::INFINITY;
    let mut level = |width: usize, error: f64| {
        least = least.min(error);
        Level { width: width as u64, error: least }
    };
    curve.widths.iter().zip(&curve.errors).map(|(&width, &error)| level(width, error)).collect()
}

/// The best choice, and the largest number known not to exceed the error of any.
fn solve(instance: &Instance<'_>) -> (Choice, Option<f64>) {
    let neighbours = Neighbours::new(instance);
    let n_levels: Vec<usize> = instance.levels.iter().map(Vec::len).collect();
    let most = n_levels.iter().copied().max().unwrap_or(1);
    if neighbours.best_order(&n_levels).1 <= TABLE_MAX {
        let (choice, bound) = solve_in_tables(instance, &neighbours, None);
        return (choice, Some(bound));
    }
    let fits = |&n: &usize| {
        let capped: Vec<usize> = n_levels.iter().map(|&all| all.min(n)).collect();
        neighbours.best_order(&capped).1 <= TABLE_MAX
    };
    match (LEVELS_MIN..most).rev().find(fits) {
        Some(n) => (refine(instance, &neighbours, n), None),
        None => (descend(instance), None),
    }
}

/// Solves an instance whose tables fit; `known` is a choice within the bound.
fn solve_in_tables(instance: &Instance<'_>, neighbours: &Neighbours, known: Option<Choice>) -> (Choice, f64) {
    let n_levels: Vec<usize> = instance.levels.iter().map(Vec::len).collect();
    let (order, _) = neighbours.best_order(&n_levels);
    let order = DecisionOrder::new(instance, neighbours, &order);
    let decisions = Decisions { instance, order: &order };
    let relaxation = decisions.relax();
    let mut choice = relaxation.choice.clone();
    instance.improve(&mut choice);
    let better = known.filter(|known| instance.error(known) < instance.error(&choice));
    labels::best(decisions, &relaxation, better.unwrap_or(choice))
}

/// Solves with at most `n` levels of each group at a time: first spread over all, then ever closer around the choice.
fn refine(instance: &Instance<'_>, neighbours: &Neighbours, n: usize) -> Choice {
    let mut steps: Vec<usize> =
        instance.levels.iter().map(|levels| (levels.len() - 1).div_ceil(n - 1).max(1)).collect();
    let mut best: Choice = vec![0; instance.levels.len()];
    for _ in 0..REFINEMENTS_MAX {
        let kept: Vec<Vec<usize>> =
            (0..best.len()).map(|place| around(best[place], steps[place], instance.levels[place].len(), n)).collect();
        let of = |place: usize, kept: &[usize]| kept.iter().map(|&i| instance.levels[place][i]).collect();
        let coarse = instance.with_levels(kept.iter().enumerate().map(|(place, kept)| of(place, kept)).collect());
        let known = kept.iter().zip(&best).map(|(kept, level)| kept.binary_search(level).unwrap_or(0)).collect();
        let (choice, _) = solve_in_tables(&coarse, neighbours, Some(known));
        let mut found: Choice = choice.iter().zip(&kept).map(|(&level, kept)| kept[level]).collect();
        instance.improve(&mut found);
        let is_fine = steps.iter().all(|&step| step == 1);
        let is_better = instance.error(&found) < instance.error(&best) - 1e-12 * instance.error(&best);
        if is_better {
            best = found;
        } else if is_fine {
            break;
        }
        steps.iter_mut().for_each(|step| *step = step.div_ceil(2));
    }
    best
}

/// At most `n` of `all` levels, ascending: the least, and those around `centre` at a distance of `step`.
fn around(centre: usize, step: usize, all: usize, n: usize) -> Vec<usize> {
    if all <= n {
        return (0..all).collect();
    }
    let half = (n - 1) / 2 * step;
    let last = all - 1;
    let from = centre.saturating_sub(half);
    let shift = (centre - from) % step;
    let mut levels: Vec<usize> = (from + shift..=last).step_by(step).take(n - 1).collect();
    // Near the upper end the window reaches down instead.
    while levels.len() < n - 1 {
        let Some(below) = levels[0].checked_sub(step) else { break };
        levels.insert(0, below);
    }
    if levels[0] != 0 {
        levels.insert(0, 0);
    }
    levels
}
