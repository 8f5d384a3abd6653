//! AMC (He, Lin, Liu, Wang, Li and Han, ECCV 2018): DDPG, one search for each task. Tasks of one scene share nothing:
//! each has actor, critic, replay ring and baseline of its own.
//!
//! Profile Paper has the published settings where they are known, else those of the released code: 300 units twice,
//! Adam 1e-4 and 1e-3, batches of 64 steps, discount 1, targets that follow at 0.01, noise of deviation 0.5 that falls
//! by 0.95 a walk behind a warm-up (100 of 400 walks: a quarter), a baseline that moves half way with each batch, and
//! the reward of a walk copied to each of its steps. The ring has 100 walks (released code; the paper's 2,000 steps are
//! as many on a network with 20 groups). The least keep ratio, the refit and the leftover budget are those of every
//! agent's profile Paper. What departs from the released code, and why, stands with [`DdpgSettings`] and its module.
//!
//! Profile Tuned acts around the knapsack's widths, remembers what the budget made of an action, sees which group it
//! decides, learns from rewards in units of their deviation, imitates the best walks, and takes one larger gradient
//! step a walk with a smaller network. On the synthetic tasks of this crate's tests imitation and the place bring most
//! of it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::ddpg::{DdpgLearner, DdpgSettings, SearchScope};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights, Profile};
use crate::error::RlError;
use crate::setting::BadSetting;
use crate::task_plan::TaskPlans;

/// Settings: those of DDPG agents.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct AmcSettings(pub DdpgSettings);

impl AmcSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        Self(DdpgSettings::of(profile))
    }

    fn learning(&self, environment: &EnvironmentSpec, plans: Option<TaskPlans>) -> Result<Agent, RlError> {
        let learner = DdpgLearner::new(self.0.clone(), SearchScope::EachTask, environment, plans)?;
        Ok(Agent::Learning(Box::new(learner)))
    }
}

impl<'de> Deserialize<'de> for AmcSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DdpgSettings::deserialize_over(deserializer, DdpgSettings::of).map(Self)
    }
}

impl AgentKind for AmcSettings {
    const ENTRY: AgentEntry = AgentEntry::learning("Amc", "amc", "DDPG with replay, one search for each task");
}

impl AgentSettings for AmcSettings {
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
