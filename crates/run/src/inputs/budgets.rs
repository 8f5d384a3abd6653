//! Budgets of tasks in absolute numbers, and which of them can be met.

use secateur_net::Cost;
use secateur_sim::CostBound;

use super::advice::what_reaches;
use super::load::LoadedNetwork;
use super::reachable::{Reachable, least_ratio};
use super::resolve::{COSTS, Problems};
use crate::scene::{BudgetBound, BudgetSpec, TaskSpec};

/// The budget of one task in absolute numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedBudget {
    /// Bounds that all hold at once, in the order of the scene; at least one, each on another cost.
    pub bounds: Vec<ResolvedBound>,
    /// Whether every group may keep all its channels.
    pub allows_full: bool,
}

/// One bound of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedBound {
    /// What is bounded.
    pub cost: Cost,
    /// The bound; the emitted (folded) network must not exceed it.
    pub max: u64,
    /// Cost of the network as given.
    pub original: u64,
    /// Cost of the network as it is pruned, BatchNorm folded and with a bias wherever a refit may write one, at full
    /// width.
    pub full: u64,
    /// The least that any candidate can cost.
    pub minimum: u64,
}

/// A network that meets a budget without losing a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// The network as given.
    AsGiven,
    /// The network with its BatchNorm folded.
    Folded,
}

impl ResolvedBound {
    /// The bound as a share of the original's cost.
    pub fn ratio(&self) -> f64 {
        self.max as f64 / self.original.max(1) as f64
    }
}

impl ResolvedBudget {
    /// What is to be emitted where nothing needs to be pruned; `None` where something does.
    pub fn whole(&self) -> Option<Whole> {
        if !self.allows_full {
            return None;
        }
        let all = |cost: fn(&ResolvedBound) -> u64| self.bounds.iter().all(|bound| bound.max >= cost(bound));
        match (all(|bound| bound.original), all(|bound| bound.full)) {
            (true, _) => Some(Whole::AsGiven),
            (false, true) => Some(Whole::Folded),
            (false, false) => None,
        }
    }

    /// The bound that stands first.
    pub fn first(&self) -> &ResolvedBound {
        self.bounds.first().expect("a budget without bounds is refused when its scene is read")
    }

    /// What the wall holds.
    pub fn limits(&self) -> Vec<CostBound> {
        self.bounds.iter().map(|bound| CostBound { cost: bound.cost, max: bound.max }).collect()
    }

    /// Kinds and bounds, as certificates are asked for them.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        self.bounds.iter().map(|bound| (bound.cost.name(), bound.max)).collect()
    }

    /// The smallest share of an original cost that is allowed.
    pub fn ratio(&self) -> f64 {
        self.bounds.iter().map(ResolvedBound::ratio).fold(f64::INFINITY, f64::min)
    }
}

/// `originals` are the costs of the network as given, in the order of [`COSTS`].
pub(super) fn resolve_budget(budget: &BudgetSpec, least: &Reachable, originals: &[u64; 3]) -> ResolvedBudget {
    let bounds = budget.bounds.iter().map(|bound| {
        let cost = bound.kind;
        let known = COSTS.iter().zip(originals).find(|(known, _)| **known == cost);
        let original = known.map_or(0, |(_, &original)| original);
        let max = bound.max(original);
        ResolvedBound { cost, max, original, full: least.full(cost), minimum: least.minimum(cost) }
    });
    ResolvedBudget { bounds: bounds.collect(), allows_full: least.allows_full }
}

impl Problems<'_> {
    /// Every bound can be met, and then all of them can: the narrowest network has the least of every cost.
    pub(super) fn check_budget(&mut self, task: &TaskSpec, network: &LoadedNetwork, budget: &ResolvedBudget) {
        if budget.whole().is_some() {
            return;
        }
        for (place, bound) in budget.bounds.iter().enumerate().filter(|(_, bound)| bound.minimum > bound.max) {
            let (scene, ResolvedBound { cost, max, original, minimum, .. }) = (self.scene, *bound);
            let keep = &scene.networks[task.network].keep;
            let share = minimum as f64 / original as f64;
            let message = format!(
                "budget of {max} {} is below the least that network '{}' can reach: {minimum}, {share:.4} of the original \
                 {original} (protocol {:?}, channel_multiple {}, keep_ratio_min {}{})",
                cost.name(),
                network.name,
                scene.protocol,
                scene.channel_multiple,
                scene.keep_ratio_min,
                if keep.is_empty() { "" } else { ", and its `keep`" }
            );
            let (field, at_least) = match scene.budgets[task.budget].bounds[place].bound {
                BudgetBound::Ratio(_) => ("ratio", least_ratio(minimum, original).map(|ratio| ratio.to_string())),
                BudgetBound::Max(_) => ("max", Some(minimum.to_string())),
            };
            let looser = what_reaches(scene, task.network, network.folded.graph(), CostBound { cost, max });
            let help = at_least.map_or(looser.clone(), |value| format!("at least `{field}: {value}`; {looser}"));
            self.add(&format!("{}.{field}", scene.bound_path(task.budget, place)), message, Some(help));
        }
    }
}
