//! Why channels may not be removed.

/// Why a channel may not be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Frozen {
    Input,
    Stream,
    Softmax,
    LayerNorm,
    GroupNorm,
    LocalResponseNorm,
    ChannelConv,
    ChannelReduction,
    Broadcast,
    Output,
    Constant,
}

impl Frozen {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Input => "network input",
            Self::Stream => "residual stream frozen by protocol `inner`",
            Self::Softmax => "channels coupled by Softmax",
            Self::LayerNorm => "channels coupled by LayerNorm",
            Self::GroupNorm => "channels coupled by GroupNorm",
            Self::LocalResponseNorm => "channels coupled by LocalResponseNorm",
            Self::ChannelConv => "channels coupled by ChannelConv",
            Self::ChannelReduction => "channels reduced to one by ChannelMean or ChannelMax",
            Self::Broadcast => "one channel that is added to or multiplied with many",
            Self::Output => "network output",
            Self::Constant => "zero channels without a producer",
        }
    }
}
