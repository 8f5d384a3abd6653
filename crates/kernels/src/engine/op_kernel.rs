//! One operation, ready to run: the common form that the fused plan and the node-by-node path are made of.

use std::ops::Range;

use secateur_net::{Conv2d, ConvTranspose2d, Graph, NodeId, Op, Pointwise, Shape, Tap, Weights, Window};

use crate::KernelError;
use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::depthwise::DepthwiseKernel;
use crate::engine::conv::direct::{ConvKernel, Epilogue};
use crate::engine::conv_way::ConvWay;
use crate::engine::elementwise;
use crate::engine::layout;
use crate::engine::maps::{self, Combination, Combine, GroupValue, LayerNorm};
use crate::engine::mixing::Mixing;
use crate::engine::parameters::{Linear, Parameters, channel_conv, group_norm, layer_norm};
use crate::engine::pool::{self, ImageRows, PoolRows, Pooling};
use crate::engine::transposed::TransposedKernel;
use crate::engine::winograd::geometry::TILE;
use crate::engine::winograd::tiles::{WinogradKernel, WinogradScratch};
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// Working memory of the kernels, reusable for any operation of any network; grows as needed and never shrinks.
#[derive(Debug, Default)]
pub struct Scratch {
    winograd: WinogradScratch,
    /// An image with zeros between its pixels.
    pub(super) spread: AlignedVec,
}

impl Scratch {
    /// Empty working memory.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What follows an operation before its output is final: `activation(output + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail<'a> {
    /// Added to the output, same layout.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Option<Pointwise>,
}

const UNBOUNDED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

impl<'a> Tail<'a> {
    /// The same as what a kernel does with its sums; `None` where the activation is more than a clamp.
    pub(crate) fn epilogue(&self) -> Option<Epilogue<'a>> {
        let clamp = self.activation.map_or(Some(UNBOUNDED), elementwise::clamp_bounds)?;
        Some(Epilogue { residual: self.residual, clamp })
    }
}

/// An operation with its parameters prepared for one instruction set and its shapes fixed. It works on a group of
/// images at a time, one to a lane: `[H, W, C, LANES]`.
#[derive(Clone, Debug)]
pub(crate) struct OpKernel {
    work: Form,
    in_shapes: Vec<Shape>,
    out_shape: Shape,
    lanes: usize,
    isa: Isa,
}

#[derive(Clone, Debug)]
enum Form {
    Conv(Box<ConvKernel>),
    Winograd(Box<WinogradKernel>),
    Depthwise(Box<DepthwiseKernel>),
    Transposed(Box<TransposedKernel>),
    Mix(Mixing),
    ScaleShift { scale: Vec<f32>, shift: Vec<f32> },
    Slopes(Vec<f32>),
    Activate(Pointwise),
    Add,
    Combine(Combination),
    Concat,
    Pool(Pooling, Window),
    GlobalAverage,
    Flatten,
    Pad { channels: [usize; 2], rows: [usize; 2], cols: [usize; 2] },
    Slice { channels: [usize; 2], step: [usize; 2] },
    Softmax,
    Shuffle(usize),
    DepthToSpace { block: usize, columns_rows_depth: bool },
    Resize { rows: Vec<Tap>, cols: Vec<Tap> },
    LayerNorm(LayerNorm),
    GlobalMax,
    Copy,
}

impl OpKernel {
    /// Prepares node `id`.
    ///
    /// # Errors
    /// A missing or misshapen parameter, or an output that is too large.
    pub(crate) fn new(graph: &Graph, weights: &Weights, id: NodeId, isa: Isa) -> Result<Self, KernelError> {
        Self::in_lanes(graph, weights, id, isa, isa.lanes())
    }

    /// Prepares node `id`, which is no convolution, for one image `[H, W, C]` at a time.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of_one_image(graph: &Graph, weights: &Weights, id: NodeId, isa: Isa) -> Result<Self, KernelError> {
        Self::in_lanes(graph, weights, id, isa, 1)
    }

    fn in_lanes(graph: &Graph, weights: &Weights, id: NodeId, isa: Isa, lanes: usize) -> Result<Self, KernelError> {
        let node = graph.node(id);
        let in_shapes: Vec<Shape> = node.inputs.iter().map(|&i| graph.shape(i)).collect();
        let shapes = [in_shapes.first().copied().unwrap_or(graph.input()), graph.shape(id)];
        check_size(&node.name, shapes[1])?;
        let parameters = Parameters { node: &node.name, weights };
        let work = match &node.op {
            Op::Conv2d(_) | Op::Linear { .. } => linear_work(graph, weights, id, shapes, isa)?,
            Op::BatchNorm { channels, eps } => scale_shift(&parameters, *channels, *eps, lanes)?,
            Op::PRelu { channels } => Form::Slopes(widened(parameters.get("weight", *channels)?, lanes)),
            Op::Pointwise(function) => Form::Activate(*function),
            Op::Add if in_shapes.iter().all(|&shape| shape == shapes[1]) => Form::Add,
            Op::Add => Form::Combine(Combination::Sum),
            Op::Mul => Form::Combine(Combination::Product),
            Op::Max => Form::Combine(Combination::Largest),
            Op::Min => Form::Combine(Combination::Smallest),
            Op::Concat => Form::Concat,
            Op::MaxPool(window) => Form::Pool(Pooling::Max, window.clone()),
            Op::AvgPool(window) => Form::Pool(Pooling::Average, window.clone()),
            Op::GlobalAvgPool => Form::GlobalAverage,
            Op::Flatten => Form::Flatten,
            &Op::Pad { channels, rows, cols } => Form::Pad { channels, rows, cols },
            &Op::Slice { channels, step } => Form::Slice { channels, step },
            Op::Softmax => Form::Softmax,
            &Op::ChannelShuffle { groups } => Form::Shuffle(groups),
            &Op::DepthToSpace { block, columns_rows_depth } => Form::DepthToSpace { block, columns_rows_depth },
            Op::Resize { rows, cols } => Form::Resize { rows: rows.clone(), cols: cols.clone() },
            &Op::LayerNorm { channels, eps } => Form::LayerNorm(layer_norm(&parameters, channels, eps)?),
            Op::GlobalMaxPool => Form::GlobalMax,
            Op::ConvTranspose2d(conv) => {
                let weight = parameters.get("weight", conv.weight_shape().iter().product())?;
                let bias = if conv.bias { Some(parameters.get("bias", conv.out_channels)?) } else { None };
                Form::Transposed(Box::new(TransposedKernel::new(isa, conv, shapes, weight, bias)))
            }
            &Op::ChannelConv { taps, front, bias } => Form::Mix(channel_conv(&parameters, taps, front, bias)?),
            &Op::GroupNorm { channels, groups, eps } => Form::Mix(group_norm(&parameters, channels, groups, eps)?),
            &Op::LocalResponseNorm { size, alpha, beta, bias } => Form::Mix(Mixing::LocalResponse {
                reach: [(size - 1) / 2, size / 2],
                factor: alpha / size as f32,
                beta,
                bias,
            }),
            Op::ChannelMean => Form::Mix(Mixing::Mean),
            Op::ChannelMax => Form::Mix(Mixing::Max),
            &Op::BranchSum { branches } => Form::Mix(Mixing::BranchSum(branches)),
            &Op::BranchSoftmax { branches } => Form::Mix(Mixing::BranchSoftmax(branches)),
            // Channels of a pixel lie side by side.
            Op::Input | Op::Identity | Op::FlattenPixels => Form::Copy,
        };
        Ok(Self { work, in_shapes, out_shape: graph.shape(id), lanes, isa })
    }

    /// A convolution with weights `[out, in / groups, kh, kw]` and bias `[out]`.
    pub(crate) fn convolution(
        isa: Isa,
        conv: &Conv2d,
        shapes: [Shape; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let work = convolution_work(isa, conv, shapes, weight, bias);
        Self { work, in_shapes: vec![shapes[0]], out_shape: shapes[1], lanes: isa.lanes(), isa }
    }

    /// Takes other parameters of the same shapes, and allocates nothing: a convolution's weight and bias, or slopes (as
    /// `weight`). Operations without parameters stay as they are.
    pub(crate) fn set_weights(&mut self, weight: &[f32], bias: Option<&[f32]>) {
        match &mut self.work {
            Form::Conv(kernel) => kernel.set_weights(weight, bias),
            Form::Winograd(kernel) => kernel.set_weights(weight, bias),
            Form::Depthwise(kernel) => kernel.set_weights(weight, bias),
            Form::Slopes(slopes) => {
                slopes.chunks_exact_mut(self.lanes).zip(weight).for_each(|(to, &slope)| to.fill(slope));
            }
            _ => {}
        }
    }

    /// A transposed convolution with weights `[in, out / groups, kh, kw]` and no bias.
    pub(crate) fn transposed(isa: Isa, conv: &ConvTranspose2d, shapes: [Shape; 2], weight: &[f32]) -> Self {
        let work = Form::Transposed(Box::new(TransposedKernel::new(isa, conv, shapes, weight, None)));
        Self { work, in_shapes: vec![shapes[0]], out_shape: shapes[1], lanes: isa.lanes(), isa }
    }

    /// The same on words that hold two channels each, where all that is done is to move whole words.
    pub(crate) fn on_pairs(&self) -> Option<Self> {
        let halves =
            |channels: [usize; 2]| channels.iter().all(|c| c.is_multiple_of(2)).then(|| channels.map(|c| c / 2));
        let half = |shape: &Shape| shape.c.is_multiple_of(2).then_some(Shape { c: shape.c / 2, ..*shape });
        let work = match self.work {
            Form::Copy => Form::Copy,
            Form::Concat => Form::Concat,
            Form::Pad { channels, rows, cols } => Form::Pad { channels: halves(channels)?, rows, cols },
            Form::Slice { channels, step } => Form::Slice { channels: halves(channels)?, step },
            _ => return None,
        };
        let in_shapes = self.in_shapes.iter().map(half).collect::<Option<_>>()?;
        Some(Self { work, in_shapes, out_shape: half(&self.out_shape)?, lanes: self.lanes, isa: self.isa })
    }

    /// The same on pixels with more channels, `[input(i), out]` with them, where all channels are treated alike, each
    /// on its own; `None` where they are not.
    pub(crate) fn on_whole_pixels(&self, input: impl Fn(usize) -> Shape, out: Shape) -> Option<Self> {
        let is_by_channel = match &self.work {
            Form::Activate(_)
            | Form::Add
            | Form::Combine(_)
            | Form::Pool(..)
            | Form::GlobalAverage
            | Form::GlobalMax
            | Form::Resize { .. } => true,
            &Form::Pad { channels, .. } => channels == [0, 0],
            Form::Copy => self.in_shapes.first() == Some(&self.out_shape),
            _ => false,
        };
        let in_shapes: Vec<Shape> = (0..self.in_shapes.len()).map(input).collect();
        let is_same =
            in_shapes.iter().all(|shape| shape.c == out.c) && self.in_shapes.iter().all(|s| s.c == self.out_shape.c);
        (is_by_channel && is_same).then(|| Self { in_shapes, out_shape: out, ..self.clone() })
    }

    /// Shapes of the inputs, one image each.
    pub(crate) fn in_shapes(&self) -> &[Shape] {
        &self.in_shapes
    }

    /// Shape of the output, one image.
    pub(crate) const fn out_shape(&self) -> Shape {
        self.out_shape
    }

    /// Images that are computed together.
    pub(crate) const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Computes one group of images. `input(i)` is the `i`-th input, `[H, W, C, LANES]`; `out`, the same, is wholly
    /// overwritten.
    pub(crate) fn run<'a>(
        &self,
        input: &dyn Fn(usize) -> &'a [f32],
        tail: Tail,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let clamp = tail.activation.and_then(elementwise::clamp_bounds);
        let epilogue = Epilogue { residual: tail.residual, clamp: clamp.unwrap_or(UNBOUNDED) };
        let is_fused = match &self.work {
            Form::Conv(kernel) => {
                kernel.run(input(0), epilogue, out);
                true
            }
            Form::Winograd(kernel) => {
                kernel.run(input(0), epilogue, out, &mut scratch.winograd);
                true
            }
            Form::Depthwise(kernel) => {
                kernel.run(input(0), epilogue, out);
                true
            }
            Form::Transposed(kernel) => return kernel.run(input(0), tail, out, scratch),
            _ => {
                self.run_unfused(input, out);
                tail.residual.into_iter().for_each(|r| self.isa.vectorized(|| elementwise::add_to(out, r)));
                false
            }
        };
        if let Some(function) = tail.activation.filter(|_| !(is_fused && clamp.is_some())) {
            elementwise::activate_all(self.isa, function, out);
        }
    }

    /// As [`Self::run`], the rows of a convolution or a pooling spread over as many tasks as there is working memory
    /// for; others run as one. Results are the same, bit for bit.
    pub(crate) fn run_split<'a>(
        &self,
        input: &dyn Fn(usize) -> &'a [f32],
        tail: Tail,
        out: &mut [f32],
        scratch: &mut [Scratch],
    ) {
        let n_rows = self.out_shape.h.div_ceil(scratch.len()).next_multiple_of(self.row_step());
        let epilogue = tail.epilogue();
        let is_pool = matches!(self.work, Form::Pool(..)) && tail.residual.is_none() && tail.activation.is_none();
        let is_split = is_pool || self.is_convolution() && epilogue.is_some();
        let Some(epilogue) = epilogue.filter(|_| is_split && n_rows < self.out_shape.h) else {
            return self.run(input, tail, out, &mut scratch[0]);
        };
        let x = input(0);
        let row_len = self.out_shape.w * self.out_shape.c * self.lanes;
        rayon::scope(|scope| {
            for ((part, out), scratch) in out.chunks_mut(n_rows * row_len).enumerate().zip(scratch) {
                let rows = part * n_rows..part * n_rows + out.len() / row_len;
                let epilogue = epilogue.part(rows.start * row_len..rows.end * row_len);
                scope.spawn(move |_| {
                    if is_pool {
                        self.pool_rows(ImageRows { values: x, first: 0 }, rows.start, out);
                    } else {
                        self.convolve_rows(x, rows, epilogue, out, scratch);
                    }
                });
            }
        });
    }

    /// Whether it is a convolution, other than a transposed one.
    pub(crate) const fn is_convolution(&self) -> bool {
        matches!(self.work, Form::Conv(_) | Form::Winograd(_) | Form::Depthwise(_))
    }

    /// The window of a pooling.
    pub(crate) const fn pooling_window(&self) -> Option<&Window> {
        if let Form::Pool(_, window) = &self.work { Some(window) } else { None }
    }

    /// Rows at whose multiples parts of the output may begin.
    pub(crate) const fn row_step(&self) -> usize {
        if matches!(self.work, Form::Winograd(_)) { TILE } else { 1 }
    }

    /// Computes the output rows `rows` of a convolution, from a multiple of [`Self::row_step`] on; `out` and the
    /// residual are theirs alone.
    pub(crate) fn convolve_rows(
        &self,
        x: &[f32],
        rows: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        match &self.work {
            Form::Conv(kernel) => kernel.run_rows(x, rows, epilogue, out),
            Form::Winograd(kernel) => kernel.run_rows(x, rows, epilogue, out, &mut scratch.winograd),
            Form::Depthwise(kernel) => kernel.run_rows(x, rows, epilogue, out),
            _ => unreachable!("is no convolution"),
        }
    }

    /// Computes output rows of a pooling from `first_out` on, as many as `out` holds, of rows of its input.
    pub(crate) fn pool_rows(&self, x: ImageRows<'_>, first_out: usize, out: &mut [f32]) {
        let Form::Pool(kind, window) = &self.work else { unreachable!("is no pooling") };
        let wide = |shape: Shape| Shape { c: shape.c * self.lanes, ..shape };
        let [shape, out_shape] = [self.in_shapes[0], self.out_shape].map(wide);
        self.isa.vectorized(PoolRows { kind: *kind, window, x, shape, out, first_out, out_shape });
    }

    /// Operations that treat all channels of a pixel alike see a group of images as one image with `LANES` times the
    /// channels.
    fn run_unfused<'a>(&self, input: &dyn Fn(usize) -> &'a [f32], out: &mut [f32]) {
        let lanes = self.lanes;
        let wide = |shape: Shape| Shape { c: shape.c * lanes, ..shape };
        let narrow = self.in_shapes.first().copied().unwrap_or(self.out_shape);
        let (shape, out_shape) = (wide(narrow), wide(self.out_shape));
        let first = || GroupValue { values: input(0), shape: narrow, lanes };
        match &self.work {
            Form::Add => {
                out.copy_from_slice(input(0));
                (1..self.in_shapes.len()).for_each(|i| self.isa.vectorized(|| elementwise::add_to(out, input(i))));
            }
            Form::Combine(how) => {
                for (i, &from) in self.in_shapes.iter().enumerate() {
                    let x = GroupValue { values: input(i), shape: from, lanes };
                    self.isa.vectorized(Combine {
                        how: (i > 0).then_some(*how),
                        x,
                        out: &mut *out,
                        to: self.out_shape,
                    });
                }
            }
            Form::Shuffle(n_groups) => maps::shuffle(first(), *n_groups, out),
            &Form::DepthToSpace { block, columns_rows_depth } => {
                maps::depth_to_space(first(), block, columns_rows_depth, out);
            }
            Form::Resize { rows, cols } => maps::resize(first(), rows, cols, out),
            Form::LayerNorm(norm) => norm.run(input(0), lanes, out),
            Form::Mix(mixing) => mixing.run(first(), out),
            Form::GlobalMax => self.isa.vectorized(|| maps::global_max(input(0), shape.c, out)),
            Form::Concat => {
                let mut at = 0;
                for (i, shape) in self.in_shapes.iter().enumerate() {
                    layout::copy_channels(input(i), shape.c * lanes, at, out_shape.c, out);
                    at += shape.c * lanes;
                }
            }
            Form::ScaleShift { scale, shift } => elementwise::scale_shift(input(0), scale, shift, out),
            Form::Slopes(slopes) => elementwise::slopes(input(0), slopes, out),
            Form::Activate(function) => {
                out.copy_from_slice(input(0));
                elementwise::activate_all(self.isa, *function, out);
            }
            Form::Pool(..) => self.pool_rows(ImageRows { values: input(0), first: 0 }, 0, out),
            Form::GlobalAverage => pool::global_average(self.isa, input(0), shape, out),
            Form::Flatten => layout::flatten(input(0), narrow, lanes, out),
            Form::Pad { channels, rows, cols } => {
                layout::pad(input(0), shape, channels.map(|c| c * lanes), *rows, *cols, out);
            }
            Form::Slice { channels, step } => {
                layout::slice(input(0), shape, channels.map(|c| c * lanes), *step, out);
            }
            Form::Softmax => elementwise::softmax(input(0), narrow.c, lanes, out),
            Form::Copy => out.copy_from_slice(input(0)),
            Form::Conv(_) | Form::Winograd(_) | Form::Depthwise(_) | Form::Transposed(_) => {
                unreachable!("run above")
            }
        }
    }
}

/// Largest output of one operation for one image, in values.
const MAX_VALUES: u128 = 1 << 26;

pub(super) fn check_size(node: &str, shape: Shape) -> Result<(), KernelError> {
    let shape = [shape.h, shape.w, shape.c];
    if shape.iter().fold(1, |n: u128, &d| n.saturating_mul(d as u128)) > MAX_VALUES {
        return Err(KernelError::OutputTooLarge { node: node.into(), shape });
    }
    Ok(())
}

fn linear_work(
    graph: &Graph,
    weights: &Weights,
    id: NodeId,
    shapes: [Shape; 2],
    isa: Isa,
) -> Result<Form, KernelError> {
    let linear = Linear::of(graph, weights, id)?;
    let Linear { conv, weight, bias } = linear.expect("called for convolutions and linear layers only");
    Ok(convolution_work(isa, &conv, shapes, weight, bias))
}

/// The kernel that needs the fewest operations.
fn convolution_work(isa: Isa, conv: &Conv2d, shapes: [Shape; 2], weight: &[f32], bias: Option<&[f32]>) -> Form {
    let arithmetic = Arithmetic::F32(isa);
    if conv.is_depthwise() && conv.out_channels == conv.in_channels {
        return Form::Depthwise(Box::new(DepthwiseKernel::new(isa, conv, shapes, weight, bias)));
    }
    match ConvWay::cheapest(arithmetic, conv, shapes) {
        ConvWay::Tiles => Form::Winograd(Box::new(WinogradKernel::new(arithmetic, conv, shapes, weight, bias))),
        _ => Form::Conv(Box::new(ConvKernel::new(isa, conv, shapes, weight, bias))),
    }
}

/// Scale and shift of a BatchNorm, once for every lane.
fn scale_shift(parameters: &Parameters, channels: usize, eps: f32, lanes: usize) -> Result<Form, KernelError> {
    let [weight, bias, mean, var] =
        ["weight", "bias", "running_mean", "running_var"].map(|name| parameters.get(name, channels));
    let (weight, bias, mean, var) = (weight?, bias?, mean?, var?);
    let scale: Vec<f64> =
        weight.iter().zip(var).map(|(&w, &v)| f64::from(w) / (f64::from(v) + f64::from(eps)).sqrt()).collect();
    let shift = bias.iter().zip(mean).zip(&scale).map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32);
    let shift = widened(&shift.collect::<Vec<_>>(), lanes);
    let scale: Vec<f32> = scale.iter().map(|&s| s as f32).collect();
    Ok(Form::ScaleShift { scale: widened(&scale, lanes), shift })
}

/// Every value once for every lane.
fn widened(values: &[f32], lanes: usize) -> Vec<f32> {
    let mut wide = Vec::with_capacity(values.len() * lanes);
    values.iter().for_each(|&x| wide.extend(std::iter::repeat_n(x, lanes)));
    wide
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_one_convolution_are_computed_in_as_many_parts_as_there_is_working_memory() {
        let shape = Shape { c: 32, h: 16, w: 16 };
        let conv = Conv2d::square(32, 32, 3, 1, 1);
        let kernel = OpKernel::convolution(Isa::detect(), &conv, [shape, shape], &vec![0.5; 32 * 32 * 9], None);
        let x = vec![1.0; shape.len() * kernel.lanes()];
        let mut out = vec![0.0; x.len()];
        let mut scratch: Vec<Scratch> = (0..5).map(|_| Scratch::new()).collect();
        kernel.run_split(&|_| &x, Tail::default(), &mut out, &mut scratch);
        let n_used = scratch.iter().filter(|s| s.winograd.is_used()).count();
        // Five parts of four rows would be more than there are.
        assert_eq!(n_used, 4);
        assert_eq!([out[0], out[out.len() / 2]], [0.5 * 32.0 * 4.0, 0.5 * 32.0 * 6.0]);
    }
}
