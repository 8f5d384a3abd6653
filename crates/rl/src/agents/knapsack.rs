//! The widths of least summed layer error within the budget: the one candidate that measured errors ask for.

use serde::{Deserialize, Serialize};

use super::planned::Planned;
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::task_plan::TaskPlans;

/// Settings of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnapsackSettings {
    /// How the errors of groups are weighed against each other.
    pub weights: ErrorWeights,
}

impl AgentSettings for KnapsackSettings {
    fn build(&self, _environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Planned::unknown())
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(self.weights)
    }

    fn build_planned(&self, _environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(Planned::agent(plans, |plan| plan.knapsack.clone()))
    }
}

impl AgentKind for KnapsackSettings {
    const ENTRY: AgentEntry = AgentEntry::single(
        "Knapsack",
        "knapsack",
        "the widths of least summed layer error within the budget, exactly: one candidate",
    );
}

#[cfg(test)]
mod tests {
    use super::super::planned::widths_of;
    use super::KnapsackSettings;
    use crate::task_plan::hand_made;

    /// Of what costs at most 5, (1, 2) loses 0.6 and (2, 1) loses 0.9; with the first group's error doubled, 1.2 and 1.0.
    #[test]
    fn it_keeps_the_widths_of_least_weighted_error() {
        let errors = vec![vec![0.6, 0.1], vec![0.8, 0.0]];
        let plan = |weights| hand_made::plan(hand_made::widths(&[2, 2], &[1, 2], 5), errors.clone(), weights);
        assert_eq!(widths_of(&KnapsackSettings::default(), &plan(vec![1.0, 1.0])), [1, 2]);
        assert_eq!(widths_of(&KnapsackSettings::default(), &plan(vec![2.0, 1.0])), [2, 1]);
    }
}
