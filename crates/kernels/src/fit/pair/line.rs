//! How far to go along the directions of both maps.

use crate::fit::pair::residual::PassBuffers;

/// Least share of the squared residual that a step has to take away.
const GAIN_MIN: f64 = 3e-4;
/// Values whose products are summed in f32 before they go into f64 sums.
const LINE: usize = 256;

/// Products of residual and changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineSums {
    /// Of the changes by the first and the second map with each other: first by first, first by second, second by second.
    changes: [f64; 3],
    /// Of the changes with the residual.
    gains: [f64; 2],
    /// Of the residual with itself.
    energy: f64,
}

impl LineSums {
    pub(crate) fn add(&mut self, buffers: &PassBuffers) {
        let [residual, first, second] = buffers.residual_and_changes();
        let [aa, ab, bb] = [product(first, first), product(first, second), product(second, second)];
        let more = Self {
            changes: [aa, ab, bb],
            gains: [product(first, residual), product(second, residual)],
            energy: product(residual, residual),
        };
        self.merge(&more);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.changes.iter_mut().zip(other.changes).for_each(|(s, m)| *s += m);
        self.gains.iter_mut().zip(other.gains).for_each(|(s, m)| *s += m);
        self.energy += other.energy;
    }
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.chunks(LINE).zip(b.chunks(LINE)) {
        let mut lanes = [0.0f32; 16];
        for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
            for lane in 0..16 {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        let (a, b) = (a.chunks_exact(16).remainder(), b.chunks_exact(16).remainder());
        let rest: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        sum += lanes.iter().map(|&x| f64::from(x)).sum::<f64>() + f64::from(rest);
    }
    sum
}

/// Steps along both directions that leave the least residual where all is linear; `None` where they gain next to
/// nothing.
pub(crate) fn best_steps(sums: &LineSums) -> Option<[f64; 2]> {
    let LineSums { changes: [aa, ab, bb], gains: [a, b], energy } = *sums;
    // A little more on the diagonal: both directions may change the same.
    let [aa, bb] = [aa, bb].map(|x| x * (1.0 + 1e-9));
    let determinant = aa * bb - ab * ab;
    let steps = if determinant > 1e-12 * aa * bb {
        [(a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant]
    } else if aa >= bb {
        [a / aa, 0.0]
    } else {
        [0.0, b / bb]
    };
    let gain = steps[0] * a + steps[1] * b;
    (steps.iter().all(|step| step.is_finite()) && gain > GAIN_MIN * energy).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_solve_the_plane_and_a_direction_that_changes_nothing_is_left_out() {
        // Residual (3, 4), changes (1, 0) and (1, 1): 3 = s + t, 4 = t.
        let sums = LineSums { changes: [1.0, 1.0, 2.0], gains: [3.0, 7.0], energy: 25.0 };
        let [s, t] = best_steps(&sums).unwrap();
        assert!((s + 1.0).abs() < 1e-6 && (t - 4.0).abs() < 1e-6, "{s} {t}");
        let only_second = LineSums { changes: [0.0, 0.0, 2.0], gains: [0.0, 7.0], energy: 25.0 };
        assert_eq!(best_steps(&only_second), Some([0.0, 7.0 / (2.0 * (1.0 + 1e-9))]));
        assert_eq!(best_steps(&LineSums { energy: 1.0, ..LineSums::default() }), None);
        let nan = LineSums { gains: [f64::NAN, 1.0], ..sums };
        assert_eq!(best_steps(&nan), None);
    }

    #[test]
    fn products_of_any_length_are_those_of_the_values() {
        for n in [1, 15, 16, 300, 513] {
            let values: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            let expected: f64 = values.iter().map(|&v| f64::from(v * v)).sum();
            assert_eq!(product(&values, &values), expected);
        }
    }
}
