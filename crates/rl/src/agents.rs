//! Agents by name.

use std::str::FromStr;
use std::sync::Arc;

use crate::controls::{Random, Uniform};
use crate::error::RlError;
use crate::interface::{Learner, Policy};
use crate::mtacp::{MtacpLearner, MtacpSettings, Profile};

/// The agents of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// The same share of every group.
    Uniform,
    /// Keep ratios drawn evenly.
    Random,
    /// IMPALA with an LSTM and Gaussian keep ratios.
    Mtacp(Profile),
}

impl AgentKind {
    /// The names [`FromStr`] knows; `mtacp` starts with [`Profile::Tuned`].
    pub const NAMES: &'static str = "uniform, random, mtacp";

    /// The name, without the profile.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Random => "random",
            Self::Mtacp(_) => "mtacp",
        }
    }

    /// The same agent with another profile; agents that learn nothing have none.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Self {
        match self {
            Self::Mtacp(_) => Self::Mtacp(profile),
            other => other,
        }
    }
}

impl FromStr for AgentKind {
    type Err = RlError;

    fn from_str(name: &str) -> Result<Self, RlError> {
        match name {
            "uniform" => Ok(Self::Uniform),
            "random" => Ok(Self::Random),
            "mtacp" => Ok(Self::Mtacp(Profile::default())),
            other => Err(RlError::UnknownAgent { got: other.to_owned(), expected: Self::NAMES }),
        }
    }
}

/// What an agent must know of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgentSettings {
    /// Features per observation, `F`.
    pub n_features: usize,
    /// Tasks.
    pub n_tasks: usize,
    /// Actors of all tasks together.
    pub n_actors: usize,
    /// Groups of the longest walk.
    pub walk_length_max: usize,
    /// Walks planned for all tasks together; schedules end there.
    pub walks_planned: u64,
    /// Least keep ratio, in [0, 1]; with 1 there is nothing to decide.
    pub keep_ratio_min: f32,
    /// Seed of the run.
    pub seed: u64,
}

impl AgentSettings {
    /// Whether an agent can run with them.
    ///
    /// # Errors
    /// [`RlError::OutOfRange`] with the first that no agent can run with.
    pub fn check(&self) -> Result<(), RlError> {
        for (what, got) in
            [("n_features", self.n_features), ("n_tasks", self.n_tasks), ("walk_length_max", self.walk_length_max)]
        {
            if got == 0 {
                return Err(out_of_range(what, "at least 1", got.to_string()));
            }
        }
        if self.n_tasks.checked_mul(self.walk_length_max).is_none_or(|rows| rows > u32::MAX as usize) {
            return Err(out_of_range("n_tasks * walk_length_max", "at most 2^32 - 1", "more".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.keep_ratio_min) {
            return Err(out_of_range("keep_ratio_min", "in [0, 1]", self.keep_ratio_min.to_string()));
        }
        Ok(())
    }
}

fn out_of_range(what: &str, expected: &str, got: String) -> RlError {
    RlError::OutOfRange { op: "build agent", what: what.to_owned(), expected: expected.to_owned(), got }
}

/// An agent, ready to act.
pub enum Agent {
    /// Learns nothing.
    Fixed(Arc<dyn Policy>),
    /// Learns.
    Learning(Box<dyn Learner>),
}

impl Agent {
    /// The policy as it is now.
    pub fn policy(&self) -> Arc<dyn Policy> {
        match self {
            Self::Fixed(policy) => Arc::clone(policy),
            Self::Learning(learner) => learner.policy(),
        }
    }
}

/// Builds an agent that has learned nothing.
///
/// # Errors
/// [`RlError::OutOfRange`] for settings no agent can run with.
pub fn build(kind: AgentKind, settings: &AgentSettings) -> Result<Agent, RlError> {
    settings.check()?;
    Ok(match kind {
        AgentKind::Uniform => Agent::Fixed(Arc::new(Uniform)),
        AgentKind::Random => {
            Agent::Fixed(Arc::new(Random { keep_ratio_min: settings.keep_ratio_min, seed: settings.seed }))
        }
        AgentKind::Mtacp(profile) => {
            Agent::Learning(Box::new(MtacpLearner::new(MtacpSettings::of(profile), settings)?))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: AgentSettings = AgentSettings {
        n_features: 13,
        n_tasks: 2,
        n_actors: 4,
        walk_length_max: 5,
        walks_planned: 100,
        keep_ratio_min: 0.1,
        seed: 1,
    };

    #[test]
    fn names_lead_to_agents_and_back() {
        for name in AgentKind::NAMES.split(", ") {
            let kind: AgentKind = name.parse().unwrap();
            assert_eq!(kind.name(), name);
            assert_eq!(build(kind, &SETTINGS).unwrap().policy().version(), 0);
        }
        let error = "ppo2".parse::<AgentKind>().unwrap_err();
        assert_eq!(error.to_string(), "agent: unknown name \"ppo2\", expected one of uniform, random, mtacp");
    }

    #[test]
    fn settings_no_agent_can_run_with_are_refused() {
        for bad in [
            AgentSettings { n_tasks: 0, ..SETTINGS },
            AgentSettings { walk_length_max: usize::MAX, ..SETTINGS },
            AgentSettings { keep_ratio_min: f32::NAN, ..SETTINGS },
            AgentSettings { keep_ratio_min: 1.001, ..SETTINGS },
        ] {
            assert!(build(AgentKind::Uniform, &bad).is_err(), "{bad:?}");
        }
    }
}
