//! One threshold for the norms of all channels of the network: what channel pruning by magnitude did first.

use serde::{Deserialize, Serialize};

use super::planned::Planned;
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::task_plan::{TaskPlan, TaskPlans};

/// What makes the norms of different groups comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Normalisation {
    /// Divided by the mean of their group.
    #[default]
    Mean,
    /// The square, divided by the sum of those of its group that are not smaller (LAMP; Lee, Park, Mo, Ahn and Shin
    /// 2021, for channels).
    Lamp,
}

/// Settings of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GlobalNormSettings {
    /// What makes the norms of different groups comparable.
    pub normalisation: Normalisation,
}

impl AgentSettings for GlobalNormSettings {
    fn build(&self, _environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Planned::unknown())
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(ErrorWeights::Equal)
    }

    fn build_planned(&self, _environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(Planned::agent(plans, |plan| widths(plan, self.normalisation)))
    }
}

impl AgentKind for GlobalNormSettings {
    const ENTRY: AgentEntry = AgentEntry::single(
        "GlobalNorm",
        "global_norm",
        "as many channels of each group as have a norm above one threshold for all: one candidate",
    );
}

/// The norms of a group, normalised, ascending.
fn scores(norms: &[f64], normalisation: Normalisation) -> Vec<f64> {
    let mut norms = norms.to_vec();
    norms.sort_unstable_by(f64::total_cmp);
    let mean = norms.iter().sum::<f64>() / norms.len().max(1) as f64;
    let mut rest: f64 = norms.iter().map(|norm| norm * norm).sum();
    let score = |norm: f64| match normalisation {
        Normalisation::Mean => norm / mean.max(f64::MIN_POSITIVE),
        Normalisation::Lamp => {
            let share = norm * norm / rest.max(f64::MIN_POSITIVE);
            rest -= norm * norm;
            share.min(1.0)
        }
    };
    norms.into_iter().map(score).collect()
}

/// The lowest threshold that fits.
fn widths(plan: &TaskPlan, normalisation: Normalisation) -> Vec<usize> {
    let of_groups: Vec<Vec<f64>> = plan.norms.iter().map(|norms| scores(norms, normalisation)).collect();
    let mut thresholds: Vec<f64> = of_groups.iter().flatten().copied().collect();
    thresholds.sort_unstable_by(f64::total_cmp);
    thresholds.dedup();
    let above = |threshold: f64| -> Vec<usize> {
        let width = |(group, scores): (&crate::task_plan::GroupWidths, &Vec<f64>)| {
            let n_kept = scores.iter().filter(|&&score| score >= threshold).count();
            group.nearest(n_kept as f64)
        };
        plan.widths.groups.iter().zip(&of_groups).map(width).collect()
    };
    match thresholds.len().checked_sub(1) {
        Some(last) => plan.widths.first_that_fits(last, |place| above(thresholds[place])),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::planned::widths_of;
    use super::*;
    use crate::task_plan::hand_made;

    /// Divided by their means, 2 and 10: 0.5, 1, 1.5 and 0.2, 0.7, 2.1.
    #[test]
    fn one_threshold_for_all_groups_is_lowered_until_it_fits() {
        let errors = vec![vec![0.0; 3]; 2];
        let widths = |max, normalisation| {
            let mut plan = hand_made::plan(hand_made::widths(&[3, 3], &[1, 1], max), errors.clone(), vec![1.0; 2]);
            plan.norms = vec![vec![3.0, 1.0, 2.0], vec![21.0, 7.0, 2.0]];
            widths_of(&GlobalNormSettings { normalisation }, &plan)
        };
        let by_mean = [6, 5, 4, 3, 2].map(|max| widths(max, Normalisation::Mean));
        assert_eq!(by_mean, [[3, 3], [3, 2], [2, 2], [2, 1], [1, 1]]);
        // 1/14, 4/13, 1 and 4/494, 49/490, 1.
        let by_lamp = [6, 5, 4, 3, 2].map(|max| widths(max, Normalisation::Lamp));
        assert_eq!(by_lamp, [[3, 3], [3, 2], [2, 2], [2, 1], [1, 1]]);
        assert_eq!(scores(&[3.0, 1.0, 2.0], Normalisation::Lamp), [1.0 / 14.0, 4.0 / 13.0, 1.0]);
        assert_eq!(scores(&[0.0, 0.0], Normalisation::Lamp), [0.0, 0.0]);
    }
}
