//! A team of agents, one for each channel group, that decide at once and are learned as QMIX learns: after QMIX_FP (Li,
//! Zuo, Song, Liang and Xie, Scientific Reports 14:31193, 2024).
//!
//! A *reconstruction from the abstract*: of the article only that could be had. It says that each convolution has an
//! agent, that QMIX (Rashid and others, ICML 2018) credits them, that pruning is iterative, and that the result is
//! fine-tuned with distillation. What is observed, what actions are, rewards and all numbers are not in it. Sizes and
//! settings of [`Profile::Paper`] are those of QMIX's released code (PyMARL); the rest is our choice. No number of the
//! article can be compared with.
//!
//! Both profiles share these: agents have one network, whose input tells which agent it is; hypernetworks of the joint
//! state make the mixing weights, which are not negative, so that the team's value does not fall when an agent's rises;
//! targets are those of double Q-learning; whole episodes are replayed.
//!
//! Departures and how it fits a walk:
//! * The pruning iterations of an episode happen on widths, inside the decision of a walk's first group; only the last
//!   widths become a candidate, so there is one score for each episode. Differences of scores between iterations, which
//!   would be its dense reward, have the same sum but for a constant, and are paid at the last; what iterations save
//!   in cost is paid at each. The score is no part of the mixer's state for the same reason.
//! * What levels leave of the budget is spent on the groups whose error falls most by it; the actions learned from are
//!   those that were chosen.
//! * Networks are not fine-tuned between iterations, whose networks are never made. What the last one leaves is
//!   distilled from the dense network for a few steps before it is scored where a scene asks for it
//!   (`tune_before_score`), and winners can be fine-tuned with distillation (`tune`).
//! * [`Profile::Paper`] is meant with `selection: L2` and `repair: Off` in the scene.
//!
//! QMIX promises that each agent's own best action is the team's best. A budget that all share takes that away: the
//! best actions together may cost too much. [`BudgetRule::Wall`] lets the environment cut what is over, in layer order.
//! [`BudgetRule::Knapsack`] takes the joint action of most value *within* the budget. With [`ValueMixing::Vdn`], whose
//! value is the plain sum, that is exactly a knapsack over the agents' values. With [`ValueMixing::Qmix`] it is one
//! over values weighed by the slope of the team's value at the joint action before, begun at the greedy one and
//! repeated; with [`ValueMixing::Independent`] that of the plain sum, although no value says so.

mod actions;
mod features;
mod joint;
mod learner;
mod loss;
mod net;
mod policy;
mod replay;
mod settings;
mod team;
#[cfg(test)]
mod tests;

pub use learner::QmixFpLearner;
pub use settings::{BudgetRule, Exploration, QmixFpSettings, TargetRule, TeamActions, TeamReward, ValueMixing};

#[cfg(doc)]
use crate::agent::Profile;
use crate::agent::{Agent, AgentEntry, AgentKind, AgentSettings, EnvironmentSpec, ErrorWeights};
use crate::error::RlError;
use crate::setting::BadSetting;
use crate::task_plan::TaskPlans;

impl AgentKind for QmixFpSettings {
    const ENTRY: AgentEntry = AgentEntry::learning(
        "QmixFp",
        "qmix_fp",
        "one agent for each group, all deciding at once (QMIX; reconstructed from QMIX_FP's abstract)",
    );
}

impl AgentSettings for QmixFpSettings {
    fn build(&self, environment: &EnvironmentSpec) -> Result<Agent, RlError> {
        Ok(Agent::Learning(Box::new(QmixFpLearner::new(self.clone(), environment, None)?)))
    }

    fn plan_weights(&self) -> Option<ErrorWeights> {
        let measured = self.prior > 0.0 || self.observe == super::mtacp::ObserveRule::Errors;
        Some(if measured { ErrorWeights::Probed } else { ErrorWeights::Equal })
    }

    fn build_planned(&self, environment: &EnvironmentSpec, plans: &TaskPlans) -> Result<Agent, RlError> {
        Ok(Agent::Learning(Box::new(QmixFpLearner::new(self.clone(), environment, Some(plans))?)))
    }

    fn profile(&self) -> crate::agent::Profile {
        self.profile
    }

    fn check(&self) -> Vec<BadSetting> {
        self.out_of_range()
    }
}
