//! DDPG (Lillicrap et al., ICLR 2016) with the replay, noise and baseline of AMC's released code, which CACP shares:
//! what the agents `amc` and `cacp` are made of. `amc` has one search for each task, `cacp` one for all.
//!
//! Of a search: an actor (features to an action in [0, 1]), a critic (features and action, which enters the first
//! layer, to a value), their targets, which follow softly, a ring of the last walks, and a moving baseline. After each
//! walk it takes as many gradient steps as the walk had, each on a batch from the ring.
//!
//! What departs from the released code, whatever the settings say:
//! * A walk is appended as a whole before its gradient steps, not step by step between them.
//! * Several actors walk at once, so a policy is used for as many walks of a task as it has actors.
//! * Observations are those of the simulation (MTACP's), which contain AMC's.
//! * Walks that show the policy without noise are neither learned from nor counted by the schedules.
//! * Warm-up is a share of the walks, not a number of them, so that small budgets of candidates keep room to learn.
//! * The first step of a walk is learned from like any other: the released memory, which lost a row that marked ends,
//!   never samples it, but for the oldest walk. [`DdpgSettings::skip_first_steps`] brings that back.

mod actor_critic;
mod frame;
mod inherit;
mod learner;
mod net;
mod noise;
mod policy;
mod replay;
mod settings;
mod task_reward;
#[cfg(test)]
mod tests;

pub(super) use frame::SearchScope;
pub(super) use learner::DdpgLearner;
pub use settings::{ActionRule, CreditRule, DdpgSettings, RewardScale, SigmaDecay, StoredAction, UpdateRule};
