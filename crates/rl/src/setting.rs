//! Settings of agents: how two profiles of defaults are read, and how ranges are checked.

use std::fmt::Debug;
use std::ops::RangeInclusive;

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSetting {
    /// Path of the setting, such as `sigma.first`.
    pub path: String,
    /// What is wrong with it, to be read behind its path: `is 0, expected at least 1`.
    pub problem: String,
}

impl BadSetting {
    /// The setting at `path` is not what was `expected`.
    pub fn new(path: impl Into<String>, got: impl Debug, expected: &str) -> Self {
        Self { path: path.into(), problem: format!("is {got:?}, expected {expected}") }
    }
}

/// Collects the settings that are out of their range.
#[derive(Debug, Default)]
pub struct RangeCheck(Vec<BadSetting>);

impl RangeCheck {
    /// A number within a range, ends included; NaN is in none.
    pub fn number(&mut self, path: &str, value: impl Into<f64>, allowed: RangeInclusive<f64>) {
        let value = value.into();
        if !allowed.contains(&value) {
            let expected = format!("a number in [{:?}, {:?}]", allowed.start(), allowed.end());
            self.0.push(BadSetting::new(path, value, &expected));
        }
    }

    /// A number above 0 and at most `max`.
    pub fn positive(&mut self, path: &str, value: impl Into<f64>, max: f64) {
        let value = value.into();
        if !(value > 0.0 && value <= max) {
            self.0.push(BadSetting::new(path, value, &format!("a number above 0, at most {max:?}")));
        }
    }

    /// A count within a range, ends included.
    pub fn count(&mut self, path: &str, value: usize, allowed: RangeInclusive<usize>) {
        if !allowed.contains(&value) {
            self.0.push(BadSetting::new(path, value, &format!("{}..={}", allowed.start(), allowed.end())));
        }
    }

    /// A setting that does not fit another.
    pub fn add(&mut self, bad: BadSetting) {
        self.0.push(bad);
    }

    /// What was found.
    pub fn finish(self) -> Vec<BadSetting> {
        self.0
    }
}

/// Declares the settings of an agent that has both profiles. Serde reads `profile` first; what is given replaces that
/// profile's defaults. The type needs a function `of(Profile)` that returns them; another agent with the same settings
/// reads them over defaults of its own, by `deserialize_over`.
macro_rules! profiled_settings {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name {
            /// The defaults that were started from.
            pub profile: $crate::agent::Profile,
            $($(#[$doc])* pub $field: $type,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize_over(deserializer, Self::of)
            }
        }

        impl $name {
            pub(crate) fn deserialize_over<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
                defaults: impl Fn($crate::agent::Profile) -> Self,
            ) -> Result<Self, D::Error> {
                use serde::Deserialize as _;
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Given {
                    #[serde(default)]
                    profile: $crate::agent::Profile,
                    $(#[serde(default)] $field: Option<$type>,)*
                }
                let given = Given::deserialize(deserializer)?;
                let mut settings = defaults(given.profile);
                $(if let Some(value) = given.$field { settings.$field = value; })*
                Ok(settings)
            }
        }
    };
}
pub(crate) use profiled_settings;

#[cfg(test)]
mod tests {
    use super::RangeCheck;

    #[test]
    fn only_what_is_out_of_its_range_is_told_with_both_sides() {
        let mut ranges = RangeCheck::default();
        ranges.number("in", 0.5, 0.0..=1.0);
        ranges.number("above", 1.5, 0.0..=1.0);
        ranges.number("none", f32::NAN, 0.0..=1.0);
        ranges.positive("zero", 0.0, 2.0);
        ranges.positive("in", 2.0, 2.0);
        ranges.count("few", 0, 1..=8);
        let told: Vec<String> = ranges.finish().iter().map(|bad| format!("{} {}", bad.path, bad.problem)).collect();
        let expected = [
            "above is 1.5, expected a number in [0.0, 1.0]",
            "none is NaN, expected a number in [0.0, 1.0]",
            "zero is 0.0, expected a number above 0, at most 2.0",
            "few is 0, expected 1..=8",
        ];
        assert_eq!(told, expected);
    }
}
