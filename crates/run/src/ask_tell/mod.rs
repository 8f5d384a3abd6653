//! A search whose candidates are scored by others: they are asked for, and their scores are told.
//!
//! The search runs on a thread of its own. Under the scheduler `Lockstep` it waits for the scores of a tick, so that
//! nothing depends on who scores what, when and in which order. Under `Async` it takes scores as they come, and an
//! actor goes on as soon as its candidate has one; the tick that each score was taken in is written down with it, and
//! nothing else depends on time, because the learner goes with the actors here. So what was told is all that there is
//! to save under both: a search that is loaded walks the same walks again, which takes milliseconds, and asks only for
//! what it was not told.

mod candidate;
mod evaluator;
pub(crate) mod exchange;
mod worker_inputs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
pub use candidate::{AskedCandidate, BestCandidate};
pub use evaluator::CandidateEvaluator;
use secateur_formats::{read_regular_file, write_atomic};
use secateur_sim::{EndsAfter, PluginList, Pool, Prepared, ProcessEvent, RewardKind, Score, TaskSetup, panic_message};
use secateur_train::{Scheduler, SearchEvent, TaskResult};
use serde::{Deserialize, Serialize};

use crate::card::Card;
use crate::check;
use crate::directory::checkpoint::{Identity, difference};
use crate::directory::claim;
use crate::error::RunError;
use crate::history::sources::EarlierRuns;
use crate::inputs::resolve::Resolved;
use crate::observer::Observer;
use crate::plan::task_plans::ProbedWeights;
use crate::plans::plans;
use crate::prepare;
use crate::reporter::Reporter;
use crate::run::Job;
use crate::run_on;
use crate::scene::Scene;
use crate::search::begin;
use crate::spec::RunSpec;
use crate::summary::RunResult;
use crate::threads::thread_pool;
use crate::training::before_score::evaluator_of;
use candidate::ToldScore;
use evaluator::{check_asked, of_another};
use exchange::{Exchange, ScoredBefore, ToldScores};
use worker_inputs::WorkerInputs;

/// Version of the file that [`AskTell::save`] writes.
const FORMAT: u32 = 2;
/// Larger files are none of ours.
const BYTES_MAX: u64 = 1 << 30;

/// The search of a scene's agent, whose candidates others score.
///
/// ```no_run
/// use secateur_run::{AskTell, CandidateEvaluator, RunSpec};
///
/// let spec = RunSpec::new("scenes/quickstart.ron");
/// let search = AskTell::new(&spec, &mut ())?;
/// let evaluator = search.evaluator();
/// while !search.is_done() {
///     for candidate in search.ask(8)? {
///         search.tell(&candidate, evaluator.score(&candidate)?)?;
///     }
/// }
/// for best in search.best() {
///     println!("{}: {:?}", best.candidate.task_name, best.score);
/// }
/// let result = search.finish(&mut ())?;
/// # Ok::<(), secateur_run::RunError>(())
/// ```
pub struct AskTell {
    spec: RunSpec,
    kind: RewardKind,
    identity: Identity,
    evaluator: CandidateEvaluator,
    exchange: Arc<Exchange>,
    inputs: Arc<WalkingInputs>,
}

/// How far a search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchProgress {
    /// Of `total`.
    pub done: u64,
    /// Of all tasks.
    pub total: u64,
}

/// The file of a search.
#[derive(Serialize, Deserialize)]
struct SavedTold {
    format: u32,
    identity: Identity,
    told: Vec<ToldScore>,
}

/// What the thread of a search works on.
struct WalkingInputs {
    spec: RunSpec,
    scene: Scene,
    resolved: Resolved,
    networks: Vec<Arc<Prepared>>,
    tasks: Vec<TaskSetup>,
    pool: Pool,
    search: Arc<str>,
}

impl AskTell {
    /// Reads the scene, prepares its networks and begins to walk.
    ///
    /// # Errors
    /// As [`crate::run`] before its first walk; a scene with another scheduler than `Lockstep` or `Async`, or for
    /// another device than the processor.
    pub fn new(spec: &RunSpec, observer: &mut dyn Observer) -> Result<Self, RunError> {
        Self::start(spec, Vec::new(), None, observer)
    }

    /// A search that goes on with what one of the same scene was told until it was saved.
    ///
    /// # Errors
    /// As [`Self::new`]; a file that is no saved search, or that of another one.
    pub fn load(spec: &RunSpec, file: &Path, observer: &mut dyn Observer) -> Result<Self, RunError> {
        let saved = read(file).with_context(|| format!("saved search '{}'", file.display()));
        let SavedTold { identity, told, .. } = saved.map_err(RunError::BadArguments)?;
        Self::start(spec, told, Some((identity, file)), observer)
    }

    fn start(
        spec: &RunSpec,
        told: Vec<ToldScore>,
        saved: Option<(Identity, &Path)>,
        observer: &mut dyn Observer,
    ) -> Result<Self, RunError> {
        let plugins = PluginList::default();
        let (scene, resolved) = check(spec, &plugins)?;
        check_asked(&scene)?;
        let identity = claim::identity(&scene, &resolved)?;
        if let Some((theirs, file)) = saved
            && let Some(difference) = difference(&theirs, &identity)
        {
            let what = anyhow::anyhow!("saved search '{}' is of another search: {difference}", file.display());
            return Err(RunError::BadArguments(what));
        }
        let search: Arc<str> = identity.fingerprint()?.into();
        let pool = Pool(Arc::new(thread_pool(spec.threads)?));
        let mut reporter = Reporter::new(observer);
        let networks = prepare::networks((&scene, &plugins), &resolved, &pool, None, &mut reporter)?;
        let networks: Vec<Arc<Prepared>> = networks.into_iter().map(|network| network.prepared).collect();
        let tasks = prepare::tasks(&scene, &resolved);
        let evaluator = CandidateEvaluator {
            search: search.clone(),
            networks: networks.clone().into(),
            pool: pool.clone(),
            evaluator: evaluator_of(scene.tune_before_score),
        };
        let exchange = Arc::new(Exchange::new(scene.scheduler == Scheduler::Async, &told));
        let kind = scene.reward.kind();
        let inputs = Arc::new(WalkingInputs { spec: spec.clone(), scene, resolved, networks, tasks, pool, search });
        let (theirs, of_walks) = (exchange.clone(), inputs.clone());
        let walk = move || {
            let scores = ToldScores::known(told).asking(theirs.clone(), &of_walks.search);
            // Whoever asks would wait forever for a search that is gone.
            let ended = catch_unwind(AssertUnwindSafe(|| walk_all(&of_walks, &scores, &theirs)));
            theirs.end(match ended {
                Ok(ended) => ended.map_err(|error| format!("{error:#}")),
                Err(payload) => Err(format!("it panicked: {}", panic_message(&*payload))),
            });
        };
        let started = std::thread::Builder::new().name("search".into()).spawn(walk);
        started.context("starting the thread of the search")?;
        Ok(Self { spec: spec.clone(), kind, identity, evaluator, exchange, inputs })
    }

    /// Scores what this search asks for, with networks and images that are there already.
    pub fn evaluator(&self) -> CandidateEvaluator {
        self.evaluator.clone()
    }

    /// What a worker in another process or on another machine needs to score this search's candidates, for
    /// [`CandidateEvaluator::of_worker_inputs`]: networks, and the images that walks are refitted and paid on. Its size
    /// is theirs, 12 KB for an image of 32 x 32 pixels.
    ///
    /// # Errors
    /// Images that cannot be read any more.
    pub fn worker_inputs(&self) -> Result<Vec<u8>, RunError> {
        let WalkingInputs { scene, resolved, pool, search, .. } = &*self.inputs;
        Ok(WorkerInputs::of(scene, resolved, pool, search)?.encode()?)
    }

    /// Walks that are walked and paid, or candidates that were scored where the scene's `ends_after` counts these; and
    /// how many there will be.
    pub fn progress(&self) -> SearchProgress {
        let WalkingInputs { scene, tasks, .. } = &*self.inputs;
        let n_searched = tasks.iter().filter(|task| task.is_searched).count() as u64;
        SearchProgress { done: self.exchange.n_counted(), total: plans(scene)[0].walks_per_task * n_searched }
    }

    /// Up to `n` candidates whose scores the search waits for, in the order in which they were made. An empty list
    /// says that nothing new comes before one that was handed out is told, or that the search is done. Every actor
    /// waits for the score of its walk, so `actors_per_task` candidates of each task can be scored at a time; under
    /// `Lockstep` new ones come once all of a tick are told.
    ///
    /// # Errors
    /// What stopped the search.
    pub fn ask(&self, n: usize) -> Result<Vec<AskedCandidate>, RunError> {
        Ok(self.exchange.ask(n, None)?.unwrap_or_default())
    }

    /// As [`Self::ask`], but returns nothing where the search is still deciding after `limit`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_within(&self, n: usize, limit: std::time::Duration) -> Result<Option<Vec<AskedCandidate>>, RunError> {
        Ok(self.exchange.ask(n, Some(limit))?)
    }

    /// Gives a candidate its score.
    ///
    /// # Errors
    /// A candidate that was told before, was not asked for, or is another search's; a score that is none.
    pub fn tell(&self, candidate: &AskedCandidate, score: Score) -> Result<(), RunError> {
        let ours = self.evaluator.search();
        if candidate.search != ours {
            let (task, walk) = (&candidate.task_name, candidate.walk);
            let what = of_another(&candidate.search, ours);
            return Err(RunError::BadArguments(anyhow::anyhow!("task '{task}', walk {walk}: {what}")));
        }
        self.exchange.tell(candidate, score, self.kind).map_err(RunError::BadArguments)
    }

    /// Takes back all that was handed out and not told, because whoever had it is gone: it will be asked for again.
    /// Returns how many candidates can be asked for now.
    pub fn ask_again(&self) -> usize {
        self.exchange.ask_again()
    }

    /// Whether every walk is walked and told.
    pub fn is_done(&self) -> bool {
        self.exchange.is_done()
    }

    /// Scores that were told, or known from a file.
    pub fn n_told(&self) -> usize {
        self.exchange.n_told()
    }

    /// The best candidate of each task so far, in the order of tasks; those of a tick are compared once all of it are
    /// told.
    pub fn best(&self) -> Vec<BestCandidate> {
        self.exchange.best()
    }

    /// Writes what was told to a file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, file: &Path) -> Result<(), RunError> {
        let saved = SavedTold { format: FORMAT, identity: self.identity.clone(), told: self.exchange.told() };
        let bytes = serde_json::to_vec(&saved).context("encoding a search")?;
        write_atomic(file, &bytes).map_err(|error| RunError::Failed(error.into()))
    }

    /// Runs the scene as [`crate::run`] does, controls, final refits and certificates included, with the scores that
    /// were told; what was not told is scored here. The run's directory and its `summary.json` are those of the same
    /// run on this machine alone.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn finish(&self, observer: &mut dyn Observer) -> Result<RunResult, RunError> {
        let scored = ScoredBefore {
            networks: self.evaluator.networks.to_vec(),
            scores: ToldScores::known(self.exchange.told()),
        };
        run_on(&self.spec, &PluginList::default(), observer, Card::of, None, Some(scored))
    }
}

impl Drop for AskTell {
    fn drop(&mut self) {
        self.exchange.give_up();
    }
}

fn read(file: &Path) -> anyhow::Result<SavedTold> {
    let saved: SavedTold = serde_json::from_slice(&read_regular_file(file, BYTES_MAX)?).context("it is none")?;
    ensure!(saved.format == FORMAT, "it has format {}, expected {FORMAT}", saved.format);
    Ok(saved)
}

/// The whole search of the scene's agent.
fn walk_all(inputs: &WalkingInputs, scores: &ToldScores, exchange: &Exchange) -> Result<(), RunError> {
    let WalkingInputs { spec, scene, resolved, networks, tasks, pool, search } = inputs;
    let plugins = PluginList::default();
    let job = Job {
        scene,
        resolved,
        plugins: &plugins,
        card: None,
        pool: pool.clone(),
        networks: networks.clone(),
        tasks: tasks.clone(),
        probed: ProbedWeights::default(),
        memory: spec.memory_bound()?,
        policy: None,
        earlier: EarlierRuns::default(),
        told: Some(scores.clone()),
    };
    let mut walking = begin(&job, plans(scene)[0], None, job.told.as_ref())?.search;
    let failed = |error: secateur_train::TrainError| RunError::Failed(error.into());
    while !walking.is_done() && !exchange.is_given_up() {
        let events = walking.tick().map_err(failed)?;
        let counts_all = scene.ends_after == EndsAfter::Walks;
        let counts = |event: &&SearchEvent| match event {
            SearchEvent::Process(ProcessEvent::Candidate { cached, .. }) => counts_all || !cached,
            _ => false,
        };
        exchange.count(events.iter().filter(counts).count() as u64);
        let is_best =
            |event: &SearchEvent| matches!(event, SearchEvent::Process(ProcessEvent::Candidate { is_best: true, .. }));
        if events.iter().any(is_best) {
            note_best(tasks, &walking.results(), search, exchange);
        }
    }
    Ok(())
}

fn note_best(tasks: &[TaskSetup], results: &[TaskResult], search: &str, exchange: &Exchange) {
    for (task, (setup, result)) in tasks.iter().zip(results).enumerate() {
        let Some(best) = result.finalists.first() else { continue };
        let candidate = AskedCandidate {
            search: search.to_owned(),
            task_name: setup.name.clone(),
            task,
            walk: best.walk,
            network: setup.network,
            kept: best.kept.lists().to_vec(),
            macs: best.macs,
        };
        exchange.set_best(BestCandidate { candidate, score: best.score, reward: best.reward });
    }
}
