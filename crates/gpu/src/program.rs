//! From a topology and the widths of its candidates to a list of dispatches: pure, without a device.

use secateur_net::{FusedStep, Fusion, Graph, Location, NodeId, Op, Operand, Pointwise, Schedule, Shape, Window};

use crate::GpuError;
use crate::candidates::{LayerKind, Widths, layer_kind};
use crate::convolution::ConvShape;
use crate::layout::{Candidate, Uniforms, quads};

/// Shaders of weights and of sums end in `finish` of prelude.wgsl. A Flatten is free only behind one pixel: channels
/// come in fours.
const FUSION: Fusion = Fusion {
    adds: has_weights,
    activates: |op, function| has_weights(op) && activation(Some(function)).0 < RARE || matches!(op, Op::Add),
    scales: |_| false,
    is_flat: |shape| shape.h * shape.w == 1,
};

const fn has_weights(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::Linear { .. } | Op::BatchNorm { .. })
}

/// Which shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Convolution of a kind, by its weights.
    Layer(LayerKind),
    /// Maximum over windows.
    MaxPool,
    /// Mean over windows.
    AveragePool,
    /// Pad, Slice, one part of a Concat.
    Shift,
    /// To a vector.
    Flatten,
    /// Sum and activation.
    Combine,
    /// Over channels.
    Softmax,
}

/// One dispatch over all candidates and the images of a chunk. Strides of `uniforms` are those of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// The node it belongs to.
    pub node: NodeId,
    /// The shader.
    pub kernel: Kernel,
    /// Shapes and flags.
    pub uniforms: Uniforms,
    /// By candidate; `weights` is filled in when those are packed.
    pub candidates: Vec<Candidate>,
    /// Where it reads.
    pub input: Location,
    /// Where it reads what is added.
    pub residual: Option<Location>,
    /// Where it writes.
    pub buffer: usize,
    /// Multiply-accumulates per image, of all candidates together.
    pub macs: u64,
    /// Output quads of a dense layer that are computed together; 0 for others.
    pub block: usize,
}

impl Dispatch {
    /// Output quads of the widest candidate.
    pub fn out_quads(&self) -> usize {
        self.candidates.iter().map(|c| quads(c.n_out as usize)).max().unwrap_or(0)
    }
}

/// A whole network for several candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Quads per image and candidate of every buffer.
    pub buffer_quads: Vec<usize>,
    /// Quads per image of the images.
    pub image_quads: usize,
    /// The buffer that the output is left in.
    pub out_buffer: usize,
    /// The shape of the output, but for channels.
    pub out_shape: Shape,
    /// Output channels of every candidate.
    pub n_out: Vec<usize>,
}

impl Program {
    /// Compiles; `conv` tells how a dense layer is computed.
    ///
    /// # Errors
    /// Candidates whose groups differ.
    pub fn new(graph: &Graph, widths: &[Widths], conv: impl Fn(&Uniforms) -> ConvShape) -> Result<Self, GpuError> {
        let size = |node: NodeId| {
            let shape = graph.shape(node);
            let most = widths.iter().map(|w| quads(w.channels[node])).max().unwrap_or(0);
            shape.h * shape.w * most
        };
        let schedule = Schedule::new(graph, FUSION, size);
        let buffer_quads = schedule.buffer_sizes.clone();
        let mut dispatches = Vec::new();
        for step in &schedule.steps {
            lower(graph, widths, step, &mut dispatches)?;
        }
        let image = graph.input();
        let image_quads = image.h * image.w * quads(image.c);
        for dispatch in &mut dispatches {
            let stride = |location: Location| match location {
                Location::Image => 0,
                Location::Buffer(buffer) => buffer_quads[buffer] as u32,
            };
            dispatch.uniforms.input_is_image = u32::from(dispatch.input == Location::Image);
            dispatch.uniforms.in_stride = stride(dispatch.input);
            dispatch.uniforms.adds_residual = u32::from(dispatch.residual.is_some());
            dispatch.uniforms.residual_is_image = u32::from(dispatch.residual == Some(Location::Image));
            dispatch.uniforms.residual_stride = dispatch.residual.map_or(0, stride);
            dispatch.uniforms.out_stride = buffer_quads[dispatch.buffer] as u32;
            if dispatch.kernel == Kernel::Layer(LayerKind::Dense) {
                dispatch.block = conv(&dispatch.uniforms).block(dispatch.out_quads());
            }
        }
        let output = graph.output();
        Ok(Self {
            out_buffer: schedule.steps.last().map_or(0, |s| s.buffer),
            out_shape: graph.shape(output),
            n_out: widths.iter().map(|w| w.channels[output]).collect(),
            dispatches,
            buffer_quads,
            image_quads,
        })
    }
}

/// Codes from here on are those of elementwise.wgsl only.
const RARE: u32 = 10;

/// The code of an activation in shaders/prelude.wgsl or shaders/elementwise.wgsl, and its parameters.
const fn activation(function: Option<Pointwise>) -> (u32, [f32; 2]) {
    match function {
        None => (0, [0.0; 2]),
        Some(Pointwise::Relu) => (1, [0.0; 2]),
        Some(Pointwise::Relu6) => (2, [0.0; 2]),
        Some(Pointwise::Sigmoid) => (3, [0.0; 2]),
        Some(Pointwise::Tanh) => (4, [0.0; 2]),
        Some(Pointwise::Silu) => (5, [0.0; 2]),
        Some(Pointwise::HardSwish) => (6, [0.0; 2]),
        Some(Pointwise::LeakyRelu { slope }) => (7, [slope, 0.0]),
        Some(Pointwise::HardSigmoid { alpha, beta }) => (8, [alpha, beta]),
        Some(Pointwise::Clip { min, max }) => (9, [min, max]),
        Some(Pointwise::Gelu { tanh: false }) => (RARE, [0.0; 2]),
        Some(Pointwise::Gelu { tanh: true }) => (11, [0.0; 2]),
        Some(Pointwise::Elu { alpha }) => (12, [alpha, 0.0]),
        Some(Pointwise::Softplus) => (13, [0.0; 2]),
        Some(Pointwise::Mish) => (14, [0.0; 2]),
        Some(Pointwise::Exp) => (15, [0.0; 2]),
        Some(Pointwise::Sqrt) => (16, [0.0; 2]),
        Some(Pointwise::Abs) => (17, [0.0; 2]),
        Some(Pointwise::Neg) => (18, [0.0; 2]),
        Some(Pointwise::Erf) => (19, [0.0; 2]),
        Some(Pointwise::Log) => (20, [0.0; 2]),
        Some(Pointwise::Reciprocal) => (21, [0.0; 2]),
        Some(Pointwise::Affine { scale, shift }) => (22, [scale, shift]),
    }
}

/// `uniforms` of a step that ends in an activation.
const fn activated(uniforms: Uniforms, function: Option<Pointwise>) -> Uniforms {
    let (code, [a, b]) = activation(function);
    Uniforms { activation: code, activation_a: a, activation_b: b, ..uniforms }
}

/// What the dispatches of one step have in common.
struct Lowering<'a> {
    graph: &'a Graph,
    widths: &'a [Widths],
    fused: &'a FusedStep,
    uniforms: Uniforms,
}

impl Lowering<'_> {
    /// A dispatch that reads input number `i`.
    fn dispatch(&self, kernel: Kernel, i: usize, uniforms: Uniforms) -> Dispatch {
        let node = self.fused.node;
        let Operand { node: value, location: input } = self.fused.inputs[i];
        let candidate = |w: &Widths| Candidate {
            n_in: w.channels[value] as u32,
            n_out: w.channels[node] as u32,
            weights: 0,
            shift: w.shifts[node],
        };
        let candidates = self.widths.iter().map(candidate).collect();
        Dispatch {
            node,
            kernel,
            uniforms,
            candidates,
            input,
            residual: None,
            buffer: self.fused.buffer,
            macs: 0,
            block: 0,
        }
    }

    fn windowed(&self, window: &Window) -> Uniforms {
        Uniforms {
            kernel_h: window.kernel[0] as u32,
            kernel_w: window.kernel[1] as u32,
            stride_h: window.stride[0] as u32,
            stride_w: window.stride[1] as u32,
            pad_h: window.padding[0][0] as u32,
            pad_w: window.padding[1][0] as u32,
            pad_below: window.padding[0][1] as u32,
            pad_right: window.padding[1][1] as u32,
            counts_padding: u32::from(window.counts_padding),
            ..self.uniforms
        }
    }

    /// Convolution, Linear, BatchNorm, PRelu: with bias, residual and activation.
    fn layer(&self, window: &Window, dilation: [usize; 2]) -> Result<Dispatch, GpuError> {
        let (node, value) = (self.fused.node, self.fused.inputs[0].node);
        let kind = layer_kind(self.graph, node, self.widths)?;
        let uniforms = Uniforms {
            dilation_h: dilation[0] as u32,
            dilation_w: dilation[1] as u32,
            groups: if let LayerKind::Grouped(n) = kind { n as u32 } else { 0 },
            ..activated(self.windowed(window), self.fused.activation)
        };
        let shape = self.graph.shape(node);
        let per_output = |w: &Widths| (w.channels[value] / w.groups[node].max(1)) * window.kernel[0] * window.kernel[1];
        let macs = |w: &Widths| (shape.h * shape.w * w.channels[node] * per_output(w)) as u64;
        let counts = !matches!(self.graph.node(node).op, Op::BatchNorm { .. } | Op::PRelu { .. });
        Ok(Dispatch {
            residual: self.fused.residual.map(|operand| operand.location),
            macs: if counts { self.widths.iter().map(macs).sum() } else { 0 },
            ..self.dispatch(Kernel::Layer(kind), 0, uniforms)
        })
    }
}

fn lower(graph: &Graph, widths: &[Widths], fused: &FusedStep, out: &mut Vec<Dispatch>) -> Result<(), GpuError> {
    let from = graph.shape(fused.inputs[0].node);
    let uniforms = uniforms_between(from, graph.shape(fused.node));
    let l = Lowering { graph, widths, fused, uniforms };
    let unit = Window::new([1; 2], [1; 2], [0; 2]);
    match &graph.node(fused.node).op {
        Op::Conv2d(c) => {
            let window = Window::new(c.kernel, c.stride, c.padding);
            out.push(l.layer(&window, c.dilation)?);
        }
        Op::Linear { .. } | Op::BatchNorm { .. } | Op::PRelu { .. } => out.push(l.layer(&unit, [1; 2])?),
        Op::MaxPool(window) => out.push(l.dispatch(Kernel::MaxPool, 0, l.windowed(window))),
        Op::AvgPool(window) => out.push(l.dispatch(Kernel::AveragePool, 0, l.windowed(window))),
        Op::GlobalAvgPool => {
            let window = Window { kernel: [from.h, from.w], ..unit };
            out.push(l.dispatch(Kernel::AveragePool, 0, l.windowed(&window)));
        }
        Op::Flatten => out.push(l.dispatch(Kernel::Flatten, 0, uniforms)),
        Op::Pad { rows, cols, .. } => {
            let uniforms = Uniforms { pad_h: rows[0] as u32, pad_w: cols[0] as u32, ..uniforms };
            out.push(l.dispatch(Kernel::Shift, 0, uniforms));
        }
        Op::Slice { step: [rows, cols], .. } => {
            let uniforms = Uniforms { stride_h: *rows as u32, stride_w: *cols as u32, ..uniforms };
            out.push(l.dispatch(Kernel::Shift, 0, uniforms));
        }
        Op::Concat => concat(&l, out),
        Op::Add if fused.inputs.iter().any(|i| graph.shape(i.node) != graph.shape(fused.node)) => {
            return Err(no_shader(graph, fused.node));
        }
        Op::Add => add(&l, out),
        Op::Softmax => out.push(l.dispatch(Kernel::Softmax, 0, uniforms)),
        Op::Pointwise(function) => {
            out.push(l.dispatch(Kernel::Combine, 0, activated(uniforms, Some(*function))));
        }
        Op::Mul
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
        | Op::BranchSoftmax { .. } => return Err(no_shader(graph, fused.node)),
        Op::Identity | Op::Input => out.push(l.dispatch(Kernel::Combine, 0, uniforms)),
    }
    Ok(())
}

/// No shader computes the node.
fn no_shader(graph: &Graph, node: NodeId) -> GpuError {
    let shape_of = |id: &NodeId| graph.shape(*id).to_string();
    let node = graph.node(node);
    let inputs = node.inputs.iter().take(4).map(shape_of).collect::<Vec<_>>().join(", ");
    GpuError::NoShader { node: node.name.clone(), op: node.op.name(), inputs }
}

/// Of a step that reads one pixel for each that it writes.
fn uniforms_between(from: Shape, to: Shape) -> Uniforms {
    Uniforms {
        in_h: from.h as u32,
        in_w: from.w as u32,
        out_h: to.h as u32,
        out_w: to.w as u32,
        kernel_h: 1,
        kernel_w: 1,
        stride_h: 1,
        stride_w: 1,
        clears: 1,
        ..Uniforms::default()
    }
}

/// One dispatch per part; later ones leave the lanes of earlier ones alone.
fn concat(l: &Lowering<'_>, out: &mut Vec<Dispatch>) {
    let mut before = vec![0; l.widths.len()];
    for i in 0..l.fused.inputs.len() {
        let mut dispatch = l.dispatch(Kernel::Shift, i, Uniforms { clears: u32::from(i == 0), ..l.uniforms });
        for (candidate, before) in dispatch.candidates.iter_mut().zip(&mut before) {
            candidate.shift = *before;
            *before += candidate.n_in as i32;
        }
        out.push(dispatch);
    }
}

/// The first two operands at once, then the others one by one; the activation comes with the last.
fn add(l: &Lowering<'_>, out: &mut Vec<Dispatch>) {
    let n = l.fused.inputs.len();
    for i in 1..n {
        let last = if i == n - 1 { l.fused.activation } else { None };
        let uniforms = Uniforms { accumulates: u32::from(i > 1), ..activated(l.uniforms, last) };
        let mut dispatch = l.dispatch(Kernel::Combine, i, uniforms);
        if i == 1 {
            dispatch.residual = Some(l.fused.inputs[0].location);
        }
        out.push(dispatch);
    }
}
