//! `run`: from a scene to smaller networks on disk.

mod finish;
mod interrupt;
mod learning;
mod prepare;
mod progress;
mod record;
mod search;
mod summary;
mod table;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use secateur_rl::{AgentKind, Profile};
use secateur_scene::{Agent, Control, Scene};
use secateur_sim::{NoiseFree, PluginList, Pool, Prepared, Settings, TaskSetup};

use crate::arguments::RunArgs;
use crate::check::read_and_resolve;
use crate::eval::thread_pool;
use crate::resolve::Resolved;
use crate::{Failure, screen};
use finish::Finished;
use interrupt::Interrupt;
use progress::Progress;
use record::RunDirectory;
use search::SearchOutcome;

/// Everything a run works on, and where it reports.
struct Run<'a> {
    scene: &'a Scene,
    resolved: &'a Resolved,
    plugins: &'a PluginList,
    pool: Pool,
    networks: Vec<Arc<Prepared>>,
    tasks: Vec<TaskSetup>,
    directory: RunDirectory,
    progress: Progress,
    interrupt: Interrupt,
}

/// Runs the scene of the arguments.
///
/// # Errors
/// Scenes that cannot be run (nothing is written then), failures on the way, certificates over budget, interruption.
pub(crate) fn run(arguments: &RunArgs, plugins: &PluginList) -> Result<(), Failure> {
    if arguments.resume {
        let why =
            "--resume: this version writes no checkpoints, so there is nothing to resume from; start the run anew";
        return Err(Failure::BadArguments(anyhow::anyhow!(why)));
    }
    let start = Instant::now();
    let (scene, resolved) = read_and_resolve(&arguments.scene, &arguments.set, &arguments.roots, plugins)?;
    let out = run_directory(arguments)?;
    let pool = Pool(Arc::new(thread_pool(arguments.threads)?));
    let progress = Progress::new(arguments.quiet);
    let interrupt = Interrupt::install()?;
    for network in &resolved.networks {
        for assumption in &network.assumptions {
            progress.note(&format!("{}: {assumption}", network.name));
        }
    }
    let directory = RunDirectory::create(&out, &scene, &resolved)?;
    progress.log_to(directory.log_file()?)?;
    let networks = prepare::networks(&scene, &resolved, &pool, &progress)?;
    let tasks = prepare::tasks(&scene, &resolved);
    if interrupt.is_set() {
        return Err(Failure::Interrupted);
    }
    let mut run =
        Run { scene: &scene, resolved: &resolved, plugins, pool, networks, tasks, directory, progress, interrupt };
    let searches = run.search_all()?;
    let finished = run.finish(&searches)?;
    run.report(searches, &finished, start.elapsed().as_secs_f64())
}

impl Run<'_> {
    /// The scene's agent, then the controls, until Ctrl-C or a failure.
    fn search_all(&mut self) -> Result<Vec<SearchOutcome>, Failure> {
        let mut searches = vec![self.search_agent()?];
        for control in &self.scene.controls {
            let (agent, walks) = match control {
                Control::Uniform => (AgentKind::Uniform, 1),
                Control::Random { candidates } => (AgentKind::Random, *candidates as u64),
            };
            if self.interrupt.is_set() || searches.iter().any(|s| s.failure.is_some()) {
                break;
            }
            searches.push(self.search(agent, walks, NoiseFree { every: 0, last: 0 })?);
        }
        Ok(searches)
    }

    fn search_agent(&mut self) -> Result<SearchOutcome, Failure> {
        let (agent, walks) = match self.scene.agent {
            Agent::Uniform => (AgentKind::Uniform, 1),
            Agent::Random => (AgentKind::Random, self.scene.walks_per_task),
            Agent::Mtacp { profile } => {
                let profile = match profile {
                    secateur_scene::Profile::Tuned => Profile::Tuned,
                    secateur_scene::Profile::Paper => Profile::Paper,
                };
                (AgentKind::Mtacp(profile), self.scene.walks_per_task)
            }
        };
        let noise_free = match agent {
            AgentKind::Mtacp(_) => NoiseFree { every: CURVE_EVERY, last: LAST_NOISE_FREE.min(walks / 4) },
            AgentKind::Uniform | AgentKind::Random => NoiseFree { every: 0, last: 0 },
        };
        self.search(agent, walks, noise_free)
    }

    fn settings(&self, walks_per_task: u64, noise_free: NoiseFree) -> Settings {
        Settings {
            channel_multiple: self.scene.channel_multiple,
            keep_ratio_min: self.scene.keep_ratio_min,
            spend_leftover: self.scene.spend_leftover,
            reward: prepare::reward_kind(self.scene),
            finalists: self.scene.finalists,
            actors_per_task: self.scene.actors_per_task,
            walks_per_task,
            noise_free,
        }
    }

    fn report(self, searches: Vec<SearchOutcome>, finished: &[Vec<Finished>], wall_s: f64) -> Result<(), Failure> {
        let original_test = self.original_test_accuracies()?;
        let summary = summary::summary(&self, &searches, finished, &original_test, wall_s);
        self.directory.write_summary(&summary)?;
        self.progress.clear();
        screen::result(table::table(&summary, self.directory.path()))?;
        if let Some(over) = self.directory.over_budget() {
            return Err(Failure::OverBudget(over));
        }
        if let Some(error) = searches.into_iter().find_map(|s| s.failure) {
            return Err(Failure::Failed(error.into()));
        }
        if self.interrupt.is_set() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    }
}

/// Every so many walks of a learning agent, one is free of noise and shows what the policy has learned.
const CURVE_EVERY: u64 = 25;
/// The last walks of a task are free of noise (at most a quarter of all): they show what the policy ended as.
const LAST_NOISE_FREE: u64 = 8;

/// The directory asked for, which must be empty, or the first free `runs/<scene>[-n]`.
fn run_directory(arguments: &RunArgs) -> Result<PathBuf, Failure> {
    let is_free = |path: &Path| match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !path.exists(),
    };
    if let Some(out) = &arguments.out {
        if is_free(out) {
            return Ok(out.clone());
        }
        let problem = format!("--out '{}' is not an empty directory; name a new one or empty it", out.display());
        return Err(Failure::BadArguments(anyhow::anyhow!(problem)));
    }
    let stem = arguments.scene.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for n in 1..10_000 {
        let name = if n == 1 { stem.clone() } else { format!("{stem}-{n}") };
        let path = Path::new("runs").join(name);
        // Creating it claims it, so that runs started together do not meet.
        match std::fs::create_dir_all("runs").and_then(|()| std::fs::create_dir(&path)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            claimed => return claimed.map(|()| path).map_err(Failure::from),
        }
    }
    let full = || -> anyhow::Result<PathBuf> { bail!("runs/ has 10,000 runs of '{stem}'; name another with --out") };
    full().map_err(Failure::BadArguments)
}
