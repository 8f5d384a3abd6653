//! What an agent observes of its group, and what the mixer knows of all.

use super::super::mtacp::ObserveRule;
use super::super::mtacp::errors::{error_features, n_features};
use super::team::{Team, TeamFrame};
use crate::task_plan::TaskPlan;

/// Numbers of a group's shape, and the budget.
const N_FIXED: usize = 9;
/// Width, last action, iteration and cost.
const N_MOVING: usize = 4;
/// Logarithms to base 2 of channels, and of pixels, are divided by this: fixed, so that a layer looks the same in every
/// network.
const LOG2_SCALE: f64 = 12.0;
const KERNEL_SCALE: f64 = 7.0;
const STRIDE_SCALE: f64 = 4.0;

/// Numbers that an agent observes.
pub(super) const fn n_observed(rule: ObserveRule) -> usize {
    N_FIXED + n_features(rule) + N_MOVING
}

/// Numbers of the joint state.
pub(super) const fn n_state(n_observed: usize, n_agents: usize, n_tasks: usize) -> usize {
    n_observed * n_agents + 3 + if n_tasks > 1 { n_tasks } else { 0 }
}

/// What does not change of the observation of the agent at `place`.
pub(super) fn fixed(rule: ObserveRule, plan: &TaskPlan, place: usize) -> Vec<f32> {
    let log = |n: usize| libm::log2(n.max(1) as f64) / LOG2_SCALE;
    let look = plan.looks.get(place).copied().unwrap_or_default();
    let n_groups = plan.n_groups() as f64;
    let numbers: [f64; N_FIXED] = [
        (place + 1) as f64 / n_groups,
        n_groups / 64.0,
        log(plan.widths.groups[place].n_channels),
        log(look.n_outputs),
        log(look.rows * look.columns),
        look.kernel as f64 / KERNEL_SCALE,
        look.stride as f64 / STRIDE_SCALE,
        look.macs_share,
        plan.budget_share,
    ];
    let errors = (rule == ObserveRule::Errors).then(|| error_features(plan, place));
    numbers.iter().map(|&number| number as f32).chain(errors.into_iter().flatten()).collect()
}

/// Where an episode stands before an iteration.
#[derive(Clone, Debug)]
pub(super) struct TeamStage {
    pub(super) task: u32,
    pub(super) iteration: usize,
    pub(super) widths: Vec<usize>,
    /// Of the iteration before; empty at the first.
    pub(super) last_actions: Vec<u8>,
    pub(super) cost_share: f32,
}

impl TeamStage {
    /// The whole network.
    pub(super) fn first(team: &Team, task: u32) -> Self {
        Self { task, iteration: 0, widths: team.whole(), last_actions: Vec::new(), cost_share: 1.0 }
    }

    /// Behind a joint action.
    pub(super) fn after(&self, team: &Team, actions: &[u8]) -> Self {
        let widths = team.after(&self.widths, actions);
        let cost_share = team.plan.cost_share(&widths) as f32;
        Self { task: self.task, iteration: self.iteration + 1, widths, last_actions: actions.to_vec(), cost_share }
    }
}

/// What the networks read of one stage, and which actions are available; agents that the task does not have are zeros.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `[N, I]`: observation, which agent, last action.
    pub(super) inputs: Vec<f32>,
    /// `[N, A]`: what the prior says of each action, before its factor.
    pub(super) saved: Vec<f32>,
    /// `[N, A]`.
    pub(super) available: Vec<bool>,
    /// `[S]`.
    pub(super) state: Vec<f32>,
}

/// What is seen at a stage.
pub(super) fn seen(frame: &TeamFrame, team: &Team, stage: &TeamStage) -> Seen {
    let (n_agents, n_actions) = (frame.shape.n_agents, frame.shape.n_actions);
    let n_observed = n_observed(frame.settings.observe);
    let is_last = frame.is_last(stage.iteration);
    let now = stage.iteration as f32 / frame.settings.iterations as f32;
    let mut seen = Seen {
        inputs: Vec::with_capacity(n_agents * frame.shape.n_inputs),
        saved: vec![0.0; n_agents * n_actions],
        available: vec![false; n_agents * n_actions],
        state: Vec::with_capacity(frame.shape.n_state),
    };
    for place in 0..team.n_agents() {
        let (choices, width) = (&team.choices[place], stage.widths[place]);
        let last = stage.last_actions.get(place).copied();
        let share = width as f32 / team.plan.widths.groups[place].n_channels as f32;
        let last_number = last.map_or(0.0, |action| f32::from(action) / (n_actions - 1) as f32);
        let from = seen.inputs.len();
        seen.inputs.extend(&team.fixed[place]);
        seen.inputs.extend([share, last_number, now, stage.cost_share]);
        seen.state.extend_from_slice(&seen.inputs[from..]);
        seen.inputs.extend((0..n_agents).map(|agent| if agent == place { 1.0 } else { 0.0 }));
        let is_last_action = |action: usize| last.is_some_and(|last| usize::from(last) == action);
        seen.inputs.extend((0..n_actions).map(|action| if is_last_action(action) { 1.0 } else { 0.0 }));
        for action in 0..n_actions {
            let index = place * n_actions + action;
            seen.available[index] = choices.is_available(width, action, is_last);
            if frame.shape.has_prior {
                let saved = team.error_saved(place, choices.after(width, action));
                seen.saved[index] = frame.settings.prior as f32 * saved;
            }
        }
    }
    seen.inputs.resize(n_agents * frame.shape.n_inputs, 0.0);
    seen.state.resize(n_observed * n_agents, 0.0);
    seen.state.extend([stage.cost_share, team.plan.budget_share as f32, now]);
    let n_tasks = frame.environment.n_tasks;
    if n_tasks > 1 {
        seen.state.extend((0..n_tasks).map(|task| if task == stage.task as usize { 1.0 } else { 0.0 }));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_plan::hand_made;

    #[test]
    fn a_layer_looks_the_same_whatever_else_the_network_has() {
        let plan = |channels: &[usize]| {
            let mut plan = hand_made::curved(channels, &[1, 1], 16);
            plan.budget_share = 0.5;
            plan
        };
        let (one, other) =
            (fixed(ObserveRule::Shapes, &plan(&[8, 16]), 0), fixed(ObserveRule::Shapes, &plan(&[8, 64]), 0));
        assert_eq!(one, other);
        assert_eq!((one.len(), one[2], one[0]), (N_FIXED, 0.25, 0.5));
        let with_errors = fixed(ObserveRule::Errors, &plan(&[8, 16]), 1);
        assert_eq!(with_errors[N_FIXED..], error_features(&plan(&[8, 16]), 1));
    }
}
