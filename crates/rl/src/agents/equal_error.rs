//! The same error for every group: the smallest that the budget allows (ALDS; Liebenwein, Maalouf, Feldman and Rus 2021,
//! without its low ranks).

use serde::{Deserialize, Serialize};

use super::planned::Planned;
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::task_plan::{TaskPlan, TaskPlans};

/// Settings of the agent: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EqualErrorSettings {}

impl AgentSettings for EqualErrorSettings {
    fn build(&self, _environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Planned::unknown())
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(ErrorWeights::Equal)
    }

    fn build_planned(&self, _environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(Planned::agent(plans, widths))
    }
}

impl AgentKind for EqualErrorSettings {
    const ENTRY: AgentEntry = AgentEntry::single(
        "EqualError",
        "equal_error",
        "the narrowest widths whose layer errors are all at most the same, the least that fits: one candidate",
    );
}

/// The least width of every group at which it loses at most `error`.
fn within(plan: &TaskPlan, error: f64) -> Vec<usize> {
    let least = |(group, errors): (&crate::task_plan::GroupWidths, &Vec<f64>)| {
        let level = errors.iter().position(|&e| e <= error).unwrap_or(errors.len() - 1);
        group.allowed[level]
    };
    plan.widths.groups.iter().zip(&plan.errors).map(least).collect()
}

/// Only errors that some width makes are worth trying: found by bisection over them.
fn widths(plan: &TaskPlan) -> Vec<usize> {
    let mut levels: Vec<f64> = plan.errors.iter().flatten().copied().collect();
    levels.sort_unstable_by(f64::total_cmp);
    levels.dedup();
    match levels.len().checked_sub(1) {
        Some(last) => plan.widths.first_that_fits(last, |level| within(plan, levels[level])),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::planned::widths_of;
    use super::EqualErrorSettings;
    use crate::task_plan::hand_made;

    /// At an error of 0.3, (3, 2) cost 3 + 2 * 2 = 7; at 0.4, (2, 2) cost 6; at 0.5, (2, 1) cost 4.
    #[test]
    fn it_keeps_the_least_widths_of_the_least_common_error_that_fits() {
        let errors = vec![vec![0.9, 0.4, 0.3, 0.0], vec![0.5, 0.2, 0.1]];
        let widths = |max| {
            let plan = hand_made::plan(hand_made::widths(&[4, 3], &[1, 2], max), errors.clone(), vec![1.0; 2]);
            widths_of(&EqualErrorSettings {}, &plan)
        };
        assert_eq!([7, 6, 5, 4, 3].map(widths), [[3, 2], [2, 2], [2, 1], [2, 1], [1, 1]]);
        assert_eq!(widths(100), [4, 3], "no error at all fits");
    }
}
