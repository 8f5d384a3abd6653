//! PPO (Schulman, Wolski, Dhariwal, Radford and Klimov 2017) as the ablation of MTACP's Table III: MTACP's network
//! without the LSTM, the clipped surrogate in place of V-trace, unrolls of one walk, several passes over each batch.
//!
//! The table tells no settings of its PPO. Profile Paper takes those of the PPO paper: Adam 3e-4, 10 passes, discount
//! 0.99 and lambda 0.95 (its table 3), value and entropy coefficients 1 and 0.01 for a network that both share (its
//! table 5). Passes are over whole batches, not over parts of them: a batch here is a few dozen steps.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::mtacp::{MtacpSettings, PolicyObjective, UnrollRule};
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights, Profile};
use crate::error::RlError;
use crate::optim::OptimizerRule;
use crate::returns::vtrace::VtraceClip;
use crate::setting::BadSetting;
use crate::task_plan::TaskPlans;

/// Settings: those of MTACP, other defaults.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PpoSettings(pub MtacpSettings);

impl PpoSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        Self(defaults(profile))
    }
}

fn defaults(profile: Profile) -> MtacpSettings {
    let base = MtacpSettings::without_remedies(profile);
    let objective = PolicyObjective::Clipped { range: 0.2 };
    let clip = VtraceClip { lambda: 0.95, ..VtraceClip::default() };
    match profile {
        Profile::Paper => MtacpSettings {
            objective,
            clip,
            unroll: UnrollRule::Walk,
            passes: 10,
            optimizer: OptimizerRule::ADAM,
            learning_rate: 3e-4,
            learning_rate_end: 1.0,
            // Of half the squared error.
            value_weight: 2.0,
            mean_losses: true,
            ..base
        },
        Profile::Tuned => MtacpSettings { objective, clip, discount: 0.99, ..base },
    }
}

impl<'de> Deserialize<'de> for PpoSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        MtacpSettings::deserialize_over(deserializer, defaults).map(Self)
    }
}

impl AgentKind for PpoSettings {
    const ENTRY: AgentEntry = AgentEntry::learning(
        "Ppo",
        "ppo",
        "multi-task actor-critic with a clipped surrogate, several passes over whole walks",
    );
}

impl AgentSettings for PpoSettings {
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
