//! An agent that knows every step it learns from, and candidates that cost nothing and may panic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bevy_app::App;
use secateur_kernels::KernelError;
use secateur_net::Network;
use secateur_net::random::SplitMix;
use secateur_rl::{ActRequest, Agent, Decision, LearnReport, Learner, Policy, RlError, Unroll};
use secateur_scene::{PluginConfig, SceneError};
use secateur_sim::{Build, Evaluate, Evaluator, Prepared, PruningPlugin, Score};

use super::N_TASKS;

/// (task, walk, layer) of every step learned from.
pub type Seen = Arc<Mutex<Vec<(u32, u64, u32)>>>;

/// Writes the walk's number where the value would be, and how many steps of the walk came before where the recurrent
/// state would be, so that the learner knows each step.
struct Numbering {
    version: u64,
    pause: fn(),
}

impl Policy for Numbering {
    fn version(&self) -> u64 {
        self.version
    }

    fn act(&self, batch: &[ActRequest]) -> Result<Vec<Decision>, RlError> {
        (self.pause)();
        let decide = |request: &ActRequest| {
            let n_before = request.recurrent.first().copied().unwrap_or(0.0);
            assert_eq!(n_before, request.layer as f32, "the recurrent state belongs to another step");
            // Hardly two walks decide alike, and a walk done again decides as before.
            let share = SplitMix(request.walk << 8 | u64::from(request.layer)).below(1000) as f32 * 1e-3;
            let keep_ratio = request.even_ratio * (0.6 + 0.6 * share);
            Decision { keep_ratio, value: request.walk as f32, recurrent: vec![n_before + 1.0], ..Decision::default() }
        };
        Ok(batch.iter().map(decide).collect())
    }
}

pub struct Recording {
    pub seen: Seen,
    pub n_updates: u64,
    pub batch_size: usize,
    /// 0 for one walk.
    pub unroll_length: usize,
    /// Called in the middle of every decision.
    pub while_acting: fn(),
    /// Called in the middle of every update.
    pub while_learning: fn(),
}

impl Recording {
    pub fn new(seen: &Seen, batch_size: usize, unroll_length: usize) -> Self {
        let (seen, nothing): (_, fn()) = (seen.clone(), || {});
        Self { seen, n_updates: 0, batch_size, unroll_length, while_acting: nothing, while_learning: nothing }
    }

    pub fn agent(self) -> Agent {
        Agent::Learning(Box::new(self))
    }
}

impl Learner for Recording {
    fn unroll_length(&self, walk_length: usize) -> usize {
        if self.unroll_length == 0 { walk_length } else { self.unroll_length }
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        for unroll in batch {
            unroll.check(13)?;
            check_order(unroll);
            let steps = unroll.value.iter().zip(&unroll.layer);
            self.seen.lock().unwrap().extend(steps.map(|(&walk, &layer)| (unroll.task, walk as u64, layer)));
        }
        (self.while_learning)();
        self.n_updates += 1;
        Ok(LearnReport::default())
    }

    fn policy(&self) -> Arc<dyn Policy> {
        Arc::new(Numbering { version: self.n_updates, pause: self.while_acting })
    }

    fn n_updates(&self) -> u64 {
        self.n_updates
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        Ok(self.n_updates.to_le_bytes().to_vec())
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        self.n_updates = u64::from_le_bytes(bytes.try_into().unwrap());
        Ok(())
    }
}

/// The steps of an unroll follow on each other, and so does what comes after the last.
fn check_order(unroll: &Unroll) {
    for t in 0..unroll.n_steps() {
        let (layer, next) = (unroll.layer[t], unroll.layer[t + 1]);
        assert!(unroll.ends_walk[t] || next == layer + 1, "layer {next} comes after {layer}");
        assert_eq!(unroll.ends_walk[t], layer == 3);
    }
    let n_before = unroll.first_recurrent.first().copied().unwrap_or(0.0);
    assert_eq!(n_before, unroll.layer[0] as f32, "the first recurrent state belongs to another step");
}

/// Every step that is to be learned from: walks of four steps, but for those that are free of noise.
pub fn expected(n_walks: u64) -> Vec<(u32, u64, u32)> {
    let noisy = move |walk: &u64| !((walk + 1).is_multiple_of(10) || walk + 2 >= n_walks);
    let tasks = 0..N_TASKS as u32;
    tasks.flat_map(|t| (0..n_walks).filter(noisy).flat_map(move |w| (0..4).map(move |l| (t, w, l)))).collect()
}

/// Scores cost nothing. Of some candidates, the first attempts panic.
#[derive(Clone, Default)]
pub struct Unsteady {
    /// One in so many candidates panics, up to two times; 0 for none.
    pub one_in: u64,
    /// How often each was tried, also before the search was saved and continued.
    pub n_tries: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Unsteady {
    pub fn new(one_in: u64) -> Self {
        Self { one_in, ..Self::default() }
    }
}

impl PruningPlugin for Unsteady {
    fn name(&self) -> &str {
        "unsteady"
    }
    fn build(&self, app: &mut App, _config: &PluginConfig) -> Result<(), SceneError> {
        app.insert_resource(Evaluator(Arc::new(self.clone())));
        Ok(())
    }
}

impl Evaluate for Unsteady {
    fn begin<'a>(&'a self, _: &'a rayon::ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        Ok(Box::new(move |kept| {
            let code = kept.widths().iter().fold(7, |code: u64, &w| code.wrapping_mul(31).wrapping_add(w as u64));
            let n_tries = *self.n_tries.lock().unwrap().entry(code).and_modify(|n| *n += 1).or_insert(0);
            let strikes = self.one_in > 0 && code.is_multiple_of(self.one_in) && n_tries < 1 + code / 8 % 2;
            assert!(!strikes, "injected while repairing");
            Ok(Arc::new(prepared.network.clone()))
        }))
    }

    fn score(&self, _: &rayon::ThreadPool, _: &Prepared, _: &Network) -> Result<Score, KernelError> {
        Ok(Score::labelled(0.5, 0.0))
    }
}
