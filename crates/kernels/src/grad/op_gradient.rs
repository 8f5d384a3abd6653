//! Gradients of the inputs of operations that neither are convolutions nor normalise a batch.

use secateur_net::{Pointwise, Shape, Window};

use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::grad::derivative::derivative;

/// The gradient of one input of an operation. What it reads besides the gradient `g` of the output stands with each.
#[derive(Debug)]
pub(crate) enum OpGradient {
    /// An element-wise function, from its input.
    Function(Pointwise),
    /// A rectifier with slopes for negative values by channel, from its input.
    Slopes,
    /// Values that were moved, or stood for several: of every output value, which input value it is.
    Moved(Vec<u32>),
    /// Products, from all factors: where the values of each come from, and which one's gradient it is.
    Product { sources: Vec<Vec<u32>>, of: usize },
    /// Maxima over windows, from input and output.
    MaxPool { window: Window, shapes: [Shape; 2] },
    /// Means over windows.
    AveragePool { window: Window, shapes: [Shape; 2] },
    /// Means over all pixels.
    GlobalAverage { input: Shape },
    /// Maxima over all pixels, from input and output.
    GlobalMax { input: Shape },
    /// Softmax over channels, from its output.
    Softmax { channels: usize },
}

/// A gradient that is being added up.
#[derive(Debug)]
pub(crate) struct GradientSum<'a> {
    /// Images of a group.
    pub lanes: usize,
    /// The gradient of one group's input.
    pub out: &'a mut [f32],
}

/// No value of the input.
pub(crate) const NOWHERE: u32 = u32::MAX;

impl OpGradient {
    /// Adds the gradient of one group's input to `out`. `read(0)` is `g`, the others are those named above, each
    /// `[H, W, C, LANES]`; `slopes` are those of a rectifier.
    pub(crate) fn add<'a>(&self, read: &dyn Fn(usize) -> &'a [f32], slopes: &[f32], to: GradientSum<'_>) {
        let g = read(0);
        let GradientSum { lanes, out } = to;
        match self {
            Self::Function(function) => {
                let pairs = g.iter().zip(read(1));
                out.iter_mut().zip(pairs).for_each(|(to, (g, &x))| *to += g * derivative(*function, x));
            }
            Self::Slopes => add_of_slopes([g, read(1)], slopes, lanes, out),
            Self::Moved(sources) => {
                for (&source, g) in sources.iter().zip(g.chunks_exact(lanes)).filter(|(source, _)| **source != NOWHERE)
                {
                    add_to(&mut out[source as usize * lanes..][..lanes], g);
                }
            }
            Self::Product { sources, of } => add_of_product(read, sources, *of, GradientSum { lanes, out }),
            Self::MaxPool { window, shapes } => {
                add_of_maxima([g, read(1), read(2)], window, shapes, GradientSum { lanes, out });
            }
            Self::AveragePool { window, shapes } => add_of_averages(g, window, shapes, GradientSum { lanes, out }),
            Self::GlobalAverage { input } => {
                let share = 1.0 / (input.h * input.w) as f32;
                for pixel in out.chunks_exact_mut(input.c * lanes) {
                    pixel.iter_mut().zip(g).for_each(|(to, g)| *to += share * g);
                }
            }
            Self::GlobalMax { input } => {
                let whole = Window::new([input.h, input.w], [1, 1], [0, 0]);
                let shapes = [*input, Shape { h: 1, w: 1, ..*input }];
                add_of_maxima([g, read(1), read(2)], &whole, &shapes, GradientSum { lanes, out });
            }
            Self::Softmax { channels } => add_of_softmax([g, read(1)], *channels, lanes, out),
        }
    }
}

/// Of every value of an operation's output, which value of input number `input` it is, where the operation only moves
/// values, adds (`others` is 0) or multiplies (1): found by running it on the values' numbers.
pub(crate) fn sources(kernel: &OpKernel, input: usize, others: f32) -> Vec<u32> {
    let lanes = kernel.lanes();
    // f32 holds whole numbers up to 2^24 exactly.
    let digits = [1usize << 12, 1].map(|unit| {
        let of_input = |i: usize, shape: &Shape| -> Vec<f32> {
            let value = |at: usize| if i == input { ((at + 1) / unit % (1 << 12)) as f32 } else { others };
            (0..shape.len()).flat_map(|at| std::iter::repeat_n(value(at), lanes)).collect()
        };
        let inputs: Vec<Vec<f32>> =
            kernel.in_shapes().iter().enumerate().map(|(i, shape)| of_input(i, shape)).collect();
        let mut out = vec![0.0; kernel.out_shape().len() * lanes];
        kernel.run(&|i| &inputs[i], Tail::default(), &mut out, &mut Scratch::new());
        out
    });
    let [high, low] = &digits;
    let numbers = high.iter().zip(low).step_by(lanes).map(|(&high, &low)| ((high as usize) << 12) + low as usize);
    numbers.map(|number| number.checked_sub(1).map_or(NOWHERE, |at| at as u32)).collect()
}

/// Adds to `gradient` that of slopes by channel, from the gradient of the rectifier's output and its input.
pub(crate) fn add_slope_gradient([g, x]: [&[f32]; 2], lanes: usize, gradient: &mut [f32]) {
    let n_channels = gradient.len();
    for (c, to) in gradient.iter_mut().enumerate() {
        let values = |of: &'_ [f32]| -> Vec<f64> {
            let pixels = of.chunks_exact(n_channels * lanes);
            pixels.flat_map(|pixel| &pixel[c * lanes..][..lanes]).map(|&v| f64::from(v)).collect()
        };
        *to += values(g).iter().zip(values(x)).filter(|(_, x)| *x <= 0.0).map(|(g, x)| g * x).sum::<f64>() as f32;
    }
}

fn add_to(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

fn add_of_slopes([g, x]: [&[f32]; 2], slopes: &[f32], lanes: usize, out: &mut [f32]) {
    for (at, ((to, g), x)) in
        out.chunks_exact_mut(lanes).zip(g.chunks_exact(lanes)).zip(x.chunks_exact(lanes)).enumerate()
    {
        let slope = slopes[at % slopes.len()];
        for ((to, g), &x) in to.iter_mut().zip(g).zip(x) {
            *to += if x > 0.0 { *g } else { slope * g };
        }
    }
}

fn add_of_product<'a>(
    read: &dyn Fn(usize) -> &'a [f32],
    sources: &[Vec<u32>],
    of: usize,
    GradientSum { lanes, out }: GradientSum<'_>,
) {
    for (at, g) in read(0).chunks_exact(lanes).enumerate() {
        let to = &mut out[sources[of][at] as usize * lanes..][..lanes];
        for lane in 0..lanes {
            let others = sources.iter().enumerate().filter(|(factor, _)| *factor != of);
            let product: f32 = others.map(|(i, from)| read(1 + i)[from[at] as usize * lanes + lane]).product();
            to[lane] += g[lane] * product;
        }
    }
}

/// Of equal values in a window the first is the maximum, as in PyTorch.
fn add_of_maxima(
    [g, x, y]: [&[f32]; 3],
    window: &Window,
    [input, output]: &[Shape; 2],
    GradientSum { lanes, out }: GradientSum<'_>,
) {
    let pixel_len = input.c * lanes;
    for at in 0..output.h * output.w {
        let [row, column] = [at / output.w, at % output.w];
        let columns = window.inside(1, column, input.w);
        let pixels = window.inside(0, row, input.h).flat_map(|r| columns.clone().map(move |c| r * input.w + c));
        for i in 0..pixel_len {
            let value = y[at * pixel_len + i];
            if let Some(first) = pixels.clone().find(|pixel| x[pixel * pixel_len + i] == value) {
                out[first * pixel_len + i] += g[at * pixel_len + i];
            }
        }
    }
}

fn add_of_averages(
    g: &[f32],
    window: &Window,
    [input, output]: &[Shape; 2],
    GradientSum { lanes, out }: GradientSum<'_>,
) {
    let pixel_len = input.c * lanes;
    for (at, g) in g.chunks_exact(pixel_len).enumerate() {
        let [row, column] = [at / output.w, at % output.w];
        let share = 1.0 / (window.n_counted(0, row, input.h) * window.n_counted(1, column, input.w)) as f32;
        for r in window.inside(0, row, input.h) {
            for c in window.inside(1, column, input.w) {
                let to = &mut out[(r * input.w + c) * pixel_len..][..pixel_len];
                to.iter_mut().zip(g).for_each(|(to, g)| *to += share * g);
            }
        }
    }
}

fn add_of_softmax([g, y]: [&[f32]; 2], channels: usize, lanes: usize, out: &mut [f32]) {
    let pixels = g.chunks_exact(channels * lanes).zip(y.chunks_exact(channels * lanes));
    for ((g, y), out) in pixels.zip(out.chunks_exact_mut(channels * lanes)) {
        for lane in 0..lanes {
            let places = || (lane..channels * lanes).step_by(lanes);
            let mean: f32 = places().map(|at| g[at] * y[at]).sum();
            places().for_each(|at| out[at] += y[at] * (g[at] - mean));
        }
    }
}
