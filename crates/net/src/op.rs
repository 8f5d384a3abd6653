//! What a node computes.

use std::borrow::Cow;

use serde::Serialize;

use crate::conv_transpose::ConvTranspose2d;
use crate::pointwise::Pointwise;
use crate::tap::Tap;
use crate::window::Window;

/// A 2-D convolution. Weight `<node>.weight` is `[out, in / groups, kh, kw]`, bias `<node>.bias` is `[out]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conv2d {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels (filters).
    pub out_channels: usize,
    /// Kernel rows and columns.
    pub kernel: [usize; 2],
    /// Step in rows and columns.
    pub stride: [usize; 2],
    /// Zero padding on each side, rows and columns.
    pub padding: [usize; 2],
    /// Spacing of kernel taps, rows and columns.
    pub dilation: [usize; 2],
    /// Convolution groups; `groups == in_channels` is depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv2d {
    /// A dense (`groups = 1`) square convolution without bias and dilation.
    pub const fn square(in_channels: usize, out_channels: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
            groups: 1,
            bias: false,
        }
    }
    /// Whether every input channel has filters of its own.
    pub const fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels && self.groups > 1
    }
}

/// What a node computes from its inputs. Parameters live in [`crate::Weights`] under `<node name>.<parameter>`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Op {
    /// The image; exactly one, node 0.
    Input,
    /// 2-D convolution.
    Conv2d(Conv2d),
    /// Per-channel normalisation with fixed statistics: `weight`, `bias`, `running_mean`, `running_var`, each
    /// `[channels]`.
    BatchNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// Fully connected: weight `[out, in]`, bias `[out]`. Its input must be flat (`h = w = 1`).
    Linear {
        /// Input features.
        in_features: usize,
        /// Output features.
        out_features: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// `x` from 0 on, below a slope of its channel times `x`: `weight` `[channels]`.
    PRelu {
        /// Channels.
        channels: usize,
    },
    /// Element-wise function.
    Pointwise(Pointwise),
    /// Sum of two or more tensors, at least one of which has the output's shape; each other one has as many channels,
    /// rows and columns or 1, which then counts for all.
    Add,
    /// Product of two or more tensors, of shapes as those of [`Op::Add`]: gates over pixels are `[c, 1, 1]`, gates over
    /// channels `[1, h, w]`.
    Mul,
    /// Channels of the inputs, one after the other.
    Concat,
    /// Maximum over windows.
    MaxPool(Window),
    /// Mean over windows.
    AvgPool(Window),
    /// Mean over all pixels of a channel; output `[c, 1, 1]`.
    GlobalAvgPool,
    /// `[c, h, w]` to `[c*h*w, 1, 1]`, channel-major as in PyTorch.
    Flatten,
    /// `[c, h, w]` to `[h*w*c, 1, 1]`, pixel-major as in networks that keep channels last.
    FlattenPixels,
    /// Channels seen as `[groups, c / groups]`, transposed: output channel `i * groups + g` is input channel
    /// `g * (c / groups) + i`.
    ChannelShuffle {
        /// Divides the channels.
        groups: usize,
    },
    /// `[c, h, w]` to `[c / block², h * block, w * block]`: every pixel becomes a block of them.
    DepthToSpace {
        /// Rows and columns of a block.
        block: usize,
        /// Whether the channels of one output channel lie side by side (PyTorch's pixel shuffle, ONNX's CRD), or those
        /// of one place in the block (ONNX's DCR).
        columns_rows_depth: bool,
    },
    /// Another number of rows and columns, each the mean of two of the input's, weighed: nearest and linear
    /// interpolation.
    Resize {
        /// Of every output row.
        rows: Vec<Tap>,
        /// Of every output column.
        cols: Vec<Tap>,
    },
    /// Normalises the channels of each pixel to mean 0 and variance 1, then scales and shifts: `weight`, `bias`, each
    /// `[channels]`.
    LayerNorm {
        /// Channels.
        channels: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// Maximum over all pixels of a channel; output `[c, 1, 1]`.
    GlobalMaxPool,
    /// Transposed 2-D convolution.
    ConvTranspose2d(ConvTranspose2d),
    /// A convolution along the channels of each pixel, the same for all: output channel `o` is the sum of `weight[i]`
    /// times channel `o + i - front`, zero where there is none, and `bias`. `weight` `[taps]`, `bias` `[1]`.
    ChannelConv {
        /// Channels that are summed.
        taps: usize,
        /// Zero channels in front; behind are `taps - 1 - front`, so that there are as many channels as before.
        front: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// Normalises groups of `channels / groups` channels, all their pixels together, to mean 0 and variance 1, then
    /// scales and shifts each channel: `weight`, `bias`, each `[channels]`. An instance norm has as many groups as
    /// channels.
    GroupNorm {
        /// Channels.
        channels: usize,
        /// Divides the channels.
        groups: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// Each value `x` becomes `x / (bias + alpha / size * s)^beta`, where `s` is the sum of squares of the same pixel's
    /// channels from `(size - 1) / 2` in front to `size / 2` behind, as in ONNX.
    LocalResponseNorm {
        /// Channels whose squares are summed.
        size: usize,
        /// Factor of the sum, before it is divided by `size`.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// Addend.
        bias: f32,
    },
    /// Largest of two or more tensors, of shapes as those of [`Op::Add`], value by value.
    Max,
    /// Smallest of two or more tensors, likewise.
    Min,
    /// Mean over the channels of a pixel; output `[1, h, w]`.
    ChannelMean,
    /// Largest channel of a pixel; output `[1, h, w]`.
    ChannelMax,
    /// Channels seen as `[branches, c / branches]`, summed over branches; output `[c / branches, h, w]`.
    BranchSum {
        /// Divides the channels.
        branches: usize,
    },
    /// Channels seen as `[branches, c / branches]`, softmax over branches.
    BranchSoftmax {
        /// Divides the channels.
        branches: usize,
    },
    /// Zero channels in front and behind, zero rows and columns around.
    Pad {
        /// Channels in front and behind.
        channels: [usize; 2],
        /// Rows above and below.
        rows: [usize; 2],
        /// Columns left and right.
        cols: [usize; 2],
    },
    /// Channels `channels[0]..channels[1]`, and every `step`-th row and column from 0.
    Slice {
        /// Channel range, end exclusive.
        channels: [usize; 2],
        /// Row and column step.
        step: [usize; 2],
    },
    /// Softmax over channels.
    Softmax,
    /// The input, unchanged (dropout at inference).
    Identity,
}

impl Op {
    /// The convolution that the operation is, a Linear layer being one of a single pixel; `None` for all others, which
    /// have no weights that are multiplied with several inputs.
    ///
    /// # Example
    /// ```
    /// use secateur_net::{Conv2d, Op};
    ///
    /// let linear = Op::Linear { in_features: 64, out_features: 10, bias: false };
    /// assert_eq!(linear.as_conv2d().as_deref(), Some(&Conv2d::square(64, 10, 1, 1, 0)));
    /// assert_eq!(Op::Add.as_conv2d(), None);
    /// ```
    pub fn as_conv2d(&self) -> Option<Cow<'_, Conv2d>> {
        match self {
            Self::Conv2d(conv) => Some(Cow::Borrowed(conv)),
            Self::Linear { in_features, out_features, bias } => {
                Some(Cow::Owned(Conv2d { bias: *bias, ..Conv2d::square(*in_features, *out_features, 1, 1, 0) }))
            }
            Self::Input
            | Self::BatchNorm { .. }
            | Self::PRelu { .. }
            | Self::Pointwise(_)
            | Self::Add
            | Self::Concat
            | Self::MaxPool(_)
            | Self::AvgPool(_)
            | Self::GlobalAvgPool
            | Self::Mul
            | Self::FlattenPixels
            | Self::ChannelShuffle { .. }
            | Self::DepthToSpace { .. }
            | Self::Resize { .. }
            | Self::LayerNorm { .. }
            | Self::GlobalMaxPool
            | Self::ConvTranspose2d(_)
            | Self::ChannelConv { .. }
            | Self::GroupNorm { .. }
            | Self::LocalResponseNorm { .. }
            | Self::Max
            | Self::Min
            | Self::ChannelMean
            | Self::ChannelMax
            | Self::BranchSum { .. }
            | Self::BranchSoftmax { .. }
            | Self::Flatten
            | Self::Pad { .. }
            | Self::Slice { .. }
            | Self::Softmax
            | Self::Identity => None,
        }
    }
    /// Short name for messages and listings.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Input => "Input",
            Self::Conv2d(_) => "Conv2d",
            Self::BatchNorm { .. } => "BatchNorm",
            Self::Linear { .. } => "Linear",
            Self::PRelu { .. } => "PRelu",
            Self::Pointwise(_) => "Pointwise",
            Self::Add => "Add",
            Self::Concat => "Concat",
            Self::MaxPool(_) => "MaxPool",
            Self::AvgPool(_) => "AvgPool",
            Self::GlobalAvgPool => "GlobalAvgPool",
            Self::Flatten => "Flatten",
            Self::Mul => "Mul",
            Self::FlattenPixels => "FlattenPixels",
            Self::ChannelShuffle { .. } => "ChannelShuffle",
            Self::DepthToSpace { .. } => "DepthToSpace",
            Self::Resize { .. } => "Resize",
            Self::LayerNorm { .. } => "LayerNorm",
            Self::GlobalMaxPool => "GlobalMaxPool",
            Self::ConvTranspose2d(_) => "ConvTranspose2d",
            Self::ChannelConv { .. } => "ChannelConv",
            Self::GroupNorm { .. } => "GroupNorm",
            Self::LocalResponseNorm { .. } => "LocalResponseNorm",
            Self::Max => "Max",
            Self::Min => "Min",
            Self::ChannelMean => "ChannelMean",
            Self::ChannelMax => "ChannelMax",
            Self::BranchSum { .. } => "BranchSum",
            Self::BranchSoftmax { .. } => "BranchSoftmax",
            Self::Pad { .. } => "Pad",
            Self::Slice { .. } => "Slice",
            Self::Softmax => "Softmax",
            Self::Identity => "Identity",
        }
    }
}
