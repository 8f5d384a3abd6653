//! Searches the coefficients of the knapsack: how much each group's error counts (SPDY; Frantar and Alistarh 2022).
//! First they are drawn at random, then some of the best plan's are drawn anew, ever fewer of them.
//!
//! Departs: coefficients are factors on measured weights, drawn evenly on a logarithmic scale (published: evenly from
//! [0, 1]); the knapsack is exact.

use serde::{Deserialize, Serialize};

use super::plan_search::{BestPlan, PlanRule, PlanSearch, below};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::rng::RngStream;
use crate::setting::{BadSetting, RangeCheck};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::{TaskPlan, TaskPlans};

/// Settings of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpdySettings {
    /// How the errors of groups are weighed before the coefficients.
    pub weights: ErrorWeights,
    /// Largest coefficient; the smallest is one divided by it.
    pub spread: f32,
    /// Share of the walks whose coefficients are all drawn at random.
    pub random_share: f32,
    /// Share of the coefficients that are drawn anew at first, afterwards ever fewer, down to one.
    pub redrawn_share: f32,
    /// Walks without a better plan after which one coefficient less is drawn anew.
    pub patience: usize,
}

impl Default for SpdySettings {
    fn default() -> Self {
        Self { weights: ErrorWeights::default(), spread: 8.0, random_share: 0.2, redrawn_share: 0.1, patience: 20 }
    }
}

impl AgentSettings for SpdySettings {
    fn check(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        ranges.number("spread", self.spread, 1.0..=1e6);
        ranges.number("random_share", self.random_share, 0.0..=1.0);
        ranges.number("redrawn_share", self.redrawn_share, 0.0..=1.0);
        ranges.count("patience", self.patience, 1..=1_000_000);
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

impl SpdySettings {
    fn search(&self, environment: &EnvironmentSpec, plans: Option<&TaskPlans>) -> Agent {
        let walks = PlanSearch::<Coefficients>::walks_per_task(environment);
        let n_random = (f64::from(self.random_share) * walks as f64) as u64;
        PlanSearch::agent(environment, plans, |n_groups| Coefficients {
            spread: libm::log(f64::from(self.spread)),
            patience: self.patience as u64,
            n_random,
            n_groups,
            n_redrawn: ((f64::from(self.redrawn_share) * n_groups as f64).round() as u64).max(1),
            n_scored: 0,
            n_idle: 0,
            best: BestPlan::default(),
        })
    }
}

impl AgentKind for SpdySettings {
    const ENTRY: AgentEntry = AgentEntry::searching(
        "Spdy",
        "spdy",
        "searches how much each group's error counts; the knapsack makes widths of it",
    );
}

/// Genes are logarithms of coefficients.
#[derive(Clone)]
struct Coefficients {
    spread: f64,
    patience: u64,
    n_random: u64,
    n_groups: usize,
    /// Coefficients of the best plan that are drawn anew.
    n_redrawn: u64,
    n_scored: u64,
    /// Walks since the last better plan, or since fewer are drawn anew.
    n_idle: u64,
    best: BestPlan,
}

impl PlanRule for Coefficients {
    fn propose(&self, task: &TaskPlan, walk: u64, rng: &mut RngStream) -> Vec<f32> {
        let n = task.n_groups();
        let draw = |rng: &mut RngStream| (self.spread * (2.0 * rng.uniform() - 1.0)) as f32;
        if walk == 0 {
            return vec![0.0; n];
        }
        if walk <= self.n_random || self.best.genes.is_empty() {
            return (0..n).map(|_| draw(rng)).collect();
        }
        let mut genes = self.best.genes.clone();
        let mut places: Vec<usize> = (0..n).collect();
        for _ in 0..self.n_redrawn.min(n as u64) {
            let place = places.swap_remove(below(rng, places.len()));
            genes[place] = draw(rng);
        }
        genes
    }

    fn widths(&self, task: &TaskPlan, genes: &[f32]) -> Result<Vec<usize>, RlError> {
        let weighted = task.weights.iter().zip(genes).map(|(weight, &gene)| weight * libm::exp(f64::from(gene)));
        task.allocate(&weighted.collect::<Vec<f64>>())
    }

    fn learn(&mut self, genes: &[f32], reward: f32) {
        self.n_scored += 1;
        let is_better = self.best.offer(genes, reward);
        if is_better || self.n_scored <= self.n_random {
            self.n_idle = 0;
            return;
        }
        self.n_idle += 1;
        if self.n_idle >= self.patience && self.n_redrawn > 1 {
            self.n_redrawn -= 1;
            self.n_idle = 0;
        }
    }

    fn best_reward(&self) -> Option<f32> {
        self.best.reward()
    }

    fn save(&self, prefix: &str, writer: &mut StateWriter) {
        self.best.save(prefix, writer);
        writer.put_u64(format!("{prefix}.counts"), &[self.n_redrawn, self.n_scored, self.n_idle]);
    }

    fn load(&mut self, prefix: &str, reader: &StateReader<'_>) -> Result<(), RlError> {
        let best = BestPlan::load(prefix, self.n_groups, reader)?;
        let name = format!("{prefix}.counts");
        let [n_redrawn, n_scored, n_idle] = reader.u64(&name)?[..] else {
            return Err(RlError::State { what: format!("{name}: expected three numbers") });
        };
        *self = Self { n_redrawn, n_scored, n_idle, best, ..self.clone() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan_search::tests::{best_of_search, check_search};
    use super::*;
    use crate::task_plan::hand_made;

    /// What a plan earns is its error with the third group's counted five times: coefficients can say just that.
    #[test]
    fn it_finds_the_weights_that_rewards_are_made_of() {
        let plan = hand_made::curved(&[12, 12, 12], &[1, 2, 3], 40);
        let wanted = plan.allocate(&[1.0, 1.0, 5.0]).unwrap();
        let errors = plan.clone();
        let best = best_of_search(&SpdySettings::default(), &plan, 100, move |widths| {
            let error = |i: usize| [1.0, 1.0, 5.0][i] * errors.error(i, widths[i]);
            -(0..3).map(error).sum::<f64>() as f32
        });
        assert_eq!(best.first, plan.knapsack);
        assert_ne!(best.first, wanted);
        assert_eq!(best.widths, wanted);
        check_search(&SpdySettings::default(), &plan);
    }

    #[test]
    fn ever_fewer_coefficients_are_drawn_anew() {
        let mut rule = Coefficients {
            spread: 2.0,
            patience: 2,
            n_random: 1,
            n_groups: 5,
            n_redrawn: 3,
            n_scored: 0,
            n_idle: 0,
            best: BestPlan::default(),
        };
        let plan = hand_made::curved(&[4; 5], &[1; 5], 12);
        rule.learn(&[0.0; 5], 1.0);
        let n_new = |rule: &Coefficients| {
            let genes = rule.propose(&plan, 9, &mut RngStream::new(1, 0, 9, 0));
            genes.iter().filter(|&&gene| gene != 0.0).count()
        };
        let mut seen = vec![n_new(&rule)];
        for _ in 0..6 {
            rule.learn(&[1.0; 5], 0.5);
            seen.push(n_new(&rule));
        }
        assert_eq!(seen, [3, 3, 2, 2, 1, 1, 1]);
    }
}
