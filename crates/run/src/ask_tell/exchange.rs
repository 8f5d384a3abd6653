//! Between a search on its thread and those who score its candidates: what was asked, and what was told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure};
use bevy_app::App;
use bevy_ecs::prelude::*;
use secateur_sim::{
    ArrivalTicks, Awaited, CandidateId, Kept, Macs, MadeBy, OnTask, Prepared, PruneTask, PrunedNetwork, RewardKind,
    Score, ScoreArrivals, ScoredElsewhere, SimError, Step, Tick, TickFailure, ToBuild, recall_scores,
    repair_candidates,
};

use super::candidate::{AskedCandidate, BestCandidate, ToldScore, kept_digest};

/// Time between two looks at whether the search is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What stands between a search and those who score its candidates.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Whether the search takes scores as they come, and not all of a tick's at once.
    as_they_come: bool,
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
    /// Whether the search waits for a score.
    is_waiting: bool,
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
    /// `as_they_come`: whether the search takes scores as they come, and not all of a tick's at once; `told` are those
    /// that are known.
    pub(crate) fn new(as_they_come: bool, told: &[ToldScore]) -> Self {
        let told = told.iter().map(|told| (told.id(), told.clone())).collect();
        let state = ExchangeState { told, ..ExchangeState::default() };
        Self { as_they_come, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Whether nothing new comes before a candidate that was handed out is told.
    fn is_settled(&self, state: &ExchangeState) -> bool {
        let has_all = !self.as_they_come || (state.is_waiting && state.arrived.is_empty());
        !state.open.is_empty() && has_all
    }

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
            if !state.made.is_empty() || state.ended.is_some() || self.is_settled(&state) {
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
        let told = ToldScore { task: id.task, walk: id.walk, kept: kept_digest(&candidate.kept), score, arrival: None };
        state.told.insert(id, told);
        state.arrived.push((id, score));
        // Where the search goes on when it has the last, waking it for each would cost more than all else.
        if state.awaits_nothing() || (self.as_they_come && state.is_waiting) {
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

    /// A score that was told before the search was saved, and not taken then.
    fn arrive_again(&self, id: CandidateId, score: Score) {
        self.state().arrived.push((id, score));
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
    fn take_all(&self) -> Vec<(CandidateId, Score)> {
        let waits = |state: &mut ExchangeState| !state.awaits_nothing() && !state.is_dropped;
        let waited = self.changed.wait_timeout_while(self.state(), LOOK_EVERY, waits);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.arrived)
    }

    /// What was told since the last call, in the tick `arrival`; `waits` a little for something if there is nothing.
    fn take_some(&self, arrival: u64, waits: bool) -> Vec<(CandidateId, Score)> {
        let mut state = self.state();
        if waits && state.arrived.is_empty() {
            state.is_waiting = true;
            // Whoever asks may be waiting to hear that nothing more comes.
            self.changed.notify_all();
            let nothing = |state: &mut ExchangeState| state.arrived.is_empty() && !state.is_dropped;
            let waited = self.changed.wait_timeout_while(state, LOOK_EVERY, nothing);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let arrived = std::mem::take(&mut state.arrived);
        state.is_waiting = waits && arrived.is_empty();
        for (id, _) in &arrived {
            if let Some(told) = state.told.get_mut(id) {
                told.arrival = Some(arrival);
            }
        }
        arrived
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
    /// Of them, those whose candidates wait for the tick in which their score arrived then: tick and score.
    to_arrive: BTreeMap<CandidateId, (u64, Score)>,
    /// The last of these ticks.
    last_arrival: Option<u64>,
    /// The last tick in which scores were looked for.
    looked_in: u64,
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
        let last_arrival = told.iter().filter_map(|told| told.arrival).max();
        let known = told.into_iter().map(|told| (told.id(), told)).collect();
        Self { known: Arc::new(known), to_arrive: BTreeMap::new(), last_arrival, looked_in: 0, asks: None }
    }

    /// All others are asked for.
    pub(crate) fn asking(self, exchange: Arc<Exchange>, search: &str) -> Self {
        Self { asks: Some(AskedElsewhere { exchange, search: search.into() }), ..self }
    }

    /// The scores that arrived by the tick `now`; where nobody goes on without one, `must`, the next.
    fn arrived_by(&mut self, now: u64, must: bool) -> Vec<(CandidateId, Score)> {
        let next = self.to_arrive.values().map(|(arrival, _)| *arrival).min();
        let until = next.filter(|_| must).unwrap_or(now).max(now);
        let due = |_: &CandidateId, (arrival, _): &mut (u64, Score)| *arrival <= until;
        self.to_arrive.extract_if(.., due).map(|(id, (_, score))| (id, score)).collect()
    }

    /// Adds the systems that give new candidates the scores that are known, and ask for the others.
    pub(crate) fn join(&self, app: &mut App) {
        app.insert_resource(self.clone());
        app.add_systems(Tick, take_from_told.in_set(Step::Repair).after(recall_scores).before(repair_candidates));
        app.add_systems(ScoreArrivals, take_arrived);
    }
}

/// A new candidate, for [`take_from_told`].
type New<'w> = (Entity, &'w CandidateId, &'w MadeBy, &'w OnTask, &'w Kept, &'w Macs);

fn take_from_told(
    mut commands: Commands,
    mut told: ResMut<ToldScores>,
    tasks: Query<&PruneTask>,
    networks: Query<&PrunedNetwork>,
    fresh: Query<New<'_>, ToBuild>,
) {
    let mut fresh: Vec<_> = fresh.iter().collect();
    fresh.sort_unstable_by_key(|(_, _, made_by, ..)| made_by.index);
    let mut asked = Vec::new();
    for (entity, id, _, on, kept, macs) in fresh {
        let known = told.known.get(id).filter(|known| known.kept == kept_digest(kept.0.lists()));
        if let Some(&ToldScore { score, arrival, .. }) = known {
            commands.entity(entity).insert(ScoredElsewhere);
            match (arrival, &told.asks) {
                (Some(arrival), _) => drop(told.to_arrive.insert(*id, (arrival, score))),
                (None, Some(AskedElsewhere { exchange, .. })) if exchange.as_they_come => {
                    exchange.arrive_again(*id, score);
                }
                (None, _) => drop(commands.entity(entity).insert(score)),
            }
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
    mut told: ResMut<ToldScores>,
    ticks: Res<ArrivalTicks>,
    waiting: Query<(Entity, &CandidateId), Awaited>,
    mut failure: ResMut<TickFailure>,
) {
    // Looked for again in one tick: no actor goes on without a score.
    let now = ticks.0;
    let again = std::mem::replace(&mut told.looked_in, now) == now;
    let mut arrived = told.arrived_by(now, again);
    // Up to the last tick in which a known score arrived, nothing else did.
    let takes_new = told.last_arrival.is_none_or(|last| now > last) || (again && arrived.is_empty());
    if let (Some(AskedElsewhere { exchange, .. }), true) = (&told.asks, takes_new) {
        if exchange.is_given_up() {
            if let Some((_, id)) = waiting.iter().next() {
                failure.note(SimError::NoScore { task: format!("number {}", id.task), walk: id.walk });
            }
            return;
        }
        arrived.extend(match exchange.as_they_come {
            false => exchange.take_all(),
            true => exchange.take_some(now, again && arrived.is_empty()),
        });
    }
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
