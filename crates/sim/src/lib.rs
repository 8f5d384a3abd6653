//! The pruning process as an ECS world: tasks, layers, actors and candidates are entities, each step is a system.
//!
//! [`add_process`] lists the whole step in order. The sets of [`Step`] are public: a plugin adds systems to them (see
//! [`PruningPlugin`]) without touching ours. This crate never touches files, threads of its own or agents: the systems of
//! [`Step::Act`], [`Step::Collect`], [`Step::Enqueue`], [`Step::Learn`] and [`Step::Publish`] come from above.
//!
//! Words are explained in [`secateur_net::glossary`].

mod candidates;
mod components;
mod error;
mod evaluate;
mod events;
mod finish;
mod observation;
mod plugin;
mod prepare;
mod restart;
mod score;
mod step_times;
mod walk;
mod wall;
mod world;

use bevy_app::App;
use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{LogLevel, ScheduleBuildSettings, ScheduleLabel, SingleThreadedExecutor};

pub use candidates::{
    close_decisions, record_candidates, repair_candidates, score_candidates, select_channels, write_reward,
};
pub use components::*;
pub use error::SimError;
pub use evaluate::{Build, Evaluate, Evaluator, Measured, OnBuilt, TellBuilt, panic_message};
pub use events::{Event, EventLog};
pub use finish::{FinalRefit, Rank, Winner};
pub use observation::{FeatureScale, GroupShape, N_FEATURES, Standing, observation_len, observe};
pub use plugin::{PluginList, PruningPlugin};
pub use prepare::{Inputs, Prepared, Repair, Selection};
pub use restart::{fail_candidates, restart_actors};
pub use score::{RewardImages, RewardKind, Score, ScoreCache, unpack};
pub use step_times::{StepTimes, measure_steps};
pub use walk::{begin_walks, clamp_keep_ratio, observe_layers};
pub use wall::{BudgetWall, Unreachable, WidthBounds};
pub use world::{Failure, NoiseFree, ObservationSpace, Pool, Settings, TaskSetup, populate};

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
    /// The walk is paid. Plugins that change [`Candidate::reward`] run after [`write_reward`].
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
    pub const ALL: [Self; 12] = [
        Self::Observe,
        Self::Act,
        Self::Clamp,
        Self::Select,
        Self::Repair,
        Self::Score,
        Self::Reward,
        Self::Collect,
        Self::Enqueue,
        Self::Learn,
        Self::Publish,
        Self::Record,
    ];
}

/// Adds the schedule [`Tick`] with all sets in order and the systems of this crate. Two systems whose order matters and is not
/// given are an error when the schedule is built.
pub fn add_process(app: &mut App) {
    let mut schedule = Schedule::new(Tick);
    schedule.set_executor(SingleThreadedExecutor::new());
    schedule.set_build_settings(ScheduleBuildSettings {
        ambiguity_detection: LogLevel::Error,
        ..ScheduleBuildSettings::default()
    });
    schedule.configure_sets(
        (
            Step::Observe,
            Step::Act,
            Step::Clamp,
            Step::Select,
            Step::Repair,
            Step::Score,
            Step::Reward,
            (Step::Collect, Step::Enqueue, Step::Learn, Step::Publish).chain(),
            Step::Record,
        )
            .chain(),
    );
    schedule.add_systems((
        observe_layers.in_set(Step::Observe),
        clamp_keep_ratio.in_set(Step::Clamp),
        select_channels.in_set(Step::Select),
        repair_candidates.in_set(Step::Repair),
        (score_candidates, fail_candidates).chain().in_set(Step::Score),
        write_reward.in_set(Step::Reward),
        close_decisions.after(Step::Reward).before(Step::Collect),
        (record_candidates, begin_walks, restart_actors).chain().in_set(Step::Record),
    ));
    app.add_schedule(schedule);
    app.init_resource::<EventLog>();
}
