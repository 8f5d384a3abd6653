//! Lagrangian relaxation: every bound on a cost that adds up is traded for a price, and dynamic programming over the
//! states finds the best widths at those prices exactly.

use crate::instance::{AXES, Choice, Costs, Instance, sum};
use crate::order::{DecisionOrder, DecisionStep, StateTerms};
use crate::prices::{PriceCut, best_prices};

/// The order and the instance that it is of.
#[derive(Clone, Copy)]
pub(crate) struct Decisions<'a> {
    pub(crate) instance: &'a Instance<'a>,
    pub(crate) order: &'a DecisionOrder,
}

/// The prices at which the lower bound is highest, and what follows from them.
#[derive(Debug)]
pub(crate) struct Relaxation {
    pub(crate) prices: Prices,
    /// By step and state before it, and for the end: the least error plus prices times costs of all that is still to
    /// be decided.
    pub(crate) rest: Vec<Vec<f64>>,
    /// No choice within the bounds has a smaller error.
    pub(crate) lower_bound: f64,
    /// The best choice within the bounds that was met.
    pub(crate) choice: Choice,
}

/// What one unit of each cost is worth in error.
pub(crate) type Prices = [f64; AXES];

/// What costs are worth.
pub(crate) fn worth(prices: Prices, costs: Costs) -> f64 {
    prices[0] * costs[0] as f64 + prices[1] * costs[1] as f64
}

/// A choice that is best at some prices.
struct Priced {
    choice: Choice,
    cost: Costs,
    error: f64,
}

/// Prices tried: each cuts off a corner of the hull of (cost, error), and a few find the one in question.
const PRICES_MAX: usize = 60;
/// What further prices may still add to the bound, as a share of it, is not worth a look at them.
const PROMISE_MIN: f64 = 1e-9;

impl Decisions<'_> {
    /// What a level costs, given a state.
    pub(crate) fn cost(&self, step: &DecisionStep, state: StateTerms, level: usize) -> Costs {
        let width = self.instance.levels[step.place][level].width;
        let mut costs = [0; AXES];
        for ((limit, cost), per_channel) in self.instance.limits.iter().zip(&mut costs).zip(state.per_channel) {
            *cost = (per_channel + limit.form.square[step.place] * width) * width;
        }
        costs
    }

    /// The table of [`Relaxation::rest`] at some prices.
    fn rest(&self, price: Prices) -> Vec<Vec<f64>> {
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

    fn priced(&self, step: &DecisionStep, state: StateTerms, level: usize, price: Prices) -> f64 {
        self.instance.levels[step.place][level].error + worth(price, self.cost(step, state, level))
    }

    /// Follows the table; of equals, the narrower.
    fn follow(&self, rest: &[Vec<f64>], price: Prices) -> Priced {
        let mut choice = vec![0; self.order.steps.len()];
        let (mut state, mut cost) = (0, self.instance.each(|form| form.constant));
        for (step, behind) in self.order.steps.iter().zip(&rest[1..]) {
            let terms = step.states[state];
            let value = |level: usize| self.priced(step, terms, level, price) + behind[next(step, terms, level)];
            let levels = 0..terms.n_levels as usize;
            let level = levels.min_by(|&a, &b| value(a).total_cmp(&value(b))).unwrap_or(0);
            choice[step.place] = level;
            cost = sum(cost, self.cost(step, terms, level));
            state = next(step, terms, level);
        }
        let error = self.instance.error(&choice);
        Priced { choice, cost, error }
    }

    /// The highest lower bound, and the best choice met on the way to it.
    pub(crate) fn relax(&self) -> Relaxation {
        let prices = [0.0; AXES];
        let rest = self.rest(prices);
        let beyond = self.follow(&rest, prices);
        if self.instance.fits(beyond.cost) {
            return Relaxation { prices, lower_bound: beyond.error, rest, choice: beyond.choice };
        }
        let least = vec![0; self.order.steps.len()];
        let cost = self.instance.costs(&self.instance.widths(&least));
        let within = Priced { error: self.instance.error(&least), choice: least, cost };
        match self.instance.limits.len() {
            0 | 1 => self.search_price(within, beyond, rest),
            _ => self.search_prices(within, beyond, rest),
        }
    }

    /// Searches the price of one bound: of two choices, one within the bound and one beyond it, the price that makes
    /// them equal finds one better than both, or shows that there is none.
    fn search_price(&self, mut within: Priced, mut beyond: Priced, mut rest: Vec<Vec<f64>>) -> Relaxation {
        let max = self.instance.max()[0];
        let mut price = 0.0;
        let mut lower_bound = beyond.error;
        for _ in 0..PRICES_MAX {
            let rise = within.error - beyond.error;
            if rise <= 0.0 || beyond.cost[0] <= within.cost[0] {
                break;
            }
            let tried = rise / (beyond.cost[0] - within.cost[0]) as f64;
            let table = self.rest([tried, 0.0]);
            let found = self.follow(&table, [tried, 0.0]);
            let value = found.error + tried * found.cost[0] as f64;
            let of_line = within.error + tried * within.cost[0] as f64;
            let bound = value - tried * max as f64;
            if bound >= lower_bound {
                (price, rest, lower_bound) = (tried, table, bound);
            }
            if value >= of_line - 1e-13 * of_line.abs() {
                break;
            }
            if found.cost[0] <= max {
                within = found;
            } else {
                beyond = found;
            }
        }
        Relaxation { prices: [price, 0.0], rest, lower_bound, choice: within.choice }
    }

    /// Searches the prices of two bounds: the choices met so far say which prices to try next (cutting planes), until
    /// what those promise is reached.
    fn search_prices(&self, mut within: Priced, beyond: Priced, mut rest: Vec<Vec<f64>>) -> Relaxation {
        let max = self.instance.max();
        let over = |costs: Costs| std::array::from_fn(|axis| costs[axis] as f64 - max[axis] as f64);
        let cut = |priced: &Priced| PriceCut { error: priced.error, over: over(priced.cost) };
        let (mut prices, mut lower_bound) = ([0.0; AXES], beyond.error);
        // At higher prices the narrowest choice alone shows that the bound is lower than without prices.
        let rise = (within.error - beyond.error).max(0.0);
        let most = cut(&within).over.map(|over| rise / (-over).max(1.0));
        let mut cuts = vec![cut(&within), cut(&beyond)];
        for _ in 0..PRICES_MAX {
            let (tried, promised) = best_prices(&cuts, most);
            if promised <= lower_bound + PROMISE_MIN * lower_bound.abs() {
                break;
            }
            let table = self.rest(tried);
            let found = self.follow(&table, tried);
            let bound = found.error + tried[0] * over(found.cost)[0] + tried[1] * over(found.cost)[1];
            if bound >= lower_bound {
                (prices, rest, lower_bound) = (tried, table, bound);
            }
            cuts.push(cut(&found));
            if self.instance.fits(found.cost) && found.error < within.error {
                within = found;
            }
        }
        Relaxation { prices, rest, lower_bound, choice: within.choice }
    }

    /// By step and state before it, and for the end: the least that all that is still to be decided can cost;
    /// `u64::MAX` where the sums allow nothing.
    pub(crate) fn least_rest(&self) -> Vec<Vec<Costs>> {
        let mut tables = vec![vec![[0; AXES]]];
        for step in self.order.steps.iter().rev() {
            let behind: &Vec<Costs> = &tables[tables.len() - 1];
            let least = |state: &StateTerms| match state.n_levels {
                0 => [u64::MAX; AXES],
                _ => saturating_sum(behind[state.next as usize], self.cost(step, *state, 0)),
            };
            let table = step.states.iter().map(least).collect();
            tables.push(table);
        }
        tables.reverse();
        tables
    }
}

/// Both, bound by bound, or `u64::MAX`.
pub(crate) fn saturating_sum(a: Costs, b: Costs) -> Costs {
    std::array::from_fn(|axis| a[axis].saturating_add(b[axis]))
}

/// The state behind a decision.
pub(crate) const fn next(step: &DecisionStep, state: StateTerms, level: usize) -> usize {
    state.next as usize + step.stride * level
}
