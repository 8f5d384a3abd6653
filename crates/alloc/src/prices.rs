//! The prices of two bounds at once that the choices met so far leave highest.

use crate::instance::AXES;

/// A choice as the prices see it: `error + sum of price * over` is at least the error of the best choice within the
/// bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PriceCut {
    pub(crate) error: f64,
    /// Costs less their bounds.
    pub(crate) over: [f64; AXES],
}

/// Halvings of an interval of prices.
const HALVINGS: usize = 60;

impl PriceCut {
    fn at(&self, prices: [f64; AXES]) -> f64 {
        self.error + prices[0] * self.over[0] + prices[1] * self.over[1]
    }
}

/// The prices from 0 to `most` at which the least of `cuts` is largest, and that value. `cuts` is not empty.
pub(crate) fn best_prices(cuts: &[PriceCut], most: [f64; AXES]) -> ([f64; AXES], f64) {
    let (mut low, mut high) = (0.0, most[1]);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        match best_first(cuts, most[0], middle).1 > 0.0 {
            true => low = middle,
            false => high = middle,
        }
    }
    let second = 0.5 * (low + high);
    let prices = [best_first(cuts, most[0], second).0, second];
    (prices, least_at(cuts, prices).at(prices))
}

/// The cut that is least at these prices.
fn least_at(cuts: &[PriceCut], prices: [f64; AXES]) -> &PriceCut {
    let least = cuts.iter().min_by(|a, b| a.at(prices).total_cmp(&b.at(prices)));
    least.expect("there is a choice within the bounds")
}

/// The best first price for a second one, and how the value there changes with the second.
fn best_first(cuts: &[PriceCut], most: f64, second: f64) -> (f64, f64) {
    let least = |first: f64| least_at(cuts, [first, second]);
    let (mut low, mut high) = (0.0, most);
    let (mut rising, mut falling) = (least(low), least(high));
    if rising.over[0] <= 0.0 {
        return (low, rising.over[1]);
    }
    if falling.over[0] >= 0.0 {
        return (high, falling.over[1]);
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        let cut = least(middle);
        match cut.over[0] > 0.0 {
            true => (low, rising) = (middle, cut),
            false => (high, falling) = (middle, cut),
        }
    }
    // Both cuts meet here, and the first price follows their crossing as the second changes.
    let share = -falling.over[0] / (rising.over[0] - falling.over[0]);
    (0.5 * (low + high), share * rising.over[1] + (1.0 - share) * falling.over[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::random::SplitMix;

    /// Against a fine grid of prices.
    #[test]
    fn no_prices_of_a_grid_are_better() {
        let mut rng = SplitMix(5);
        let mut number = || f64::from(rng.signed());
        for _ in 0..50 {
            // One choice is within both bounds.
            let mut cuts = vec![PriceCut { error: 2.0, over: [-0.5 - number().abs(), -0.5 - number().abs()] }];
            cuts.extend((0..12).map(|_| PriceCut { error: number().abs(), over: [2.0 * number(), 2.0 * number()] }));
            let (prices, found) = best_prices(&cuts, [4.0, 4.0]);
            assert!((found - cuts.iter().map(|cut| cut.at(prices)).fold(f64::INFINITY, f64::min)).abs() < 1e-12);
            for at in 0..=200 * 200 {
                let prices = [(at % 201) as f64 / 50.0, (at / 201) as f64 / 50.0];
                let value = cuts.iter().map(|cut| cut.at(prices)).fold(f64::INFINITY, f64::min);
                assert!(value <= found + 1e-9, "{value} at {prices:?}, found {found}");
            }
        }
    }
}
