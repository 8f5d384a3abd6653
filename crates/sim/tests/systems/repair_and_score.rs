//! Building the networks of candidates, scoring them, and what happens to those that panic.

use std::sync::{Arc, Mutex};

use bevy_ecs::prelude::*;
use secateur_kernels::KernelError;
use secateur_net::{Network, prune};
use secateur_sim::{
    ArrivalTicks, Awaited, BatchSize, Build, BuildBatch, CandidateFault, CandidateId, Compact, EarlierScores, EqualTo,
    Evaluate, Evaluator, LateScores, Prepared, ProcessEvent, Readiness, RefitAndScore, Restarts, Score, ScoreArrivals,
    ScoreCache, ScoredElsewhere, SimError, ToScore, await_scores, build_batch, recall_scores, repair_candidates,
    score_candidates, settle_actors, share_scores,
};

use crate::hand_made::{A, Ended, Process, kept, prepared, widths};

const HALF: Score = Score::labelled(0.5, 0.25);

/// Channels of the first convolution that make an evaluation panic, and that make it fail.
const PANICS: usize = 4;
const FAILS: usize = 3;
const ERROR: KernelError = KernelError::NanLogits { image: 7 };

/// Notes the widths that it builds. Accuracy is a tenth of the channels of the first convolution.
#[derive(Default)]
struct Noting(Mutex<Vec<Vec<usize>>>);

fn strike(a: usize) -> Result<(), KernelError> {
    assert_ne!(a, PANICS, "injected");
    if a == FAILS { Err(ERROR) } else { Ok(()) }
}

impl Evaluate for Noting {
    fn begin<'a>(&'a self, _: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        Ok(Box::new(move |kept| {
            self.0.lock().unwrap().push(kept.widths());
            strike(kept.group(A).len())?;
            Ok(Arc::new(prune(&prepared.network, &prepared.groups, kept)?))
        }))
    }

    fn score(&self, _: &rayon::ThreadPool, _: &Prepared, network: &Network) -> Result<Score, KernelError> {
        let a = network.graph().shape(1).c;
        strike(a)?;
        Ok(Score::labelled(a as f64 / 10.0, 0.0))
    }
}

fn noted(process: &mut Process) -> Arc<Noting> {
    let noting = Arc::new(Noting::default());
    process.world.insert_resource(Evaluator(noting.clone()));
    noting
}

/// A candidate that is built and has no score.
fn built(process: &mut Process, index: usize, (a, b): (usize, usize)) -> Ended {
    let prepared = prepared();
    let compact = prune(&prepared.network, &prepared.groups, &kept(a, b)).unwrap();
    let ended = process.ended(index, index as u64, (a, b));
    process.set(ended.candidate, Compact(Arc::new(compact)));
    ended
}

fn score(process: &Process, ended: Ended) -> Option<Score> {
    process.find::<Score>(ended.candidate)
}

fn accuracy(accuracy: f64) -> Option<Score> {
    Some(Score::labelled(accuracy, 0.0))
}

#[test]
fn a_candidate_becomes_the_compact_network_of_its_channels() {
    let mut process = Process::new();
    process.world.insert_resource(Evaluator(Arc::new(RefitAndScore)));
    let ended = process.ended(0, 0, (2, 1));
    process.run(repair_candidates);
    let compact = process.get::<Compact>(ended.candidate).0;
    let n_channels = |name: &str| compact.weights()[&format!("{name}.weight")].shape()[0];
    assert_eq!(["a", "b", "out"].map(n_channels), [2, 1, 2]);
}

#[test]
fn a_candidate_whose_score_is_known_is_not_built_again() {
    let mut process = Process::new();
    let noting = noted(&mut process);
    process.world.resource_mut::<ScoreCache>().insert(0, kept(2, 1), HALF);
    let [known, fresh] = [(2, 1), (1, 2)].map(|widths| process.ended(0, 0, widths));
    process.run(recall_scores);
    process.run(repair_candidates);
    assert_eq!((score(&process, known), process.is_cached(known.candidate)), (Some(HALF), true));
    assert!(process.find::<Compact>(known.candidate).is_none());
    assert_eq!((score(&process, fresh), process.is_cached(fresh.candidate)), (None, false));
    assert!(process.find::<Compact>(fresh.candidate).is_some());
    assert_eq!(*noting.0.lock().unwrap(), [widths(1, 2)]);
}

#[test]
fn a_candidate_that_an_earlier_run_scored_goes_the_way_of_one_that_was_scored_now() {
    let mut packed = ScoreCache::default();
    packed.insert(0, kept(2, 1), HALF);
    let of_earlier_run: Arc<[u8]> = packed.iter().next().unwrap().1.into();
    let mut earlier = EarlierScores::default();
    earlier.insert(0, of_earlier_run, HALF);
    let mut process = Process::new();
    let noting = noted(&mut process);
    process.world.insert_resource(earlier);
    let [second, equal, first] =
        [(1, (2, 1)), (2, (2, 1)), (0, (1, 2))].map(|(index, of)| process.ended(index, index as u64, of));
    process.run(recall_scores);
    process.run(repair_candidates);
    process.run(score_candidates);
    process.run(share_scores);
    assert_eq!(*noting.0.lock().unwrap(), [widths(1, 2)]);
    assert_eq!([first, second, equal].map(|of| score(&process, of)), [accuracy(0.1), Some(HALF), Some(HALF)]);
    assert_eq!([first, second, equal].map(|of| process.is_cached(of.candidate)), [false, false, true]);
    // Remembered in the order of the actors, as if both had been scored.
    let remembered: Vec<Score> = process.world.resource::<ScoreCache>().iter().map(|(.., score)| score).collect();
    assert_eq!(remembered, [accuracy(0.1).unwrap(), HALF]);
    let mut earlier = process.world.resource_mut::<EarlierScores>();
    assert_eq!((earlier.take_count(), earlier.take_count()), (1, 0));
    assert_eq!(
        earlier.take_new().into_iter().map(|(network, _, score)| (network, score)).collect::<Vec<_>>(),
        [(0, accuracy(0.1).unwrap())]
    );
    // A later search of the run finds what this one scored, which counts as none of an earlier run.
    process.world.insert_resource(ScoreCache::default());
    let again = process.ended(0, 3, (1, 2));
    process.world.despawn(first.candidate);
    process.run(recall_scores);
    assert_eq!(score(&process, again), accuracy(0.1));
    assert_eq!(process.world.resource_mut::<EarlierScores>().take_count(), 0);
}

#[test]
fn of_equal_candidates_the_first_actors_is_built_and_the_others_wait_for_it() {
    let mut process = Process::new();
    let noting = noted(&mut process);
    let [third, first, second] = [2, 0, 1].map(|index| process.ended(index, index as u64, (2, 1)));
    process.run(recall_scores);
    process.run(repair_candidates);
    let of = |ended: Ended| (process.is_cached(ended.candidate), process.find::<Compact>(ended.candidate).is_some());
    assert_eq!([first, second, third].map(of), [(false, true), (true, false), (true, false)]);
    let equal = Some(EqualTo(first.candidate));
    assert_eq!([second, third].map(|ended| process.find::<EqualTo>(ended.candidate)), [equal, equal]);
    assert_eq!(noting.0.lock().unwrap().len(), 1);
}

#[test]
fn a_new_candidate_that_equals_one_whose_score_is_awaited_waits_for_it_too() {
    let mut process = Process::new();
    let noting = noted(&mut process);
    let earlier = process.ended(5, 1, (2, 1));
    process.set(earlier.candidate, ScoredElsewhere);
    let new = process.ended(0, 2, (2, 1));
    process.run(recall_scores);
    process.run(repair_candidates);
    assert_eq!(process.find::<EqualTo>(new.candidate), Some(EqualTo(earlier.candidate)));
    assert!(noting.0.lock().unwrap().is_empty());
}

#[test]
fn a_candidate_that_panics_while_it_is_built_costs_only_itself() {
    let mut process = Process::new();
    noted(&mut process);
    let [bad, good] = [(PANICS, 1), (1, 1)].map(|widths| process.ended(0, 0, widths));
    process.run(repair_candidates);
    assert!(process.get::<CandidateFault>(bad.candidate).0.contains("injected"));
    assert!(process.find::<Compact>(good.candidate).is_some());
    assert_eq!(process.failure(), None);
}

#[test]
fn an_error_while_building_or_scoring_fails_the_tick_with_task_and_walk() {
    let expected = SimError::Candidate { task: "two-half".into(), walk: 0, source: ERROR };
    let mut process = Process::new();
    noted(&mut process);
    process.ended(0, 0, (FAILS, 1));
    process.run(repair_candidates);
    assert_eq!(process.failure(), Some(expected.clone()));
    let mut process = Process::new();
    noted(&mut process);
    built(&mut process, 0, (FAILS, 1));
    process.run(score_candidates);
    assert_eq!(process.failure(), Some(expected));
}

/// Which candidates there were to score after each batch.
#[derive(Resource, Default)]
struct Seen(Vec<Vec<u64>>);

fn see(mut seen: ResMut<Seen>, built: Query<&CandidateId, ToScore>) {
    let mut walks: Vec<u64> = built.iter().map(|id| id.walk).collect();
    walks.sort_unstable();
    seen.0.push(walks);
}

#[test]
fn candidates_are_built_in_batches_in_actor_order_and_seen_after_each() {
    let mut process = Process::new();
    noted(&mut process);
    process.world.insert_resource(BatchSize(2));
    process.world.init_resource::<Seen>();
    process.world.schedule_scope(BuildBatch, |_, schedule| {
        schedule.add_systems(see.after(build_batch));
    });
    for (index, a) in [(3, 2), (2, 2), (0, 1), (1, PANICS)] {
        process.ended(index, index as u64, (a, 1));
    }
    process.run(repair_candidates);
    assert_eq!(process.world.resource::<Seen>().0, [vec![0], vec![0, 2, 3]]);
}

#[test]
fn candidates_of_a_task_that_is_gone_do_not_hold_up_the_tick() {
    let mut process = Process::new();
    noted(&mut process);
    let ended = process.ended(0, 0, (2, 1));
    let network = process.network;
    process.world.despawn(network);
    process.run(repair_candidates);
    assert!(process.find::<Compact>(ended.candidate).is_none());
}

#[test]
fn a_candidate_is_scored_once_and_equal_ones_get_its_score() {
    let mut process = Process::new();
    noted(&mut process);
    let first = built(&mut process, 1, (2, 1));
    let equal = process.ended(0, 7, (2, 1));
    process.set(equal.candidate, EqualTo(first.candidate));
    process.run(score_candidates);
    process.run(share_scores);
    assert_eq!([first, equal].map(|ended| score(&process, ended)), [accuracy(0.2), accuracy(0.2)]);
    assert!(process.find::<Compact>(first.candidate).is_none(), "networks are dropped once scored");
    assert_eq!(process.world.resource::<ScoreCache>().get(0, &kept(2, 1)), accuracy(0.2));
}

#[test]
fn a_score_that_is_there_already_stays() {
    let mut process = Process::new();
    noted(&mut process);
    let ended = built(&mut process, 0, (2, 1));
    process.set(ended.candidate, HALF);
    process.run(score_candidates);
    assert_eq!(score(&process, ended), Some(HALF));
    assert!(process.world.resource::<ScoreCache>().is_empty());
}

#[test]
fn a_candidate_that_panics_while_it_is_scored_has_no_score_and_is_not_remembered() {
    let mut process = Process::new();
    noted(&mut process);
    let bad = built(&mut process, 0, (PANICS, 1));
    let good = built(&mut process, 1, (1, 1));
    process.run(score_candidates);
    assert_eq!(score(&process, bad), None);
    assert!(process.get::<CandidateFault>(bad.candidate).0.contains("injected"));
    assert_eq!(score(&process, good), accuracy(0.1));
    assert_eq!(process.world.resource::<ScoreCache>().len(), 1);
}

#[test]
fn a_candidate_that_is_scored_elsewhere_is_neither_built_nor_scored_here() {
    let mut process = Process::new();
    let noting = noted(&mut process);
    let elsewhere = process.ended(0, 0, (2, 1));
    process.set(elsewhere.candidate, ScoredElsewhere);
    process.run(repair_candidates);
    assert!(noting.0.lock().unwrap().is_empty());
    let built = built(&mut process, 1, (1, 1));
    process.set(built.candidate, ScoredElsewhere);
    process.run(score_candidates);
    assert_eq!([elsewhere, built].map(|ended| score(&process, ended)), [None, None]);
}

/// Gives the awaited candidates a score in the third run.
fn arrive_in_third(mut commands: Commands, mut runs: Local<u32>, awaited: Query<Entity, Awaited>) {
    *runs += 1;
    if *runs == 3 {
        awaited.iter().for_each(|entity| {
            commands.entity(entity).insert(HALF);
        });
    }
}

#[test]
fn a_tick_that_waits_does_so_until_the_last_score_is_there_and_one_that_does_not_looks_once() {
    for (late, expected) in [(LateScores::TickWaits, Some(HALF)), (LateScores::ActorWaits, None)] {
        let mut process = Process::new();
        process.world.insert_resource(late);
        process.world.schedule_scope(ScoreArrivals, |_, schedule| {
            schedule.add_systems(arrive_in_third);
        });
        let ended = process.ended(0, 0, (2, 1));
        process.set(ended.candidate, ScoredElsewhere);
        process.run(await_scores);
        assert_eq!(score(&process, ended), expected, "{late:?}");
        assert_eq!(process.failure(), None);
    }
}

#[test]
fn a_tick_waits_for_the_next_score_only_where_no_actor_goes_on() {
    // Whether a second actor walks, retired, waits for an equal candidate, or has its score; and what the first gets.
    let cases = [("walks", None), ("retired", Some(HALF)), ("equal", Some(HALF)), ("scored", None)];
    for (other, expected) in cases {
        let mut process = Process::new();
        process.world.insert_resource(LateScores::NextWaits);
        process.world.schedule_scope(ScoreArrivals, |_, schedule| {
            schedule.add_systems(arrive_in_third);
        });
        let ended = process.ended(0, 0, (2, 1));
        process.set(ended.candidate, ScoredElsewhere);
        match other {
            "walks" => drop(process.actor(1, 1)),
            "retired" => {
                let actor = process.actor(1, 1);
                process.set(actor, Readiness::Retired);
            }
            "equal" => {
                let equal = process.ended(1, 1, (2, 1));
                process.set(equal.candidate, EqualTo(ended.candidate));
            }
            _ => drop(process.scored(1, 1, (1, 1), 0.5)),
        }
        process.run(await_scores);
        assert_eq!(score(&process, ended), expected, "{other}");
        assert_eq!(process.world.resource::<ArrivalTicks>(), &ArrivalTicks(1), "one tick, however often it looked");
    }
}

#[test]
fn a_tick_that_would_wait_for_ever_fails_with_task_and_walk() {
    let mut process = Process::new();
    let ended = process.ended(0, 4, (2, 1));
    process.set(ended.candidate, ScoredElsewhere);
    process.run(await_scores);
    assert_eq!(process.failure(), Some(SimError::NoScore { task: "two-half".into(), walk: 4 }));
}

#[test]
fn a_score_from_elsewhere_is_remembered_and_one_that_is_none_fails_the_tick() {
    for (accuracy, is_one) in [(0.25, true), (f64::NAN, false), (1.5, false)] {
        let mut process = Process::new();
        let ended = process.ended(0, 4, (2, 1));
        process.set(ended.candidate, (ScoredElsewhere, Score::labelled(accuracy, 0.0)));
        process.run(share_scores);
        assert_eq!(process.world.resource::<ScoreCache>().len(), usize::from(is_one));
        assert_eq!(process.failure().is_none(), is_one);
        let of_walk = |e| matches!(e, SimError::Score { walk: 4, .. });
        assert!(process.failure().is_none_or(of_walk));
    }
}

#[test]
fn an_actor_waits_for_its_score_or_that_of_an_equal_candidate_and_goes_on_when_it_is_there() {
    let mut process = Process::new();
    let awaited = process.ended(0, 0, (2, 1));
    process.set(awaited.candidate, ScoredElsewhere);
    let equal = process.ended(1, 1, (2, 1));
    process.set(equal.candidate, EqualTo(awaited.candidate));
    let readiness = |process: &Process| [awaited, equal].map(|ended| process.get::<Readiness>(ended.actor));
    process.run(settle_actors);
    assert_eq!(readiness(&process), [Readiness::Scoring; 2]);
    process.run(settle_actors);
    assert_eq!(readiness(&process), [Readiness::Scoring; 2]);
    assert!(process.events().is_empty());
    process.set(awaited.candidate, HALF);
    process.run(share_scores);
    process.run(settle_actors);
    assert_eq!(readiness(&process), [Readiness::Acting; 2]);
}

#[test]
fn a_fault_from_elsewhere_costs_its_actor_the_walk_and_the_actors_of_equal_candidates_theirs() {
    let mut process = Process::new();
    let awaited = process.ended(0, 0, (2, 1));
    process.set(awaited.candidate, (ScoredElsewhere, CandidateFault("the worker is gone".into())));
    let equal = process.ended(1, 1, (2, 1));
    process.set(equal.candidate, EqualTo(awaited.candidate));
    process.run(settle_actors);
    let of = |ended: Ended| (process.get::<Readiness>(ended.actor), process.get::<Restarts>(ended.actor).of_walk);
    assert_eq!([awaited, equal].map(of), [(Readiness::Restarting, 1), (Readiness::Restarting, 0)]);
}

#[test]
fn actors_whose_candidate_has_no_score_leave_the_tick_and_only_its_own_panic_counts_against_a_walk() {
    let mut process = Process::new();
    let waited = process.ended(1, 6, (2, 1));
    let panicked = process.ended(0, 5, (2, 1));
    process.set(panicked.candidate, CandidateFault("injected".into()));
    process.set(waited.candidate, EqualTo(panicked.candidate));
    let fine = process.scored(2, 7, (1, 1), 0.5).actor;
    let inside = process.actor(3, 8);
    process.run(settle_actors);
    let readiness = [panicked.actor, waited.actor, fine, inside].map(|actor| process.get::<Readiness>(actor));
    let (restarting, acting) = (Readiness::Restarting, Readiness::Acting);
    assert_eq!(readiness, [restarting, restarting, acting, acting]);
    let restarts = [panicked.actor, waited.actor, fine].map(|actor| process.get::<Restarts>(actor));
    let times = |n, of_walk| Restarts { n, of_walk };
    assert_eq!(restarts, [times(1, 1), times(1, 0), times(0, 0)]);
    let event = |actor, walk, message: &str| ProcessEvent::Restarted { task: 0, actor, walk, message: message.into() };
    assert_eq!(process.events(), [event(0, 5, "injected"), event(1, 6, "an equal candidate has no score")]);
    assert_eq!(process.failure(), None);
}

#[test]
fn a_candidate_that_panics_the_fourth_time_stops_the_run() {
    let mut process = Process::new();
    let Ended { actor, candidate } = process.ended(0, 5, (2, 1));
    process.set(candidate, CandidateFault("injected".into()));
    process.set(actor, Restarts { n: 9, of_walk: 2 });
    process.run(settle_actors);
    assert_eq!(process.failure(), None);
    process.run(settle_actors);
    let expected = SimError::Panicked { task: "two-half".into(), walk: 5, n_times: 4, message: "injected".into() };
    assert_eq!(process.failure(), Some(expected));
    assert_eq!(process.get::<Restarts>(actor), Restarts { n: 11, of_walk: 0 });
}
