//! Building the networks of candidates, scoring them, and what happens to those that panic.

use std::sync::{Arc, Mutex};

use bevy_ecs::prelude::*;
use secateur_kernels::KernelError;
use secateur_net::{Network, prune};
use secateur_sim::{
    Build, Candidate, Evaluate, Evaluator, Event, Measured, OnBuilt, Outcome, Prepared, Readiness, Restarts, Score,
    ScoreCache, SimError, fail_candidates, repair_candidates, score_candidates,
};

use crate::hand_made::{A, Process, candidate, kept, prepared, scored, widths};

const HALF: Score = Score { accuracy: 0.5, divergence: 0.25 };

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
        Ok(Score { accuracy: a as f64 / 10.0, divergence: 0.0 })
    }
}

fn noted(process: &mut Process) -> Arc<Noting> {
    let noting = Arc::new(Noting::default());
    process.world.insert_resource(Evaluator(noting.clone()));
    noting
}

/// An actor with a candidate that waits for its score.
fn built(process: &mut Process, index: usize, (a, b): (usize, usize)) -> Entity {
    let prepared = prepared();
    let compact = prune(&prepared.network, &prepared.groups, &kept(a, b)).unwrap();
    let mut candidate = candidate(index as u64, a, b);
    candidate.compact = Some(Arc::new(compact));
    process.actor_with(index, candidate)
}

#[test]
fn a_candidate_becomes_the_compact_network_of_its_channels() {
    let mut process = Process::new();
    process.world.insert_resource(Evaluator(Arc::new(Measured)));
    let actor = process.actor_with(0, candidate(0, 2, 1));
    process.run(repair_candidates);
    let compact = process.candidate(actor).compact.unwrap();
    let n_channels = |name: &str| compact.weights()[&format!("{name}.weight")].shape()[0];
    assert_eq!(["a", "b", "out"].map(n_channels), [2, 1, 2]);
}

#[test]
fn a_candidate_whose_score_is_known_is_not_built_again() {
    let mut process = Process::new();
    let noting = noted(&mut process);
    process.world.resource_mut::<ScoreCache>().insert(0, kept(2, 1), HALF);
    let [known, fresh] = [(2, 1), (1, 2)].map(|(a, b)| process.actor_with(0, candidate(0, a, b)));
    process.run(repair_candidates);
    let (known, fresh) = (process.candidate(known), process.candidate(fresh));
    assert_eq!((known.score, known.cached, known.compact), (Some(HALF), true, None));
    assert_eq!((fresh.score, fresh.cached, fresh.compact.is_some()), (None, false, true));
    assert_eq!(*noting.0.lock().unwrap(), [widths(1, 2)]);
}

#[test]
fn of_equal_candidates_the_first_actors_is_built_and_the_others_wait_for_it() {
    let mut process = Process::new();
    let noting = noted(&mut process);
    let [third, first, second] = [2, 0, 1].map(|index| process.actor_with(index, candidate(0, 2, 1)));
    process.run(repair_candidates);
    let of = |actor| (process.candidate(actor).cached, process.candidate(actor).compact.is_some());
    assert_eq!([first, second, third].map(of), [(false, true), (true, false), (true, false)]);
    assert_eq!(noting.0.lock().unwrap().len(), 1);
}

#[test]
fn a_candidate_that_panics_while_it_is_built_costs_only_itself() {
    let mut process = Process::new();
    noted(&mut process);
    let [bad, good] = [(PANICS, 1), (1, 1)].map(|(a, b)| process.actor_with(0, candidate(0, a, b)));
    process.run(repair_candidates);
    assert!(process.candidate(bad).fault.unwrap().contains("injected"));
    assert!(process.candidate(good).compact.is_some());
    assert_eq!(process.failure(), None);
}

#[test]
fn an_error_while_building_or_scoring_fails_the_tick_with_task_and_walk() {
    let expected = SimError::Candidate { task: "two-half".into(), walk: 0, source: ERROR };
    let mut process = Process::new();
    noted(&mut process);
    process.actor_with(0, candidate(0, FAILS, 1));
    process.run(repair_candidates);
    assert_eq!(process.failure(), Some(expected.clone()));
    let mut process = Process::new();
    noted(&mut process);
    built(&mut process, 0, (FAILS, 1));
    process.run(score_candidates);
    assert_eq!(process.failure(), Some(expected));
}

#[test]
fn whoever_scores_elsewhere_is_told_of_every_network_that_was_built_in_actor_order() {
    let mut process = Process::new();
    noted(&mut process);
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    process.world.insert_resource(OnBuilt(Arc::new(move |index, _, networks| {
        let mut told = tell.lock().unwrap();
        networks.iter().for_each(|n| told.push((index, n.graph().shape(1).c)));
    })));
    for (index, a) in [(2, 2), (0, 1), (1, PANICS)] {
        process.actor_with(index, candidate(0, a, 1));
    }
    process.run(repair_candidates);
    assert_eq!(*told.lock().unwrap(), [(0, 1), (0, 2)]);
}

#[test]
fn a_candidate_is_scored_once_and_equal_ones_get_its_score() {
    let mut process = Process::new();
    noted(&mut process);
    let equal = process.actor_with(0, candidate(0, 2, 1));
    let first = built(&mut process, 1, (2, 1));
    process.run(score_candidates);
    let score = Some(Score { accuracy: 0.2, divergence: 0.0 });
    let (first, equal) = (process.candidate(first), process.candidate(equal));
    assert_eq!((first.score, equal.score), (score, score));
    assert!(first.compact.is_none(), "networks are dropped once scored");
    assert_eq!(process.world.resource::<ScoreCache>().get(0, &kept(2, 1)), score);
}

#[test]
fn a_score_that_is_there_already_stays() {
    let mut process = Process::new();
    noted(&mut process);
    let actor = built(&mut process, 0, (2, 1));
    let known = Candidate { score: Some(HALF), ..process.candidate(actor) };
    process.set(actor, Outcome(Some(known)));
    process.run(score_candidates);
    assert_eq!(process.candidate(actor).score, Some(HALF));
    assert!(process.world.resource::<ScoreCache>().is_empty());
}

#[test]
fn a_candidate_that_panics_while_it_is_scored_has_no_score_and_is_not_remembered() {
    let mut process = Process::new();
    noted(&mut process);
    let bad = built(&mut process, 0, (PANICS, 1));
    let good = built(&mut process, 1, (1, 1));
    process.run(score_candidates);
    let bad = process.candidate(bad);
    assert!(bad.score.is_none() && bad.fault.unwrap().contains("injected"));
    assert_eq!(process.candidate(good).score, Some(Score { accuracy: 0.1, divergence: 0.0 }));
    assert_eq!(process.world.resource::<ScoreCache>().len(), 1);
}

#[test]
fn actors_whose_candidate_has_no_score_leave_the_tick_and_only_its_own_panic_counts_against_a_walk() {
    let mut process = Process::new();
    let waited = process.actor_with(1, candidate(6, 2, 1));
    let faulty = Candidate { fault: Some("injected".into()), ..candidate(5, 2, 1) };
    let panicked = process.actor_with(0, faulty);
    let fine = process.actor_with(2, scored(7, (1, 1), 0.5));
    let inside = process.actor(3, 8);
    [waited, panicked].iter().for_each(|&actor| process.set(actor, Restarts { n: 3, of_walk: 1 }));
    process.run(fail_candidates);
    let readiness = [panicked, waited, fine, inside].map(|actor| process.get::<Readiness>(actor));
    let (acting, restarting) = (Readiness::Acting, Readiness::Restarting);
    assert_eq!(readiness, [restarting, restarting, acting, acting]);
    let restarts = [panicked, waited, fine].map(|actor| process.get::<Restarts>(actor));
    let after = |n, of_walk| Restarts { n, of_walk };
    assert_eq!(restarts, [after(4, 2), after(4, 1), after(0, 0)]);
    let event = |actor, walk, message: &str| Event::Restarted { task: 0, actor, walk, message: message.into() };
    assert_eq!(process.events(), [event(0, 5, "injected"), event(1, 6, "an equal candidate has no score")]);
    assert_eq!(process.failure(), None);
}

#[test]
fn a_candidate_that_panics_the_fourth_time_stops_the_run() {
    let mut process = Process::new();
    let faulty = Candidate { fault: Some("injected".into()), ..candidate(5, 2, 1) };
    let actor = process.actor_with(0, faulty);
    process.set(actor, Restarts { n: 9, of_walk: 2 });
    process.run(fail_candidates);
    assert_eq!(process.failure(), None);
    process.run(fail_candidates);
    let expected = SimError::Panicked { task: "two-half".into(), walk: 5, n_times: 4, message: "injected".into() };
    assert_eq!(process.failure(), Some(expected));
    assert_eq!(process.get::<Restarts>(actor), Restarts { n: 11, of_walk: 0 });
}
