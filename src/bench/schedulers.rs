//! `bench schedulers`: every scheduler on the same work.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bevy_app::App;
use secateur_rl::{Agent, AgentKind};
use secateur_scene::Scene;
use secateur_sim::{
    Evaluator, Event, NoiseFree, PluginList, Pool, Prepared, RewardKind, Settings, Step, StepTimes, TaskSetup,
    measure_steps,
};
use secateur_train::{Executor, Scheduler, Search, SearchSetup};

use super::report::{Measured, Report, percentile, step_names, table};
use super::synthetic::{self, SyntheticLearner, SyntheticScores, Work};
use super::{json, queue};
use crate::arguments::BenchSchedulersArgs;
use crate::check::read_and_resolve;
use crate::eval::thread_pool;
use crate::run::{agent_kind, prepared};
use crate::{Failure, screen};

/// Moments at which the best reward is noted.
const N_MOMENTS: usize = 10;
/// Trajectories through the queue by itself.
const N_QUEUED: u64 = 500_000;

/// A scheduler as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant(pub(crate) Scheduler);

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, max) = text.split_once(':').map_or((text, None), |(name, max)| (name, Some(max)));
        match (name, max) {
            ("lockstep", None) => Ok(Self(Scheduler::Lockstep)),
            ("async", None) => Ok(Self(Scheduler::Async)),
            ("bounded_lag", None) => Ok(Self(Scheduler::BoundedLag { max: 1 })),
            ("bounded_lag", Some(max)) => {
                let max = max.parse().map_err(|_| format!("the lag '{max}' is no whole number"))?;
                Ok(Self(Scheduler::BoundedLag { max }))
            }
            _ => Err("unknown scheduler; expected lockstep, async or bounded_lag[:MAX]".to_owned()),
        }
    }
}

impl Variant {
    fn name(self) -> String {
        match self.0 {
            Scheduler::Lockstep => "lockstep".to_owned(),
            Scheduler::Async => "async".to_owned(),
            Scheduler::BoundedLag { max } => format!("bounded_lag:{max}"),
        }
    }
}

/// What is searched, the same for every variant.
struct Environment<'a> {
    name: String,
    pool: Pool,
    networks: Vec<Arc<Prepared>>,
    tasks: Vec<TaskSetup>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Synthetic { score: Work, learn: Work },
    Scene { scene: &'a Scene, plugins: &'a PluginList },
}

pub(crate) fn schedulers(arguments: &BenchSchedulersArgs, plugins: &PluginList) -> Result<(), Failure> {
    let pool = Pool(Arc::new(thread_pool(arguments.threads)?));
    let read = match &arguments.scene {
        Some(path) => Some(read_and_resolve(path, &arguments.set, &arguments.roots, plugins)?),
        None => None,
    };
    let environment = match &read {
        Some((scene, resolved)) => {
            let (networks, tasks) = prepared(scene, resolved, &pool)?;
            Environment { name: scene.origin().to_owned(), pool, networks, tasks, kind: Kind::Scene { scene, plugins } }
        }
        None => synthetic(arguments, pool)?,
    };
    let is_synthetic = read.is_none();
    let mut report = Report {
        environment: environment.name.clone(),
        score_ms: is_synthetic.then_some(arguments.score_ms),
        learn_ms: is_synthetic.then_some(arguments.score_ms * arguments.learn_share),
        threads: environment.pool.0.current_num_threads(),
        queue_trajectories_per_s: queue::trajectories_per_s(arguments.queue_capacity, N_QUEUED)?,
        runs: Vec::new(),
    };
    for &actors in &arguments.actors {
        for &variant in &arguments.variants {
            for &executor in &arguments.executors {
                screen::status(format!("{} with {actors} actors per task", variant.name()));
                report.runs.push(measure(&environment, arguments, (variant, executor.into(), actors))?);
            }
        }
    }
    json::write(arguments.json.as_deref(), &report)?;
    Ok(screen::result(table(&report))?)
}

fn synthetic(arguments: &BenchSchedulersArgs, pool: Pool) -> anyhow::Result<Environment<'static>> {
    let networks = vec![synthetic::prepared(&pool.0, 1)?];
    let tasks = vec![synthetic::task(&networks[0])];
    let score = Work::of(Duration::from_secs_f64(arguments.score_ms * 1e-3));
    let learn = Work::of(Duration::from_secs_f64(arguments.score_ms * arguments.learn_share * 1e-3));
    Ok(Environment { name: "synthetic".into(), pool, networks, tasks, kind: Kind::Synthetic { score, learn } })
}

impl Environment<'_> {
    fn search(
        &self,
        arguments: &BenchSchedulersArgs,
        (variant, executor, actors): (Variant, Executor, usize),
    ) -> Result<Search, Failure> {
        let (agent, seed) = match &self.kind {
            Kind::Synthetic { .. } => (AgentKind::Uniform, 7),
            Kind::Scene { scene, .. } => (agent_kind(scene.agent), scene.seed),
        };
        let setup = SearchSetup {
            pool: self.pool.clone(),
            settings: self.settings(arguments.walks, actors),
            networks: &self.networks,
            tasks: &self.tasks,
            agent,
            seed,
            queue_capacity: arguments.queue_capacity,
            scheduler: variant.0,
            executor,
        };
        let search = match &self.kind {
            Kind::Scene { scene, plugins } => {
                let mut app = plugins.app(&scene.plugins)?;
                measure_steps(&mut app);
                Search::new(app, &setup)
            }
            Kind::Synthetic { score, learn } => {
                let mut app = App::empty();
                secateur_sim::add_process(&mut app);
                app.insert_resource(Evaluator(Arc::new(SyntheticScores { work: *score })));
                measure_steps(&mut app);
                Search::with_agent(app, &setup, |settings| {
                    Ok(Agent::Learning(Box::new(SyntheticLearner::new(*learn, settings.n_actors, settings.seed))))
                })
            }
        };
        search.map_err(|error| Failure::Failed(error.into()))
    }

    fn settings(&self, walks_per_task: u64, actors_per_task: usize) -> Settings {
        let noise_free = NoiseFree { every: 0, last: 0 };
        match &self.kind {
            Kind::Synthetic { .. } => Settings {
                channel_multiple: 1,
                keep_ratio_min: 0.05,
                spend_leftover: false,
                reward: RewardKind::Accuracy,
                finalists: 1,
                actors_per_task,
                walks_per_task,
                noise_free,
            },
            Kind::Scene { scene, .. } => Settings {
                channel_multiple: scene.channel_multiple,
                keep_ratio_min: scene.keep_ratio_min,
                spend_leftover: scene.spend_leftover,
                reward: crate::run::reward_kind(scene),
                finalists: scene.finalists,
                actors_per_task,
                walks_per_task,
                noise_free,
            },
        }
    }
}

/// What a search told while it ran.
struct Notes {
    lag_mean: Vec<f64>,
    lag_max: f64,
    idle: Vec<(f64, f64)>,
    actors_wait_s: f64,
    n_walks: u64,
    best: Vec<f64>,
    best_at: Vec<(f64, f64)>,
}

impl Notes {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Candidate { task, reward, .. } => {
                self.n_walks += 1;
                self.best[*task] = self.best[*task].max(f64::from(*reward));
            }
            Event::Learned { numbers, .. } => {
                self.lag_mean.extend(number(numbers, "lag_mean"));
                self.lag_max = number(numbers, "lag_max").unwrap_or(0.0).max(self.lag_max);
            }
            Event::Scheduled { numbers, .. } => {
                self.idle.extend(number(numbers, "period_s").zip(number(numbers, "learner_idle_share")));
                self.actors_wait_s += number(numbers, "actors_wait_s").unwrap_or(0.0);
            }
            Event::Restarted { .. } | Event::Note { .. } => {}
        }
    }

    fn best_mean(&self) -> f64 {
        self.best.iter().sum::<f64>() / self.best.len().max(1) as f64
    }
}

fn number(numbers: &[(&'static str, f64)], name: &str) -> Option<f64> {
    numbers.iter().find(|(n, _)| *n == name).map(|(_, x)| *x)
}

fn measure(
    environment: &Environment<'_>,
    arguments: &BenchSchedulersArgs,
    which: (Variant, Executor, usize),
) -> Result<Measured, Failure> {
    let (variant, executor, actors) = which;
    let n_tasks = environment.tasks.len();
    let mut search = environment.search(arguments, which)?;
    let mut notes = Notes {
        lag_mean: Vec::new(),
        lag_max: 0.0,
        idle: Vec::new(),
        actors_wait_s: 0.0,
        n_walks: 0,
        best: vec![0.0; n_tasks],
        best_at: Vec::new(),
    };
    let n_wanted = arguments.walks * n_tasks as u64;
    let mut resident_bytes = Vec::with_capacity(N_MOMENTS);
    let start = Instant::now();
    while !search.is_done() {
        let events = search.tick().map_err(|error| Failure::Failed(error.into()))?;
        events.iter().for_each(|event| notes.take(event));
        if notes.n_walks * N_MOMENTS as u64 >= n_wanted * (notes.best_at.len() as u64 + 1) {
            notes.best_at.push((start.elapsed().as_secs_f64(), notes.best_mean()));
            resident_bytes.extend(resident());
        }
    }
    let last_walk_s = start.elapsed().as_secs_f64();
    // A queue full of work left for later is no speed: the measurement ends when all of it is learned from.
    let events = search.finish().map_err(|error| Failure::Failed(error.into()))?;
    events.iter().for_each(|event| notes.take(event));
    let wall_s = start.elapsed().as_secs_f64();
    let spent = search.world_mut().resource::<StepTimes>().spent;
    let share = |step: Step| {
        let at = Step::ALL.iter().position(|s| *s == step);
        at.map_or(0.0, |at| spent[at].as_secs_f64() / wall_s)
    };
    let work: f64 = [Step::Observe, Step::Act, Step::Repair, Step::Score, Step::Learn].map(share).iter().sum();
    let env_steps = search.env_steps() as f64;
    let total: f64 = notes.idle.iter().map(|(period, _)| period).sum();
    Ok(Measured {
        scheduler: variant.name(),
        executor: if executor == Executor::Single { "single" } else { "multi" },
        actors: actors * n_tasks,
        wall_s,
        walks: notes.n_walks,
        walks_per_s_until_last_walk: notes.n_walks as f64 / last_walk_s,
        walks_per_s: notes.n_walks as f64 / wall_s,
        env_steps_per_s: env_steps / wall_s,
        free_env_steps_per_s: env_steps / (wall_s * (1.0 - work + share(Step::Observe))),
        updates_per_s: notes.lag_mean.len() as f64 / wall_s,
        lag_p50: percentile(&notes.lag_mean, 0.5),
        lag_p95: percentile(&notes.lag_mean, 0.95),
        lag_max: notes.lag_max,
        learner_idle_share: (total > 0.0).then(|| notes.idle.iter().map(|(p, s)| p * s).sum::<f64>() / total),
        actors_wait_s: notes.actors_wait_s,
        step_shares: step_names().into_iter().zip(Step::ALL.map(share)).collect(),
        scheduling_share: (1.0 - work - notes.actors_wait_s / wall_s).max(0.0),
        best_reward: notes.best_mean(),
        best_reward_per_s: notes.best_mean() / wall_s,
        best_reward_at_s: notes.best_at,
        resident_bytes,
    })
}

/// Resident memory of this process in bytes, where the system tells (Linux).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_are_named_with_an_optional_lag() {
        let parse = |text: &str| text.parse::<Variant>().map(|v| v.0);
        assert_eq!(parse("lockstep"), Ok(Scheduler::Lockstep));
        assert_eq!(parse("bounded_lag:4"), Ok(Scheduler::BoundedLag { max: 4 }));
        for text in ["lockstep", "async", "bounded_lag:1"] {
            assert_eq!(text.parse::<Variant>().unwrap().name(), text);
        }
        for bad in ["", "lockstep:1", "bounded_lag:", "bounded_lag:-1", "Async"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
