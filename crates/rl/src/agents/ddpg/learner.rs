//! The learning half of DDPG.

use std::sync::Arc;

use super::actor_critic::{ActorCritic, StepLosses};
use super::frame::{Choice, DdpgFrame, SearchScope};
use super::inherit::EarlierSearch;
use super::policy::{DdpgPolicy, SearchPolicy};
use super::replay::PastWalk;
use super::settings::{DdpgSettings, StoredAction, UpdateRule};
use super::task_reward::TaskReward;
use crate::agent::EnvironmentSpec;
use crate::agents::planned_walks::PlannedWalks;
use crate::error::RlError;
use crate::inheritance::Inheritance;
use crate::interface::{LearnReport, Learner, Policy};
use crate::state::{StateReader, StateWriter};
use crate::task_plan::TaskPlans;
use crate::unroll::Unroll;

/// What changes, and is saved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DdpgState {
    /// One for each search.
    pub(super) searches: Vec<ActorCritic>,
    /// One for each task.
    pub(super) rewards: Vec<TaskReward>,
    pub(super) n_updates: u64,
}

/// The learning half of DDPG.
pub(crate) struct DdpgLearner {
    pub(super) frame: Arc<DdpgFrame>,
    pub(super) state: DdpgState,
    planned: PlannedWalks,
    policy: Arc<DdpgPolicy>,
}

impl DdpgLearner {
    /// A learner that has learned nothing, in a run whose tasks have these plans, if the settings ask for them.
    ///
    /// # Errors
    /// A failure to copy the initial weights.
    pub(crate) fn new(
        settings: DdpgSettings,
        scope: SearchScope,
        environment: &EnvironmentSpec,
        plans: Option<TaskPlans>,
    ) -> Result<Self, RlError> {
        let frame = Arc::new(DdpgFrame::new(settings, scope, environment, plans));
        let state = DdpgState {
            searches: (0..frame.n_searches()).map(|place| ActorCritic::new(&frame, place)).collect(),
            rewards: vec![TaskReward::default(); environment.n_tasks],
            n_updates: 0,
        };
        let planned = PlannedWalks::new(frame.planning(), frame.plans.as_ref(), environment.n_tasks);
        let policy = Arc::new(publish(&frame, &state, &planned)?);
        Ok(Self { frame, state, planned, policy })
    }

    /// The walk that an unroll is, with the search that it belongs to.
    fn walk(&self, unroll: &Unroll) -> Result<(usize, PastWalk), RlError> {
        let frame = &self.frame;
        unroll.check(frame.environment.n_features)?;
        let search = frame.search_of(unroll.task)?;
        let n_steps = unroll.n_steps();
        let refused = |what: &str, expected: String, got: String| {
            Err(RlError::OutOfRange { op: "learn", what: what.to_owned(), expected, got })
        };
        let is_walk = unroll.starts_walk.iter().position(|&starts| starts) == Some(0)
            && unroll.ends_walk.iter().position(|&ends| ends) == Some(n_steps - 1)
            && unroll.starts_walk[1..n_steps].iter().all(|&starts| !starts);
        if !is_walk {
            return refused("unroll", "one whole walk".to_owned(), "a part of one, or several".to_owned());
        }
        let n_layers = frame.environment.walk_length_max;
        if let Some(layer) = unroll.layer[..n_steps].iter().find(|&&layer| layer as usize >= n_layers) {
            return refused("layer", format!("less than {n_layers}"), layer.to_string());
        }
        if let Some(action) = unroll.raw_action.iter().find(|action| !(0.0..=1.0).contains(*action)) {
            return refused("raw_action", "in [0, 1]".to_owned(), action.to_string());
        }
        let (mut features, mut actions) = (Vec::new(), Vec::with_capacity(n_steps));
        let per_step = frame.environment.n_features;
        for step in 0..n_steps {
            let at = Choice { task: unroll.task, layer: unroll.layer[step], even_ratio: unroll.even_ratio[step] };
            frame.push_features(&mut features, &unroll.observation[step * per_step..(step + 1) * per_step], at)?;
            actions.push(match frame.settings.stored {
                StoredAction::Chosen => unroll.raw_action[step],
                StoredAction::Realised => frame.action(unroll.keep_ratio[step], at),
            });
        }
        let reward = unroll.reward.iter().sum();
        Ok((search, PastWalk { task: unroll.task, features, actions, reward }))
    }

    fn learn_or_fail(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        let walks = batch.iter().map(|unroll| self.walk(unroll)).collect::<Result<Vec<_>, RlError>>()?;
        let frame = Arc::clone(&self.frame);
        let settings = &frame.settings;
        let mut losses = Vec::new();
        for (place, walk) in walks {
            let n_steps = walk.actions.len();
            self.state.rewards[walk.task as usize].add(walk.reward.into(), settings.reward_scale);
            let search = &mut self.state.searches[place];
            if settings.imitated_walks > 0 {
                search.best.keep_best(&walk, settings.imitated_walks);
            }
            search.replay.push(walk, settings.replay_walks);
            search.n_walks += 1;
            if search.n_walks <= frame.warmup_walks() {
                continue;
            }
            let n_updates = match settings.updates {
                UpdateRule::PerStep(n) => n * n_steps,
                UpdateRule::PerWalk(n) => n,
            };
            for _ in 0..n_updates {
                losses.extend(search.gradient_step(&frame, place, &self.state.rewards)?);
            }
        }
        batch.iter().for_each(|unroll| self.planned.add(unroll));
        self.state.n_updates += 1;
        self.policy = Arc::new(publish(&frame, &self.state, &self.planned)?);
        Ok(self.report(&losses))
    }

    /// Losses are means over the gradient steps, 0 without any; the others are means over the searches.
    fn report(&self, losses: &[StepLosses]) -> LearnReport {
        let of_steps = |of: fn(&StepLosses) -> f64| losses.iter().map(of).sum::<f64>() / losses.len().max(1) as f64;
        let searches = &self.state.searches;
        let of_searches =
            |of: &dyn Fn(&ActorCritic) -> f64| searches.iter().map(of).sum::<f64>() / searches.len().max(1) as f64;
        let skip_first = self.frame.settings.skip_first_steps;
        let numbers = vec![
            ("critic_loss", of_steps(|losses| losses.critic)),
            ("actor_loss", of_steps(|losses| losses.actor)),
            ("gradient_steps", losses.len() as f64),
            ("baseline", of_searches(&|search| search.baseline.unwrap_or(0.0))),
            ("replay_steps", of_searches(&|search| search.replay.n_steps(skip_first) as f64)),
            ("sigma", of_searches(&|search| f64::from(self.frame.sigma(search.n_walks)))),
        ];
        LearnReport { numbers }
    }
}

fn publish(frame: &Arc<DdpgFrame>, state: &DdpgState, planned: &PlannedWalks) -> Result<DdpgPolicy, RlError> {
    let of_search = |search: &ActorCritic| {
        Ok(SearchPolicy {
            actor: search.actor.now.tensors()?,
            critic: search.critic.now.tensors()?,
            warms_up: search.n_walks <= frame.warmup_walks(),
            sigma: frame.sigma(search.n_walks),
        })
    };
    let searches = state.searches.iter().map(of_search).collect::<Result<Vec<_>, RlError>>()?;
    Ok(DdpgPolicy { version: state.n_updates, frame: Arc::clone(frame), searches, planned: planned.clone() })
}

impl Learner for DdpgLearner {
    fn unroll_length(&self, walk_length: usize) -> usize {
        walk_length
    }

    fn batch_size(&self) -> usize {
        self.frame.environment.n_actors.max(1)
    }

    fn learn(&mut self, batch: &[Unroll]) -> Result<LearnReport, RlError> {
        if batch.is_empty() {
            let (what, expected) = ("batch size".to_owned(), "at least 1 unroll".to_owned());
            return Err(RlError::OutOfRange { op: "learn", what, expected, got: "0".to_owned() });
        }
        let before = (self.state.clone(), self.planned.clone());
        self.learn_or_fail(batch).inspect_err(|_| (self.state, self.planned) = before)
    }

    fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.policy) as Arc<dyn Policy>
    }

    fn n_updates(&self) -> u64 {
        self.state.n_updates
    }

    fn save(&self) -> Result<Vec<u8>, RlError> {
        let mut writer = StateWriter::default();
        writer.put_u64("counts", &[self.state.n_updates]);
        for (place, search) in self.state.searches.iter().enumerate() {
            search.save(&format!("search.{place}"), &mut writer);
        }
        for (task, reward) in self.state.rewards.iter().enumerate() {
            reward.save(&format!("task.{task}.reward"), &mut writer);
        }
        self.planned.save(&mut writer);
        writer.finish()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), RlError> {
        let reader = StateReader::new(bytes)?;
        let [n_updates] = reader.u64("counts")?[..] else {
            return Err(RlError::State { what: "counts: expected one number".to_owned() });
        };
        let mut state = DdpgState { n_updates, ..self.state.clone() };
        for (place, search) in state.searches.iter_mut().enumerate() {
            search.load(&self.frame, &format!("search.{place}"), &reader)?;
        }
        for (task, reward) in state.rewards.iter_mut().enumerate() {
            *reward = TaskReward::load(&format!("task.{task}.reward"), &reader)?;
        }
        let mut planned = self.planned.clone();
        planned.load(&reader)?;
        self.policy = Arc::new(publish(&self.frame, &state, &planned)?);
        (self.state, self.planned) = (state, planned);
        Ok(())
    }

    /// Actors, critics and what follows them; the walks in the rings, each with what was learned of its reward then,
    /// are learned from beside those of now, fewer with every walk. Groups of another place are those at the same
    /// depth.
    fn inherit(&mut self, from: &Inheritance<'_>) -> Result<(), RlError> {
        let reader = StateReader::new(from.state)?;
        let mut state = self.state.clone();
        for (place, search) in state.searches.iter_mut().enumerate() {
            let earlier = EarlierSearch::new(&self.frame, from, place)?;
            search.inherit(&self.frame, &earlier, &reader)?;
            search.n_walks = self.frame.walks_of_search(from.progress);
        }
        self.policy = Arc::new(publish(&self.frame, &state, &self.planned)?);
        self.state = state;
        Ok(())
    }
}
