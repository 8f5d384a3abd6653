//! The definition of every operation: plain loops, one value at a time, sums in f64. Slow, and what all other paths are
//! tested against.

use secateur_net::{Conv2d, ConvTranspose2d, Network, Node, Op, Shape, Tap, Window};

use crate::KernelError;
use crate::engine::elementwise::activate;

/// Outputs of all nodes for one image `[H, W, C]`, each `[H, W, C]`, by node index.
///
/// # Example
/// ```
/// use secateur_kernels::run_reference;
/// use secateur_net::{GraphBuilder, Network, Op, Shape, Weights};
///
/// let mut builder = GraphBuilder::new(Shape { c: 2, h: 1, w: 2 });
/// builder.push("mean", Op::GlobalAvgPool, &[0]);
/// let network = Network::new(builder.finish()?, Weights::new())?;
/// let outputs = run_reference(&network, &[1.0, 10.0, 3.0, 30.0])?;
/// assert_eq!(outputs[1], [2.0, 20.0]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When `image` does not have the length of the network's input.
pub fn run_reference(net: &Network, image: &[f32]) -> Result<Vec<Vec<f32>>, KernelError> {
    let graph = net.graph();
    if image.len() != graph.input().len() {
        let what = format!("image of shape {}", graph.input());
        return Err(KernelError::Length { what, expected: graph.input().len(), got: image.len() });
    }
    let mut values: Vec<Vec<f32>> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<Image> =
            node.inputs.iter().map(|&i| Image { shape: graph.shape(i), values: &values[i] }).collect();
        let out = if id == 0 { image.to_vec() } else { run_node(net, node, &inputs, graph.shape(id)) };
        values.push(out);
    }
    Ok(values)
}

struct Image<'a> {
    shape: Shape,
    values: &'a [f32],
}

impl Image<'_> {
    fn at(&self, y: usize, x: usize, c: usize) -> f32 {
        self.values[(y * self.shape.w + x) * self.shape.c + c]
    }
    /// As [`Self::at`], one row, column or channel standing for all.
    fn spread(&self, y: usize, x: usize, c: usize) -> f64 {
        let within = |at: usize, n: usize| if n == 1 { 0 } else { at };
        f64::from(self.at(within(y, self.shape.h), within(x, self.shape.w), within(c, self.shape.c)))
    }
    /// The pixel at `y - top`, `x - left`; `None` outside.
    fn inside(&self, y: usize, top: usize, x: usize, left: usize, c: usize) -> Option<f32> {
        let y = y.checked_sub(top).filter(|&y| y < self.shape.h)?;
        let x = x.checked_sub(left).filter(|&x| x < self.shape.w)?;
        Some(self.at(y, x, c))
    }
}

/// Evaluates `value(y, x, c)` for every output position, in memory order.
fn fill(shape: Shape, mut value: impl FnMut(usize, usize, usize) -> f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(shape.len());
    for y in 0..shape.h {
        for x in 0..shape.w {
            out.extend((0..shape.c).map(|c| value(y, x, c)));
        }
    }
    out
}

fn run_node(net: &Network, node: &Node, inputs: &[Image], out: Shape) -> Vec<f32> {
    let a = &inputs[0];
    let parameter = |name: &str| net.parameter(&node.name, name).data();
    match &node.op {
        Op::Conv2d(conv) => {
            let bias = conv.bias.then(|| parameter("bias"));
            convolve(conv, a, parameter("weight"), bias, out)
        }
        Op::Linear { in_features, bias, .. } => {
            let bias = bias.then(|| parameter("bias"));
            fill(out, |_, _, o| {
                let row = &parameter("weight")[o * in_features..(o + 1) * in_features];
                let products = row.iter().zip(a.values).map(|(&w, &x)| f64::from(w) * f64::from(x));
                (bias.map_or(0.0, |b| f64::from(b[o])) + products.sum::<f64>()) as f32
            })
        }
        Op::BatchNorm { eps, .. } => fill(out, |y, x, c| {
            let [w, b, mean, var] =
                ["weight", "bias", "running_mean", "running_var"].map(|n| f64::from(parameter(n)[c]));
            ((f64::from(a.at(y, x, c)) - mean) / (var + f64::from(*eps)).sqrt() * w + b) as f32
        }),
        Op::PRelu { .. } => fill(out, |y, x, c| {
            let value = a.at(y, x, c);
            if value < 0.0 { parameter("weight")[c] * value } else { value }
        }),
        Op::Pointwise(function) => fill(out, |y, x, c| activate(*function, a.at(y, x, c))),
        Op::Add => fill(out, |y, x, c| inputs.iter().map(|i| i.spread(y, x, c)).sum::<f64>() as f32),
        Op::Mul => fill(out, |y, x, c| inputs.iter().map(|i| i.spread(y, x, c)).product::<f64>() as f32),
        Op::LayerNorm { eps, .. } => fill(out, |y, x, c| {
            let values = || (0..a.shape.c).map(|i| f64::from(a.at(y, x, i)));
            let mean = values().sum::<f64>() / a.shape.c as f64;
            let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / a.shape.c as f64;
            let normalised = (f64::from(a.at(y, x, c)) - mean) / (variance + f64::from(*eps)).sqrt();
            (normalised * f64::from(parameter("weight")[c]) + f64::from(parameter("bias")[c])) as f32
        }),
        Op::GlobalMaxPool => fill(out, |_, _, c| {
            let larger = |m: f32, &v: &f32| if m.is_nan() || v <= m { m } else { v };
            a.values.iter().skip(c).step_by(a.shape.c).fold(f32::NEG_INFINITY, larger)
        }),
        Op::MaxPool(window) => fill(out, |y, x, c| {
            let larger = |m: f32, v: f32| if m.is_nan() || v <= m { m } else { v };
            taps(window, a, [y, x, c]).flatten().fold(f32::NEG_INFINITY, larger)
        }),
        Op::AvgPool(window) => fill(out, |y, x, c| {
            let sum: f64 = taps(window, a, [y, x, c]).map(|v| f64::from(v.unwrap_or(0.0))).sum();
            (sum / counted(window, a.shape, [y, x]) as f64) as f32
        }),
        Op::GlobalAvgPool => fill(out, |_, _, c| {
            let sum: f64 = a.values.iter().skip(c).step_by(a.shape.c).map(|&v| f64::from(v)).sum();
            (sum / (a.shape.h * a.shape.w) as f64) as f32
        }),
        Op::ChannelShuffle { .. } | Op::DepthToSpace { .. } | Op::Resize { .. } => rearrange(&node.op, a, out),
        Op::ConvTranspose2d(conv) => {
            transpose_convolve(conv, a, parameter("weight"), conv.bias.then(|| parameter("bias")), out)
        }
        Op::Max | Op::Min => fill(out, |y, x, c| {
            let values = inputs.iter().map(|i| i.spread(y, x, c) as f32);
            let wins = |v: f32, m: f32| if node.op == Op::Max { v > m } else { v < m };
            values.reduce(|m, v| if m.is_nan() || !(wins(v, m) || v.is_nan()) { m } else { v }).unwrap_or(f32::NAN)
        }),
        Op::ChannelConv { .. } | Op::ChannelMean | Op::ChannelMax | Op::BranchSum { .. } | Op::BranchSoftmax { .. } => {
            mix(&node.op, a, &parameter, out)
        }
        Op::GroupNorm { .. } | Op::LocalResponseNorm { .. } => normalise(&node.op, a, &parameter, out),
        Op::Input
        | Op::Concat
        | Op::Flatten
        | Op::FlattenPixels
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax
        | Op::Identity => move_values(&node.op, inputs, out),
    }
}

fn move_values(op: &Op, inputs: &[Image], out: Shape) -> Vec<f32> {
    let a = &inputs[0];
    match op {
        Op::Concat => fill(out, |y, x, c| {
            let mut c = c;
            let part = inputs.iter().find(|i| {
                let here = c < i.shape.c;
                c -= if here { 0 } else { i.shape.c };
                here
            });
            part.expect("output channels are those of the inputs").at(y, x, c)
        }),
        Op::Flatten => fill(out, |_, _, i| {
            let n_pixels = a.shape.h * a.shape.w;
            a.at(i % n_pixels / a.shape.w, i % a.shape.w, i / n_pixels)
        }),
        Op::FlattenPixels => fill(out, |_, _, i| {
            let pixel = i / a.shape.c;
            a.at(pixel / a.shape.w, pixel % a.shape.w, i % a.shape.c)
        }),
        Op::Pad { channels, rows, cols } => fill(out, |y, x, c| {
            let c = c.checked_sub(channels[0]).filter(|&c| c < a.shape.c);
            c.and_then(|c| a.inside(y, rows[0], x, cols[0], c)).unwrap_or(0.0)
        }),
        Op::Slice { channels, step } => fill(out, |y, x, c| a.at(y * step[0], x * step[1], channels[0] + c)),
        Op::Softmax => fill(out, |y, x, c| {
            // Relative to the largest, as PyTorch does: an infinite input makes all outputs NaN.
            let max = (0..a.shape.c).map(|i| a.at(y, x, i)).fold(f32::NEG_INFINITY, f32::max);
            let exp = |i: usize| (f64::from(a.at(y, x, i)) - f64::from(max)).exp();
            (exp(c) / (0..a.shape.c).map(exp).sum::<f64>()) as f32
        }),
        Op::Input | Op::Identity => a.values.to_vec(),
        Op::Conv2d(_)
        | Op::BatchNorm { .. }
        | Op::Linear { .. }
        | Op::PRelu { .. }
        | Op::Pointwise(_)
        | Op::Add
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::Mul
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::Resize { .. }
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::ConvTranspose2d(_)
        | Op::ChannelConv { .. }
        | Op::GroupNorm { .. }
        | Op::LocalResponseNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. } => unreachable!("computed by `run_node`"),
    }
}

/// Values in other places, or means of two by two.
fn rearrange(op: &Op, a: &Image, out: Shape) -> Vec<f32> {
    if let Op::ChannelShuffle { groups } = op {
        return fill(out, |y, x, c| a.at(y, x, c % groups * (a.shape.c / groups) + c / groups));
    }
    if let Op::DepthToSpace { block, columns_rows_depth } = op {
        return fill(out, |y, x, c| {
            let place = y % block * block + x % block;
            let from = if *columns_rows_depth { c * block * block + place } else { place * out.c + c };
            a.at(y / block, x / block, from)
        });
    }
    let Op::Resize { rows, cols } = op else { unreachable!("computed by `run_node`") };
    fill(out, |y, x, c| {
        let shares = |tap: &Tap| [(tap.first, 1.0 - f64::from(tap.share)), (tap.second, f64::from(tap.share))];
        let pairs = shares(&rows[y]).into_iter().flat_map(|row| shares(&cols[x]).map(|col| (row, col)));
        let used = pairs.filter(|(row, col)| row.1 * col.1 > 0.0);
        used.map(|(row, col)| row.1 * col.1 * f64::from(a.at(row.0, col.0, c))).sum::<f64>() as f32
    })
}

fn convolve(conv: &Conv2d, a: &Image, weight: &[f32], bias: Option<&[f32]>, out: Shape) -> Vec<f32> {
    let in_group = conv.in_channels / conv.groups;
    let out_group = conv.out_channels / conv.groups;
    let [kh, kw] = conv.kernel;
    fill(out, |y, x, o| {
        let mut sum = bias.map_or(0.0, |b| f64::from(b[o]));
        for i in 0..in_group {
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let (y, x) = (y * conv.stride[0] + ky * conv.dilation[0], x * conv.stride[1] + kx * conv.dilation[1]);
                let value = a.inside(y, conv.padding[0], x, conv.padding[1], o / out_group * in_group + i);
                let w = weight[((o * in_group + i) * kh + ky) * kw + kx];
                sum += f64::from(value.unwrap_or(0.0)) * f64::from(w);
            }
        }
        sum as f32
    })
}

/// Every input pixel adds its kernel to the output.
fn transpose_convolve(conv: &ConvTranspose2d, a: &Image, weight: &[f32], bias: Option<&[f32]>, out: Shape) -> Vec<f32> {
    let [_, per_group, kh, kw] = conv.weight_shape();
    let in_group = conv.in_channels / conv.groups;
    let mut sums: Vec<f64> = (0..out.len()).map(|i| bias.map_or(0.0, |b| f64::from(b[i % out.c]))).collect();
    let place = |at: usize, tap: usize, axis: usize, n: usize| {
        let at = at * conv.stride[axis] + tap * conv.dilation[axis];
        at.checked_sub(conv.padding[axis][0]).filter(|&at| at < n)
    };
    for (y, x) in (0..a.shape.h).flat_map(|y| (0..a.shape.w).map(move |x| (y, x))) {
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let Some((to_y, to_x)) = place(y, ky, 0, out.h).zip(place(x, kx, 1, out.w)) else { continue };
            for (i, o) in (0..a.shape.c).flat_map(|i| (0..per_group).map(move |o| (i, o))) {
                let w = weight[((i * per_group + o) * kh + ky) * kw + kx];
                let to = i / in_group * per_group + o;
                sums[(to_y * out.w + to_x) * out.c + to] += f64::from(a.at(y, x, i)) * f64::from(w);
            }
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// Operations over the channels of a pixel.
fn mix<'a>(op: &Op, a: &Image, parameter: &dyn Fn(&str) -> &'a [f32], out: Shape) -> Vec<f32> {
    let n = a.shape.c;
    if let Op::ChannelConv { taps, front, bias } = *op {
        return fill(out, |y, x, c| {
            let first = if bias { f64::from(parameter("bias")[0]) } else { 0.0 };
            let inside = (0..taps).filter(|i| (c + i).checked_sub(front).is_some_and(|from| from < n));
            let product = |i: usize| f64::from(parameter("weight")[i]) * f64::from(a.at(y, x, c + i - front));
            (first + inside.map(product).sum::<f64>()) as f32
        });
    }
    if let Op::BranchSum { branches } = op {
        return fill(out, |y, x, c| (0..*branches).map(|i| f64::from(a.at(y, x, i * out.c + c))).sum::<f64>() as f32);
    }
    if let Op::BranchSoftmax { branches } = op {
        return fill(out, |y, x, c| {
            let per_branch = n / branches;
            let others = || (0..*branches).map(|i| f64::from(a.at(y, x, i * per_branch + c % per_branch)));
            let max = others().fold(f64::NEG_INFINITY, f64::max);
            ((f64::from(a.at(y, x, c)) - max).exp() / others().map(|v| (v - max).exp()).sum::<f64>()) as f32
        });
    }
    fill(out, |y, x, _| {
        let values = (0..n).map(|c| a.at(y, x, c));
        if *op == Op::ChannelMean {
            return (values.map(f64::from).sum::<f64>() / n as f64) as f32;
        }
        values.fold(f32::NEG_INFINITY, |m, v| if m.is_nan() || v <= m { m } else { v })
    })
}

/// Norms over groups of channels, or over the channels near each.
fn normalise<'a>(op: &Op, a: &Image, parameter: &dyn Fn(&str) -> &'a [f32], out: Shape) -> Vec<f32> {
    let n = a.shape.c;
    if let Op::LocalResponseNorm { size, alpha, beta, bias } = *op {
        return fill(out, |y, x, c| {
            let value = |c: usize| f64::from(a.at(y, x, c));
            let near = (0..n).filter(|&i| i + (size - 1) / 2 >= c && i <= c + size / 2);
            let squares: f64 = near.map(|i| value(i).powi(2)).sum();
            let divisor = (f64::from(bias) + f64::from(alpha) / size as f64 * squares).powf(f64::from(beta));
            (value(c) / divisor) as f32
        });
    }
    let Op::GroupNorm { groups, eps, .. } = *op else { unreachable!("computed by `run_node`") };
    fill(out, |y, x, c| {
        let group = c / (n / groups);
        let all = || {
            let of_group = a.values.iter().enumerate().filter(|(i, _)| i % n / (n / groups) == group);
            of_group.map(|(_, &v)| f64::from(v))
        };
        let (sum, count) = all().fold((0.0, 0.0), |(sum, count), v| (sum + v, count + 1.0));
        let mean = sum / count;
        let variance = all().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let normalised = (f64::from(a.at(y, x, c)) - mean) / (variance + f64::from(eps)).sqrt();
        (normalised * f64::from(parameter("weight")[c]) + f64::from(parameter("bias")[c])) as f32
    })
}

/// The values of one window; `None` for padding.
fn taps<'a>(window: &'a Window, a: &'a Image, [y, x, c]: [usize; 3]) -> impl Iterator<Item = Option<f32>> + use<'a> {
    let [kh, kw] = window.kernel;
    let at = move |ky: usize, kx: usize| {
        let (y, x) = (y * window.stride[0] + ky, x * window.stride[1] + kx);
        a.inside(y, window.padding[0][0], x, window.padding[1][0], c)
    };
    (0..kh).flat_map(move |ky| (0..kw).map(move |kx| at(ky, kx)))
}

/// By how many pixels the average of one window is divided.
fn counted(window: &Window, image: Shape, at: [usize; 2]) -> usize {
    let counted = |axis: usize, size: usize| {
        let [before, behind] = window.padding[axis];
        let is_counted = |place: usize| {
            let is_pixel = place >= before && place < before + size;
            is_pixel || window.counts_padding && place < before + size + behind
        };
        let start = at[axis] * window.stride[axis];
        (start..start + window.kernel[axis]).filter(|&place| is_counted(place)).count()
    };
    counted(0, image.h) * counted(1, image.w)
}
