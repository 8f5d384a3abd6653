//! Criteria of selection: how important the channels of a group are.

use std::fmt;

use secateur_kernels::{Calibration, Norm, channel_norms};
use secateur_net::random::SplitMix;
use secateur_net::{ChannelGroups, GroupId, Network};

/// A group whose channels are to be ranked, and what is known of its network.
#[derive(Clone, Copy, Debug)]
pub struct RankedGroup<'a> {
    /// The network, BatchNorm folded.
    pub network: &'a Network,
    /// Its groups.
    pub groups: &'a ChannelGroups,
    /// The group.
    pub group: GroupId,
    /// Its place in the walk.
    pub place: usize,
    /// What the readers of every group make of the calibration images: their normal equations, and what each channel
    /// adds to the outputs of the wide ones.
    pub calibration: &'a Calibration,
    /// The calibration images `[N, H, W, C]`.
    pub images: &'a [f32],
}

impl RankedGroup<'_> {
    /// Channels of the group.
    pub fn n_channels(&self) -> usize {
        self.groups.group(self.group).n_channels
    }
}

/// How important each channel of a group is. Of a group, the least important channels go first; of equally important
/// ones, the last.
///
/// A plugin brings criteria by [`crate::PruningPlugin::criteria`], and a scene names one as `selection:
/// Custom("name")`.
/// ```
/// use secateur_sim::{Criterion, RankedGroup};
///
/// /// Keeps the first channels.
/// struct First;
///
/// impl Criterion for First {
///     fn name(&self) -> &str {
///         "first"
///     }
///     fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
///         Ok((0..of.n_channels()).map(|channel| -(channel as f64)).collect())
///     }
/// }
/// ```
pub trait Criterion: Send + Sync {
    /// What scenes name it by.
    fn name(&self) -> &str;

    /// Importance of every channel, `[n_channels]`: any numbers but NaN, of which only the order counts.
    ///
    /// # Errors
    /// Why the channels of this group cannot be ranked.
    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String>;
}

impl fmt::Debug for dyn Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Criterion({:?})", self.name())
    }
}

/// The norm of all weights that go with the channel.
pub(crate) struct GroupNorm(pub(crate) Norm);

impl Criterion for GroupNorm {
    fn name(&self) -> &str {
        match self.0 {
            Norm::L1 => "l1",
            Norm::L2 => "l2",
        }
    }
    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        Ok(channel_norms(of.network, of.groups, of.group, self.0))
    }
}

/// A shuffle from this seed and the place in the walk.
pub(crate) struct RandomOrder(pub(crate) u64);

impl Criterion for RandomOrder {
    fn name(&self) -> &str {
        "random"
    }
    fn importance(&self, of: &RankedGroup<'_>) -> Result<Vec<f64>, String> {
        let n = of.n_channels();
        let mut rng = SplitMix(self.0 ^ (of.place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
        let mut importance = vec![0.0; n];
        order.iter().enumerate().for_each(|(rank, &channel)| importance[channel] = rank as f64);
        Ok(importance)
    }
}
