//! Swaps around the best plan so far: one group gives width, another takes as much as the budget then allows
//! (EvoPress; Sieberling, Kuznedelev, Kurtic and Alistarh 2025). Elitist: a child replaces its parent if it is better.
//!
//! Departs: starts at the knapsack's widths instead of even ones, and scores every child on all reward images; the
//! published search races its children on growing numbers of samples.

use serde::{Deserialize, Serialize};

use super::plan_search::{BestPlan, PlanRule, PlanSearch, swapped};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::rng::RngStream;
use crate::setting::{BadSetting, RangeCheck};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::{TaskPlan, TaskPlans};

/// Settings of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwapEvolutionSettings {
    /// How the errors of groups are weighed for the widths that are started from.
    pub weights: ErrorWeights,
    /// Most swaps of one child; how many it has is the smaller of two dice of so many sides.
    pub swaps: usize,
}

impl Default for SwapEvolutionSettings {
    fn default() -> Self {
        Self { weights: ErrorWeights::default(), swaps: 3 }
    }
}

impl AgentSettings for SwapEvolutionSettings {
    fn check(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        ranges.count("swaps", self.swaps, 1..=100);
        ranges.finish()
    }

    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(self.search(environment, None))
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(self.weights)
    }

    fn build_planned(&self, environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(self.search(environment, Some(plans)))
    }
}

impl SwapEvolutionSettings {
    fn search(&self, environment: &EnvironmentSpec, plans: Option<&TaskPlans>) -> Agent {
        PlanSearch::agent(environment, plans, |n_groups| Swaps {
            most: self.swaps,
            n_groups,
            best: BestPlan::default(),
        })
    }
}

impl AgentKind for SwapEvolutionSettings {
    const ENTRY: AgentEntry = AgentEntry::searching(
        "SwapEvolution",
        "swap_evolution",
        "swaps width between groups, around the best plan so far, from the knapsack's on",
    );
}

/// Genes are widths.
#[derive(Clone)]
struct Swaps {
    most: usize,
    n_groups: usize,
    best: BestPlan,
}

impl PlanRule for Swaps {
    fn propose(&self, task: &TaskPlan, walk: u64, rng: &mut RngStream) -> Vec<f32> {
        let mut widths = match self.best.genes.is_empty() {
            true => task.knapsack.clone(),
            false => self.best.genes.iter().map(|&gene| gene as usize).collect(),
        };
        if walk > 0 {
            swapped(task, &mut widths, self.most, rng);
        }
        widths.iter().map(|&width| width as f32).collect()
    }

    fn widths(&self, _task: &TaskPlan, genes: &[f32]) -> Result<Vec<usize>, RlError> {
        Ok(genes.iter().map(|&gene| gene as usize).collect())
    }

    fn learn(&mut self, genes: &[f32], reward: f32) {
        self.best.offer(genes, reward);
    }

    fn best_reward(&self) -> Option<f32> {
        self.best.reward()
    }

    fn save(&self, prefix: &str, writer: &mut StateWriter) {
        self.best.save(prefix, writer);
    }

    fn load(&mut self, prefix: &str, reader: &StateReader<'_>) -> Result<(), RlError> {
        self.best = BestPlan::load(prefix, self.n_groups, reader)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan_search::tests::{best_of_search, check_search};
    use super::*;
    use crate::task_plan::hand_made;

    /// Channels cost 1, 2 and 4 of at most 70: swaps must find their way from the knapsack's widths to those that earn
    /// most, which are others.
    #[test]
    fn it_climbs_from_the_knapsack_to_the_best_plan_and_never_leaves_the_budget() {
        let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
        let best = best_of_search(&SwapEvolutionSettings::default(), &plan, 120, |widths| {
            -[6.0, 14.0, 9.0].iter().zip(widths).map(|(best, &w)| (w as f32 - best).powi(2)).sum::<f32>()
        });
        assert_eq!(best.first, plan.knapsack);
        assert_eq!(best.widths, [6, 14, 9]);
        check_search(&SwapEvolutionSettings::default(), &plan);
    }
}
