//! From scores to rewards, and what is remembered of candidates.

use bevy_ecs::prelude::*;
use bevy_ecs::query::QueryData;
use secateur_net::KeptChannels;

use crate::candidate::{Cached, CandidateId, Kept, Macs, MadeBy, OnTask, Reward, Spent};
use crate::components::*;
use crate::error::SimError;
use crate::events::{EventLog, ProcessEvent};
use crate::finish::Rank;
use crate::score::Score;
use crate::world::{Settings, TickFailure};

/// Pays every walk that ended its score. Plugins that change rewards run after this, in the same set, and change
/// [`Reward`].
pub fn write_reward(settings: Res<Settings>, mut candidates: Query<(&Score, &mut Reward), With<CandidateId>>) {
    for (score, mut reward) in &mut candidates {
        reward.0 = score.reward(settings.reward) as f32;
    }
}

/// Turns the rewards of candidates into the rewards of decisions, which learners read.
pub fn close_decisions(
    tasks: Query<&PruneTask>,
    candidates: Query<&Reward>,
    mut actors: Query<(&Actor, &Readiness, &WalkEnd, &mut Walk, &mut StepReward)>,
    mut failure: ResMut<TickFailure>,
) {
    for (actor, readiness, end, mut walk, mut step) in &mut actors {
        if *readiness != Readiness::Acting {
            continue;
        }
        let reward = end.0.and_then(|candidate| candidates.get(candidate).ok()).map_or(0.0, |reward| reward.0);
        if !reward.is_finite() {
            let task = tasks.get(actor.task).map_or_else(|_| String::new(), |t| t.name.clone());
            failure.note(SimError::Reward { task, walk: walk.number, got: reward.to_string() });
        }
        *step = StepReward { reward, ends_walk: end.0.is_some() };
        walk.last_reward = reward;
    }
}

/// A candidate that is to be recorded.
#[derive(QueryData)]
pub struct ScoredCandidate {
    entity: Entity,
    id: &'static CandidateId,
    made_by: &'static MadeBy,
    on: &'static OnTask,
    kept: &'static Kept,
    macs: &'static Macs,
    spent: &'static Spent,
    score: &'static Score,
    cached: Has<Cached>,
    reward: &'static Reward,
}

/// Counts the scored candidates, remembers the best of each task, notes what happened, in actor order, and despawns
/// them.
pub fn record_candidates(
    mut commands: Commands,
    mut log: ResMut<EventLog>,
    mut tasks: Query<(&PruneTask, &Budget, &mut TaskStats, &mut Finalists)>,
    actors: Query<&Walk>,
    candidates: Query<ScoredCandidate>,
) {
    let mut scored: Vec<_> = candidates.iter().collect();
    scored.sort_unstable_by_key(|candidate| candidate.made_by.index);
    for candidate in scored {
        commands.entity(candidate.entity).despawn();
        let Ok((task, wall, mut stats, mut finalists)) = tasks.get_mut(candidate.on.task) else { continue };
        stats.n_ended += 1;
        stats.n_cache_hits += u64::from(candidate.cached);
        let noise_free = actors.get(candidate.made_by.actor).is_ok_and(|walk| walk.noise_free);
        let is_best = finalists.offer(candidate.rank(), &candidate.kept.0, || candidate.finalist(noise_free));
        log.0.push(ProcessEvent::Candidate {
            task: task.index,
            actor: candidate.made_by.index,
            walk: candidate.id.walk,
            noise_free,
            cached: candidate.cached,
            reward: candidate.reward.0,
            score: *candidate.score,
            macs: candidate.macs.0,
            costs: wall.0.several_costs(&candidate.kept.0.widths()),
            widths: wall.0.order().iter().map(|&g| candidate.kept.0.group(g).len()).collect(),
            spent: candidate.spent.0.clone(),
            is_best,
        });
    }
}

impl ScoredCandidateItem<'_, '_> {
    /// Its place among others before any refit.
    fn rank(&self) -> Rank {
        Rank { reward: f64::from(self.reward.0), macs: self.macs.0, walk: self.id.walk }
    }

    fn finalist(&self, noise_free: bool) -> Finalist {
        Finalist {
            walk: self.id.walk,
            noise_free,
            kept: self.kept.0.clone(),
            macs: self.macs.0,
            spent: self.spent.0.clone(),
            score: *self.score,
            cached: self.cached,
            reward: self.reward.0,
        }
    }
}

impl Finalists {
    /// Takes the candidate that `finalist` makes in if it is among the best distinct ones; tells whether it is the best
    /// of all.
    pub fn offer(&mut self, rank: Rank, kept: &KeptChannels, finalist: impl FnOnce() -> Finalist) -> bool {
        if self.best.iter().any(|c| c.kept == *kept) {
            return false;
        }
        let place = self.best.partition_point(|c| c.rank().best_first(&rank).is_lt());
        if place < self.capacity {
            self.best.insert(place, finalist());
            self.best.truncate(self.capacity);
        }
        place == 0
    }
}
