//! Candidates get their scores: here, or from elsewhere, in this tick or a later one.

use std::sync::Arc;
use std::time::Duration;

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::ScheduleLabel;
use bevy_ecs::system::SystemParam;
use secateur_net::Network;

use crate::candidate::{
    Awaited, CandidateFault, CandidateId, Compact, EqualTo, Kept, MadeBy, OnTask, ScoredEarlier, ScoredElsewhere,
    ToScore,
};
use crate::components::*;
use crate::error::SimError;
use crate::evaluate::{Evaluator, for_each_candidate};
use crate::events::{EventLog, ProcessEvent};
use crate::network::Prepared;
use crate::score::{EarlierScores, Score, ScoreCache};
use crate::world::{Pool, Settings, TickFailure};

/// Times the candidate of one walk may have a fault before the run stops.
const N_TRIES_OF_WALK: u32 = 4;

/// Pause between two looks for a score that the tick waits for.
const NAP: Duration = Duration::from_micros(200);

/// What happens where the score of a candidate is not there at the end of its tick.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateScores {
    /// The tick waits for it, so that results do not depend on how long it takes. Nothing else happens meanwhile, so
    /// what brings scores must bring a [`CandidateFault`] where one is lost.
    #[default]
    TickWaits,
    /// Its actor waits: it sees no layer and begins no walk until a later tick finds the score. The others go on.
    ActorWaits,
    /// As `ActorWaits`, but where no actor goes on the tick waits for the next score. No tick is empty then, so that
    /// results follow from the ticks ([`ArrivalTicks`]) that scores arrive in, and can be had again.
    NextWaits,
}

/// Ticks in which scores could arrive, because candidates waited for theirs.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrivalTicks(pub u64);

/// The schedule of systems that bring the scores, or the faults, of candidates that are [`ScoredElsewhere`]. It runs
/// once in a tick that has such candidates; where the tick waits for them, until none is left or an actor goes on.
///
/// ```
/// use std::sync::Mutex;
/// use std::sync::mpsc::Receiver;
///
/// use bevy_app::App;
/// use bevy_ecs::prelude::*;
/// use secateur_sim::{Awaited, CandidateId, Score, ScoreArrivals};
///
/// #[derive(Resource)]
/// struct Results(Mutex<Receiver<(CandidateId, Score)>>);
///
/// fn take_scores(mut commands: Commands, results: Res<Results>, waiting: Query<(Entity, &CandidateId), Awaited>) {
///     for (id, score) in results.0.lock().expect("no other user").try_iter() {
///         // A candidate that is gone had another score, or a fault.
///         if let Some((entity, _)) = waiting.iter().find(|(_, waiting)| **waiting == id) {
///             commands.entity(entity).insert(score);
///         }
///     }
/// }
///
/// let mut app = App::empty();
/// secateur_sim::add_process(&mut app);
/// app.add_systems(ScoreArrivals, take_scores);
/// ```
#[derive(ScheduleLabel, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScoreArrivals;

/// Where scores are remembered, and the candidates whose scores earlier runs remembered.
#[derive(SystemParam)]
pub struct ScoreMemory<'w, 's> {
    cache: ResMut<'w, ScoreCache>,
    earlier: Option<ResMut<'w, EarlierScores>>,
    recalled: Query<'w, 's, RecalledCandidate, With<ScoredEarlier>>,
}

/// Whose candidate it is, of what, what it keeps, and its score.
type RecalledCandidate = (&'static MadeBy, &'static OnTask, &'static Kept, &'static Score);

/// Scores every compact network that is to be scored here on its reward images, and drops it.
pub fn score_candidates(
    mut commands: Commands,
    (pool, evaluator): (Res<Pool>, Res<Evaluator>),
    mut memory: ScoreMemory,
    (tasks, networks): (Query<&PruneTask>, Query<&PrunedNetwork>),
    candidates: Query<(Entity, &CandidateId, &MadeBy, &OnTask, &Kept, &Compact), ToScore>,
    mut failure: ResMut<TickFailure>,
) {
    let mut built: Vec<_> = candidates.iter().collect();
    if built.is_empty() && memory.recalled.is_empty() {
        return;
    }
    built.sort_unstable_by_key(|(_, _, made_by, ..)| made_by.index);
    built.retain(|(_, _, _, on, ..)| networks.contains(on.network));
    let job = |(_, _, _, on, _, compact): &(_, _, _, &OnTask, _, &Compact)| {
        networks.get(on.network).ok().map(|network| (network.prepared.clone(), compact.0.clone()))
    };
    let jobs: Vec<(Arc<Prepared>, Arc<Network>)> = built.iter().filter_map(job).collect();
    let scores =
        for_each_candidate(&pool.0, &jobs, |(prepared, compact)| evaluator.0.score(&pool.0, prepared, compact));
    // All are remembered in the same order, whoever scored them: the cache forgets the oldest.
    let of_earlier = memory.recalled.iter().filter_map(|(made_by, on, kept, score)| {
        Some((made_by.index, networks.get(on.network).ok()?.index, &kept.0, *score))
    });
    let mut remembered: Vec<_> = of_earlier.collect();
    for ((entity, id, made_by, on, kept, _), score) in built.into_iter().zip(scores) {
        match score {
            Ok(score) => {
                if let Ok(network) = networks.get(on.network) {
                    remembered.push((made_by.index, network.index, &kept.0, score));
                    if let Some(earlier) = &mut memory.earlier {
                        earlier.note(network.index, &kept.0, score);
                    }
                }
                commands.entity(entity).insert(score).remove::<Compact>()
            }
            Err(fault) => commands.entity(entity).insert(fault.of(id, tasks.get(on.task).ok(), &mut failure)),
        };
    }
    remembered.sort_by_key(|(actor, ..)| *actor);
    for (_, network, kept, score) in remembered {
        memory.cache.insert(network, kept.clone(), score);
    }
}

/// Lets scores from elsewhere arrive, and waits for them where the tick is to wait, by running [`ScoreArrivals`].
pub fn await_scores(
    world: &mut World,
    awaited: &mut QueryState<(&CandidateId, &OnTask), Awaited>,
    candidates: &mut QueryState<Known<'static>>,
    actors: &mut QueryState<(&Readiness, &WalkEnd), With<Actor>>,
) {
    if awaited.iter(world).next().is_some() {
        world.resource_mut::<ArrivalTicks>().0 += 1;
    }
    while awaited.iter(world).next().is_some() && world.resource::<TickFailure>().0.is_none() {
        let late = *world.resource::<LateScores>();
        let waits = late != LateScores::ActorWaits;
        let is_empty = world.resource::<Schedules>().get(ScoreArrivals).is_none_or(|s| s.systems_len() == 0);
        if waits && is_empty {
            let first = awaited.iter(world).map(|(id, on)| (*id, on.task)).min_by_key(|(id, _)| *id);
            let Some((id, task)) = first else { return };
            let task = world.get::<PruneTask>(task).map_or_else(String::new, |task| task.name.clone());
            world.resource_mut::<TickFailure>().note(SimError::NoScore { task, walk: id.walk });
            return;
        }
        if !is_empty {
            world.run_schedule(ScoreArrivals);
        }
        let goes_on = match late {
            LateScores::TickWaits => false,
            LateScores::ActorWaits => true,
            LateScores::NextWaits => !actors.query(world).iter().all(|(readiness, end)| {
                *readiness == Readiness::Retired
                    || end.0.is_some_and(|entity| outlook(&candidates.query(world), entity) == Outlook::Awaited)
            }),
        };
        if goes_on {
            return;
        }
        if awaited.iter(world).next().is_some() {
            std::thread::sleep(NAP);
        }
    }
}

/// Remembers scores from elsewhere, and gives candidates that are equal to a scored one its score.
pub fn share_scores(
    mut commands: Commands,
    mut cache: ResMut<ScoreCache>,
    (tasks, networks, settings): (Query<&PruneTask>, Query<&PrunedNetwork>, Res<Settings>),
    elsewhere: Query<(&CandidateId, &MadeBy, &OnTask, &Kept, &Score), With<ScoredElsewhere>>,
    equal: Query<(Entity, &EqualTo), Without<Score>>,
    scores: Query<&Score>,
    mut failure: ResMut<TickFailure>,
) {
    let mut arrived: Vec<_> = elsewhere.iter().collect();
    arrived.sort_unstable_by_key(|(_, made_by, ..)| made_by.index);
    for (id, _, on, kept, score) in arrived {
        let (Ok(task), Ok(network)) = (tasks.get(on.task), networks.get(on.network)) else { continue };
        if score.is_one() && score.known_reward(settings.reward).is_some() {
            cache.insert(network.index, kept.0.clone(), *score);
        } else {
            let (task, got, reward) = (task.name.clone(), format!("{score:?}"), settings.reward.name());
            failure.note(SimError::Score { task, walk: id.walk, got, reward });
        }
    }
    for (entity, EqualTo(first)) in &equal {
        if let Ok(score) = scores.get(*first) {
            commands.entity(entity).insert(*score);
        }
    }
}

/// What is known of the candidate that an actor's walk ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outlook<'a> {
    Scored,
    Awaited,
    Failed(Option<&'a CandidateFault>),
}

/// Candidates, and how far they got.
type Known<'w> = (&'w CandidateId, Has<Score>, Option<&'w CandidateFault>, Option<&'w EqualTo>, Has<ScoredElsewhere>);

/// Lets actors whose candidate has a score go on, makes those wait whose candidate is still to get one, and takes those
/// whose candidate will get none out of the tick, so that nothing of their walk is paid, learned from or counted. An
/// actor that waited for the score of an equal candidate goes with that one's.
pub fn settle_actors(
    tasks: Query<&PruneTask>,
    candidates: Query<Known<'_>>,
    mut actors: Query<(&Actor, &mut Readiness, &WalkEnd, &mut Restarts)>,
    mut log: ResMut<EventLog>,
    mut failure: ResMut<TickFailure>,
) {
    let mut failed = Vec::new();
    for (actor, mut readiness, end, restarts) in &mut actors {
        let Some(entity) = end.0 else { continue };
        match outlook(&candidates, entity) {
            Outlook::Scored if *readiness == Readiness::Scoring => *readiness = Readiness::Acting,
            Outlook::Scored => {}
            Outlook::Awaited => *readiness = Readiness::Scoring,
            Outlook::Failed(fault) => {
                *readiness = Readiness::Restarting;
                failed.push((actor, entity, fault, restarts));
            }
        }
    }
    failed.sort_unstable_by_key(|(actor, ..)| actor.index);
    for (actor, entity, fault, mut restarts) in failed {
        let (Ok(task), Ok((id, ..))) = (tasks.get(actor.task), candidates.get(entity)) else { continue };
        restarts.n += 1;
        restarts.of_walk += u32::from(fault.is_some());
        let message = fault.map_or_else(|| "an equal candidate has no score".to_owned(), |fault| fault.0.clone());
        let (index, walk) = (actor.index, id.walk);
        log.0.push(ProcessEvent::Restarted { task: task.index, actor: index, walk, message: message.clone() });
        if restarts.of_walk >= N_TRIES_OF_WALK {
            let n_times = std::mem::take(&mut restarts.of_walk);
            failure.note(SimError::Panicked { task: task.name.clone(), walk, n_times, message });
        }
    }
}

fn outlook<'a>(candidates: &'a Query<Known<'_>>, entity: Entity) -> Outlook<'a> {
    match candidates.get(entity) {
        Ok((_, true, ..)) => Outlook::Scored,
        Ok((_, false, None, Some(equal), _)) => match candidates.get(equal.0) {
            Ok((_, false, None, None, true)) => Outlook::Awaited,
            _ => Outlook::Failed(None),
        },
        Ok((_, false, None, None, true)) => Outlook::Awaited,
        Ok((_, false, fault, ..)) => Outlook::Failed(fault),
        Err(_) => Outlook::Failed(None),
    }
}
