//! Scores candidates of a search, in any process and in any order.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use secateur_net::KeptChannels;
use secateur_sim::{Evaluate, PluginList, Pool, Prepared, Score};
use secateur_train::Scheduler;

use super::candidate::AskedCandidate;
use super::worker_inputs::{ScoringMachine, WorkerInputs};
use crate::check;
use crate::directory::claim;
use crate::error::RunError;
use crate::observer::Observer;
use crate::prepare;
use crate::reporter::Reporter;
use crate::scene::{Device, HistoryChoice, Scene};
use crate::spec::RunSpec;
use crate::threads::thread_pool;
use crate::training::before_score::evaluator_of;

/// Scores candidates that an [`AskTell`](super::AskTell) of the same scene asks for. A score depends on the network,
/// the data, the images of the scene and what the candidate keeps, and on nothing else: any evaluator of the scene
/// gives the same, bit for bit, in whatever order and on however many threads.
#[derive(Clone)]
pub struct CandidateEvaluator {
    pub(super) search: Arc<str>,
    pub(super) networks: Arc<[Arc<Prepared>]>,
    pub(super) pool: Pool,
    pub(super) evaluator: Arc<dyn Evaluate>,
}

impl CandidateEvaluator {
    /// Reads the scene and prepares its networks: takes as long as a run does before its first walk.
    ///
    /// # Errors
    /// As [`crate::run`] before its first walk; scenes that [`AskTell`](super::AskTell) refuses.
    pub fn new(spec: &RunSpec, observer: &mut dyn Observer) -> Result<Self, RunError> {
        let plugins = PluginList::default();
        let (scene, resolved) = check(spec, &plugins)?;
        check_asked(&scene)?;
        let search = claim::identity(&scene, &resolved)?.fingerprint()?.into();
        let pool = Pool(Arc::new(thread_pool(spec.threads)?));
        let mut reporter = Reporter::new(observer);
        let networks = prepare::networks((&scene, &plugins), &resolved, &pool, None, &mut reporter)?;
        let networks = networks.into_iter().map(|network| network.prepared).collect();
        Ok(Self { search, networks, pool, evaluator: evaluator_of(scene.tune_before_score) })
    }

    /// An evaluator of what [`AskTell::worker_inputs`](super::AskTell::worker_inputs) gave, in any process: no scene
    /// and no files are read, and no channels are ranked. Where this machine computes other last digits than the
    /// search's, with another instruction set or another build of the program, `may_differ` is told why and says
    /// whether to score nevertheless.
    ///
    /// # Errors
    /// A machine that differs and may not; bytes that are none of this version's, or damaged.
    pub fn of_worker_inputs(
        bytes: &[u8],
        threads: Option<NonZeroUsize>,
        may_differ: impl FnOnce(&str) -> bool,
    ) -> Result<Self, RunError> {
        let inputs = WorkerInputs::decode(bytes).map_err(RunError::BadArguments)?;
        if let Some(difference) = ScoringMachine::this().difference(&inputs.machine)
            && !may_differ(&difference)
        {
            return Err(RunError::BadArguments(anyhow!(
                "this machine cannot score for the search: {difference}; install the same wheel on machines of one \
                 kind, or allow scores that differ"
            )));
        }
        let pool = Pool(Arc::new(thread_pool(threads)?));
        let (search, evaluator) = (inputs.search.as_str().into(), evaluator_of(inputs.tune));
        let networks = inputs.prepare(&pool).map_err(RunError::Failed)?;
        Ok(Self { search, networks: networks.into(), pool, evaluator })
    }

    /// blake3 of the search whose candidates are scored here.
    pub fn search(&self) -> &str {
        &self.search
    }

    /// The score of a candidate on the reward images, after the refit, and the tuning, that the scene gives walks.
    ///
    /// # Errors
    /// A candidate of another search, or of channels that the network does not have; activations that are not finite.
    pub fn score(&self, candidate: &AskedCandidate) -> Result<Score, RunError> {
        self.try_score(candidate).map_err(RunError::Failed)
    }

    fn try_score(&self, candidate: &AskedCandidate) -> anyhow::Result<Score> {
        let name = || format!("task '{}', walk {}", candidate.task_name, candidate.walk);
        ensure!(*candidate.search == *self.search, "{}: {}", name(), of_another(&candidate.search, &self.search));
        let prepared = (self.networks.get(candidate.network))
            .ok_or_else(|| anyhow!("{}: the scene has no network {}", name(), candidate.network))?;
        let kept = KeptChannels::new(&prepared.groups, candidate.kept.clone()).with_context(name)?;
        let pool = &self.pool.0;
        let build = self.evaluator.begin(pool, prepared).with_context(name)?;
        let network = pool.install(|| build(&kept)).with_context(name)?;
        self.evaluator.score(pool, prepared, &network).with_context(name)
    }
}

/// Why a candidate is not scored, or not taken.
pub(super) fn of_another(theirs: &str, ours: &str) -> String {
    let short = |search: &str| search.get(..12).unwrap_or(search).to_owned();
    format!(
        "it is of another search ({}, this is {}): scene, networks, data, build of the program and instruction set must \
         be the same",
        short(theirs),
        short(ours)
    )
}

/// # Errors
/// A scene whose candidates cannot be scored elsewhere.
pub(super) fn check_asked(scene: &Scene) -> Result<(), RunError> {
    if let Scheduler::BoundedLag { .. } = scene.scheduler {
        let what = "candidates whose scores are told need the scheduler Lockstep, under which results do not depend on \
                    when they arrive, or Async, under which they count as they come";
        let help = "set `scheduler: Lockstep` or `scheduler: Async`".to_owned();
        return Err(scene.error_at("scheduler", what, Some(help)).into());
    }
    if scene.device != Device::Cpu {
        let what = "candidates that are asked for are scored on the processor";
        return Err(scene.error_at("device", what, Some("set `device: Cpu`".to_owned())).into());
    }
    if scene.history.as_ref().is_some_and(HistoryChoice::learns) {
        let what = "a search whose candidates are asked for learns nothing of earlier runs";
        let help = "set `transfer` and `assistant` to false".to_owned();
        return Err(scene.error_at("history", what, Some(help)).into());
    }
    Ok(())
}
