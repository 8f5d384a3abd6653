//! Blocks with operations that move, repeat or weigh values.

use super::RandomNetworkBuilder;
use crate::{NodeId, Op, Pointwise, Shape, Tap};

impl RandomNetworkBuilder {
    /// One block of operations that [`super::random_graph`] leaves out.
    pub(super) fn map(&mut self, x: NodeId) -> NodeId {
        match self.rng.below(9) {
            0 => self.squeeze_and_excite(x),
            1 => self.gate_over_channels(x),
            2 => self.decomposed_silu(x),
            3 => self.shuffle(x),
            4 => self.pixel_shuffle(x),
            5 => self.product(x),
            6 => self.add_per_channel(x),
            7 => self.layer_norm(x),
            _ => self.resize(x),
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
