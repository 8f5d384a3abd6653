//! Every step of every walk that is learned from is learned from exactly once: whatever the scheduler, the lengths of
//! unrolls and queue, however often candidates panic, and however often the search is saved and continued.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use secateur_sim::Prepared;
use secateur_train::{Executor, Scheduler, Search};
use tiny::recording::{Recording, Seen, Unsteady, expected};
use tiny::{N_TASKS, Options, TestAgent, pool, prepared, search_on, with_plugin};

#[derive(Clone, Copy, Debug)]
struct Case {
    scheduler: Scheduler,
    executor: Executor,
    queue_capacity: usize,
    batch_size: usize,
    unroll_length: usize,
    n_walks: u64,
    n_actors: usize,
    /// Ticks between saves; 0 for none.
    save_every: usize,
    /// One in so many candidates panics; 0 for none.
    panics: u64,
}

fn begin(case: Case, seen: &Seen, scores: &Unsteady) -> Search {
    let options = Options {
        scheduler: case.scheduler,
        executor: case.executor,
        queue_capacity: case.queue_capacity,
        n_walks: case.n_walks,
        n_actors: case.n_actors,
        ..with_plugin(TestAgent::Uniform, scores.clone(), "\"unsteady\": ()")
    };
    let learner = Recording::new(seen, case.batch_size, case.unroll_length);
    static PREPARED: OnceLock<Arc<Prepared>> = OnceLock::new();
    search_on(PREPARED.get_or_init(|| prepared(&pool(1))), &options, |_| Ok(learner.agent()))
}

/// Every step learned from, in order of task, walk and layer, and the number of decisions.
fn run(case: Case) -> (Vec<(u32, u64, u32)>, u64) {
    let (seen, scores) = (Seen::default(), Unsteady::new(case.panics));
    let mut search = begin(case, &seen, &scores);
    let start = Instant::now();
    let mut n_ticks = 0;
    while !search.is_done() {
        assert!(start.elapsed() < Duration::from_secs(60), "the search does not end");
        search.tick().unwrap();
        n_ticks += 1;
        if case.save_every > 0 && n_ticks % case.save_every == 0 {
            let saved = search.save().unwrap();
            search = begin(case, &seen, &scores);
            search.restore(saved).unwrap();
        }
    }
    search.finish().unwrap();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    (seen, search.env_steps())
}

fn cases() -> impl Strategy<Value = Case> {
    let scheduler = prop_oneof![
        Just(Scheduler::Lockstep),
        Just(Scheduler::Async),
        (0u64..4).prop_map(|max| Scheduler::BoundedLag { max }),
    ];
    let executor = prop_oneof![Just(Executor::Single), Just(Executor::Multi)];
    let sizes = (1usize..6, 1usize..7, 0usize..11, 3u64..16, 1usize..5, 0usize..9);
    (scheduler, executor, sizes, 0u64..4).prop_map(|(scheduler, executor, sizes, panics)| {
        let (queue_capacity, batch_size, unroll_length, n_walks, n_actors, save_every) = sizes;
        Case { scheduler, executor, queue_capacity, batch_size, unroll_length, n_walks, n_actors, save_every, panics }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_is_learned_from_exactly_once(case in cases()) {
        let (seen, n_decisions) = run(case);
        prop_assert_eq!(seen, expected(case.n_walks));
        let n_steps = 4 * case.n_walks * N_TASKS as u64;
        prop_assert!(n_decisions == n_steps || (case.panics > 0 && n_decisions > n_steps), "{} decisions", n_decisions);
    }
}
