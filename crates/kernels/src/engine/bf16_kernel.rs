//! One step of a plan in bf16: convolutions and what only moves values work on pairs, everything else on f32 that is
//! unpacked before and packed after.

use secateur_net::{Conv2d, FusedStep, Graph, Location, NodeId, Op, Operand, Pointwise, Shape, Weights};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::conv::direct::{ConvKernel, Epilogue};
use crate::engine::conv_way::ConvWay;
use crate::engine::elementwise;
use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::engine::parameters::Linear;
use crate::engine::winograd::rows::{WinogradRowsKernel, WinogradRowsScratch};
use crate::engine::winograd::tiles::{WinogradKernel, WinogradScratch};
use crate::simd::aligned::AlignedVec;
use crate::simd::pairs;
use crate::{Isa, KernelError};

/// What surrounds an operation in a plan. Shapes are those that the values were stored with: a flattened image may
/// still lie there as the image.
#[derive(Clone, Debug)]
pub(crate) struct StepContext {
    /// Of every input.
    pub inputs: Vec<Shape>,
    /// Of the residual that is added.
    pub residual: Option<Shape>,
    /// Applied last.
    pub activation: Option<Pointwise>,
    /// Whether the output is the network's, which is f32.
    pub is_last: bool,
}

impl StepContext {
    /// Of a step of a plan whose buffers hold values of the shapes `stored` before it.
    pub(crate) fn of(graph: &Graph, step: &FusedStep, stored: &[Shape], is_last: bool) -> Self {
        let shape_of = |operand: &Operand| match operand.location {
            Location::Image => graph.input(),
            Location::Buffer(buffer) => stored[buffer],
        };
        Self {
            inputs: step.inputs.iter().map(shape_of).collect(),
            residual: step.residual.as_ref().map(shape_of),
            activation: step.activation,
            is_last,
        }
    }
}

/// An operation prepared for pairs of bf16. It works on a group of images at a time, `[H, W, C / 2, 16]`.
#[derive(Clone, Debug)]
pub(crate) struct Bf16Kernel {
    work: Bf16Form,
    around: StepContext,
    out_shape: Shape,
}

#[derive(Clone, Debug)]
enum Bf16Form {
    Conv(Box<ConvKernel>),
    Winograd(Box<WinogradKernel>),
    WinogradRows(Box<WinogradRowsKernel>),
    Moved(Box<OpKernel>),
    Unpacked(Box<OpKernel>),
}

/// Working memory; grows as needed and never shrinks.
#[derive(Debug, Default)]
pub(crate) struct Bf16Scratch {
    winograd: WinogradScratch,
    winograd_rows: WinogradRowsScratch,
    f32: Scratch,
    inputs: Vec<AlignedVec>,
    residual: AlignedVec,
    out: AlignedVec,
}

impl Bf16Kernel {
    /// Prepares node `id`.
    ///
    /// # Errors
    /// As [`OpKernel::new`].
    pub(crate) fn new(graph: &Graph, weights: &Weights, id: NodeId, around: StepContext) -> Result<Self, KernelError> {
        let out_shape = graph.shape(id);
        let linear = Linear::of(graph, weights, id)?;
        let work = match linear.filter(|linear| Self::is_native(graph, id, &linear.conv, &around)) {
            Some(Linear { conv, weight, bias }) => {
                let shapes = [around.inputs[0], out_shape];
                let bf16 = Arithmetic::Bf16;
                match ConvWay::cheapest(bf16, &conv, shapes) {
                    ConvWay::Direct => Bf16Form::Conv(Box::new(ConvKernel::new(bf16, &conv, shapes, weight, bias))),
                    ConvWay::Tiles => {
                        Bf16Form::Winograd(Box::new(WinogradKernel::new(bf16, &conv, shapes, weight, bias)))
                    }
                    ConvWay::Rows => {
                        Bf16Form::WinogradRows(Box::new(WinogradRowsKernel::new(&conv, shapes, weight, bias)))
                    }
                }
            }
            None => {
                let kernel = OpKernel::new(graph, weights, id, Isa::Avx512)?;
                let moved = kernel.on_pairs().filter(|_| Self::is_moved(graph, id, &around));
                moved.map_or_else(|| Bf16Form::Unpacked(Box::new(kernel)), |kernel| Bf16Form::Moved(Box::new(kernel)))
            }
        };
        Ok(Self { work, around, out_shape })
    }

    /// Whether the step could run on pairs if it is a convolution, or moves values.
    fn may_be_native(graph: &Graph, id: NodeId, around: &StepContext) -> bool {
        let as_stored = graph.node(id).inputs.iter().map(|&i| graph.shape(i)).eq(around.inputs.iter().copied());
        let is_clamp = around.activation.is_none_or(|function| elementwise::clamp_bounds(function).is_some());
        !around.is_last && as_stored && is_clamp && around.residual.is_none_or(|shape| shape == graph.shape(id))
    }

    /// Whether the step, which is the convolution `conv`, runs on pairs.
    pub(crate) fn is_native(graph: &Graph, id: NodeId, conv: &Conv2d, around: &StepContext) -> bool {
        Self::may_be_native(graph, id, around) && has_whole_words(conv)
    }

    /// Whether the step only moves whole words (see [`OpKernel::on_pairs`]).
    pub(crate) fn is_moved(graph: &Graph, id: NodeId, around: &StepContext) -> bool {
        let node = graph.node(id);
        let moves = match &node.op {
            Op::Input | Op::Identity | Op::Concat => true,
            Op::Pad { channels, .. } | Op::Slice { channels, .. } => channels.iter().all(|c| c.is_multiple_of(2)),
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
            | Op::FlattenPixels
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
            | Op::BranchSoftmax { .. }
            | Op::Flatten
            | Op::Softmax => false,
        };
        let is_all = around.residual.is_none() && around.activation.is_none();
        let mut shapes = node.inputs.iter().chain([&id]).map(|&i| graph.shape(i));
        moves && is_all && shapes.all(|s| s.c.is_multiple_of(2)) && Self::may_be_native(graph, id, around)
    }

    /// Words of the output of a group of images.
    pub(crate) fn out_words(&self) -> usize {
        if self.around.is_last { self.out_shape.len() * 16 } else { Arithmetic::Bf16.group_words(self.out_shape) }
    }

    /// Computes one group of images. `input(i)` is the `i`-th input in pairs; `out` is wholly overwritten, with pairs
    /// or, by the last step, with f32 `[H, W, C, 16]`.
    pub(crate) fn run<'a>(
        &self,
        input: &dyn Fn(usize) -> &'a [f32],
        residual: Option<&'a [f32]>,
        out: &mut [f32],
        scratch: &mut Bf16Scratch,
    ) {
        let clamp = self.around.activation.and_then(elementwise::clamp_bounds);
        let epilogue = Epilogue { residual, clamp: clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]) };
        match &self.work {
            Bf16Form::Conv(kernel) => kernel.run(input(0), epilogue, out),
            Bf16Form::Winograd(kernel) => kernel.run(input(0), epilogue, out, &mut scratch.winograd),
            Bf16Form::WinogradRows(kernel) => kernel.run(input(0), epilogue, out, &mut scratch.winograd_rows),
            Bf16Form::Moved(kernel) => kernel.run(input, Tail::default(), out, &mut scratch.f32),
            Bf16Form::Unpacked(kernel) => self.run_unpacked(kernel, input, residual, out, scratch),
        }
    }

    fn run_unpacked<'a>(
        &self,
        kernel: &OpKernel,
        input: &dyn Fn(usize) -> &'a [f32],
        residual: Option<&'a [f32]>,
        out: &mut [f32],
        scratch: &mut Bf16Scratch,
    ) {
        let Bf16Scratch { f32: of_kernel, inputs, residual: residual_values, out: out_values, .. } = scratch;
        let unpack = |words: &[f32], shape: Shape, values: &mut AlignedVec| {
            values.grow(shape.len() * 16);
            pairs::unpack(words, shape.c, &mut values[..shape.len() * 16]);
        };
        let n_inputs = self.around.inputs.len();
        inputs.resize_with(n_inputs.max(inputs.len()), AlignedVec::default);
        for (i, (values, &shape)) in inputs.iter_mut().zip(&self.around.inputs).enumerate() {
            unpack(input(i), shape, values);
        }
        let residual = residual.zip(self.around.residual).map(|(words, shape)| {
            unpack(words, shape, residual_values);
            &residual_values[..shape.len() * 16]
        });
        let tail = Tail { residual, activation: self.around.activation };
        let read = |i: usize| &inputs[i][..self.around.inputs[i].len() * 16];
        if self.around.is_last {
            kernel.run(&read, tail, out, of_kernel);
        } else {
            out_values.grow(self.out_shape.len() * 16);
            let values = &mut out_values[..self.out_shape.len() * 16];
            kernel.run(&read, tail, values, of_kernel);
            pairs::pack(values, self.out_shape.c, out);
        }
    }
}

/// Whether every group of channels begins and ends between words.
const fn has_whole_words(conv: &Conv2d) -> bool {
    conv.groups == 1
        || (conv.in_channels / conv.groups).is_multiple_of(2) && (conv.out_channels / conv.groups).is_multiple_of(2)
}
