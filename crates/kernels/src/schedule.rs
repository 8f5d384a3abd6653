//! Which nodes run fused, in which order, and in which memory: decided once per network, without any arithmetic.

use secateur_net::{Graph, NodeId, Op, Pointwise};

/// Where a step reads one of its inputs; lengths are values per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
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
pub struct Step {
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
pub struct Schedule {
    /// In order.
    pub steps: Vec<Step>,
    /// Values per image of every slot.
    pub slot_lens: Vec<usize>,
}

/// A step before memory is assigned: inputs are node indices whose value it reads.
struct Fused {
    node: NodeId,
    inputs: Vec<NodeId>,
    residual: Option<NodeId>,
    activation: Option<Pointwise>,
    /// The node whose value the step leaves behind, before and after a fused activation.
    value: NodeId,
}

/// Fuses and orders the nodes of `graph` and assigns their memory.
pub fn schedule(graph: &Graph) -> Schedule {
    assign_slots(graph, &fuse(graph))
}

fn fuse(graph: &Graph) -> Vec<Fused> {
    let consumers = graph.consumers();
    let mut absorbed_conv = vec![None; graph.nodes().len()];
    let mut is_absorbed = vec![false; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        if let (Op::Add, &[a, b]) = (&node.op, &node.inputs[..]) {
            let is_free = |i: NodeId| has_fused_epilogue(&graph.node(i).op) && consumers[i].len() == 1;
            if let Some(conv) = [a.max(b), a.min(b)].into_iter().find(|&i| is_free(i)) {
                absorbed_conv[id] = Some((conv, if conv == a { b } else { a }));
                is_absorbed[conv] = true;
            }
        }
    }
    // The node under whose index each node's value is kept.
    let mut value_of: Vec<NodeId> = (0..graph.nodes().len()).collect();
    let mut steps: Vec<Fused> = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate().skip(1) {
        let input = node.inputs[0];
        let last = steps.iter().rposition(|s| s.value == input);
        if is_absorbed[id] {
            continue;
        }
        if is_alias(graph, id) && !(id == graph.output() && value_of[input] == 0) {
            value_of[id] = value_of[input];
        } else if let (Op::Pointwise(f), Some(at)) =
            (&node.op, last.filter(|&at| consumers[input].len() == 1 && steps[at].activation.is_none()))
        {
            steps[at].activation = Some(*f);
            value_of[id] = input;
        } else {
            let (node, residual) = absorbed_conv[id].map_or((id, None), |(conv, other)| (conv, Some(value_of[other])));
            let inputs = graph.node(node).inputs.iter().map(|&i| value_of[i]).collect();
            steps.push(Fused { node, inputs, residual, activation: None, value: id });
        }
    }
    steps
}

const fn has_fused_epilogue(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::Linear { .. })
}

/// Whether a node's output is its input, bit for bit and in the same order.
fn is_alias(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match node.op {
        Op::Identity => true,
        Op::Flatten => {
            let shape = graph.shape(node.inputs[0]);
            shape.h * shape.w == 1 || shape.c == 1
        }
        _ => false,
    }
}

fn assign_slots(graph: &Graph, fused: &[Fused]) -> Schedule {
    let mut last_read = vec![usize::MAX; graph.nodes().len()];
    for (at, step) in fused.iter().enumerate() {
        step.inputs.iter().chain(&step.residual).for_each(|&value| last_read[value] = at);
    }
    let mut slot_lens: Vec<usize> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut slot_of = vec![0; graph.nodes().len()];
    let mut steps = Vec::with_capacity(fused.len());
    for (at, step) in fused.iter().enumerate() {
        let out_len = graph.shape(step.value).len();
        let out_slot = take_slot(out_len, &mut free, &mut slot_lens);
        slot_of[step.value] = out_slot;
        let source = |value: NodeId| match (value, graph.shape(value).len()) {
            (0, len) => Source::Image { len },
            (_, len) => Source::Slot { slot: slot_of[value], len },
        };
        steps.push(Step {
            node: step.node,
            inputs: step.inputs.iter().map(|&value| source(value)).collect(),
            residual: step.residual.map(source),
            activation: step.activation,
            out_slot,
            out_len,
        });
        let mut done: Vec<NodeId> = step.inputs.iter().chain(&step.residual).copied().collect();
        done.sort_unstable();
        done.dedup();
        free.extend(done.into_iter().filter(|&value| value != 0 && last_read[value] == at).map(|value| slot_of[value]));
    }
    Schedule { steps, slot_lens }
}

/// The smallest free slot that is large enough, else the largest free one, enlarged, else a new one.
fn take_slot(len: usize, free: &mut Vec<usize>, slot_lens: &mut Vec<usize>) -> usize {
    let best = (0..free.len()).min_by_key(|&i| {
        let has = slot_lens[free[i]];
        (has < len, has.abs_diff(len))
    });
    let slot = best.map_or(slot_lens.len(), |i| free.swap_remove(i));
    if slot == slot_lens.len() {
        slot_lens.push(0);
    }
    slot_lens[slot] = slot_lens[slot].max(len);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Conv2d, GraphBuilder, Shape};

    fn conv(c: usize) -> Op {
        Op::Conv2d(Conv2d::square(c, c, 3, 1, 1))
    }

    /// input -> conv -> relu -> conv -> (+ relu) -> relu -> mean -> flatten -> linear
    fn residual_block() -> Graph {
        let mut b = GraphBuilder::new(Shape { c: 4, h: 5, w: 5 });
        let first = b.push("first", conv(4), &[0]);
        let relu = b.push("relu", Op::Pointwise(Pointwise::Relu), &[first]);
        let second = b.push("second", conv(4), &[relu]);
        let sum = b.push("sum", Op::Add, &[second, relu]);
        let out = b.push("out", Op::Pointwise(Pointwise::Relu), &[sum]);
        let mean = b.push("mean", Op::GlobalAvgPool, &[out]);
        let flat = b.push("flat", Op::Flatten, &[mean]);
        b.push("linear", Op::Linear { in_features: 4, out_features: 3, bias: true }, &[flat]);
        b.finish().unwrap()
    }

    #[test]
    fn a_residual_block_takes_four_steps_in_two_slots() {
        let s = schedule(&residual_block());
        let nodes: Vec<NodeId> = s.steps.iter().map(|s| s.node).collect();
        assert_eq!(nodes, [1, 3, 6, 8]);
        assert_eq!(s.steps[1].residual, Some(Source::Slot { slot: 0, len: 100 }));
        assert_eq!(s.steps[1].activation, Some(Pointwise::Relu));
        assert_eq!(s.slot_lens, [100, 100]);
    }

    #[test]
    fn a_value_read_twice_is_not_fused_away() {
        let mut b = GraphBuilder::new(Shape { c: 2, h: 3, w: 3 });
        let a = b.push("a", conv(2), &[0]);
        let r = b.push("r", Op::Pointwise(Pointwise::Relu), &[a]);
        b.push("sum", Op::Add, &[a, r]);
        let s = schedule(&b.finish().unwrap());
        assert_eq!(s.steps.len(), 3);
        assert!(s.steps.iter().all(|s| s.residual.is_none() && s.activation.is_none()));
    }

    #[test]
    fn an_identity_of_the_image_is_still_computed() {
        let mut b = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
        b.push("same", Op::Identity, &[0]);
        assert_eq!(schedule(&b.finish().unwrap()).steps.len(), 1);
    }

    #[test]
    fn no_step_writes_what_it_reads() {
        for step in schedule(&residual_block()).steps {
            let read = step.inputs.iter().chain(&step.residual);
            assert!(read.into_iter().all(|s| !matches!(s, Source::Slot { slot, .. } if *slot == step.out_slot)));
        }
    }
}
