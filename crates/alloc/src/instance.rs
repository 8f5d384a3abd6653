//! What is to be solved: levels of every group, a cost formula, a bound.

use crate::costs::{CostForm, LinearSum};

/// A width that a group may take, and what it costs in weighted error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) width: u64,
    pub(crate) error: f64,
}

/// One choice of a level for every group, by place.
pub(crate) type Choice = Vec<usize>;

/// Levels of every group, ascending by width, errors not rising; the least of all groups together are within the bound.
#[derive(Clone, Debug)]
pub(crate) struct Instance<'a> {
    pub(crate) form: &'a CostForm,
    pub(crate) max: u64,
    /// The sums of the formula that some widths exceed.
    pub(crate) sums: Vec<&'a LinearSum>,
    pub(crate) levels: Vec<Vec<Level>>,
}

impl<'a> Instance<'a> {
    pub(crate) fn new(form: &'a CostForm, levels: Vec<Vec<Level>>, max: u64) -> Self {
        let full: Vec<u64> = levels.iter().map(|levels| levels[levels.len() - 1].width).collect();
        let sums = form.sums.iter().filter(|sum| sum.at(&full) > max).collect();
        Self { form, max, sums, levels }
    }

    pub(crate) fn widths(&self, choice: &[usize]) -> Vec<u64> {
        choice.iter().zip(&self.levels).map(|(&level, levels)| levels[level].width).collect()
    }

    /// Errors are added in the order of the groups, wherever they were chosen.
    pub(crate) fn error(&self, choice: &[usize]) -> f64 {
        choice.iter().zip(&self.levels).map(|(&level, levels)| levels[level].error).sum()
    }

    pub(crate) fn allows(&self, widths: &[u64]) -> bool {
        self.form.products(widths) <= self.max && self.sums.iter().all(|sum| sum.at(widths) <= self.max)
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
            let before = self.form.products(widths);
            let mut best: Option<(f64, usize, usize)> = None;
            for (place, &now) in choice.iter().enumerate() {
                for level in now + 1..self.levels[place].len() {
                    let gain = self.levels[place][now].error - self.levels[place][level].error;
                    if gain <= 0.0 {
                        continue;
                    }
                    let spent = self.rise(widths, place, self.levels[place][level].width);
                    if before + spent > self.max || !self.sums_allow(widths, place, level) {
                        break;
                    }
                    let rate = gain / spent.max(1) as f64;
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
    fn rise(&self, widths: &[u64], place: usize, width: u64) -> u64 {
        let (form, now) = (self.form, widths[place]);
        let shared: u64 = form.pairs[place].iter().map(|&(j, factor)| factor * widths[j]).sum();
        (form.linear[place] + shared) * (width - now) + form.square[place] * (width * width - now * now)
    }

    fn sums_allow(&self, widths: &mut [u64], place: usize, level: usize) -> bool {
        let now = std::mem::replace(&mut widths[place], self.levels[place][level].width);
        let allows = self.sums.iter().all(|sum| sum.at(widths) <= self.max);
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
                let cost = self.form.products(widths);
                for up in (0..choice.len()).filter(|&up| up != down) {
                    let from = choice[up];
                    let enough =
                        |&level: &usize| cost + self.rise(widths, up, self.levels[up][level].width) <= self.max;
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

/// Exchanges until a choice is left as it is: each helps, so that their number is bounded in any case.
const ROUNDS_MAX: usize = 200;
/// Levels that an exchange takes from a group.
const STEPS_DOWN: usize = 4;
/// Below, a gain may be rounding.
const GAIN_MIN: f64 = 1e-14;
