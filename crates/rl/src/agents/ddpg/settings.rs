//! The settings of DDPG agents; the two profiles here are AMC's.

use serde::{Deserialize, Serialize};

use crate::agent::{ASSISTED_SHARE, ErrorWeights, Profile};
use crate::agents::mtacp::ObserveRule;
use crate::agents::value_of_error::ValueOfErrorSettings;
use crate::setting::{BadSetting, RangeCheck, profiled_settings};

/// Most layers of a network, and units of one layer.
const LAYERS_MAX: usize = 8;
const UNITS_MAX: usize = 1024;

/// Which keep ratio an action in [0, 1] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionRule {
    /// The action itself, where it is not below the least keep ratio (AMC).
    KeepRatio,
    /// 0.5 is the keep ratio that every group that is left can share; others are offsets in logits.
    AroundEven,
    /// 0.5 is the width of least weighted layer error, shifted with what earlier groups left of the budget; others are
    /// offsets in logits. The first walk of a task keeps just these widths.
    AroundKnapsack,
}

/// How the standard deviation of the exploration noise falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum SigmaDecay {
    /// By this factor with each walk of a task (AMC: 0.95).
    PerWalk(f32),
    /// Geometrically, to this at the last walk planned.
    Until(f32),
}

/// Which action a step is remembered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredAction {
    /// The one that the policy chose, whatever the wall made of it (released code).
    Chosen,
    /// The one that stands for the keep ratio that was realised.
    Realised,
}

/// What of a walk's reward is learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum RewardScale {
    /// All of it.
    AsPaid,
    /// What is above the task's mean, which moves at this rate, or faster as long as few walks are known (CACP: 0.001).
    AboveMean(f64),
    /// In units of the task's standard deviation from its mean.
    Standardised,
}

/// How many gradient steps a walk is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateRule {
    /// So many for each of its steps (AMC, and the released code of CACP: one).
    PerStep(usize),
    /// So many (CACP's algorithm 1: one).
    PerWalk(usize),
}

/// What of a walk's reward each of its steps gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreditRule {
    /// The whole of it (AMC, and the released code of CACP).
    Copied,
    /// An equal share of it (CACP's paper, after Block-QNN).
    Divided,
}

profiled_settings! {
    /// Everything that tells one DDPG agent from another.
    pub struct DdpgSettings {
        /// Units of the hidden layers, of actor and critic alike.
        hidden: Vec<usize>,
        /// What an action means.
        action: ActionRule,
        /// What is observed of a group.
        observe: ObserveRule,
        /// Whether the networks also see which group of the walk it is, one input for each: groups then need not be
        /// told apart by their features alone.
        sees_place: bool,
        /// Share of the walks that are only remembered: no gradient steps. Their actions are drawn evenly from [0, 1]
        /// if these are keep ratios, else around where the search starts.
        warmup: f64,
        /// Standard deviation of the normal distribution, truncated to [0, 1], that actions are drawn from.
        sigma: f32,
        /// How it falls.
        decay: SigmaDecay,
        /// Walks in the replay ring.
        replay_walks: usize,
        /// Never sample the first step of a walk, but for the oldest one in the ring: the released code's quirk.
        skip_first_steps: bool,
        /// Which action is remembered.
        stored: StoredAction,
        /// Steps per gradient step.
        batch: usize,
        /// Gradient steps behind each walk.
        updates: UpdateRule,
        /// Discount inside a walk.
        discount: f64,
        /// Share by which targets follow at each gradient step.
        target_rate: f32,
        /// Step size of the actor (Adam).
        actor_rate: f32,
        /// Step size of the critic (Adam).
        critic_rate: f32,
        /// Share by which the baseline follows the mean reward of each batch; 0 for no baseline.
        baseline_rate: f64,
        /// What of a reward is learned.
        reward_scale: RewardScale,
        /// What each step gets of it.
        credit: CreditRule,
        /// Best walks remembered per task, to be imitated; 0 for none.
        imitated_walks: usize,
        /// Weight of the actor's mean squared distance from their actions.
        imitation_weight: f64,
        /// Actions among which the critic chooses in walks without noise; 1 for the actor's alone.
        beam: usize,
        /// Standard deviation of those that are not the actor's.
        beam_sigma: f32,
        /// Share of the walks that the actor leaves to `planning`.
        planned_share: f64,
        /// How those are planned, from all walks of the task.
        planning: ValueOfErrorSettings,
    }
}

impl DdpgSettings {
    /// Every setting that is out of its range.
    pub(crate) fn out_of_range(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        ranges.count("hidden", self.hidden.len(), 1..=LAYERS_MAX);
        for (i, &units) in self.hidden.iter().enumerate().take(LAYERS_MAX) {
            ranges.count(&format!("hidden[{i}]"), units, 1..=UNITS_MAX);
        }
        ranges.number("warmup", self.warmup, 0.0..=0.95);
        ranges.positive("sigma", self.sigma, 1.0);
        match self.decay {
            SigmaDecay::PerWalk(factor) => ranges.positive("decay[0]", factor, 1.0),
            SigmaDecay::Until(last) => ranges.positive("decay[0]", last, 1.0),
        }
        ranges.count("replay_walks", self.replay_walks, 1..=100_000);
        ranges.count("batch", self.batch, 1..=4096);
        let (UpdateRule::PerStep(n) | UpdateRule::PerWalk(n)) = self.updates;
        ranges.count("updates[0]", n, 1..=1000);
        ranges.number("discount", self.discount, 0.0..=1.0);
        ranges.positive("target_rate", self.target_rate, 1.0);
        ranges.positive("actor_rate", self.actor_rate, 1.0);
        ranges.positive("critic_rate", self.critic_rate, 1.0);
        ranges.number("baseline_rate", self.baseline_rate, 0.0..=1.0);
        if let RewardScale::AboveMean(rate) = self.reward_scale {
            ranges.number("reward_scale[0]", rate, 0.0..=1.0);
        }
        ranges.count("imitated_walks", self.imitated_walks, 0..=1000);
        ranges.number("imitation_weight", self.imitation_weight, 0.0..=1e6);
        ranges.count("beam", self.beam, 1..=1024);
        ranges.positive("beam_sigma", self.beam_sigma, 1.0);
        ranges.number("planned_share", self.planned_share, 0.0..=1.0);
        self.planning.check_ranges("planning.", &mut ranges);
        ranges.finish()
    }

    /// How plans are to weigh errors, where plans are needed.
    pub(crate) fn plan_weights(&self) -> Option<ErrorWeights> {
        self.asks_for_plans().then_some(self.planning.weights)
    }

    /// The same, nearly all walks that explore being planned.
    pub(crate) fn assisted(&self) -> Self {
        Self { planned_share: self.planned_share.max(ASSISTED_SHARE), ..self.clone() }
    }

    /// Whether the plans of the tasks are needed.
    fn asks_for_plans(&self) -> bool {
        let asks = self.action == ActionRule::AroundKnapsack || self.observe == ObserveRule::Errors;
        asks || self.planned_share > 0.0
    }

    /// The settings of a profile, for AMC.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Paper => Self::paper(),
            Profile::Tuned => Self::tuned(),
        }
    }

    fn paper() -> Self {
        Self {
            profile: Profile::Paper,
            hidden: vec![300, 300],
            action: ActionRule::KeepRatio,
            observe: ObserveRule::Shapes,
            sees_place: false,
            warmup: 0.25,
            sigma: 0.5,
            decay: SigmaDecay::PerWalk(0.95),
            replay_walks: 100,
            skip_first_steps: false,
            stored: StoredAction::Chosen,
            batch: 64,
            updates: UpdateRule::PerStep(1),
            discount: 1.0,
            target_rate: 0.01,
            actor_rate: 1e-4,
            critic_rate: 1e-3,
            baseline_rate: 0.5,
            reward_scale: RewardScale::AsPaid,
            credit: CreditRule::Copied,
            imitated_walks: 0,
            imitation_weight: 0.0,
            beam: 1,
            beam_sigma: 0.05,
            planned_share: 0.0,
            planning: ValueOfErrorSettings::default(),
        }
    }

    fn tuned() -> Self {
        Self {
            profile: Profile::Tuned,
            hidden: vec![64, 64],
            action: ActionRule::AroundKnapsack,
            observe: ObserveRule::Shapes,
            sees_place: true,
            warmup: 0.1,
            sigma: 0.2,
            decay: SigmaDecay::Until(0.03),
            replay_walks: 1000,
            skip_first_steps: false,
            stored: StoredAction::Realised,
            batch: 64,
            updates: UpdateRule::PerWalk(1),
            discount: 1.0,
            target_rate: 0.01,
            actor_rate: 5e-3,
            critic_rate: 3e-3,
            baseline_rate: 0.0,
            reward_scale: RewardScale::Standardised,
            credit: CreditRule::Divided,
            imitated_walks: 4,
            imitation_weight: 30.0,
            beam: 1,
            beam_sigma: 0.05,
            planned_share: 0.0,
            planning: ValueOfErrorSettings::default(),
        }
    }
}
