//! The widths of least summed layer error within the budget: the one candidate that measured errors ask for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights, KeepPlan};
use crate::error::RlError;
use crate::interface::{ActRequest, Decision, Policy};

/// Settings of [`Knapsack`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnapsackSettings {
    /// How the errors of groups are weighed against each other.
    pub weights: ErrorWeights,
}

impl AgentSettings for KnapsackSettings {
    fn build(&self, _environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Agent::Fixed(Arc::new(Knapsack { plan: None })))
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(self.weights)
    }

    fn build_planned(&self, _environment: &EnvironmentSpec, plan: &KeepPlan) -> Result<Agent, RlError> {
        Ok(Agent::Fixed(Arc::new(Knapsack { plan: Some(plan.clone()) })))
    }
}

impl AgentKind for KnapsackSettings {
    const ENTRY: AgentEntry = AgentEntry {
        name: "Knapsack",
        word: "knapsack",
        about: "the widths of least summed layer error within the budget, exactly: one candidate",
        learns: false,
        candidates: None,
    };
}

/// Keeps what a plan says.
#[derive(Clone, Debug)]
pub struct Knapsack {
    /// None as long as there is only to be found out whether the agent can be built.
    plan: Option<KeepPlan>,
}

impl Policy for Knapsack {
    fn version(&self) -> u64 {
        0
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let plan = self.plan.as_ref();
            let keep_ratio = plan.and_then(|plan| plan.keep_ratio(request.task, request.layer)).ok_or_else(|| {
                RlError::OutOfRange {
                    op: "act",
                    what: format!("group {} of task {}", request.layer, request.task),
                    expected: "one that the plan decides".to_owned(),
                    got: "one that it does not".to_owned(),
                }
            })?;
            Ok(Decision { keep_ratio, raw_action: keep_ratio, ..Decision::default() })
        };
        batch.iter().map(decide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::build_planned;

    #[test]
    fn it_keeps_what_was_planned_and_refuses_what_was_not() {
        let environment = EnvironmentSpec {
            n_features: 3,
            n_tasks: 2,
            n_actors: 2,
            walk_length_max: 2,
            walks_planned: 2,
            keep_ratio_min: 0.1,
            seed: 1,
        };
        let plan = KeepPlan::new(vec![vec![0.5, 0.25], vec![1.0]]);
        let agent = build_planned(&KnapsackSettings::default(), &environment, Some(&plan)).unwrap();
        let act = |task, layer| {
            let request = ActRequest { task, layer, even_ratio: 0.9, explore: true, ..ActRequest::default() };
            agent.policy().act(&[request]).map(|decisions| decisions[0].keep_ratio)
        };
        assert_eq!([(0, 0), (0, 1), (1, 0)].map(|(task, layer)| act(task, layer).unwrap()), [0.5, 0.25, 1.0]);
        for (task, layer) in [(1, 1), (2, 0)] {
            let message = act(task, layer).unwrap_err().to_string();
            assert!(message.contains(&format!("group {layer} of task {task}")), "{message}");
        }
        let unplanned = build_planned(&KnapsackSettings::default(), &environment, None).unwrap();
        assert!(unplanned.policy().act(&[ActRequest::default()]).is_err());
    }
}
