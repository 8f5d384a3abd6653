//! One operation, ready to run: the common form that the fused plan and the node-by-node path are made of.

use secateur_net::{Graph, NodeId, Op, Pointwise, Shape, Weights, Window};

use crate::KernelError;
use crate::aligned::AlignedVec;
use crate::conv::{ConvKernel, Epilogue};
use crate::depthwise::DepthwiseKernel;
use crate::elementwise;
use crate::layout;
use crate::pool::{self, Pooling};
use crate::simd::Isa;

/// Working memory of the kernels, reusable for any operation of any network; grows as needed and never shrinks.
#[derive(Debug, Default)]
pub struct Scratch {
    padded: AlignedVec,
}

impl Scratch {
    /// Empty working memory.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What follows an operation before its output is final: `activation(output + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail<'a> {
    /// Added to the output, same layout.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Option<Pointwise>,
}

/// An operation with its parameters prepared for one instruction set and its shapes fixed.
#[derive(Clone, Debug)]
pub struct OpKernel {
    work: Work,
    in_shapes: Vec<Shape>,
    out_shape: Shape,
}

#[derive(Clone, Debug)]
enum Work {
    Conv(Box<ConvKernel>),
    Depthwise(Box<DepthwiseKernel>),
    ScaleShift { scale: Vec<f32>, shift: Vec<f32> },
    Activate(Pointwise),
    Add,
    Concat,
    Pool(Pooling, Window),
    GlobalAverage,
    Flatten,
    Pad { channels: [usize; 2], rows: [usize; 2], cols: [usize; 2] },
    Slice { channels: [usize; 2], step: [usize; 2] },
    Softmax,
    Copy,
}

impl OpKernel {
    /// Prepares node `id` for up to `batch` images at a time.
    ///
    /// # Errors
    /// A missing or misshapen parameter, or a padded input that is too large.
    pub fn new(graph: &Graph, weights: &Weights, id: NodeId, isa: Isa, batch: usize) -> Result<Self, KernelError> {
        let node = graph.node(id);
        let in_shapes: Vec<Shape> = node.inputs.iter().map(|&i| graph.shape(i)).collect();
        let shapes = [in_shapes.first().copied().unwrap_or(graph.input()), graph.shape(id)];
        let parameters = Parameters { node: &node.name, weights };
        let work = match &node.op {
            Op::Conv2d(_) | Op::Linear { .. } => linear_work(&parameters, &node.op, shapes, isa, batch)?,
            Op::BatchNorm { channels, eps } => scale_shift(&parameters, *channels, *eps)?,
            Op::Pointwise(function) => Work::Activate(*function),
            Op::Add => Work::Add,
            Op::Concat => Work::Concat,
            Op::MaxPool(window) => Work::Pool(Pooling::Max, window.clone()),
            Op::AvgPool(window) => Work::Pool(Pooling::Average, window.clone()),
            Op::GlobalAvgPool => Work::GlobalAverage,
            Op::Flatten => Work::Flatten,
            &Op::Pad { channels, rows, cols } => Work::Pad { channels, rows, cols },
            &Op::Slice { channels, step } => Work::Slice { channels, step },
            Op::Softmax => Work::Softmax,
            Op::Input | Op::Identity => Work::Copy,
        };
        Ok(Self { work, in_shapes, out_shape: graph.shape(id) })
    }

    /// Shapes of the inputs, one image each.
    pub fn in_shapes(&self) -> &[Shape] {
        &self.in_shapes
    }

    /// Shape of the output, one image.
    pub const fn out_shape(&self) -> Shape {
        self.out_shape
    }

    /// Computes `n` images. `input(i)` is the `i`-th input, `[n, H, W, C]`; `out` is `[n, H, W, C]` and wholly overwritten.
    pub fn run<'a>(
        &self,
        input: &dyn Fn(usize) -> &'a [f32],
        n: usize,
        tail: Tail,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let clamp = tail.activation.and_then(elementwise::clamp_bounds);
        let epilogue = Epilogue { residual: tail.residual, clamp: clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]) };
        let fused = match &self.work {
            Work::Conv(kernel) => {
                kernel.run(input(0), n, epilogue, out, &mut scratch.padded);
                true
            }
            Work::Depthwise(kernel) => {
                kernel.run(input(0), n, epilogue, out, &mut scratch.padded);
                true
            }
            _ => {
                self.run_unfused(input, out);
                tail.residual.into_iter().for_each(|r| elementwise::add_to(out, r));
                false
            }
        };
        if let Some(function) = tail.activation.filter(|_| !(fused && clamp.is_some())) {
            elementwise::activate_all(function, out);
        }
    }

    fn run_unfused<'a>(&self, input: &dyn Fn(usize) -> &'a [f32], out: &mut [f32]) {
        match &self.work {
            Work::Add => {
                out.copy_from_slice(input(0));
                (1..self.in_shapes.len()).for_each(|i| elementwise::add_to(out, input(i)));
            }
            Work::Concat => {
                let mut at = 0;
                for (i, shape) in self.in_shapes.iter().enumerate() {
                    layout::copy_channels(input(i), shape.c, at, self.out_shape.c, out);
                    at += shape.c;
                }
            }
            _ => {
                let shape = self.in_shapes.first().copied().unwrap_or(self.out_shape);
                let images = input(0).chunks_exact(shape.len()).zip(out.chunks_exact_mut(self.out_shape.len()));
                images.for_each(|(x, out)| self.run_image(x, shape, out));
            }
        }
    }

    fn run_image(&self, x: &[f32], shape: Shape, out: &mut [f32]) {
        match &self.work {
            Work::ScaleShift { scale, shift } => elementwise::scale_shift(x, scale, shift, out),
            Work::Activate(function) => {
                out.copy_from_slice(x);
                elementwise::activate_all(*function, out);
            }
            Work::Pool(kind, window) => pool::pool(*kind, window, x, shape, self.out_shape, out),
            Work::GlobalAverage => pool::global_average(x, shape, out),
            Work::Flatten => layout::flatten(x, shape, out),
            Work::Pad { channels, rows, cols } => layout::pad(x, shape, *channels, *rows, *cols, out),
            Work::Slice { channels, step } => layout::slice(x, shape, *channels, *step, out),
            Work::Softmax => elementwise::softmax(x, shape.c, out),
            Work::Copy => out.copy_from_slice(x),
            Work::Conv(_) | Work::Depthwise(_) | Work::Add | Work::Concat => unreachable!("run above"),
        }
    }
}

/// Looks up and checks the parameters of one node.
struct Parameters<'a> {
    node: &'a str,
    weights: &'a Weights,
}

impl<'a> Parameters<'a> {
    fn get(&self, parameter: &str, expected: usize) -> Result<&'a [f32], KernelError> {
        let name = format!("{}.{parameter}", self.node);
        match self.weights.get(&name).map(|t| t.data()) {
            Some(data) if data.len() == expected => Ok(data),
            found => Err(KernelError::Parameter { name, expected, got: found.map(<[f32]>::len) }),
        }
    }
}

fn linear_work(
    parameters: &Parameters,
    op: &Op,
    shapes: [Shape; 2],
    isa: Isa,
    batch: usize,
) -> Result<Work, KernelError> {
    let conv = match op {
        Op::Conv2d(conv) => conv.clone(),
        Op::Linear { in_features, out_features, bias } => {
            secateur_net::Conv2d { bias: *bias, ..secateur_net::Conv2d::square(*in_features, *out_features, 1, 1, 0) }
        }
        _ => unreachable!("called for convolutions and linear layers only"),
    };
    let n_weights = conv.out_channels * (conv.in_channels / conv.groups) * conv.kernel[0] * conv.kernel[1];
    let weight = parameters.get("weight", n_weights)?;
    let bias = if conv.bias { Some(parameters.get("bias", conv.out_channels)?) } else { None };
    let context = (parameters.node, isa, batch);
    Ok(if conv.is_depthwise() && conv.out_channels == conv.in_channels {
        Work::Depthwise(Box::new(DepthwiseKernel::new(context, &conv, shapes, weight, bias)?))
    } else {
        Work::Conv(Box::new(ConvKernel::new(context, &conv, shapes, weight, bias)?))
    })
}

fn scale_shift(parameters: &Parameters, channels: usize, eps: f32) -> Result<Work, KernelError> {
    let [weight, bias, mean, var] =
        ["weight", "bias", "running_mean", "running_var"].map(|name| parameters.get(name, channels));
    let (weight, bias, mean, var) = (weight?, bias?, mean?, var?);
    let scale: Vec<f64> =
        weight.iter().zip(var).map(|(&w, &v)| f64::from(w) / (f64::from(v) + f64::from(eps)).sqrt()).collect();
    let shift =
        bias.iter().zip(mean).zip(&scale).map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32).collect();
    Ok(Work::ScaleShift { scale: scale.iter().map(|&s| s as f32).collect(), shift })
}
