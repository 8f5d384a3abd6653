//! What policy and learner share and never change: the tasks' agents and the sizes of everything.

use super::actions::AgentChoices;
use super::features;
use super::net::TeamShape;
use super::settings::{BudgetRule, QmixFpSettings, TeamActions, ValueMixing};
use crate::agent::EnvironmentSpec;
use crate::error::RlError;
use crate::task_plan::{TaskPlan, TaskPlans};

/// The agents of one task, one for each group of it.
pub(super) struct Team {
    pub(super) plan: TaskPlan,
    pub(super) choices: Vec<AgentChoices>,
    /// What does not change of each agent's observation.
    pub(super) fixed: Vec<Vec<f32>>,
    /// The knapsack's summed error, weighted; never 0.
    knapsack_loss: f64,
}

impl Team {
    pub(super) fn new(settings: &QmixFpSettings, plan: &TaskPlan) -> Self {
        let n = plan.n_groups();
        let loss: f64 = (0..n).map(|place| plan.weights[place] * plan.error(place, plan.knapsack[place])).sum();
        Self {
            choices: (0..n).map(|place| AgentChoices::new(&settings.actions, plan, place)).collect(),
            fixed: (0..n).map(|place| features::fixed(settings.observe, plan, place)).collect(),
            knapsack_loss: if loss > 0.0 { loss } else { 1.0 },
            plan: plan.clone(),
        }
    }

    pub(super) fn n_agents(&self) -> usize {
        self.choices.len()
    }

    /// Widths before the first iteration.
    pub(super) fn whole(&self) -> Vec<usize> {
        self.plan.widths.groups.iter().map(|group| group.n_channels).collect()
    }

    /// Widths behind a joint action.
    pub(super) fn after(&self, widths: &[usize], actions: &[u8]) -> Vec<usize> {
        let of = |place: usize| self.choices[place].after(widths[place], usize::from(actions[place]));
        (0..self.n_agents()).map(of).collect()
    }

    /// Widens groups as long as the budget allows a next width, each time the one whose weighted error falls most: what
    /// levels leave of the budget. Without, most walks would be told apart by what the environment then evens out.
    pub(super) fn spend(&self, widths: &mut [usize]) {
        let next = |place: usize, width: usize| {
            let allowed = &self.plan.widths.groups[place].allowed;
            allowed.get(allowed.partition_point(|&allowed| allowed <= width)).copied()
        };
        loop {
            let mut best: Option<(f32, usize, usize)> = None;
            for place in 0..self.n_agents() {
                let Some(wider) = next(place, widths[place]) else { continue };
                let gain = self.error_saved(place, wider) - self.error_saved(place, widths[place]);
                let now = std::mem::replace(&mut widths[place], wider);
                if self.plan.widths.fits(widths) && best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, place, wider));
                }
                widths[place] = now;
            }
            let Some((_, place, wider)) = best else { return };
            widths[place] = wider;
        }
    }

    /// How much less error than the knapsack's width an action leaves, as a share of the knapsack's whole error.
    pub(super) fn error_saved(&self, place: usize, width: usize) -> f32 {
        let error = |width: usize| self.plan.weights[place] * self.plan.error(place, width);
        ((error(self.plan.knapsack[place]) - error(width)) / self.knapsack_loss) as f32
    }
}

/// What policy and learner share and never change.
pub(super) struct TeamFrame {
    pub(super) settings: QmixFpSettings,
    /// By task; none as long as there is only to be found out whether the agent can be built.
    pub(super) teams: Vec<Team>,
    pub(super) shape: TeamShape,
    pub(super) environment: EnvironmentSpec,
}

impl TeamFrame {
    pub(super) fn new(settings: QmixFpSettings, environment: &EnvironmentSpec, plans: Option<&TaskPlans>) -> Self {
        let n_agents = environment.walk_length_max;
        let n_actions = settings.n_actions();
        let n_observed = features::n_observed(settings.observe);
        let shape = TeamShape {
            n_agents,
            n_actions,
            n_inputs: n_observed + n_agents + n_actions,
            n_units: settings.units,
            n_gru: settings.gru_units,
            n_state: features::n_state(n_observed, n_agents, environment.n_tasks),
            n_mixer: settings.mixer_units,
            n_hyper: settings.hyper_units,
            mixes: settings.mixing == ValueMixing::Qmix,
            has_prior: settings.prior > 0.0,
        };
        let plans = plans.map_or(&[][..], TaskPlans::all);
        let teams = plans.iter().map(|plan| Team::new(&settings, plan)).collect();
        Self { settings, teams, shape, environment: *environment }
    }

    /// The team of a task.
    pub(super) fn team(&self, op: &'static str, task: u32) -> Result<&Team, RlError> {
        self.teams.get(task as usize).ok_or_else(|| RlError::OutOfRange {
            op,
            what: "task".to_owned(),
            expected: format!("one of {} with a plan", self.teams.len()),
            got: task.to_string(),
        })
    }

    /// Whether the joint action of an iteration must be within the budget: a level stands for a width that may be the
    /// last, what is removed is only whole at the end.
    pub(super) fn keeps_budget(&self, iteration: usize) -> bool {
        let is_last = self.is_last(iteration);
        self.settings.budget == BudgetRule::Knapsack
            && (is_last || matches!(self.settings.actions, TeamActions::Levels(_)))
    }

    pub(super) fn is_last(&self, iteration: usize) -> bool {
        iteration + 1 == self.settings.iterations
    }
}
