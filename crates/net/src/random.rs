//! Random valid networks with random weights, for property tests here and in crates and plugins built on this one.

mod catalogue;
mod maps;

pub use catalogue::{CataloguedNetwork, catalogue};

use crate::{
    Conv2d, Graph, GraphBuilder, Network, NodeId, Op, Pointwise, Shape, Tensor, Weights, Window, parameter_shapes,
};

/// SplitMix64 (Steele et al. 2014): enough to vary test networks, and the same everywhere.
#[derive(Clone, Debug)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// Next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }
    /// Uniform in [-1, 1).
    pub fn signed(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A random small graph with convolutions of every kind, residual and option-A shortcuts, Concat, pooling, functions of
/// many kinds, Flatten and Linear.
///
/// # Panics
/// Never: what it builds is valid by construction.
pub fn random_graph(seed: u64) -> Graph {
    let mut b = RandomNetworkBuilder::new(seed);
    let mut x = b.conv(0);
    for _ in 0..3 + b.rng.below(6) {
        x = match b.rng.below(10) {
            0 | 1 => b.conv(x),
            2 => b.depthwise(x),
            3 => b.grouped(x),
            4 => b.residual(x),
            5 => b.option_a(x),
            6 => b.concat(x),
            7 => b.pool(x),
            _ => b.norm_act(x),
        };
    }
    b.head(x);
    b.g.finish().expect("a random graph is valid by construction")
}

/// As [`random_graph`], with gates, shuffles, resizing and the other operations that it leaves out as well.
///
/// # Panics
/// Never: what it builds is valid by construction.
pub fn random_graph_of_every_operation(seed: u64) -> Graph {
    let mut b = RandomNetworkBuilder::new(seed);
    let mut x = b.conv(0);
    for _ in 0..2 + b.rng.below(5) {
        x = match b.rng.below(4) {
            0 => b.conv(x),
            1 => b.residual(x),
            _ => b.map(x),
        };
    }
    b.mapped_head(x);
    b.g.finish().expect("a random graph is valid by construction")
}

/// [`random_graph_of_every_operation`] with random weights.
///
/// # Panics
/// Never: what it builds is valid by construction.
pub fn random_network_of_every_operation(seed: u64) -> Network {
    with_random_weights(random_graph_of_every_operation(seed), seed)
}

/// [`random_graph`] with random weights, its sums kept near unit size.
///
/// # Panics
/// Never: what it builds is valid by construction.
pub fn random_network(seed: u64) -> Network {
    with_random_weights(random_graph(seed), seed)
}

/// Random weights for any graph, scaled by fan-in; BatchNorm variances positive.
///
/// # Panics
/// Never: each parameter gets its operation's shape.
pub fn with_random_weights(graph: Graph, seed: u64) -> Network {
    let mut rng = SplitMix(seed ^ 0x5eca_7e42);
    let mut weights = Weights::new();
    for node in graph.nodes() {
        for (parameter, shape) in parameter_shapes(&node.op) {
            let n: usize = shape.iter().product();
            let fan_in = shape[1..].iter().product::<usize>().max(1) as f32;
            let draw = |_| match parameter {
                "weight" if matches!(node.op, Op::PRelu { .. }) => 0.25 + 0.2 * rng.signed(),
                "running_var" => 1.0 + 0.5 * rng.signed(),
                "weight" if shape.len() == 1 => 1.0 + 0.3 * rng.signed(),
                "weight" => 1.7 * rng.signed() / fan_in.sqrt(),
                _ => 0.2 * rng.signed(),
            };
            let tensor = Tensor::new(shape.clone(), (0..n).map(draw).collect()).expect("n is the shape's product");
            weights.insert(format!("{}.{parameter}", node.name), tensor);
        }
    }
    Network::new(graph, weights).expect("every parameter has its operation's shape")
}

struct RandomNetworkBuilder {
    g: GraphBuilder,
    shapes: Vec<Shape>,
    rng: SplitMix,
    /// Draws what does not change any shape.
    variants: SplitMix,
}

impl RandomNetworkBuilder {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix(seed);
        let input = Shape { c: 1 + rng.below(4), h: 5 + rng.below(8), w: 5 + rng.below(8) };
        let variants = SplitMix(seed ^ 0x7a71_a275);
        Self { g: GraphBuilder::new(input), shapes: vec![input], rng, variants }
    }
    fn push(&mut self, op: Op, inputs: &[NodeId], shape: Shape) -> NodeId {
        let name = format!("{}{}", op.name().to_lowercase(), self.shapes.len());
        self.shapes.push(shape);
        self.g.push(name, op, inputs)
    }
    fn push_conv(&mut self, x: NodeId, conv: Conv2d) -> NodeId {
        let s = self.shapes[x];
        let out = |n: usize, i: usize| {
            (n + 2 * conv.padding[i] - conv.dilation[i] * (conv.kernel[i] - 1) - 1) / conv.stride[i] + 1
        };
        let shape = Shape { c: conv.out_channels, h: out(s.h, 0), w: out(s.w, 1) };
        self.push(Op::Conv2d(conv), &[x], shape)
    }
    /// A kernel of 1, 3 or 5 that fits, padded to keep the size at stride 1.
    fn random_conv(&mut self, in_channels: usize, out_channels: usize, stride: usize) -> Conv2d {
        let kernel = self.rng.pick(&[1, 3, 3, 5]);
        let dilation = if kernel == 3 { self.rng.pick(&[1, 1, 2]) } else { 1 };
        let padding = dilation * (kernel - 1) / 2;
        let bias = self.rng.below(2) == 0;
        Conv2d { dilation: [dilation; 2], bias, ..Conv2d::square(in_channels, out_channels, kernel, stride, padding) }
    }
    fn conv(&mut self, x: NodeId) -> NodeId {
        let (out, stride) = (1 + self.rng.below(12), self.rng.pick(&[1, 1, 1, 2]));
        let conv = self.random_conv(self.shapes[x].c, out, stride);
        let y = self.push_conv(x, conv);
        self.norm_act(y)
    }
    fn depthwise(&mut self, x: NodeId) -> NodeId {
        let (c, multiplier) = (self.shapes[x].c, self.rng.pick(&[1, 1, 2]));
        let conv = self.random_conv(c, c * multiplier, 1);
        self.push_conv(x, Conv2d { groups: c, ..conv })
    }
    fn grouped(&mut self, x: NodeId) -> NodeId {
        let even = 2 * (1 + self.rng.below(4));
        let conv = self.random_conv(self.shapes[x].c, even, 1);
        let y = self.push_conv(x, conv);
        let out = 2 * (1 + self.rng.below(5));
        let conv = self.random_conv(even, out, 1);
        self.push_conv(y, Conv2d { groups: 2, ..conv })
    }
    fn residual(&mut self, x: NodeId) -> NodeId {
        let c = self.shapes[x].c;
        let inner = 1 + self.rng.below(10);
        let conv = self.random_conv(c, inner, 1);
        let y = self.push_conv(x, conv);
        let y = self.norm_act(y);
        let conv = self.random_conv(inner, c, 1);
        let y = self.push_conv(y, conv);
        let sum = self.push(Op::Add, &[y, x], self.shapes[x]);
        self.push(Op::Pointwise(Pointwise::Relu), &[sum], self.shapes[x])
    }
    fn option_a(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let out = s.c + 1 + self.rng.below(6);
        let conv = self.random_conv(s.c, out, 2);
        let y = self.push_conv(x, conv);
        let half = Shape { c: s.c, h: s.h.div_ceil(2), w: s.w.div_ceil(2) };
        let shortcut = self.push(Op::Slice { channels: [0, s.c], step: [2, 2] }, &[x], half);
        let front = self.rng.below(out - s.c + 1);
        let pad = Op::Pad { channels: [front, out - s.c - front], rows: [0; 2], cols: [0; 2] };
        let whole = Shape { c: out, ..half };
        let shortcut = self.push(pad, &[shortcut], whole);
        self.push(Op::Add, &[y, shortcut], whole)
    }
    fn concat(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let out = 1 + self.rng.below(6);
        let conv = self.random_conv(s.c, out, 1);
        let y = self.push_conv(x, conv);
        let z = self.push(Op::Concat, &[x, y], Shape { c: s.c + out, ..s });
        self.norm_act(z)
    }
    fn pool(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        if s.h < 4 || s.w < 4 {
            return self.conv(x);
        }
        let (kernel, padding) = self.rng.pick(&[(2, 0), (3, 1)]);
        let window = self.variant_of_window(Window::new([kernel; 2], [2; 2], [padding; 2]));
        let size = |n: usize| (n + 2 * padding - kernel) / 2 + 1;
        let op = if self.rng.below(2) == 0 { Op::MaxPool(window) } else { Op::AvgPool(window) };
        self.push(op, &[x], Shape { c: s.c, h: size(s.h), w: size(s.w) })
    }
    /// A window with as many places: the same padding, shared out otherwise, or not counted.
    fn variant_of_window(&mut self, window: Window) -> Window {
        let mut padding = window.padding;
        for [before, behind] in &mut padding {
            let moved = self.variants.below(*before + 1);
            (*before, *behind) = (*before - moved, *behind + moved);
        }
        Window { padding, counts_padding: self.variants.below(2) == 0, ..window }
    }
    /// A function or slopes per channel, none of which makes values much larger.
    fn variant_of_silu(&mut self, channels: usize) -> Op {
        let functions = [
            Pointwise::Silu,
            Pointwise::HardSwish,
            Pointwise::LeakyRelu { slope: 0.1 },
            Pointwise::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Pointwise::Clip { min: -1.0, max: 2.5 },
            Pointwise::Gelu { tanh: false },
            Pointwise::Elu { alpha: 1.0 },
            Pointwise::Mish,
        ];
        match self.variants.below(functions.len() + 1) {
            0 => Op::PRelu { channels },
            i => Op::Pointwise(functions[i - 1]),
        }
    }
    fn norm_act(&mut self, x: NodeId) -> NodeId {
        let s = self.shapes[x];
        let x = match self.rng.below(3) {
            0 => x,
            _ => self.push(Op::BatchNorm { channels: s.c, eps: 1e-5 }, &[x], s),
        };
        let act = self.rng.pick(&[Pointwise::Relu, Pointwise::Relu, Pointwise::Relu6, Pointwise::Silu]);
        let op = if act == Pointwise::Silu { self.variant_of_silu(s.c) } else { Op::Pointwise(act) };
        self.push(op, &[x], s)
    }
    fn head(&mut self, x: NodeId) {
        let s = self.shapes[x];
        let op = if self.rng.below(2) == 0 { Op::GlobalAvgPool } else { Op::Flatten };
        let n = if op == Op::Flatten { s.len() } else { s.c };
        let flat = self.push(op, &[x], Shape { c: n, h: 1, w: 1 });
        let out_features = 2 + self.rng.below(6);
        let linear = Op::Linear { in_features: n, out_features, bias: self.rng.below(2) == 0 };
        self.push(linear, &[flat], Shape { c: out_features, h: 1, w: 1 });
    }
}
