//! What a plan says.

use secateur_net::{Cost, Network};
use secateur_rl::ErrorWeights;
use secateur_sim::Score;
use serde::{Deserialize, Serialize};

use super::allocate::PlannedWidths;
use super::planner::Planner;
use crate::inputs::budgets::{ResolvedBudget, Whole};
use crate::inputs::reachable::full_costs;
use crate::scene::Scene;
use crate::summary::{BoundSummary, BudgetSummary};

/// Plans for every task of a scene. Accuracies are fractions; only keys that end in `_s` may differ between equal
/// plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The scene file.
    pub scene: String,
    /// How the errors of groups were weighed.
    pub weights: String,
    /// Images that the expected accuracies are measured on.
    pub reward_images: usize,
    /// One for each task, in their order.
    pub tasks: Vec<PlannedTask>,
}

/// A plan for one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Name of the task.
    pub name: String,
    /// Name of the network.
    pub network: String,
    /// Name of the data set.
    pub dataset: String,
    /// What the network must not exceed.
    pub budget: BudgetSummary,
    /// Where several bounds hold at once, all of them; else absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<BoundSummary>,
    /// What the planned network costs, in the unit of `budget`.
    pub cost: u64,
    /// What the network as given costs, in that unit.
    pub original: u64,
    /// Multiply-accumulates per image of the planned network.
    pub macs: u64,
    /// Parameters of the planned network.
    pub params: u64,
    /// Peak bytes of live f32 activations of one image of the planned network.
    pub activation_bytes: u64,
    /// Relative squared error of the consumers, summed over the groups.
    pub predicted_error: f64,
    /// By how much of itself the weighted sum could be less at most; 0 is an optimum, null is not known.
    pub gap: Option<f64>,
    /// Top-1 on the reward images, after the refit that walks get: what to expect before the final refit.
    pub expected_accuracy: Option<f64>,
    /// Standard error of that.
    pub standard_error: Option<f64>,
    /// Top-1 of the network as given on the same images.
    pub original_accuracy: Option<f64>,
    /// Candidates that were scored for the plan, those of single groups included.
    pub candidates_scored: usize,
    /// Whether the budget allows the network with all its channels.
    pub unchanged: bool,
    /// Seconds that the allocation took.
    pub allocate_s: f64,
    /// The prunable channel groups.
    pub groups: Vec<PlannedGroup>,
}

/// A channel group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedGroup {
    /// Name of the group.
    pub name: String,
    /// Channels of the original.
    pub channels: usize,
    /// Channels that are kept.
    pub kept: usize,
    /// Relative squared error of its consumers.
    pub error: f64,
}

/// A task of a scene, its budget and its network as given.
pub(super) struct TaskOf<'a> {
    pub(super) scene: &'a Scene,
    pub(super) task: usize,
    pub(super) budget: &'a ResolvedBudget,
    pub(super) original: &'a Network,
}

impl PlanReport {
    pub(super) fn new(scene: &Scene, weights: ErrorWeights) -> Self {
        Self {
            scene: scene.origin().to_owned(),
            weights: weights.name().to_owned(),
            reward_images: scene.images.reward,
            tasks: Vec::new(),
        }
    }

    /// Adds a task; `planned` is none where nothing needs to be pruned.
    pub(super) fn add(&mut self, of: &TaskOf<'_>, planner: &Planner<'_>, planned: Option<&(PlannedWidths, Score)>) {
        let TaskOf { scene, task, budget, original } = *of;
        let full = planner.groups.full_widths();
        let widths = planned.map_or(&full, |(planned, _)| &planned.widths);
        let costs = [Cost::Macs, Cost::Params, Cost::ActivationBytes];
        let [macs, params, activation_bytes] = match budget.whole() {
            Some(Whole::AsGiven) => full_costs(original, costs),
            Some(Whole::Folded) | None => costs.map(|cost| planner.model.count(cost, widths)),
        };
        let cost = |cost: Cost| match cost {
            Cost::Macs => macs,
            Cost::Params => params,
            Cost::ActivationBytes => activation_bytes,
        };
        let score = planned.map(|&(_, score)| score).or_else(|| planner.original());
        let accuracy = score.and_then(|score| score.accuracy);
        let n = scene.images.reward.max(1) as f64;
        let ranked = planner.ranked();
        let group = |place: usize, id: usize| PlannedGroup {
            name: planner.groups.group(id).name.clone(),
            channels: full[id],
            kept: widths[id],
            error: ranked.error(place, widths[id]),
        };
        self.tasks.push(PlannedTask {
            name: scene.tasks[task].name.clone(),
            network: planner.names[0].clone(),
            dataset: planner.names[1].clone(),
            budget: BudgetSummary::of(budget),
            bounds: BoundSummary::of_several(budget, cost),
            cost: cost(budget.first().cost),
            original: budget.first().original,
            macs,
            params,
            activation_bytes,
            predicted_error: planned.map_or(0.0, |(planned, _)| planned.error),
            gap: match planned {
                Some((planned, _)) => gap(planned),
                None => Some(0.0),
            },
            expected_accuracy: accuracy,
            standard_error: accuracy.map(|p| (p * (1.0 - p) / n).sqrt()),
            original_accuracy: planner.original().and_then(|score| score.accuracy),
            candidates_scored: if planned.is_some() { 1 + planner.n_probes } else { 0 },
            unchanged: planned.is_none(),
            allocate_s: planned.map_or(0.0, |(planned, _)| planned.allocate_s),
            groups: planner.groups.prunable().iter().enumerate().map(|(place, &id)| group(place, id)).collect(),
        });
    }
}

/// What is not proven of an allocation, as a share of its error.
fn gap(planned: &PlannedWidths) -> Option<f64> {
    let bound = planned.allocation.lower_bound?;
    Some(((planned.allocation.error - bound) / planned.allocation.error.max(f64::MIN_POSITIVE)).max(0.0))
}
