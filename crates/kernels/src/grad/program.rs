//! A training step as a list of instructions: the network forward, the loss, and backward. Where BatchNorm needs sums
//! over the whole batch, the list is cut into phases; within one, each group of images goes its way alone.

use std::collections::BTreeMap;
use std::ops::Range;

use secateur_net::{Conv2d, FusedStep, Fusion, Graph, Network, NodeId, Op, Pointwise, Schedule, Shape};

use crate::KernelError;
use crate::engine::elementwise::clamp_bounds;
use crate::engine::op_kernel::OpKernel;
use crate::grad::input_gradient::InputGradient;
use crate::grad::norm::{NormSettings, TrainedNorm};
use crate::grad::op_gradient::OpGradient;
use crate::grad::parameters::{TrainedParameter, trained_parameters};
use crate::grad::teacher::{MatchedValue, OutputMatch, Teacher};
use crate::grad::weight_gradient::WeightGradient;
use crate::simd::isa::Isa;

/// Index of an activation or gradient.
pub(crate) type ValueId = usize;

/// What an instruction does, by index into the program's lists.
#[derive(Clone, Debug)]
pub(crate) enum TrainWork {
    /// Brings in the group's images.
    Images,
    /// An operation forward; reads its inputs and the residual.
    Operation { kernel: usize, activation: Option<Pointwise>, has_residual: bool },
    /// Sums of BatchNorm's input; writes none.
    Statistics { norm: usize },
    /// BatchNorm forward; reads its input, and the residual if there is one.
    Normalise { norm: usize, clamp: [f32; 2] },
    /// Reads the outputs, and the teacher's if there is one; writes their gradient.
    Loss,
    /// Gradient of a matched value; reads it, the teacher's, then what others added before.
    Match { matched: usize },
    /// Gradient of a clamp; reads the gradient of its output and the output.
    StopAtBounds { bounds: [f32; 2] },
    /// `StopAtBounds` in front of a BatchNorm, and `NormSums`; reads the BatchNorm's input, too.
    StopAndSum { norm: usize, bounds: [f32; 2] },
    /// Adds what it reads.
    Sum,
    /// Sums of the gradient of BatchNorm's output; reads it and BatchNorm's input, writes none.
    NormSums { norm: usize },
    /// Gradient of BatchNorm's input; reads as `NormSums`, then what others added before.
    NormInput { norm: usize },
    /// Gradient of a convolution's input; reads that of its output, then what others added before.
    ConvInput { kernel: usize },
    /// Gradient of weights; reads the convolution's input and its output's gradient, writes none.
    ConvWeight { kernel: usize },
    /// Gradient of slopes; reads the input and the output's gradient, writes none.
    SlopeWeight { kernel: usize },
    /// Gradient of another operation's input; reads what `OpGradient` names, and if so what others added before.
    Input { gradient: usize, kernel: usize, has_previous: bool },
}

/// One instruction for every group of images.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub work: TrainWork,
    pub reads: Vec<ValueId>,
    /// Also among the reads where the value is changed in place.
    pub write: Option<ValueId>,
    /// Which phase it belongs to.
    pub phase: usize,
}

/// An operation with what its gradient takes.
#[derive(Debug)]
pub(crate) struct TrainedKernel {
    pub kernel: OpKernel,
    /// Where its parameters are: weight (or slopes), and bias.
    pub weight: Option<Range<usize>>,
    pub bias: Option<Range<usize>>,
    pub weight_gradient: Option<WeightGradient>,
    pub input_gradient: Option<InputGradient>,
}

/// All of a training step.
#[derive(Debug)]
pub(crate) struct TrainProgram {
    /// In order of phases.
    pub instructions: Vec<Instruction>,
    /// Length of every value for one image.
    pub value_lens: Vec<usize>,
    pub kernels: Vec<TrainedKernel>,
    pub norms: Vec<TrainedNorm>,
    pub gradients: Vec<OpGradient>,
    /// Values of the sums of one group.
    pub n_sums: usize,
    pub parameters: Vec<TrainedParameter>,
    /// Their values at the start.
    pub values: Vec<f32>,
    pub n_outputs: usize,
    /// What is made of a teacher's outputs, and of its values, each with the teacher's number of channels.
    pub output_match: Option<OutputMatch>,
    pub matched: Vec<(MatchedValue, usize)>,
}

/// Clamps whose gradient follows from their output go with the operation in front.
const FUSION: Fusion = Fusion {
    adds: |op| matches!(op, Op::Conv2d(_) | Op::Linear { .. } | Op::BatchNorm { .. }),
    activates: |_, function| matches!(function, Pointwise::Relu | Pointwise::Relu6),
    scales: |_| false,
    is_flat: |shape| shape.h * shape.w == 1 || shape.c == 1,
};

/// A program while it is put together.
pub(crate) struct Builder<'a> {
    pub(super) network: &'a Network,
    pub(super) graph: &'a Graph,
    pub(super) isa: Isa,
    pub(super) program: TrainProgram,
    /// By node: its output, and once it is known the gradient of it.
    pub(super) value_of: Vec<Option<ValueId>>,
    pub(super) gradient_of: Vec<Option<ValueId>>,
    /// Gradients that several read: they must not be changed.
    pub(super) is_shared: Vec<bool>,
    /// Whether a node's output depends on a trained parameter.
    pub(super) is_trained: Vec<bool>,
    /// By node: the kernel or norm that computes it.
    pub(super) kernel_of: Vec<usize>,
    /// By value: the first phase in which it may be read.
    pub(super) ready: Vec<usize>,
    /// The teacher's outputs; by node, the matched value there and the teacher's.
    pub(super) teacher_outputs: Option<ValueId>,
    pub(super) matched_at: BTreeMap<NodeId, MatchedPair>,
}

/// A matched value's place in the program, and what it is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatchedPair {
    pub(super) matched: usize,
    pub(super) of_teacher: ValueId,
}

impl TrainProgram {
    /// Of `network`, for one instruction set, with its teacher, if there is one. A softmax at their ends is left out:
    /// losses are of what it reads.
    ///
    /// # Errors
    /// An operation without a gradient, nothing to train, a teacher that does not fit, or as [`OpKernel::new`].
    pub(crate) fn new(network: &Network, isa: Isa, teacher: Option<&Teacher<'_>>) -> Result<Self, KernelError> {
        let graph = without_last_softmax(network.graph())?;
        let n_nodes = graph.nodes().len();
        let (parameters, values) = trained_parameters(network, |id| id < n_nodes);
        let is_trained = trained_nodes(&graph);
        if !is_trained[graph.output()] {
            return Err(KernelError::NothingToTrain { n_nodes });
        }
        let program = Self {
            instructions: Vec::new(),
            value_lens: Vec::new(),
            kernels: Vec::new(),
            norms: Vec::new(),
            gradients: Vec::new(),
            n_sums: 0,
            parameters,
            values,
            n_outputs: graph.n_classes(),
            output_match: None,
            matched: Vec::new(),
        };
        let mut builder = Builder {
            network,
            graph: &graph,
            isa,
            program,
            value_of: vec![None; n_nodes],
            gradient_of: vec![None; n_nodes],
            is_shared: Vec::new(),
            is_trained,
            kernel_of: vec![usize::MAX; n_nodes],
            ready: Vec::new(),
            teacher_outputs: None,
            matched_at: BTreeMap::new(),
        };
        let images = builder.push(TrainWork::Images, vec![], graph.input().len(), 0);
        builder.value_of[0] = Some(images);
        let steps = Schedule::new(&graph, FUSION, |node| graph.shape(node).len()).steps;
        teacher.map(|teacher| builder.teacher_forward(teacher, images)).transpose()?;
        builder.forward(&steps)?;
        builder.check_matched()?;
        builder.backward(&steps)?;
        let mut program = builder.program;
        program.instructions.sort_by_key(|instruction| instruction.phase);
        Ok(program)
    }
}

impl Builder<'_> {
    /// Appends an instruction that writes a new value of `len` values an image, and returns that; it runs in phase
    /// `earliest` or, if what it reads comes later, then.
    pub(super) fn push(&mut self, work: TrainWork, reads: Vec<ValueId>, len: usize, earliest: usize) -> ValueId {
        let phase = self.phase_of(&reads, earliest);
        let value = self.program.value_lens.len();
        self.program.value_lens.push(len);
        self.ready.push(phase);
        self.is_shared.push(false);
        self.program.instructions.push(Instruction { work, reads, write: Some(value), phase });
        value
    }

    /// Appends one that writes no value, and returns its phase.
    pub(super) fn push_sums(&mut self, work: TrainWork, reads: Vec<ValueId>) -> usize {
        let phase = self.phase_of(&reads, 0);
        self.program.instructions.push(Instruction { work, reads, write: None, phase });
        phase
    }

    /// Appends one that changes the first value that it reads.
    pub(super) fn push_in_place(&mut self, work: TrainWork, reads: Vec<ValueId>) {
        let (phase, value) = (self.phase_of(&reads, 0), reads[0]);
        self.ready[value] = phase;
        self.program.instructions.push(Instruction { work, reads, write: Some(value), phase });
    }

    fn phase_of(&self, reads: &[ValueId], earliest: usize) -> usize {
        reads.iter().map(|&value| self.ready[value]).fold(earliest, usize::max)
    }

    /// The output of a node that the schedule keeps.
    pub(super) fn value(&self, node: NodeId) -> ValueId {
        self.value_of[node].expect("steps stand behind those they read")
    }

    /// Appends the teacher, which nothing is trained of, and notes what it leaves behind.
    fn teacher_forward(&mut self, teacher: &Teacher<'_>, images: ValueId) -> Result<(), KernelError> {
        let graph = without_last_softmax(teacher.network.graph())?;
        let sizes = |of: &Graph| [of.input().len(), of.n_classes()];
        for (what, (expected, got)) in ["images of the teacher", "outputs of the teacher"]
            .into_iter()
            .zip(sizes(self.graph).into_iter().zip(sizes(&graph)))
        {
            if expected != got {
                return Err(KernelError::Length { what: what.into(), expected, got });
            }
        }
        teacher.outputs.check(graph.n_classes())?;
        let mut values: BTreeMap<NodeId, ValueId> = [(0, images)].into();
        for step in Schedule::new(&graph, FUSION, |node| graph.shape(node).len()).steps {
            let kernel = OpKernel::new(&graph, teacher.network.weights(), step.node, self.isa)?;
            let (weight, bias, weight_gradient, input_gradient) = (None, None, None, None);
            self.program.kernels.push(TrainedKernel { kernel, weight, bias, weight_gradient, input_gradient });
            let kernel = self.program.kernels.len() - 1;
            let reads = step.inputs.iter().chain(&step.residual).map(|operand| values[&operand.node]).collect();
            let (activation, has_residual) = (step.activation, step.residual.is_some());
            let work = TrainWork::Operation { kernel, activation, has_residual };
            values.insert(step.value, self.push(work, reads, graph.shape(step.value).len(), 0));
        }
        self.teacher_outputs = values.last_key_value().map(|(_, &value)| value);
        self.program.output_match = Some(teacher.outputs.clone());
        for matched in &teacher.values {
            let [node, of_teacher] = matched.nodes;
            let no_value = || KernelError::NoMatch { node: node_name(&graph, of_teacher) };
            let value = *values.get(&of_teacher).ok_or_else(no_value)?;
            let shape = graph.shape(of_teacher);
            let own = (node < self.graph.nodes().len()).then(|| self.graph.shape(node)).ok_or_else(no_value)?;
            let fits = [own.h, own.w, own.c] == [shape.h, shape.w, matched.channels.len()]
                && matched.channels.iter().all(|&channel| channel < shape.c);
            if !fits {
                return Err(no_value());
            }
            self.program.matched.push((matched.clone(), shape.c));
            let pair = MatchedPair { matched: self.program.matched.len() - 1, of_teacher: value };
            self.matched_at.insert(node, pair);
        }
        Ok(())
    }

    /// Every matched value is left behind by a step of the network.
    fn check_matched(&self) -> Result<(), KernelError> {
        match self.matched_at.keys().find(|&&node| self.value_of[node].is_none()) {
            Some(&node) => Err(KernelError::NoMatch { node: node_name(self.graph, node) }),
            None => Ok(()),
        }
    }

    fn forward(&mut self, steps: &[FusedStep]) -> Result<(), KernelError> {
        for step in steps {
            let operands = step.inputs.iter().chain(&step.residual);
            let reads: Vec<ValueId> = operands.map(|operand| self.value(operand.node)).collect();
            let len = self.graph.shape(step.value).len();
            let value = if matches!(self.graph.node(step.node).op, Op::BatchNorm { .. }) {
                let norm = self.add_norm(step.node);
                let seen = self.push_sums(TrainWork::Statistics { norm }, vec![reads[0]]);
                let clamp = step.activation.and_then(clamp_bounds).unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
                self.push(TrainWork::Normalise { norm, clamp }, reads, len, seen + 1)
            } else {
                let kernel = self.add_kernel(step.node)?;
                let (activation, has_residual) = (step.activation, step.residual.is_some());
                self.push(TrainWork::Operation { kernel, activation, has_residual }, reads, len, 0)
            };
            self.value_of[step.value] = Some(value);
        }
        Ok(())
    }

    /// Where the parameter `<node>.<parameter>` is among those trained.
    fn range(&self, node: NodeId, parameter: &str) -> Option<Range<usize>> {
        let name = format!("{}.{parameter}", self.graph.node(node).name);
        self.program.parameters.iter().find(|p| p.name == name).map(|p| p.range.clone())
    }

    fn add_norm(&mut self, id: NodeId) -> usize {
        let node = self.graph.node(id);
        let Op::BatchNorm { channels, eps } = node.op else { unreachable!("called for BatchNorm only") };
        let shape = self.graph.shape(id);
        let sums = self.program.n_sums..self.program.n_sums + 2 * channels;
        self.program.n_sums = sums.end;
        let [gamma, beta] = ["weight", "bias"].map(|p| self.range(id, p).expect("BatchNorm is trained"));
        let statistics = ["running_mean", "running_var"].map(|p| self.network.parameter(&node.name, p).data());
        let settings = NormSettings { eps, n_pixels: shape.h * shape.w };
        let norm = TrainedNorm::new(node.name.clone(), settings, [gamma, beta, sums], statistics);
        self.program.norms.push(norm);
        self.kernel_of[id] = self.program.norms.len() - 1;
        self.kernel_of[id]
    }

    fn add_kernel(&mut self, id: NodeId) -> Result<usize, KernelError> {
        let kernel = OpKernel::new(self.graph, self.network.weights(), id, self.isa)?;
        let node = self.graph.node(id);
        let conv = node.op.as_conv2d();
        let shapes = || [kernel.in_shapes()[0], kernel.out_shape()];
        let weight_gradient = conv.as_deref().map(|conv| WeightGradient::new(self.isa, conv, shapes()));
        let needs_input = node.inputs.iter().any(|&input| self.is_trained[input]);
        let of_input = |conv: &Conv2d| -> Option<InputGradient> {
            needs_input.then(|| InputGradient::new(self.isa, conv, shapes()))
        };
        let input_gradient = conv.as_deref().and_then(of_input);
        let (weight, bias) = (self.range(id, "weight"), self.range(id, "bias"));
        self.program.kernels.push(TrainedKernel { kernel, weight, bias, weight_gradient, input_gradient });
        self.kernel_of[id] = self.program.kernels.len() - 1;
        Ok(self.kernel_of[id])
    }

    /// Shapes of a node's first input and its output.
    pub(super) fn shapes(&self, id: NodeId) -> [Shape; 2] {
        [self.graph.shape(self.graph.node(id).inputs[0]), self.graph.shape(id)]
    }
}

fn node_name(graph: &Graph, node: NodeId) -> String {
    graph.nodes().get(node).map_or_else(|| format!("number {node}"), |node| node.name.clone())
}

fn without_last_softmax(graph: &Graph) -> Result<Graph, KernelError> {
    let nodes = graph.nodes();
    let is_softmax = matches!(nodes[graph.output()].op, Op::Softmax);
    let is_read_at_the_end = is_softmax && nodes[graph.output()].inputs[0] + 1 == graph.output();
    let n_kept = if is_read_at_the_end { nodes.len() - 1 } else { nodes.len() };
    Ok(Graph::new(graph.input(), nodes[..n_kept].to_vec())?)
}

/// By node: whether its output depends on a trained parameter.
fn trained_nodes(graph: &Graph) -> Vec<bool> {
    let mut is_trained = vec![false; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        let has_parameters = !secateur_net::parameter_shapes(&node.op).is_empty();
        is_trained[id] = has_parameters || node.inputs.iter().any(|&input| is_trained[input]);
    }
    is_trained
}
