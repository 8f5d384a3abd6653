//! Raw actions (any real number) and the keep ratios they stand for.

use serde::{Deserialize, Serialize};

/// How a raw action becomes a keep ratio in [`keep_ratio_min`, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Squash {
    /// `min + (1 - min) (tanh(u) + 1) / 2`: MTACP's squash, stretched to the whole range.
    Absolute,
    /// `min + (1 - min) sigmoid(logit(e) + u)` with `e` the even ratio's place in the range:
    /// raw action 0 spends the remaining budget evenly.
    AroundEven,
}

/// The even ratio's place is kept this far from 0 and 1, where its logit is infinite.
const MARGIN: f64 = 0.02;

impl Squash {
    /// The keep ratio of a raw action.
    pub fn keep_ratio(self, raw_action: f32, even_ratio: f32, keep_ratio_min: f32) -> f32 {
        let logit = self.centre(even_ratio, keep_ratio_min) + self.gain() * f64::from(raw_action);
        let min = f64::from(keep_ratio_min);
        (min + (1.0 - min) / (1.0 + libm::exp(-logit))).clamp(min, 1.0) as f32
    }

    /// The raw action that stands for a keep ratio; ratios at the ends of the range stand for their margin.
    pub fn raw_action(self, keep_ratio: f32, even_ratio: f32, keep_ratio_min: f32) -> f32 {
        let logit = logit_in_range(keep_ratio, keep_ratio_min);
        ((logit - self.centre(even_ratio, keep_ratio_min)) / self.gain()) as f32
    }

    fn centre(self, even_ratio: f32, keep_ratio_min: f32) -> f64 {
        match self {
            Self::Absolute => 0.0,
            Self::AroundEven => logit_in_range(even_ratio, keep_ratio_min),
        }
    }

    /// (tanh(u) + 1) / 2 = sigmoid(2u).
    fn gain(self) -> f64 {
        match self {
            Self::Absolute => 2.0,
            Self::AroundEven => 1.0,
        }
    }
}

/// A keep ratio moved by as many logits as lie between two even ratios, that of now and the one that was planned for.
pub(crate) fn shifted(keep_ratio: f32, [now, planned]: [f32; 2], keep_ratio_min: f32) -> f32 {
    if now == planned {
        return keep_ratio;
    }
    let logit = |ratio| logit_in_range(ratio, keep_ratio_min);
    let place = 1.0 / (1.0 + libm::exp(-(logit(keep_ratio) + logit(now) - logit(planned))));
    let min = f64::from(keep_ratio_min);
    (min + (1.0 - min) * place).clamp(min, 1.0) as f32
}

fn logit_in_range(keep_ratio: f32, keep_ratio_min: f32) -> f64 {
    let min = f64::from(keep_ratio_min);
    let place = ((f64::from(keep_ratio) - min) / (1.0 - min).max(f64::EPSILON)).clamp(MARGIN, 1.0 - MARGIN);
    libm::log(place / (1.0 - place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_range_is_reached_and_never_left() {
        for squash in [Squash::Absolute, Squash::AroundEven] {
            assert!(squash.keep_ratio(-40.0, 0.5, 0.2) - 0.2 < 1e-6);
            assert!(1.0 - squash.keep_ratio(40.0, 0.5, 0.2) < 1e-6);
            for raw in [f32::MIN, -1.0, 0.0, 3.0, f32::MAX] {
                for even in [0.0, 0.2, 0.7, 1.0, 2.0] {
                    assert!((0.2..=1.0).contains(&squash.keep_ratio(raw, even, 0.2)));
                }
            }
        }
    }

    #[test]
    fn a_range_of_one_keep_ratio_is_that_ratio() {
        for squash in [Squash::Absolute, Squash::AroundEven] {
            for raw in [f32::MIN, 0.0, 3.0, f32::MAX] {
                assert_eq!(squash.keep_ratio(raw, 1.0, 1.0), 1.0);
            }
            assert!(squash.raw_action(1.0, 1.0, 1.0).is_finite());
        }
    }

    #[test]
    fn raw_zero_is_the_even_ratio() {
        for even in [0.3, 0.55, 0.9] {
            assert!((Squash::AroundEven.keep_ratio(0.0, even, 0.1) - even).abs() < 1e-6);
        }
    }

    #[test]
    fn absolute_squash_is_the_tanh_of_the_paper() {
        let expected = 0.2 + 0.8 * (0.7f32.tanh() + 1.0) / 2.0;
        assert!((Squash::Absolute.keep_ratio(0.7, 0.5, 0.2) - expected).abs() < 1e-6);
    }

    #[test]
    fn raw_action_inverts_keep_ratio() {
        for squash in [Squash::Absolute, Squash::AroundEven] {
            for raw in [-1.5, -0.1, 0.0, 0.8] {
                let back = squash.raw_action(squash.keep_ratio(raw, 0.6, 0.1), 0.6, 0.1);
                assert!((back - raw).abs() < 1e-5, "{squash:?} {raw} {back}");
            }
        }
    }
}
