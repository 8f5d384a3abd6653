//! From the end of a walk to its reward: select, repair, score, reward, record.

use std::collections::BTreeMap;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use secateur_net::{Cost, KeptChannels, Network};

use crate::components::*;
use crate::error::SimError;
use crate::evaluate::{Evaluator, Fault, OnBuilt, for_each_candidate, guarded};
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
            fault: None,
            score: None,
            cached: false,
            reward: 0.0,
        });
    }
}

/// Looks candidates up in the score cache; builds the compact, refitted network of those that are not there. Of several equal
/// candidates in one tick, the first actor's is built.
pub fn repair_candidates(
    (pool, evaluator, on_built): (Res<Pool>, Res<Evaluator>, Option<Res<OnBuilt>>),
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
        let kept: Vec<&KeptChannels> = of_network.iter().map(|(.., candidate)| &candidate.kept).collect();
        let index = of_network[0].1.index;
        let results = build(&pool.0, &evaluator, &prepared, &kept, |networks| {
            on_built.iter().for_each(|on_built| on_built.0(index, &prepared, networks));
        });
        for ((_, _, task, candidate), result) in of_network.iter_mut().zip(results) {
            match result {
                Ok(network) => candidate.compact = Some(network),
                Err(fault) => candidate.note(fault, task, &mut failure),
            }
        }
    }
}

/// The refitted compact networks of several candidates of one network; `tell` gets them as they come.
fn build(
    pool: &rayon::ThreadPool,
    evaluator: &Evaluator,
    prepared: &Prepared,
    kept: &[&KeptChannels],
    tell: impl Fn(&[Arc<Network>]),
) -> Vec<Result<Arc<Network>, Fault>> {
    let build = match guarded(|| evaluator.0.begin(pool, prepared)) {
        Ok(build) => build,
        Err(fault) => return kept.iter().map(|_| Err(fault.clone())).collect(),
    };
    let mut out = Vec::with_capacity(kept.len());
    for kept in kept.chunks(pool.current_num_threads()) {
        let built = for_each_candidate(pool, kept, |kept| build(kept));
        let networks: Vec<Arc<Network>> = built.iter().flatten().cloned().collect();
        if !networks.is_empty() {
            tell(&networks);
        }
        out.extend(built);
    }
    out
}

/// Scores every compact network of the tick on its reward images, and fills in the scores of equal candidates.
pub fn score_candidates(
    (pool, evaluator): (Res<Pool>, Res<Evaluator>),
    mut cache: ResMut<ScoreCache>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    mut actors: Query<(&Actor, &mut Outcome)>,
    mut failure: ResMut<Failure>,
) {
    let of_actor = |(actor, outcome): (&Actor, _)| {
        let candidate = Mut::<Outcome>::into_inner(outcome).0.as_mut()?;
        let task = tasks.get(actor.task).ok()?;
        Some((actor.index, task, networks.get(task.network).ok()?, candidate))
    };
    let mut waiting: Vec<_> = actors.iter_mut().filter_map(of_actor).collect();
    waiting.retain(|(.., candidate)| candidate.score.is_none() && candidate.fault.is_none());
    waiting.sort_by_key(|(index, ..)| *index);
    let (mut built, equal): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(.., c)| c.compact.is_some());
    let jobs: Vec<_> =
        built.iter_mut().filter_map(|(_, _, n, c)| Some((n.prepared.clone(), c.compact.take()?))).collect();
    let score = |(prepared, compact): &(Arc<Prepared>, Arc<Network>)| evaluator.0.score(&pool.0, prepared, compact);
    let scores = for_each_candidate(&pool.0, &jobs, score);
    for ((_, task, network, candidate), score) in built.iter_mut().zip(scores) {
        match score {
            Ok(score) => {
                candidate.score = Some(score);
                cache.insert(network.index, candidate.kept.clone(), score);
            }
            Err(fault) => candidate.note(fault, task, &mut failure),
        }
    }
    for (_, _, network, candidate) in equal {
        candidate.score = cache.get(network.index, &candidate.kept);
    }
}

impl Candidate {
    /// Errors stop the run; what panicked is tried again, see [`crate::restart_actors`].
    fn note(&mut self, fault: Fault, task: &PruneTask, failure: &mut Failure) {
        match fault {
            Fault::Error(source) => {
                failure.note(SimError::Candidate { task: task.name.clone(), walk: self.walk, source });
            }
            Fault::Panic(message) => self.fault = Some(message),
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
        if self.best.iter().any(|c| c.kept == candidate.kept) {
            return false;
        }
        let place = self.best.partition_point(|c| c.rank().best_first(&candidate.rank()).is_lt());
        if place < self.capacity {
            self.best.insert(place, candidate.clone());
            self.best.truncate(self.capacity);
        }
        place == 0
    }
}
