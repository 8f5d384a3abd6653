//! Actors, learners and the queue between them: the agents of `rl` at work in the process of `sim`.
//!
//! Knows agents and the queue; knows no file and no network format. A learner is a system that consumes the bounded crossbeam
//! queue; actors act with the newest published policy.
//!
//! Words are explained in [`secateur_net::glossary`].

mod act;
mod collect;
mod components;
mod error;
#[cfg(test)]
mod hand_made;
mod learn;
mod rules;
mod save;
mod saved;
mod scheduler;
mod search;

pub use act::{act, ask_policy};
pub use collect::{collect_steps, enqueue_trajectories, forget_failed_walks};
pub use components::*;
pub use error::TrainError;
pub use learn::{learn, publish_policy};
pub use rules::{SearchRules, TaskRules, check_score};
pub use saved::*;
pub use scheduler::{Executor, LearnTick, PolicySlot, Scheduler, Tickets, hold_stale_actors, receive_policy};
pub use search::{Search, SearchSetup, TaskResult};
