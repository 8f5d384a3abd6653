//! Schedulers by name.

use std::str::FromStr;

use secateur_train::Scheduler;

/// A scheduler as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant(pub(super) Scheduler);

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, max) = text.split_once(':').map_or((text, None), |(name, max)| (name, Some(max)));
        match (name, max) {
            ("lockstep", None) => Ok(Self(Scheduler::Lockstep)),
            ("async", None) => Ok(Self(Scheduler::Async)),
            ("bounded_lag", None) => Ok(Self(Scheduler::BoundedLag { max: 1 })),
            ("bounded_lag", Some(max)) => {
                let max = max.parse().map_err(|_| format!("the lag '{max}' is no whole number"))?;
                Ok(Self(Scheduler::BoundedLag { max }))
            }
            _ => Err("unknown scheduler; expected lockstep, async or bounded_lag[:MAX]".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_are_named_with_an_optional_lag() {
        let parse = |text: &str| text.parse::<Variant>().map(|v| v.0);
        assert_eq!(parse("lockstep"), Ok(Scheduler::Lockstep));
        assert_eq!(parse("bounded_lag:4"), Ok(Scheduler::BoundedLag { max: 4 }));
        for text in ["lockstep", "async", "bounded_lag:1"] {
            assert_eq!(text.parse::<Variant>().unwrap().0.name(), text);
        }
        for bad in ["", "lockstep:1", "bounded_lag:", "bounded_lag:-1", "Async"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
