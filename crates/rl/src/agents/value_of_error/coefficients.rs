//! Non-negative linear regression of losses on errors, and draws from what it leaves possible.
//!
//! A draw is the fit to losses and a prior that are themselves drawn (randomise, then optimise; Bardsley and others
//! 2014): exactly the posterior of a linear model with normal errors, but for the bound at zero, which the fit keeps.
//! Errors count relative to the loss: what tells good candidates apart is what is to be learned.

use crate::rng::RngStream;

/// Sweeps of coordinate descent at most.
const SWEEPS_MAX: usize = 100;
/// Ends when no coefficient moved by more of its prior deviation.
const MOVED_MIN: f64 = 1e-4;
/// Bounds of the relative deviation of losses from the model.
const NOISE: [f64; 2] = [0.02, 0.5];
/// A loss below this share of the mean says no more than one of that share.
const LOSS_MIN_SHARE: f64 = 0.01;
/// Weights below this share of the mean weight have a prior as wide as those of that share.
const WEIGHT_MIN_SHARE: f64 = 0.01;

/// A reward below this is taken for it: its logarithm must be finite.
const REWARD_MIN: f64 = 1e-6;

/// A candidate that was scored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScoredErrors {
    /// Of every group.
    pub(super) errors: Vec<f64>,
    /// At least 0.
    pub(super) loss: f64,
    /// As how many candidates it counts, at most one.
    pub(super) count: f64,
}

impl ScoredErrors {
    /// One whole candidate of these errors, paid `reward`.
    pub(super) fn new(errors: Vec<f64>, reward: f64) -> Self {
        Self { errors, loss: -libm::log(reward.clamp(REWARD_MIN, 1.0)), count: 1.0 }
    }

    /// The same as so much of a candidate.
    pub(super) fn counting(&self, count: f64) -> Self {
        Self { count, ..self.clone() }
    }
}

/// What is known before anything is scored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prior<'a> {
    /// Of every group, up to a common factor; at least 0.
    pub(super) weights: &'a [f64],
    /// Standard deviation of the coefficients' logarithms.
    pub(super) spread: f64,
}

/// What is taken for true of losses: a sum of errors and of what no error explains.
pub(super) struct Trend {
    /// What one unit of each group's error costs, at least 0, and a constant behind.
    coefficients: Vec<f64>,
    /// What one unit of weight costs by all candidates.
    scale: f64,
}

impl Trend {
    /// What one unit of each group's error costs for each unit of its weight.
    pub(super) fn costs_of_weights(&self, prior: &Prior<'_>) -> Vec<f64> {
        prior_weights(prior).iter().zip(&self.coefficients).map(|(weight, c)| c / (self.scale * weight)).collect()
    }

    /// What one unit of each group's error costs.
    pub(super) fn costs(&self) -> &[f64] {
        &self.coefficients[..self.coefficients.len() - 1]
    }

    /// The loss of a candidate of these errors.
    pub(super) fn loss(&self, errors: &[f64]) -> f64 {
        errors.iter().chain([&1.0]).zip(&self.coefficients).map(|(error, c)| error * c).sum()
    }
}

/// The coefficients that the candidates and the prior together make likeliest; none where the candidates say nothing.
pub(super) fn likely(scored: &[ScoredErrors], prior: &Prior<'_>) -> Option<Trend> {
    let regression = Regression::new(scored, prior)?;
    let coefficients = regression.fit(&regression.weights, &regression.targets, NOISE[0]);
    Some(Trend { coefficients, scale: regression.scale })
}

/// Mean squared relative error of losses that are taken for the weighted sum of errors, up to the factor that suits
/// them best; infinite where the weights explain nothing.
pub(super) fn misfit(scored: &[ScoredErrors], weights: &[f64]) -> f64 {
    let Some(scale) = scale(scored, weights) else { return f64::INFINITY };
    let sum = |candidate: &ScoredErrors| -> f64 {
        candidate.errors.iter().zip(weights).map(|(error, weight)| error * weight).sum()
    };
    let off = scored.iter().filter(|candidate| candidate.loss > 0.0).map(|c| scale * sum(c) / c.loss - 1.0);
    off.map(|off| off * off).sum::<f64>() / scored.len().max(1) as f64
}

/// A draw of what one unit of each group's error costs, up to a common factor; without candidates one of the prior.
pub(super) fn draw(scored: &[ScoredErrors], prior: &Prior<'_>, rng: &mut RngStream) -> Vec<f64> {
    let means: Vec<f64> =
        prior_weights(prior).iter().map(|weight| weight * libm::exp(prior.spread * rng.normal())).collect();
    let Some(regression) = Regression::new(scored, prior) else { return means };
    // How well the model can do decides how much of it is taken for true.
    let targets = &regression.targets;
    let likely = regression.fit(&regression.weights, targets, NOISE[0]);
    let residual = |row: &[f64], target: f64| row.iter().zip(&likely).map(|(x, c)| x * c).sum::<f64>() - target;
    let residuals = regression.rows.iter().zip(targets).map(|(row, &target)| residual(row, target));
    let squares = residuals.map(|off| off * off).sum::<f64>();
    let count = targets.iter().map(|target| target * target).sum::<f64>();
    let noise = (squares / count).sqrt().clamp(NOISE[0], NOISE[1]);
    let targets: Vec<f64> = targets.iter().map(|target| target + noise * rng.normal()).collect();
    let mut drawn = regression.fit(&means, &targets, noise);
    drawn.truncate(means.len());
    // A group that costs nothing at all would lose everything for the sake of a rounding error.
    let least = regression.weights.iter().map(|weight| 1e-3 * regression.scale * weight);
    drawn.iter_mut().zip(least).for_each(|(coefficient, least)| *coefficient = coefficient.max(least));
    drawn
}

/// Weights of a prior, none of them 0.
fn prior_weights(prior: &Prior<'_>) -> Vec<f64> {
    let least = WEIGHT_MIN_SHARE * prior.weights.iter().sum::<f64>() / prior.weights.len().max(1) as f64;
    prior.weights.iter().map(|weight| weight.max(least)).collect()
}

/// The candidates as rows of a linear model of which each is to give 1, times the root of what it counts.
struct Regression {
    weights: Vec<f64>,
    scale: f64,
    /// Errors, and 1 for what no error explains, as shares of the candidate's loss.
    rows: Vec<Vec<f64>>,
    targets: Vec<f64>,
    deviations: Vec<f64>,
}

impl Regression {
    /// None where the candidates say nothing.
    fn new(scored: &[ScoredErrors], prior: &Prior<'_>) -> Option<Self> {
        let scale = scale(scored, prior.weights)?;
        let weights = prior_weights(prior);
        let mean_loss = scored.iter().map(|candidate| candidate.loss).sum::<f64>() / scored.len() as f64;
        let loss = |candidate: &ScoredErrors| candidate.loss.max(LOSS_MIN_SHARE * mean_loss);
        let row = |candidate: &ScoredErrors| {
            let root = candidate.count.sqrt();
            candidate.errors.iter().chain([&1.0]).map(|error| root * error / loss(candidate)).collect()
        };
        let deviations = weights.iter().map(|weight| scale * weight * prior.spread).chain([mean_loss]).collect();
        let targets = scored.iter().map(|candidate| candidate.count.sqrt()).collect();
        Some(Self { rows: scored.iter().map(row).collect(), targets, deviations, weights, scale })
    }

    fn fit(&self, means: &[f64], targets: &[f64], noise: f64) -> Vec<f64> {
        let means: Vec<f64> = means.iter().map(|mean| self.scale * mean).chain([0.0]).collect();
        non_negative_fit(&self.rows, targets, noise, &means, &self.deviations)
    }
}

/// The factor by which the prior weights explain the losses best; none where they explain nothing.
fn scale(scored: &[ScoredErrors], weights: &[f64]) -> Option<f64> {
    let share = |candidate: &ScoredErrors| {
        let sum: f64 = candidate.errors.iter().zip(weights).map(|(error, weight)| error * weight).sum();
        (candidate.loss > 0.0).then(|| sum / candidate.loss)
    };
    let counted = scored.iter().filter_map(|candidate| Some((share(candidate)?, candidate.count)));
    let [sum, squares] = counted.fold([0.0; 2], |[sum, squares], (x, n)| [sum + n * x, squares + n * x * x]);
    (squares > 0.0).then_some(sum / squares).filter(|scale| scale.is_finite())
}

/// The coefficients `c >= 0` of least `|rows c - targets|² / noise² + sum ((c - means) / deviations)²`, by coordinate
/// descent.
fn non_negative_fit(rows: &[Vec<f64>], targets: &[f64], noise: f64, means: &[f64], deviations: &[f64]) -> Vec<f64> {
    let n = means.len();
    let precision: Vec<f64> = deviations.iter().map(|deviation| 1.0 / (deviation * deviation)).collect();
    let per_row = 1.0 / (noise * noise);
    let mut gram = vec![0.0; n * n];
    let mut right: Vec<f64> = means.iter().zip(&precision).map(|(mean, precision)| mean * precision).collect();
    for (row, target) in rows.iter().zip(targets) {
        for (i, x) in row.iter().enumerate() {
            right[i] += per_row * x * target;
            gram[i * n..][..n].iter_mut().zip(row).for_each(|(sum, y)| *sum += per_row * x * y);
        }
    }
    precision.iter().enumerate().for_each(|(i, precision)| gram[i * n + i] += precision);
    let mut c: Vec<f64> = means.iter().map(|mean| mean.max(0.0)).collect();
    for _ in 0..SWEEPS_MAX {
        let mut moved = 0.0f64;
        for i in 0..n {
            let row = &gram[i * n..][..n];
            let others: f64 = row.iter().zip(&c).map(|(x, c)| x * c).sum::<f64>() - row[i] * c[i];
            let next = ((right[i] - others) / row[i]).max(0.0);
            moved = moved.max((next - c[i]).abs() / deviations[i]);
            c[i] = next;
        }
        if moved < MOVED_MIN {
            break;
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two coefficients, worked out by hand: minimise (c0 + c1 - 1)² + (c0 - 1)² + (c1 - 1)²; and with a bound.
    #[test]
    fn the_fit_is_that_worked_out_by_hand_and_never_negative() {
        let fit =
            |targets: f64, means: [f64; 2]| non_negative_fit(&[vec![1.0, 1.0]], &[targets], 1.0, &means, &[1.0; 2]);
        // By symmetry c: 2 (2c - 1) + 2 (c - 1) = 0, so c = 2/3.
        for c in fit(1.0, [1.0, 1.0]) {
            assert!((c - 2.0 / 3.0).abs() < 1e-3, "{c}");
        }
        // Without the bound c1 would be below 0; then c0 = (1 + 2) / 2.
        let bounded = fit(1.0, [2.0, -5.0]);
        assert!((bounded[0] - 1.5).abs() < 1e-3 && bounded[1] == 0.0, "{bounded:?}");
    }

    /// Losses of known coefficients: draws come near them as candidates are scored, and spread before.
    #[test]
    fn draws_narrow_down_to_the_coefficients_that_losses_are_made_of() {
        let truth = [4.0, 0.5, 1.0, 2.0];
        let mut rng = RngStream::new(5, 0, 0, 0);
        let candidate = |rng: &mut RngStream| {
            let errors: Vec<f64> = truth.iter().map(|_| 0.1 + rng.uniform()).collect();
            let loss = errors.iter().zip(&truth).map(|(error, c)| error * c).sum();
            ScoredErrors { errors, loss, count: 1.0 }
        };
        let scored: Vec<ScoredErrors> = (0..40).map(|_| candidate(&mut rng)).collect();
        let prior = Prior { weights: &[1.0; 4], spread: 0.7 };
        let deviation = |scored: &[ScoredErrors], rng: &mut RngStream| {
            let off = |c: &[f64]| {
                (0..4).map(|i| libm::log(c[i] / c.iter().sum::<f64>() / (truth[i] / 7.5)).abs()).sum::<f64>()
            };
            (0..20).map(|_| off(&draw(scored, &prior, rng))).sum::<f64>() / 80.0
        };
        let by_number = [0, 4, 12, 40].map(|n| deviation(&scored[..n], &mut rng));
        assert!(by_number[3] < 0.15 && by_number[3] < 0.5 * by_number[2] + 0.1, "{by_number:?}");
        assert!(by_number[0] > 0.4 && by_number[2] < by_number[0], "{by_number:?}");
    }

    #[test]
    fn what_says_nothing_leaves_the_prior_and_nothing_is_ever_not_finite() {
        let prior = Prior { weights: &[1.0, 0.0], spread: 0.5 };
        let mut rng = RngStream::new(1, 0, 0, 0);
        let none = ScoredErrors { errors: vec![0.0, 0.0], loss: 0.0, count: 1.0 };
        let huge = ScoredErrors { errors: vec![1e3, 1e3], loss: 14.0, count: 1.0 };
        let free = ScoredErrors { errors: vec![0.5, 0.5], loss: 0.0, count: 1.0 };
        for scored in [vec![], vec![none.clone()], vec![free.clone()], vec![none, huge, free]] {
            let drawn = draw(&scored, &prior, &mut rng);
            assert!(drawn.len() == 2 && drawn.iter().all(|c| c.is_finite() && *c > 0.0), "{scored:?}: {drawn:?}");
        }
    }
}
