//! Two networks on the same images: whether one is better, or whether the images are too few to tell.

use secateur_net::random::SplitMix;
use serde::{Deserialize, Serialize};

/// Below this a difference counts as more than chance.
const SIGNIFICANCE: f64 = 0.05;
/// Standard errors to either end of a normal 95 % interval.
const Z_95: f64 = 1.959_964;
/// Samples of the images, drawn with replacement, that a bootstrap interval is made of.
const N_SAMPLES: usize = 2000;
/// Seed of those samples.
const SAMPLE_SEED: u64 = 0x5EED;

/// Which of two classifiers is right more often, by McNemar's exact test (McNemar 1947): images that both get right, or
/// both wrong, say nothing; of the others each is as likely to be the first's as the second's if both are equally good.
///
/// # Example
/// ```
/// use secateur_run::PairedAccuracy;
///
/// let first = [true, true, true, true, true, true, false, true];
/// let second = [true, false, false, false, false, false, false, true];
/// let test = PairedAccuracy::of(&first, &second);
/// assert_eq!((test.only_first, test.only_second), (5, 0));
/// assert_eq!((test.p_value, test.is_distinguishable), (0.0625, false));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedAccuracy {
    /// Images.
    pub images: u64,
    /// Those that only the first gets right.
    pub only_first: u64,
    /// Those that only the second gets right.
    pub only_second: u64,
    /// Top-1 of the first less the second's.
    pub gain: f64,
    /// 95 % interval of the gain, from the variance of the differences.
    pub gain_interval: [f64; 2],
    /// How likely equally good networks are to differ this much or more; two-sided.
    pub p_value: f64,
    /// Whether that is below 0.05.
    pub is_distinguishable: bool,
}

impl PairedAccuracy {
    /// From whether either gets each image right.
    ///
    /// # Panics
    /// If both are not of the same images.
    pub fn of(first: &[bool], second: &[bool]) -> Self {
        assert_eq!(first.len(), second.len(), "both networks see the same images");
        let count = |wanted: [bool; 2]| first.iter().zip(second).filter(|&(&a, &b)| [a, b] == wanted).count() as u64;
        let [only_first, only_second] = [count([true, false]), count([false, true])];
        let n = first.len().max(1) as f64;
        let (difference, discordant) = (only_first as f64 - only_second as f64, (only_first + only_second) as f64);
        let (gain, standard_error) = (difference / n, (discordant - difference * difference / n).max(0.0).sqrt() / n);
        let p_value = sign_test(only_first, only_second);
        Self {
            images: first.len() as u64,
            only_first,
            only_second,
            gain,
            gain_interval: [gain - Z_95 * standard_error, gain + Z_95 * standard_error],
            p_value,
            is_distinguishable: p_value < SIGNIFICANCE,
        }
    }
}

/// Which of two networks' outputs are nearer to the dense network's, by a paired bootstrap over images (Efron and
/// Tibshirani 1993): images are drawn with replacement, both networks' errors on the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedError {
    /// Images.
    pub images: u64,
    /// How much less the first loses: the second's mean error less the first's.
    pub gain: f64,
    /// 95 % interval of the gain, from 2,000 samples of a fixed seed.
    pub gain_interval: [f64; 2],
    /// Whether the interval leaves out 0.
    pub is_distinguishable: bool,
}

impl PairedError {
    /// From the errors of both on each image.
    ///
    /// # Panics
    /// If both are not of the same images.
    pub fn of(first: &[f64], second: &[f64]) -> Self {
        assert_eq!(first.len(), second.len(), "both networks see the same images");
        let gains: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
        let n = gains.len().max(1);
        let mean = |gains: &mut dyn Iterator<Item = f64>| gains.sum::<f64>() / n as f64;
        let mut rng = SplitMix(SAMPLE_SEED);
        let mut samples: Vec<f64> =
            (0..N_SAMPLES).map(|_| mean(&mut (0..gains.len()).map(|_| gains[rng.below(gains.len())]))).collect();
        samples.sort_by(f64::total_cmp);
        let gain_interval = [samples[N_SAMPLES / 40], samples[N_SAMPLES - 1 - N_SAMPLES / 40]];
        Self {
            images: gains.len() as u64,
            gain: mean(&mut gains.iter().copied()),
            gain_interval,
            is_distinguishable: gain_interval[0] > 0.0 || gain_interval[1] < 0.0,
        }
    }
}

/// Probability that fair coins fall at least as unequally as `a` against `b`, to either side.
fn sign_test(a: u64, b: u64) -> f64 {
    let (n, fewer) = (a + b, a.min(b));
    // The logarithm of the number of ways to choose k of n, less that of all ways.
    let mut ln_share = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = ln_share.exp();
    for k in 1..=fewer {
        ln_share += ((n - k + 1) as f64).ln() - (k as f64).ln();
        tail += ln_share.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_test_is_that_worked_out_by_hand_and_near_the_normal_one_for_many() {
        assert_eq!(sign_test(0, 0), 1.0);
        assert_eq!(sign_test(3, 3), 1.0, "2 (1 + 6 + 15 + 20) / 64 is more than 1");
        // 2 (1 + 6) / 64.
        assert!((sign_test(1, 5) - 0.21875).abs() < 1e-12 && (sign_test(5, 1) - 0.21875).abs() < 1e-12);
        // Half a million: z = (1000 - 1) / sqrt(500,000) = 1.41280, two-sided 0.157714 by the normal distribution.
        assert!((sign_test(250_500, 249_500) - 0.157_714).abs() < 1e-4);
        assert!(sign_test(0, 2000) < 1e-300);
    }

    #[test]
    fn images_that_both_get_right_or_wrong_only_narrow_the_interval() {
        let first = [[true; 30], [false; 30]].concat();
        let mut second = first.clone();
        second[..10].fill(false);
        second[30..32].fill(true);
        let test = PairedAccuracy::of(&first, &second);
        assert_eq!((test.images, test.only_first, test.only_second), (60, 10, 2));
        assert!((test.gain - 8.0 / 60.0).abs() < 1e-12 && test.is_distinguishable);
        // Variance of a difference that is 1 ten times, -1 twice and else 0: 12 / 60 - (8 / 60)^2.
        let standard_error = ((12.0 / 60.0 - (8.0f64 / 60.0).powi(2)) / 60.0).sqrt();
        assert!((test.gain_interval[1] - test.gain - Z_95 * standard_error).abs() < 1e-12);
        let swapped = PairedAccuracy::of(&second, &first);
        assert_eq!((swapped.gain, swapped.p_value), (-test.gain, test.p_value));
        assert!(
            !PairedAccuracy::of(&first, &first).is_distinguishable && !PairedAccuracy::of(&[], &[]).is_distinguishable
        );
    }

    #[test]
    fn an_interval_of_errors_is_near_the_normal_one_and_leaves_out_zero_only_for_a_clear_gain() {
        let mut rng = SplitMix(3);
        let mut noise = || (0..6).map(|_| rng.below(1000) as f64 / 1000.0 - 0.4995).sum::<f64>();
        let first: Vec<f64> = (0..400).map(|_| 1.0 + noise()).collect();
        let second: Vec<f64> = first.iter().map(|error| error + 0.2 + noise()).collect();
        let test = PairedError::of(&first, &second);
        // Six uniform numbers: variance 1/2, so a standard error of sqrt(1 / 800).
        let reach = Z_95 * (1.0f64 / 800.0).sqrt();
        let [low, high] = test.gain_interval.map(|end| (end - test.gain).abs());
        assert!((low - reach).abs() < 0.15 * reach && (high - reach).abs() < 0.15 * reach, "{low} {high} {reach}");
        assert!(test.is_distinguishable && test.gain > 0.1);
        let shuffled: Vec<f64> = first.iter().map(|error| error + noise()).collect();
        assert!(!PairedError::of(&first, &shuffled).is_distinguishable);
        assert!(!PairedError::of(&[], &[]).is_distinguishable);
    }
}
