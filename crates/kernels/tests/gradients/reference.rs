//! A batch through a network in f64, in plain loops; BatchNorm normalises with the batch's statistics.

use std::collections::BTreeMap;

use secateur_net::{Conv2d, Network, Node, Op, Pointwise, Shape, Window};

/// A loss.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    SquaredError(&'a [f32]),
    /// Labels and label smoothing.
    CrossEntropy(&'a [u16], f64),
    /// Teacher and temperature.
    Divergence(&'a [f32], f64),
    /// Squared differences from a teacher's outputs, not a mean over them, and from its values on the way.
    Values(&'a TeacherValues),
}

/// What a teacher makes of the images.
pub struct TeacherValues {
    /// `[N, outputs]`
    pub outputs: Vec<f32>,
    /// Of nodes of the trained network: what is held against them, `[N, H, W, C]`.
    pub nodes: Vec<(usize, Vec<f32>)>,
}

/// A network, images and a loss.
pub struct Case<'a> {
    network: &'a Network,
    parameters: BTreeMap<String, Vec<f64>>,
    images: Vec<f64>,
    target: Target<'a>,
}

/// `[N, H, W, C]`
#[derive(Clone)]
struct Batch {
    n: usize,
    shape: Shape,
    values: Vec<f64>,
}

impl Batch {
    fn at(&self, [n, y, x, c]: [usize; 4]) -> f64 {
        self.values[((n * self.shape.h + y) * self.shape.w + x) * self.shape.c + c]
    }
    /// Zero outside.
    fn padded(&self, n: usize, [y, x]: [isize; 2], c: usize) -> f64 {
        let inside = (0..self.shape.h as isize).contains(&y) && (0..self.shape.w as isize).contains(&x);
        if inside { self.at([n, y as usize, x as usize, c]) } else { 0.0 }
    }
    /// One row, column or channel standing for all.
    fn spread(&self, [n, y, x, c]: [usize; 4]) -> f64 {
        let within = |at: usize, size: usize| if size == 1 { 0 } else { at };
        self.at([n, within(y, self.shape.h), within(x, self.shape.w), within(c, self.shape.c)])
    }
    fn fill(n: usize, shape: Shape, value: impl Fn([usize; 4]) -> f64) -> Self {
        let places = (0..n * shape.len())
            .map(|i| [i / shape.len(), i / shape.c / shape.w % shape.h, i / shape.c % shape.w, i % shape.c]);
        Self { n, shape, values: places.map(value).collect() }
    }
}

impl<'a> Case<'a> {
    pub fn new(network: &'a Network, images: &[f32], target: Target<'a>) -> Self {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let parameters = network.weights().iter().map(|(name, tensor)| (name.clone(), wide(tensor.data())));
        Self { network, parameters: parameters.collect(), images: wide(images), target }
    }

    /// Half the difference of the losses with a parameter a little larger and smaller, per unit.
    pub fn difference(&mut self, name: &str, at: usize) -> f64 {
        const H: f64 = 1e-6;
        let value = self.parameters[name][at];
        let mut loss_at = |value: f64| {
            self.parameters.get_mut(name).unwrap()[at] = value;
            self.loss()
        };
        let (above, below) = (loss_at(value + H), loss_at(value - H));
        loss_at(value);
        (above - below) / (2.0 * H)
    }

    pub fn loss(&self) -> f64 {
        let graph = self.network.graph();
        let n = self.images.len() / graph.input().len();
        let mut values = vec![Batch { n, shape: graph.input(), values: self.images.clone() }];
        let is_softmax = |id: usize| id == graph.output() && matches!(graph.node(id).op, Op::Softmax);
        for (id, node) in graph.nodes().iter().enumerate().skip(1).filter(|(id, _)| !is_softmax(*id)) {
            let inputs: Vec<&Batch> = node.inputs.iter().map(|&i| &values[i]).collect();
            let out = self.run(node, &inputs, graph.shape(id));
            values.push(out);
        }
        let outputs = values.last().unwrap();
        let rows = outputs.values.chunks_exact(outputs.shape.len()).enumerate();
        let of_outputs = rows.map(|(image, row)| self.loss_of(image, row)).sum::<f64>() / n as f64;
        let Target::Values(teacher) = self.target else { return of_outputs };
        let of_node = |(node, targets): &(usize, Vec<f32>)| {
            let len = values[*node].shape.len();
            let images = values[*node].values.chunks_exact(len).zip(targets.chunks_exact(len));
            let of_image = |(y, t): (&[f64], &[f32])| {
                let error: f64 = y.iter().zip(t).map(|(y, &t)| (y - f64::from(t)).powi(2)).sum();
                error / t.iter().map(|&t| f64::from(t).powi(2)).sum::<f64>()
            };
            images.map(of_image).sum::<f64>() / n as f64
        };
        of_outputs + teacher.nodes.iter().map(of_node).sum::<f64>()
    }

    fn loss_of(&self, image: usize, outputs: &[f64]) -> f64 {
        let k = outputs.len();
        let softmax = |values: Vec<f64>| -> Vec<f64> {
            let sum: f64 = values.iter().map(|x| x.exp()).sum();
            values.iter().map(|x| x.exp() / sum).collect()
        };
        match self.target {
            Target::SquaredError(targets) => {
                let pairs = outputs.iter().zip(&targets[image * k..]);
                pairs.map(|(y, &t)| (y - f64::from(t)).powi(2)).sum::<f64>() / k as f64
            }
            Target::Values(TeacherValues { outputs: targets, .. }) => {
                outputs.iter().zip(&targets[image * k..]).map(|(y, &t)| (y - f64::from(t)).powi(2)).sum()
            }
            Target::CrossEntropy(labels, smoothing) => {
                let p = softmax(outputs.to_vec());
                let of_label = -(1.0 - smoothing) * p[usize::from(labels[image])].ln();
                of_label - smoothing * p.iter().map(|p| p.ln()).sum::<f64>() / k as f64
            }
            Target::Divergence(teacher, t) => {
                let p = softmax(outputs.iter().map(|x| x / t).collect());
                let q = softmax(teacher[image * k..][..k].iter().map(|&x| f64::from(x) / t).collect());
                t * t * q.iter().zip(&p).map(|(q, p)| q * (q / p).ln()).sum::<f64>()
            }
        }
    }

    fn run(&self, node: &Node, inputs: &[&Batch], shape: Shape) -> Batch {
        let a = inputs[0];
        let parameter = |name: &str| &self.parameters[&format!("{}.{name}", node.name)][..];
        let fill = |value: &dyn Fn([usize; 4]) -> f64| Batch::fill(a.n, shape, value);
        match &node.op {
            Op::Conv2d(conv) => {
                let bias = conv.bias.then(|| parameter("bias"));
                fill(&|at| convolved(conv, a, parameter("weight"), at) + bias.map_or(0.0, |b| b[at[3]]))
            }
            Op::Linear { in_features, bias, .. } => {
                let bias = bias.then(|| parameter("bias"));
                fill(&|[n, _, _, o]| {
                    let row = &parameter("weight")[o * in_features..][..*in_features];
                    let sum: f64 = row.iter().enumerate().map(|(i, w)| w * a.at([n, 0, 0, i])).sum();
                    sum + bias.map_or(0.0, |b| b[o])
                })
            }
            Op::BatchNorm { eps, .. } => normalised(a, [parameter("weight"), parameter("bias")], f64::from(*eps)),
            Op::PRelu { .. } => {
                fill(&|at| if a.at(at) > 0.0 { a.at(at) } else { parameter("weight")[at[3]] * a.at(at) })
            }
            Op::Pointwise(function) => fill(&|at| apply(*function, a.at(at))),
            Op::Add => fill(&|at| inputs.iter().map(|x| x.spread(at)).sum()),
            Op::Mul => fill(&|at| inputs.iter().map(|x| x.spread(at)).product()),
            Op::Concat => fill(&|[n, y, x, c]| {
                let (mut c, mut inputs) = (c, inputs.iter());
                loop {
                    let input = inputs.next().unwrap();
                    if c < input.shape.c {
                        return input.at([n, y, x, c]);
                    }
                    c -= input.shape.c;
                }
            }),
            Op::MaxPool(window) => fill(&|at| pixels(window, a, at).fold(f64::NEG_INFINITY, f64::max)),
            Op::AvgPool(window) => fill(&|at| {
                let counted = window.n_counted(0, at[1], a.shape.h) * window.n_counted(1, at[2], a.shape.w);
                pixels(window, a, at).sum::<f64>() / counted as f64
            }),
            Op::GlobalAvgPool | Op::GlobalMaxPool => {
                let whole = Window::new([a.shape.h, a.shape.w], [1, 1], [0, 0]);
                let is_max = matches!(node.op, Op::GlobalMaxPool);
                let mean = |at| pixels(&whole, a, at).sum::<f64>() / (a.shape.h * a.shape.w) as f64;
                fill(&|at| if is_max { pixels(&whole, a, at).fold(f64::NEG_INFINITY, f64::max) } else { mean(at) })
            }
            Op::Flatten => fill(&|[n, _, _, i]| {
                let pixels = a.shape.h * a.shape.w;
                a.at([n, i % pixels / a.shape.w, i % a.shape.w, i / pixels])
            }),
            Op::FlattenPixels => Batch { shape, ..a.clone() },
            Op::Identity => a.clone(),
            Op::ChannelShuffle { groups } => {
                fill(&|[n, y, x, c]| a.at([n, y, x, c % groups * (a.shape.c / groups) + c / groups]))
            }
            Op::DepthToSpace { block, columns_rows_depth } => fill(&|[n, y, x, c]| {
                let place = y % block * block + x % block;
                let from = if *columns_rows_depth { c * block * block + place } else { place * shape.c + c };
                a.at([n, y / block, x / block, from])
            }),
            Op::Pad { channels, rows, cols } => fill(&|[n, y, x, c]| {
                let place = [y as isize - rows[0] as isize, x as isize - cols[0] as isize];
                c.checked_sub(channels[0]).filter(|&c| c < a.shape.c).map_or(0.0, |c| a.padded(n, place, c))
            }),
            Op::Slice { channels, step } => fill(&|[n, y, x, c]| a.at([n, y * step[0], x * step[1], channels[0] + c])),
            Op::Softmax => fill(&|[n, y, x, c]| {
                let sum: f64 = (0..shape.c).map(|i| a.at([n, y, x, i]).exp()).sum();
                a.at([n, y, x, c]).exp() / sum
            }),
            op => panic!("{} has no reference here", op.name()),
        }
    }
}

fn convolved(conv: &Conv2d, a: &Batch, weight: &[f64], [n, y, x, o]: [usize; 4]) -> f64 {
    let (in_group, out_group) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
    let [kh, kw] = conv.kernel;
    let place = |axis: usize, at: usize, tap: usize| {
        (at * conv.stride[axis] + tap * conv.dilation[axis]) as isize - conv.padding[axis] as isize
    };
    let mut sum = 0.0;
    for (i, tap) in (0..in_group).flat_map(|i| (0..kh * kw).map(move |tap| (i, tap))) {
        let pixel = [place(0, y, tap / kw), place(1, x, tap % kw)];
        sum += weight[(o * in_group + i) * kh * kw + tap] * a.padded(n, pixel, o / out_group * in_group + i);
    }
    sum
}

fn normalised(a: &Batch, [gamma, beta]: [&[f64]; 2], eps: f64) -> Batch {
    let channel = |c: usize| a.values.iter().skip(c).step_by(a.shape.c);
    let count = (a.n * a.shape.h * a.shape.w) as f64;
    let statistics = (0..a.shape.c).map(|c| {
        let mean = channel(c).sum::<f64>() / count;
        (mean, channel(c).map(|x| (x - mean).powi(2)).sum::<f64>() / count)
    });
    let statistics: Vec<(f64, f64)> = statistics.collect();
    Batch::fill(a.n, a.shape, |at| {
        let (mean, variance) = statistics[at[3]];
        (a.at(at) - mean) / (variance + eps).sqrt() * gamma[at[3]] + beta[at[3]]
    })
}

fn pixels<'a>(window: &Window, a: &'a Batch, [n, y, x, c]: [usize; 4]) -> impl Iterator<Item = f64> + 'a {
    let columns = window.inside(1, x, a.shape.w);
    let rows = window.inside(0, y, a.shape.h);
    rows.flat_map(move |row| columns.clone().map(move |column| a.at([n, row, column, c])))
}

/// In f64, so that differences mean something.
fn apply(function: Pointwise, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match function {
        Pointwise::Relu => x.max(0.0),
        Pointwise::Relu6 => x.clamp(0.0, 6.0),
        Pointwise::Sigmoid => sigmoid(x),
        Pointwise::Tanh => x.tanh(),
        Pointwise::Silu => x * sigmoid(x),
        Pointwise::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Pointwise::LeakyRelu { slope } => {
            if x < 0.0 {
                f64::from(slope) * x
            } else {
                x
            }
        }
        Pointwise::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        Pointwise::Affine { scale, shift } => f64::from(scale) * x + f64::from(shift),
        Pointwise::Clip { min, max } => x.clamp(f64::from(min), f64::from(max)),
        Pointwise::Gelu { tanh: true } => {
            0.5 * x * (1.0 + (std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Pointwise::Elu { alpha } => {
            if x < 0.0 {
                f64::from(alpha) * x.exp_m1()
            } else {
                x
            }
        }
        Pointwise::Softplus => x.exp().ln_1p(),
        Pointwise::Mish => x * x.exp().ln_1p().tanh(),
        Pointwise::Exp => x.exp(),
        Pointwise::Sqrt => x.sqrt(),
        Pointwise::Abs => x.abs(),
        Pointwise::Neg => -x,
        Pointwise::Log => x.ln(),
        Pointwise::Reciprocal => x.recip(),
        Pointwise::Gelu { tanh: false } | Pointwise::Erf => panic!("checked where derivatives are"),
    }
}
