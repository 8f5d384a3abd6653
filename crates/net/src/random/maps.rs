//! Blocks with operations that move, repeat or weigh values.

use super::RandomNetworkBuilder;
use crate::{ConvTranspose2d, NodeId, Op, Pointwise, Shape, Tap};

impl RandomNetworkBuilder {
    /// One block of operations that [`super::random_graph`] leaves out.
    pub(super) fn map(&mut self, x: NodeId) -> NodeId {
        match self.rng.below(15) {
            0 => self.squeeze_and_excite(x),
            1 => self.gate_over_channels(x),
            2 => self.decomposed_silu(x),
            3 => self.shuffle(x),
            4 => self.pixel_shuffle(x),
            5 => self.product(x),
            6 => self.add_per_channel(x),
            7 => self.layer_norm(x),
            8 => self.resize(x),
            9 => self.transposed(x),
            10 => self.norm_over_channels(x),
            11 => self.extreme(x),
            12 => self.gate_over_pixels(x),
            _ => self.branches(x),
        }
    }

    /// A mean over pixels, two 1x1 convolutions and a sigmoid that weigh the channels.
    fn squeeze_and_excite(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let pool = if self.rng.below(3) == 0 { Op::GlobalMaxPool } else { Op::GlobalAvgPool };
        let pixel = Shape { h: 1, w: 1, ..s };
        let y = self.push(pool, &[x], pixel);
        let reduced = 1 + self.rng.below(5);
        let y = self.pointwise_conv(y, reduced);
        let y = self.push(Op::Pointwise(Pointwise::Relu), &[y], self.shapes[y]);
        let y = self.pointwise_conv(y, s.c);
        let gate = self.push(Op::Pointwise(Pointwise::Sigmoid), &[y], pixel);
        let inputs = if self.rng.below(2) == 0 { [x, gate] } else { [gate, x] };
        self.push(Op::Mul, &inputs, s)
    }
    fn gate_over_channels(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let y = self.pointwise_conv(x, 1);
        let gate = self.push(Op::Pointwise(Pointwise::Sigmoid), &[y], Shape { c: 1, ..s });
        self.push(Op::Mul, &[gate, x], s)
    }
    fn decomposed_silu(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let gate = self.push(Op::Pointwise(Pointwise::Sigmoid), &[x], s);
        self.push(Op::Mul, &[x, gate], s)
    }
    /// Three convolutions multiplied with each other.
    fn product(&mut self, x: NodeId) -> NodeId {
        let c = 1 + self.rng.below(8);
        let parts = [(); 3].map(|()| self.pointwise_conv(x, c));
        self.push(Op::Mul, &parts, self.shapes[parts[0]])
    }
    /// The mean of every channel added to it.
    fn add_per_channel(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let y = self.pointwise_conv(x, s.c);
        let mean = self.push(Op::GlobalAvgPool, &[x], Shape { h: 1, w: 1, ..s });
        self.push(Op::Add, &[mean, y], s)
    }
    fn shuffle(&mut self, x: NodeId) -> NodeId {
        let groups = self.rng.pick(&[2, 3]);
        let per_group = 1 + self.rng.below(4);
        let y = self.pointwise_conv(x, groups * per_group);
        let y = self.push(Op::ChannelShuffle { groups }, &[y], self.shapes[y]);
        self.norm_act(y)
    }
    fn pixel_shuffle(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let (block, n) = (self.rng.pick(&[2, 3]), 1 + self.rng.below(3));
        if s.h.max(s.w) > 16 {
            return self.conv(x);
        }
        let y = self.pointwise_conv(x, n * block * block);
        let op = Op::DepthToSpace { block, columns_rows_depth: self.rng.below(2) == 0 };
        self.push(op, &[y], Shape { c: n, h: block * s.h, w: block * s.w })
    }
    fn layer_norm(&mut self, x: NodeId) -> NodeId {
        let c = 1 + self.rng.below(8);
        let y = self.pointwise_conv(x, c);
        self.push(Op::LayerNorm { channels: c, eps: 1e-3 }, &[y], self.shapes[y])
    }
    fn resize(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let (h, w) = (1 + self.rng.below(14), 1 + self.rng.below(14));
        let is_nearest = self.rng.below(2) == 0;
        let mut taps = |n: usize, of: usize| -> Vec<Tap> {
            let mut tap = |_| match is_nearest {
                true => Tap::nearest(self.rng.below(of)),
                false => Tap { first: self.rng.below(of), second: self.rng.below(of), share: self.rng.signed().abs() },
            };
            (0..n).map(&mut tap).collect()
        };
        let (rows, cols) = (taps(h, s.h), taps(w, s.w));
        self.push(Op::Resize { rows, cols }, &[x], Shape { c: s.c, h, w })
    }
    /// A transposed convolution, dense, grouped or depthwise.
    fn transposed(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        if s.h.max(s.w) > 12 {
            return self.conv(x);
        }
        let (n_in, n_out, groups) = match self.rng.below(3) {
            0 => (1 + self.rng.below(6), 1 + self.rng.below(6), 1),
            1 => (4, 2 * (1 + self.rng.below(3)), 2),
            _ => (3, 3, 3),
        };
        let y = self.pointwise_conv(x, n_in);
        let (kernel, stride) = ([1 + self.rng.below(3), 2 + self.rng.below(2)], [1 + self.rng.below(3), 2]);
        let dilation = [1 + self.rng.below(2), 1];
        // ONNX Runtime refuses as much as a step.
        let output_padding = stride.map(|step| self.rng.below(step));
        // One pixel leaves at least the kernel's own rows and columns, of which less is cut off.
        let padding = kernel.map(|k| [self.rng.below(k), 0]);
        let bias = self.rng.below(2) == 0;
        let square = ConvTranspose2d::square(n_in, n_out, 1, 1, 0);
        let conv = ConvTranspose2d { kernel, stride, padding, output_padding, dilation, groups, bias, ..square };
        let shape = conv.over(self.shapes[y]).expect("less is cut off than there is");
        self.push(Op::ConvTranspose2d(conv), &[y], shape)
    }
    fn norm_over_channels(&mut self, x: NodeId) -> NodeId {
        let channels = 2 * (1 + self.rng.below(4));
        let y = self.pointwise_conv(x, channels);
        let op = match self.rng.below(4) {
            0 => Op::GroupNorm { channels, groups: 2, eps: 1e-2 },
            1 => Op::GroupNorm { channels, groups: channels, eps: 1e-2 },
            2 => Op::LocalResponseNorm { size: 1 + self.rng.below(5), alpha: 0.5, beta: 0.75, bias: 1.5 },
            _ => {
                let taps = 1 + self.rng.below(5);
                Op::ChannelConv { taps, front: self.rng.below(taps), bias: self.rng.below(2) == 0 }
            }
        };
        self.push(op, &[y], self.shapes[y])
    }
    /// The larger or smaller of two convolutions and one number for each channel.
    fn extreme(&mut self, x: NodeId) -> NodeId {
        let c = 1 + self.rng.below(8);
        let (y, z) = (self.pointwise_conv(x, c), self.pointwise_conv(x, c));
        let mean = self.push(Op::GlobalAvgPool, &[z], Shape { h: 1, w: 1, ..self.shapes[z] });
        let op = if self.rng.below(2) == 0 { Op::Max } else { Op::Min };
        self.push(op, &[y, mean, z], self.shapes[y])
    }
    /// Mean and maximum over channels, and a convolution of both that weighs pixels.
    fn gate_over_pixels(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let one = Shape { c: 1, ..s };
        let mean = self.push(Op::ChannelMean, &[x], one);
        let max = self.push(Op::ChannelMax, &[x], one);
        let both = self.push(Op::Concat, &[mean, max], Shape { c: 2, ..s });
        let y = self.pointwise_conv(both, 1);
        let gate = self.push(Op::Pointwise(Pointwise::Sigmoid), &[y], one);
        self.push(Op::Mul, &[x, gate], s)
    }
    /// Branches side by side, weighed by a softmax over branches and summed up.
    fn branches(&mut self, x: NodeId) -> NodeId {
        let (branches, n) = (2 + self.rng.below(2), 1 + self.rng.below(4));
        let y = self.pointwise_conv(x, branches * n);
        let s = self.shapes[y];
        let sum = self.push(Op::BranchSum { branches }, &[y], Shape { c: n, ..s });
        let mean = self.push(Op::GlobalAvgPool, &[sum], Shape { c: n, h: 1, w: 1 });
        let gate = self.pointwise_conv(mean, branches * n);
        let gate = self.push(Op::BranchSoftmax { branches }, &[gate], self.shapes[gate]);
        let weighed = self.push(Op::Mul, &[y, gate], s);
        self.push(Op::BranchSum { branches }, &[weighed], Shape { c: n, ..s })
    }
    /// As `head`, over the other flattenings.
    pub(super) fn mapped_head(&mut self, x: NodeId) {
        let s = self.shapes[x];
        let op = if self.rng.below(2) == 0 { Op::GlobalMaxPool } else { Op::FlattenPixels };
        let n = if op == Op::FlattenPixels { s.len() } else { s.c };
        let flat = self.push(op, &[x], Shape { c: n, h: 1, w: 1 });
        let out_features = 2 + self.rng.below(6);
        let linear = Op::Linear { in_features: n, out_features, bias: self.rng.below(2) == 0 };
        self.push(linear, &[flat], Shape { c: out_features, h: 1, w: 1 });
    }
    fn pointwise_conv(&mut self, x: NodeId, out_channels: usize) -> NodeId {
        let conv = crate::Conv2d { bias: true, ..crate::Conv2d::square(self.shapes[x].c, out_channels, 1, 1, 0) };
        self.push_conv(x, conv)
    }
}
