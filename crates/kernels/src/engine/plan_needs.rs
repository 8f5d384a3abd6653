//! What evaluating a network takes, told from its graph before anything is allocated: a graph of a few hundred bytes
//! can declare any size.

use secateur_net::{Conv2d, FusedStep, Graph, NodeId, Op, Shape, Tap, Window};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::bf16_kernel::{Bf16Kernel, StepContext};
use crate::engine::channels::needs::ChannelNeeds;
use crate::engine::channels::schedule::{ChannelSchedule, group_len};
use crate::engine::conv::depthwise::DepthwiseKernel;
use crate::engine::conv::direct::{ConvKernel, taps_inside};
use crate::engine::conv_way::ConvWay;
use crate::engine::fusion::schedule;
use crate::engine::transposed::{TransposedKernel, spread};
use crate::engine::winograd::rows::WinogradRowsKernel;
use crate::engine::winograd::tiles::WinogradKernel;
use crate::simd::aligned::AlignedVec;
use crate::{Isa, KernelError};

/// Memory and work of a [`crate::Plan`], sums that do not fit in 64 bits being cut off there.
///
/// # Example
/// ```
/// use secateur_kernels::{Arithmetic, PlanNeeds};
/// use secateur_net::{Shape, arch};
///
/// let graph = arch::build("vgg16", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// let needs = PlanNeeds::of(&graph, Arithmetic::default())?;
/// // On 2 threads, and on 4, each of which has activations of its own.
/// assert!(needs.bytes(1000, 2) < needs.bytes(1000, 4));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanNeeds {
    /// Bytes of prepared weights and tables, allocated by `Plan::compile`.
    pub kernels: u64,
    /// Bytes of activations of each thread that computes, for one group of images.
    pub activations: u64,
    /// Bytes of other working memory: once for each thread, whether it computes images or rows of them.
    pub scratch: u64,
    /// Operations of one image, in multiply-accumulates of a convolution: those beside the image left out, each tap of
    /// a pool, which takes about that much longer, counted as eight.
    pub operations: u64,
    /// Of a plan whose vectors are channels.
    by_channel: Option<ChannelNeeds>,
    lanes: usize,
    n_classes: usize,
}

impl PlanNeeds {
    /// Of the plan that [`crate::Plan::compile`] makes of `graph` for `arithmetic`.
    ///
    /// # Errors
    /// When this processor lacks the instructions.
    pub fn of(graph: &Graph, arithmetic: impl Into<Arithmetic>) -> Result<Self, KernelError> {
        Self::for_calls(graph, arithmetic, usize::MAX)
    }

    /// Of the plan that [`crate::Plan::compile_for_calls`] makes of `graph` for `arithmetic` and calls of at most
    /// `n_images` images.
    ///
    /// # Errors
    /// When this processor lacks the instructions.
    pub fn for_calls(graph: &Graph, arithmetic: impl Into<Arithmetic>, n_images: usize) -> Result<Self, KernelError> {
        Ok(match arithmetic.into().checked()? {
            Arithmetic::F32(isa) => match ChannelSchedule::if_large(graph, isa, n_images) {
                Some(schedule) => Self::by_channel(graph, &schedule, isa),
                None => Self::in_f32(graph, isa),
            },
            Arithmetic::Bf16 => Self::in_bf16(graph),
        })
    }

    /// Peak bytes of a plan, compiling included, that is given `n_images` images at a time on `n_threads` threads; the
    /// images given and the logits returned are the caller's.
    pub fn bytes(&self, n_images: usize, n_threads: usize) -> u64 {
        let group = self.by_channel.map_or(self.lanes, |needs| group_len(n_images, n_threads, needs.max_group));
        let n_groups = n_images.div_ceil(group);
        let n_workers = n_groups.min(n_threads) as u64;
        // Where threads outnumber groups they share the rows of one, each with scratch of its own.
        let n_scratch = n_workers.saturating_mul((n_threads / n_groups.max(1)).max(1) as u64);
        let of_worker = self.by_channel.map_or(self.activations, |needs| needs.activations(n_images, n_threads));
        let activations = of_worker.saturating_mul(n_workers);
        self.kernels.saturating_add(activations).saturating_add(self.scratch.saturating_mul(n_scratch))
    }

    /// Images that are computed together by a thread.
    pub const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Bytes of the logits of `n_images` images.
    pub fn logits_bytes(&self, n_images: usize) -> u64 {
        (n_images as u64).saturating_mul(self.n_classes as u64).saturating_mul(4)
    }

    fn by_channel(graph: &Graph, schedule: &ChannelSchedule, isa: Isa) -> Self {
        let needs = ChannelNeeds::of(graph, schedule, isa);
        Self {
            kernels: needs.kernels,
            activations: needs.activations(needs.max_group, 1),
            scratch: needs.scratch,
            operations: all_operations(graph),
            by_channel: Some(needs),
            lanes: needs.max_group,
            n_classes: graph.n_classes(),
        }
    }

    fn in_f32(graph: &Graph, isa: Isa) -> Self {
        let arithmetic = Arithmetic::F32(isa);
        let mut needs = Self::new(graph, arithmetic);
        let mut scratch = Working::default();
        for node in 1..graph.nodes().len() {
            let (kernel, working) = f32_bytes(graph, node, isa);
            needs.kernels = needs.kernels.saturating_add(kernel);
            widen(&mut scratch, working);
        }
        needs.scratch = scratch.iter().fold(0, |sum, &bytes| sum.saturating_add(bytes));
        needs
    }

    fn in_bf16(graph: &Graph) -> Self {
        let mut needs = Self::new(graph, Arithmetic::Bf16);
        let schedule = schedule(graph);
        let packed = AlignedVec::bytes(Arithmetic::Bf16.group_words(graph.input()) as u64);
        needs.activations = needs.activations.saturating_add(packed);
        let mut stored = vec![graph.input(); schedule.buffer_sizes.len()];
        let mut working = Bf16Working::default();
        for (at, step) in schedule.steps.iter().enumerate() {
            let around = StepContext::of(graph, step, &stored, at + 1 == schedule.steps.len());
            let kernel = working.add(graph, step.node, &around);
            needs.kernels = needs.kernels.saturating_add(kernel);
            stored[step.buffer] = graph.shape(step.node);
        }
        needs.scratch = working.bytes();
        needs
    }

    /// Everything but kernels and working memory.
    fn new(graph: &Graph, arithmetic: Arithmetic) -> Self {
        let schedule = schedule(graph);
        let lanes = arithmetic.lanes();
        let aligned = |values: usize| AlignedVec::bytes((values as u64).saturating_mul(lanes as u64));
        let buffers = schedule.buffer_sizes.iter().fold(0u64, |sum, &len| sum.saturating_add(aligned(len)));
        let steps: u64 = schedule.steps.iter().map(step_bytes).sum();
        Self {
            kernels: steps,
            activations: aligned(graph.input().len()).saturating_add(buffers),
            scratch: 0,
            operations: all_operations(graph),
            by_channel: None,
            lanes,
            n_classes: graph.n_classes(),
        }
    }
}

/// Beside its kernel: the step itself, at most twice while the list grows, and its list of inputs.
fn step_bytes(step: &FusedStep) -> u64 {
    (size_of::<crate::engine::plan::PlanStep>() + size_of::<FusedStep>() + 128 * step.inputs.len()) as u64
}

/// Each piece of working memory becomes as large as the largest that any node wants.
pub(super) fn widen<const N: usize>(most: &mut [u64; N], wanted: [u64; N]) {
    most.iter_mut().zip(wanted).for_each(|(most, wanted)| *most = wanted.max(*most));
}

/// Bytes of the pieces of working memory in f32: two of Winograd's convolutions, one of an image with zeros between its
/// pixels.
type Working = [u64; 3];

/// Bytes of a node's kernel and of the pieces of its working memory.
fn f32_bytes(graph: &Graph, id: NodeId, isa: Isa) -> (u64, Working) {
    let node = graph.node(id);
    let shapes = [graph.shape(node.inputs[0]), graph.shape(id)];
    if let Op::ConvTranspose2d(conv) = &node.op {
        let (image, over) = spread(conv, shapes[1]);
        let (kernel, [one, two, _]) = convolution_bytes(&over, [image, shapes[1]], isa);
        let spread = AlignedVec::bytes((image.len() as u64).saturating_mul(isa.lanes() as u64));
        return (kernel + size_of::<TransposedKernel>() as u64, [one, two, spread]);
    }
    let conv = node.op.as_conv2d();
    conv.map_or_else(|| (constants(&node.op, isa.lanes()), [0; 3]), |conv| convolution_bytes(&conv, shapes, isa))
}

fn convolution_bytes(conv: &Conv2d, shapes: [Shape; 2], isa: Isa) -> (u64, Working) {
    let arithmetic = Arithmetic::F32(isa);
    if conv.is_depthwise() && conv.out_channels == conv.in_channels {
        return (size_of::<DepthwiseKernel>() as u64 + DepthwiseKernel::bytes(conv, shapes), [0; 3]);
    }
    match ConvWay::cheapest(arithmetic, conv, shapes) {
        ConvWay::Tiles => {
            let (kernel, working) = WinogradKernel::bytes(arithmetic, shapes);
            (size_of::<WinogradKernel>() as u64 + kernel, [working[0], working[1], 0])
        }
        _ => (size_of::<ConvKernel>() as u64 + ConvKernel::bytes(arithmetic, conv, shapes), [0; 3]),
    }
}

/// Bytes of the parameters and tables of what is no convolution, `lanes` images at a time.
pub(super) fn constants(op: &Op, lanes: usize) -> u64 {
    match op {
        Op::BatchNorm { channels, .. } => 2 * 4 * *channels as u64 * lanes as u64,
        Op::PRelu { channels } => 4 * *channels as u64 * lanes as u64,
        Op::LayerNorm { channels, .. } | Op::GroupNorm { channels, .. } => 2 * 4 * *channels as u64,
        Op::ChannelConv { taps, .. } => 4 * *taps as u64,
        Op::Resize { rows, cols } => ((rows.len() + cols.len()) * size_of::<Tap>()) as u64,
        Op::Input
        | Op::Conv2d(_)
        | Op::Linear { .. }
        | Op::Pointwise(_)
        | Op::Add
        | Op::Mul
        | Op::Concat
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::GlobalMaxPool
        | Op::ConvTranspose2d(_)
        | Op::LocalResponseNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::FlattenPixels
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::Softmax
        | Op::Identity => 0,
    }
}

/// Working memory in bf16: the largest of every kind.
#[derive(Default)]
struct Bf16Working {
    winograd: [u64; 2],
    rows: u64,
    f32: Working,
    inputs: Vec<u64>,
    residual: u64,
    out: u64,
}

impl Bf16Working {
    fn bytes(&self) -> u64 {
        let all = [self.rows, self.residual, self.out];
        let pieces = self.winograd.iter().chain(&self.f32).chain(&self.inputs);
        all.iter().chain(pieces).fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// Takes a node in; returns the bytes of its kernel.
    fn add(&mut self, graph: &Graph, id: NodeId, around: &StepContext) -> u64 {
        let shapes = [around.inputs[0], graph.shape(id)];
        let native = graph.node(id).op.as_conv2d().filter(|conv| Bf16Kernel::is_native(graph, id, conv, around));
        if let Some(conv) = native {
            let bf16 = Arithmetic::Bf16;
            let (size, kernel) = match ConvWay::cheapest(bf16, &conv, shapes) {
                ConvWay::Direct => (size_of::<ConvKernel>(), ConvKernel::bytes(bf16, &conv, shapes)),
                ConvWay::Tiles => {
                    let (kernel, working) = WinogradKernel::bytes(bf16, shapes);
                    widen(&mut self.winograd, working);
                    (size_of::<WinogradKernel>(), kernel)
                }
                ConvWay::Rows => {
                    let [kernel, working] = WinogradRowsKernel::bytes(shapes);
                    self.rows = working.max(self.rows);
                    (size_of::<WinogradRowsKernel>(), kernel)
                }
            };
            return size as u64 + kernel;
        }
        let (kernel, working) = f32_bytes(graph, id, Isa::Avx512);
        if !Bf16Kernel::is_moved(graph, id, around) {
            self.unpack(around, shapes[1], working);
        }
        kernel + size_of::<crate::engine::op_kernel::OpKernel>() as u64
    }

    fn unpack(&mut self, around: &StepContext, out: Shape, working: Working) {
        let bytes = |shape: Shape| AlignedVec::bytes((shape.len() as u64).saturating_mul(16));
        widen(&mut self.f32, working);
        self.inputs.resize(self.inputs.len().max(around.inputs.len()), 0);
        self.inputs.iter_mut().zip(&around.inputs).for_each(|(most, &shape)| *most = bytes(shape).max(*most));
        self.residual = around.residual.map_or(0, bytes).max(self.residual);
        if !around.is_last {
            self.out = bytes(out).max(self.out);
        }
    }
}

fn all_operations(graph: &Graph) -> u64 {
    (1..graph.nodes().len()).fold(0u64, |sum, node| sum.saturating_add(operations(graph, node)))
}

/// Operations of a node for one image; what only moves or maps values counts each value read and written.
fn operations(graph: &Graph, id: NodeId) -> u64 {
    let node = graph.node(id);
    let (input, output) = (graph.shape(node.inputs[0]), graph.shape(id));
    let times = |a: u64, b: usize| a.saturating_mul(b as u64);
    match &node.op {
        Op::Conv2d(conv) => times(times(taps(conv, input, output), conv.in_channels / conv.groups), output.c),
        Op::Linear { in_features, out_features, .. } => times(*in_features as u64, *out_features),
        Op::MaxPool(window) | Op::AvgPool(window) => times(times(pixels_inside(window, input, output), output.c), 8),
        Op::ConvTranspose2d(conv) => {
            let per_output = conv.in_channels / conv.groups * conv.kernel[0] * conv.kernel[1];
            times(output.len() as u64, per_output)
        }
        Op::ChannelConv { taps, .. } => times(output.len() as u64, *taps),
        // Powers.
        Op::LocalResponseNorm { size, .. } => times(output.len() as u64, size.saturating_add(16)),
        // Of four pixels.
        Op::Resize { .. } => times(output.len() as u64, 8),
        Op::Input
        | Op::BatchNorm { .. }
        | Op::PRelu { .. }
        | Op::Pointwise(_)
        | Op::Add
        | Op::Concat
        | Op::GlobalAvgPool
        | Op::Mul
        | Op::FlattenPixels
        | Op::ChannelShuffle { .. }
        | Op::DepthToSpace { .. }
        | Op::LayerNorm { .. }
        | Op::GlobalMaxPool
        | Op::GroupNorm { .. }
        | Op::Max
        | Op::Min
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Flatten
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax
        | Op::Identity => {
            let read = node.inputs.iter().fold(0u64, |sum, &i| sum.saturating_add(graph.shape(i).len() as u64));
            read.saturating_add(output.len() as u64)
        }
    }
}

/// Pixels inside the image, of all windows.
fn pixels_inside(window: &Window, input: Shape, output: Shape) -> u64 {
    let inside = |axis: usize, n_in: usize, n_out: usize| {
        let windows = (0..n_out).map(|at| window.inside(axis, at, n_in).len() as u64);
        windows.fold(0, u64::saturating_add)
    };
    inside(0, input.h, output.h).saturating_mul(inside(1, input.w, output.w))
}

/// Taps inside the image, of all output pixels.
fn taps(conv: &Conv2d, input: Shape, output: Shape) -> u64 {
    let inside = |axis: usize, n_in: usize, n_out: usize| {
        taps_inside(conv, axis, n_in, n_out).fold(0u64, |sum, taps| sum.saturating_add(taps.len() as u64))
    };
    inside(0, input.h, output.h).saturating_mul(inside(1, input.w, output.w))
}
