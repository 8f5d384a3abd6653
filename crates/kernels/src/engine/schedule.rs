//! Which nodes run fused, in which order, and in which memory, by what the kernels here can do.

use secateur_net::{FusedStep, Fusion, Graph, NodeId, Op, Pointwise};

/// A kernel of weights adds a residual in its epilogue, any applies an activation; images lie in vector lanes, so one channel or one
/// pixel is flat already.
const FUSION: Fusion = Fusion {
    adds: |op| matches!(op, Op::Conv2d(_) | Op::Linear { .. }),
    activates: |_| true,
    is_flat: |shape| shape.h * shape.w == 1 || shape.c == 1,
};

/// Where a step reads one of its inputs; lengths are values per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The image itself.
    Image {
        /// Values per image.
        len: usize,
    },
    /// An earlier step's output.
    Slot {
        /// Index of the slot.
        slot: usize,
        /// Values per image.
        len: usize,
    },
}

/// One node with what was fused to it: `activation(node(inputs) + residual)`.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The node whose kernel runs.
    pub node: NodeId,
    /// Its inputs.
    pub inputs: Vec<Source>,
    /// The other operand of a fused addition.
    pub residual: Option<Source>,
    /// The fused activation.
    pub activation: Option<Pointwise>,
    /// Slot written; never one that the step reads.
    pub out_slot: usize,
    /// Values per image.
    pub out_len: usize,
}

/// All steps, and the lengths (per image) of the slots they share.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// In order.
    pub steps: Vec<Step>,
    /// Values per image of every slot.
    pub slot_lens: Vec<usize>,
}

/// Fuses and orders the nodes of `graph` and assigns their memory.
pub(crate) fn schedule(graph: &Graph) -> Schedule {
    let len = |node: NodeId| graph.shape(node).len();
    let schedule = secateur_net::Schedule::new(graph, FUSION, len);
    let source = |(value, source): (NodeId, secateur_net::Source)| match source {
        secateur_net::Source::Image => Source::Image { len: len(value) },
        secateur_net::Source::Slot(slot) => Source::Slot { slot, len: len(value) },
    };
    let step = |FusedStep { node, inputs, residual, activation, value, slot }| Step {
        node,
        inputs: inputs.into_iter().map(source).collect(),
        residual: residual.map(source),
        activation,
        out_slot: slot,
        out_len: len(value),
    };
    Schedule { steps: schedule.steps.into_iter().map(step).collect(), slot_lens: schedule.slot_sizes }
}
