//! What the errors of single groups do to the network's output, from probes: candidates with one group pruned.

use secateur_rl::ErrorWeights;
use secateur_sim::Score;

use super::allocate::Ranked;

/// Shares of a group's channels that a single probe keeps, and that two keep.
const ONE_SHARE: [f32; 1] = [0.5];
const TWO_SHARES: [f32; 2] = [1.0 / 3.0, 2.0 / 3.0];
/// An error of a probe below this is none.
const ERROR_MIN: f64 = 1e-9;
/// No group is free: its divergence may have been lost in rounding.
const WEIGHT_MIN: f64 = 1e-9;
/// Powers beyond these are noise of the two probes.
const POWERS: [f64; 2] = [0.5, 2.0];

/// What a group's error loses of the output: `weight * error ^ power`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sensitivity {
    pub(crate) weight: f64,
    pub(crate) power: f64,
}

impl Sensitivity {
    /// Every unit of every error alike.
    pub(crate) const EQUAL: Self = Self { weight: 1.0, power: 1.0 };

    pub(crate) fn loss(self, error: f64) -> f64 {
        if self.power == 1.0 { self.weight * error } else { self.weight * error.powf(self.power) }
    }

    /// From what probes of one group lose: pairs (error, loss).
    fn fit(probes: &[(f64, f64)]) -> Option<Self> {
        let known: Vec<(f64, f64)> = probes.iter().copied().filter(|(error, _)| *error > ERROR_MIN).collect();
        let log = |loss: f64| loss.max(WEIGHT_MIN).ln();
        let power = match known[..] {
            [] => return None,
            [(error, loss)] => return Some(Self { weight: (loss / error).max(WEIGHT_MIN), power: 1.0 }),
            [first, .., last] if first.0 != last.0 => {
                ((log(first.1) - log(last.1)) / (first.0 / last.0).ln()).clamp(POWERS[0], POWERS[1])
            }
            _ => 1.0,
        };
        let logs: f64 = known.iter().map(|&(error, loss)| log(loss) - power * error.ln()).sum();
        Some(Self { weight: (logs / known.len() as f64).exp().max(WEIGHT_MIN), power })
    }
}

/// Probes that each group gets.
pub(crate) const fn n_probes(weights: ErrorWeights) -> usize {
    shares(weights).len()
}

const fn shares(weights: ErrorWeights) -> &'static [f32] {
    match weights {
        ErrorWeights::Equal => &[],
        ErrorWeights::Probed => &ONE_SHARE,
        ErrorWeights::ProbedTwice => &TWO_SHARES,
    }
}

impl Ranked<'_> {
    /// The widths of all probes, groups in walk order: only one group pruned, to the widths nearest to its shares.
    pub(crate) fn probes(&self, weights: ErrorWeights) -> Vec<Vec<usize>> {
        let mut probes = Vec::new();
        for (place, &group) in self.groups.prunable().iter().enumerate() {
            for &share in shares(weights) {
                let mut widths = self.groups.full_widths();
                widths[group] = self.bounds(place).nearest(share);
                probes.push(widths);
            }
        }
        probes
    }

    /// What the errors of every group lose of the output; `scores` are those of [`Self::probes`].
    pub(crate) fn sensitivities(&self, weights: ErrorWeights, scores: &[Score]) -> Vec<Sensitivity> {
        let shares = shares(weights);
        if shares.is_empty() {
            return vec![Sensitivity::EQUAL; self.paths.len()];
        }
        let fit = |place: usize, scores: &[Score]| {
            let error = |share: f32| self.error(place, self.bounds(place).nearest(share));
            let probes: Vec<(f64, f64)> =
                shares.iter().zip(scores).map(|(&s, score)| (error(s), lost(score))).collect();
            Sensitivity::fit(&probes)
        };
        let known: Vec<Option<Sensitivity>> =
            scores.chunks(shares.len()).enumerate().map(|(place, scores)| fit(place, scores)).collect();
        // A probe without error says nothing.
        let mut sorted: Vec<f64> = known.iter().flatten().map(|known| known.weight).collect();
        sorted.sort_by(f64::total_cmp);
        let weight = sorted.get(sorted.len() / 2).copied().unwrap_or(1.0);
        known.into_iter().map(|known| known.unwrap_or(Sensitivity { weight, power: 1.0 })).collect()
    }
}

/// What a candidate's outputs lose: their divergence, or their error where they are no logits.
fn lost(score: &Score) -> f64 {
    score.divergence.or(score.output_error).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::Sensitivity;

    #[test]
    fn one_probe_gives_a_weight_and_two_a_power_that_is_kept_within_reason() {
        let fit = |probes: &[(f64, f64)]| Sensitivity::fit(probes);
        assert_eq!(fit(&[(0.25, 0.5)]), Some(Sensitivity { weight: 2.0, power: 1.0 }));
        assert_eq!(fit(&[(0.0, 0.5)]), None);
        assert_eq!(fit(&[(0.25, 0.0)]), Some(Sensitivity { weight: 1e-9, power: 1.0 }), "no group is free");
        // 3 e^1.5 at errors of 0.16 and 0.04.
        let two = fit(&[(0.16, 0.192), (0.04, 0.024)]).unwrap();
        assert!((two.weight - 3.0).abs() < 1e-9 && (two.power - 1.5).abs() < 1e-9, "{two:?}");
        assert!((two.loss(0.09) - 0.081).abs() < 1e-9);
        let steep = fit(&[(0.2, 1.0), (0.1, 0.01)]).unwrap();
        assert_eq!(steep.power, 2.0);
        assert!((steep.weight - (25.0f64 * 1.0).sqrt()).abs() < 1e-9, "the mean of both in logarithms: {steep:?}");
        assert_eq!(fit(&[(0.2, 0.4), (0.0, 0.1)]), Some(Sensitivity { weight: 2.0, power: 1.0 }));
        assert_eq!(fit(&[(0.2, 0.4), (0.2, 0.4)]).unwrap().power, 1.0);
    }
}
