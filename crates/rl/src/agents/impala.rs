//! IMPALA (Espeholt et al., ICML 2018) as the ablation of MTACP's Table III: MTACP's network and learner without the
//! LSTM, and without what is done against sparse rewards.
//!
//! Of profile Tuned's remedies, a discount of 1, imitation of the best walks and planned walks go; rewards stay in
//! units of their standard deviation, which only keeps one learning rate right for every task. The table names no other
//! difference.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::mtacp::MtacpSettings;
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights, Profile};
use crate::error::RlError;
use crate::setting::BadSetting;
use crate::task_plan::TaskPlans;

/// Settings: those of MTACP, other defaults.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ImpalaSettings(pub MtacpSettings);

impl ImpalaSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        Self(defaults(profile))
    }
}

fn defaults(profile: Profile) -> MtacpSettings {
    let base = MtacpSettings::without_remedies(profile);
    match profile {
        Profile::Paper => base,
        Profile::Tuned => MtacpSettings { discount: 0.99, ..base },
    }
}

impl<'de> Deserialize<'de> for ImpalaSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        MtacpSettings::deserialize_over(deserializer, defaults).map(Self)
    }
}

impl AgentKind for ImpalaSettings {
    const ENTRY: AgentEntry =
        AgentEntry::learning("Impala", "impala", "multi-task actor-critic with V-trace alone: no LSTM, no imitation");
}

impl AgentSettings for ImpalaSettings {
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        self.0.build(environment)
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        self.0.plan_weights()
    }

    fn build_planned(&self, environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        self.0.build_planned(environment, plans)
    }

    fn learns_from_history(&self) -> bool {
        self.0.learns_from_history()
    }

    fn assisted(&self) -> Option<Arc<dyn AgentSettings>> {
        self.0.assisted()
    }

    fn profile(&self) -> Profile {
        self.0.profile
    }

    fn check(&self) -> Vec<BadSetting> {
        self.0.check()
    }
}
