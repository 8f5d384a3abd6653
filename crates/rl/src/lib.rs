//! Agents, losses, returns and serialisable optimisers, on candle. Knows nothing of ECS, files or threads.
//!
//! An actor asks a [`Policy`] for one keep ratio per channel group ([`ActRequest`] to [`Decision`]); what it
//! lived through goes as [`Unroll`]s to a [`Learner`], which publishes the next policy. All randomness comes
//! from [`rng::RngStream`]s; results depend neither on threads nor on which rows share a batch.
//!
//! One decision of an untrained agent, by the settings of a scene's `agent: Mtacp(learning_rate: 1e-3)`:
//! ```
//! use secateur_rl::agents::mtacp::MtacpSettings;
//! use secateur_rl::{ActRequest, Agent, EnvironmentSpec, Profile, build};
//!
//! let settings = MtacpSettings { learning_rate: 1e-3, ..MtacpSettings::of(Profile::Tuned) };
//! let environment = EnvironmentSpec {
//!     n_features: 4,
//!     n_tasks: 1,
//!     n_actors: 2,
//!     walk_length_max: 9,
//!     walks_planned: 300,
//!     keep_ratio_min: 0.1,
//!     seed: 7,
//! };
//! let Agent::Learning(learner) = build(&settings, &environment)? else { unreachable!("MTACP learns") };
//! let observation = vec![0.5; 4];
//! let request = ActRequest { n_layers: 9, observation, even_ratio: 0.6, explore: true, ..ActRequest::default() };
//! let decisions = learner.policy().act(&[request])?;
//! assert!((0.1..=1.0).contains(&decisions[0].keep_ratio));
//! # Ok::<(), secateur_rl::RlError>(())
//! ```
//!
//! How other algorithms fit the same two traits:
//! * DDPG with replay (AMC, CACP): `unroll_length` = one walk; `learn` copies the last reward to every step,
//!   appends to its own replay ring and takes as many gradient steps as the unroll has steps; `log_prob` and
//!   `value` stay 0; `raw_action` is the action before the wall, which the published agents store.
//! * PPO: `unroll_length` = one walk; `learn` computes its advantages from the stored `value` and
//!   `log_prob`, then takes several epochs over the batch.
//! * QMIX, one agent per layer, all deciding at once: at layer 0 the policy decides for all `n_layers` agents from
//!   the task's observation and keeps the plan in `recurrent`; later layers read it from there. `learn` gets
//!   whole walks: one joint action, one reward.
//! * Gradient-free searches (cross-entropy, evolution): as QMIX, the plan of walk `walk` is drawn at layer 0
//!   from a stream keyed by (seed, task, walk) and the published distribution; `learn` ranks whole walks by
//!   their reward and moves the distribution.
//!
//! Words are explained in the glossary of `secateur-net`.

pub mod agent;
pub mod agents;
mod error;
mod inheritance;
mod interface;
pub mod nn;
pub mod optim;
pub mod returns;
pub mod rng;
mod setting;
pub mod state;
mod task_plan;
mod unroll;

pub use agent::{
    Agent, AgentEntry, AgentKind, AgentSettings, AgentVisitor, EnvironmentSpec, ErrorWeights, Profile, build,
    build_planned,
};
pub use agents::value_of_error::{SourceGroup, SourceTask, SourceWalk};
pub use agents::{AGENTS, visit_agents};
pub use error::RlError;
pub use inheritance::{Inheritance, TaskOrigin};
pub use interface::{ActRequest, Decision, LearnReport, Learner, Policy};
pub use setting::{BadSetting, RangeCheck};
pub use task_plan::{GroupLook, GroupWidths, TaskPlan, TaskPlans, TaskWidths, WidthLoss};
pub use unroll::{Unroll, UnrollState, UnrollStep, save_unrolls};
