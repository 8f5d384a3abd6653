//! MTACP (Ma and Fang, IJCNN 2023): one recurrent Gaussian policy for all tasks, learned with IMPALA's V-trace.
//!
//! [`Profile::Paper`] has the published sizes and settings, with the released code's faults
//! corrected: rollouts are kept as floats; the log-probability is that of the raw sample under the un-squashed normal;
//! entropy is encouraged; the squash reaches all of [`keep_ratio_min`, 1]. [`Profile::Tuned`]
//! departs further: see [`MtacpSettings`].

mod batch;
pub(super) mod errors;
mod frame;
mod learner;
mod loss;
mod memory;
mod net;
mod policy;
mod report;
mod settings;
#[cfg(test)]
mod tests;

pub use learner::MtacpLearner;
pub use settings::{MtacpSettings, ObserveRule, PolicyObjective, SigmaRule, StartRule, UnrollRule};

use std::sync::Arc;

use crate::agent::{
    ASSISTED_SHARE, Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights, Profile,
};
use crate::error::RlError;
use crate::setting::BadSetting;
use crate::task_plan::TaskPlans;

impl AgentKind for MtacpSettings {
    const ENTRY: AgentEntry = AgentEntry {
        name: "Mtacp",
        word: "mtacp",
        about: "multi-task actor-critic (IMPALA, V-trace, LSTM)",
        learns: true,
        shows_policy: true,
        candidates: Some(300),
    };
}

impl AgentSettings for MtacpSettings {
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Agent::Learning(Box::new(MtacpLearner::new(self.clone(), environment)?)))
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        let asks = self.start == StartRule::Knapsack || self.observe == ObserveRule::Errors || self.planned_share > 0.0;
        asks.then_some(self.planning.weights)
    }

    fn build_planned(&self, environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(Agent::Learning(Box::new(MtacpLearner::with_plans(self.clone(), environment, Some(plans.clone()))?)))
    }

    fn learns_from_history(&self) -> bool {
        true
    }

    fn assisted(&self) -> Option<Arc<dyn AgentSettings>> {
        Some(Arc::new(Self { planned_share: self.planned_share.max(ASSISTED_SHARE), ..self.clone() }))
    }

    fn profile(&self) -> Profile {
        self.profile
    }

    fn check(&self) -> Vec<BadSetting> {
        self.out_of_range()
    }
}
