//! Which nodes run together, in which order, and in which memory: decided once per topology, without any arithmetic.
//!
//! The rules are those of the CPU engine, except that activations are fused only where the shader has an epilogue, and that a
//! Flatten is free only behind one pixel: here channels come in fours.

use secateur_net::{Graph, NodeId, Op, Pointwise};

/// Where a step reads; buffers are shared by values that are not needed at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The image itself.
    Image,
    /// An earlier step's output.
    Slot(usize),
}

/// One node with what was fused to it: `activation(node(inputs) + residual)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused {
    /// The node that is computed.
    pub node: NodeId,
    /// The nodes whose values it reads, and where those are.
    pub inputs: Vec<(NodeId, Source)>,
    /// The other operand of a fused addition.
    pub residual: Option<(NodeId, Source)>,
    /// The fused activation.
    pub activation: Option<Pointwise>,
    /// The node whose value is left behind.
    pub value: NodeId,
    /// Where; never where the step reads.
    pub slot: usize,
}

/// All steps in order, and how many slots they share.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// In order.
    pub steps: Vec<Fused>,
    /// Number of slots.
    pub n_slots: usize,
}

/// Fuses and orders the nodes of `graph`. `size(node)` is what one image's value of a node takes; slots are given to values of
/// like size.
pub fn schedule(graph: &Graph, size: impl Fn(NodeId) -> usize) -> Schedule {
    assign_slots(graph, fuse(graph), size)
}

fn fuse(graph: &Graph) -> Vec<Fused> {
    let consumers = graph.consumers();
    let mut absorbed = vec![None; graph.nodes().len()];
    let mut is_absorbed = vec![false; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        if let (Op::Add, &[a, b]) = (&node.op, &node.inputs[..]) {
            let is_free = |i: NodeId| has_weights(&graph.node(i).op) && consumers[i].len() == 1;
            if let Some(conv) = [a.max(b), a.min(b)].into_iter().find(|&i| is_free(i)) {
                absorbed[id] = Some((conv, if conv == a { b } else { a }));
                is_absorbed[conv] = true;
            }
        }
    }
    // The node under whose index each node's value is kept.
    let mut value_of: Vec<NodeId> = (0..graph.nodes().len()).collect();
    let mut steps: Vec<Fused> = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate().skip(1) {
        let input = node.inputs[0];
        if is_absorbed[id] {
            continue;
        }
        let last = steps.iter().rposition(|s| s.value == input);
        let takes = |&at: &usize| {
            let step: &Fused = &steps[at];
            let op = &graph.node(step.node).op;
            consumers[input].len() == 1 && step.activation.is_none() && (has_weights(op) || matches!(op, Op::Add))
        };
        if is_alias(graph, id) && !(id == graph.output() && value_of[input] == 0) {
            value_of[id] = value_of[input];
        } else if let (Op::Pointwise(f), Some(at)) = (&node.op, last.filter(takes)) {
            steps[at].activation = Some(*f);
            value_of[id] = input;
        } else {
            let (node, residual) = absorbed[id].map_or((id, None), |(conv, other)| (conv, Some(value_of[other])));
            let inputs = graph.node(node).inputs.iter().map(|&i| (value_of[i], Source::Image)).collect();
            let residual = residual.map(|value| (value, Source::Image));
            steps.push(Fused { node, inputs, residual, activation: None, value: id, slot: 0 });
        }
    }
    steps
}

/// Operations whose shader ends in bias, residual and activation.
const fn has_weights(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::Linear { .. } | Op::BatchNorm { .. })
}

/// Whether a node's output is its input, bit for bit and in the same order.
fn is_alias(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match node.op {
        Op::Identity => true,
        Op::Flatten => {
            let shape = graph.shape(node.inputs[0]);
            shape.h * shape.w == 1
        }
        _ => false,
    }
}

fn assign_slots(graph: &Graph, mut steps: Vec<Fused>, size: impl Fn(NodeId) -> usize) -> Schedule {
    let mut last_read = vec![usize::MAX; graph.nodes().len()];
    for (at, step) in steps.iter().enumerate() {
        step.inputs.iter().chain(&step.residual).for_each(|&(value, _)| last_read[value] = at);
    }
    let mut sizes: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut slot_of = vec![0; graph.nodes().len()];
    for (at, step) in steps.iter_mut().enumerate() {
        let needs = size(step.value);
        let best = (0..free.len()).min_by_key(|&i| (sizes[free[i]] < needs, sizes[free[i]].abs_diff(needs)));
        step.slot = best.map_or(sizes.len(), |i| free.swap_remove(i));
        match sizes.get_mut(step.slot) {
            Some(has) => *has = needs.max(*has),
            None => sizes.push(needs),
        }
        slot_of[step.value] = step.slot;
        let mut done: Vec<NodeId> = Vec::new();
        for (value, source) in step.inputs.iter_mut().chain(&mut step.residual) {
            *source = if *value == 0 { Source::Image } else { Source::Slot(slot_of[*value]) };
            if *value != 0 && last_read[*value] == at && !done.contains(value) {
                done.push(*value);
            }
        }
        free.extend(done.into_iter().map(|value| slot_of[value]));
    }
    Schedule { steps, n_slots: sizes.len() }
}
