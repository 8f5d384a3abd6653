//! Driving the searches of a run to their end, or to Ctrl-C.

use std::time::Instant;

use anyhow::Context;
use secateur_rl::AgentKind;
use secateur_sim::{Event as ProcessEvent, Settings};
use secateur_train::{Event, SavedTask, Search, SearchSetup, TaskResult, TrainError};
use serde::{Deserialize, Serialize};

use super::checkpoint::{CurrentSearch, FinishedSearch, RunState};
use super::plans::{Plan, executor, plans, scheduler};
use super::{Run, prepare};
use crate::Failure;
use crate::card::Card;

/// What a search found.
pub(super) struct SearchOutcome {
    pub(super) agent: &'static str,
    pub(super) tasks: Vec<TaskResult>,
    pub(super) env_steps: u64,
    pub(super) learner_updates: u64,
    /// Rewards of all noisy walks and of the last noise-free ones, per task.
    pub(super) rewards: Vec<WalkRewards>,
    /// What stopped it before its end.
    pub(super) failure: Option<TrainError>,
    pub(super) wall_s: f64,
}

/// Rewards of the walks of one task.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct WalkRewards {
    /// Walks with exploration noise (all walks, for agents that do not learn).
    pub(super) noisy: Vec<f64>,
    /// The last noise-free walks: what the final policy does.
    pub(super) noise_free: Vec<f64>,
}

/// A search on its way.
pub(super) struct Ongoing {
    search: Search,
    rewards: Vec<WalkRewards>,
    n_ended: u64,
    /// Time it took before this process.
    wall_before_s: f64,
    start: Instant,
}

/// How a search ended.
enum Ended {
    /// All walks are walked and learned from.
    Finished,
    /// By Ctrl-C or SIGTERM, between two ticks.
    Interrupted,
    /// What stopped it.
    Failed(TrainError),
}

impl Ongoing {
    fn wall_s(&self) -> f64 {
        self.wall_before_s + self.start.elapsed().as_secs_f64()
    }
}

impl Run<'_> {
    /// The scene's agent, then the controls, until Ctrl-C or a failure; `state` is where an earlier process got to.
    pub(super) fn search_all(&mut self, state: RunState) -> Result<Vec<SearchOutcome>, Failure> {
        let plans = plans(self.scene);
        let mut searches = Vec::new();
        for (plan, finished) in plans.iter().zip(state.finished) {
            searches.push(self.finished(plan.agent, finished)?);
        }
        let mut current = state.current;
        for &plan in &plans[searches.len()..] {
            let (outcome, ended) = self.search(plan, &searches, current.take())?;
            let failed = outcome.failure.is_some();
            searches.push(outcome);
            if ended && self.interrupt.is_set() {
                // Asked to stop while the last batches were learned from: the next process goes on behind this search.
                self.checkpoint(&searches);
                self.wait_for_checkpoint();
            }
            if failed || self.interrupt.is_set() {
                return Ok(searches);
            }
        }
        self.searched_all = true;
        self.checkpoint(&searches);
        Ok(searches)
    }

    fn settings(&self, plan: Plan) -> Settings {
        Settings {
            channel_multiple: self.scene.channel_multiple,
            keep_ratio_min: self.scene.keep_ratio_min,
            spend_leftover: self.scene.spend_leftover,
            reward: prepare::reward_kind(self.scene),
            finalists: self.scene.finalists,
            actors_per_task: self.scene.actors_per_task,
            walks_per_task: plan.walks_per_task,
            noise_free: plan.noise_free,
        }
    }

    /// The search, and whether it came to its end.
    fn search(
        &mut self,
        plan: Plan,
        before: &[SearchOutcome],
        saved: Option<CurrentSearch>,
    ) -> Result<(SearchOutcome, bool), Failure> {
        let mut ongoing = self.begin(plan, saved)?;
        let n_walks = plan.walks_per_task * self.tasks.iter().filter(|task| task.is_searched).count() as u64;
        self.progress.begin(&format!("{} walks", plan.agent.name()), n_walks, ongoing.n_ended);
        let mut ended = self.go_on(plan, before, &mut ongoing)?;
        self.progress.clear();
        let saves = match &ended {
            Ended::Finished => false,
            Ended::Interrupted => true,
            Ended::Failed(error) => self.keep_batch(error),
        };
        if saves {
            match self.checkpoint_search(plan, before, &mut ongoing)? {
                Ok(()) => self.wait_for_checkpoint(),
                Err(error) => ended = self.failed(plan, error),
            }
        }
        let wall_s = ongoing.wall_s();
        let Ongoing { mut search, rewards, .. } = ongoing;
        let outcome = SearchOutcome {
            agent: plan.agent.name(),
            tasks: search.results(),
            env_steps: search.env_steps(),
            learner_updates: search.learner_updates(),
            rewards,
            wall_s,
            failure: None,
        };
        Ok(match ended {
            Ended::Finished => (outcome, true),
            Ended::Interrupted => (outcome, false),
            Ended::Failed(error) => (SearchOutcome { failure: Some(error), ..outcome }, false),
        })
    }

    /// Ticks until the search ends, fails or is interrupted.
    fn go_on(&mut self, plan: Plan, before: &[SearchOutcome], ongoing: &mut Ongoing) -> Result<Ended, Failure> {
        while !self.interrupt.is_set() {
            let ended = ongoing.search.is_done();
            match if ended { ongoing.search.finish() } else { ongoing.search.tick() } {
                Ok(events) => self.take_note(plan, ongoing, &events)?,
                Err(error) => {
                    // The walks that ended in this tick are counted, so they are told, too.
                    let events = ongoing.search.take_events();
                    self.take_note(plan, ongoing, &events)?;
                    return Ok(self.failed(plan, error));
                }
            }
            self.progress.set(ongoing.n_ended);
            if ended {
                return Ok(Ended::Finished);
            }
            if self.checkpoints.is_due()
                && let Err(error) = self.checkpoint_search(plan, before, ongoing)?
            {
                return Ok(self.failed(plan, error));
            }
        }
        Ok(Ended::Interrupted)
    }

    fn failed(&self, plan: Plan, error: TrainError) -> Ended {
        let name = plan.agent.name();
        self.progress.note(&format!("{name} stops: {error}; the best candidates so far are kept"));
        Ended::Failed(error)
    }

    /// A search at its start, or where `saved` was.
    fn begin(&self, plan: Plan, saved: Option<CurrentSearch>) -> Result<Ongoing, Failure> {
        let setup = SearchSetup {
            pool: self.pool.clone(),
            settings: self.settings(plan),
            networks: &self.networks,
            tasks: &self.tasks,
            agent: plan.agent,
            seed: self.scene.seed,
            queue_capacity: self.scene.queue_capacity,
            scheduler: scheduler(self.scene.scheduler),
            executor: executor(self.scene.executor),
        };
        let mut app = self.plugins.app(&self.scene.plugins)?;
        if let Some(card) = &self.card {
            card.join(&mut app, &setup.pool);
        }
        let mut search = Search::new(app, &setup).map_err(|error| Failure::Failed(error.into()))?;
        let start = Instant::now();
        let forgets_scores = self.card.as_ref().is_some_and(Card::forgets_scores);
        let Some(saved) = saved else {
            let rewards = vec![WalkRewards::default(); self.tasks.len()];
            return Ok(Ongoing { search, rewards, n_ended: 0, wall_before_s: 0.0, start });
        };
        let mut before = saved.search;
        if forgets_scores {
            before.scores.clear();
        }
        search.restore(before).context("--resume")?;
        self.plugins.load(&self.scene.plugins, search.world_mut(), &saved.plugins).context("--resume")?;
        if saved.rewards.len() != self.tasks.len() {
            return Err(anyhow::anyhow!("--resume: the checkpoint has rewards of other tasks").into());
        }
        Ok(Ongoing { search, rewards: saved.rewards, n_ended: saved.n_ended, wall_before_s: saved.wall_s, start })
    }

    /// Counts, tells and records what happened.
    fn take_note(&mut self, plan: Plan, ongoing: &mut Ongoing, events: &[Event]) -> Result<(), Failure> {
        self.card.iter().flat_map(Card::news).for_each(|warning| self.progress.note(&warning));
        for event in events {
            if let Event::Process(ProcessEvent::Candidate { task, walk, noise_free, reward, .. }) = event {
                ongoing.n_ended += 1;
                let is_last = walk + plan.noise_free.last >= plan.walks_per_task;
                match (noise_free, is_last) {
                    (false, _) => ongoing.rewards[*task].noisy.push(f64::from(*reward)),
                    (true, true) => ongoing.rewards[*task].noise_free.push(f64::from(*reward)),
                    (true, false) => {}
                }
            }
            self.tell(plan.agent, event);
        }
        Ok(self.directory.record(plan.agent.name(), &self.tasks, events)?)
    }

    /// One line when a task has a better candidate; the learning agent's only, controls are many and short.
    fn tell(&self, agent: AgentKind, event: &Event) {
        let AgentKind::Mtacp(_) = agent else { return };
        if let Event::Process(ProcessEvent::Candidate { task, walk, score, macs, is_best: true, .. }) = event {
            let name = &self.tasks[*task].name;
            let accuracy = 100.0 * score.accuracy;
            self.progress
                .note(&format!("{name}: walk {walk} keeps {accuracy:.2} % on the reward images at {macs} MACs"));
        }
    }

    /// Keeps the batch that a learner failed on for whoever looks for the cause. Tells whether the search can go on from before it.
    fn keep_batch(&mut self, error: &TrainError) -> bool {
        if let Some((n_updates, batch)) = error.failed_batch() {
            self.progress.note(&match self.directory.write_batch(n_updates, batch) {
                Ok(file) => format!("the batch that could not be learned from is in '{}'", file.display()),
                Err(error) => format!("warning: the batch that could not be learned from cannot be written: {error:#}"),
            });
        }
        error.leaves_search_whole()
    }

    /// Begins to write a checkpoint in the middle of a search.
    ///
    /// # Errors
    /// Metrics that cannot be written; within, a search that cannot be saved.
    fn checkpoint_search(
        &mut self,
        plan: Plan,
        before: &[SearchOutcome],
        ongoing: &mut Ongoing,
    ) -> Result<Result<(), TrainError>, Failure> {
        let start = Instant::now();
        let search = ongoing.search.save();
        // What a learner did while it came to rest is behind this checkpoint, so it is told before its metrics are measured.
        let events = ongoing.search.take_events();
        self.take_note(plan, ongoing, &events)?;
        let current = match search {
            Ok(search) => CurrentSearch {
                search,
                plugins: self.plugins.save(&self.scene.plugins, ongoing.search.world_mut()),
                rewards: ongoing.rewards.clone(),
                n_ended: ongoing.n_ended,
                wall_s: ongoing.wall_s(),
            },
            Err(error) => return Ok(Err(error)),
        };
        self.write_checkpoint(before, Some(current), start);
        Ok(Ok(()))
    }

    /// Begins to write a checkpoint between searches, or behind them.
    pub(super) fn checkpoint(&mut self, searches: &[SearchOutcome]) {
        self.write_checkpoint(searches, None, Instant::now());
    }

    /// Begins to write a checkpoint. One that cannot be written is told, and no reason to stop.
    fn write_checkpoint(&mut self, before: &[SearchOutcome], current: Option<CurrentSearch>, start: Instant) {
        let state = RunState {
            finished: before.iter().map(finished_search).collect(),
            current,
            refits: self.refits.save(),
            card: self.card.as_ref().map(Card::record),
            metrics_bytes: self.directory.metrics_bytes(),
            wall_s: self.wall_s(),
        };
        let written = self.directory.metrics_file().and_then(|metrics| self.checkpoints.write(state, metrics));
        match written {
            Ok(()) => self.progress.log(&format!("checkpoint after {:.1} ms", start.elapsed().as_secs_f64() * 1e3)),
            Err(error) => self.progress.note(&format!("warning: {error:#}; the run goes on")),
        }
    }

    /// Waits until the last checkpoint is on disk; tells if it is not.
    pub(super) fn wait_for_checkpoint(&mut self) {
        if let Err(error) = self.checkpoints.wait() {
            self.progress.note(&format!("warning: {error:#}; the run goes on without it"));
        }
    }

    fn finished(&self, agent: AgentKind, saved: FinishedSearch) -> Result<SearchOutcome, Failure> {
        let n_tasks = self.tasks.len();
        if saved.tasks.len() != n_tasks || saved.rewards.len() != n_tasks {
            return Err(anyhow::anyhow!("--resume: the checkpoint has other tasks, expected {n_tasks}").into());
        }
        let restore =
            |(task, setup): (SavedTask, &secateur_sim::TaskSetup)| task.restore(&self.networks[setup.network]);
        let tasks = saved.tasks.into_iter().zip(&self.tasks).map(restore).collect::<Result<_, _>>();
        Ok(SearchOutcome {
            agent: agent.name(),
            tasks: tasks.context("--resume")?,
            env_steps: saved.env_steps,
            learner_updates: saved.learner_updates,
            rewards: saved.rewards,
            failure: None,
            wall_s: saved.wall_s,
        })
    }
}

fn finished_search(outcome: &SearchOutcome) -> FinishedSearch {
    FinishedSearch {
        tasks: outcome.tasks.iter().map(SavedTask::of).collect(),
        env_steps: outcome.env_steps,
        learner_updates: outcome.learner_updates,
        rewards: outcome.rewards.clone(),
        wall_s: outcome.wall_s,
    }
}
