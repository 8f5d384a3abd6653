//! One search of `bench schedulers`, measured.

use std::collections::BTreeMap;
use std::time::Instant;

use secateur_sim::{ProcessEvent, Step, StepTimes};
use secateur_train::{Scheduler, Search, SearchEvent};

use super::environment::{Environment, Which};
use super::report::{SearchReport, percentile, step_names};
use super::timed::AgentTimes;
use crate::Failure;

/// Moments at which the best reward is noted.
const N_MOMENTS: usize = 10;

/// What a search told while it ran.
struct Notes {
    n_updates: u64,
    /// Steps learned from, by their lag in updates.
    lags: BTreeMap<u64, u64>,
    idle: Vec<(f64, f64)>,
    actors_wait_s: f64,
    n_walks: u64,
    best: Vec<f64>,
    best_at: Vec<(f64, f64)>,
    resident_bytes: Vec<u64>,
}

impl Notes {
    fn new(n_tasks: usize) -> Self {
        Self {
            n_updates: 0,
            lags: BTreeMap::new(),
            idle: Vec::new(),
            actors_wait_s: 0.0,
            n_walks: 0,
            best: vec![0.0; n_tasks],
            best_at: Vec::new(),
            resident_bytes: Vec::with_capacity(N_MOMENTS),
        }
    }

    fn take(&mut self, event: &SearchEvent) {
        match event {
            SearchEvent::Process(ProcessEvent::Candidate { task, reward, .. }) => {
                self.n_walks += 1;
                self.best[*task] = self.best[*task].max(f64::from(*reward));
            }
            SearchEvent::Learned { lags, .. } => {
                self.n_updates += 1;
                lags.iter().for_each(|(&lag, n_steps)| *self.lags.entry(lag).or_default() += n_steps);
            }
            SearchEvent::Scheduled { numbers, .. } => {
                self.idle.extend(number(numbers, "period_s").zip(number(numbers, "learner_idle_share")));
                self.actors_wait_s += number(numbers, "actors_wait_s").unwrap_or(0.0);
            }
            SearchEvent::Process(ProcessEvent::Restarted { .. } | ProcessEvent::Note { .. }) => {}
        }
    }

    /// Share of its time in which a learner on a thread of its own had nothing to do.
    fn learner_idle_share(&self) -> Option<f64> {
        let total: f64 = self.idle.iter().map(|(period, _)| period).sum();
        (total > 0.0).then(|| self.idle.iter().map(|(period, share)| period * share).sum::<f64>() / total)
    }

    fn best_mean(&self) -> f64 {
        self.best.iter().sum::<f64>() / self.best.len().max(1) as f64
    }
}

fn number(numbers: &[(&'static str, f64)], name: &str) -> Option<f64> {
    numbers.iter().find(|(n, _)| *n == name).map(|(_, x)| *x)
}

/// How long a search took.
struct Took {
    /// Until the last walk ended.
    last_walk_s: f64,
    /// Until all of it was learned from: a queue full of work left for later is no speed.
    wall_s: f64,
}

/// Runs a search to its end.
fn run(search: &mut Search, notes: &mut Notes, n_walks: u64) -> Result<Took, Failure> {
    let start = Instant::now();
    while !search.is_done() {
        let events = search.tick().map_err(|error| Failure::Failed(error.into()))?;
        events.iter().for_each(|event| notes.take(event));
        while notes.best_at.len() < N_MOMENTS
            && notes.n_walks * N_MOMENTS as u64 >= n_walks * (notes.best_at.len() as u64 + 1)
        {
            notes.best_at.push((start.elapsed().as_secs_f64(), notes.best_mean()));
            notes.resident_bytes.extend(resident());
        }
    }
    let last_walk_s = start.elapsed().as_secs_f64();
    let events = search.finish().map_err(|error| Failure::Failed(error.into()))?;
    events.iter().for_each(|event| notes.take(event));
    Ok(Took { last_walk_s, wall_s: start.elapsed().as_secs_f64() })
}

/// Where the time of the thread that ticks went, as shares of the wall time.
struct Shares {
    steps: Vec<f64>,
    /// Outside of observing, the policy's and the learner's arithmetic, repair and score; waiting aside.
    scheduling: f64,
    /// Observing and scheduling, that is, all but the arithmetic of policy, learner, repair and score, and waiting.
    free: f64,
}

impl Shares {
    fn new(search: &mut Search, took: &Took, agent: &AgentTimes, notes: &Notes, scheduler: Scheduler) -> Self {
        let spent = search.world_mut().resource::<StepTimes>().spent;
        let steps: Vec<f64> = spent.iter().map(|time| time.as_secs_f64() / took.wall_s).collect();
        let of = |step: Step| Step::ALL.iter().position(|s| *s == step).map_or(0.0, |at| steps[at]);
        // A learner on a thread of its own costs the one that ticks nothing until, at the end, that waits for it.
        let learning = match scheduler {
            Scheduler::Lockstep => agent.learning.spent().as_secs_f64(),
            Scheduler::Async | Scheduler::BoundedLag { .. } => took.wall_s - took.last_walk_s,
        };
        let of_agent = (agent.acting.spent().as_secs_f64() + learning) / took.wall_s;
        let waiting = notes.actors_wait_s / took.wall_s;
        let free = (1.0 - of(Step::Repair) - of(Step::Score) - of(Step::Wait) - of_agent - waiting).max(0.0);
        let scheduling = (free - of(Step::Observe)).max(0.0);
        Self { steps, scheduling, free }
    }
}

/// Runs one search and measures it.
///
/// # Errors
/// What stops a search.
pub(super) fn measure(environment: &Environment<'_>, which: Which, walks: u64) -> Result<SearchReport, Failure> {
    let n_tasks = environment.tasks.len();
    let agent = AgentTimes::default();
    let mut search = environment.search(which, &agent)?;
    let mut notes = Notes::new(n_tasks);
    let took = run(&mut search, &mut notes, walks * n_tasks as u64)?;
    let shares = Shares::new(&mut search, &took, &agent, &notes, which.scheduler);
    let env_steps = search.env_steps() as f64;
    let (wall_s, learn_s) = (took.wall_s, agent.learning.spent().as_secs_f64());
    Ok(SearchReport {
        scheduler: which.scheduler.name(),
        executor: which.executor.name(),
        actors: which.actors_per_task * n_tasks,
        wall_s,
        walks: notes.n_walks,
        walks_per_s_until_last_walk: notes.n_walks as f64 / took.last_walk_s,
        walks_per_s: notes.n_walks as f64 / wall_s,
        env_steps_per_s: env_steps / wall_s,
        free_env_steps_per_s: env_steps / (wall_s * shares.free),
        updates_per_s: notes.n_updates as f64 / wall_s,
        lag_p50: percentile(&notes.lags, 0.5),
        lag_p95: percentile(&notes.lags, 0.95),
        lag_max: percentile(&notes.lags, 1.0),
        learner_idle_share: notes.learner_idle_share(),
        actors_wait_s: notes.actors_wait_s,
        act_s: agent.acting.spent().as_secs_f64(),
        learn_s,
        learner_share: (which.scheduler != Scheduler::Lockstep).then_some(learn_s / wall_s),
        step_shares: step_names().into_iter().zip(shares.steps).collect(),
        scheduling_share: shares.scheduling,
        best_reward: notes.best_mean(),
        best_reward_per_s: notes.best_mean() / wall_s,
        best_reward_at_s: notes.best_at,
        resident_bytes: notes.resident_bytes,
    })
}

/// Resident memory of this process in bytes, where the system tells (Linux).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}
