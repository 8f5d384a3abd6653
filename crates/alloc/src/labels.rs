//! Dynamic programming over pairs (costs, error): of every state those that no other dominates and that the relaxation
//! leaves a chance.

use std::collections::BTreeMap;

use crate::instance::{AXES, Choice, Costs, sum};
use crate::relaxation::{Decisions, Relaxation, next, saturating_sum, worth};

/// Partial allocations held at a time; beyond, less is asked for.
const LABELS_MAX: usize = 1 << 21;
/// The same for two bounds, which few labels dominate each other in.
const LABELS_OF_TWO_MAX: usize = 1 << 18;
/// What may be given away of the best error, tried in order until the labels are few enough.
const TOLERANCES: [f64; 5] = [0.0, 1e-5, 1e-4, 5e-4, 5e-3];
/// A gain that is smaller than this share may be rounding.
const ROUNDING: f64 = 1e-12;

/// A partial allocation.
#[derive(Clone, Copy, Debug)]
struct Label {
    state: u32,
    cost: Costs,
    error: f64,
    /// Its place among the labels of the step before.
    parent: u32,
    level: u32,
}

/// The best choice, given one (`known`) that is within the bound, and the largest number known not to exceed the
/// error of any.
pub(crate) fn best(decisions: Decisions<'_>, relaxation: &Relaxation, known: Choice) -> (Choice, f64) {
    let known_error = decisions.instance.error(&known);
    let least_rest = decisions.least_rest();
    for tolerance in TOLERANCES {
        let target = known_error * (1.0 - tolerance - ROUNDING);
        if relaxation.lower_bound >= target {
            return (known, relaxation.lower_bound.min(known_error));
        }
        let Some(labels) = labels(decisions, relaxation, &least_rest, target) else { continue };
        return match trace(decisions, &labels) {
            // All that could be better was looked at.
            Some(choice) => {
                let error = decisions.instance.error(&choice);
                if error < known_error { (choice, error) } else { (known, known_error) }
            }
            None => (known, known_error * (1.0 - tolerance)),
        };
    }
    (known, relaxation.lower_bound)
}

/// The labels behind every step with a chance to end below `target`; none when they are too many.
fn labels(
    decisions: Decisions<'_>,
    relaxation: &Relaxation,
    least_rest: &[Vec<Costs>],
    target: f64,
) -> Option<Vec<Vec<Label>>> {
    let (instance, prices) = (decisions.instance, relaxation.prices);
    let is_single = instance.limits.len() < AXES;
    let labels_max = if is_single { LABELS_MAX } else { LABELS_OF_TWO_MAX };
    let allowance = worth(prices, instance.max());
    let start = Label { state: 0, cost: instance.each(|form| form.constant), error: 0.0, parent: 0, level: 0 };
    let mut all = vec![vec![start]];
    for (at, step) in decisions.order.steps.iter().enumerate() {
        let (rest, least) = (&relaxation.rest[at + 1], &least_rest[at + 1]);
        let mut found: Vec<Label> = Vec::new();
        for (parent, label) in all[at].iter().enumerate() {
            let terms = step.states[label.state as usize];
            for level in 0..terms.n_levels as usize {
                let state = next(step, terms, level);
                let cost = sum(label.cost, decisions.cost(step, terms, level));
                if !instance.fits(saturating_sum(cost, least[state])) {
                    break;
                }
                let error = label.error + instance.levels[step.place][level].error;
                if error + worth(prices, cost) + rest[state] - allowance < target {
                    found.push(Label { state: state as u32, cost, error, parent: parent as u32, level: level as u32 });
                }
            }
            if found.len() > labels_max {
                drop_dominated(&mut found, is_single);
                if found.len() > labels_max / 2 {
                    return None;
                }
            }
        }
        drop_dominated(&mut found, is_single);
        all.push(found);
    }
    Some(all)
}

/// Keeps, of every state, the labels with less error than all that are no dearer.
fn drop_dominated(labels: &mut Vec<Label>, is_single: bool) {
    let by_state_and_cost = |a: &Label, b: &Label| {
        (a.state, a.cost).cmp(&(b.state, b.cost)).then(a.error.total_cmp(&b.error)).then(a.parent.cmp(&b.parent))
    };
    labels.sort_unstable_by(by_state_and_cost);
    if !is_single {
        return drop_dominated_of_two(labels);
    }
    let mut least = (u32::MAX, f64::INFINITY);
    labels.retain(|label| {
        let stays = label.state != least.0 || label.error < least.1;
        if stays {
            least = (label.state, label.error);
        }
        stays
    });
}

/// The same for two costs, of sorted labels.
fn drop_dominated_of_two(labels: &mut Vec<Label>) {
    let mut state = u32::MAX;
    // Of the labels before: by second cost, the least error; errors fall along the map.
    let mut least: BTreeMap<u64, f64> = BTreeMap::new();
    labels.retain(|label| {
        if label.state != state {
            state = label.state;
            least.clear();
        }
        let second = label.cost[1];
        if least.range(..=second).next_back().is_some_and(|(_, &error)| error <= label.error) {
            return false;
        }
        let worse = |least: &BTreeMap<u64, f64>| {
            least.range(second..).next().filter(|(_, error)| **error >= label.error).map(|(&cost, _)| cost)
        };
        while let Some(cost) = worse(&least) {
            least.remove(&cost);
        }
        least.insert(second, label.error);
        true
    });
}

/// The choice of the best label behind the last step.
fn trace(decisions: Decisions<'_>, labels: &[Vec<Label>]) -> Option<Choice> {
    let mut choice = vec![0; decisions.order.steps.len()];
    let mut label = *labels[labels.len() - 1].iter().min_by(|a, b| a.error.total_cmp(&b.error))?;
    for (at, step) in decisions.order.steps.iter().enumerate().rev() {
        choice[step.place] = label.level as usize;
        label = labels[at][label.parent as usize];
    }
    Some(choice)
}
