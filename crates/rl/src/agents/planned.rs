//! Keep ratios that are decided before any walk: the policy of agents with one candidate.

use std::sync::Arc;

use crate::agent::Agent;
use crate::error::RlError;
use crate::interface::{ActRequest, Decision, Policy};
use crate::task_plan::{TaskPlan, TaskPlans};

/// Keeps what was decided before.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// `[task][group]`; none as long as there is only to be found out whether the agent can be built.
    keep_ratios: Option<Vec<Vec<f32>>>,
}

impl Planned {
    /// An agent that does not know its tasks yet, and cannot act.
    pub(super) fn unknown() -> Agent {
        Agent::Fixed(Arc::new(Self { keep_ratios: None }))
    }

    /// An agent that keeps these widths of every task's groups.
    pub(super) fn agent(plans: &TaskPlans, widths: impl Fn(&TaskPlan) -> Vec<usize>) -> Agent {
        let ratios = plans.all().iter().map(|plan| plan.widths.keep_ratios(&widths(plan))).collect();
        Agent::Fixed(Arc::new(Self { keep_ratios: Some(ratios) }))
    }

    fn keep_ratio(&self, task: u32, group: u32) -> Option<f32> {
        self.keep_ratios.as_ref()?.get(task as usize)?.get(group as usize).copied()
    }
}

impl Policy for Planned {
    fn version(&self) -> u64 {
        0
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        let decide = |request: &ActRequest| {
            let keep_ratio = self.keep_ratio(request.task, request.layer).ok_or_else(|| RlError::OutOfRange {
                op: "act",
                what: format!("group {} of task {}", request.layer, request.task),
                expected: "one that the plan decides".to_owned(),
                got: "one that it does not".to_owned(),
            })?;
            Ok(Decision { keep_ratio, raw_action: keep_ratio, ..Decision::default() })
        };
        batch.iter().map(decide).collect()
    }
}

/// Widths of the agent of these settings on a hand-made task.
#[cfg(test)]
pub(super) fn widths_of(settings: &dyn crate::agent::AgentSettings, plan: &TaskPlan) -> Vec<usize> {
    let environment = crate::agent::EnvironmentSpec {
        n_features: 1,
        n_tasks: 1,
        n_actors: 1,
        walk_length_max: plan.n_groups(),
        walks_planned: 1,
        keep_ratio_min: 0.01,
        seed: 1,
    };
    let plans = TaskPlans::new(vec![plan.clone()]);
    let agent = crate::agent::build_planned(settings, &environment, Some(&plans)).unwrap();
    let act = |(layer, group): (usize, &crate::task_plan::GroupWidths)| {
        let request = ActRequest { layer: layer as u32, even_ratio: 0.9, explore: true, ..ActRequest::default() };
        let ratio = agent.policy().act(&[request]).unwrap()[0].keep_ratio;
        (ratio * group.n_channels as f32).round() as usize
    };
    plan.widths.groups.iter().enumerate().map(act).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_plan::hand_made;

    #[test]
    fn it_keeps_what_was_planned_and_refuses_what_was_not() {
        let task = |n: &[usize]| {
            let errors = n.iter().map(|&n| (0..n).map(|w| 1.0 - w as f64 / n as f64).collect()).collect();
            hand_made::plan(hand_made::widths(n, &[1, 1], 100), errors, vec![1.0; n.len()])
        };
        let plans = TaskPlans::new(vec![task(&[8, 4]), task(&[2])]);
        let agent = Planned::agent(&plans, |plan| plan.widths.groups.iter().map(|g| g.n_channels / 2).collect());
        let act = |agent: &Agent, task, layer| {
            let request = ActRequest { task, layer, even_ratio: 0.9, explore: true, ..ActRequest::default() };
            agent.policy().act(&[request]).map(|decisions| decisions[0].keep_ratio)
        };
        assert_eq!([(0, 0), (0, 1), (1, 0)].map(|(task, layer)| act(&agent, task, layer).unwrap()), [0.5; 3]);
        for (task, layer) in [(1, 1), (2, 0)] {
            let message = act(&agent, task, layer).unwrap_err().to_string();
            assert!(message.contains(&format!("group {layer} of task {task}")), "{message}");
        }
        assert!(act(&Planned::unknown(), 0, 0).is_err());
    }
}
