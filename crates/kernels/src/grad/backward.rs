//! The second half of a training step's instructions: from the loss back to every trained parameter.

use secateur_net::{FusedStep, NodeId, Op};

use crate::KernelError;
use crate::engine::elementwise::clamp_bounds;
use crate::grad::op_gradient::{OpGradient, sources};
use crate::grad::program::{Builder, MatchedPair, TrainWork, ValueId};

impl Builder<'_> {
    /// Appends the loss and all gradients of `steps`, which stand in order.
    ///
    /// # Errors
    /// An operation without a gradient, by name.
    pub(super) fn backward(&mut self, steps: &[FusedStep]) -> Result<(), KernelError> {
        let last = steps.last().expect("a graph with parameters has steps").value;
        let outputs = self.value(last);
        let reads = [outputs].into_iter().chain(self.teacher_outputs).collect();
        self.gradient_of[last] = Some(self.push(TrainWork::Loss, reads, self.program.n_outputs, 0));
        for step in steps.iter().rev() {
            self.match_value(step.value);
            // Some depend on no parameter, and the outputs of some are read by nothing.
            let Some(gradient) = self.gradient_of[step.value].take() else { continue };
            let (g, seen) = self.before_activation(step, gradient);
            if let Some(residual) = step.residual {
                self.pass_on(residual.node, g);
            }
            match seen {
                Some(seen) => self.norm_backward(step, g, seen),
                None => self.op_backward(step, g)?,
            }
        }
        Ok(())
    }

    /// Adds the gradient of a matched value to that of its node.
    fn match_value(&mut self, node: NodeId) {
        let Some(&MatchedPair { matched, of_teacher }) = self.matched_at.get(&node) else { return };
        if self.is_trained[node] {
            let reads = vec![self.value(node), of_teacher];
            self.push_gradient(node, TrainWork::Match { matched }, reads, 0);
        }
    }

    /// The gradient of what a step's activation reads; and of a BatchNorm, the phase in which its sums are made.
    fn before_activation(&mut self, step: &FusedStep, gradient: ValueId) -> (ValueId, Option<usize>) {
        let bounds = step.activation.and_then(clamp_bounds);
        let norm = matches!(self.graph.node(step.node).op, Op::BatchNorm { .. }).then(|| self.kernel_of[step.node]);
        let (work, mut reads) = match (bounds, norm) {
            (Some(bounds), None) => (TrainWork::StopAtBounds { bounds }, vec![gradient, self.value(step.value)]),
            (Some(bounds), Some(norm)) => {
                (TrainWork::StopAndSum { norm, bounds }, vec![gradient, self.value(step.value)])
            }
            (None, Some(norm)) => {
                let reads = vec![gradient, self.value(step.inputs[0].node)];
                return (gradient, Some(self.push_sums(TrainWork::NormSums { norm }, reads)));
            }
            (None, None) => return (gradient, None),
        };
        reads.extend(norm.map(|_| self.value(step.inputs[0].node)));
        let g = if self.is_shared[gradient] {
            self.push(work, reads, self.program.value_lens[gradient], 0)
        } else {
            self.push_in_place(work, reads);
            gradient
        };
        (g, norm.map(|_| self.ready[g]))
    }

    /// Appends the gradient of a BatchNorm's input, whose sums are made in phase `seen`.
    fn norm_backward(&mut self, step: &FusedStep, g: ValueId, seen: usize) {
        let (input, norm) = (step.inputs[0].node, self.kernel_of[step.node]);
        if self.is_trained[input] {
            let x = self.value(input);
            self.push_gradient(input, TrainWork::NormInput { norm }, vec![g, x], seen + 1);
        }
    }

    /// Adds the gradient `g` to that of `node` as it is.
    fn pass_on(&mut self, node: NodeId, g: ValueId) {
        if !self.is_trained[node] {
            return;
        }
        self.is_shared[g] = true;
        let sum = match self.gradient_of[node] {
            None => g,
            Some(previous) => self.push(TrainWork::Sum, vec![previous, g], self.program.value_lens[g], 0),
        };
        self.gradient_of[node] = Some(sum);
    }

    /// Appends an instruction that writes the gradient of `node`, and reads what was there before behind `reads`.
    fn push_gradient(&mut self, node: NodeId, work: TrainWork, mut reads: Vec<ValueId>, earliest: usize) {
        reads.extend(self.gradient_of[node]);
        let len = self.graph.shape(node).len();
        self.gradient_of[node] = Some(self.push(work, reads, len, earliest));
    }

    /// Appends the gradients of a step's parameters and inputs, given that of its operation's output.
    fn op_backward(&mut self, step: &FusedStep, g: ValueId) -> Result<(), KernelError> {
        let (id, op) = (step.node, &self.graph.node(step.node).op);
        let inputs: Vec<NodeId> = step.inputs.iter().map(|operand| operand.node).collect();
        let first = inputs[0];
        let (x, y, kernel) = (self.value(first), self.value(step.value), self.kernel_of[id]);
        if op.as_conv2d().is_some() {
            self.push_sums(TrainWork::ConvWeight { kernel }, vec![x, g]);
            if self.is_trained[first] {
                self.push_gradient(first, TrainWork::ConvInput { kernel }, vec![g], 0);
            }
            return Ok(());
        }
        if matches!(op, Op::PRelu { .. }) {
            self.push_sums(TrainWork::SlopeWeight { kernel }, vec![x, g]);
        }
        let shapes = self.graph.node(id).inputs.iter().map(|&input| self.graph.shape(input));
        let is_plain_sum = matches!(op, Op::Add) && shapes.clone().all(|shape| shape == self.graph.shape(id));
        for (input, &node) in inputs.iter().enumerate() {
            if !self.is_trained[node] {
                continue;
            }
            if is_plain_sum {
                self.pass_on(node, g);
                continue;
            }
            let gradient = self.op_gradient(id, input)?;
            let reads = match gradient {
                OpGradient::Function(_) | OpGradient::Slopes => vec![g, x],
                OpGradient::Product { .. } => [g].into_iter().chain(inputs.iter().map(|&i| self.value(i))).collect(),
                OpGradient::MaxPool { .. } | OpGradient::GlobalMax { .. } => vec![g, x, y],
                OpGradient::Softmax { .. } => vec![g, y],
                OpGradient::Moved(_) | OpGradient::AveragePool { .. } | OpGradient::GlobalAverage { .. } => vec![g],
            };
            self.program.gradients.push(gradient);
            let (gradient, has_previous) = (self.program.gradients.len() - 1, self.gradient_of[node].is_some());
            self.push_gradient(node, TrainWork::Input { gradient, kernel, has_previous }, reads, 0);
        }
        Ok(())
    }

    /// The gradient of input number `input` of a node that is neither a convolution nor a BatchNorm.
    fn op_gradient(&self, id: NodeId, input: usize) -> Result<OpGradient, KernelError> {
        let (node, [shape, _], shapes) = (self.graph.node(id), self.shapes(id), self.shapes(id));
        let kernel = &self.program.kernels[self.kernel_of[id]].kernel;
        let n_inputs = node.inputs.len();
        Ok(match &node.op {
            Op::Pointwise(function) => OpGradient::Function(*function),
            Op::PRelu { .. } => OpGradient::Slopes,
            Op::Add
            | Op::Concat
            | Op::Flatten
            | Op::FlattenPixels
            | Op::ChannelShuffle { .. }
            | Op::DepthToSpace { .. }
            | Op::Pad { .. }
            | Op::Slice { .. }
            | Op::Identity => OpGradient::Moved(sources(kernel, input, 0.0)),
            Op::Mul => {
                let sources = (0..n_inputs).map(|i| sources(kernel, i, 1.0)).collect();
                OpGradient::Product { sources, of: input }
            }
            Op::MaxPool(window) => OpGradient::MaxPool { window: window.clone(), shapes },
            Op::AvgPool(window) => OpGradient::AveragePool { window: window.clone(), shapes },
            Op::GlobalAvgPool => OpGradient::GlobalAverage { input: shape },
            Op::GlobalMaxPool => OpGradient::GlobalMax { input: shape },
            Op::Softmax => OpGradient::Softmax { channels: shape.c },
            Op::Input
            | Op::Conv2d(_)
            | Op::BatchNorm { .. }
            | Op::Linear { .. }
            | Op::Resize { .. }
            | Op::LayerNorm { .. }
            | Op::ConvTranspose2d(_)
            | Op::ChannelConv { .. }
            | Op::GroupNorm { .. }
            | Op::LocalResponseNorm { .. }
            | Op::Max
            | Op::Min
            | Op::ChannelMean
            | Op::ChannelMax
            | Op::BranchSum { .. }
            | Op::BranchSoftmax { .. } => {
                return Err(KernelError::NoGradient { node: node.name.clone(), op: node.op.name() });
            }
        })
    }
}
