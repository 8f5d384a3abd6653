//! CACP (Liu, Guo, Guo, Jiang and Chen, IEEE SPL 2021): DDPG, one network for all tasks. It sees the budget, so one
//! search learns several; rewards are taken against the mean of their budget.
//!
//! Profile Paper is AMC's with what CACP changes: 300 of 800 walks are warm-up; a walk's reward is divided among its
//! steps; it counts against a baseline of its task (that is, of budget, network and data set), which moves by 0.001
//! with each walk (released code); a walk without noise is chosen by beam. What departs:
//! * The beam is one step deep. The paper samples whole walks around the learned policy and keeps the best of a beam; a
//!   policy here sees one group at a time, and cannot walk ahead, as walls and widths are the simulation's. So of each
//!   group's actions, the actor's and some drawn near it, it takes the one that the critic values most. The draws
//!   differ from walk to walk, and the best of the noise-free walks at the end of a search is kept, as of a beam.
//! * Budgets come in turn, as many walks of each, where the paper draws one for each walk.
//! * As many gradient steps as the walk had (released code), where the paper's algorithm 1 has one a walk.
//! * The mean of a budget starts as that of its first walks, where the released code has constants for its network.
//! * Noise falls with the walks of each task, so that several budgets are explored as long as one.
//!
//! What departs from the released code of DDPG stands with [`DdpgSettings`] and its module. Profile Tuned is AMC's, on
//! one network for all tasks.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::ddpg::{CreditRule, DdpgLearner, DdpgSettings, RewardScale, SearchScope};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights, Profile};
use crate::error::RlError;
use crate::setting::BadSetting;
use crate::task_plan::TaskPlans;

/// Settings: those of DDPG agents, other defaults.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct CacpSettings(pub DdpgSettings);

impl CacpSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        Self(defaults(profile))
    }

    fn learning(&self, environment: &EnvironmentSpec, plans: Option<TaskPlans>) -> Result<Agent, RlError> {
        let learner = DdpgLearner::new(self.0.clone(), SearchScope::AllTasks, environment, plans)?;
        Ok(Agent::Learning(Box::new(learner)))
    }
}

fn defaults(profile: Profile) -> DdpgSettings {
    let of_amc = DdpgSettings::of(profile);
    match profile {
        Profile::Paper => DdpgSettings {
            warmup: 0.375,
            credit: CreditRule::Divided,
            reward_scale: RewardScale::AboveMean(0.001),
            beam: 8,
            ..of_amc
        },
        Profile::Tuned => DdpgSettings { beam: 8, ..of_amc },
    }
}

impl<'de> Deserialize<'de> for CacpSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DdpgSettings::deserialize_over(deserializer, defaults).map(Self)
    }
}

impl AgentKind for CacpSettings {
    const ENTRY: AgentEntry =
        AgentEntry::learning("Cacp", "cacp", "DDPG with replay, one network for all tasks, conditioned on the budget");
}

impl AgentSettings for CacpSettings {
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        self.learning(environment, None)
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        self.0.plan_weights()
    }

    fn build_planned(&self, environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        self.learning(environment, Some(plans.clone()))
    }

    fn learns_from_history(&self) -> bool {
        true
    }

    fn assisted(&self) -> Option<Arc<dyn AgentSettings>> {
        Some(Arc::new(Self(self.0.assisted())))
    }

    fn profile(&self) -> Profile {
        self.0.profile
    }

    fn check(&self) -> Vec<BadSetting> {
        self.0.out_of_range()
    }
}
