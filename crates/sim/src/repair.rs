//! Candidates become compact networks, batch by batch.

use std::collections::HashMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::ScheduleLabel;
use secateur_kernels::KernelError;
use secateur_net::{KeptChannels, Network};

use crate::candidate::{
    Cached, CandidateFault, CandidateId, Compact, EqualTo, Kept, MadeBy, OnTask, ScoredEarlier, ToBuild, UnderWay,
};
use crate::caught::{Caught, guarded};
use crate::components::{PruneTask, PrunedNetwork};
use crate::error::SimError;
use crate::evaluate::{Evaluator, for_each_candidate};
use crate::network::Prepared;
use crate::score::{EarlierScores, ScoreCache};
use crate::world::{Pool, TickFailure};

/// The schedule that [`repair_candidates`] runs again and again until every candidate of the tick is built:
/// [`build_batch`], then the systems of those that want to begin with the networks of a batch while the processor
/// builds the next.
///
/// A system that hands what is built to another device:
/// ```
/// use bevy_app::App;
/// use bevy_ecs::prelude::*;
/// use secateur_sim::{BuildBatch, CandidateId, Compact, ToScore, build_batch};
///
/// fn hand_over(built: Query<(&CandidateId, &Compact), ToScore>) {
///     for (id, compact) in &built {
///         println!("{id:?}: {} operations", compact.0.graph().nodes().len());
///     }
/// }
///
/// let mut app = App::empty();
/// secateur_sim::add_process(&mut app);
/// app.add_systems(BuildBatch, hand_over.after(build_batch));
/// ```
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct BuildBatch;

/// Most candidates of a batch. All of a network, unless a system of [`BuildBatch`] has use for smaller ones.
#[derive(Resource, Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize(pub usize);

impl Default for BatchSize {
    fn default() -> Self {
        Self(usize::MAX)
    }
}

/// Looks new candidates up in the score cache. Of several equal ones whose score is not known, the one that waits for
/// its score already, else the first actor's, is to be evaluated, and the others wait for it, unless an earlier run
/// scored it.
pub fn recall_scores(
    mut commands: Commands,
    cache: Res<ScoreCache>,
    mut earlier: Option<ResMut<EarlierScores>>,
    networks: Query<&PrunedNetwork>,
    candidates: Query<(Entity, &MadeBy, &OnTask, &Kept), ToBuild>,
    under_way: Query<(Entity, &OnTask, &Kept), UnderWay>,
) {
    let mut fresh: Vec<_> = candidates.iter().collect();
    if fresh.is_empty() {
        return;
    }
    fresh.sort_unstable_by_key(|(_, made_by, ..)| made_by.index);
    let mut firsts: HashMap<(Entity, &KeptChannels), Entity> =
        under_way.iter().map(|(entity, on, kept)| ((on.network, &kept.0), entity)).collect();
    for (entity, _, on, Kept(kept)) in fresh {
        let Ok(network) = networks.get(on.network) else { continue };
        if let Some(score) = cache.get(network.index, kept) {
            commands.entity(entity).insert((score, Cached));
        } else if let Some(&first) = firsts.get(&(on.network, kept)) {
            commands.entity(entity).insert((EqualTo(first), Cached));
        } else {
            firsts.insert((on.network, kept), entity);
            if let Some(score) = earlier.as_mut().and_then(|earlier| earlier.take(network.index, kept)) {
                commands.entity(entity).insert((score, ScoredEarlier));
            }
        }
    }
}

/// Builds every candidate that is to be built, by running [`BuildBatch`] as often as it takes.
pub fn repair_candidates(world: &mut World, to_build: &mut QueryState<(), ToBuild>) {
    let mut n_left = to_build.iter(world).count();
    while n_left > 0 {
        world.run_schedule(BuildBatch);
        let n_before = std::mem::replace(&mut n_left, to_build.iter(world).count());
        if n_left >= n_before {
            // Candidates of a task or network that is gone.
            break;
        }
    }
}

/// Builds the compact, refitted networks of the first candidates that have none: of one network, in actor order.
pub fn build_batch(
    mut commands: Commands,
    (pool, evaluator, size): (Res<Pool>, Res<Evaluator>, Res<BatchSize>),
    (tasks, networks): (Query<&PruneTask>, Query<&PrunedNetwork>),
    candidates: Query<(Entity, &CandidateId, &MadeBy, &OnTask, &Kept), ToBuild>,
    mut failure: ResMut<TickFailure>,
) {
    let mut fresh: Vec<_> = candidates
        .iter()
        .filter_map(|(entity, id, made_by, on, kept)| {
            Some((networks.get(on.network).ok()?, made_by.index, entity, id, on, kept))
        })
        .collect();
    fresh.sort_unstable_by_key(|(network, index, ..)| (network.index, *index));
    let Some(&(network, ..)) = fresh.first() else { return };
    fresh.truncate(fresh.partition_point(|(other, ..)| other.index == network.index).min(size.0.max(1)));
    let kept: Vec<&KeptChannels> = fresh.iter().map(|&(.., Kept(kept))| kept).collect();
    let results = build(&pool.0, &evaluator, &network.prepared, &kept);
    for ((_, _, entity, id, on, _), result) in fresh.into_iter().zip(results) {
        match result {
            Ok(network) => commands.entity(entity).insert(Compact(network)),
            Err(fault) => commands.entity(entity).insert(fault.of(id, tasks.get(on.task).ok(), &mut failure)),
        };
    }
}

/// The refitted compact networks of several candidates of one network.
fn build(
    pool: &rayon::ThreadPool,
    evaluator: &Evaluator,
    prepared: &Prepared,
    kept: &[&KeptChannels],
) -> Vec<Result<Arc<Network>, Caught<KernelError>>> {
    match guarded(|| evaluator.0.begin(pool, prepared)) {
        Ok(build) => for_each_candidate(pool, kept, |kept| build(kept)),
        Err(fault) => kept.iter().map(|_| Err(fault.clone())).collect(),
    }
}

impl Caught<KernelError> {
    /// What the candidate gets. Errors stop the run; what panicked is tried again, see [`crate::restart_actors`].
    pub(crate) fn of(self, id: &CandidateId, task: Option<&PruneTask>, failure: &mut TickFailure) -> CandidateFault {
        match self {
            Self::Error(source) => {
                let message = source.to_string();
                let task = task.map_or_else(String::new, |task| task.name.clone());
                failure.note(SimError::Candidate { task, walk: id.walk, source });
                CandidateFault(message)
            }
            Self::Panic(message) => CandidateFault(message),
        }
    }
}
