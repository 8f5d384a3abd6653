//! Lagrangian relaxation: the bound is traded for a price, and dynamic programming over the states finds the best
//! widths at that price exactly.

use crate::instance::{Choice, Instance};
use crate::order::{DecisionOrder, DecisionStep, StateTerms};

/// The order and the instance that it is of.
#[derive(Clone, Copy)]
pub(crate) struct Decisions<'a> {
    pub(crate) instance: &'a Instance<'a>,
    pub(crate) order: &'a DecisionOrder,
}

/// The price at which the lower bound is highest, and what follows from it.
#[derive(Debug)]
pub(crate) struct Relaxation {
    pub(crate) price: f64,
    /// By step and state before it, and for the end: the least error plus price times cost of all that is still to be
    /// decided.
    pub(crate) rest: Vec<Vec<f64>>,
    /// No choice within the bound has a smaller error.
    pub(crate) lower_bound: f64,
    /// The best choice within the bound that was met.
    pub(crate) choice: Choice,
}

/// A choice that is best at some price.
struct Priced {
    choice: Choice,
    cost: u64,
    error: f64,
}

/// Prices tried: each cuts off a corner of the hull of (cost, error), and a few find the one in question.
const PRICES_MAX: usize = 60;

impl Decisions<'_> {
    /// What a level costs, given a state.
    pub(crate) fn cost(&self, step: &DecisionStep, state: StateTerms, level: usize) -> u64 {
        let width = self.instance.levels[step.place][level].width;
        (state.per_channel + self.instance.form.square[step.place] * width) * width
    }

    /// The table of [`Relaxation::rest`] at a price.
    fn rest(&self, price: f64) -> Vec<Vec<f64>> {
        let mut tables = vec![vec![0.0]];
        for step in self.order.steps.iter().rev() {
            let behind = &tables[tables.len() - 1];
            let best = |state: &StateTerms| {
                (0..state.n_levels as usize)
                    .map(|level| self.priced(step, *state, level, price) + behind[next(step, *state, level)])
                    .fold(f64::INFINITY, f64::min)
            };
            let table = step.states.iter().map(best).collect();
            tables.push(table);
        }
        tables.reverse();
        tables
    }

    fn priced(&self, step: &DecisionStep, state: StateTerms, level: usize, price: f64) -> f64 {
        self.instance.levels[step.place][level].error + price * self.cost(step, state, level) as f64
    }

    /// Follows the table; of equals, the narrower.
    fn follow(&self, rest: &[Vec<f64>], price: f64) -> Priced {
        let mut choice = vec![0; self.order.steps.len()];
        let (mut state, mut cost) = (0, self.instance.form.constant);
        for (step, behind) in self.order.steps.iter().zip(&rest[1..]) {
            let terms = step.states[state];
            let value = |level: usize| self.priced(step, terms, level, price) + behind[next(step, terms, level)];
            let levels = 0..terms.n_levels as usize;
            let level = levels.min_by(|&a, &b| value(a).total_cmp(&value(b))).unwrap_or(0);
            choice[step.place] = level;
            cost += self.cost(step, terms, level);
            state = next(step, terms, level);
        }
        let error = self.instance.error(&choice);
        Priced { choice, cost, error }
    }

    /// Searches the price: of two choices, one within the bound and one beyond it, the price that makes them equal
    /// finds one better than both, or shows that there is none.
    pub(crate) fn relax(&self) -> Relaxation {
        let max = self.instance.max;
        let mut rest = self.rest(0.0);
        let mut beyond = self.follow(&rest, 0.0);
        let mut price = 0.0;
        if beyond.cost <= max {
            return Relaxation { price, lower_bound: beyond.error, rest, choice: beyond.choice };
        }
        let least = vec![0; self.order.steps.len()];
        let cost = self.instance.form.products(&self.instance.widths(&least));
        let mut within = Priced { error: self.instance.error(&least), choice: least, cost };
        let mut lower_bound = beyond.error;
        for _ in 0..PRICES_MAX {
            let rise = within.error - beyond.error;
            if rise <= 0.0 || beyond.cost <= within.cost {
                break;
            }
            let tried = rise / (beyond.cost - within.cost) as f64;
            let table = self.rest(tried);
            let found = self.follow(&table, tried);
            let value = found.error + tried * found.cost as f64;
            let of_line = within.error + tried * within.cost as f64;
            let bound = value - tried * max as f64;
            if bound >= lower_bound {
                (price, rest, lower_bound) = (tried, table, bound);
            }
            if value >= of_line - 1e-13 * of_line.abs() {
                break;
            }
            if found.cost <= max {
                within = found;
            } else {
                beyond = found;
            }
        }
        Relaxation { price, rest, lower_bound, choice: within.choice }
    }

    /// By step and state before it, and for the end: the least that all that is still to be decided can cost;
    /// `u64::MAX` where the sums allow nothing.
    pub(crate) fn least_rest(&self) -> Vec<Vec<u64>> {
        let mut tables = vec![vec![0]];
        for step in self.order.steps.iter().rev() {
            let behind: &Vec<u64> = &tables[tables.len() - 1];
            let least = |state: &StateTerms| match state.n_levels {
                0 => u64::MAX,
                _ => behind[state.next as usize].saturating_add(self.cost(step, *state, 0)),
            };
            let table = step.states.iter().map(least).collect();
            tables.push(table);
        }
        tables.reverse();
        tables
    }
}

/// The state behind a decision.
pub(crate) const fn next(step: &DecisionStep, state: StateTerms, level: usize) -> usize {
    state.next as usize + step.stride * level
}
