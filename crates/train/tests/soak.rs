//! Memory stays flat over 100,000 walks: nothing in the worlds, the queue or the learner's thread remembers a walk for good.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use secateur_rl::AgentKind;
use secateur_sim::Event;
use secateur_train::Scheduler;
use tiny::recording::{Recording, Seen, Unsteady};
use tiny::{N_TASKS, Options, search_with, with_plugin};

const N_WALKS: u64 = 100_000;

/// Memory of this process, bytes, where the system tells (Linux).
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024.0 * line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()?)
}

#[test]
fn memory_is_flat_over_a_hundred_thousand_walks() {
    if resident().is_none() {
        println!("SKIPPED: this system does not tell how much memory a process has");
        return;
    }
    for scheduler in [Scheduler::Lockstep, Scheduler::Async, Scheduler::BoundedLag { max: 1 }] {
        let options = Options {
            scheduler,
            n_walks: N_WALKS / N_TASKS as u64,
            n_actors: 8,
            ..with_plugin(AgentKind::Uniform, Unsteady::new(5), "\"unsteady\": ()")
        };
        let seen = Seen::default();
        let learner = Recording { seen: seen.clone(), n_updates: 0, batch_size: 16, unroll_length: 0, pause: || {} };
        let mut search = search_with(&options, |_| Ok(learner.agent()));
        let (mut n_ended, mut n_learned, mut early) = (0, 0, None);
        while !search.is_done() {
            let events = search.tick().unwrap();
            n_ended += events.iter().filter(|event| matches!(event, Event::Candidate { .. })).count() as u64;
            n_learned += seen.lock().unwrap().drain(..).count();
            if early.is_none() && n_ended >= N_WALKS / 5 {
                early = resident();
            }
        }
        search.finish().unwrap();
        n_learned += seen.lock().unwrap().len();
        let (early, late) = (early.unwrap(), resident().unwrap());
        assert_eq!(n_ended, N_WALKS);
        // All walks but the noise-free: every tenth, and the last but one, which is no tenth.
        assert_eq!(n_learned as u64, 4 * (N_WALKS - N_WALKS / 10 - N_TASKS as u64));
        assert!(late < 1.02 * early, "{scheduler:?}: {early} bytes after a fifth of the walks, {late} at the end");
    }
}
