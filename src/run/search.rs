//! Driving one search to its end, or to Ctrl-C.

use std::time::Instant;

use secateur_rl::AgentKind;
use secateur_sim::{Event, NoiseFree, SimError};
use secateur_train::{Search, SearchSetup, TaskResult};

use super::Run;
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
    pub(super) failure: Option<SimError>,
    pub(super) wall_s: f64,
}

/// Rewards of the walks of one task.
#[derive(Clone, Debug, Default)]
pub(super) struct WalkRewards {
    /// Walks with exploration noise (all walks, for agents that do not learn).
    pub(super) noisy: Vec<f64>,
    /// The last noise-free walks: what the final policy does.
    pub(super) noise_free: Vec<f64>,
}

impl Run<'_> {
    pub(super) fn search(
        &mut self,
        agent: AgentKind,
        walks_per_task: u64,
        noise_free: NoiseFree,
    ) -> Result<SearchOutcome, Failure> {
        let start = Instant::now();
        let settings = self.settings(walks_per_task, noise_free);
        let mut app = self.plugins.app(&self.scene.plugins)?;
        if let Some(card) = &self.card {
            card.join(&mut app);
        }
        let setup = SearchSetup {
            pool: self.pool.clone(),
            settings,
            networks: &self.networks,
            tasks: &self.tasks,
            agent,
            seed: self.scene.seed,
            queue_capacity: self.scene.queue_capacity,
        };
        let mut search = Search::new(app, &setup).map_err(|error| Failure::Failed(error.into()))?;
        let n_walks = walks_per_task * self.tasks.len() as u64;
        self.progress.begin(&format!("{} walks", agent.name()), n_walks);
        let mut rewards = vec![WalkRewards::default(); self.tasks.len()];
        let mut n_ended = 0;
        let mut failure = None;
        while !search.is_done() && !self.interrupt.is_set() {
            let events = match search.tick() {
                Ok(events) => events,
                Err(error) => {
                    self.progress
                        .note(&format!("{} stops: {error}; the best candidates so far are kept", agent.name()));
                    failure = Some(error);
                    break;
                }
            };
            self.card.iter().flat_map(Card::news).for_each(|warning| self.progress.note(&warning));
            for event in &events {
                if let Event::Candidate { task, walk, noise_free, reward, .. } = event {
                    n_ended += 1;
                    let is_last = walk + settings.noise_free.last >= walks_per_task;
                    match (noise_free, is_last) {
                        (false, _) => rewards[*task].noisy.push(f64::from(*reward)),
                        (true, true) => rewards[*task].noise_free.push(f64::from(*reward)),
                        (true, false) => {}
                    }
                }
                self.tell(agent, event);
            }
            self.directory.record(agent.name(), &self.tasks, &events)?;
            self.progress.set(n_ended);
        }
        self.progress.clear();
        Ok(SearchOutcome {
            agent: agent.name(),
            tasks: search.results(),
            env_steps: search.env_steps(),
            learner_updates: search.learner_updates(),
            rewards,
            failure,
            wall_s: start.elapsed().as_secs_f64(),
        })
    }

    /// One line when a task has a better candidate; the learning agent's only, controls are many and short.
    fn tell(&self, agent: AgentKind, event: &Event) {
        if let (AgentKind::Mtacp(_), Event::Candidate { task, walk, score, macs, is_best: true, .. }) = (agent, event) {
            let name = &self.tasks[*task].name;
            let accuracy = 100.0 * score.accuracy;
            self.progress
                .note(&format!("{name}: walk {walk} keeps {accuracy:.2} % on the reward images at {macs} MACs"));
        }
    }
}
