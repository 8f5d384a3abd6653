//! Surrogate targets (majorise-minimise): a loss that counts errors unequally is bounded by a quadratic, whose minimum
//! is a least-squares fit to targets that were moved. Here: by how much they move, for a clamp and for a softmax.

use crate::fit::target::Nonlinearity;

/// Temperature at which logits are compared (Hinton et al. 2015).
const TEMPERATURE: f32 = 3.0;

/// Replaces the fit of rows `[rows, outputs, lanes]` by how far their targets `y` move; `others` are the other addends.
pub(crate) fn replace_by_target_moves(
    nonlinearity: Nonlinearity,
    lanes: usize,
    n_out: usize,
    fit: &mut [f32],
    y: &[f32],
    others: &[f32],
) {
    match nonlinearity {
        Nonlinearity::Unknown => fit.fill(0.0),
        Nonlinearity::Clamp(clamp) => {
            for ((fit, y), other) in fit.iter_mut().zip(y).zip(others) {
                *fit = hidden_target(y + other, *fit + other, clamp) - (y + other);
            }
        }
        Nonlinearity::Softmax => {
            let len = n_out * lanes;
            let rows = fit.chunks_exact_mut(len).zip(y.chunks_exact(len)).zip(others.chunks_exact(len));
            for ((fit, y), others) in rows {
                for lane in 0..lanes {
                    let lane_of = |values: &[f32]| values[lane..].iter().step_by(lanes).copied().collect::<Vec<f32>>();
                    let mut moved = lane_of(fit);
                    replace_by_softmax_move(&mut moved, &lane_of(y), &lane_of(others));
                    fit[lane..].iter_mut().step_by(lanes).zip(moved).for_each(|(f, m)| *f = m);
                }
            }
        }
    }
}

/// Replaces the logits of one image by how far their targets `y` move towards the softmax wanted.
fn replace_by_softmax_move(fit: &mut [f32], y: &[f32], others: &[f32]) {
    let shares = |logits: &[f32]| softmax(logits.iter().zip(others).map(|(l, o)| (l + o) / TEMPERATURE).collect());
    let (now, wanted) = (shares(fit), shares(y));
    // Half the identity bounds the softmax's curvature (Böhning 1992): the minimum of the bound lies twice the gradient
    // away.
    for (((fit, y), now), wanted) in fit.iter_mut().zip(y).zip(now).zip(wanted) {
        *fit += 2.0 * TEMPERATURE * (wanted - now) - y;
    }
}

/// The value nearest to `fit` that a clamp to `[low, high]` does not tell from `target`.
pub(crate) fn hidden_target(target: f32, fit: f32, [low, high]: [f32; 2]) -> f32 {
    // Plain comparisons without branches, which become vector instructions.
    let below = if fit < low { fit } else { low };
    let above = if fit > high { fit } else { high };
    let raised = if target <= low { below } else { target };
    if target >= high { above } else { raised }
}

fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter_mut().for_each(|l| *l = (*l - max).exp());
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|l| *l /= sum);
    logits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targets_that_the_clamp_hides_follow_the_fit() {
        let relu6 = [0.0, 6.0];
        assert_eq!(hidden_target(2.0, -1.0, relu6), 2.0);
        assert_eq!(hidden_target(-3.0, -1.0, relu6), -1.0);
        assert_eq!(hidden_target(-3.0, 0.5, relu6), 0.0);
        assert_eq!(hidden_target(7.0, 9.0, relu6), 9.0);
        assert_eq!(hidden_target(7.0, 4.0, relu6), 6.0);
    }

    #[test]
    fn softmax_steps_reach_the_wanted_shares_although_the_logits_differ() {
        let (y, others) = ([2.0, -1.0, 0.5], [0.3, 0.0, -0.2]);
        let mut fit = [0.0, 1.0, 7.0];
        for _ in 0..2000 {
            let mut change = fit;
            replace_by_softmax_move(&mut change, &y, &others);
            fit = std::array::from_fn(|o| y[o] + change[o]);
        }
        let shares = |logits: [f32; 3]| softmax((0..3).map(|o| (logits[o] + others[o]) / TEMPERATURE).collect());
        for (now, wanted) in shares(fit).iter().zip(shares(y)) {
            assert!((now - wanted).abs() < 1e-4, "{now} {wanted}");
        }
        assert!((fit.iter().sum::<f32>() - 8.0).abs() < 1e-2, "the mean of the logits is free and stays");
    }
}
