//! Memory stays flat over 100,000 walks: nothing in the worlds, the queue or the learner's thread remembers a walk for
//! good.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tiny;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bevy_app::App;
use secateur_kernels::KernelError;
use secateur_net::Network;
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{Build, CandidateId, Evaluate, Evaluator, Prepared, ProcessEvent, PruningPlugin, Score, ScoreCache};
use secateur_train::{Scheduler, SearchEvent};
use tiny::late::Late;
use tiny::recording::{Recording, Seen};
use tiny::{N_TASKS, Options, TestAgent, network, pool, prepared_of, search_on, with_plugin};

const N_WALKS: u64 = 100_000;
/// One in so many tries to repair a candidate panics. Prime, so that no actor is struck again and again.
const PANICS: u64 = 97;
/// Scores that are remembered.
const N_SCORES: usize = 1 << 14;

/// Scores cost nothing, and panics come now and then.
#[derive(Clone, Default)]
struct Shaky {
    n_tries: Arc<AtomicU64>,
    network: Arc<OnceLock<Arc<Network>>>,
}

impl PruningPlugin for Shaky {
    fn name(&self) -> &str {
        "shaky"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        app.insert_resource(Evaluator(Arc::new(self.clone())));
        Ok(())
    }
}

impl Evaluate for Shaky {
    fn begin<'a>(&'a self, _: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        Ok(Box::new(move |_| {
            let n_tries = self.n_tries.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(!n_tries.is_multiple_of(PANICS), "injected while repairing");
            Ok(self.network.get_or_init(|| Arc::new(prepared.network.clone())).clone())
        }))
    }

    fn score(&self, _: &rayon::ThreadPool, _: &Prepared, _: &Network) -> Result<Score, KernelError> {
        Ok(Score::labelled(0.5, 0.0))
    }
}

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
    // A thousand injected panics a search are no news.
    std::panic::set_hook(Box::new(|panic| {
        if !panic.payload().downcast_ref::<&str>().is_some_and(|text| text.contains("injected")) {
            println!("{panic}");
        }
    }));
    let here: fn(CandidateId) -> Option<u64> = |_| None;
    let late: fn(CandidateId) -> Option<u64> = |id| (id.walk % 2 == 0).then_some(1 + id.walk % 3);
    let lag = Scheduler::BoundedLag { max: 1 };
    let cases = [(Scheduler::Lockstep, here), (Scheduler::Async, here), (lag, here), (Scheduler::Async, late)];
    for (scheduler, delay) in cases {
        let options = Options {
            scheduler,
            n_walks: N_WALKS / N_TASKS as u64,
            n_actors: 8,
            // It makes candidates alike.
            spend_leftover: false,
            ..with_plugin(TestAgent::Uniform, Late::new(Shaky::default(), delay), "\"shaky\": ()")
        };
        let seen = Seen::default();
        let learner = Recording::new(&seen, 16, 0);
        let prepared = prepared_of(&pool(1), network([48, 64, 64, 48]));
        let mut search = search_on(&prepared, &options, |_| Ok(learner.agent()));
        let (mut n_ended, mut n_scored, mut n_restarts, mut n_learned, mut early) = (0, 0, 0, 0, None);
        while !search.is_done() {
            for event in search.tick().unwrap() {
                match event {
                    SearchEvent::Process(ProcessEvent::Candidate { cached, .. }) => {
                        (n_ended, n_scored) = (n_ended + 1, n_scored + u64::from(!cached))
                    }
                    SearchEvent::Process(ProcessEvent::Restarted { .. }) => n_restarts += 1,
                    _ => {}
                }
            }
            n_learned += seen.lock().unwrap().drain(..).count();
            if early.is_none() && n_ended >= N_WALKS / 4 {
                assert_eq!(search.world_mut().resource::<ScoreCache>().len(), N_SCORES, "of {n_scored} scored");
                early = resident();
            }
        }
        search.finish().unwrap();
        n_learned += seen.lock().unwrap().len();
        let (early, late) = (early.unwrap(), resident().unwrap());
        assert_eq!(n_ended, N_WALKS);
        assert!(n_scored > N_WALKS / 2 && n_restarts >= n_scored / PANICS, "{n_scored} scored, {n_restarts} restarts");
        // All walks but the noise-free: every tenth, and the last but one, which is no tenth.
        assert_eq!(n_learned as u64, 4 * (N_WALKS - N_WALKS / 10 - N_TASKS as u64));
        println!("{scheduler:?}: {early} then {late} bytes, {n_scored} scored, {n_restarts} restarts");
        assert!(late < 1.02 * early, "{scheduler:?}: {early} bytes after a quarter of the walks, {late} at the end");
    }
}
