//! The pruning process as an ECS world: networks, layers, tasks, actors and candidates are entities, each step is a
//! system.
//!
//! A *walk* is one pass over the prunable groups of a network, one decision each; a *tick* is one decision of every
//! actor, and what follows from it; a *step* is a part of a tick; a [candidate](CandidateId) is what a walk ends with.
//! [`add_process`] puts the systems of this crate into the steps; those of `secateur-train` join them, and a plugin
//! adds its own (see [`PruningPlugin`]) without touching either. This crate never touches files, threads of its own or
//! agents.
//!
//! | [`Step`] | systems | of |
//! |---|---|---|
//! | `Observe` | (`hold_stale_actors`, under a bounded lag,) [`observe_layers`] | train, sim |
//! | `Act` | `ask_policy`, `act` | train |
//! | `Clamp` | [`clamp_keep_ratio`] | sim |
//! | `Select` | [`select_channels`] | sim |
//! | `Repair` | [`recall_scores`], [`repair_candidates`], which runs the schedule [`BuildBatch`] | sim |
//! | (`BuildBatch`) | [`build_batch`] (, the card's `hand_to_card`) | sim (, run) |
//! | `Score` | (the card's `score_on_card`,) [`score_candidates`] | (run,) sim |
//! | `Wait` | [`await_scores`], which runs the schedule [`ScoreArrivals`]; [`share_scores`], [`settle_actors`] | sim |
//! | `Reward` | [`write_reward`] | sim |
//! | | [`close_decisions`] | sim |
//! | `Collect` | `forget_failed_walks`, `collect_steps` | train |
//! | `Enqueue` | `enqueue_trajectories` | train |
//! | `Learn` | `learn`, under lockstep; else in a world of the learner's own, with its schedule `LearnTick` | train |
//! | `Publish` | `publish_policy`, under lockstep; else `receive_policy` | train |
//! | `Record` | [`record_candidates`], [`begin_walks`], [`restart_actors`] | sim |
//!
//! A plugin that pays candidates less the more they cost:
//! ```
//! use bevy_app::App;
//! use bevy_ecs::prelude::*;
//! use secateur_scene::{PluginConfig, SceneError};
//! use secateur_sim::{Macs, PruningPlugin, Reward, Score, Step, Tick, write_reward};
//!
//! fn charge(mut candidates: Query<(&Macs, &mut Reward), With<Score>>) {
//!     for (macs, mut reward) in &mut candidates {
//!         reward.0 -= 1e-9 * macs.0 as f32;
//!     }
//! }
//!
//! struct Charge;
//!
//! impl PruningPlugin for Charge {
//!     fn name(&self) -> &str {
//!         "charge"
//!     }
//!     fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
//!         app.add_systems(Tick, charge.in_set(Step::Reward).after(write_reward));
//!         Ok(())
//!     }
//! }
//!
//! let mut plugins = secateur_sim::PluginList::default();
//! plugins.add(Charge);
//! let app = plugins.app(&[])?;
//! assert!(app.get_schedule(Tick).is_some());
//! # Ok::<(), SceneError>(())
//! ```
//!
//! Words are explained in [`secateur_net::glossary`].

mod candidate;
mod caught;
mod components;
mod error;
mod evaluate;
mod events;
mod finish;
mod fitted_images;
mod network;
mod observation;
mod output_error;
mod plugin;
mod record;
mod repair;
mod restart;
mod reward_images;
mod score;
mod scoring;
mod select;
mod selection;
mod step_times;
mod tournament;
mod walk;
mod wall;
mod widths;
mod world;

use bevy_app::App;
use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{LogLevel, ScheduleBuildSettings, ScheduleLabel, SingleThreadedExecutor};

pub use candidate::*;
pub use caught::{Caught, guarded, panic_message};
pub use components::*;
pub use error::SimError;
pub use evaluate::{Build, Evaluate, Evaluator, RefitAndScore};
pub use events::{EventLog, ProcessEvent};
pub use finish::{FinalRefit, Rank, Winner};
pub use fitted_images::FittedImages;
pub use network::{Criterion, IndexOf, Inputs, Prepared, RankedGroup, Repair, batch_norm_scales, removal_paths};
pub use observation::{FeatureScale, GroupShape, N_FEATURES, Standing, observation_len, observe};
pub use output_error::{DenseOutputs, ErrorScale, ErrorUnit, OutputPart, SquaredErrors, mean_error};
pub use plugin::{PluginList, PruningPlugin};
pub use record::{ScoredCandidate, close_decisions, record_candidates, write_reward};
pub use repair::{BatchSize, BuildBatch, build_batch, recall_scores, repair_candidates};
pub use restart::restart_actors;
pub use reward_images::{RewardImages, RewardInputs, class_divergence, largest_output, whole_output};
pub use score::{EarlierScores, RewardKind, Score, ScoreCache, unpack};
pub use scoring::{
    ArrivalTicks, LateScores, ScoreArrivals, await_scores, score_candidates, settle_actors, share_scores,
};
pub use select::select_channels;
pub use selection::Selection;
pub use step_times::{StepTimes, measure_steps};
pub use tournament::{Field, RefitCount, RefitKey, RefitRanks, Round, Tournament};
pub use walk::{begin_walks, clamp_keep_ratio, observe_layers};
pub use wall::{BudgetWall, CostBound, Unreachable};
pub use widths::{KeepRange, WidthBounds, WidthRules};
pub use world::{NoiseFree, ObservationSpace, Pool, Settings, TaskSetup, TickFailure, populate, spawn_network};

/// The schedule of one tick: one decision of every actor, and what follows from it.
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tick;

/// The parts of a tick, in this order.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Actors see their layer.
    Observe,
    /// The policy asks for keep ratios.
    Act,
    /// The budget wall turns them into widths.
    Clamp,
    /// At the end of a walk, the channels that stay are chosen.
    Select,
    /// The candidate's consumers are refitted.
    Repair,
    /// It is scored on the reward images.
    Score,
    /// Scores from elsewhere arrive, or are waited for; actors without a score wait, or begin again.
    Wait,
    /// The walk is paid. Plugins that change [`Reward`] run after [`write_reward`].
    Reward,
    /// Decisions become trajectories.
    Collect,
    /// Trajectories go to the queue.
    Enqueue,
    /// Learners consume it.
    Learn,
    /// The newest policy is published.
    Publish,
    /// Statistics are kept, events noted, and new walks begun.
    Record,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Self; 13] = [
        Self::Observe,
        Self::Act,
        Self::Clamp,
        Self::Select,
        Self::Repair,
        Self::Score,
        Self::Wait,
        Self::Reward,
        Self::Collect,
        Self::Enqueue,
        Self::Learn,
        Self::Publish,
        Self::Record,
    ];
}

/// Adds the schedule [`Tick`] with all sets in order and the systems of this crate. Two systems whose order matters and
/// is not given are an error when the schedule is built.
pub fn add_process(app: &mut App) {
    for mut schedule in [Schedule::new(Tick), Schedule::new(BuildBatch), Schedule::new(ScoreArrivals)] {
        schedule.set_executor(SingleThreadedExecutor::new());
        schedule.set_build_settings(ScheduleBuildSettings {
            ambiguity_detection: LogLevel::Error,
            ..ScheduleBuildSettings::default()
        });
        app.add_schedule(schedule);
    }
    order_steps(app);
    app.add_systems(
        Tick,
        (
            observe_layers.in_set(Step::Observe),
            clamp_keep_ratio.in_set(Step::Clamp),
            select_channels.in_set(Step::Select),
            (recall_scores, repair_candidates).chain().in_set(Step::Repair),
            score_candidates.in_set(Step::Score),
            (await_scores, share_scores, settle_actors).chain().in_set(Step::Wait),
            write_reward.in_set(Step::Reward),
            close_decisions.after(Step::Reward).before(Step::Collect),
            (record_candidates, begin_walks, restart_actors).chain().in_set(Step::Record),
        ),
    );
    app.add_systems(BuildBatch, build_batch);
    app.init_resource::<BatchSize>();
    app.init_resource::<ArrivalTicks>();
    app.init_resource::<LateScores>();
    app.init_resource::<EventLog>();
}

fn order_steps(app: &mut App) {
    app.configure_sets(
        Tick,
        (
            Step::Observe,
            Step::Act,
            Step::Clamp,
            Step::Select,
            Step::Repair,
            Step::Score,
            Step::Wait,
            Step::Reward,
            (Step::Collect, Step::Enqueue, Step::Learn, Step::Publish).chain(),
            Step::Record,
        )
            .chain(),
    );
}
