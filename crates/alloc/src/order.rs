//! In which order the groups are decided, and which of those decided before each still depends on.

use crate::costs::CostForm;
use crate::instance::{Costs, Instance};

/// Groups are decided one after the other. Before each there is a *frontier*: groups decided before that share a term
/// with one that is not. A state is a choice of levels for the frontier, as a number in mixed radix.
#[derive(Debug)]
pub(crate) struct DecisionOrder {
    pub(crate) steps: Vec<DecisionStep>,
}

/// The decision of one group.
#[derive(Debug)]
pub(crate) struct DecisionStep {
    pub(crate) place: usize,
    /// Stride of the group's level in the states behind; 0 when it is in no frontier.
    pub(crate) stride: usize,
    /// One for each state before.
    pub(crate) states: Vec<StateTerms>,
}

/// What a state before a decision makes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateTerms {
    /// Costs of one channel: the group's own and what it shares with the frontier.
    pub(crate) per_channel: Costs,
    /// The state behind, for level 0.
    pub(crate) next: u32,
    /// Levels that the sums allow.
    pub(crate) n_levels: u32,
}

/// Which groups share a term or a sum, by place.
pub(crate) struct Neighbours(Vec<Vec<usize>>);

impl Neighbours {
    pub(crate) fn new(instance: &Instance<'_>) -> Self {
        let mut lists: Vec<Vec<usize>> = vec![Vec::new(); instance.levels.len()];
        for limit in &instance.limits {
            for (list, pairs) in lists.iter_mut().zip(&limit.form.pairs) {
                list.extend(pairs.iter().map(|&(other, _)| other));
            }
        }
        for sum in &instance.sums {
            for &(a, _) in &sum.terms {
                lists[a].extend(sum.terms.iter().map(|&(b, _)| b).filter(|&b| b != a));
            }
        }
        lists.iter_mut().for_each(|list| {
            list.sort_unstable();
            list.dedup();
        });
        Self(lists)
    }

    /// Frontiers before each decision of `order`, and the last, empty one.
    fn frontiers(&self, order: &[usize]) -> Vec<Vec<usize>> {
        let mut is_decided = vec![false; order.len()];
        let mut frontiers = vec![Vec::new()];
        for &place in order {
            is_decided[place] = true;
            let mut frontier: Vec<usize> = frontiers[frontiers.len() - 1].clone();
            frontier.push(place);
            frontier.retain(|&decided| self.0[decided].iter().any(|&other| !is_decided[other]));
            frontiers.push(frontier);
        }
        frontiers
    }

    /// Places in the order of the graph, backwards, and in that which keeps the next frontier smallest.
    fn orders(&self, n_levels: &[usize]) -> [Vec<usize>; 3] {
        let n = n_levels.len();
        let mut is_decided = vec![false; n];
        let mut frontier: Vec<usize> = Vec::new();
        let mut smallest = Vec::with_capacity(n);
        for _ in 0..n {
            let table = |place: usize| -> f64 {
                let is_open = |decided: usize| self.0[decided].iter().any(|&o| o != place && !is_decided[o]);
                let size = |decided: usize| if is_open(decided) { n_levels[decided] as f64 } else { 1.0 };
                frontier.iter().map(|&decided| size(decided)).product::<f64>() * size(place)
            };
            let open = (0..n).filter(|&place| !is_decided[place]);
            let Some(place) = open.min_by(|&a, &b| table(a).total_cmp(&table(b))) else { break };
            is_decided[place] = true;
            frontier.push(place);
            frontier.retain(|&decided| self.0[decided].iter().any(|&o| !is_decided[o]));
            smallest.push(place);
        }
        [(0..n).collect(), (0..n).rev().collect(), smallest]
    }

    /// The order with the smallest tables, and the number of (state, level) pairs of its largest step.
    pub(crate) fn best_order(&self, n_levels: &[usize]) -> (Vec<usize>, f64) {
        let table = |order: &[usize]| {
            let frontiers = self.frontiers(order);
            let size = |place: usize, frontier: &[usize]| {
                frontier.iter().map(|&decided| n_levels[decided] as f64).product::<f64>() * n_levels[place] as f64
            };
            order.iter().zip(&frontiers).map(|(&place, frontier)| size(place, frontier)).fold(0.0, f64::max)
        };
        let sized = self.orders(n_levels).map(|order| (table(&order), order));
        let (size, order) = sized.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("there are three orders");
        (order, size)
    }
}

impl DecisionOrder {
    pub(crate) fn new(instance: &Instance<'_>, neighbours: &Neighbours, order: &[usize]) -> Self {
        let frontiers = neighbours.frontiers(order);
        let step = |at: usize| step(instance, order, at, [&frontiers[at], &frontiers[at + 1]]);
        Self { steps: (0..order.len()).map(step).collect() }
    }
}

/// The decision at place `at` of the order.
fn step(instance: &Instance<'_>, order: &[usize], at: usize, [before, behind]: [&Vec<usize>; 2]) -> DecisionStep {
    let place = order[at];
    let mut position = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, &place)| position[place] = at);
    let n_levels = |place: usize| instance.levels[place].len();
    // The last of a frontier counts fastest.
    let stride = |of: usize| match behind.iter().position(|&other| other == of) {
        Some(i) => behind[i + 1..].iter().map(|&other| n_levels(other)).product(),
        None => 0,
    };
    let strides: Vec<usize> = before.iter().map(|&of| stride(of)).collect();
    let shared = |of: usize| {
        let factor = |form: &CostForm| form.pairs[place].iter().find(|&&(o, _)| o == of).map_or(0, |&(_, f)| f);
        instance.each(factor)
    };
    let factors: Vec<Costs> = before.iter().map(|&of| shared(of)).collect();
    let own = instance.each(|form| form.linear[place]);
    let closed: Vec<_> =
        instance.sums.iter().filter(|sum| sum.terms.iter().map(|&(p, _)| position[p]).max() == Some(at)).collect();
    let mut digits = vec![0; before.len()];
    let n_states: usize = before.iter().map(|&of| n_levels(of)).product();
    let mut states = Vec::with_capacity(n_states);
    for _ in 0..n_states {
        let width = |i: usize| instance.levels[before[i]][digits[i]].width;
        let shared = |axis: usize| (0..before.len()).map(|i| factors[i][axis] * width(i)).sum::<u64>();
        let next: usize = (0..before.len()).map(|i| strides[i] * digits[i]).sum();
        let mut allowed = n_levels(place);
        for sum in &closed {
            let (mut rest, mut own) = (sum.constant, 0);
            for &(p, factor) in &sum.terms {
                match before.iter().position(|&of| of == p) {
                    Some(i) => rest += factor * width(i),
                    None => own = factor,
                }
            }
            let fits = |level: &crate::instance::Level| rest + own * level.width <= instance.sum_max;
            allowed = allowed.min(instance.levels[place].partition_point(fits));
        }
        let per_channel: Costs = std::array::from_fn(|axis| own[axis] + shared(axis));
        states.push(StateTerms { per_channel, next: next as u32, n_levels: allowed as u32 });
        for i in (0..digits.len()).rev() {
            digits[i] += 1;
            if digits[i] < n_levels(before[i]) {
                break;
            }
            digits[i] = 0;
        }
    }
    DecisionStep { place, stride: stride(place), states }
}
