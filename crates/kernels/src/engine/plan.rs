//! A whole network, compiled: fused steps over a few shared buffers. A group of images, one to each lane of a vector,
//! passes through the whole network together; groups are spread over a thread pool.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::ThreadPool;
use rayon::prelude::*;
use secateur_net::{FusedStep, Graph, Location, Network, NodeId, Operand, Pointwise, Schedule, Shape};

use crate::engine::arithmetic::Arithmetic;
use crate::engine::bf16_kernel::{Bf16Kernel, Bf16Scratch, StepContext};
use crate::engine::channels::plan::ChannelPlan;
use crate::engine::channels::schedule::ChannelSchedule;
use crate::engine::fusion::schedule;
use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::engine::pooled::PooledConvolution;
use crate::simd::aligned::AlignedVec;
use crate::simd::interleave::{interleave, separate};
use crate::simd::pairs;
use crate::{Isa, KernelError};

/// A network ready to run on any number of images. Results do not depend on the number of threads, bit for bit.
///
/// # Example
/// ```
/// use secateur_kernels::{Isa, Plan, Precision};
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{Shape, arch, fold_batch_norm};
///
/// let shape = Shape { c: 3, h: 32, w: 32 };
/// let network = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10)?, 1))?;
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
/// let images = vec![0.5; 3 * shape.len()];
/// // For an instruction set, or for a precision with the best instructions that there are.
/// let plan = Plan::compile(&network, Isa::Portable)?;
/// let predictions = plan.predictions(&pool, &images)?;
/// assert_eq!(Plan::compile(&network, Precision::F32)?.n_correct(&pool, &images, &predictions)?, 3);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    lanes: PlanLanes,
    /// What each step computes.
    step_nodes: Vec<NodeId>,
    image_len: usize,
    n_classes: usize,
}

/// How long a step of a [`Plan`] took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// The node that it computes; what was fused to it comes with it.
    pub node: NodeId,
    /// Wall time.
    pub seconds: f64,
}

/// What lies in the lanes of a vector.
#[derive(Debug)]
enum PlanLanes {
    Images(ImagePlan),
    /// Of one image.
    Channels(ChannelPlan),
}

/// A network whose vectors are images.
#[derive(Debug)]
struct ImagePlan {
    steps: Vec<PlanStep>,
    buffer_lens: Vec<usize>,
    image_len: usize,
    n_classes: usize,
    /// Channels of an image, when it is packed in pairs.
    packed_channels: Option<usize>,
    /// Images that pass through the network together.
    lanes: usize,
    /// Buffers of finished workers, for the next call.
    idle: Mutex<Vec<Worker>>,
}

/// One step, compiled.
#[derive(Debug)]
pub(crate) struct PlanStep {
    kernel: StepKernel,
    inputs: Vec<Input>,
    residual: Option<Input>,
    out_buffer: usize,
    /// Words per lane.
    out_len: usize,
    /// Whether the next step is a pooling of this one's output that nothing else reads, and writes no buffer that this
    /// one reads.
    is_pooled: bool,
}

/// A value that a step reads.
#[derive(Clone, Copy, Debug)]
struct Input {
    location: Location,
    /// Words per lane.
    len: usize,
}

#[derive(Debug)]
enum StepKernel {
    F32(OpKernel, Option<Pointwise>),
    Bf16(Bf16Kernel),
}

/// One thread's buffers.
#[derive(Debug)]
struct Worker {
    images: AlignedVec,
    packed_images: AlignedVec,
    buffers: Vec<AlignedVec>,
    /// One for each part in which rows are computed at a time.
    scratch: Vec<Scratch>,
    bf16_scratch: Bf16Scratch,
}

impl Plan {
    /// Compiles `net` for `arithmetic`: [`Arithmetic::default`], or an instruction set, or a precision. Logits are f32
    /// in any case. Fold BatchNorm first where speed matters: here it is a step of its own. Within
    /// [`ThreadPool::install`] all threads of the pool take part.
    ///
    /// # Errors
    /// When this processor lacks the instructions, or an output would be too large, naming the node.
    pub fn compile(net: &Network, arithmetic: impl Into<Arithmetic>) -> Result<Self, KernelError> {
        Self::compile_for_calls(net, arithmetic, usize::MAX)
    }

    /// As [`Plan::compile`], for calls of at most `n_images` images each: networks of plain 3x3 convolutions on large
    /// images are several times faster with channels in the lanes of a vector when their images are too few to fill
    /// them. More images are computed all the same. Logits may differ from those of [`Plan::compile`] in the last bits,
    /// never with the number of images in a call.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn compile_for_calls(
        net: &Network,
        arithmetic: impl Into<Arithmetic>,
        n_images: usize,
    ) -> Result<Self, KernelError> {
        let arithmetic = arithmetic.into().checked()?;
        let graph = net.graph();
        let large = match arithmetic {
            Arithmetic::F32(isa) => ChannelSchedule::if_large(graph, isa, n_images).map(|schedule| (schedule, isa)),
            Arithmetic::Bf16 => None,
        };
        let nodes = |steps: &[FusedStep]| steps.iter().map(|step| step.node).collect();
        let (step_nodes, lanes) = match large {
            Some((schedule, isa)) => {
                (nodes(&schedule.steps), PlanLanes::Channels(ChannelPlan::compile(net, schedule, isa)?))
            }
            None => {
                let schedule = schedule(graph);
                (nodes(&schedule.steps), PlanLanes::Images(ImagePlan::compile(net, &schedule, arithmetic)?))
            }
        };
        Ok(Self { lanes, step_nodes, image_len: graph.input().len(), n_classes: graph.n_classes() })
    }

    /// Length of the network's output for one image.
    pub const fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Outputs `[N, n_classes]` of `images` `[N, H, W, C]` (an output with rows and columns comes as `[H, W, C]`).
    /// Runs on the threads of `pool`.
    ///
    /// # Errors
    /// When `images` does not hold whole images.
    pub fn logits(&self, pool: &ThreadPool, images: &[f32]) -> Result<Vec<f32>, KernelError> {
        let n_images = self.n_images(images)?;
        let mut logits = vec![0.0; n_images * self.n_classes];
        match &self.lanes {
            PlanLanes::Images(plan) => plan.logits(pool, images, &mut logits),
            PlanLanes::Channels(plan) => plan.logits(pool, images, &mut logits),
        }
        Ok(logits)
    }

    /// How long each step takes for all of `images`, in the order of computation: a node with what was fused to it.
    /// The threads of `pool` share the rows of each step.
    ///
    /// # Errors
    /// As [`Plan::logits`].
    pub fn step_times(&self, pool: &ThreadPool, images: &[f32]) -> Result<Vec<StepTime>, KernelError> {
        self.n_images(images)?;
        let mut seconds = vec![0.0; self.step_nodes.len()];
        let mut add = |step: usize, time: f64| seconds[step] += time;
        pool.install(|| match &self.lanes {
            PlanLanes::Images(plan) => plan.run_timed(images, &mut add),
            PlanLanes::Channels(plan) => plan.run_timed(images, &mut add),
        });
        let times = self.step_nodes.iter().zip(seconds);
        Ok(times.map(|(&node, seconds)| StepTime { node, seconds }).collect())
    }

    /// Index of the largest logit of every image; of equal ones the first.
    ///
    /// # Errors
    /// As [`Plan::logits`]; NaN or infinity among the logits, naming the first such image; more classes than a `u16`
    /// can count.
    pub fn predictions(&self, pool: &ThreadPool, images: &[f32]) -> Result<Vec<u16>, KernelError> {
        let max = usize::from(u16::MAX) + 1;
        if self.n_classes > max {
            return Err(KernelError::TooManyClasses { max, got: self.n_classes });
        }
        let logits = self.logits(pool, images)?;
        let largest = |(image, row): (usize, &[f32])| {
            if row.iter().any(|x| !x.is_finite()) {
                return Err(KernelError::NanLogits { image });
            }
            let at = row.iter().enumerate().fold(0, |best, (i, &x)| if x > row[best] { i } else { best });
            Ok(u16::try_from(at).expect("checked above"))
        };
        logits.chunks_exact(self.n_classes).enumerate().map(largest).collect()
    }

    /// How many of `images` are predicted as their label.
    ///
    /// # Errors
    /// As [`Plan::predictions`]; labels that are not one per image.
    pub fn n_correct(&self, pool: &ThreadPool, images: &[f32], labels: &[u16]) -> Result<usize, KernelError> {
        let expected = self.n_images(images)?;
        if labels.len() != expected {
            return Err(KernelError::LabelCount { expected, got: labels.len() });
        }
        let predictions = self.predictions(pool, images)?;
        Ok(predictions.iter().zip(labels).filter(|(p, l)| p == l).count())
    }

    fn n_images(&self, images: &[f32]) -> Result<usize, KernelError> {
        if !images.len().is_multiple_of(self.image_len) {
            return Err(KernelError::PartialImage { got: images.len(), per_image: self.image_len });
        }
        Ok(images.len() / self.image_len)
    }
}

impl ImagePlan {
    fn compile(net: &Network, schedule: &Schedule, arithmetic: Arithmetic) -> Result<Self, KernelError> {
        let graph = net.graph();
        let steps = match arithmetic {
            Arithmetic::F32(isa) => f32_steps(net, schedule, isa)?,
            Arithmetic::Bf16 => bf16_steps(net, schedule)?,
        };
        Ok(Self {
            steps,
            buffer_lens: schedule.buffer_sizes.clone(),
            image_len: graph.input().len(),
            n_classes: graph.n_classes(),
            packed_channels: (arithmetic == Arithmetic::Bf16).then_some(graph.input().c),
            lanes: arithmetic.lanes(),
            idle: Mutex::new(Vec::new()),
        })
    }

    fn logits(&self, pool: &ThreadPool, images: &[f32], logits: &mut [f32]) {
        let n_images = images.len() / self.image_len;
        let n_chunks = n_images.div_ceil(self.lanes);
        // Too few images for all threads: their rows are shared out as well.
        let n_parts = (pool.current_num_threads() / n_chunks.max(1)).max(1);
        let images = images.chunks(self.lanes * self.image_len);
        let chunks = Mutex::new(images.zip(logits.chunks_mut(self.lanes * self.n_classes)));
        let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let mut worker = self.take_worker(n_parts);
            while let Some((images, logits)) = next() {
                self.run(images, logits, &mut worker, n_parts, &mut |_, _| ());
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        };
        pool.scope(|scope| {
            (0..n_chunks.min(pool.current_num_threads())).for_each(|_| scope.spawn(|_| work()));
        });
    }

    /// Working memory for a group of images whose rows are computed in `n_parts` parts.
    fn take_worker(&self, n_parts: usize) -> Worker {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = idle.unwrap_or_else(|| Worker {
            images: AlignedVec::zeros(self.image_len * self.lanes),
            buffers: self.buffer_lens.iter().map(|len| AlignedVec::zeros(len * self.lanes)).collect(),
            packed_images: AlignedVec::default(),
            scratch: Vec::new(),
            bf16_scratch: Bf16Scratch::default(),
        });
        if worker.scratch.len() < n_parts {
            worker.scratch.resize_with(n_parts, Scratch::new);
        }
        worker
    }

    /// Runs all `images`, a group after the other, and tells the time of each step.
    fn run_timed(&self, images: &[f32], timed: &mut dyn FnMut(usize, f64)) {
        let n_parts = rayon::current_num_threads();
        let mut worker = self.take_worker(n_parts);
        let mut logits = vec![0.0; self.lanes * self.n_classes];
        for images in images.chunks(self.lanes * self.image_len) {
            let n_logits = images.len() / self.image_len * self.n_classes;
            self.run(images, &mut logits[..n_logits], &mut worker, n_parts, timed);
        }
    }

    /// Runs up to `lanes` images, rows in `n_parts` parts side by side, and tells the time of each step.
    fn run(
        &self,
        images: &[f32],
        logits: &mut [f32],
        worker: &mut Worker,
        n_parts: usize,
        timed: &mut dyn FnMut(usize, f64),
    ) {
        interleave(images, self.image_len, self.lanes, &mut worker.images);
        if let Some(channels) = self.packed_channels {
            let n_words = worker.images.len() / channels * channels.div_ceil(2);
            worker.packed_images.reset(n_words);
            pairs::pack(&worker.images, channels, &mut worker.packed_images);
        }
        let Worker { images, packed_images, buffers, scratch, bf16_scratch } = worker;
        let images = if self.packed_channels.is_some() { packed_images } else { images };
        let scratch = &mut scratch[..n_parts];
        let mut steps = self.steps.iter().enumerate();
        while let Some((at, step)) = steps.next() {
            let start = Instant::now();
            let mut out = std::mem::take(&mut buffers[step.out_buffer]);
            let mut of_next = step.is_pooled.then(|| std::mem::take(&mut buffers[self.steps[at + 1].out_buffer]));
            let others = &*buffers;
            let read = |input: Input| match input.location {
                Location::Image => &images[..],
                Location::Buffer(buffer) => &others[buffer][..input.len * self.lanes],
            };
            let (input, residual) = (|i: usize| read(step.inputs[i]), step.residual.map(read));
            let to = &mut out[..step.out_len * self.lanes];
            if let Some(of_next) = &mut of_next {
                let (_, next) = steps.next().expect("the pooling");
                let both = pooled(step, next).expect("checked when it was compiled");
                let seconds = both.run(input(0), to, &mut of_next[..next.out_len * self.lanes], scratch);
                (at..).zip(seconds).for_each(|(at, seconds)| timed(at, seconds));
            } else {
                match &step.kernel {
                    &StepKernel::F32(ref kernel, activation) => {
                        kernel.run_split(&input, Tail { residual, activation }, to, scratch);
                    }
                    StepKernel::Bf16(kernel) => kernel.run(&input, residual, to, bf16_scratch),
                }
                timed(at, start.elapsed().as_secs_f64());
            }
            buffers[step.out_buffer] = out;
            if let Some(of_next) = of_next {
                buffers[self.steps[at + 1].out_buffer] = of_next;
            }
        }
        let last = &self.steps[self.steps.len() - 1];
        separate(&worker.buffers[last.out_buffer][..last.out_len * self.lanes], last.out_len, self.lanes, logits);
    }
}

/// Compiles all steps; on a thread of a pool all its threads take part, since most time goes into a few large layers.
pub(super) fn compile_each<T: Send>(
    steps: &[FusedStep],
    compile: impl Fn(&FusedStep) -> Result<T, KernelError> + Sync + Send,
) -> Result<Vec<T>, KernelError> {
    if rayon::current_thread_index().is_some() {
        steps.par_iter().map(compile).collect()
    } else {
        steps.iter().map(compile).collect()
    }
}

fn f32_steps(net: &Network, schedule: &Schedule, isa: Isa) -> Result<Vec<PlanStep>, KernelError> {
    let len = |node: NodeId| net.graph().shape(node).len();
    let input = |operand: Operand| Input { location: operand.location, len: len(operand.node) };
    let compile = |step: &FusedStep| {
        let kernel = OpKernel::new(net.graph(), net.weights(), step.node, isa)?;
        Ok(PlanStep {
            kernel: StepKernel::F32(kernel, step.activation),
            inputs: step.inputs.iter().copied().map(input).collect(),
            residual: step.residual.map(input),
            out_buffer: step.buffer,
            out_len: len(step.value),
            is_pooled: false,
        })
    };
    let mut steps: Vec<PlanStep> = compile_each(&schedule.steps, compile)?;
    for at in 1..steps.len() {
        steps[at - 1].is_pooled = is_pooled(&schedule.steps[at - 1..]) && pooled(&steps[at - 1], &steps[at]).is_some();
    }
    Ok(steps)
}

/// Whether of these steps the second alone reads what the first computes, and writes no buffer that the first reads.
fn is_pooled(steps: &[FusedStep]) -> bool {
    let [first, next, later @ ..] = steps else { return false };
    let reads = |step: &FusedStep| step.inputs.iter().chain(&step.residual).any(|operand| operand.node == first.value);
    let mut read = first.inputs.iter().chain(&first.residual);
    reads(next) && !later.iter().any(reads) && read.all(|operand| operand.location != Location::Buffer(next.buffer))
}

/// Two steps as one that passes few rows at a time, where they are a convolution and a pooling of a large map.
fn pooled<'a>(first: &'a PlanStep, next: &'a PlanStep) -> Option<PooledConvolution<'a>> {
    let (StepKernel::F32(convolution, activation), StepKernel::F32(pooling, None)) = (&first.kernel, &next.kernel)
    else {
        return None;
    };
    let is_plain = first.residual.is_none() && next.residual.is_none();
    let tail = Tail { residual: None, activation: *activation };
    tail.epilogue().filter(|_| is_plain).and_then(|epilogue| PooledConvolution::of(convolution, pooling, epilogue))
}

fn bf16_steps(net: &Network, schedule: &Schedule) -> Result<Vec<PlanStep>, KernelError> {
    let graph: &Graph = net.graph();
    let Schedule { steps, buffer_sizes } = schedule;
    // Shapes of what the buffers hold at present.
    let mut stored = vec![graph.input(); buffer_sizes.len()];
    let words = |shape: Shape| Arithmetic::Bf16.words(shape.c) * shape.h * shape.w;
    let mut compiled = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let input = |operand: Operand| match operand.location {
            Location::Image => Input { location: Location::Image, len: words(graph.input()) },
            Location::Buffer(buffer) => Input { location: operand.location, len: words(stored[buffer]) },
        };
        let around = StepContext::of(graph, step, &stored, at + 1 == steps.len());
        let kernel = Bf16Kernel::new(graph, net.weights(), step.node, around)?;
        compiled.push(PlanStep {
            inputs: step.inputs.iter().copied().map(input).collect(),
            residual: step.residual.map(input),
            out_len: kernel.out_words() / Arithmetic::Bf16.lanes(),
            kernel: StepKernel::Bf16(kernel),
            out_buffer: step.buffer,
            is_pooled: false,
        });
        stored[step.buffer] = graph.shape(step.node);
    }
    Ok(compiled)
}
