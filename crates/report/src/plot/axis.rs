//! From numbers to places on an axis, and which numbers stand at it.

use crate::numbers::{compact, percent};

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisScale {
    /// Equal steps are equal differences.
    Linear,
    /// Equal steps are equal factors; what is not above 0 has no place.
    Logarithmic,
}

/// How the numbers at an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickFormat {
    /// As they are, shortened: 1.5 M.
    Plain,
    /// Fractions as per cent.
    Percent,
}

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it counts, with its unit.
    pub label: String,
    /// How it is divided.
    pub scale: AxisScale,
    /// How numbers are written.
    pub format: TickFormat,
    /// The least number shown, where that is not the least there is; what lies below is drawn at the edge.
    pub least: Option<f64>,
    /// The greatest number shown, where that is not the greatest there is.
    pub most: Option<f64>,
}

impl Axis {
    /// Linear, plain, as wide as what is drawn.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: AxisScale::Linear, format: TickFormat::Plain, least: None, most: None }
    }

    /// Fractions, written as per cent.
    pub fn percent(label: impl Into<String>) -> Self {
        Self { format: TickFormat::Percent, ..Self::new(label) }
    }

    pub(super) fn write(&self, value: f64) -> String {
        match self.format {
            TickFormat::Plain => compact(value),
            TickFormat::Percent => percent(value),
        }
    }
}

/// An axis that knows its ends.
pub(super) struct AxisEnds {
    scale: AxisScale,
    least: f64,
    most: f64,
}

impl AxisEnds {
    /// Around all `values`, or from and to ends that are given, out to where a step ends.
    pub(super) fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let is_shown = |value: &f64| value.is_finite() && (axis.scale == AxisScale::Linear || *value > 0.0);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(is_shown) {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            (least, most) = (1.0, 10.0);
        }
        (least, most) = (axis.least.unwrap_or(least), axis.most.unwrap_or(most));
        match axis.scale {
            AxisScale::Logarithmic => {
                let (low, high) = (least.log10().floor(), most.log10().ceil());
                Self { scale: axis.scale, least: 10f64.powf(low), most: 10f64.powf(high.max(low + 1.0)) }
            }
            AxisScale::Linear => {
                if most - least < 1e-9 * most.abs().max(1e-3) {
                    let half = (0.05 * most.abs()).max(1e-3);
                    (least, most) = (axis.least.unwrap_or(least - half), axis.most.unwrap_or(most + half));
                }
                let step = step(most - least);
                let low = (least / step).floor() * step;
                let high = (most / step).ceil() * step;
                Self { scale: axis.scale, least: low, most: high }
            }
        }
    }

    /// Share of the axis in front of a value, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            AxisScale::Linear => (value - self.least) / (self.most - self.least),
            AxisScale::Logarithmic => {
                (value.max(self.least).log10() - self.least.log10()) / (self.most.log10() - self.least.log10())
            }
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// The numbers that stand at the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        match self.scale {
            AxisScale::Linear => {
                let step = step(self.most - self.least);
                let first = (self.least / step - 1e-6).ceil() as i64;
                let last = (self.most / step + 1e-6).floor() as i64;
                (first..=last).take(20).map(|at| at as f64 * step).collect()
            }
            AxisScale::Logarithmic => {
                let (low, high) = (self.least.log10().round() as i32, self.most.log10().round() as i32);
                let every = ((high - low) / 8 + 1) as usize;
                (low..=high).step_by(every).map(|power| 10f64.powi(power)).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, for four to nine steps.
fn step(range: f64) -> f64 {
    let rough = range.max(f64::MIN_POSITIVE) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let of_power = rough / power;
    let digit = [1.0, 2.0, 5.0].into_iter().find(|&digit| of_power <= digit * 1.0001).unwrap_or(10.0);
    digit * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(axis: &Axis, values: &[f64]) -> AxisEnds {
        AxisEnds::of(axis, values.iter().copied())
    }

    #[test]
    fn steps_are_round_and_reach_around_all_values() {
        let found = range(&Axis::new(""), &[0.13, 0.97, f64::NAN]);
        let expected = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
        assert!(found.ticks().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", found.ticks());
        assert_eq!(found.ticks().len(), 6);
        assert!((found.share(0.5) - 0.5).abs() < 1e-12);
        assert_eq!((found.share(-3.0), found.share(9.0), found.share(f64::NAN)), (0.0, 1.0, 0.0));
    }

    #[test]
    fn powers_of_ten_are_as_far_from_each_other() {
        let axis = Axis { scale: AxisScale::Logarithmic, ..Axis::new("") };
        let found = range(&axis, &[0.002, 40.0, 0.0, -1.0]);
        assert_eq!(found.ticks().len(), 6, "{:?}", found.ticks());
        assert!((found.share(0.1) - 0.4).abs() < 1e-9, "{}", found.share(0.1));
        assert_eq!(found.share(0.0), 0.0);
    }

    #[test]
    fn one_value_and_none_have_an_axis_too() {
        for values in [&[0.25][..], &[], &[f64::INFINITY], &[0.0, 0.0]] {
            let found = range(&Axis::new(""), values);
            assert!(found.ticks().len() >= 2 && found.ticks().len() <= 20, "{values:?}: {:?}", found.ticks());
        }
    }
}
