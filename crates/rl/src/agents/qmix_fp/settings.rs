//! The settings of the team and their two profiles.

use serde::{Deserialize, Serialize};

use super::super::mtacp::ObserveRule;
use crate::agent::Profile;
use crate::optim::OptimizerRule;
use crate::setting::{BadSetting, RangeCheck, profiled_settings};

/// Most units of a layer.
const UNITS_MAX: usize = 1024;
/// Largest of other numbers: far beyond use.
const NUMBER_MAX: f64 = 1e6;
/// A joint action is kept as one number for each agent, which an f32 must hold exactly.
const SEQUENCES_MAX: f64 = 16_777_216.0;

/// How the values of the agents make one of the team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueMixing {
    /// A network that rises with each of them, its weights made of the joint state (Rashid and others 2018).
    Qmix,
    /// Their sum (value decomposition networks; Sunehag and others 2018).
    Vdn,
    /// None: each agent learns the team's reward as if it were alone.
    Independent,
}

/// How the joint action comes within the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BudgetRule {
    /// As everywhere: the environment cuts what is over, in layer order.
    Wall,
    /// The joint action of most value within the budget is taken.
    Knapsack,
}

/// What an agent chooses from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TeamActions {
    /// Shares of the channels that the group still has, to be removed; the first removes none.
    Removals(Vec<f64>),
    /// So many widths, spread over the group's error curve in equal steps of its logarithm, with the knapsack's width
    /// among them.
    Levels(usize),
}

/// What the team is paid.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum TeamReward {
    /// The score, at the last iteration, and so much for what each iteration saves of the network's cost.
    Savings(f64),
    /// The score alone.
    Score,
}

/// When the networks that targets are computed with become those that are learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum TargetRule {
    /// Every so many episodes.
    Copied(u64),
    /// By this share at each gradient step.
    Soft(f32),
}

/// How often agents do what they do not value most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exploration {
    /// Chance that an agent explores at the first walk.
    pub first: f64,
    /// From `share` of the walks on; linear in between.
    pub last: f64,
    /// Share of the planned walks.
    pub share: f64,
    /// An agent that explores moves by at most so many actions; 0: to any available one.
    pub near: usize,
    /// Walks of each task, from the first, that explore around the knapsack's widths; the very first keeps them. With
    /// [`TeamActions::Levels`] only.
    pub around_knapsack: u64,
    /// Share of the walks behind those that explore around the best episode of the task so far.
    pub around_best: f64,
    /// Where a walk explores around something: actions that the agents that do not explore may move by, to what the
    /// team then values most within the budget.
    pub reach: usize,
    /// Joint actions drawn for a walk as long as they were taken before.
    pub proposals: usize,
}

profiled_settings! {
    /// Everything that tells one team of Q-learning agents from another.
    pub struct QmixFpSettings {
        /// How the values of the agents make one of the team.
        mixing: ValueMixing,
        /// How the joint action comes within the budget.
        budget: BudgetRule,
        /// What an agent chooses from.
        actions: TeamActions,
        /// Pruning iterations of an episode.
        iterations: usize,
        /// If not 0, values begin as minus so many times the weighted error of the action's width, as a share of the
        /// knapsack's, and agents learn what is to be added; the factor is learned, too.
        prior: f64,
        /// What is observed of a group.
        observe: ObserveRule,
        /// Units of the agents' layer before the recurrent one.
        units: usize,
        /// Recurrent units (GRU) of the agents; 0 for none.
        gru_units: usize,
        /// Units of the mixing network.
        mixer_units: usize,
        /// Units of the hypernetworks' hidden layers.
        hyper_units: usize,
        /// What the team is paid.
        team_reward: TeamReward,
        /// Whether scores are standardised per task.
        standardise: bool,
        /// How often agents do what they do not value most.
        exploration: Exploration,
        /// Discount between iterations.
        discount: f64,
        /// The optimiser.
        optimizer: OptimizerRule,
        /// Step size.
        learning_rate: f64,
        /// Bound on the gradient's norm.
        gradient_norm_max: f32,
        /// Episodes that are remembered.
        replay: usize,
        /// Episodes of a gradient step; there is none as long as fewer are remembered.
        batch: usize,
        /// Gradient steps for each episode.
        steps_per_walk: usize,
        /// When the target networks follow.
        targets: TargetRule,
    }
}

impl QmixFpSettings {
    /// Actions of an agent.
    pub(super) fn n_actions(&self) -> usize {
        match &self.actions {
            TeamActions::Removals(shares) => shares.len(),
            &TeamActions::Levels(n) => n,
        }
    }

    /// Every setting that is out of its range.
    pub(super) fn out_of_range(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        match &self.actions {
            TeamActions::Removals(shares) => {
                ranges.count("actions[0]", shares.len(), 2..=64);
                let rises = shares.first() == Some(&0.0) && shares.windows(2).all(|pair| pair[0] < pair[1]);
                if !rises || shares.iter().any(|share| !(0.0..1.0).contains(share)) {
                    ranges.add(BadSetting::new("actions[0]", shares, "0.0 and then rising shares below 1"));
                }
            }
            &TeamActions::Levels(n) => ranges.count("actions[0]", n, 3..=64),
        }
        ranges.count("iterations", self.iterations, 1..=24);
        let n_sequences = libm::pow(self.n_actions() as f64, self.iterations as f64);
        if n_sequences > SEQUENCES_MAX {
            let expected = format!("so few that {} actions make at most 2^24 sequences", self.n_actions());
            ranges.add(BadSetting::new("iterations", self.iterations, &expected));
        }
        ranges.number("prior", self.prior, 0.0..=NUMBER_MAX);
        ranges.count("units", self.units, 1..=UNITS_MAX);
        ranges.count("gru_units", self.gru_units, 0..=UNITS_MAX);
        ranges.count("mixer_units", self.mixer_units, 1..=UNITS_MAX);
        ranges.count("hyper_units", self.hyper_units, 1..=UNITS_MAX);
        if let TeamReward::Savings(weight) = self.team_reward {
            ranges.number("team_reward[0]", weight, 0.0..=NUMBER_MAX);
        }
        self.exploration.check(&mut ranges);
        ranges.number("discount", self.discount, 0.0..=1.0);
        self.optimizer.check(&mut ranges);
        ranges.positive("learning_rate", self.learning_rate, 1.0);
        ranges.positive("gradient_norm_max", self.gradient_norm_max, NUMBER_MAX);
        ranges.count("replay", self.replay, 1..=1_000_000);
        ranges.count("batch", self.batch, 1..=self.replay.max(1));
        ranges.count("steps_per_walk", self.steps_per_walk, 1..=1000);
        match self.targets {
            TargetRule::Copied(every) => ranges.count("targets[0]", every as usize, 1..=1_000_000),
            TargetRule::Soft(share) => ranges.positive("targets[0]", share, 1.0),
        }
        ranges.finish()
    }

    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Paper => Self::paper(),
            Profile::Tuned => Self::tuned(),
        }
    }

    fn paper() -> Self {
        Self {
            profile: Profile::Paper,
            mixing: ValueMixing::Qmix,
            budget: BudgetRule::Wall,
            actions: TeamActions::Removals(vec![0.0, 0.05, 0.1, 0.15, 0.2, 0.3]),
            iterations: 5,
            prior: 0.0,
            observe: ObserveRule::Shapes,
            units: 64,
            gru_units: 64,
            mixer_units: 32,
            hyper_units: 64,
            team_reward: TeamReward::Savings(0.1),
            standardise: false,
            exploration: Exploration {
                first: 1.0,
                last: 0.05,
                share: 0.6,
                near: 0,
                around_knapsack: 0,
                around_best: 0.0,
                reach: 0,
                proposals: 1,
            },
            discount: 0.99,
            optimizer: OptimizerRule::RmsProp { decay: 0.99, eps: 1e-5, momentum: 0.0 },
            learning_rate: 5e-4,
            gradient_norm_max: 10.0,
            replay: 5000,
            batch: 32,
            steps_per_walk: 1,
            targets: TargetRule::Copied(200),
        }
    }

    fn tuned() -> Self {
        Self {
            profile: Profile::Tuned,
            mixing: ValueMixing::Qmix,
            budget: BudgetRule::Knapsack,
            actions: TeamActions::Levels(24),
            iterations: 1,
            prior: 3.0,
            observe: ObserveRule::Errors,
            units: 64,
            gru_units: 0,
            mixer_units: 32,
            hyper_units: 64,
            team_reward: TeamReward::Score,
            standardise: true,
            exploration: Exploration {
                first: 0.5,
                last: 0.1,
                share: 0.6,
                near: 3,
                around_knapsack: 4,
                around_best: 0.8,
                reach: 2,
                proposals: 16,
            },
            discount: 1.0,
            optimizer: OptimizerRule::ADAM,
            learning_rate: 1e-3,
            gradient_norm_max: 10.0,
            replay: 5000,
            batch: 16,
            steps_per_walk: 4,
            targets: TargetRule::Soft(0.01),
        }
    }
}

impl Exploration {
    fn check(&self, ranges: &mut RangeCheck) {
        ranges.number("exploration.first", self.first, 0.0..=1.0);
        ranges.number("exploration.last", self.last, 0.0..=1.0);
        ranges.number("exploration.share", self.share, 0.0..=1.0);
        ranges.count("exploration.near", self.near, 0..=64);
        ranges.number("exploration.around_best", self.around_best, 0.0..=1.0);
        ranges.count("exploration.reach", self.reach, 0..=64);
        ranges.count("exploration.proposals", self.proposals, 1..=1000);
    }

    /// Chance that an agent explores when so great a share of the planned walks is done.
    pub(super) fn chance(&self, done: f64) -> f64 {
        let way = if self.share > 0.0 { (done / self.share).min(1.0) } else { 1.0 };
        self.first + way * (self.last - self.first)
    }
}
