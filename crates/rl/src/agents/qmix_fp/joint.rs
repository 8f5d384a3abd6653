//! The joint action of most value.

use super::net::StageMixer;
use super::team::Team;
use crate::error::{RlError, check_finite};
use crate::task_plan::WidthLoss;

/// Knapsacks over the slopes of the mixer, each at the joint action that the one before found.
const ROUNDS: usize = 2;

/// What the joint action is chosen from at one stage.
pub(super) struct Offered<'a> {
    pub(super) team: &'a Team,
    pub(super) widths: &'a [usize],
    /// `[N, A]`, of the task's agents at least.
    pub(super) values: &'a [f32],
    /// `[N, A]`: what each agent may choose from, at least one action each.
    pub(super) allowed: &'a [bool],
    pub(super) n_actions: usize,
}

impl Offered<'_> {
    fn actions(&self, agent: usize) -> impl DoubleEndedIterator<Item = usize> {
        let from = agent * self.n_actions;
        (0..self.n_actions).filter(move |&action| self.allowed[from + action])
    }

    fn value(&self, agent: usize, action: usize) -> f32 {
        self.values[agent * self.n_actions + action]
    }

    /// Each agent's action of most value; of equals the first.
    ///
    /// # Errors
    /// Values that are not finite.
    pub(super) fn greedy(&self) -> Result<Vec<u8>, RlError> {
        let n_agents = self.team.n_agents();
        check_finite("joint action", "values", &self.values[..n_agents * self.n_actions])?;
        let best = |agent: usize| {
            let of = |&action: &usize| self.value(agent, action);
            self.actions(agent).rev().max_by(|a, b| of(a).total_cmp(&of(b))).unwrap_or(0) as u8
        };
        Ok((0..n_agents).map(best).collect())
    }

    /// The joint action of most value within the budget; none where no joint action of those that are allowed is within
    /// it. Without a mixer the team's value is the agents' sum; with one it is taken for linear around the joint action
    /// found so far, first the greedy one.
    ///
    /// # Errors
    /// Values that are not finite.
    pub(super) fn within_budget(&self, mixer: Option<&StageMixer>) -> Result<Option<Vec<u8>>, RlError> {
        let mut actions = self.greedy()?;
        let least: Vec<usize> = (0..actions.len()).map(|agent| self.widths_of(agent)[0].width).collect();
        if !self.team.plan.widths.fits(&least) {
            return Ok(None);
        }
        // What is best for all is not to be weighed against anything.
        if self.team.plan.widths.fits(&self.team.after(self.widths, &actions)) {
            return Ok(Some(actions));
        }
        let Some(mixer) = mixer else {
            return self.knapsack(&vec![1.0; actions.len()]).map(Some);
        };
        for _ in 0..ROUNDS {
            let chosen: Vec<f64> =
                actions.iter().enumerate().map(|(i, &action)| self.value(i, action.into()).into()).collect();
            actions = self.knapsack(&mixer.slopes(&chosen))?;
        }
        Ok(Some(actions))
    }

    /// The joint action of most value: within the budget where it must be and can be, else each agent's own best.
    ///
    /// # Errors
    /// Values that are not finite.
    pub(super) fn best(&self, keeps_budget: bool, mixer: Option<&StageMixer>) -> Result<Vec<u8>, RlError> {
        let within = if keeps_budget { self.within_budget(mixer)? } else { None };
        within.map_or_else(|| self.greedy(), Ok)
    }

    /// Of the widths that an agent can reach, each with the action of most value that leads to it, negated; ascending.
    fn widths_of(&self, agent: usize) -> Vec<WidthLoss> {
        let mut widths: Vec<WidthLoss> = Vec::with_capacity(self.n_actions);
        for action in self.actions(agent) {
            let width = self.team.choices[agent].after(self.widths[agent], action);
            let loss = -f64::from(self.value(agent, action));
            match widths.iter_mut().find(|known| known.width == width) {
                Some(known) => known.loss = known.loss.min(loss),
                None => widths.push(WidthLoss { width, loss }),
            }
        }
        widths.sort_unstable_by_key(|known| known.width);
        widths
    }

    fn knapsack(&self, weights: &[f64]) -> Result<Vec<u8>, RlError> {
        let weigh = |agent: usize| {
            let mut widths = self.widths_of(agent);
            widths.iter_mut().for_each(|offer| offer.loss *= weights[agent]);
            widths
        };
        let offered: Vec<Vec<WidthLoss>> = (0..weights.len()).map(weigh).collect();
        let chosen = self.team.plan.choose(&offered)?;
        let action = |agent: usize| {
            let width = chosen[agent];
            let leads = |&action: &usize| self.team.choices[agent].after(self.widths[agent], action) == width;
            let value = |&action: &usize| self.value(agent, action);
            self.actions(agent).rev().filter(leads).max_by(|a, b| value(a).total_cmp(&value(b))).unwrap_or(0) as u8
        };
        Ok((0..chosen.len()).map(action).collect())
    }
}
