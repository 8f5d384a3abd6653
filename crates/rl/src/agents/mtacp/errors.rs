//! What the plan of a task says of one group, as features.

use super::settings::ObserveRule;
use crate::task_plan::TaskPlan;

/// Errors at three shares of the channels, what the next width would bring, the planned share, the price of the budget.
pub(in crate::agents) const N_ERROR_FEATURES: usize = 6;
/// Shares of the channels whose errors are observed.
const SHARES: [f64; 3] = [0.25, 0.5, 0.75];
/// Logarithms of errors are divided by this, and smaller errors are none.
const LOG_SCALE: f64 = 10.0;
const ERROR_MIN: f64 = 1e-6;
/// Prices are errors per multiply-accumulate or parameter.
const PRICE_LOG_SCALE: f64 = 30.0;
const PRICE_MIN: f64 = 1e-15;

/// How many of them an agent observes.
pub(in crate::agents) const fn n_features(rule: ObserveRule) -> usize {
    match rule {
        ObserveRule::Shapes => 0,
        ObserveRule::Errors => N_ERROR_FEATURES,
    }
}

/// Those of the group at `place` of the walk, each within about [-1, 1].
pub(in crate::agents) fn error_features(plan: &TaskPlan, place: usize) -> [f32; N_ERROR_FEATURES] {
    let group = &plan.widths.groups[place];
    let log = |error: f64| (libm::log(error.max(ERROR_MIN)) / LOG_SCALE) as f32;
    let at = |share: f64| log(plan.error(place, group.nearest(share * group.n_channels as f64)));
    let width = plan.knapsack[place];
    let next = group.allowed.iter().copied().find(|&wider| wider > width);
    let gain = next.map_or(0.0, |wider| plan.error(place, width) - plan.error(place, wider));
    let price = libm::log(plan.shadow_price.max(PRICE_MIN)) / PRICE_LOG_SCALE;
    let planned = width as f32 / group.n_channels as f32;
    let [quarter, half, most] = SHARES.map(at);
    [quarter, half, most, log(gain), planned, price as f32]
}

#[cfg(test)]
mod tests {
    use super::error_features;
    use crate::task_plan::hand_made;

    /// Of four channels two are kept: errors are 1 less the root of the share, 0.5, 0.29, 0.13, and the third brings
    /// 0.16.
    #[test]
    fn features_are_logarithms_of_the_curve_around_the_planned_width() {
        let mut plan = hand_made::curved(&[4], &[1], 2);
        plan.shadow_price = 1e-15;
        let expected = [0.5f64, 0.292_893, 0.133_975, 0.158_919].map(|error| error.ln() / 10.0);
        let features = error_features(&plan, 0);
        for (got, expected) in features.iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "{features:?}");
        }
        assert_eq!(features[4], 0.5);
        assert!((features[5] + 1.151_293).abs() < 1e-5);
        let whole = hand_made::curved(&[4], &[1], 4);
        assert!((error_features(&whole, 0)[3] + 1.381_551).abs() < 1e-5, "a whole group has no next width");
    }
}
