//! From a scene to smaller networks on disk: runs as a library. The command line is one caller.
//!
//! [`run`] does everything: it reads the scene, finds networks and data, searches, refits the best candidates, writes
//! networks with their certificates, and returns what it found. [`check`] only reads, and reports every problem. An
//! [`Observer`] sees stages, notes and events while the run goes on, and may ask it to stop; a [`RunSpec`] with
//! `resume` goes on where a run was stopped or killed.
//!
//! ```no_run
//! use secateur_run::{RunSpec, run};
//! use secateur_sim::PluginList;
//!
//! let spec = RunSpec { out: Some("runs/first".into()), ..RunSpec::new("scenes/quickstart.ron") };
//! let result = run(&spec, &PluginList::default(), &mut ())?;
//! for task in &result.summary.tasks {
//!     println!("{}: {} of {} MACs", task.name, task.macs, task.original.macs);
//! }
//! # Ok::<(), secateur_run::RunError>(())
//! ```
//!
//! Knows files, paths and environment variables; knows no argument, no terminal, no signal and no exit code.
//!
//! Words are explained in [`secateur_net::glossary`].

mod ask_tell;
mod build;
mod cache_files;
mod card;
mod compare;
mod directory;
mod error;
mod events;
mod finalist_images;
mod finish;
#[cfg(test)]
mod hand_made;
mod history;
mod inputs;
mod journal;
mod learned_policy;
mod learning;
mod observer;
mod paired;
mod plan;
mod plans;
mod prepare;
mod refits;
mod reporter;
mod retarget;
mod run;
mod saved_search;
pub mod scene;
mod search;
mod spec;
mod split_accuracy;
mod split_error;
mod summarise;
mod summary;
mod threads;
mod training;
mod width_pruned;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use secateur_history::HistoryError;
use secateur_sim::{PluginList, Pool, Prepared, TaskSetup};

pub use ask_tell::{AskTell, AskedCandidate, BestCandidate, CandidateEvaluator, SearchProgress};
pub use card::{Card, keep_pipelines, open_gpu, open_session};
pub use compare::{
    AgentRanking, AgentScores, CompareSpec, Comparison, CurvePoint, PairedCounts, Spread, TaskScores, compare,
    scene_seed,
};
pub use directory::checkpoint::{read_checkpoint, seal_checkpoint};
pub use directory::cut_plan::{CUT_SCRIPT, CutPlan, OutputMark, PlanCheck, PlannedLayer, PlannedSplit};
pub use directory::entries::REPORT_FILE;
pub use error::{Incomplete, RunError};
pub use events::{Measured, Numbers, RunEvent};
pub use history::directory::import_run;
pub use history::place::default_history;
pub use inputs::bare_weights::BUILDER_INPUT;
pub use inputs::budgets::{ResolvedBound, ResolvedBudget, Whole};
pub use inputs::images::{ResolvedDataset, dataset_for};
pub use inputs::load::{LoadedNetwork, NetworkChoices, load_network, load_network_as};
pub use inputs::memory::{Evaluation, MemoryBound};
pub use inputs::onnx_document::{is_onnx, open_document};
pub use inputs::reachable::{Reachable, full_cost, full_costs, least_widths};
pub use inputs::resolve::{Resolved, check_fit, check_images_fit, resolve};
pub use inputs::roots::Roots;
pub use inputs::untrained::{Untrained, untrained_network};
pub use inputs::wide_layers::wide_layers;
pub use learning::AgainstRandom;
pub use observer::{Observer, Stage, StageKind};
pub use paired::{PairedAccuracy, PairedError};
pub use plan::curves::{CurvesReport, CurvesSpec, GroupErrors, error_curves};
pub use plan::plan;
pub use plan::ranking::{N_TOP, RankingReport, RewardRanking, TaskRanking, rank_rewards};
pub use plan::report::{PlanReport, PlannedGroup, PlannedTask};
pub use retarget::retarget;
pub use saved_search::SearchTimes;
pub use spec::RunSpec;
pub use split_accuracy::{CHUNK_IMAGES, CountEvent, CountedImages, Engine, FirstImages, correct_images, count_correct};
pub use split_error::{ComparedNetworks, OutputAgreement, compare_outputs};
pub use summary::{
    BoundSummary, BudgetSummary, ControlSummary, GroupSummary, HistorySummary, OriginalSummary, OutputSummary,
    RewardSummary, RunResult, SourceSummary, Summary, TaskSummary, TrainingSummary,
};
pub use threads::{n_threads, thread_pool};
pub use training::images::TrainingImages;
pub use training::normalised::with_batch_norms;
pub use training::session::{EpochMeans, SavedTraining, Training};
pub use width_pruned::WidthPruned;

use ask_tell::exchange::ScoredBefore;
use directory::claim::{self, Claim};
use directory::run_directory::RunDirectory;
use history::place::history_of;
use history::recorder::Recorder;
use history::scores::KnownScores;
use history::sources::EarlierRuns;
use inputs::resolve::resolve_within;
use journal::Journal;
use learned_policy::LearnedPolicy;
use plan::measured::NetworkCurves;
use plan::task_plans::ProbedWeights;
use refits::Refits;
use reporter::{Reporter, failure_line};
use run::{Job, Run};
use scene::{AgentList, HistoryChoice, Scene};

/// Runs a scene: searches, refits the best candidates, and writes a network with its certificate for every task.
///
/// # Errors
/// [`RunError::BadScene`] and [`RunError::BadArguments`] before anything is written; [`RunError::Incomplete`], with
/// what there is, for a run that was stopped, a search that failed, or a certificate that does not hold;
/// [`RunError::Failed`] for all else.
pub fn run(spec: &RunSpec, plugins: &PluginList, observer: &mut dyn Observer) -> Result<RunResult, RunError> {
    run_on(spec, plugins, observer, Card::of, None, None)
}

/// As [`run`], on the device that `card` opens, the scene's agent acting by `policy` if there is one;
/// `scored` is what is there before it begins.
pub(crate) fn run_on(
    spec: &RunSpec,
    plugins: &PluginList,
    observer: &mut dyn Observer,
    card: impl FnOnce(&Scene) -> Result<Option<Card>, RunError>,
    policy: Option<LearnedPolicy>,
    scored: Option<ScoredBefore>,
) -> Result<RunResult, RunError> {
    let mut begun = None;
    let ended = run_begun(spec, plugins, observer, card, policy, scored, &mut begun);
    if let (Err(error), Some(begun)) = (&ended, begun) {
        begun.end_with(error, &spec.agents);
    }
    ended
}

/// What is left to say of a run that ends with an error.
struct Begun {
    recorder: Recorder,
    log: File,
    start: Instant,
}

impl Begun {
    /// Writes the error down, so that whoever looks at the directory or the history does not take the run for one that
    /// goes on. Where that cannot be done, the error itself has said why.
    fn end_with(mut self, error: &RunError, agents: &AgentList) {
        let reason = if let RunError::Incomplete { reason, .. } = error { Some(reason) } else { None };
        if matches!(reason, Some(Incomplete::Interrupted | Incomplete::OverBudget { .. })) {
            return;
        }
        let _ = writeln!(self.log, "{}", failure_line(self.start.elapsed().as_secs_f64(), error));
        self.recorder.record(agents, None, &mut |_| {});
    }
}

/// As [`run_on`]; `begun` is set once the run directory is open and the run is recorded.
fn run_begun(
    spec: &RunSpec,
    plugins: &PluginList,
    observer: &mut dyn Observer,
    card: impl FnOnce(&Scene) -> Result<Option<Card>, RunError>,
    policy: Option<LearnedPolicy>,
    scored: Option<ScoredBefore>,
    begun: &mut Option<Begun>,
) -> Result<RunResult, RunError> {
    let start = Instant::now();
    let (scene, resolved) = check(spec, plugins)?;
    let history = history_of(spec, &scene);
    let learns = policy.is_none() && scene.history.as_ref().is_some_and(HistoryChoice::learns);
    let earlier = runs_now(spec, learns, history.as_deref())?;
    let identity = Arc::new(claim::identity(&scene, &resolved)?);
    let pool = Pool(Arc::new(thread_pool(spec.threads)?));
    let mut claim = claim::claim(spec, &scene, &resolved, &identity)?;
    let record = claim.state.as_mut().and_then(|state| state.card.take());
    let card = Card::again(record, || card(&scene))?;
    let mut reporter = Reporter::new(&mut *observer);
    say_assumptions(&scene, &resolved, &claim, &mut reporter);
    let Claim { lock, state, .. } = claim;
    let directory = match &state {
        Some(state) => RunDirectory::reopen(lock, &scene, state.metrics_bytes)?,
        None => RunDirectory::create(lock, &scene, &resolved)?,
    };
    let (is_new, mut state) = (state.is_none(), state.unwrap_or_default());
    let mut journal = Journal::new(reporter, directory, identity.clone(), spec.checkpoint_every)?;
    journal.count_from(start, state.wall_s);
    if is_new {
        journal.begin(scene.seed)?;
    }
    let earlier = if learns { kept_runs(earlier, spec, is_new, &mut journal)? } else { EarlierRuns::default() };
    let mut recorder = Recorder::new(history.clone(), journal.directory.path(), identity);
    recorder.record(&spec.agents, None, &mut |warning| journal.reporter.note(warning));
    let recorder = &mut begun.insert(Begun { recorder, log: journal.directory.log_file()?, start }).recorder;
    let (networks, told, scores) = match scored {
        Some(ScoredBefore { networks, scores }) => (networks, Some(scores), KnownScores::none()),
        None => {
            let networks =
                prepare::networks((&scene, plugins), &resolved, &pool, card.as_ref(), &mut journal.reporter)?;
            // A plugin may change scores by what it alone knows, and a card computes others.
            let reuses = spec.reuses_scores && scene.plugins.is_empty() && card.is_none();
            let allowed = scene.history.as_ref().is_some_and(|history| history.scores) && reuses;
            let scores = match recorder.file().filter(|_| allowed) {
                Some(file) => {
                    KnownScores::read(file.to_owned(), &networks, &mut |warning| journal.reporter.note(warning))
                }
                None => KnownScores::none(),
            };
            (networks.into_iter().map(|network| network.prepared).collect::<Vec<_>>(), None, scores)
        }
    };
    for dataset in &resolved.datasets {
        let failures = dataset.train.failures();
        failures.iter().for_each(|failure| journal.reporter.note(&format!("{}: {failure}", dataset.name)));
    }
    let curves: Vec<NetworkCurves> = networks.iter().map(|network| NetworkCurves::of(network)).collect();
    journal.directory.write_curves(&curves)?;
    let tasks = prepare::tasks(&scene, &resolved);
    let refits = Refits::restore(std::mem::take(&mut state.refits), &networks, &tasks).context("--resume")?;
    let trainings = std::mem::take(&mut state.trainings);
    let job = Job {
        scene: &scene,
        resolved: &resolved,
        plugins,
        card,
        pool,
        networks,
        tasks,
        probed: ProbedWeights::default(),
        memory: spec.memory_bound()?,
        policy,
        earlier,
        told,
    };
    let mut run = Run { job, journal, history, scores, refits, trainings, searched_all: false, is_stopping: false };
    let searches = run.search_all(state)?;
    let finished = run.finish(&searches)?;
    let n_known = run.scores.n_taken();
    if n_known > 0 {
        run.journal.reporter.note(&format!("{n_known} candidates had been scored by earlier runs, and were not again"));
    }
    let concluded = run.conclude(searches, &finished);
    recorder.record(&spec.agents, Some(n_known), &mut |warning| observer.note(warning));
    concluded
}

/// The finished runs that a new run learns from; what is wrong with the history is told later, and none is learned from
/// then.
///
/// # Errors
/// A snapshot that was asked for and cannot be had.
fn runs_now(
    spec: &RunSpec,
    learns: bool,
    history: Option<&Path>,
) -> Result<Result<EarlierRuns, HistoryError>, RunError> {
    let refused = |what: &str| Err(RunError::BadArguments(anyhow!("--history-at: {what}")));
    match (learns, history, &spec.history_at) {
        (false, _, Some(_)) => refused("the scene learns nothing of earlier runs; say history: (transfer: true) there"),
        (true, None, Some(_)) => refused("there is no history; name its file with --history"),
        (false, _, None) | (true, None, None) => Ok(Ok(EarlierRuns::default())),
        (true, Some(file), Some(name)) => match EarlierRuns::now(file, Some(name)) {
            Ok(earlier) => Ok(Ok(earlier)),
            Err(error) => refused(&error.to_string()),
        },
        (true, Some(file), None) => Ok(EarlierRuns::now(file, None)),
    }
}

/// The runs that this one learns from: those that its directory names, which is where a new run writes them down.
fn kept_runs(
    now: Result<EarlierRuns, HistoryError>,
    spec: &RunSpec,
    is_new: bool,
    journal: &mut Journal<'_>,
) -> anyhow::Result<EarlierRuns> {
    if let Some(bytes) = journal.directory.read_sources()? {
        let kept = EarlierRuns::of_bytes(&bytes).context("--resume: history.sources")?;
        let asked = spec.history_at.as_ref();
        ensure!(
            asked.is_none() || asked == kept.snapshot.as_ref(),
            "--resume: the run learns from snapshot {} of the history, not from {}",
            kept.snapshot.as_deref().unwrap_or("none"),
            spec.history_at.as_deref().unwrap_or_default()
        );
        return Ok(kept);
    }
    ensure!(is_new, "--resume: '{}' has no history.sources, which says what the run learns of earlier ones", {
        journal.directory.path().display()
    });
    let earlier = now.unwrap_or_else(|error| {
        journal.reporter.note(&format!("warning: {error}; the run goes on, and learns nothing of earlier ones"));
        EarlierRuns::default()
    });
    journal.directory.write_sources(&earlier.to_bytes()?)?;
    Ok(earlier)
}

/// Reads a scene and all that it names, without running anything.
///
/// # Errors
/// [`RunError::BadScene`] with every problem, each with file, line and column; [`RunError::BadArguments`] for a scene
/// that cannot be read.
pub fn check(spec: &RunSpec, plugins: &PluginList) -> Result<(Scene, Resolved), RunError> {
    let memory = spec.memory_bound()?;
    let scene = spec.read_scene()?;
    check_plugins(&scene, plugins)?;
    let resolved = resolve_within(&scene, &spec.roots(), memory)?;
    Ok((scene, resolved))
}

/// Every plugin that the scene names is compiled in and accepts its settings; so is the criterion that it selects
/// channels by.
fn check_plugins(scene: &Scene, plugins: &PluginList) -> Result<(), RunError> {
    if let Err(unknown) = scene.selection.criterion(scene.seed, plugins, None) {
        return Err(scene.error_at("selection", unknown.to_string(), None).into());
    }
    for config in &scene.plugins {
        if plugins.get(&config.name).is_none() {
            let known = match plugins.names()[..] {
                [] => "no plugin is compiled into this binary".to_owned(),
                ref names => format!("compiled into this binary: {}", names.join(", ")),
            };
            let message = format!("unknown plugin '{}'; {known}", config.name);
            return Err(scene.error_at(&format!("plugins[{:?}]", config.name), message, None).into());
        }
    }
    // Built only to see whether the settings are accepted.
    plugins.app(&scene.plugins).map(drop)?;
    Ok(())
}

/// What the user should know before anything is computed.
fn say_assumptions(scene: &Scene, resolved: &Resolved, claim: &Claim, reporter: &mut Reporter<'_>) {
    say_inputs(scene, resolved, reporter);
    claim.notes.iter().for_each(|note| reporter.note(note));
}

/// What had to be assumed of networks and data.
fn say_inputs(scene: &Scene, resolved: &Resolved, reporter: &mut Reporter<'_>) {
    for network in &resolved.networks {
        for assumption in &network.assumptions {
            reporter.note(&format!("{}: {assumption}", network.name));
        }
    }
    for dataset in &resolved.datasets {
        for note in dataset.notes() {
            reporter.note(&format!("{}: {note}", dataset.name));
        }
    }
    wide_layers(scene, resolved).iter().for_each(|layer| reporter.note(&format!("note: {layer}")));
}

/// The networks and tasks of a scene, ready to be searched.
///
/// # Errors
/// As [`Prepared::new`].
pub fn prepared(
    (scene, plugins): (&Scene, &PluginList),
    resolved: &Resolved,
    pool: &Pool,
) -> Result<(Vec<Arc<Prepared>>, Vec<TaskSetup>), RunError> {
    let networks = prepare::networks((scene, plugins), resolved, pool, None, &mut Reporter::new(&mut ()))?;
    let networks = networks.into_iter().map(|network| network.prepared).collect();
    Ok((networks, prepare::tasks(scene, resolved)))
}
