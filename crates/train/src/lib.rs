//! Actors, learners and the queue between them: the agents of `secateur-rl` at work in the process of `secateur-sim`,
//! whose first page lists all steps of a tick with the systems of both.
//!
//! Knows agents and the queue; knows no file and no network format. A learner is a system that consumes the bounded
//! crossbeam queue; actors act with the newest published policy.
//!
//! A search of ten random walks over a network of two convolutions:
//! ```
//! use std::sync::Arc;
//!
//! use secateur_kernels::Precision;
//! use secateur_net::random::with_random_weights;
//! use secateur_net::{Conv2d, Cost, GraphBuilder, Op, Protocol, Shape, fold_batch_norm};
//! use secateur_rl::agents::random::RandomSettings;
//! use secateur_sim::{
//!     CostBound, EndsAfter, FittedImages, IndexOf, Inputs, NoiseFree, PluginList, Pool, Prepared, Repair,
//!     RewardInputs, RewardKind, Settings, TaskSetup,
//! };
//! use secateur_train::{Executor, Scheduler, Search, SearchSetup};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut g = GraphBuilder::new(Shape { c: 1, h: 4, w: 4 });
//! let a = g.push("a", Op::Conv2d(Conv2d::square(1, 8, 3, 1, 1)), &[0]);
//! let b = g.push("b", Op::Conv2d(Conv2d::square(8, 8, 3, 1, 1)), &[a]);
//! let pooled = g.push("pool", Op::GlobalAvgPool, &[b]);
//! g.push("out", Op::Linear { in_features: 8, out_features: 2, bias: true }, &[pooled]);
//! let images = |n: usize| (0..16 * n).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<f32>>();
//!
//! let pool = Pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build()?));
//! let prepared = Prepared::new(
//!     &pool.0,
//!     Inputs {
//!         network_name: "two".into(),
//!         dataset_name: "ramps".into(),
//!         network_index: IndexOf::ONLY,
//!         dataset_index: IndexOf::ONLY,
//!         network: fold_batch_norm(&with_random_weights(g.finish()?, 1))?,
//!         protocol: Protocol::Inner,
//!         criterion: None,
//!         norm_orders: Default::default(),
//!         repair: Repair::Sequential,
//!         walk_images: 20,
//!         precision: Precision::F32,
//!         fitted: FittedImages::new(images(20), 20 * 16, 20 * 16),
//!         reward: RewardInputs::labelled(images(10), vec![0; 10]),
//!     },
//!     |_| 1,
//!     |_, _| {},
//! )?;
//! let full = prepared.macs_full;
//! let budget = vec![CostBound { cost: Cost::Macs, max: full / 2 }];
//! let keep = Default::default();
//! let task = TaskSetup { name: "half".into(), network: 0, budget, keep, budget_ratio: 0.5, is_searched: true };
//! let setup = SearchSetup {
//!     pool,
//!     settings: Settings {
//!         channel_multiple: 1,
//!         keep_ratio_min: 0.1,
//!         spend_leftover: true,
//!         reward: RewardKind::Accuracy,
//!         finalists: 3,
//!         actors_per_task: 2,
//!         walks_per_task: 10,
//!         ends_after: EndsAfter::Walks,
//!         noise_free: NoiseFree { every: 0, last: 0 },
//!     },
//!     networks: &[Arc::new(prepared)],
//!     tasks: &[task],
//!     agent: &RandomSettings {},
//!     seed: 7,
//!     queue_capacity: 4,
//!     scheduler: Scheduler::Lockstep,
//!     executor: Executor::Single,
//! };
//! let mut search = Search::new(PluginList::default().app(&[])?, &setup)?;
//! while !search.is_done() {
//!     search.tick()?;
//! }
//! let result = &search.results()[0];
//! assert_eq!(result.stats.n_ended, 10);
//! assert!(result.finalists.iter().all(|finalist| finalist.macs <= full / 2));
//! # Ok(())
//! # }
//! ```
//!
//! Words are explained in the glossary of `secateur-net`.

mod act;
mod collect;
mod components;
mod error;
mod events;
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
pub use events::{SearchEvent, SearchLog};
pub use learn::{learn, publish_policy};
pub use rules::{SearchRules, TaskRules, check_score};
pub use saved::*;
pub use scheduler::{Executor, LearnTick, PolicySlot, Scheduler, Tickets, hold_stale_actors, receive_policy};
pub use search::{Search, SearchSetup, TaskResult};
