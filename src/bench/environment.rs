//! What `bench schedulers` searches.

use std::sync::Arc;
use std::time::Duration;

use bevy_app::App;
use secateur_rl::agents::uniform::UniformSettings;
use secateur_rl::{Agent, AgentSettings};
use secateur_run::scene::{Device, Scene};
use secateur_run::{Resolved, prepared};
use secateur_sim::{
    EndsAfter, Evaluator, NoiseFree, PluginList, Pool, Prepared, RewardKind, Settings, TaskSetup, add_process,
    measure_steps,
};
use secateur_train::{Executor, Scheduler, Search, SearchSetup};

use super::arguments::BenchSchedulersArgs;
use super::synthetic::{self, SyntheticLearner, SyntheticScores, Work};
use super::timed::AgentTimes;
use crate::Failure;

/// One search to be measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which {
    pub(super) scheduler: Scheduler,
    pub(super) executor: Executor,
    pub(super) actors_per_task: usize,
}

/// What is searched, the same for every variant.
pub(super) struct Environment<'a> {
    pub(super) name: String,
    pub(super) pool: Pool,
    networks: Vec<Arc<Prepared>>,
    pub(super) tasks: Vec<TaskSetup>,
    kind: EnvironmentKind<'a>,
    walks: u64,
    queue_capacity: usize,
}

/// What is measured: the arguments, and for what they leave out the scene's values.
pub(super) struct Wanted {
    pub(super) schedulers: Vec<Scheduler>,
    pub(super) executors: Vec<Executor>,
    pub(super) actors: Vec<usize>,
    pub(super) walks: u64,
    pub(super) queue_capacity: usize,
}

impl Wanted {
    pub(super) fn of(arguments: &BenchSchedulersArgs, scene: Option<&Scene>) -> Self {
        let mut all = vec![Scheduler::Lockstep, Scheduler::Async, Scheduler::BoundedLag { max: 1 }];
        let own = scene.map(|scene| scene.scheduler);
        all.extend(own.filter(|own| !all.contains(own)));
        let own = scene.map_or(Executor::Single, |scene| scene.executor);
        let default_actors = || scene.map_or_else(|| vec![1, 2, 4, 8, 16], |scene| vec![scene.actors_per_task]);
        let capacity = arguments.queue_capacity.or(scene.map(|scene| scene.queue_capacity));
        Self {
            schedulers: arguments.variants.clone().unwrap_or(all),
            executors: arguments.executors.clone().unwrap_or_else(|| vec![own]),
            actors: arguments.actors.clone().unwrap_or_else(default_actors),
            walks: arguments.walks.or(scene.map(|scene| scene.walks_per_task)).unwrap_or(200),
            queue_capacity: capacity.unwrap_or(64),
        }
    }
}

enum EnvironmentKind<'a> {
    Synthetic { score: Work, learn: Work },
    Scene { scene: &'a Scene, plugins: &'a PluginList },
}

impl<'a> Environment<'a> {
    /// The tasks of a scene.
    ///
    /// # Errors
    /// A scene whose walks are scored on a card: schedulers share out the processor.
    pub(super) fn of_scene(
        (scene, resolved): (&'a Scene, &Resolved),
        plugins: &'a PluginList,
        wanted: &Wanted,
        pool: Pool,
    ) -> Result<Self, Failure> {
        if scene.device != Device::Cpu {
            let what =
                "bench schedulers scores on the processor, and the scene asks for device Gpu; add --set device=Cpu";
            return Err(Failure::BadArguments(anyhow::anyhow!(what)));
        }
        let (networks, tasks) = prepared((scene, plugins), resolved, &pool)?;
        let (walks, queue_capacity) = (wanted.walks, wanted.queue_capacity);
        let name = scene.origin().to_owned();
        Ok(Self { name, pool, networks, tasks, kind: EnvironmentKind::Scene { scene, plugins }, walks, queue_capacity })
    }

    /// Costs as in the arguments.
    pub(super) fn synthetic(arguments: &BenchSchedulersArgs, wanted: &Wanted, pool: Pool) -> Result<Self, Failure> {
        let networks = vec![synthetic::prepared(&pool.0, 1)?];
        let tasks = vec![synthetic::task(&networks[0])];
        let score = Work::of(Duration::from_secs_f64(arguments.score_ms * 1e-3));
        let learn = Work::of(Duration::from_secs_f64(arguments.score_ms * arguments.learn_share * 1e-3));
        let (walks, queue_capacity) = (wanted.walks, wanted.queue_capacity);
        let kind = EnvironmentKind::Synthetic { score, learn };
        Ok(Self { name: "synthetic".into(), pool, networks, tasks, kind, walks, queue_capacity })
    }

    /// A search whose steps and whose agent are timed.
    pub(super) fn search(&self, which: Which, times: &AgentTimes) -> Result<Search, Failure> {
        let (agent, seed) = match &self.kind {
            EnvironmentKind::Synthetic { .. } => (&UniformSettings {} as &dyn AgentSettings, 7),
            EnvironmentKind::Scene { scene, .. } => (&*scene.agent.settings, scene.seed),
        };
        let setup = SearchSetup {
            pool: self.pool.clone(),
            settings: self.settings(which.actors_per_task),
            networks: &self.networks,
            tasks: &self.tasks,
            agent,
            seed,
            queue_capacity: self.queue_capacity,
            scheduler: which.scheduler,
            executor: which.executor,
        };
        let mut app = self.app()?;
        measure_steps(&mut app);
        let search = Search::with_agent(app, &setup, |settings| {
            Ok(times.of(match &self.kind {
                EnvironmentKind::Scene { .. } => secateur_rl::build(agent, settings)?,
                EnvironmentKind::Synthetic { learn, .. } => {
                    Agent::Learning(Box::new(SyntheticLearner::new(*learn, settings.n_actors, settings.seed)))
                }
            }))
        });
        search.map_err(|error| Failure::Failed(error.into()))
    }

    fn app(&self) -> Result<App, Failure> {
        match &self.kind {
            EnvironmentKind::Scene { scene, plugins } => Ok(plugins.app(&scene.plugins)?),
            EnvironmentKind::Synthetic { score, .. } => {
                let mut app = App::empty();
                add_process(&mut app);
                app.insert_resource(Evaluator(Arc::new(SyntheticScores { work: *score })));
                Ok(app)
            }
        }
    }

    fn settings(&self, actors_per_task: usize) -> Settings {
        let (noise_free, walks_per_task) = (NoiseFree { every: 0, last: 0 }, self.walks);
        match &self.kind {
            EnvironmentKind::Synthetic { .. } => Settings {
                channel_multiple: 1,
                keep_ratio_min: 0.05,
                spend_leftover: false,
                reward: RewardKind::Accuracy,
                finalists: 1,
                actors_per_task,
                walks_per_task,
                ends_after: EndsAfter::Walks,
                noise_free,
            },
            EnvironmentKind::Scene { scene, .. } => Settings {
                channel_multiple: scene.channel_multiple,
                keep_ratio_min: scene.keep_ratio_min,
                spend_leftover: scene.spend_leftover,
                reward: scene.reward.kind(),
                finalists: scene.finalists,
                actors_per_task,
                walks_per_task,
                ends_after: EndsAfter::Walks,
                noise_free,
            },
        }
    }
}
