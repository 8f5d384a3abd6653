//! Learns what the error of each group costs: the loss of a candidate, the logarithm of one over its reward, is taken
//! for a sum of the groups' errors with coefficients that are not negative. Walks are planned for coefficients that are
//! drawn from what the candidates so far leave possible (Thompson 1933), or swap width around the best plan where
//! most is to be expected: what the sum of errors does not explain is learned by a Gaussian process over widths.
//!
//! Source: our own, after the knapsack over measured errors (SPDY; Frantar and Alistarh 2022), Thompson sampling for
//! linear losses (Agrawal and Goyal 2013), elitist swaps (EvoPress; Sieberling and others 2025), and
//! expected improvement under a Gaussian process with a trend (Jones, Schonlau and Welch 1998).

mod coefficients;
mod residuals;
mod sources;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use self::coefficients::{Prior, ScoredErrors, Trend, draw, likely};
use self::residuals::{Residual, Residuals, expected_improvement};
use self::sources::{JUDGED_MIN, Start, best_known, start};
pub use self::sources::{SourceGroup, SourceTask, SourceWalk};
use super::plan_search::{BestPlan, PlanRule, PlanSearch, finite, swapped};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::rng::RngStream;
use crate::setting::{BadSetting, RangeCheck};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::{TaskPlan, TaskPlans};

/// Candidates that are learned from: the last so many.
const SCORED_MAX: usize = 1024;
/// A loss below this is taken for it: its logarithm must be finite.
const LOSS_MIN: f64 = 1e-6;
/// Walks behind the first that a task's sources decide, if it has any: by what they say that errors most likely cost,
/// and the best that one of them found.
const N_FROM_SOURCES: u64 = 2;
/// Candidates that the Gaussian process is given: its cost grows with their cube.
const TELLING_MAX: usize = 192;

/// Settings of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValueOfErrorSettings {
    /// How the errors of groups are weighed before anything is scored.
    pub weights: ErrorWeights,
    /// How far the coefficients may be from those weights: standard deviation of their logarithms' difference.
    pub spread: f32,
    /// Share of the walks that swap width around the best plan; the others are planned anew.
    pub swap_share: f32,
    /// Most swaps of a walk; how many it has is the smaller of two dice of so many sides.
    pub swaps: usize,
    /// Swapped plans among which one is chosen.
    pub proposals: usize,
    /// How: by the improvement to be expected, what errors do not explain being learned, too; else by the drawn
    /// coefficients alone.
    pub residuals: bool,
}

impl Default for ValueOfErrorSettings {
    fn default() -> Self {
        Self {
            weights: ErrorWeights::default(),
            spread: 0.7,
            swap_share: 0.5,
            swaps: 3,
            proposals: 512,
            residuals: true,
        }
    }
}

impl AgentSettings for ValueOfErrorSettings {
    fn check(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        self.check_ranges("", &mut ranges);
        ranges.finish()
    }

    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(self.search(environment, None))
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        Some(self.weights)
    }

    fn learns_from_history(&self) -> bool {
        true
    }

    fn build_planned(&self, environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(self.search(environment, Some(plans)))
    }
}

impl ValueOfErrorSettings {
    /// `prefix` stands in front of the settings' names.
    pub(super) fn check_ranges(&self, prefix: &str, ranges: &mut RangeCheck) {
        ranges.number(&format!("{prefix}spread"), self.spread, 0.01..=10.0);
        ranges.number(&format!("{prefix}swap_share"), self.swap_share, 0.0..=1.0);
        ranges.count(&format!("{prefix}swaps"), self.swaps, 1..=100);
        ranges.count(&format!("{prefix}proposals"), self.proposals, 1..=10_000);
    }

    fn search(&self, environment: &EnvironmentSpec, plans: Option<&TaskPlans>) -> Agent {
        PlanSearch::agent(environment, plans, |n_groups| ValuedErrors::new(*self, n_groups))
    }
}

impl AgentKind for ValueOfErrorSettings {
    const ENTRY: AgentEntry = AgentEntry::searching(
        "ValueOfError",
        "value_of_error",
        "learns what the error of each group costs, and plans by it; from the knapsack's widths on",
    );
}

/// Whether a walk is one of those that a task's sources decide.
pub(super) fn is_from_sources(task: &TaskPlan, walk: u64) -> bool {
    !task.sources.is_empty() && (1..=N_FROM_SOURCES).contains(&walk)
}

/// Genes are widths.
#[derive(Clone)]
pub(super) struct ValuedErrors {
    settings: ValueOfErrorSettings,
    n_groups: usize,
    /// Of the candidates that were scored, one behind the other.
    widths: Vec<f32>,
    /// What they earned.
    rewards: Vec<f32>,
    best: BestPlan,
}

impl ValuedErrors {
    /// For a task of so many groups, of which nothing is known yet.
    pub(super) fn new(settings: ValueOfErrorSettings, n_groups: usize) -> Self {
        Self { settings, n_groups, widths: Vec::new(), rewards: Vec::new(), best: BestPlan::default() }
    }

    /// What was scored.
    fn scored(&self, task: &TaskPlan) -> Vec<ScoredErrors> {
        (self.widths.chunks_exact(self.n_groups.max(1)).zip(&self.rewards))
            .map(|(widths, &reward)| {
                let errors = widths.iter().enumerate().map(|(place, &width)| task.error(place, width as usize));
                ScoredErrors::new(errors.collect(), reward.into())
            })
            .collect()
    }

    /// What is known of a task before a walk: what was scored, here and by its sources. Until sources can be judged,
    /// only the walks that are theirs to decide follow them.
    fn known(&self, task: &TaskPlan, walk: u64) -> KnownErrors {
        let own = self.scored(task);
        let follows = own.len() >= JUDGED_MIN || is_from_sources(task, walk);
        let plain = || Start { weights: task.weights.clone(), scored: Vec::new() };
        let Start { weights, scored } = if follows { start(task, &own) } else { plain() };
        KnownErrors {
            weights,
            spread: self.settings.spread.into(),
            all: own.iter().cloned().chain(scored).collect(),
            own,
        }
    }

    /// Of some plans around the best one that were not scored, the most promising; the best where there is none.
    fn swap(&self, task: &TaskPlan, known: &KnownErrors, drawn: &[f64], rng: &mut RngStream) -> Vec<usize> {
        let best: Vec<usize> = self.best.genes.iter().map(|&gene| gene as usize).collect();
        let mut propose = || {
            let mut widths = best.clone();
            swapped(task, &mut widths, self.settings.swaps, rng);
            widths
        };
        let mut proposals: Vec<Vec<usize>> = (0..self.settings.proposals).map(|_| propose()).collect();
        // Around a plan of few groups many are the same.
        let mut seen = HashSet::new();
        proposals.retain(|widths| seen.insert(widths.clone()) && !self.is_scored(widths));
        let promised = self.promise(task, known, drawn).of(task, &proposals).into_iter().zip(proposals);
        promised.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(best, |(_, widths)| widths)
    }

    fn is_scored(&self, widths: &[usize]) -> bool {
        let mut known = self.widths.chunks_exact(self.n_groups.max(1));
        known.any(|known| known.iter().zip(widths).all(|(known, &width)| *known as usize == width))
    }

    /// What tells promising widths from others.
    fn promise<'a>(&self, task: &TaskPlan, known: &KnownErrors, drawn: &'a [f64]) -> Promise<'a> {
        let (Some(trend), true) = (likely(&known.all, &known.prior()), self.settings.residuals) else {
            return Promise::LeastLoss(drawn);
        };
        let scored = &known.own;
        let residual = |index: usize| {
            let widths = self.widths[index * self.n_groups..][..self.n_groups].iter();
            let widths: Vec<usize> = widths.map(|&width| width as usize).collect();
            let value = log_loss(scored[index].loss) - log_loss(trend.loss(&scored[index].errors));
            Residual { shares: shares(task, &widths), value }
        };
        let residuals: Vec<Residual> = self.telling().into_iter().map(residual).collect();
        let Some(process) = Residuals::given(&residuals) else { return Promise::LeastLoss(drawn) };
        let best = scored.iter().map(|candidate| candidate.loss).fold(f64::INFINITY, f64::min);
        Promise::Improvement { trend, process: Box::new(process), best: log_loss(best) }
    }

    /// Which candidates the process is given: the best ones and the last ones, ascending.
    fn telling(&self) -> Vec<usize> {
        let n = self.rewards.len();
        let mut by_reward: Vec<usize> = (0..n).collect();
        by_reward.sort_by(|&a, &b| self.rewards[b].total_cmp(&self.rewards[a]).then(a.cmp(&b)));
        by_reward.truncate(TELLING_MAX / 2);
        let mut telling: Vec<usize> = (n.saturating_sub(TELLING_MAX / 2)..n).chain(by_reward).collect();
        telling.sort_unstable();
        telling.dedup();
        telling
    }
}

/// What is known of a task before a walk of it is planned.
struct KnownErrors {
    weights: Vec<f64>,
    spread: f64,
    /// Its own candidates.
    own: Vec<ScoredErrors>,
    /// And those of its sources.
    all: Vec<ScoredErrors>,
}

impl KnownErrors {
    fn prior(&self) -> Prior<'_> {
        Prior { weights: &self.weights, spread: self.spread }
    }

    /// What one unit of each group's error most likely costs.
    fn costs(&self) -> Vec<f64> {
        likely(&self.all, &self.prior()).map_or_else(|| self.weights.clone(), |trend| trend.costs().to_vec())
    }
}

/// What is promising.
enum Promise<'a> {
    /// A small loss by these coefficients.
    LeastLoss(&'a [f64]),
    /// A logarithm of the loss that is to be expected below the best one.
    Improvement { trend: Trend, process: Box<Residuals>, best: f64 },
}

impl Promise<'_> {
    /// How promising some widths are each, the more the better.
    fn of(&self, task: &TaskPlan, proposals: &[Vec<usize>]) -> Vec<f64> {
        let errors = proposals.iter().map(|widths| errors(task, widths));
        match self {
            Self::LeastLoss(drawn) => {
                errors.map(|errors| -errors.iter().zip(*drawn).map(|(error, c)| error * c).sum::<f64>()).collect()
            }
            Self::Improvement { trend, process, best } => {
                let shares: Vec<Vec<f64>> = proposals.iter().map(|widths| shares(task, widths)).collect();
                let residuals = process.at(&shares).into_iter();
                let losses = errors.map(|errors| log_loss(trend.loss(&errors)));
                losses.zip(residuals).map(|(loss, (mean, d))| expected_improvement(*best, loss + mean, d)).collect()
            }
        }
    }
}

fn errors(task: &TaskPlan, widths: &[usize]) -> Vec<f64> {
    widths.iter().enumerate().map(|(place, &width)| task.error(place, width)).collect()
}

fn shares(task: &TaskPlan, widths: &[usize]) -> Vec<f64> {
    let groups = task.widths.groups.iter().zip(widths);
    groups.map(|(group, &width)| width as f64 / group.n_channels as f64).collect()
}

/// Losses are positive and differ by factors.
fn log_loss(loss: f64) -> f64 {
    libm::log(loss.max(LOSS_MIN))
}

impl PlanRule for ValuedErrors {
    fn propose(&self, task: &TaskPlan, walk: u64, rng: &mut RngStream) -> Vec<f32> {
        let genes = |widths: Vec<usize>| widths.into_iter().map(|width| width as f32).collect();
        if walk == 0 {
            return genes(task.knapsack.clone());
        }
        let known = self.known(task, walk);
        // The knapsack's own where coefficients cannot be allocated: its budget can be.
        let allocated = |costs: &[f64]| genes(task.allocate(costs).unwrap_or_else(|_| task.knapsack.clone()));
        let of_sources = match walk {
            1 if !task.sources.is_empty() => Some(allocated(&known.costs())),
            N_FROM_SOURCES => best_known(task).map(genes),
            _ => None,
        };
        if let Some(plan) = of_sources {
            return plan;
        }
        let coefficients = draw(&known.all, &known.prior(), rng);
        let swaps = !self.best.genes.is_empty() && rng.uniform() < f64::from(self.settings.swap_share);
        match swaps {
            true => genes(self.swap(task, &known, &coefficients, rng)),
            false => allocated(&coefficients),
        }
    }

    fn widths(&self, _task: &TaskPlan, genes: &[f32]) -> Result<Vec<usize>, RlError> {
        Ok(genes.iter().map(|&gene| gene as usize).collect())
    }

    fn learn(&mut self, genes: &[f32], reward: f32) {
        self.best.offer(genes, reward);
        self.widths.extend_from_slice(genes);
        self.rewards.push(reward);
        let n_too_many = self.rewards.len().saturating_sub(SCORED_MAX);
        self.rewards.drain(..n_too_many);
        self.widths.drain(..n_too_many * self.n_groups);
    }

    fn best_reward(&self) -> Option<f32> {
        self.best.reward()
    }

    fn save(&self, prefix: &str, writer: &mut StateWriter) {
        self.best.save(prefix, writer);
        writer.put_f32(format!("{prefix}.widths"), &self.widths);
        writer.put_f32(format!("{prefix}.rewards"), &self.rewards);
    }

    fn load(&mut self, prefix: &str, reader: &StateReader<'_>) -> Result<(), RlError> {
        let best = BestPlan::load(prefix, self.n_groups, reader)?;
        let widths = finite(&format!("{prefix}.widths"), reader)?;
        let rewards = finite(&format!("{prefix}.rewards"), reader)?;
        if widths.len() != rewards.len() * self.n_groups {
            let what = format!("{prefix}.widths: expected {} for each of {} rewards", self.n_groups, rewards.len());
            return Err(RlError::State { what });
        }
        *self = Self { widths, rewards, best, ..self.clone() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan_search::tests::{best_of_search, check_search};
    use super::*;
    use crate::task_plan::hand_made;

    /// What a plan earns is its error with the fourth group's counted nine times and the first's not at all.
    #[test]
    fn it_learns_what_errors_cost_from_few_walks() {
        let plan = hand_made::curved(&[12, 12, 12, 12], &[1, 2, 3, 2], 50);
        let truth = [0.0, 1.0, 2.0, 9.0];
        let wanted = plan.allocate(&truth).unwrap();
        let errors = plan.clone();
        let earns = move |widths: &[usize]| {
            let loss: f64 = (0..4).map(|i| truth[i] * errors.error(i, widths[i])).sum();
            libm::exp(-0.2 * loss) as f32
        };
        let settings = ValueOfErrorSettings { swap_share: 0.0, ..ValueOfErrorSettings::default() };
        let best = best_of_search(&settings, &plan, 24, &earns);
        assert_eq!(best.first, plan.knapsack);
        assert!(earns(&best.widths) >= 0.999 * earns(&wanted), "{:?}, wanted {wanted:?}", best.widths);
        assert!(earns(&best.first) < 0.99 * earns(&wanted), "the knapsack must not be the answer already");
    }

    /// The optimum is no knapsack of the errors, whatever their coefficients: swaps must find it.
    #[test]
    fn swaps_find_what_no_coefficients_say() {
        let plan = hand_made::curved(&[16, 16, 16], &[1, 2, 4], 70);
        let best = best_of_search(&ValueOfErrorSettings::default(), &plan, 160, |widths| {
            let away = [6.0, 14.0, 9.0].iter().zip(widths).map(|(best, &w)| (w as f32 - best).powi(2)).sum::<f32>();
            (-0.01 * away).exp()
        });
        assert_eq!(best.widths, [6, 14, 9]);
        check_search(&ValueOfErrorSettings::default(), &plan);
    }

    #[test]
    fn only_the_last_candidates_are_learned_from() {
        let mut rule = ValuedErrors::new(ValueOfErrorSettings::default(), 2);
        (0..SCORED_MAX + 5).for_each(|i| rule.learn(&[i as f32, 1.0], 0.5));
        assert_eq!((rule.rewards.len(), rule.widths.len(), rule.widths[0]), (SCORED_MAX, 2 * SCORED_MAX, 5.0));
    }
}
