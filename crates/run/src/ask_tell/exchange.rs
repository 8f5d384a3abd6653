//! Between a search on its thread and those who score its candidates: what was asked, and what was told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_sim::{
    Awaited, CandidateId, Kept, Macs, MadeBy, OnTask, Prepared, PruneTask, PrunedNetwork, RewardKind, Score,
    ScoreArrivals, ScoredElsewhere, SimError, Step, Tick, TickFailure, ToBuild, recall_scores, repair_candidates,
};

use super::candidate::{AskedCandidate, BestCandidate, ToldScore, kept_digest};

/// Time between two looks at whether the search is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What stands between a search and those who score its candidates.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    state: Mutex<ExchangeState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ExchangeState {
    /// Made, and not yet handed out.
    made: VecDeque<AskedCandidate>,
    /// Handed out, and not yet told.
    open: BTreeMap<CandidateId, AskedCandidate>,
    told: BTreeMap<CandidateId, ToldScore>,
    /// Told, and not yet taken by the search.
    arrived: Vec<(CandidateId, Score)>,
    /// By task.
    best: BTreeMap<usize, BestCandidate>,
    /// Walks or candidates that the search has counted.
    n_counted: u64,
    /// Set once there will be no more candidates.
    ended: Option<Result<(), String>>,
    /// Whether nobody asks any more.
    is_dropped: bool,
}

impl ExchangeState {
    fn awaits_nothing(&self) -> bool {
        self.made.is_empty() && self.open.is_empty()
    }
}

impl Exchange {
    fn state(&self) -> MutexGuard<'_, ExchangeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Candidates in the order in which they were made, at most `n`; none within `limit` is `None`. An empty list says
    /// that nothing new comes before one that was handed out is told, or that the search is over.
    pub(crate) fn ask(&self, n: usize, limit: Option<Duration>) -> anyhow::Result<Option<Vec<AskedCandidate>>> {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut state = self.state();
        loop {
            if let Some(Err(why)) = &state.ended {
                bail!("the search stopped: {why}");
            }
            if !state.made.is_empty() || !state.open.is_empty() || state.ended.is_some() {
                let n = n.min(state.made.len());
                let asked: Vec<AskedCandidate> = state.made.drain(..n).collect();
                state.open.extend(asked.iter().map(|candidate| (candidate.id(), candidate.clone())));
                return Ok(Some(asked));
            }
            let nap = until.map_or(LOOK_EVERY, |until| until.saturating_duration_since(Instant::now()));
            if nap.is_zero() {
                return Ok(None);
            }
            state = self.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn tell(&self, candidate: &AskedCandidate, score: Score, kind: RewardKind) -> anyhow::Result<()> {
        let name = || format!("task '{}', walk {}", candidate.task_name, candidate.walk);
        ensure!(
            score.is_one() && score.known_reward(kind).is_some(),
            "{}: got the score {score:?}, expected an accuracy in [0, 1], a finite divergence and output error of at \
             least 0, and of these what the reward {} reads",
            name(),
            kind.name()
        );
        let mut state = self.state();
        let id = candidate.id();
        let Some(open) = state.open.get(&id) else {
            return Err(match state.told.contains_key(&id) {
                true => anyhow!("{}: was told before; each candidate has one score", name()),
                false => anyhow!("{}: was not asked; tell only what `ask` returned", name()),
            });
        };
        ensure!(open == candidate, "{}: keeps other channels than the candidate that was asked", name());
        state.open.remove(&id);
        let told = ToldScore { task: id.task, walk: id.walk, kept: kept_digest(&candidate.kept), score };
        state.told.insert(id, told);
        state.arrived.push((id, score));
        // The search goes on when it has the last: waking it for each would cost more than all else.
        if state.awaits_nothing() {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Puts what was handed out and not told back in front, for a worker that is gone.
    pub(crate) fn ask_again(&self) -> usize {
        let mut state = self.state();
        let open = std::mem::take(&mut state.open);
        open.into_values().rev().for_each(|candidate| state.made.push_front(candidate));
        self.changed.notify_all();
        state.made.len()
    }

    pub(crate) fn best(&self) -> Vec<BestCandidate> {
        self.state().best.values().cloned().collect()
    }

    pub(crate) fn set_best(&self, best: BestCandidate) {
        self.state().best.insert(best.candidate.task, best);
    }

    pub(crate) fn told(&self) -> Vec<ToldScore> {
        self.state().told.values().cloned().collect()
    }

    pub(crate) fn n_told(&self) -> usize {
        self.state().told.len()
    }

    pub(crate) fn count(&self, n: u64) {
        self.state().n_counted += n;
    }

    pub(crate) fn n_counted(&self) -> u64 {
        self.state().n_counted
    }

    pub(crate) fn remember(&self, told: ToldScore) {
        let id = CandidateId { task: told.task, walk: told.walk };
        self.state().told.insert(id, told);
    }

    /// Whether there will be no more candidates, and all were told.
    pub(crate) fn is_done(&self) -> bool {
        self.state().ended.is_some()
    }

    pub(crate) fn end(&self, ended: Result<(), String>) {
        self.state().ended.get_or_insert(ended);
        self.changed.notify_all();
    }

    /// The search need not go on.
    pub(crate) fn give_up(&self) {
        self.state().is_dropped = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state().is_dropped
    }

    fn offer(&self, candidates: Vec<AskedCandidate>) {
        self.state().made.extend(candidates);
        self.changed.notify_all();
    }

    /// What was told since the last call; waits a little until nothing more is to come.
    fn take_arrived(&self) -> Vec<(CandidateId, Score)> {
        let waits = |state: &mut ExchangeState| !state.awaits_nothing() && !state.is_dropped;
        let waited = self.changed.wait_timeout_while(self.state(), LOOK_EVERY, waits);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.arrived)
    }
}

/// What is there of a run before it begins.
pub(crate) struct ScoredBefore {
    /// Networks, ready to be pruned.
    pub(crate) networks: Vec<Arc<Prepared>>,
    /// Scores of the candidates of the scene's agent.
    pub(crate) scores: ToldScores,
}

/// Where a search takes scores from before it computes any.
#[derive(Resource, Clone)]
pub(crate) struct ToldScores {
    /// Scores by walk, with what their candidates kept.
    known: Arc<BTreeMap<CandidateId, ToldScore>>,
    /// Who is asked for the others; without anybody they are computed by the search.
    asks: Option<AskedElsewhere>,
}

/// Who is asked for scores, and by which name of the search.
#[derive(Clone)]
struct AskedElsewhere {
    exchange: Arc<Exchange>,
    search: Arc<str>,
}

impl ToldScores {
    /// Scores that are known; all others are computed.
    pub(crate) fn known(told: Vec<ToldScore>) -> Self {
        let by_id = |told: ToldScore| (CandidateId { task: told.task, walk: told.walk }, told);
        Self { known: Arc::new(told.into_iter().map(by_id).collect()), asks: None }
    }

    /// All others are asked for.
    pub(crate) fn asking(self, exchange: Arc<Exchange>, search: &str) -> Self {
        Self { asks: Some(AskedElsewhere { exchange, search: search.into() }), ..self }
    }

    /// Adds the systems that give new candidates the scores that are known, and ask for the others.
    pub(crate) fn join(&self, app: &mut App) {
        app.insert_resource(self.clone());
        app.add_systems(Tick, take_from_told.in_set(Step::Repair).after(recall_scores).before(repair_candidates));
        if self.asks.is_some() {
            app.add_systems(ScoreArrivals, take_arrived);
        }
    }
}

/// A new candidate, for [`take_from_told`].
type New<'w> = (Entity, &'w CandidateId, &'w MadeBy, &'w OnTask, &'w Kept, &'w Macs);

fn take_from_told(
    mut commands: Commands,
    told: Res<ToldScores>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    fresh: Query<New<'_>, ToBuild>,
) {
    let mut fresh: Vec<_> = fresh.iter().collect();
    fresh.sort_unstable_by_key(|(_, _, made_by, ..)| made_by.index);
    let mut asked = Vec::new();
    for (entity, id, _, on, kept, macs) in fresh {
        let known = told.known.get(id).filter(|known| known.kept == kept_digest(kept.0.lists()));
        if let Some(known) = known {
            if let Some(AskedElsewhere { exchange, .. }) = &told.asks {
                exchange.remember(known.clone());
            }
            commands.entity(entity).insert((ScoredElsewhere, known.score));
            continue;
        }
        let (Some(asking), Ok(task), Ok(network)) = (&told.asks, tasks.get(on.task), networks.get(on.network)) else {
            continue;
        };
        commands.entity(entity).insert(ScoredElsewhere);
        asked.push(AskedCandidate {
            search: asking.search.to_string(),
            task_name: task.name.clone(),
            task: id.task,
            walk: id.walk,
            network: network.index,
            kept: kept.0.lists().to_vec(),
            macs: macs.0,
        });
    }
    if let (Some(asking), false) = (&told.asks, asked.is_empty()) {
        asking.exchange.offer(asked);
    }
}

fn take_arrived(
    mut commands: Commands,
    told: Res<ToldScores>,
    waiting: Query<(Entity, &CandidateId), Awaited>,
    mut failure: ResMut<TickFailure>,
) {
    let Some(AskedElsewhere { exchange, .. }) = &told.asks else { return };
    if exchange.is_given_up() {
        if let Some((_, id)) = waiting.iter().next() {
            failure.note(SimError::NoScore { task: format!("number {}", id.task), walk: id.walk });
        }
        return;
    }
    let arrived = exchange.take_arrived();
    if arrived.is_empty() {
        return;
    }
    let waiting: BTreeMap<CandidateId, Entity> = waiting.iter().map(|(entity, id)| (*id, entity)).collect();
    for (id, score) in arrived {
        if let Some(entity) = waiting.get(&id) {
            commands.entity(*entity).insert(score);
        }
    }
}
