//! The settings of MTACP and its two profiles.

use serde::{Deserialize, Serialize};

use crate::agent::Profile;
use crate::agents::value_of_error::ValueOfErrorSettings;
use crate::nn::squash::Squash;
use crate::optim::OptimizerRule;
use crate::returns::vtrace::VtraceClip;
use crate::setting::{BadSetting, RangeCheck, profiled_settings};

/// Most layers of the trunk, and units of one layer.
const LAYERS_MAX: usize = 8;
const UNITS_MAX: usize = 1024;
/// Largest standard deviation, loss weight, bound on a weight or norm: far beyond use, and its square is still finite
/// in f32.
const NUMBER_MAX: f64 = 1e6;

/// Where the standard deviation of the raw action comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum SigmaRule {
    /// sigma^2 = softplus of a head of the network.
    Learned,
    /// Falls geometrically from the first to the last walk planned.
    Annealed {
        /// At the first walk.
        first: f32,
        /// At the last walk.
        last: f32,
    },
}

/// Steps of an unroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnrollRule {
    /// The same number on every task; walks are cut and joined.
    Fixed(usize),
    /// One walk.
    Walk,
}

/// What gradient steps on a batch maximise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum PolicyObjective {
    /// Log-probabilities times V-trace advantages, which every pass computes anew (IMPALA).
    Vtrace,
    /// The smaller of ratio times advantage and clipped ratio times advantage (PPO; Schulman, Wolski, Dhariwal, Radford
    /// and Klimov 2017, equation 7). The ratio is that of the action's densities under the policy that learns and the
    /// one that acted; advantages come from the values that were stored when it acted, the same for every pass
    /// (equation 11, lambda is that of `clip`). Unrolls must be whole walks.
    Clipped {
        /// The ratio is clipped to 1 plus or minus this, epsilon.
        range: f64,
    },
}

/// Which widths an action of 0 stands for, with [`Squash::AroundEven`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartRule {
    /// The keep ratio that every group that is left can share.
    Even,
    /// The width of least weighted layer error, all shifted alike as far as earlier groups departed from theirs. The
    /// first walk of a task keeps just these.
    Knapsack,
}

/// What is observed of a group, beside what the simulation tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObserveRule {
    /// Nothing: its shape, and where the walk stands.
    Shapes,
    /// Its error curve, what its next width would bring, its width of least weighted error, and the price of the
    /// budget.
    Errors,
}

profiled_settings! {
    /// Everything that tells one IMPALA-like agent from another.
    pub struct MtacpSettings {
        /// Units of the trunk.
        trunk: Vec<usize>,
        /// LSTM units; 0 for no LSTM.
        lstm_units: usize,
        /// If not 0, the network also sees the even ratio, and a table of (task, layer) times this is added to its
        /// mean: layers then need not be told apart by their features alone.
        table_gain: f64,
        /// Whether the first mean is 0.
        zero_mean: bool,
        /// From raw action to keep ratio.
        squash: Squash,
        /// Where the search starts.
        start: StartRule,
        /// What is observed of a group.
        observe: ObserveRule,
        /// Exploration.
        sigma: SigmaRule,
        /// Steps of an unroll.
        unroll: UnrollRule,
        /// Unrolls per learner call; 0 for one per actor.
        batch_size: usize,
        /// Gradient steps per batch, each with fresh V-trace returns.
        passes: usize,
        /// Discount inside a walk.
        discount: f64,
        /// What is maximised.
        objective: PolicyObjective,
        /// Truncation of the importance weights, and lambda.
        clip: VtraceClip,
        /// The optimiser.
        optimizer: OptimizerRule,
        /// Step size at the first walk.
        learning_rate: f64,
        /// Share of `learning_rate` that is left at the last walk planned; linear in between.
        learning_rate_end: f64,
        /// Bound on the gradient's norm.
        gradient_norm_max: f32,
        /// Weight of half the squared error of the value.
        value_weight: f64,
        /// Weight of the entropy, which is encouraged.
        entropy_weight: f64,
        /// Whether losses are means over steps (else sums).
        mean_losses: bool,
        /// Whether rewards are standardised per task, and advantages per batch.
        standardise: bool,
        /// Best walks remembered per task, to be imitated; 0 for none.
        imitated_walks: usize,
        /// Weight of their negative log-likelihood.
        imitation_weight: f64,
        /// Share of the walks that the policy leaves to `planning`, and learns from by imitation alone.
        planned_share: f64,
        /// How those are planned, from all walks of the task that came whole.
        planning: ValueOfErrorSettings,
    }
}

impl MtacpSettings {
    /// Every setting that is out of its range.
    pub(super) fn out_of_range(&self) -> Vec<BadSetting> {
        let mut ranges = RangeCheck::default();
        if self.trunk.len() > LAYERS_MAX {
            ranges.count("trunk", self.trunk.len(), 0..=LAYERS_MAX);
        }
        for (i, &units) in self.trunk.iter().enumerate().take(LAYERS_MAX) {
            ranges.count(&format!("trunk[{i}]"), units, 1..=UNITS_MAX);
        }
        ranges.count("lstm_units", self.lstm_units, 0..=UNITS_MAX);
        ranges.number("table_gain", self.table_gain, 0.0..=NUMBER_MAX);
        if (self.start, self.squash) == (StartRule::Knapsack, Squash::Absolute) {
            let expected = "Even where `squash` is Absolute, which starts at the middle of the range";
            ranges.add(BadSetting::new("start", self.start, expected));
        }
        if let SigmaRule::Annealed { first, last } = self.sigma {
            ranges.positive("sigma.first", first, NUMBER_MAX);
            ranges.positive("sigma.last", last, NUMBER_MAX);
        }
        if let UnrollRule::Fixed(n_steps) = self.unroll {
            ranges.count("unroll[0]", n_steps, 1..=100_000);
        }
        if let PolicyObjective::Clipped { range } = self.objective {
            ranges.positive("objective.range", range, NUMBER_MAX);
            if self.unroll != UnrollRule::Walk {
                let expected = "Walk where `objective` is Clipped, whose advantages end with a walk";
                ranges.add(BadSetting::new("unroll", self.unroll, expected));
            }
        }
        ranges.count("batch_size", self.batch_size, 0..=65_536);
        ranges.count("passes", self.passes, 1..=1000);
        ranges.number("discount", self.discount, 0.0..=1.0);
        self.clip.check(&mut ranges);
        self.optimizer.check(&mut ranges);
        ranges.positive("learning_rate", self.learning_rate, 1.0);
        ranges.number("learning_rate_end", self.learning_rate_end, 0.0..=1.0);
        ranges.positive("gradient_norm_max", self.gradient_norm_max, NUMBER_MAX);
        ranges.number("value_weight", self.value_weight, 0.0..=NUMBER_MAX);
        ranges.number("entropy_weight", self.entropy_weight, 0.0..=NUMBER_MAX);
        ranges.count("imitated_walks", self.imitated_walks, 0..=10_000);
        ranges.number("imitation_weight", self.imitation_weight, 0.0..=NUMBER_MAX);
        ranges.number("planned_share", self.planned_share, 0.0..=1.0);
        self.planning.check_ranges("planning.", &mut ranges);
        ranges.finish()
    }

    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Paper => Self::paper(),
            Profile::Tuned => Self::tuned(),
        }
    }

    /// A profile without the LSTM and without what is done against sparse rewards: what Table III's ablations share.
    pub(crate) fn without_remedies(profile: Profile) -> Self {
        Self { lstm_units: 0, imitated_walks: 0, imitation_weight: 0.0, planned_share: 0.0, ..Self::of(profile) }
    }

    fn paper() -> Self {
        Self {
            profile: Profile::Paper,
            trunk: vec![100, 400, 300],
            lstm_units: 302,
            table_gain: 0.0,
            zero_mean: false,
            squash: Squash::Absolute,
            start: StartRule::Even,
            observe: ObserveRule::Shapes,
            sigma: SigmaRule::Learned,
            unroll: UnrollRule::Fixed(60),
            batch_size: 4,
            passes: 1,
            discount: 0.99,
            objective: PolicyObjective::Vtrace,
            clip: VtraceClip::default(),
            optimizer: OptimizerRule::MTACP,
            learning_rate: 4.8e-4,
            learning_rate_end: 0.0,
            gradient_norm_max: 40.0,
            value_weight: 0.5,
            entropy_weight: 0.01,
            mean_losses: false,
            standardise: false,
            imitated_walks: 0,
            imitation_weight: 0.0,
            planned_share: 0.0,
            planning: ValueOfErrorSettings::default(),
        }
    }

    fn tuned() -> Self {
        Self {
            profile: Profile::Tuned,
            trunk: vec![64, 64],
            lstm_units: 48,
            table_gain: 15.0,
            zero_mean: true,
            squash: Squash::AroundEven,
            start: StartRule::Knapsack,
            observe: ObserveRule::Shapes,
            sigma: SigmaRule::Annealed { first: 0.6, last: 0.2 },
            unroll: UnrollRule::Walk,
            batch_size: 0,
            passes: 4,
            discount: 1.0,
            objective: PolicyObjective::Vtrace,
            clip: VtraceClip::default(),
            optimizer: OptimizerRule::ADAM,
            learning_rate: 3e-3,
            learning_rate_end: 1.0 / 3.0,
            gradient_norm_max: 1.0,
            value_weight: 0.5,
            entropy_weight: 0.0,
            mean_losses: true,
            standardise: true,
            imitated_walks: 8,
            imitation_weight: 0.3,
            planned_share: 0.5,
            planning: ValueOfErrorSettings::default(),
        }
    }
}
