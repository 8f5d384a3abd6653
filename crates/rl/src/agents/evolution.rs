//! Cross-entropy over offsets of the knapsack's widths (Rubinstein 1999): a normal distribution for every group, moved
//! to the best of each generation. All offsets of a plan are then shifted by the same, so that it just fits the budget.

use serde::{Deserialize, Serialize};

use super::plan_search::{BestPlan, PlanRule, PlanSearch, finite};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::rng::RngStream;
use crate::setting::{BadSetting, RangeCheck};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::{TaskPlan, TaskPlans};

/// Shifts that are tried, and the largest: beyond it every width is the least or the whole.
const SHIFTS: usize = 2048;
const SHIFT_MAX: f64 = 16.0;
/// A share of a group's channels is kept this far from 0 and 1, where its logit is infinite.
const MARGIN: f64 = 0.03;

/// Settings of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvolutionSettings {
    /// How the errors of groups are weighed for the widths that are started from.
    pub weights: ErrorWeights,
    /// Walks of a task between two moves of its distribution.
    pub population: usize,
    /// The best of these that it moves to.
    pub elites: usize,
    /// Standard deviation at first, in logits of the keep ratio.
    pub sigma: f32,
    /// Least standard deviation.
    pub sigma_min: f32,
}

impl Default for EvolutionSettings {
    fn default() -> Self {
        Self { weights: ErrorWeights::default(), population: 20, elites: 5, sigma: 0.4, sigma_min: 0.05 }
    }
}

impl AgentSettings for EvolutionSettings {
    fn check(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        ranges.count("population", self.population, 1..=100_000);
        ranges.count("elites", self.elites, 1..=self.population.max(1));
        ranges.positive("sigma", self.sigma, 100.0);
        ranges.positive("sigma_min", self.sigma_min, 100.0);
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

impl EvolutionSettings {
    fn search(&self, environment: &EnvironmentSpec, plans: Option<&TaskPlans>) -> Agent {
        PlanSearch::agent(environment, plans, |n_groups| Offsets {
            settings: *self,
            mean: vec![0.0; n_groups],
            sigma: vec![self.sigma; n_groups],
            generation: Vec::new(),
            best: BestPlan::default(),
        })
    }
}

impl AgentKind for EvolutionSettings {
    const ENTRY: AgentEntry = AgentEntry::searching(
        "Evolution",
        "evolution",
        "cross-entropy over offsets of the knapsack's widths, shifted to fit the budget",
    );
}

/// Genes are offsets in logits.
#[derive(Clone)]
struct Offsets {
    settings: EvolutionSettings,
    mean: Vec<f32>,
    sigma: Vec<f32>,
    /// Plans since the last move.
    generation: Vec<BestPlan>,
    best: BestPlan,
}

impl PlanRule for Offsets {
    fn propose(&self, task: &TaskPlan, walk: u64, rng: &mut RngStream) -> Vec<f32> {
        if walk == 0 {
            return vec![0.0; task.n_groups()];
        }
        self.mean.iter().zip(&self.sigma).map(|(mean, sigma)| mean + sigma * rng.normal() as f32).collect()
    }

    fn widths(&self, task: &TaskPlan, genes: &[f32]) -> Result<Vec<usize>, RlError> {
        // Without offsets these are the widths that were started from, budget left or not.
        if genes.iter().all(|&gene| gene == 0.0) {
            return Ok(task.knapsack.clone());
        }
        let shifted = |shift: usize| -> Vec<usize> {
            let shift = SHIFT_MAX * (1.0 - 2.0 * shift as f64 / SHIFTS as f64);
            let width = |place: usize| {
                let group = &task.widths.groups[place];
                let n = group.n_channels as f64;
                let kept = (task.knapsack[place] as f64 / n).clamp(MARGIN, 1.0 - MARGIN);
                let logit = libm::log(kept / (1.0 - kept)) + f64::from(genes[place]) + shift;
                group.nearest(n / (1.0 + libm::exp(-logit)))
            };
            (0..task.n_groups()).map(width).collect()
        };
        Ok(task.widths.first_that_fits(SHIFTS, shifted))
    }

    fn learn(&mut self, genes: &[f32], reward: f32) {
        self.best.offer(genes, reward);
        self.generation.push(BestPlan { genes: genes.to_vec(), reward });
        if self.generation.len() < self.settings.population {
            return;
        }
        let mut generation = std::mem::take(&mut self.generation);
        generation.sort_by(|a, b| b.reward.total_cmp(&a.reward));
        generation.truncate(self.settings.elites);
        let n = generation.len() as f32;
        for (place, (mean, sigma)) in self.mean.iter_mut().zip(&mut self.sigma).enumerate() {
            *mean = generation.iter().map(|plan| plan.genes[place]).sum::<f32>() / n;
            let variance = generation.iter().map(|plan| (plan.genes[place] - *mean).powi(2)).sum::<f32>() / n;
            *sigma = variance.sqrt().max(self.settings.sigma_min);
        }
    }

    fn best_reward(&self) -> Option<f32> {
        self.best.reward()
    }

    fn save(&self, prefix: &str, writer: &mut StateWriter) {
        self.best.save(prefix, writer);
        writer.put_f32(format!("{prefix}.mean"), &self.mean);
        writer.put_f32(format!("{prefix}.sigma"), &self.sigma);
        let rewards: Vec<f32> = self.generation.iter().map(|plan| plan.reward).collect();
        writer.put_f32(format!("{prefix}.rewards"), &rewards);
        let genes: Vec<f32> = self.generation.iter().flat_map(|plan| plan.genes.iter().copied()).collect();
        writer.put_f32(format!("{prefix}.genes"), &genes);
    }

    fn load(&mut self, prefix: &str, reader: &StateReader<'_>) -> Result<(), RlError> {
        let n = self.mean.len();
        let best = BestPlan::load(prefix, n, reader)?;
        let [mean, sigma, rewards, genes] =
            ["mean", "sigma", "rewards", "genes"].map(|name| format!("{prefix}.{name}"));
        let (mean, sigma) = (finite(&mean, reader)?, finite(&sigma, reader)?);
        let (rewards, genes) = (finite(&rewards, reader)?, finite(&genes, reader)?);
        let is_whole = [mean.len(), sigma.len()] == [n; 2] && genes.len() == n * rewards.len();
        if !is_whole || rewards.len() >= self.settings.population {
            return Err(RlError::State { what: format!("{prefix}: expected a distribution over {n} groups") });
        }
        let plan = |(i, &reward): (usize, &f32)| BestPlan { genes: genes[i * n..(i + 1) * n].to_vec(), reward };
        let generation = rewards.iter().enumerate().map(plan).collect();
        *self = Self { settings: self.settings, mean, sigma, generation, best };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan_search::tests::{best_of_search, check_search};
    use super::*;
    use crate::task_plan::hand_made;

    #[test]
    fn it_moves_from_the_knapsack_towards_the_best_plan() {
        let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
        let earns = |widths: &[usize]| {
            -[12.0, 13.0, 8.0].iter().zip(widths).map(|(best, &w)| (w as f32 - best).powi(2)).sum::<f32>()
        };
        let best = best_of_search(&EvolutionSettings::default(), &plan, 300, earns);
        assert_eq!(best.first, plan.knapsack);
        assert!(earns(&best.widths) >= -2.0 && earns(&best.first) < -20.0, "{best:?}");
        check_search(&EvolutionSettings::default(), &plan);
    }

    /// Of three plans the two best have means (2, -1) and deviations (1, 0), of which the latter is too small.
    #[test]
    fn a_generation_moves_the_distribution_to_its_elite() {
        let settings = EvolutionSettings { population: 3, elites: 2, ..EvolutionSettings::default() };
        let mut rule = Offsets {
            settings,
            mean: vec![0.0; 2],
            sigma: vec![1.0; 2],
            generation: Vec::new(),
            best: BestPlan::default(),
        };
        for (genes, reward) in [([3.0, -1.0], 0.5), ([9.0, 9.0], 0.1), ([1.0, -1.0], 0.7)] {
            rule.learn(&genes, reward);
        }
        assert_eq!((rule.mean, rule.sigma), (vec![2.0, -1.0], vec![1.0, 0.05]));
        assert_eq!((rule.best.reward, rule.generation.len()), (0.7, 0));
    }
}
