//! What policy and learner share and never change.

use super::net::NetSizes;
use super::settings::{ActionRule, DdpgSettings, SigmaDecay};
use crate::agent::EnvironmentSpec;
use crate::agents::mtacp::ObserveRule;
use crate::agents::mtacp::errors::{N_ERROR_FEATURES, error_features, n_features};
use crate::agents::planned_walks::PlanningShare;
use crate::error::{RlError, check_finite, check_length};
use crate::nn::squash::Squash;
use crate::task_plan::{TaskPlan, TaskPlans};

/// Actions around a start stand for offsets of at most so many logits.
const SPAN: f64 = 2.5;
/// The action that stands for the start.
pub(super) const CENTRE: f32 = 0.5;

/// Which tasks have a search in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchScope {
    /// None: each has networks, replay and baseline of its own.
    EachTask,
    /// All.
    AllTasks,
}

/// What is decided, and what the budget leaves for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) task: u32,
    pub(super) layer: u32,
    pub(super) even_ratio: f32,
}

/// What policy and learner share and never change.
pub(super) struct DdpgFrame {
    pub(super) settings: DdpgSettings,
    pub(super) scope: SearchScope,
    pub(super) environment: EnvironmentSpec,
    /// What is known of the tasks, if the settings ask for it.
    pub(super) plans: Option<TaskPlans>,
    pub(super) sizes: NetSizes,
}

impl DdpgFrame {
    pub(super) fn new(
        settings: DdpgSettings,
        scope: SearchScope,
        environment: &EnvironmentSpec,
        plans: Option<TaskPlans>,
    ) -> Self {
        let is_central = settings.action != ActionRule::KeepRatio;
        let n_places = if settings.sees_place { environment.walk_length_max } else { 0 };
        let n_seen = environment.n_features + usize::from(is_central) + n_features(settings.observe);
        let sizes =
            NetSizes { n_features: n_seen + n_places, hidden: settings.hidden.clone(), starts_central: is_central };
        Self { settings, scope, environment: *environment, plans, sizes }
    }

    /// Searches of the run.
    pub(super) const fn n_searches(&self) -> usize {
        match self.scope {
            SearchScope::EachTask => self.environment.n_tasks,
            SearchScope::AllTasks => 1,
        }
    }

    /// That of a task.
    pub(super) fn search_of(&self, task: u32) -> Result<usize, RlError> {
        if task as usize >= self.environment.n_tasks {
            let (what, expected) = ("task".to_owned(), format!("less than {}", self.environment.n_tasks));
            return Err(RlError::OutOfRange { op: "ddpg", what, expected, got: task.to_string() });
        }
        Ok(match self.scope {
            SearchScope::EachTask => task as usize,
            SearchScope::AllTasks => 0,
        })
    }

    /// Appends what the networks see: the observation, what the budget leaves if actions are around it, error curves if
    /// they are observed, and the place if it is seen.
    pub(super) fn push_features(
        &self,
        features: &mut Vec<f32>,
        observation: &[f32],
        at: Choice,
    ) -> Result<(), RlError> {
        check_length("ddpg", "observation", self.environment.n_features, observation.len())?;
        check_finite("ddpg", "observation", observation)?;
        check_finite("ddpg", "even_ratio", &[at.even_ratio])?;
        features.extend(observation);
        if self.settings.action != ActionRule::KeepRatio {
            features.push(at.even_ratio);
        }
        if self.settings.observe == ObserveRule::Errors {
            let plan = self.plan(at);
            features.extend(plan.map_or([0.0; N_ERROR_FEATURES], |plan| error_features(plan, at.layer as usize)));
        }
        if self.settings.sees_place {
            let n_places = self.environment.walk_length_max as u32;
            features.extend((0..n_places).map(|place| if place == at.layer { 1.0 } else { 0.0 }));
        }
        Ok(())
    }

    /// The plan that knows the group, if any does.
    fn plan(&self, at: Choice) -> Option<&TaskPlan> {
        let plan = self.plans.as_ref()?.all().get(at.task as usize)?;
        ((at.layer as usize) < plan.n_groups()).then_some(plan)
    }

    /// The keep ratio that [`CENTRE`] stands for.
    fn centre(&self, at: Choice) -> f32 {
        match (self.settings.action, self.plan(at)) {
            (ActionRule::AroundKnapsack, Some(plan)) => {
                plan.shifted_ratio(at.layer as usize, at.even_ratio, self.environment.keep_ratio_min)
            }
            (ActionRule::KeepRatio | ActionRule::AroundEven | ActionRule::AroundKnapsack, _) => at.even_ratio,
        }
    }

    pub(super) fn keep_ratio(&self, action: f32, at: Choice) -> f32 {
        let least = self.environment.keep_ratio_min;
        if self.settings.action == ActionRule::KeepRatio {
            return action.clamp(least, 1.0);
        }
        // Without an offset these are the planned widths, whole groups included.
        if action == CENTRE && self.settings.action == ActionRule::AroundKnapsack {
            return self.centre(at);
        }
        let offset = 2.0 * SPAN * f64::from(action - CENTRE);
        Squash::AroundEven.keep_ratio(offset as f32, self.centre(at), least)
    }

    /// The action that stands for a keep ratio.
    pub(super) fn action(&self, keep_ratio: f32, at: Choice) -> f32 {
        if self.settings.action == ActionRule::KeepRatio {
            return keep_ratio.clamp(0.0, 1.0);
        }
        let offset = Squash::AroundEven.raw_action(keep_ratio, self.centre(at), self.environment.keep_ratio_min);
        (f64::from(CENTRE) + f64::from(offset) / (2.0 * SPAN)).clamp(0.0, 1.0) as f32
    }

    /// Which walks are planned: the streams of a walk's layers are those of the actor's noise, the one behind is free.
    pub(super) fn planning(&self) -> PlanningShare {
        PlanningShare {
            share: self.settings.planned_share,
            settings: self.settings.planning,
            keeps_first: self.keeps_plan(0),
            seed: self.environment.seed,
            stream: self.environment.walk_length_max as u64,
        }
    }

    /// Walks of one search, all its tasks together, that are this share of those planned.
    pub(super) fn walks_of_search(&self, share: f64) -> u64 {
        (share * self.walks_per_task() * self.tasks_per_search() as f64).round() as u64
    }

    /// Whether a walk keeps the planned widths although it may explore: the first.
    pub(super) fn keeps_plan(&self, walk: u64) -> bool {
        walk == 0 && self.settings.action == ActionRule::AroundKnapsack
    }

    /// Walks of one task.
    fn walks_per_task(&self) -> f64 {
        self.environment.walks_planned as f64 / self.environment.n_tasks.max(1) as f64
    }

    /// Tasks of one search.
    pub(super) fn tasks_per_search(&self) -> usize {
        self.environment.n_tasks / self.n_searches().max(1)
    }

    /// Walks of a search before its first gradient step.
    pub(super) fn warmup_walks(&self) -> u64 {
        self.walks_of_search(self.settings.warmup)
    }

    /// Standard deviation of the noise of a search that has learned from so many walks. Walks of several tasks count as
    /// walks of each, so that a search for several tasks explores as long as one for one.
    pub(super) fn sigma(&self, n_walks: u64) -> f32 {
        let (first, warmup) = (f64::from(self.settings.sigma), self.warmup_walks());
        let n = n_walks.saturating_sub(warmup) as f64 / self.tasks_per_search() as f64;
        let sigma = match self.settings.decay {
            SigmaDecay::PerWalk(factor) => first * libm::pow(f64::from(factor), n),
            SigmaDecay::Until(last) => {
                let planned = (self.walks_per_task() * (1.0 - self.settings.warmup)).max(1.0);
                first * libm::pow(f64::from(last) / first, (n / planned).min(1.0))
            }
        };
        sigma as f32
    }
}
