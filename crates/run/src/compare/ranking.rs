//! Who is better over all tasks and seeds, and from what difference on that is more than chance.

use serde::Serialize;

/// Mean ranks and the difference that is needed between two of them (Demšar 2006): tasks and seeds are the blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentRanking {
    /// For each agent, in the order of the comparison's agents: mean rank over tasks and seeds, 1 being the best.
    pub mean_ranks: Vec<f64>,
    /// Tasks times seeds.
    pub blocks: usize,
    /// Two mean ranks that are further apart differ with 95 % confidence (Nemenyi); none for more than 20 agents.
    pub critical_difference: Option<f64>,
}

/// Upper 5 % points of the studentised range for infinitely many degrees of freedom over the square root of 2, from two
/// agents on.
const NEMENYI_95: [f64; 19] = [
    1.959_964, 2.343_701, 2.569_032, 2.727_774, 2.849_705, 2.948_320, 3.030_879, 3.101_730, 3.163_684, 3.218_654,
    3.268_004, 3.312_739, 3.353_618, 3.391_230, 3.426_041, 3.458_425, 3.488_685, 3.517_073, 3.543_799,
];

impl AgentRanking {
    /// From the scores of all agents in every block.
    pub(super) fn of(blocks: &[Vec<f64>]) -> Self {
        let n_agents = blocks.first().map_or(0, Vec::len);
        let mut sums = vec![0.0; n_agents];
        for scores in blocks {
            sums.iter_mut().zip(ranks(scores)).for_each(|(sum, rank)| *sum += rank);
        }
        let (n, k) = (blocks.len() as f64, n_agents as f64);
        let quantile = n_agents.checked_sub(2).and_then(|at| NEMENYI_95.get(at));
        Self {
            mean_ranks: sums.into_iter().map(|sum| sum / n).collect(),
            blocks: blocks.len(),
            critical_difference: quantile.map(|quantile| quantile * (k * (k + 1.0) / (6.0 * n)).sqrt()),
        }
    }
}

/// Ranks of scores, the highest being 1; equal ones share the mean of their places.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let rank = |score: &f64| {
        let above = scores.iter().filter(|other| *other > score).count() as f64;
        let equal = scores.iter().filter(|other| *other == score).count() as f64;
        above + f64::midpoint(1.0, equal)
    };
    scores.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_share_their_places() {
        assert_eq!(ranks(&[0.3, 0.9, 0.3, 0.1]), [2.5, 1.0, 2.5, 4.0]);
        let ranking = AgentRanking::of(&[vec![0.3, 0.9, 0.1], vec![0.8, 0.8, 0.1]]);
        assert_eq!((ranking.mean_ranks.as_slice(), ranking.blocks), (&[1.75, 1.25, 3.0][..], 2));
        // 2.343701 * sqrt(3 * 4 / 12).
        assert_eq!(ranking.critical_difference, Some(2.343_701));
        assert_eq!(AgentRanking::of(&[vec![0.5]]).critical_difference, None);
        assert_eq!(AgentRanking::of(&[vec![0.5; 21]]).critical_difference, None);
    }

    /// Density of the normal distribution.
    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    /// That the range of `k` normal numbers is at most `range`, `k` times the integral of density(x) times
    /// (F(x) - F(x - range)) to the power of `k - 1`, by sums over a grid.
    fn range_probability(k: usize, range: f64) -> f64 {
        let (step, least, n) = (0.005, -8.0, 3200);
        let mut cumulative = vec![0.0; n + 1];
        for i in 0..n {
            let x = least + step * (i as f64 + 0.5);
            cumulative[i + 1] = cumulative[i] + step * density(x);
        }
        let at = |x: f64| {
            let place = ((x - least) / step).clamp(0.0, n as f64);
            let (i, part) = (place.floor() as usize, place.fract());
            cumulative[i] + part * (cumulative[(i + 1).min(n)] - cumulative[i])
        };
        let terms = (0..n).map(|i| least + step * (i as f64 + 0.5));
        let sum: f64 = terms.map(|x| density(x) * (at(x) - at(x - range)).powi(k as i32 - 1)).sum();
        k as f64 * step * sum
    }

    #[test]
    fn the_table_has_the_upper_twentieth_of_the_range_of_normal_numbers() {
        for (i, quantile) in NEMENYI_95.iter().enumerate() {
            let probability = range_probability(i + 2, quantile * 2f64.sqrt());
            assert!((probability - 0.95).abs() < 1e-4, "{} agents: {probability}", i + 2);
        }
    }
}
