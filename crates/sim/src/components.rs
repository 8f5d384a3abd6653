//! What the entities of the world are made of. Plain data; every order-sensitive system sorts by the stable indices
//! here, never by `Entity` or iteration order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_kernels::RemovalPath;
use secateur_net::{GroupId, KeptChannels};
use serde::{Deserialize, Serialize};

use crate::network::Prepared;
use crate::score::Score;
use crate::wall::BudgetWall;

/// A network on one data set: graph, counts, images. Its index counts the (network, data set) pairs of the run.
#[derive(Component, Clone, Debug)]
pub struct PrunedNetwork {
    /// Place among the pairs.
    pub index: usize,
    /// Everything about it that does not change during a run.
    pub prepared: Arc<Prepared>,
    /// Its [`Layer`]s, in walk order.
    pub layers: Vec<Entity>,
}

/// A prunable group of a network. Its [`Importance`] decides which channels go.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The network's entity.
    pub network: Entity,
    /// Place in the walk, from 0.
    pub place: usize,
    /// The group.
    pub group: GroupId,
}

/// In which order a layer loses its channels, and what each loss costs. [`crate::select_channels`] reads it at the end
/// of every walk; what is prepared (`Prepared::paths`) is only what it begins with.
///
/// A plugin that keeps the first channels of every layer, whatever the scene's selection says:
/// ```
/// use std::sync::Arc;
///
/// use bevy_ecs::prelude::*;
/// use secateur_sim::Importance;
///
/// fn keep_the_first(mut layers: Query<&mut Importance, Added<Importance>>) {
///     for mut importance in &mut layers {
///         Arc::make_mut(&mut importance.0).removed.sort_by_key(|&channel| std::cmp::Reverse(channel));
///     }
/// }
/// # bevy_ecs::system::assert_is_system(keep_the_first);
/// ```
#[derive(Component, Clone, Debug)]
pub struct Importance(pub Arc<RemovalPath>);

/// One network, one data set, one budget.
#[derive(Component, Clone, Debug)]
pub struct PruneTask {
    /// Place in the scene's list of tasks.
    pub index: usize,
    /// Unique name.
    pub name: String,
    /// The network's entity.
    pub network: Entity,
    /// Bound over original cost, α.
    pub budget_ratio: f32,
}

/// The budget of a task, as a wall no walk can cross.
#[derive(Component, Clone, Debug)]
pub struct Budget(pub Arc<BudgetWall>);

/// Walks of a task.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskStats {
    /// Walks begun.
    pub n_begun: u64,
    /// Walks ended, hence candidates scored (cache hits included).
    pub n_ended: u64,
    /// Candidates whose score was in the cache.
    pub n_cache_hits: u64,
    /// Walks to do, or candidates to score, as [`EndsAfter`] says.
    pub n_wanted: u64,
}

/// What is counted until a task has no walks left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndsAfter {
    /// Walks, whether or not their candidates were known.
    #[default]
    Walks,
    /// Candidates that were scored: those known already cost next to nothing. A task has five times as many walks at
    /// most, for a policy may propose nothing new any more.
    Scored,
}

impl EndsAfter {
    /// Walks of a task at most, where `n_wanted` of what is counted are wanted.
    pub const fn walks_at_most(self, n_wanted: u64) -> u64 {
        match self {
            Self::Walks => n_wanted,
            Self::Scored => n_wanted.saturating_mul(5),
        }
    }
}

impl TaskStats {
    /// Candidates that were scored.
    pub const fn n_scored(&self) -> u64 {
        self.n_ended - self.n_cache_hits
    }

    /// Whether another walk may begin. Each walk on its way counts as one that will be scored: if it is not, its actor
    /// goes on.
    pub const fn has_walks_left(&self, ends_after: EndsAfter) -> bool {
        let n_counted = match ends_after {
            EndsAfter::Walks => self.n_begun,
            EndsAfter::Scored => self.n_begun - self.n_cache_hits,
        };
        n_counted < self.n_wanted && self.n_begun < ends_after.walks_at_most(self.n_wanted)
    }
}

/// The best distinct candidates of a task so far, best first.
#[derive(Component, Clone, Debug, Default)]
pub struct Finalists {
    /// Most candidates to keep.
    pub capacity: usize,
    /// Best first, see [`crate::Rank::best_first`].
    pub best: Vec<Finalist>,
}

/// An actor, which works on one task for its whole life.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Place among all actors of the run.
    pub index: usize,
    /// The task's entity.
    pub task: Entity,
}

/// Whether an actor takes part in this tick.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// It decides.
    Acting,
    /// Something outside of the process holds it up.
    Paused,
    /// It sees its layer, but something outside of the process keeps it from deciding.
    Looking,
    /// Its walk is over, and the score of its candidate comes in a later tick.
    Scoring,
    /// Its candidate could not be scored; it begins its walk again at the end of this tick.
    Restarting,
    /// Its task has no walks left.
    Retired,
}

/// Where an actor stands in its walk.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// Number of the walk within its task, from 0.
    pub number: u64,
    /// Place of the next decision.
    pub cursor: usize,
    /// Width of every group: decided, or the least allowed, or whole if frozen.
    pub widths: Vec<usize>,
    /// Realised keep ratio of the previous decision; 0 at the start.
    pub last_action: f32,
    /// Reward of the previous decision; 0 at the start.
    pub last_reward: f32,
    /// Whether the policy acts without exploration noise.
    pub noise_free: bool,
}

/// How often an actor began again after a panic.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// In its whole life: its incarnation.
    pub n: u64,
    /// In its present walk, because its own candidate panicked.
    pub of_walk: u32,
}

/// Where the actor's walk begins again after a panic, if not at its start: behind the last step that was handed to a
/// learner, which is not to be taken twice. Written by the system that hands over.
#[derive(Component, Clone, Debug, Default, PartialEq)]
pub struct RestartPoint(pub Option<Walk>);

/// What the actor sees before its next decision.
#[derive(Component, Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// `[F]`, in [0, 1].
    pub features: Vec<f32>,
    /// Keep ratio that this and all later groups can share.
    pub even_ratio: f32,
}

/// The keep ratio the policy asks for.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq)]
pub struct KeepRatio(pub f32);

/// The decision as it was carried out: clamped by the wall, rounded to a width.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq)]
pub struct Realised {
    /// Place of the decision in the walk.
    pub place: usize,
    /// Kept over original channels.
    pub keep_ratio: f32,
}

/// The candidate at the end of the actor's walk, until it is recorded.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkEnd(pub Option<Entity>);

/// Reward of this tick's decision.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReward {
    /// 0 before the last decision of a walk.
    pub reward: f32,
    /// Whether the decision was the last of its walk.
    pub ends_walk: bool,
}

/// What every actor has from the start.
#[derive(Bundle, Clone, Debug)]
pub struct ActorBundle {
    /// Which, and on what.
    pub actor: Actor,
    /// Whether it takes part.
    pub readiness: Readiness,
    /// Where it stands.
    pub walk: Walk,
    /// How often it began again.
    pub restarts: Restarts,
    /// Where it would begin again.
    pub restart_point: RestartPoint,
    /// What it sees.
    pub observation: Observation,
    /// What its policy asks for.
    pub keep_ratio: KeepRatio,
    /// What the wall made of that.
    pub realised: Realised,
    /// What its walk ended with.
    pub walk_end: WalkEnd,
    /// What it is paid.
    pub step_reward: StepReward,
}

impl ActorBundle {
    /// An actor that acts, before the first decision of `walk`.
    pub fn new(actor: Actor, walk: Walk) -> Self {
        Self {
            actor,
            readiness: Readiness::Acting,
            walk,
            restarts: Restarts::default(),
            restart_point: RestartPoint::default(),
            observation: Observation::default(),
            keep_ratio: KeepRatio::default(),
            realised: Realised::default(),
            walk_end: WalkEnd::default(),
            step_reward: StepReward::default(),
        }
    }
}

/// A scored candidate that may be refitted after the walks: what is left of the candidate's entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Finalist {
    /// The walk it ended.
    pub walk: u64,
    /// Whether that walk was free of noise.
    pub noise_free: bool,
    /// Kept channels of every group.
    pub kept: KeptChannels,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Widths bought with leftover budget after the walk: channels added, by place in the walk.
    pub spent: BTreeMap<usize, usize>,
    /// Score on the reward images.
    pub score: Score,
    /// Whether the score was known.
    pub cached: bool,
    /// What the walk was paid.
    pub reward: f32,
}
