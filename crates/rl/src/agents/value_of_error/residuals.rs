//! What the sum of errors leaves unexplained of the losses: a Gaussian process over widths behind that sum as its trend
//! (universal kriging; Rasmussen and Williams 2006, sections 2.2, 2.7 and 5.4), and the improvement that is to be
//! expected of widths that were not scored (Jones, Schonlau and Welch 1998, equation 15).

use faer::linalg::solvers::{Llt, Solve};
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Mat, Par, Side};

/// Fewer points tell nothing of distances.
const POINTS_MIN: usize = 6;
/// Lengths over which residuals are alike, as multiples of the distance between two points that differ by one
/// deviation in every group; the likelihood chooses.
const LENGTHS: [f64; 3] = [0.35, 0.7, 1.4];
/// Share of the residuals' variance that no widths explain.
const NUGGET: f64 = 0.1;
/// Deviations of a group's share of channels below this count as this.
const DEVIATION_MIN: f64 = 0.02;

/// Widths as shares of the groups' channels, and the residual of their loss's logarithm.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    pub(super) shares: Vec<f64>,
    pub(super) value: f64,
}

/// The process, given some residuals.
pub(super) struct Residuals {
    deviations: Vec<f64>,
    /// Shares over deviations.
    points: Vec<Vec<f64>>,
    mean: f64,
    variance: f64,
    length: f64,
    factor: Llt<f64>,
    /// The inverse of the covariance times the centred values.
    weights: Mat<f64>,
}

impl Residuals {
    /// None where there are too few residuals, or all are alike.
    pub(super) fn given(residuals: &[Residual]) -> Option<Self> {
        let n_groups = residuals.first()?.shares.len();
        if residuals.len() < POINTS_MIN {
            return None;
        }
        let deviations: Vec<f64> = (0..n_groups)
            .map(|group| deviation(residuals.iter().map(|residual| residual.shares[group])).max(DEVIATION_MIN))
            .collect();
        let scaled = |shares: &[f64]| shares.iter().zip(&deviations).map(|(share, d)| share / d).collect::<Vec<f64>>();
        let points: Vec<Vec<f64>> = residuals.iter().map(|residual| scaled(&residual.shares)).collect();
        let n = points.len();
        let mean = residuals.iter().map(|residual| residual.value).sum::<f64>() / n as f64;
        let centred = Mat::from_fn(n, 1, |i, _| residuals[i].value - mean);
        let likeliest = LENGTHS
            .iter()
            .filter_map(|multiple| {
                let length = multiple * (n_groups as f64).sqrt();
                let covariance =
                    |i: usize, j: usize| alike(&points[i], &points[j], length) + if i == j { NUGGET } else { 0.0 };
                let factor = Mat::from_fn(n, n, covariance).llt(Side::Lower).ok()?;
                let weights = factor.solve(&centred);
                let variance = (0..n).map(|i| centred[(i, 0)] * weights[(i, 0)]).sum::<f64>() / n as f64;
                let log_diagonal: f64 = (0..n).map(|i| libm::log(factor.L()[(i, i)])).sum();
                let likelihood = -0.5 * n as f64 * libm::log(variance) - log_diagonal;
                (variance > 0.0 && likelihood.is_finite()).then_some((likelihood, length, variance, factor, weights))
            })
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let (_, length, variance, factor, weights) = likeliest?;
        Some(Self { deviations, points, mean, variance, length, factor, weights })
    }

    /// Mean and standard deviation of the residual of each of some widths, which are shares of the groups' channels.
    pub(super) fn at(&self, shares: &[Vec<f64>]) -> Vec<(f64, f64)> {
        let scaled = |shares: &Vec<f64>| shares.iter().zip(&self.deviations).map(|(share, d)| share / d).collect();
        let others: Vec<Vec<f64>> = shares.iter().map(scaled).collect();
        let n = self.points.len();
        let near = Mat::from_fn(n, others.len(), |i, j| alike(&self.points[i], &others[j], self.length));
        // Of the covariance's inverse only the half that tells the variances: L^-1 near.
        let mut half = near.clone();
        solve_lower_triangular_in_place(self.factor.L(), half.as_mut(), Par::Seq);
        let of = |j: usize| {
            let explained: f64 = half.col(j).iter().map(|x| x * x).sum();
            let moved: f64 = near.col(j).iter().zip(self.weights.col(0).iter()).map(|(a, b)| a * b).sum();
            (self.mean + moved, (self.variance * (1.0 - explained).max(0.0)).sqrt())
        };
        (0..others.len()).map(of).collect()
    }
}

/// By how much a loss of this mean and deviation is to be expected below `best`, at least 0.
pub(super) fn expected_improvement(best: f64, mean: f64, deviation: f64) -> f64 {
    let gap = best - mean;
    if deviation <= 0.0 {
        return gap.max(0.0);
    }
    let z = gap / deviation;
    let density = libm::exp(-0.5 * z * z) / (2.0 * std::f64::consts::PI).sqrt();
    let below = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
    gap * below + deviation * density
}

/// 1 where two points are the same, falling with their squared distance.
fn alike(a: &[f64], b: &[f64], length: f64) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    libm::exp(-0.5 * squares / (length * length))
}

fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    (values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::RngStream;

    fn points(n: usize, rng: &mut RngStream, value: impl Fn(&[f64]) -> f64) -> Vec<Residual> {
        let one = |shares: Vec<f64>| Residual { value: value(&shares), shares };
        (0..n).map(|_| one((0..3).map(|_| rng.uniform()).collect())).collect()
    }

    /// Solves `matrix x = right` by elimination; slow and plain.
    fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
        let n = right.len();
        for pivot in 0..n {
            for row in (0..n).filter(|&row| row != pivot) {
                let factor = matrix[row][pivot] / matrix[pivot][pivot];
                let upper = matrix[pivot].clone();
                matrix[row].iter_mut().zip(&upper).for_each(|(x, u)| *x -= factor * u);
                right[row] -= factor * right[pivot];
            }
        }
        (0..n).map(|i| right[i] / matrix[i][i]).collect()
    }

    #[test]
    fn means_and_deviations_are_those_of_the_textbook() {
        let mut rng = RngStream::new(7, 0, 0, 0);
        let residuals = points(9, &mut rng, |x| x[0] - 2.0 * x[1] * x[2]);
        let process = Residuals::given(&residuals).unwrap();
        let other = [0.3, 0.6, 0.1];
        let kernel = |a: &[f64], b: &[f64]| {
            let scaled = a.iter().zip(b).zip(&process.deviations).map(|((a, b), d)| ((a - b) / d).powi(2));
            (-scaled.sum::<f64>() / (2.0 * process.length * process.length)).exp()
        };
        let covariance =
            |i: usize, j: usize| kernel(&residuals[i].shares, &residuals[j].shares) + if i == j { NUGGET } else { 0.0 };
        let matrix: Vec<Vec<f64>> = (0..9).map(|i| (0..9).map(|j| covariance(i, j)).collect()).collect();
        let mean = residuals.iter().map(|r| r.value).sum::<f64>() / 9.0;
        let centred: Vec<f64> = residuals.iter().map(|r| r.value - mean).collect();
        let near: Vec<f64> = residuals.iter().map(|r| kernel(&r.shares, &other)).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let weights = solved(matrix.clone(), centred.clone());
        let variance = dot(&centred, &weights) / 9.0;
        let expected = mean + dot(&near, &weights);
        let deviation = (variance * (1.0 - dot(&near, &solved(matrix, near.clone())))).sqrt();
        let got = process.at(&[vec![0.9; 3], other.to_vec()])[1];
        assert!((got.0 - expected).abs() < 1e-9 && (got.1 - deviation).abs() < 1e-9, "{got:?} {expected} {deviation}");
        let far = process.at(&[vec![1e9, 0.0, 0.0]])[0];
        assert!((far.0 - mean).abs() < 1e-9 && (far.1 - variance.sqrt()).abs() < 1e-9, "far away nothing is known");
        assert!(process.at(&[]).is_empty(), "as where every proposal was scored before");
    }

    #[test]
    fn it_predicts_a_smooth_function_better_than_its_mean_and_knows_how_well() {
        let mut rng = RngStream::new(3, 0, 0, 0);
        let function = |x: &[f64]| libm::sin(3.0 * x[0]) + x[1] * x[2];
        let process = Residuals::given(&points(60, &mut rng, function)).unwrap();
        let others = points(200, &mut rng, function);
        let mean = others.iter().map(|r| r.value).sum::<f64>() / 200.0;
        let (mut squares, mut around_mean, mut within) = (0.0, 0.0, 0);
        for other in &others {
            let (predicted, deviation) = process.at(std::slice::from_ref(&other.shares))[0];
            squares += (predicted - other.value) * (predicted - other.value);
            around_mean += (mean - other.value) * (mean - other.value);
            within += usize::from((predicted - other.value).abs() < 3.0 * deviation.max(0.02));
        }
        assert!(squares < 0.25 * around_mean, "{squares} {around_mean}");
        assert!(within > 180, "{within} of 200 within three deviations");
    }

    /// For a deviation of 1 and a mean at the best, the density of the normal at 0; none, the gap itself.
    #[test]
    fn expected_improvements_are_those_of_a_normal_loss() {
        assert!((expected_improvement(2.0, 2.0, 1.0) - 0.398_942_280_4).abs() < 1e-9);
        assert_eq!(expected_improvement(2.0, 1.5, 0.0), 0.5);
        assert_eq!(expected_improvement(2.0, 2.5, 0.0), 0.0);
        let mut rng = RngStream::new(9, 0, 0, 0);
        let sampled = (0..200_000).map(|_| (0.3 - (0.5 + 0.4 * rng.normal())).max(0.0)).sum::<f64>() / 200_000.0;
        assert!((expected_improvement(0.3, 0.5, 0.4) - sampled).abs() < 1e-3, "{sampled}");
    }

    #[test]
    fn too_little_to_learn_from_gives_no_process() {
        let mut rng = RngStream::new(1, 0, 0, 0);
        assert!(Residuals::given(&[]).is_none());
        assert!(Residuals::given(&points(5, &mut rng, |x| x[0])).is_none());
        assert!(Residuals::given(&points(30, &mut rng, |_| 0.25)).is_none(), "all are alike");
        let same = vec![Residual { shares: vec![0.5; 3], value: 1.0 }; 20];
        assert!(Residuals::given(&same).is_none());
    }
}
