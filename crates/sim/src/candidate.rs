//! A candidate is an entity: spawned by [`crate::select_channels`] at the end of a walk, despawned by
//! [`crate::record_candidates`], or by [`crate::restart_actors`] if it has a fault. What is known of it are its
//! components; those that come later tell how far it got, and systems find their candidates by them. These are kept
//! apart from the others (in sparse sets), so that nothing is moved when one is added:
//!
//! | a candidate that is | has | but none of | filter |
//! |---|---|---|---|
//! | to be built | | [`Compact`], [`Score`], [`CandidateFault`], [`EqualTo`], [`ScoredElsewhere`] | [`ToBuild`] |
//! | to be scored here | [`Compact`] | [`Score`], [`CandidateFault`], [`ScoredElsewhere`] | [`ToScore`] |
//! | to be scored elsewhere | [`ScoredElsewhere`] | [`Score`], [`CandidateFault`] | [`Awaited`] |
//! | waiting for an equal one's score | [`EqualTo`] | [`Score`] | |
//! | to be paid | [`Score`] | | |

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_net::{KeptChannels, Network};

use crate::score::Score;

/// Which candidate: no two of a search have the same. What refers to a candidate from outside of the world does so by
/// this.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateId {
    /// Index of its task.
    pub task: usize,
    /// Number of the walk within its task.
    pub walk: u64,
}

/// The actor whose walk ended with the candidate. An actor has one candidate at a time, so candidates are put in order
/// by its index.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeBy {
    /// The actor's entity.
    pub actor: Entity,
    /// Its stable index.
    pub index: usize,
}

/// What the candidate is of.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnTask {
    /// The task's entity.
    pub task: Entity,
    /// The network's entity.
    pub network: Entity,
}

/// Channels that the candidate keeps of every group.
///
/// A plugin may change them before the candidate is built. One that gives every new candidate all its channels back:
/// ```
/// use bevy_ecs::prelude::*;
/// use secateur_net::KeptChannels;
/// use secateur_sim::{Kept, OnTask, PrunedNetwork, ToBuild};
///
/// fn regrow(networks: Query<&PrunedNetwork>, mut candidates: Query<(&OnTask, &mut Kept), ToBuild>) {
///     for (on, mut kept) in &mut candidates {
///         if let Ok(network) = networks.get(on.network) {
///             kept.0 = KeptChannels::all(&network.prepared.groups);
///         }
///     }
/// }
/// # bevy_ecs::system::assert_is_system(regrow);
/// ```
#[derive(Component, Clone, Debug, PartialEq)]
pub struct Kept(pub KeptChannels);

/// Multiply-accumulates per image of the compact network.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs(pub u64);

/// Widths bought with leftover budget after the walk: channels added, by place in the walk.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent(pub BTreeMap<usize, usize>);

/// The repaired compact network; dropped once it was scored here.
#[derive(Component, Clone, Debug)]
#[component(storage = "SparseSet")]
pub struct Compact(pub Arc<Network>);

/// The candidate keeps what this other one keeps, which was there first, and waits for its score.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(storage = "SparseSet")]
pub struct EqualTo(pub Entity);

/// The score was known, or is that of an equal candidate: nothing was evaluated for this one.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[component(storage = "SparseSet")]
pub struct Cached;

/// The score is that of an earlier run or search, see [`crate::EarlierScores`].
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[component(storage = "SparseSet")]
pub struct ScoredEarlier;

/// Somebody else scores the candidate, perhaps in a later tick: the process leaves it alone until it has a [`Score`] or
/// a [`CandidateFault`]. Its actor waits, see [`crate::LateScores`].
///
/// Insert it in [`crate::Step::Repair`], after [`crate::recall_scores`]: before [`crate::repair_candidates`] where the
/// network is built elsewhere, too, and after it where only the score comes from elsewhere.
/// ```
/// use bevy_ecs::prelude::*;
/// use secateur_sim::{CandidateId, Kept, ScoredElsewhere, ToBuild};
///
/// fn send_away(mut commands: Commands, candidates: Query<(Entity, &CandidateId, &Kept), ToBuild>) {
///     for (entity, id, kept) in &candidates {
///         println!("task {} walk {}: {:?}", id.task, id.walk, kept.0.widths());
///         commands.entity(entity).insert(ScoredElsewhere);
///     }
/// }
/// # bevy_ecs::system::assert_is_system(send_away);
/// ```
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[component(storage = "SparseSet")]
pub struct ScoredElsewhere;

/// What kept the candidate from being repaired or scored. Its walk is done again, a few times at most.
#[derive(Component, Clone, Debug, PartialEq, Eq)]
#[component(storage = "SparseSet")]
pub struct CandidateFault(pub String);

/// What the walk is paid: the score, unless a plugin changes it after [`crate::write_reward`]; the first page of this
/// crate has one that does.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq)]
pub struct Reward(pub f32);

/// What every candidate has from the start.
#[derive(Bundle, Clone, Debug)]
pub struct CandidateBundle {
    /// Which.
    pub id: CandidateId,
    /// Whose.
    pub made_by: MadeBy,
    /// Of what.
    pub on: OnTask,
    /// What it keeps.
    pub kept: Kept,
    /// What it costs.
    pub macs: Macs,
    /// What was bought for it.
    pub spent: Spent,
    /// What its walk is paid.
    pub reward: Reward,
}

/// Candidates that are to be built: for queries.
pub type ToBuild = (
    With<CandidateId>,
    Without<Compact>,
    Without<Score>,
    Without<CandidateFault>,
    Without<EqualTo>,
    Without<ScoredElsewhere>,
);

/// Candidates that are built, and that the process is to score: for queries.
pub type ToScore =
    (With<CandidateId>, With<Compact>, Without<Score>, Without<CandidateFault>, Without<ScoredElsewhere>);

/// Candidates whose score comes from elsewhere and is not there yet: for queries.
pub type Awaited = (With<CandidateId>, With<ScoredElsewhere>, Without<Score>, Without<CandidateFault>);

/// Candidates that are being scored, here or elsewhere: for queries.
pub type UnderWay = Or<(ToScore, Awaited)>;
