//! Driving the searches of a run to their end, or until the observer asks to stop.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use secateur_rl::{Agent, AgentEntry, EnvironmentSpec, ErrorWeights, RlError, TaskPlans, build_planned};
use secateur_sim::{
    EndsAfter, Evaluator, LateScores, ProcessEvent, RefitAndScore, Score, Settings, Step, StepTimes, TaskSetup,
    TaskStats, measure_steps,
};
use secateur_train::{SavedTask, Scheduler, Search, SearchEvent, SearchSetup, TaskResult, TrainError};

use crate::ask_tell::exchange::ToldScores;
use crate::card::Card;
use crate::directory::checkpoint::RunState;
use crate::error::RunError;
use crate::history::curves::TaskCurves;
use crate::observer::StageKind;
use crate::plan::task_plans::task_plans;
use crate::plans::{SearchPlan, frozen_plan, plans};
use crate::run::{Job, Run};
use crate::saved_search::{CurrentSearch, FinishedSearch, SearchTimes, WalkRewards};
use crate::scene::Scene;
use crate::summary::SourceSummary;
use crate::training::before_score::TunedFirst;

/// Steps in which candidates are built and scored.
const EVALUATION: [Step; 3] = [Step::Repair, Step::Score, Step::Wait];

/// What a search found.
pub(crate) struct SearchOutcome {
    pub(crate) agent: &'static str,
    pub(crate) tasks: Vec<TaskResult>,
    pub(crate) env_steps: u64,
    pub(crate) learner_updates: u64,
    /// Rewards of all noisy walks and of the last noise-free ones, per task.
    pub(crate) rewards: Vec<WalkRewards>,
    /// What stopped it before its end.
    pub(crate) failure: Option<TrainError>,
    pub(crate) times: SearchTimes,
}

/// A search on its way.
pub(crate) struct Ongoing {
    pub(crate) search: Search,
    /// What the agent was told of its tasks.
    plans: Option<TaskPlans>,
    /// Why the agent could not begin with the policy of an earlier run, if there was one.
    misfit: Option<RlError>,
    rewards: Vec<WalkRewards>,
    n_ended: u64,
    /// Of them, those that count towards the end of the search.
    n_counted: u64,
    /// Time it took before this process.
    before: SearchTimes,
    start: Instant,
    /// What tunes candidates before they are scored.
    tuned: Option<TunedFirst>,
}

/// How a search ended.
enum Ended {
    /// All walks are walked and learned from.
    Finished,
    /// The observer asked to stop, between two ticks.
    Stopped,
    /// What stopped it.
    Failed(TrainError),
}

impl Ongoing {
    fn times(&mut self) -> SearchTimes {
        let spent = self.search.world_mut().get_resource::<StepTimes>().map(|times| times.spent);
        let of = |step: &Step| spent.map_or(0.0, |spent| spent[*step as usize].as_secs_f64());
        SearchTimes {
            wall: self.before.wall + self.start.elapsed().as_secs_f64(),
            evaluation: self.before.evaluation + EVALUATION.iter().map(of).sum::<f64>(),
            tuning: self.before.tuning + self.tuned.as_ref().map_or(0.0, |tuned| tuned.spent().as_secs_f64()),
        }
    }
}

impl Run<'_> {
    /// The scene's agent, then the controls, until the observer asks to stop, or a failure; `state` is where an earlier
    /// process got to.
    pub(crate) fn search_all(&mut self, state: RunState) -> Result<Vec<SearchOutcome>, RunError> {
        let plans = match self.job.policy {
            Some(_) => vec![frozen_plan(self.job.scene)],
            None => plans(self.job.scene),
        };
        let mut searches = Vec::new();
        for (plan, finished) in plans.iter().zip(state.finished) {
            searches.push(finished_before(&self.job, plan.agent, finished)?);
        }
        let mut current = state.current;
        for &plan in &plans[searches.len()..] {
            let (outcome, ended) = self.search(plan, &searches, current.take())?;
            let failed = outcome.failure.is_some();
            searches.push(outcome);
            if ended && self.must_stop() {
                // Asked to stop while the last batches were learned from: the next process goes on behind this search.
                self.checkpoint(&searches);
                self.journal.wait_for_checkpoint();
            }
            if failed || self.must_stop() {
                return Ok(searches);
            }
        }
        self.searched_all = true;
        self.checkpoint(&searches);
        Ok(searches)
    }

    /// The search, and whether it came to its end.
    fn search(
        &mut self,
        plan: SearchPlan,
        before: &[SearchOutcome],
        saved: Option<CurrentSearch>,
    ) -> Result<(SearchOutcome, bool), RunError> {
        self.choose_sources(plan)?;
        let told = self.job.told.as_ref().filter(|_| before.is_empty());
        let mut ongoing = begin(&self.job, plan, saved, told)?;
        if told.is_some() && self.job.scene.scheduler == Scheduler::Async {
            let note = "the scores of its candidates were told, and count in the order in which they came";
            self.journal.reporter.note(&format!("{}: {note}", plan.agent.word));
        }
        self.note_beginning(plan, &ongoing)?;
        self.scores.lend(ongoing.search.world_mut());
        let n_walks = plan.walks_per_task * self.job.tasks.iter().filter(|task| task.is_searched).count() as u64;
        let what = match self.job.scene.ends_after {
            EndsAfter::Walks => "walks",
            EndsAfter::Scored => "candidates",
        };
        let stage = format!("{} {what}", plan.agent.word);
        self.journal.reporter.begin(StageKind::Search, &stage, n_walks, ongoing.n_counted);
        let mut ended = self.go_on(plan, before, &mut ongoing)?;
        self.journal.reporter.end();
        let reporter = &mut self.journal.reporter;
        self.scores.take_back(ongoing.search.world_mut(), &mut |warning| reporter.note(warning));
        let saves = match &ended {
            Ended::Finished => false,
            Ended::Stopped => true,
            Ended::Failed(error) => self.keep_batch(error),
        };
        if saves {
            match self.checkpoint_search(plan, before, &mut ongoing)? {
                None => self.journal.wait_for_checkpoint(),
                Some(failed) => ended = failed,
            }
        }
        if matches!(ended, Ended::Finished) && before.is_empty() && plan.agent.learns {
            let learner = ongoing.search.save().map_err(|error| RunError::Failed(error.into()))?.learner;
            learner.map_or(Ok(()), |learner| self.journal.directory.write_policy(&learner.state))?;
        }
        let times = ongoing.times();
        let Ongoing { mut search, rewards, .. } = ongoing;
        let outcome = SearchOutcome {
            agent: plan.agent.word,
            tasks: search.results(),
            env_steps: search.env_steps(),
            learner_updates: search.learner_updates(),
            rewards,
            times,
            failure: None,
        };
        Ok(match ended {
            Ended::Finished => (outcome, true),
            Ended::Stopped => (outcome, false),
            Ended::Failed(error) => (SearchOutcome { failure: Some(error), ..outcome }, false),
        })
    }

    /// Decides what the scene's agent learns of earlier runs, unless that was decided before.
    fn choose_sources(&mut self, plan: SearchPlan) -> Result<(), RunError> {
        let Job { scene, earlier, .. } = &self.job;
        if !plan.learns_from_history(scene) || earlier.is_chosen() {
            return Ok(());
        }
        let plans = task_plans(&self.job, plan)?;
        let mut earlier = self.job.earlier.clone();
        match (&self.history, &plans) {
            (Some(file), Some(plans)) => {
                if let Err(error) = earlier.choose(file, self.job.scene, plans) {
                    let reporter = &mut self.journal.reporter;
                    reporter.note(&format!("warning: {error}; the run goes on, and learns nothing of earlier ones"));
                    earlier.choose_none();
                }
            }
            _ => earlier.choose_none(),
        }
        self.journal.directory.write_sources(&earlier.to_bytes()?)?;
        self.job.earlier = earlier;
        Ok(())
    }

    /// Writes down the error curves of the tasks for later runs, and says what was taken of earlier ones.
    fn note_beginning(&mut self, plan: SearchPlan, ongoing: &Ongoing) -> Result<(), RunError> {
        if let (Some(plans), Some(ErrorWeights::Probed)) = (&ongoing.plans, plan.settings.plan_weights()) {
            self.journal.directory.write_task_curves(&TaskCurves::of_all(plans))?;
        }
        if !plan.learns_from_history(self.job.scene) {
            return Ok(());
        }
        if let Some(error) = &ongoing.misfit {
            let reporter = &mut self.journal.reporter;
            reporter.note(&format!("the policy of an earlier run does not fit, and is not begun with: {error}"));
            self.job.earlier.forget_policy();
            self.journal.directory.write_sources(&self.job.earlier.to_bytes()?)?;
        }
        let reporter = &mut self.journal.reporter;
        let helped = self.job.earlier.summary(self.job.scene);
        if let Some(run) = helped.policy_of_run {
            reporter.note(&format!("the agent begins with the policy of run {run}"));
        }
        for SourceSummary { task, run, source, weight, .. } in &helped.sources {
            reporter.note(&format!("{task} learns from run {run}: {source}, which counts {weight:.2} at first"));
        }
        if helped.sources.is_empty() {
            reporter.note("no earlier run knows tasks like these; the agent begins from nothing");
        }
        Ok(())
    }

    /// Ticks until the search ends, fails or is interrupted.
    fn go_on(&mut self, plan: SearchPlan, before: &[SearchOutcome], ongoing: &mut Ongoing) -> Result<Ended, RunError> {
        while !self.must_stop() {
            let ended = ongoing.search.is_done();
            match if ended { ongoing.search.finish() } else { ongoing.search.tick() } {
                Ok(events) => self.take_note(plan, ongoing, &events)?,
                Err(error) => {
                    // The walks that ended in this tick are counted, so they are recorded, too.
                    let events = ongoing.search.take_events();
                    self.take_note(plan, ongoing, &events)?;
                    return Ok(self.failed(plan, error));
                }
            }
            self.journal.reporter.progress(ongoing.n_counted);
            if ended {
                return Ok(Ended::Finished);
            }
            if self.journal.checkpoint_is_due()
                && let Some(failed) = self.checkpoint_search(plan, before, ongoing)?
            {
                return Ok(failed);
            }
        }
        Ok(Ended::Stopped)
    }

    fn failed(&mut self, plan: SearchPlan, error: TrainError) -> Ended {
        let name = plan.agent.word;
        self.journal.reporter.note(&format!("{name} stops: {error}; the best candidates so far are kept"));
        Ended::Failed(error)
    }

    /// Counts and records events, and reports better candidates.
    fn take_note(&mut self, plan: SearchPlan, ongoing: &mut Ongoing, events: &[SearchEvent]) -> Result<(), RunError> {
        let news = self.job.card.iter().flat_map(Card::news);
        news.for_each(|warning| self.journal.reporter.note(&warning));
        for event in events {
            if let SearchEvent::Process(ProcessEvent::Candidate { task, walk, noise_free, cached, reward, .. }) = event
            {
                ongoing.n_ended += 1;
                ongoing.n_counted += u64::from(!cached || self.job.scene.ends_after == EndsAfter::Walks);
                let is_last = plan.noise_free.is_last(*walk, plan.walks_per_task);
                match (noise_free, is_last) {
                    (false, _) => ongoing.rewards[*task].noisy.push(f64::from(*reward)),
                    (true, true) => ongoing.rewards[*task].noise_free.push(f64::from(*reward)),
                    (true, false) => {}
                }
            }
            self.tell(&plan.agent, event);
        }
        self.journal.record(plan.agent.word, &self.job.tasks, events, ongoing.times())
    }

    /// One line when a task has a better candidate; of agents that learn only, other walks are many and short.
    fn tell(&mut self, agent: &AgentEntry, event: &SearchEvent) {
        let SearchEvent::Process(event) = event else { return };
        if let (true, ProcessEvent::Candidate { task, walk, score, macs, is_best: true, .. }) = (agent.learns, event) {
            let name = &self.job.tasks[*task].name;
            let kept = kept(score);
            self.journal.reporter.note(&format!("{name}: walk {walk} {kept} on the reward images at {macs} MACs"));
        }
    }

    /// Keeps the batch that a learner failed on so that the cause can be looked for. Returns whether the search can go
    /// on from before it.
    fn keep_batch(&mut self, error: &TrainError) -> bool {
        if let Some((n_updates, batch)) = error.failed_batch() {
            self.journal.reporter.note(&match self.journal.directory.write_batch(n_updates, batch) {
                Ok(file) => format!("the batch that could not be learned from is in '{}'", file.display()),
                Err(error) => format!("warning: the batch that could not be learned from cannot be written: {error:#}"),
            });
        }
        error.leaves_search_whole()
    }

    /// Begins to write a checkpoint in the middle of a search. A search that cannot be saved ends with that.
    ///
    /// # Errors
    /// Metrics that cannot be written.
    fn checkpoint_search(
        &mut self,
        plan: SearchPlan,
        before: &[SearchOutcome],
        ongoing: &mut Ongoing,
    ) -> Result<Option<Ended>, RunError> {
        let start = Instant::now();
        let reporter = &mut self.journal.reporter;
        self.scores.keep(ongoing.search.world_mut(), &mut |warning| reporter.note(warning));
        let search = ongoing.search.save();
        // What a learner did while it came to rest is behind this checkpoint, so it is recorded before the length of
        // the metrics is taken.
        let events = ongoing.search.take_events();
        self.take_note(plan, ongoing, &events)?;
        let current = match search {
            Ok(search) => CurrentSearch {
                search,
                plugins: self.job.plugins.save(&self.job.scene.plugins, ongoing.search.world_mut()),
                rewards: ongoing.rewards.clone(),
                n_ended: ongoing.n_ended,
                times: ongoing.times(),
            },
            Err(error) => return Ok(Some(self.failed(plan, error))),
        };
        self.write_checkpoint(before, Some(current), start);
        Ok(None)
    }

    /// Begins to write a checkpoint between searches, or behind them.
    pub(crate) fn checkpoint(&mut self, searches: &[SearchOutcome]) {
        self.write_checkpoint(searches, None, Instant::now());
    }

    fn write_checkpoint(&mut self, before: &[SearchOutcome], current: Option<CurrentSearch>, start: Instant) {
        let state = RunState {
            finished: before.iter().map(finished_search).collect(),
            current,
            refits: self.refits.save(),
            trainings: self.trainings.save(),
            card: self.job.card.as_ref().map(Card::record),
            ..RunState::default()
        };
        self.journal.write_checkpoint(state, start);
    }
}

/// What a candidate's score says, for people.
fn kept(score: &Score) -> String {
    match *score {
        Score { accuracy: Some(accuracy), .. } => format!("keeps {:.2} %", 100.0 * accuracy),
        Score { output_error: Some(error), .. } => format!("has an output error of {error:.4}"),
        Score { divergence: Some(divergence), .. } => format!("diverges by {divergence:.4} nats"),
        Score { .. } => "has a score".to_owned(),
    }
}

fn settings(scene: &Scene, plan: SearchPlan) -> Settings {
    Settings {
        channel_multiple: scene.channel_multiple,
        keep_ratio_min: scene.keep_ratio_min,
        spend_leftover: scene.spend_leftover,
        reward: scene.reward.kind(),
        finalists: scene.finalists,
        actors_per_task: scene.actors_per_task,
        walks_per_task: plan.walks_per_task,
        ends_after: scene.ends_after,
        noise_free: plan.noise_free,
    }
}

/// A search at its start, or where `saved` was, which takes from `scores` what it finds there.
pub(crate) fn begin(
    job: &Job<'_>,
    plan: SearchPlan,
    saved: Option<CurrentSearch>,
    scores: Option<&ToldScores>,
) -> Result<Ongoing, RunError> {
    let scene = job.scene;
    // Scores count as they come, which is written down; the learner goes with the actors, so that all else follows.
    let as_they_come = scores.is_some() && scene.scheduler == Scheduler::Async;
    let setup = SearchSetup {
        pool: job.pool.clone(),
        settings: settings(scene, plan),
        networks: &job.networks,
        tasks: &job.tasks,
        agent: plan.settings,
        seed: scene.seed,
        queue_capacity: scene.queue_capacity,
        scheduler: if as_they_come { Scheduler::Lockstep } else { scene.scheduler },
        executor: scene.executor,
    };
    let mut app = job.plugins.app(&scene.plugins)?;
    measure_steps(&mut app);
    if let Some(card) = &job.card {
        card.join(&mut app, &job.pool);
    }
    if let Some(scores) = scores {
        scores.join(&mut app);
    }
    let tuned = scene.tune_before_score.map(|settings| {
        // Of what a plugin builds, if one does.
        let builder = app.world().get_resource::<Evaluator>().map(|evaluator| evaluator.0.clone());
        TunedFirst::new(settings, builder.unwrap_or_else(|| Arc::new(RefitAndScore)))
    });
    if let Some(tuned) = &tuned {
        app.insert_resource(Evaluator(Arc::new(tuned.clone())));
    }
    let plans = task_plans(job, plan)?;
    let mut misfit = None;
    let build = |environment: &EnvironmentSpec| {
        let mut agent = build_planned(plan.settings, environment, plans.as_ref())?;
        if let Some(policy) = job.policy.as_ref().filter(|_| plan.is_frozen) {
            return policy.freeze(agent, &job.tasks, &job.networks);
        }
        let policy = job.earlier.policy().filter(|_| plan.learns_from_history(scene));
        if let (Agent::Learning(learner), Some(policy)) = (&mut agent, policy) {
            misfit = policy.begin(&mut **learner, &job.tasks, &job.networks).err();
        }
        Ok(agent)
    };
    let mut search = Search::with_agent(app, &setup, build).map_err(|error| RunError::Failed(error.into()))?;
    if as_they_come {
        search.world_mut().insert_resource(LateScores::NextWaits);
    }
    let start = Instant::now();
    let forgets_scores = job.card.as_ref().is_some_and(Card::forgets_scores);
    let Some(saved) = saved else {
        let rewards = vec![WalkRewards::default(); job.tasks.len()];
        return Ok(Ongoing {
            search,
            plans,
            misfit,
            rewards,
            n_ended: 0,
            n_counted: 0,
            before: SearchTimes::default(),
            start,
            tuned,
        });
    };
    let mut saved_search = saved.search;
    let counted = |stats: &TaskStats| match scene.ends_after {
        EndsAfter::Walks => stats.n_ended,
        EndsAfter::Scored => stats.n_scored(),
    };
    let n_counted = saved_search.tasks.iter().map(|task| counted(&task.stats)).sum();
    if forgets_scores {
        saved_search.scores.clear();
    }
    search.restore(saved_search).context("--resume")?;
    job.plugins.load(&scene.plugins, search.world_mut(), &saved.plugins).context("--resume")?;
    if saved.rewards.len() != job.tasks.len() {
        return Err(anyhow!("--resume: the checkpoint has rewards of other tasks").into());
    }
    let CurrentSearch { rewards, n_ended, times: before, .. } = saved;
    Ok(Ongoing { search, plans, misfit, rewards, n_ended, n_counted, before, start, tuned })
}

/// A search that an earlier process finished.
fn finished_before(job: &Job<'_>, agent: AgentEntry, saved: FinishedSearch) -> Result<SearchOutcome, RunError> {
    let n_tasks = job.tasks.len();
    if saved.tasks.len() != n_tasks || saved.rewards.len() != n_tasks {
        return Err(anyhow!("--resume: the checkpoint has other tasks, expected {n_tasks}").into());
    }
    let restore = |(task, setup): (SavedTask, &TaskSetup)| task.restore(&job.networks[setup.network]);
    let tasks = saved.tasks.into_iter().zip(&job.tasks).map(restore).collect::<Result<_, _>>();
    Ok(SearchOutcome {
        agent: agent.word,
        tasks: tasks.context("--resume")?,
        env_steps: saved.env_steps,
        learner_updates: saved.learner_updates,
        rewards: saved.rewards,
        failure: None,
        times: saved.times,
    })
}

fn finished_search(outcome: &SearchOutcome) -> FinishedSearch {
    FinishedSearch {
        tasks: outcome.tasks.iter().map(SavedTask::of).collect(),
        env_steps: outcome.env_steps,
        learner_updates: outcome.learner_updates,
        rewards: outcome.rewards.clone(),
        times: outcome.times,
    }
}
