//! Where too many groups depend on each other for a table: descent, one group at a time, at prices that rise until the
//! bounds are met.

use crate::instance::{AXES, Choice, Instance};

/// Prices tried: each halves the interval.
const PRICES: usize = 48;
/// Passes over the groups at one price.
const SWEEPS_MAX: usize = 16;
/// Of several bounds, the parts that a price is made of: shares in steps of this many.
const PARTS: usize = 4;

/// What one unit of each cost that adds up has of a price, and one of the sums.
type Mix = [f64; AXES + 1];

/// A good choice within the bounds.
pub(crate) fn descend(instance: &Instance<'_>) -> Choice {
    let least: Choice = vec![0; instance.levels.len()];
    let full: Choice = instance.levels.iter().map(|levels| levels.len() - 1).collect();
    if instance.allows(&instance.widths(&full)) {
        return full;
    }
    let mut best = least;
    for (mix, prices) in mixes(instance) {
        best = descend_at(instance, mix, prices, best);
    }
    instance.improve(&mut best);
    best
}

/// Descends from all channels at ever closer prices; `best` is a choice within the bounds.
fn descend_at(instance: &Instance<'_>, mix: Mix, [mut low, mut high]: [f64; 2], mut best: Choice) -> Choice {
    let full: Choice = instance.levels.iter().map(|levels| levels.len() - 1).collect();
    for _ in 0..PRICES {
        // Prices differ by orders of magnitude.
        let price = (low * high).sqrt();
        let choice = settle(instance, mix.map(|part| price * part), full.clone());
        if instance.allows(&instance.widths(&choice)) {
            high = price;
            if instance.error(&choice) < instance.error(&best) {
                best = choice;
            }
        } else {
            low = price;
        }
    }
    best
}

/// How the price is shared out between the bounds, and the least and the largest price.
fn mixes(instance: &Instance<'_>) -> Vec<(Mix, [f64; 2])> {
    let full: Vec<u64> = instance.levels.iter().map(|levels| levels[levels.len() - 1].width).collect();
    let highest = instance.error(&vec![0; full.len()]).max(f64::MIN_POSITIVE);
    let peak = instance.sums.iter().map(|sum| sum.at(&full)).max();
    let counted = instance.limits.iter().enumerate().map(|(axis, limit)| (axis, limit.form.products(&full), limit.max));
    let bounds: Vec<(usize, u64, u64)> = counted.chain(peak.map(|peak| (AXES, peak, instance.sum_max))).collect();
    if let [(_, cost, _)] = bounds.as_slice() {
        return vec![([1.0; AXES + 1], [highest / (*cost as f64 + 1.0) * 1e-12, highest])];
    }
    // Each cost is told as a share of its bound.
    let shares = |parts: &[usize]| {
        let mut mix = [0.0; AXES + 1];
        bounds.iter().zip(parts).for_each(|(&(axis, _, max), &part)| mix[axis] = part as f64 / max as f64);
        mix
    };
    let largest = bounds.iter().map(|&(.., max)| max).max().unwrap_or(1) as f64;
    let prices = [highest * 1e-12, highest * largest];
    let parts = |n: usize| (0..=PARTS).map(move |part| (n, part));
    let of_three = parts(0).flat_map(|(_, a)| (0..=PARTS - a).map(move |b| [a, b, PARTS - a - b]));
    let is_whole = |parts: &[usize; 3]| parts[bounds.len()..].iter().all(|&part| part == 0);
    of_three.filter(is_whole).map(|parts| (shares(&parts), prices)).collect()
}

/// Gives every group the best level for those that the others have, until none changes.
fn settle(instance: &Instance<'_>, prices: Mix, mut choice: Choice) -> Choice {
    let mut widths = instance.widths(&choice);
    for _ in 0..SWEEPS_MAX {
        let mut changed = false;
        for place in 0..choice.len() {
            let shared = instance.each(|form| form.pairs[place].iter().map(|&(o, factor)| factor * widths[o]).sum());
            // Every sum beyond the bound has its price, too.
            let over = instance.sums.iter().filter(|sum| sum.at(&widths) > instance.sum_max);
            let of_sums: u64 =
                over.flat_map(|sum| sum.terms.iter().filter(|&&(p, _)| p == place).map(|&(_, factor)| factor)).sum();
            let value = |level: usize| {
                let level = instance.levels[place][level];
                let mut value = level.error;
                for ((limit, shared), price) in instance.limits.iter().zip(shared).zip(prices) {
                    let form = limit.form;
                    let cost = (form.linear[place] + shared + form.square[place] * level.width) * level.width;
                    value += price * cost as f64;
                }
                value + prices[AXES] * (of_sums * level.width) as f64
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
