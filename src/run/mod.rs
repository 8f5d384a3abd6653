//! `run`: from a scene to smaller networks on disk.

mod checkpoint;
mod entries;
mod finish;
mod interrupt;
mod learning;
mod lock;
mod plans;
mod plausible;
mod prepare;
mod progress;
mod record;
mod refits;
mod resume;
mod search;
mod summary;
mod table;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use secateur_scene::Scene;
use secateur_sim::{PluginList, Pool, Prepared, TaskSetup};

use crate::arguments::RunArgs;
use crate::card::Card;
use crate::check::{Means, read_and_resolve};
use crate::eval::{n_threads, thread_pool};
use crate::memory::MemoryBound;
use crate::resolve::Resolved;
use crate::wide_layers::wide_layers;
use crate::{Failure, screen};
use checkpoint::{Checkpoints, RunState};
pub use checkpoint::{read_checkpoint, seal_checkpoint};
use finish::Finished;
use interrupt::Interrupt;
pub(crate) use plans::{agent_kind, executor, scheduler};
pub(crate) use prepare::{precision, reward_kind};
use progress::Progress;
use record::RunDirectory;
use refits::Refits;
use resume::Place;
use search::SearchOutcome;

/// Everything a run works on, and where it reports.
struct Run<'a> {
    scene: &'a Scene,
    resolved: &'a Resolved,
    plugins: &'a PluginList,
    /// Where walks are scored, if not on the processor.
    card: Option<Card>,
    pool: Pool,
    networks: Vec<Arc<Prepared>>,
    tasks: Vec<TaskSetup>,
    /// Before the directory, whose lock must not go while a checkpoint is written there.
    checkpoints: Checkpoints,
    directory: RunDirectory,
    progress: Progress,
    interrupt: Interrupt,
    /// Refits of finalists, earlier processes' included.
    refits: Refits,
    /// Whether every search came to its end, so that a checkpoint may go on behind them.
    searched_all: bool,
    start: Instant,
    /// Time the run took in earlier processes.
    wall_before_s: f64,
}

/// Runs the scene of the arguments.
///
/// # Errors
/// Scenes that cannot be run (nothing is written then), failures on the way, certificates over budget, interruption.
pub(crate) fn run(arguments: &RunArgs, plugins: &PluginList) -> Result<(), Failure> {
    run_on(arguments, plugins, Card::of)
}

/// As [`run`], on the device that `card` opens.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_on(
    arguments: &RunArgs,
    plugins: &PluginList,
    card: impl FnOnce(&Scene) -> Result<Option<Card>, Failure>,
) -> Result<(), Failure> {
    let start = Instant::now();
    let interrupt = Interrupt::install()?;
    let memory = MemoryBound::new(arguments.memory, n_threads(arguments.threads)?);
    let means = Means { roots: &arguments.roots, plugins, memory };
    let (scene, resolved) = read_and_resolve(&arguments.scene, &arguments.sets(), &means)?;
    let identity = Arc::new(resume::identity(&scene, &resolved)?);
    let pool = Pool(Arc::new(thread_pool(arguments.threads)?));
    let mut place = resume::place(arguments, &scene, &resolved, &identity)?;
    let record = place.state.as_mut().and_then(|state| state.card.take());
    let card = Card::again(record, || card(&scene))?;
    let progress = Progress::new(arguments.quiet);
    let (directory, mut state) = begin(place, &scene, &resolved, &progress)?;
    let every = Duration::from_secs_f64(arguments.checkpoint_every);
    let checkpoints = Checkpoints::new(directory.path(), identity, every)?;
    let networks = prepare::networks((&scene, plugins), &resolved, &pool, card.as_ref(), &progress)?;
    let tasks = prepare::tasks(&scene, &resolved);
    let refits = Refits::restore(std::mem::take(&mut state.refits), &networks, &tasks).context("--resume")?;
    interrupt.keep();
    let mut run = Run {
        scene: &scene,
        resolved: &resolved,
        plugins,
        pool,
        networks,
        tasks,
        checkpoints,
        directory,
        progress,
        interrupt,
        refits,
        searched_all: false,
        card,
        start,
        wall_before_s: state.wall_s,
    };
    let searches = run.search_all(state)?;
    let finished = run.finish(&searches)?;
    let wall_s = run.wall_s();
    run.report(searches, &finished, wall_s)
}

/// Opens the run directory, and says what there is to be said before the run begins.
fn begin(
    place: Place,
    scene: &Scene,
    resolved: &Resolved,
    progress: &Progress,
) -> Result<(RunDirectory, RunState), Failure> {
    for network in &resolved.networks {
        for assumption in &network.assumptions {
            progress.note(&format!("{}: {assumption}", network.name));
        }
    }
    wide_layers(scene, resolved).iter().for_each(|layer| progress.note(&format!("note: {layer}")));
    place.notes.iter().for_each(|note| progress.note(note));
    let directory = match &place.state {
        Some(state) => RunDirectory::reopen(place.lock, scene, state.metrics_bytes)?,
        None => RunDirectory::create(place.lock, scene, resolved)?,
    };
    progress.log_to(directory.log_file()?)?;
    Ok((directory, place.state.unwrap_or_default()))
}

/// The networks and tasks of a scene, ready to be searched.
///
/// # Errors
/// As [`Prepared::new`].
pub(crate) fn prepared(
    (scene, plugins): (&Scene, &PluginList),
    resolved: &Resolved,
    pool: &Pool,
) -> anyhow::Result<(Vec<Arc<Prepared>>, Vec<TaskSetup>)> {
    Ok((
        prepare::networks((scene, plugins), resolved, pool, None, &Progress::new(true))?,
        prepare::tasks(scene, resolved),
    ))
}

impl Run<'_> {
    /// Time the run took, earlier processes included.
    fn wall_s(&self) -> f64 {
        self.wall_before_s + self.start.elapsed().as_secs_f64()
    }

    fn report(mut self, searches: Vec<SearchOutcome>, finished: &[Vec<Finished>], wall_s: f64) -> Result<(), Failure> {
        self.card.iter().for_each(Card::keep_pipelines);
        let original_test = self.original_test_accuracies()?;
        let summary = summary::summary(&self, &searches, finished, &original_test, wall_s);
        self.directory.write_summary(&summary)?;
        self.wait_for_checkpoint();
        self.progress.clear();
        self.directory.check_written()?;
        screen::result(table::table(&summary, self.directory.path()))?;
        if let Some(over) = self.directory.over_budget() {
            return Err(Failure::OverBudget(over));
        }
        let has_network = |task: usize| finished[0].iter().any(|f| f.task == task);
        let tasks = searches[0].tasks.iter().enumerate();
        let mut without = tasks.filter(|(task, found)| !found.finalists.is_empty() && !has_network(*task));
        let unrefitted = without.next().map(|(task, _)| self.tasks[task].name.clone());
        if let Some(error) = searches.into_iter().find_map(|s| s.failure) {
            return Err(Failure::Failed(error.into()));
        }
        if self.interrupt.is_set() {
            return Err(Failure::Interrupted);
        }
        match unrefitted {
            Some(task) => Err(anyhow::anyhow!("task '{task}' has no network: every finalist's refit panicked").into()),
            None => Ok(()),
        }
    }
}
