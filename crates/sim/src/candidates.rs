//! From the end of a walk to its reward: select, repair, score, reward, record.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use rayon::prelude::*;
use secateur_kernels::KernelError;
use secateur_net::{Cost, KeptChannels, Network};

use crate::components::*;
use crate::error::SimError;
use crate::events::{Event, EventLog};
use crate::prepare::Prepared;
use crate::score::ScoreCache;
use crate::world::{Failure, Pool, Settings};

/// Spends leftover budget and fixes the kept channels of every walk that ended in this tick.
pub fn select_channels(
    settings: Res<Settings>,
    tasks: Query<(&PruneTask, &Budget)>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &Readiness, &mut Walk, &mut Outcome)>,
) {
    for (actor, readiness, mut walk, mut outcome) in &mut actors {
        let Ok((task, wall)) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        let order = wall.0.order();
        if *readiness != Readiness::Acting || walk.cursor < order.len() {
            continue;
        }
        let prepared = &network.prepared;
        let decided = walk.widths.clone();
        if settings.spend_leftover {
            wall.0.spend_leftover(&mut walk.widths, |place, width| prepared.error(place, order[place], width));
        }
        let bought = order.iter().enumerate().map(|(place, &g)| (place, walk.widths[g] - decided[g]));
        outcome.0 = Some(Candidate {
            walk: walk.number,
            noise_free: walk.noise_free,
            kept: prepared.select(&walk.widths),
            macs: prepared.model.count(Cost::Macs, &walk.widths),
            spent: bought.filter(|&(_, n)| n > 0).collect::<BTreeMap<_, _>>(),
            compact: None,
            score: None,
            cached: false,
            reward: 0.0,
        });
    }
}

/// Looks candidates up in the score cache; builds the compact, refitted network of those that are not there. Of several equal
/// candidates in one tick, the first actor's is built.
pub fn repair_candidates(
    pool: Res<Pool>,
    cache: Res<ScoreCache>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &mut Outcome)>,
    mut failure: ResMut<Failure>,
) {
    let mut fresh = Vec::new();
    for (actor, outcome) in &mut actors {
        let Some(candidate) = &mut outcome.into_inner().0 else { continue };
        let Ok(task) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        candidate.score = cache.get(network.index, &candidate.kept);
        candidate.cached = candidate.score.is_some();
        if !candidate.cached {
            fresh.push((actor.index, network, task, candidate));
        }
    }
    fresh.sort_by_key(|(index, ..)| *index);
    let firsts: Vec<bool> = (0..fresh.len())
        .map(|i| fresh[..i].iter().all(|(_, n, _, c)| n.index != fresh[i].1.index || c.kept != fresh[i].3.kept))
        .collect();
    for ((_, _, _, candidate), &first) in fresh.iter_mut().zip(&firsts) {
        candidate.cached = !first;
    }
    let mut fresh: Vec<_> = fresh.into_iter().zip(firsts).filter_map(|(f, first)| first.then_some(f)).collect();
    fresh.sort_by_key(|(index, network, ..)| (network.index, *index));
    for of_network in fresh.chunk_by_mut(|a, b| a.1.index == b.1.index) {
        let prepared = of_network[0].1.prepared.clone();
        let results = build(&pool.0, &prepared, of_network.iter().map(|(.., candidate)| &candidate.kept).collect());
        for ((_, _, task, candidate), result) in of_network.iter_mut().zip(results) {
            match result {
                Ok(network) => candidate.compact = Some(Arc::new(network)),
                Err(source) => {
                    failure.note(SimError::Candidate { task: task.name.clone(), walk: candidate.walk, source });
                }
            }
        }
    }
}

/// The refitted compact networks of several candidates of one network.
///
/// Candidates are spread over the threads; what runs in parallel within one fills the gaps at the end.
fn build(pool: &rayon::ThreadPool, prepared: &Prepared, kept: Vec<&KeptChannels>) -> Vec<Result<Network, KernelError>> {
    let refit = prepared.walk_refit(pool);
    let build = |kept: &&KeptChannels| match &refit {
        Some(refit) => refit.run(kept, false).map(|(network, _)| network),
        None => prepared.compact(kept),
    };
    // As many at a time as there are threads: a waiting thread could otherwise begin any number of candidates.
    let chunks = kept.chunks(pool.current_num_threads());
    chunks.flat_map(|kept| pool.install(|| kept.par_iter().map(build).collect::<Vec<_>>())).collect()
}

/// Scores every compact network of the tick on its reward images, and fills in the scores of equal candidates.
pub fn score_candidates(
    pool: Res<Pool>,
    mut cache: ResMut<ScoreCache>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &mut Outcome)>,
    mut failure: ResMut<Failure>,
) {
    let mut waiting: Vec<_> = actors.iter_mut().filter_map(|(a, o)| Some((a, o.into_inner().0.as_mut()?))).collect();
    waiting.retain(|(_, candidate)| candidate.score.is_none());
    // Those with a network first: the others wait for one of their scores.
    waiting.sort_by_key(|(actor, candidate)| (candidate.compact.is_none(), actor.index));
    for (actor, candidate) in waiting {
        let Ok(task) = tasks.get(actor.task) else { continue };
        let Ok(network) = networks.get(task.network) else { continue };
        let Some(compact) = candidate.compact.take() else {
            candidate.score = cache.get(network.index, &candidate.kept);
            continue;
        };
        match network.prepared.reward.score(&pool.0, &compact) {
            Ok(score) => {
                candidate.score = Some(score);
                cache.insert(network.index, candidate.kept.clone(), score);
            }
            Err(source) => {
                failure.note(SimError::Candidate { task: task.name.clone(), walk: candidate.walk, source });
            }
        }
    }
}

/// Pays every walk that ended its score. Plugins that change rewards run after this, in the same set, and change
/// [`Candidate::reward`].
pub fn write_reward(settings: Res<Settings>, mut actors: Query<&mut Outcome, With<Actor>>) {
    for mut outcome in &mut actors {
        if let Some(candidate) = &mut outcome.0 {
            candidate.reward = candidate.score.map_or(0.0, |s| s.reward(settings.reward) as f32);
        }
    }
}

/// Turns the rewards of candidates into the rewards of decisions, which learners read.
pub fn close_decisions(
    tasks: Query<&PruneTask>,
    mut actors: Query<(&Actor, &Readiness, &Outcome, &mut Walk, &mut StepReward)>,
    mut failure: ResMut<Failure>,
) {
    for (actor, readiness, outcome, mut walk, mut step) in &mut actors {
        if *readiness != Readiness::Acting {
            continue;
        }
        let reward = outcome.0.as_ref().map_or(0.0, |c| c.reward);
        if !reward.is_finite() {
            let task = tasks.get(actor.task).map_or_else(|_| String::new(), |t| t.name.clone());
            failure.note(SimError::Reward { task, walk: walk.number, got: reward.to_string() });
        }
        *step = StepReward { reward, ends_walk: outcome.0.is_some() };
        walk.last_reward = reward;
    }
}

/// Counts the candidates of the tick, remembers the best of each task and notes what happened, in actor order.
pub fn record_candidates(
    mut log: ResMut<EventLog>,
    mut tasks: Query<(&PruneTask, &Budget, &mut TaskStats, &mut Finalists)>,
    actors: Query<(&Actor, &Outcome)>,
) {
    let mut ended: Vec<_> = actors.iter().filter_map(|(a, o)| Some((a, o.0.as_ref()?))).collect();
    ended.sort_by_key(|(actor, _)| actor.index);
    for (actor, candidate) in ended {
        let Ok((task, wall, mut stats, mut finalists)) = tasks.get_mut(actor.task) else { continue };
        let Some(score) = candidate.score else { continue };
        stats.n_ended += 1;
        stats.n_cache_hits += u64::from(candidate.cached);
        let is_best = finalists.offer(candidate);
        log.0.push(Event::Candidate {
            task: task.index,
            actor: actor.index,
            walk: candidate.walk,
            noise_free: candidate.noise_free,
            cached: candidate.cached,
            reward: candidate.reward,
            score,
            macs: candidate.macs,
            widths: wall.0.order().iter().map(|&g| candidate.kept.group(g).len()).collect(),
            spent: candidate.spent.clone(),
            is_best,
        });
    }
}

impl Finalists {
    /// Takes a candidate in if it is among the best distinct ones; tells whether it is the best of all.
    pub fn offer(&mut self, candidate: &Candidate) -> bool {
        let key = |c: &Candidate| (c.macs, c.walk);
        let before = |a: &Candidate, b: &Candidate| b.reward.total_cmp(&a.reward).then(key(a).cmp(&key(b))).is_lt();
        if self.best.iter().any(|c| c.kept == candidate.kept) {
            return false;
        }
        let place = self.best.partition_point(|c| before(c, candidate));
        if place < self.capacity {
            self.best.insert(place, candidate.clone());
            self.best.truncate(self.capacity);
        }
        place == 0
    }
}
