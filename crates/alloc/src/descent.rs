//! Where too many groups depend on each other for a table: descent, one group at a time, at prices that rise until the
//! bound is met.

use crate::instance::{Choice, Instance};

/// Prices tried: each halves the interval.
const PRICES: usize = 48;
/// Passes over the groups at one price.
const SWEEPS_MAX: usize = 16;

/// A good choice within the bound.
pub(crate) fn descend(instance: &Instance<'_>) -> Choice {
    let least: Choice = vec![0; instance.levels.len()];
    let full: Choice = instance.levels.iter().map(|levels| levels.len() - 1).collect();
    if instance.allows(&instance.widths(&full)) {
        return full;
    }
    let mut best = least.clone();
    let highest = instance.error(&least).max(f64::MIN_POSITIVE);
    let (mut low, mut high) = (highest / (instance.form.at(&instance.widths(&full)) as f64 + 1.0) * 1e-12, highest);
    for _ in 0..PRICES {
        // Prices differ by orders of magnitude.
        let price = (low * high).sqrt();
        let choice = settle(instance, price, full.clone());
        if instance.allows(&instance.widths(&choice)) {
            high = price;
            if instance.error(&choice) < instance.error(&best) {
                best = choice;
            }
        } else {
            low = price;
        }
    }
    instance.improve(&mut best);
    best
}

/// Gives every group the best level for those that the others have, until none changes.
fn settle(instance: &Instance<'_>, price: f64, mut choice: Choice) -> Choice {
    let form = instance.form;
    let mut widths = instance.widths(&choice);
    for _ in 0..SWEEPS_MAX {
        let mut changed = false;
        for place in 0..choice.len() {
            let shared: u64 = form.pairs[place].iter().map(|&(other, factor)| factor * widths[other]).sum();
            // Every sum beyond the bound has its price, too.
            let over = instance.sums.iter().filter(|sum| sum.at(&widths) > instance.max);
            let of_sums: u64 =
                over.flat_map(|sum| sum.terms.iter().filter(|&&(p, _)| p == place).map(|&(_, factor)| factor)).sum();
            let value = |level: usize| {
                let level = instance.levels[place][level];
                let cost = (form.linear[place] + shared + of_sums + form.square[place] * level.width) * level.width;
                level.error + price * cost as f64
            };
            let levels = 0..instance.levels[place].len();
            let level = levels.min_by(|&a, &b| value(a).total_cmp(&value(b))).unwrap_or(0);
            changed |= std::mem::replace(&mut choice[place], level) != level;
            widths[place] = instance.levels[place][level].width;
        }
        if !changed {
            break;
        }
    }
    choice
}
