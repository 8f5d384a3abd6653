//! What is to be solved: levels of every group, cost formulas, a bound on each.

use crate::costs::{CostForm, LinearSum};

/// A width that a group may take, and what it costs in weighted error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) width: u64,
    pub(crate) error: f64,
}

/// One choice of a level for every group, by place.
pub(crate) type Choice = Vec<usize>;

/// Costs that add up, such as MACs and parameters, of one choice or a part of one; 0 where there is no such bound.
pub(crate) type Costs = [u64; AXES];

/// Costs that add up and can be bounded at once.
pub(crate) const AXES: usize = 2;

/// A bound on a cost that adds up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit<'a> {
    pub(crate) form: &'a CostForm,
    pub(crate) max: u64,
}

/// Levels of every group, ascending by width, errors not rising; the least of all groups together are within all
/// bounds.
#[derive(Clone, Debug)]
pub(crate) struct Instance<'a> {
    /// At most [`AXES`] of them.
    pub(crate) limits: Vec<Limit<'a>>,
    /// The sums that some widths exceed.
    pub(crate) sums: Vec<&'a LinearSum>,
    /// What none of the sums may exceed.
    pub(crate) sum_max: u64,
    pub(crate) levels: Vec<Vec<Level>>,
}

impl<'a> Instance<'a> {
    /// `bounds` are formulas and what they may come to.
    pub(crate) fn new(bounds: &[(&'a CostForm, u64)], levels: Vec<Vec<Level>>) -> Self {
        let full: Vec<u64> = levels.iter().map(|levels| levels[levels.len() - 1].width).collect();
        let adds_up = |(form, _): &&(&CostForm, u64)| form.sums.is_empty();
        let limits = bounds.iter().filter(adds_up).map(|&(form, max)| Limit { form, max }).collect();
        let peak = bounds.iter().find(|bound| !adds_up(bound));
        let sum_max = peak.map_or(u64::MAX, |&(_, max)| max);
        let sums = peak.iter().flat_map(|(form, _)| &form.sums).filter(|sum| sum.at(&full) > sum_max).collect();
        Self { limits, sums, sum_max, levels }
    }

    /// The same bounds for other levels of the groups.
    pub(crate) fn with_levels(&self, levels: Vec<Vec<Level>>) -> Self {
        let full: Vec<u64> = levels.iter().map(|levels| levels[levels.len() - 1].width).collect();
        let sums = self.sums.iter().copied().filter(|sum| sum.at(&full) > self.sum_max).collect();
        Self { limits: self.limits.clone(), sums, levels, ..*self }
    }

    /// What the bounds allow.
    pub(crate) fn max(&self) -> Costs {
        let mut max = [u64::MAX; AXES];
        self.limits.iter().zip(&mut max).for_each(|(limit, max)| *max = limit.max);
        max
    }

    /// By bound, what `of` makes of its formula.
    pub(crate) fn each(&self, of: impl Fn(&CostForm) -> u64) -> Costs {
        let mut out = [0; AXES];
        self.limits.iter().zip(&mut out).for_each(|(limit, out)| *out = of(limit.form));
        out
    }

    /// Whether these costs are within the bounds.
    pub(crate) fn fits(&self, costs: Costs) -> bool {
        self.limits.iter().zip(costs).all(|(limit, cost)| cost <= limit.max)
    }

    /// The costs of all groups together.
    pub(crate) fn costs(&self, widths: &[u64]) -> Costs {
        self.each(|form| form.products(widths))
    }

    pub(crate) fn widths(&self, choice: &[usize]) -> Vec<u64> {
        choice.iter().zip(&self.levels).map(|(&level, levels)| levels[level].width).collect()
    }

    /// Errors are added in the order of the groups, wherever they were chosen.
    pub(crate) fn error(&self, choice: &[usize]) -> f64 {
        choice.iter().zip(&self.levels).map(|(&level, levels)| levels[level].error).sum()
    }

    pub(crate) fn allows(&self, widths: &[u64]) -> bool {
        self.fits(self.costs(widths)) && self.sums.iter().all(|sum| sum.at(widths) <= self.sum_max)
    }

    /// Improves a choice within the bound: raises single groups, then lowers one to raise another, as long as that
    /// helps.
    pub(crate) fn improve(&self, choice: &mut Choice) {
        let mut widths = self.widths(choice);
        for _ in 0..ROUNDS_MAX {
            self.spend(choice, &mut widths);
            if !self.swap(choice, &mut widths) {
                return;
            }
        }
    }

    /// Raises the group that gains most error per cost, until none can be raised.
    fn spend(&self, choice: &mut Choice, widths: &mut [u64]) {
        loop {
            let before = self.costs(widths);
            let mut best: Option<(f64, usize, usize)> = None;
            for (place, &now) in choice.iter().enumerate() {
                for level in now + 1..self.levels[place].len() {
                    let gain = self.levels[place][now].error - self.levels[place][level].error;
                    if gain <= 0.0 {
                        continue;
                    }
                    let spent = self.rise(widths, place, self.levels[place][level].width);
                    if !self.fits(sum(before, spent)) || !self.sums_allow(widths, place, level) {
                        break;
                    }
                    let rate = gain / self.weigh(spent);
                    if best.is_none_or(|(most, ..)| rate > most) {
                        best = Some((rate, place, level));
                    }
                }
            }
            let Some((_, place, level)) = best else { return };
            choice[place] = level;
            widths[place] = self.levels[place][level].width;
        }
    }

    /// What raising one group costs.
    fn rise(&self, widths: &[u64], place: usize, width: u64) -> Costs {
        let now = widths[place];
        self.each(|form| {
            let shared: u64 = form.pairs[place].iter().map(|&(j, factor)| factor * widths[j]).sum();
            (form.linear[place] + shared) * (width - now) + form.square[place] * (width * width - now * now)
        })
    }

    /// Costs as one number: of several, each as a share of its bound.
    fn weigh(&self, spent: Costs) -> f64 {
        match self.limits.as_slice() {
            [] | [_] => spent[0].max(1) as f64,
            limits => limits.iter().zip(spent).map(|(limit, spent)| spent.max(1) as f64 / limit.max as f64).sum(),
        }
    }

    fn sums_allow(&self, widths: &mut [u64], place: usize, level: usize) -> bool {
        let now = std::mem::replace(&mut widths[place], self.levels[place][level].width);
        let allows = self.sums.iter().all(|sum| sum.at(widths) <= self.sum_max);
        widths[place] = now;
        allows
    }

    /// The best exchange of one group's width for another's, if there is one that helps.
    fn swap(&self, choice: &mut Choice, widths: &mut [u64]) -> bool {
        let mut best: Option<(f64, [usize; 4])> = None;
        for down in 0..choice.len() {
            let now = choice[down];
            for lower in (now.saturating_sub(STEPS_DOWN)..now).rev() {
                let loss = self.levels[down][lower].error - self.levels[down][now].error;
                widths[down] = self.levels[down][lower].width;
                let cost = self.costs(widths);
                for up in (0..choice.len()).filter(|&up| up != down) {
                    let from = choice[up];
                    let raised = |level: usize| self.rise(widths, up, self.levels[up][level].width);
                    let enough = |&level: &usize| self.fits(sum(cost, raised(level)));
                    let higher = (from + 1..self.levels[up].len()).take_while(enough).last();
                    let Some(higher) = higher else { continue };
                    let gain = self.levels[up][from].error - self.levels[up][higher].error - loss;
                    let is_best = gain > GAIN_MIN && best.as_ref().is_none_or(|(most, _)| gain > *most);
                    if is_best && self.sums_allow(widths, up, higher) {
                        best = Some((gain, [down, lower, up, higher]));
                    }
                }
            }
            widths[down] = self.levels[down][now].width;
        }
        let Some((_, [down, lower, up, higher])) = best else { return false };
        for (place, level) in [(down, lower), (up, higher)] {
            choice[place] = level;
            widths[place] = self.levels[place][level].width;
        }
        true
    }
}

/// Both, bound by bound.
pub(crate) fn sum(a: Costs, b: Costs) -> Costs {
    std::array::from_fn(|axis| a[axis] + b[axis])
}

/// Exchanges until a choice is left as it is: each helps, so that their number is bounded in any case.
const ROUNDS_MAX: usize = 200;
/// Levels that an exchange takes from a group.
const STEPS_DOWN: usize = 4;
/// Below, a gain may be rounding.
const GAIN_MIN: f64 = 1e-14;
