//! What an agent is to the rest of the house: an entry in the list of agents, settings that a scene may give, and what
//! they build.

use std::fmt::Debug;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::RlError;
use crate::interface::{Learner, Policy};
use crate::setting::BadSetting;
use crate::task_plan::{TaskPlans, TaskWidths};

/// What is known of an agent before it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentEntry {
    /// How scenes name it, such as `Mtacp`.
    pub name: &'static str,
    /// How reports name it, such as `mtacp`.
    pub word: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// Whether it learns from its walks.
    pub learns: bool,
    /// Whether some of its walks are without noise, and show what its policy has learned. They are not learned from.
    pub shows_policy: bool,
    /// Candidates that it is given as a control when the scene does not say how many; `None` for an agent whose walks
    /// are all alike, which gets one, and takes no such number.
    pub candidates: Option<usize>,
}

impl AgentEntry {
    /// An agent that learns, and gets 100 candidates as a control unless the scene says otherwise.
    pub const fn learning(name: &'static str, word: &'static str, about: &'static str) -> Self {
        Self { name, word, about, learns: true, shows_policy: true, candidates: Some(100) }
    }

    /// An agent that learns which widths are good, and has no policy to be shown without noise.
    pub(crate) const fn searching(name: &'static str, word: &'static str, about: &'static str) -> Self {
        Self { name, word, about, learns: true, shows_policy: false, candidates: Some(100) }
    }

    /// An agent whose walks are all alike.
    pub(crate) const fn single(name: &'static str, word: &'static str, about: &'static str) -> Self {
        Self { name, word, about, learns: false, shows_policy: false, candidates: None }
    }
}

/// Share of the walks that explore which an assistant proposes: one in ten stays the policy's own.
pub(crate) const ASSISTED_SHARE: f64 = 0.9;

/// Which of its two sets of defaults an agent starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Whatever finds the best candidates in a few hundred walks.
    #[default]
    Tuned,
    /// As published, with the released code's faults corrected. Changes the scene's defaults of `keep_ratio_min`,
    /// `repair` and `spend_leftover`, too.
    Paper,
}

/// How the errors of groups are weighed against each other before their sum is made small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ErrorWeights {
    /// All alike.
    Equal,
    /// By what each group alone does to the network's output: one candidate is scored for each group.
    #[default]
    Probed,
    /// As `Probed`, from two candidates for each group, which also tell to which power its error counts.
    ProbedTwice,
}

impl ErrorWeights {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Equal, Self::Probed, Self::ProbedTwice];

    /// As the command line names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Probed => "probed",
            Self::ProbedTwice => "probed-twice",
        }
    }
}

/// The settings of an agent, complete; made from a scene, or in code.
pub trait AgentSettings: Debug + Send + Sync {
    /// Builds an agent that has learned nothing.
    ///
    /// # Errors
    /// [`RlError::OutOfRange`] for an environment the agent cannot run in.
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError>;

    /// How a plan is to weigh the errors of groups, for an agent that wants one before it acts.
    fn plan_weights(&self) -> Option<ErrorWeights> {
        None
    }

    /// As [`Self::build`], told the plans that [`Self::plan_weights`] asked for.
    ///
    /// # Errors
    /// As [`Self::build`].
    fn build_planned(&self, environment: &EnvironmentSpec, _plans: &TaskPlans) -> Result<Agent, RlError> {
        self.build(environment)
    }

    /// Every setting that does not fit the tasks of the run.
    fn check_tasks(&self, _tasks: &[TaskWidths]) -> Vec<BadSetting> {
        Vec::new()
    }

    /// Every setting that is out of its range.
    fn check(&self) -> Vec<BadSetting> {
        Vec::new()
    }

    /// Whether it can begin with what earlier runs found.
    fn learns_from_history(&self) -> bool {
        false
    }

    /// The same, but nearly all walks that explore are proposed by what errors are found to cost; none for an agent
    /// that takes no such proposals.
    fn assisted(&self) -> Option<Arc<dyn AgentSettings>> {
        None
    }

    /// The set of defaults that these settings started from.
    fn profile(&self) -> Profile {
        Profile::default()
    }
}

/// Settings that a scene can name. Serde reads them from what stands between the parentheses of `Name(…)`: give what is
/// absent a default, and refuse unknown fields.
///
/// # Example
/// An agent that always keeps the same share. A program that adds it runs scenes with `agent: Constant(keep_ratio:
/// 0.7)`.
/// ```
/// use std::sync::Arc;
///
/// use secateur_rl::{
///     ActRequest, Agent, AgentEntry, AgentKind, AgentSettings, BadSetting, Decision, EnvironmentSpec, Policy,
///     RangeCheck, RlError,
/// };
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Constant {
///     keep_ratio: f32,
/// }
///
/// impl AgentKind for Constant {
///     const ENTRY: AgentEntry = AgentEntry {
///         name: "Constant",
///         word: "constant",
///         about: "keeps the same share of every group, whatever the budget",
///         learns: false,
///         shows_policy: false,
///         candidates: None,
///     };
/// }
///
/// impl AgentSettings for Constant {
///     fn check(&self) -> Vec<BadSetting> {
///         let mut ranges = RangeCheck::default();
///         ranges.positive("keep_ratio", self.keep_ratio, 1.0);
///         ranges.finish()
///     }
///     fn build(&self, _: &EnvironmentSpec) -> Result<Agent, RlError> {
///         Ok(Agent::Fixed(Arc::new(*self)))
///     }
/// }
///
/// impl Policy for Constant {
///     fn version(&self) -> u64 {
///         0
///     }
///     fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
///         let decide = |_| Decision { keep_ratio: self.keep_ratio, ..Decision::default() };
///         Ok(batch.iter().map(decide).collect())
///     }
/// }
///
/// let wrong = Constant { keep_ratio: 1.5 }.check();
/// assert_eq!(wrong[0].problem, "is 1.5, expected a number above 0, at most 1.0");
/// ```
pub trait AgentKind: AgentSettings + Serialize + DeserializeOwned + 'static {
    /// Name and nature of the agent.
    const ENTRY: AgentEntry;
}

/// Is shown every agent of a list, as a type.
pub trait AgentVisitor {
    /// One agent.
    fn visit<K: AgentKind>(&mut self);
}

/// What an agent must know of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnvironmentSpec {
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

impl EnvironmentSpec {
    /// Whether any agent can run in it.
    ///
    /// # Errors
    /// [`RlError::OutOfRange`] with the first number that no agent can run with.
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

/// Builds an agent that has learned nothing, in an environment that was checked.
///
/// # Errors
/// [`RlError::OutOfRange`] for an environment that no agent, or not this one, can run in, and for settings out of their
/// range.
pub fn build(settings: &dyn AgentSettings, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
    build_planned(settings, environment, None)
}

/// As [`build`], for an agent that may have asked for plans.
///
/// # Errors
/// As [`build`].
pub fn build_planned(
    settings: &dyn AgentSettings,
    environment: &EnvironmentSpec,
    plans: Option<&TaskPlans>,
) -> Result<Agent, RlError> {
    environment.check()?;
    if let Some(BadSetting { path, problem }) = settings.check().into_iter().next() {
        return Err(RlError::Setting { path, problem });
    }
    match plans {
        Some(plans) => settings.build_planned(environment, plans),
        None => settings.build(environment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::uniform::UniformSettings;

    const ENVIRONMENT: EnvironmentSpec = EnvironmentSpec {
        n_features: 13,
        n_tasks: 2,
        n_actors: 4,
        walk_length_max: 5,
        walks_planned: 100,
        keep_ratio_min: 0.1,
        seed: 1,
    };

    #[test]
    fn environments_no_agent_can_run_in_are_refused() {
        assert!(build(&UniformSettings {}, &ENVIRONMENT).is_ok());
        for bad in [
            EnvironmentSpec { n_tasks: 0, ..ENVIRONMENT },
            EnvironmentSpec { walk_length_max: usize::MAX, ..ENVIRONMENT },
            EnvironmentSpec { keep_ratio_min: f32::NAN, ..ENVIRONMENT },
            EnvironmentSpec { keep_ratio_min: 1.001, ..ENVIRONMENT },
        ] {
            assert!(build(&UniformSettings {}, &bad).is_err(), "{bad:?}");
        }
    }
}
