//! What earlier runs found on tasks like one of now, as a source of what errors cost: by how much a unit of each
//! group's error cost more than its weight had said, and the candidates themselves where groups are the same.
//!
//! Source: a reconstruction of what the abstract of Mu and others (TCAD 2024) calls transfer and augmented transfer, on
//! physical features (layer errors) rather than on ratios.

use super::coefficients::{Prior, ScoredErrors, likely, misfit};
use crate::inheritance::same_depth;
use crate::task_plan::TaskPlan;

/// Walks of a task from which on nothing of a source counts any more.
const WALKS_MAX: usize = 100;
/// Candidates of a task's own as which those of all its sources together count at first.
const CANDIDATES_MAX: f64 = 4.0;
/// A source is judged by how it explains the task's own candidates, once there are so many.
pub(super) const JUDGED_MIN: usize = 4;
/// A source that explains them to this mean squared relative error is right enough.
const MISFIT_MIN: f64 = 4e-4;
/// Costs are at most by so much more, or less, than weights had said.
const CORRECTION_MAX: f64 = 30.0;
/// A walk of at least this share of the task's budget was one for about this budget.
const BUDGET_SHARE_MIN: f64 = 0.95;

/// A channel group of an earlier task.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceGroup {
    /// Its name.
    pub name: String,
    /// Channels of the original.
    pub n_channels: usize,
    /// Widths whose errors are known, ascending.
    pub widths: Vec<usize>,
    /// Their errors, which do not rise with the width.
    pub errors: Vec<f64>,
    /// What one unit of its error was said to count.
    pub weight: f64,
}

/// A candidate of an earlier task.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceWalk {
    /// Of every group.
    pub widths: Vec<usize>,
    /// What it was paid, in [0, 1].
    pub reward: f64,
}

/// A task of an earlier run, and what its candidates say of errors.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceTask {
    share: f64,
    groups: Vec<(String, usize)>,
    /// By how much a unit of each group's error cost more than its weight had said; their geometric mean is 1.
    corrections: Vec<f64>,
    /// Empty where its candidates are none of another task.
    walks: Vec<SourceWalk>,
    scored: Vec<ScoredErrors>,
}

impl SourceTask {
    /// Learns from a task's candidates, of which those whose widths fit the groups count. `share` says how much the
    /// source counts among all; with `relabels` its candidates are also those of a task with the same groups, whatever
    /// its budget. None where the candidates say nothing.
    pub fn learned(share: f64, groups: &[SourceGroup], walks: &[SourceWalk], relabels: bool) -> Option<Self> {
        let error = |group: &SourceGroup, width: usize| {
            let level = group.widths.partition_point(|&known| known < width);
            group.errors.get(level).copied().unwrap_or(0.0)
        };
        let fitting = |walk: &&SourceWalk| {
            walk.widths.len() == groups.len() && walk.widths.iter().zip(groups).all(|(&w, g)| w <= g.n_channels)
        };
        let walks: Vec<SourceWalk> = walks.iter().filter(fitting).cloned().collect();
        let scored = |walk: &SourceWalk| {
            let errors = groups.iter().zip(&walk.widths).map(|(group, &width)| error(group, width)).collect();
            ScoredErrors::new(errors, walk.reward)
        };
        let scored: Vec<ScoredErrors> = walks.iter().map(scored).collect();
        let weights: Vec<f64> = groups.iter().map(|group| group.weight).collect();
        let prior = Prior { weights: &weights, spread: 0.7 };
        let costs = likely(&scored, &prior)?.costs_of_weights(&prior);
        let logs = costs.iter().map(|cost| libm::log(cost.clamp(CORRECTION_MAX.recip(), CORRECTION_MAX)));
        let logs: Vec<f64> = logs.collect();
        let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
        let corrections = logs.iter().map(|log| libm::exp(log - mean)).collect();
        let (walks, scored) = if relabels { (walks, scored) } else { (Vec::new(), Vec::new()) };
        let groups = groups.iter().map(|group| (group.name.clone(), group.n_channels)).collect();
        Some(Self { share, groups, corrections, walks, scored })
    }

    /// The weights of a task's groups, corrected by those at the same depth then.
    fn corrected(&self, weights: &[f64]) -> Vec<f64> {
        let then = |place: usize| self.corrections[same_depth(place, weights.len(), self.corrections.len())];
        weights.iter().enumerate().map(|(place, weight)| weight * then(place)).collect()
    }

    /// Whether its groups are those of a task, so that its candidates are, too.
    fn is_of(&self, task: &TaskPlan) -> bool {
        let groups = task.widths.groups.iter().map(|group| (&*group.name, group.n_channels));
        groups.eq(self.groups.iter().map(|(name, n)| (&**name, *n)))
    }
}

/// What a task begins with, and candidates beside its own.
pub(super) struct Start {
    /// What one unit of each group's error counts.
    pub(super) weights: Vec<f64>,
    /// Candidates of sources, as many as they count.
    pub(super) scored: Vec<ScoredErrors>,
}

/// What the sources of a task say once `own` of its candidates were scored. A source that explains these worse than the
/// task's own weights do counts nothing; one that does not counts less with every candidate.
pub(super) fn start(task: &TaskPlan, own: &[ScoredErrors]) -> Start {
    let left = 1.0 - own.len() as f64 / WALKS_MAX as f64;
    let allowed = misfit(own, &task.weights).max(MISFIT_MIN);
    let is_trusted =
        |source: &&SourceTask| own.len() < JUDGED_MIN || misfit(own, &source.corrected(&task.weights)) <= allowed;
    let trusted: Vec<&SourceTask> = task.sources.iter().filter(|_| left > 0.0).filter(is_trusted).collect();
    let shares = trusted.iter().map(|source| source.share).sum::<f64>();
    let mut weights = task.weights.clone();
    let mut scored = Vec::new();
    for source in trusted {
        let power = left * source.share / shares;
        let corrected = source.corrected(&task.weights);
        for ((weight, corrected), plain) in weights.iter_mut().zip(corrected).zip(&task.weights) {
            if *plain > 0.0 {
                *weight *= libm::pow(corrected / plain, power);
            }
        }
        if source.is_of(task) {
            let count = (power * CANDIDATES_MAX / source.scored.len().max(1) as f64).min(1.0);
            scored.extend(source.scored.iter().map(|candidate| candidate.counting(count)));
        }
    }
    Start { weights, scored }
}

/// The best candidate of a source that was one for about this budget.
pub(super) fn best_known(task: &TaskPlan) -> Option<Vec<usize>> {
    let of_task = task.sources.iter().filter(|source| source.is_of(task)).flat_map(|source| &source.walks);
    let fitting = of_task.filter(|walk| {
        task.widths.fits(&walk.widths) && task.cost_share(&walk.widths) >= BUDGET_SHARE_MIN * task.budget_share
    });
    let best = fitting.max_by(|a, b| a.reward.total_cmp(&b.reward))?;
    let groups = task.widths.groups.iter().zip(&best.widths);
    groups.clone().all(|(group, width)| group.allowed.binary_search(width).is_ok()).then(|| best.widths.clone())
}

#[cfg(test)]
mod tests {
    use super::super::ValueOfErrorSettings;
    use super::*;
    use crate::agents::plan_search::tests::best_of_search;
    use crate::rng::RngStream;
    use crate::task_plan::hand_made;

    const COSTS: &[usize] = &[1, 2, 3, 2, 1, 4];
    const TRUTH: [f64; 6] = [0.2, 1.0, 3.0, 9.0, 0.5, 1.0];

    fn task(max: usize) -> TaskPlan {
        hand_made::curved(&[10, 12, 8, 9, 11, 7], COSTS, max)
    }

    /// What widths earn where errors cost this.
    fn earns(plan: &TaskPlan, truth: &[f64], widths: &[usize]) -> f32 {
        let loss: f64 = truth.iter().enumerate().map(|(i, cost)| cost * plan.error(i, widths[i])).sum();
        libm::exp(-0.2 * loss) as f32
    }

    fn groups_of(plan: &TaskPlan) -> Vec<SourceGroup> {
        let groups = plan.widths.groups.iter().zip(&plan.errors).zip(&plan.weights);
        groups
            .map(|((group, errors), &weight)| SourceGroup {
                name: group.name.clone(),
                n_channels: group.n_channels,
                widths: group.allowed.clone(),
                errors: errors.clone(),
                weight,
            })
            .collect()
    }

    /// Random candidates of a task where errors cost this, as a source.
    fn source(plan: &TaskPlan, truth: &[f64], relabels: bool) -> SourceTask {
        let mut rng = RngStream::new(11, 0, 0, 0);
        let mut random = || {
            let weights: Vec<f64> = truth.iter().map(|_| libm::exp(rng.normal())).collect();
            let widths = plan.allocate(&weights).unwrap();
            SourceWalk { reward: earns(plan, truth, &widths).into(), widths }
        };
        let walks: Vec<SourceWalk> = (0..40).map(|_| random()).collect();
        SourceTask::learned(1.0, &groups_of(plan), &walks, relabels).unwrap()
    }

    fn helped_by(task: &TaskPlan, source: SourceTask) -> TaskPlan {
        let mut helped = task.clone();
        helped.sources = vec![source].into();
        helped
    }

    /// How near the best of so many walks comes to the best that there is.
    fn reached_of(plan: &TaskPlan, truth: &[f64], n_walks: u64) -> f32 {
        let found = best_of_search(&ValueOfErrorSettings::default(), plan, n_walks, |w| earns(plan, truth, w));
        earns(plan, truth, &found.widths) / earns(plan, truth, &plan.allocate(truth).unwrap())
    }

    fn reached(plan: &TaskPlan, n_walks: u64) -> f32 {
        reached_of(plan, &TRUTH, n_walks)
    }

    #[test]
    fn what_errors_cost_under_one_budget_is_known_under_another() {
        let (then, now) = (task(90), task(60));
        for relabels in [false, true] {
            let helped = helped_by(&now, source(&then, &TRUTH, relabels));
            assert!(reached(&helped, 4) > 0.998, "{}", reached(&helped, 4));
        }
        assert!(reached(&now, 4) < 0.99, "{}", reached(&now, 4));
    }

    /// A network of twice the depth, each group costing what the one at half its depth did.
    #[test]
    fn what_errors_cost_is_carried_to_another_network_by_depth() {
        let then = task(90);
        let mut source = source(&then, &TRUTH, true);
        source.groups.clear();
        let now = task(60);
        assert!(!source.is_of(&now));
        let corrected = source.corrected(&[2.0; 11]);
        assert_eq!(corrected[0], 2.0 * source.corrections[0]);
        assert_eq!((corrected[6], corrected[10]), (2.0 * source.corrections[3], 2.0 * source.corrections[5]));
        assert!(corrected[6] > 4.0 * corrected[0], "{corrected:?}");
        let helped = helped_by(&now, source);
        assert!(reached(&helped, 4) > 0.998);
        assert_eq!(best_known(&helped), None);
    }

    /// Costs that are the opposite of the true ones.
    #[test]
    fn a_source_that_misleads_is_seen_through_and_costs_no_more_than_its_walks() {
        let now = task(60);
        let opposite = TRUTH.map(|cost| 2.0 / cost);
        for relabels in [false, true] {
            let misled = helped_by(&now, source(&task(90), &opposite, relabels));
            let own: Vec<ScoredErrors> =
                [[10, 3, 2, 2, 8, 3], [5, 5, 4, 4, 5, 2], [2, 6, 3, 7, 2, 2], [7, 2, 6, 3, 2, 3]]
                    .iter()
                    .map(|widths| {
                        let errors = widths.iter().enumerate().map(|(i, &w)| now.error(i, w)).collect();
                        ScoredErrors::new(errors, earns(&now, &TRUTH, widths).into())
                    })
                    .collect();
            let before = start(&misled, &own[..3]);
            assert!(before.weights != now.weights && before.scored.is_empty() != relabels);
            let after = start(&misled, &own);
            assert!(after.weights == now.weights && after.scored.is_empty());
        }
        // On average over tasks: one search may be lucky.
        let rotated = |by: usize| {
            let mut truth = TRUTH;
            truth.rotate_left(by);
            truth
        };
        let mean = |misleads: bool, n_walks: u64| {
            let one = |by: usize| {
                let truth = rotated(by);
                let opposite = truth.map(|cost| 2.0 / cost);
                let task = match misleads {
                    true => helped_by(&now, source(&task(90), &opposite, true)),
                    false => now.clone(),
                };
                reached_of(&task, &truth, n_walks)
            };
            (0..6).map(one).sum::<f32>() / 6.0
        };
        // Two generations of four walks behind.
        let (misled, alone) = (mean(true, 24), mean(false, 16));
        assert!(misled > alone - 2e-3, "{misled} {alone}");
    }

    #[test]
    fn the_best_candidate_for_the_same_budget_is_walked_again_and_others_are_not() {
        let now = task(60);
        let known = |max: usize| {
            let then = task(max);
            let walk = SourceWalk { widths: then.allocate(&TRUTH).unwrap(), reward: 0.9 };
            let worse = SourceWalk { widths: then.knapsack.clone(), reward: 0.2 };
            let source = SourceTask::learned(1.0, &groups_of(&then), &[worse, walk], true).unwrap();
            best_known(&helped_by(&now, source))
        };
        assert_eq!(known(60), Some(now.allocate(&TRUTH).unwrap()));
        assert_eq!((known(90), known(30)), (None, None));
    }

    #[test]
    fn candidates_that_say_nothing_or_are_none_of_the_groups_make_no_source() {
        let plan = task(60);
        let groups = groups_of(&plan);
        let walk = |widths: &[usize], reward| SourceWalk { widths: widths.to_vec(), reward };
        for walks in [vec![], vec![walk(&[1, 2], 0.5)], vec![walk(&[99; 6], 0.5)], vec![walk(&[5; 6], 1.0)]] {
            assert!(SourceTask::learned(1.0, &groups, &walks, true).is_none(), "{walks:?}");
        }
        // Whatever is odd beside that, costs stay finite.
        let odd = [walk(&[1; 6], 0.0), walk(&[10, 12, 8, 9, 11, 7], 1.0), walk(&[3; 6], f64::NAN)];
        if let Some(source) = SourceTask::learned(1.0, &groups, &odd, true) {
            assert!(source.corrections.iter().all(|c| c.is_finite() && *c > 0.0), "{source:?}");
        }
    }

    #[test]
    fn nothing_of_a_source_is_left_after_its_walks() {
        let now = task(60);
        let helped = helped_by(&now, source(&task(90), &TRUTH, true));
        let one = |truth: &[f64]| {
            let errors = (0..6).map(|i| now.error(i, now.knapsack[i])).collect();
            ScoredErrors::new(errors, earns(&now, truth, &now.knapsack).into())
        };
        let own = vec![one(&TRUTH); WALKS_MAX];
        let count = |n: usize| start(&helped, &own[..n]).scored.iter().map(|s| s.count).sum::<f64>();
        assert!((count(0) - CANDIDATES_MAX).abs() < 1e-9 && (count(50) - 0.5 * CANDIDATES_MAX).abs() < 1e-9);
        assert_eq!(count(WALKS_MAX), 0.0);
        assert_eq!(start(&helped, &own).weights, now.weights);
    }
}
