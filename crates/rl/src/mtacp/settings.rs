//! The two profiles of MTACP.

use crate::optim::OptimizerRule;
use crate::squash::Squash;
use crate::vtrace::VtraceClip;

/// Which settings an agent runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// As published, with the released code's faults corrected.
    Paper,
    /// Whatever finds the best candidates in a few hundred walks.
    #[default]
    Tuned,
}

/// Where the standard deviation of the raw action comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnrollRule {
    /// The same number on every task; walks are cut and joined.
    Fixed(usize),
    /// One walk.
    Walk,
}

/// Imitation of the best walks seen so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImitationRule {
    /// Walks remembered per task.
    pub n_walks: usize,
    /// Weight of their negative log-likelihood.
    pub weight: f64,
}

/// Everything that tells one IMPALA-like agent from another.
#[derive(Clone, Debug, PartialEq)]
pub struct MtacpSettings {
    /// Units of the trunk.
    pub trunk: Vec<usize>,
    /// LSTM units.
    pub n_hidden: usize,
    /// If not 0, the network also sees the even ratio, and a table of (task, layer) times this is added to its
    /// mean: layers then need not be told apart by their features alone.
    pub table_gain: f64,
    /// Whether the first mean is 0.
    pub zero_mean: bool,
    /// From raw action to keep ratio.
    pub squash: Squash,
    /// Exploration.
    pub sigma: SigmaRule,
    /// Steps of an unroll.
    pub unroll: UnrollRule,
    /// Unrolls per learner call; 0 for one per actor.
    pub batch_size: usize,
    /// Gradient steps per batch, each with fresh V-trace returns.
    pub n_passes: usize,
    /// Discount inside a walk.
    pub discount: f64,
    /// Truncation of the importance weights.
    pub clip: VtraceClip,
    /// The optimiser.
    pub optimizer: OptimizerRule,
    /// Step size at the first walk.
    pub rate_first: f64,
    /// Step size at the last walk planned; linear in between.
    pub rate_last: f64,
    /// Bound on the gradient's norm.
    pub gradient_norm_max: f32,
    /// Weight of half the squared error of the value.
    pub value_weight: f64,
    /// Weight of the entropy, which is encouraged.
    pub entropy_weight: f64,
    /// Whether losses are means over steps (else sums).
    pub mean_losses: bool,
    /// Whether rewards are standardised per task, and advantages per batch.
    pub standardise: bool,
    /// Imitation of the best walks, if any.
    pub imitation: Option<ImitationRule>,
}

impl MtacpSettings {
    /// The settings of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Paper => Self::paper(),
            Profile::Tuned => Self::tuned(),
        }
    }

    fn paper() -> Self {
        Self {
            trunk: vec![100, 400, 300],
            n_hidden: 302,
            table_gain: 0.0,
            zero_mean: false,
            squash: Squash::Absolute,
            sigma: SigmaRule::Learned,
            unroll: UnrollRule::Fixed(60),
            batch_size: 4,
            n_passes: 1,
            discount: 0.99,
            clip: VtraceClip::default(),
            optimizer: OptimizerRule::MTACP,
            rate_first: 4.8e-4,
            rate_last: 0.0,
            gradient_norm_max: 40.0,
            value_weight: 0.5,
            entropy_weight: 0.01,
            mean_losses: false,
            standardise: false,
            imitation: None,
        }
    }

    fn tuned() -> Self {
        Self {
            trunk: vec![64, 64],
            n_hidden: 48,
            table_gain: 15.0,
            zero_mean: true,
            squash: Squash::AroundEven,
            sigma: SigmaRule::Annealed { first: 0.6, last: 0.2 },
            unroll: UnrollRule::Walk,
            batch_size: 0,
            n_passes: 4,
            discount: 1.0,
            clip: VtraceClip::default(),
            optimizer: OptimizerRule::ADAM,
            rate_first: 3e-3,
            rate_last: 1e-3,
            gradient_norm_max: 1.0,
            value_weight: 0.5,
            entropy_weight: 0.0,
            mean_losses: true,
            standardise: true,
            imitation: Some(ImitationRule { n_walks: 8, weight: 0.3 }),
        }
    }
}
