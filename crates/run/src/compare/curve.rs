//! The best reward found so far, over candidates scored and over seconds.

use serde::Serialize;

/// The search of one agent for one task: the best reward after every scored candidate.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Anytime {
    /// Reward and seconds since the search began.
    best: Vec<(f64, f64)>,
}

/// Mean over seeds and how far they are apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean of the seeds.
    pub mean: f64,
    /// Standard error of the mean; 0 for one seed.
    pub standard_error: f64,
    /// One for each seed, in order.
    pub of_seeds: Vec<f64>,
}

/// Best reward so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Candidates scored for the task, or seconds of the search.
    pub at: f64,
    /// Mean over the seeds.
    pub mean: f64,
    /// Lowest of the seeds.
    pub least: f64,
    /// Highest of the seeds.
    pub most: f64,
}

impl Anytime {
    /// A candidate was scored; those after the first `n_max` do not count.
    pub(super) fn add(&mut self, reward: f64, search_s: f64, n_max: usize) {
        if self.best.len() < n_max {
            let before = self.best.last().map_or(f64::NEG_INFINITY, |&(best, _)| best);
            self.best.push((reward.max(before), search_s));
        }
    }

    /// Candidates scored.
    pub(super) fn len(&self) -> usize {
        self.best.len()
    }

    /// Best reward of all.
    pub(super) fn score(&self) -> Option<f64> {
        self.best.last().map(|&(best, _)| best)
    }

    /// Best reward of the first `n` candidates, at least one.
    fn after(&self, n: usize) -> Option<f64> {
        self.best.get(n.min(self.best.len()).checked_sub(1)?).map(|&(best, _)| best)
    }

    /// Best reward within so many seconds; none where no candidate was scored yet.
    fn within(&self, seconds: f64) -> Option<f64> {
        self.after(self.best.partition_point(|&(_, at)| at <= seconds))
    }

    /// Every candidate that was better than all before it, and the last: number, best reward, seconds.
    pub(super) fn steps(&self) -> impl Iterator<Item = (usize, f64, f64)> {
        let is_step = |&at: &usize| at + 1 == self.best.len() || at == 0 || self.best[at].0 > self.best[at - 1].0;
        (0..self.best.len()).filter(is_step).map(|at| (at + 1, self.best[at].0, self.best[at].1))
    }
}

impl Spread {
    pub(super) fn of(of_seeds: Vec<f64>) -> Self {
        let n = of_seeds.len() as f64;
        let mean = of_seeds.iter().sum::<f64>() / n;
        let squares: f64 = of_seeds.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_error = if of_seeds.len() > 1 { (squares / (n - 1.0) / n).sqrt() } else { 0.0 };
        Self { mean, standard_error, of_seeds }
    }
}

/// The curve over candidates, its points ever further apart up to `n_max`.
pub(super) fn by_candidates(seeds: &[&Anytime], n_max: usize) -> Vec<CurvePoint> {
    let mut numbers: Vec<usize> = (0..).map(|i| 1.25f64.powi(i).round() as usize).take_while(|&n| n < n_max).collect();
    numbers.push(n_max);
    numbers.dedup();
    numbers.into_iter().filter_map(|n| point(n as f64, seeds.iter().map(|anytime| anytime.after(n)))).collect()
}

/// The curve over seconds, in 24 equal steps up to `seconds_max`; it begins where every seed has a candidate.
pub(super) fn by_seconds(seeds: &[&Anytime], seconds_max: f64) -> Vec<CurvePoint> {
    let times = (1..=24).map(|step| seconds_max * f64::from(step) / 24.0);
    times.filter_map(|at| point(at, seeds.iter().map(|anytime| anytime.within(at)))).collect()
}

fn point(at: f64, rewards: impl Iterator<Item = Option<f64>>) -> Option<CurvePoint> {
    let rewards: Vec<f64> = rewards.collect::<Option<_>>()?;
    let least = rewards.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(CurvePoint { at, mean: rewards.iter().sum::<f64>() / rewards.len() as f64, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anytime(rewards: &[(f64, f64)], n_max: usize) -> Anytime {
        let mut out = Anytime::default();
        rewards.iter().for_each(|&(reward, seconds)| out.add(reward, seconds, n_max));
        out
    }

    #[test]
    fn curves_are_the_running_best_and_stop_at_the_last_candidate_that_counts() {
        let first = anytime(&[(0.2, 1.0), (0.1, 2.0), (0.5, 3.0), (0.4, 4.0), (0.9, 5.0)], 4);
        let second = anytime(&[(0.4, 2.0), (0.3, 4.0)], 4);
        assert_eq!((first.len(), first.score(), second.score()), (4, Some(0.5), Some(0.4)));
        assert_eq!(first.steps().collect::<Vec<_>>(), [(1, 0.2, 1.0), (3, 0.5, 3.0), (4, 0.5, 4.0)]);
        let curve = by_candidates(&[&first, &second], 4);
        let told: Vec<_> = curve.iter().map(|p| (p.at as usize, p.least, p.most)).collect();
        assert_eq!(told, [(1, 0.2, 0.4), (2, 0.2, 0.4), (3, 0.4, 0.5), (4, 0.4, 0.5)]);
        let curve = by_seconds(&[&first, &second], 4.8);
        // Before 2 s the second has none.
        assert_eq!((curve[0].at, curve[0].least, curve[0].most), (2.0, 0.2, 0.4));
        assert_eq!(curve.last().map(|p| (p.at, p.mean)), Some((4.8, 0.45)));
    }

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let spread = Spread::of(vec![1.0, 2.0, 3.0]);
        assert_eq!((spread.mean, spread.standard_error), (2.0, (1.0f64 / 3.0).sqrt()));
        assert_eq!(Spread::of(vec![0.7]).standard_error, 0.0);
    }
}
