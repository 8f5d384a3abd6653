//! Which nodes run fused, in which order, and in which memory: decided once per network, without any arithmetic. An
//! engine says what its kernels can do.

use std::collections::BTreeSet;

use crate::{Graph, NodeId, Op, Pointwise, Shape};

/// What an engine's kernels do beside the operation itself.
#[derive(Clone, Copy, Debug)]
pub struct Fusion {
    /// Whether a kernel can add another value to its result.
    pub adds: fn(&Op) -> bool,
    /// Whether a kernel can end in an activation.
    pub activates: fn(&Op, Pointwise) -> bool,
    /// Whether a kernel can multiply each channel of its input by a factor first.
    pub scales: fn(&Op) -> bool,
    /// Whether values of a shape lie in memory as Flatten would put them.
    pub is_flat: fn(Shape) -> bool,
}

/// Where a value lies while an engine runs; buffers are shared by values that are not needed at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// The image itself.
    Image,
    /// The buffer of this index, where an earlier step wrote it.
    Buffer(usize),
}

/// A value that a step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// The node whose output it is.
    pub node: NodeId,
    /// Where it lies.
    pub location: Location,
}

/// One node with what was fused to it: `activation(node(inputs) + residual)`. Of `x * sigmoid(x)` the activation is
/// [`Pointwise::Silu`].
#[derive(Clone, Debug, PartialEq)]
pub struct FusedStep {
    /// The node that is computed.
    pub node: NodeId,
    /// What it reads, as the node lists it; where a Mul in front was fused, the value instead of it, and behind it the
    /// factors `[1, 1, C]` of the value's channels.
    pub inputs: Vec<Operand>,
    /// The other operand of a fused addition.
    pub residual: Option<Operand>,
    /// The fused activation.
    pub activation: Option<Pointwise>,
    /// The node whose output is left behind, `node` itself or the Add that was fused to it; a fused activation is
    /// applied to it.
    pub value: NodeId,
    /// The buffer that it is left in; never one that the step reads.
    pub buffer: usize,
}

/// All steps in order, and the sizes of the buffers they share.
///
/// # Example
/// ```
/// use secateur_net::{Fusion, Op, Schedule, Shape, arch};
///
/// let graph = arch::build("resnet20", Shape { c: 3, h: 32, w: 32 }, 10)?;
/// // An engine whose convolutions add a residual, and whose kernels end in any activation.
/// let fusion = Fusion {
///     adds: |op| matches!(op, Op::Conv2d(_)),
///     activates: |_, _| true,
///     scales: |_| false,
///     is_flat: |_| false,
/// };
/// let schedule = Schedule::new(&graph, fusion, |node| graph.shape(node).len());
/// assert!(schedule.steps.len() < graph.nodes().len());
/// assert!(schedule.buffer_sizes.len() <= 3);
/// # Ok::<_, secateur_net::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// In order.
    pub steps: Vec<FusedStep>,
    /// Size of every buffer, in the unit of the sizes that were given.
    pub buffer_sizes: Vec<usize>,
}

impl Schedule {
    /// Fuses and orders the nodes of `graph` and assigns their memory. `size(node)` is what a node's value takes, in
    /// any unit.
    pub fn new(graph: &Graph, fusion: Fusion, size: impl Fn(NodeId) -> usize) -> Self {
        assign_buffers(graph, fuse(graph, fusion), size)
    }
}

fn fuse(graph: &Graph, fusion: Fusion) -> Vec<FusedStep> {
    let consumers = graph.consumers();
    let mut absorbed = vec![None; graph.nodes().len()];
    let mut is_absorbed = vec![false; graph.nodes().len()];
    for (id, node) in graph.nodes().iter().enumerate() {
        if let (Op::Add, &[a, b]) = (&node.op, &node.inputs[..])
            && graph.shape(a) == graph.shape(b)
        {
            let is_free = |i: NodeId| (fusion.adds)(&graph.node(i).op) && consumers[i].len() == 1;
            if let Some(conv) = [a.max(b), a.min(b)].into_iter().find(|&i| is_free(i)) {
                absorbed[id] = Some((conv, if conv == a { b } else { a }));
                is_absorbed[conv] = true;
            }
        }
    }
    // The Mul in front of a kernel that multiplies by its factors itself.
    let mut scaled = vec![None; graph.nodes().len()];
    for id in 1..graph.nodes().len() {
        if let Some([value, factors]) = channel_scale(graph, id)
            && let [reader] = consumers[id][..]
            && (fusion.scales)(&graph.node(reader).op)
        {
            scaled[reader] = Some([value, factors]);
            is_absorbed[id] = true;
        }
    }
    // The node under whose index each node's value is kept.
    let mut value_of: Vec<NodeId> = (0..graph.nodes().len()).collect();
    // The step that leaves each node's value behind.
    let mut step_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
    let mut steps: Vec<FusedStep> = Vec::new();
    for (id, node) in graph.nodes().iter().enumerate().skip(1) {
        let input = node.inputs[0];
        if is_absorbed[id] {
            continue;
        }
        let last = step_of[input];
        let takes = |at: usize, function: Pointwise, n_readers: usize| {
            let step: &FusedStep = &steps[at];
            let activates = || (fusion.activates)(&graph.node(step.node).op, function);
            consumers[input].len() == n_readers && step.activation.is_none() && activates()
        };
        if is_alias(graph, id, fusion) && !(id == graph.output() && value_of[input] == 0) {
            value_of[id] = value_of[input];
        } else if let (&Op::Pointwise(f), Some(at)) = (&node.op, last)
            && takes(at, f, 1)
        {
            steps[at].activation = Some(f);
            value_of[id] = input;
        } else if let Some((product, f)) = gate(graph, &consumers, id)
            && let Some(at) = last
            && takes(at, f, 2)
        {
            steps[at].activation = Some(f);
            value_of[product] = input;
            is_absorbed[product] = true;
        } else {
            let (node, residual) = absorbed[id].map_or((id, None), |(conv, other)| (conv, Some(value_of[other])));
            let read = scaled[node].as_ref().map_or(&graph.node(node).inputs[..], |both| &both[..]);
            let inputs = read.iter().map(|&i| unplaced(value_of[i])).collect();
            let residual = residual.map(unplaced);
            step_of[id] = Some(steps.len());
            steps.push(FusedStep { node, inputs, residual, activation: None, value: id, buffer: 0 });
        }
    }
    steps
}

/// Value and factors of a Mul that multiplies the channels of a value.
fn channel_scale(graph: &Graph, id: NodeId) -> Option<[NodeId; 2]> {
    let node = graph.node(id);
    let whole = graph.shape(id);
    let (Op::Mul, &[a, b], true) = (&node.op, &node.inputs[..], whole.h * whole.w > 1) else { return None };
    let is_scale =
        |x: NodeId, factors: NodeId| graph.shape(x) == whole && graph.shape(factors) == Shape { h: 1, w: 1, ..whole };
    [[a, b], [b, a]].into_iter().find(|&[x, factors]| is_scale(x, factors))
}

/// Of a node that is the gate of `x * gate(x)` and nothing else: the product, and it as one function of `x`.
fn gate(graph: &Graph, consumers: &[Vec<NodeId>], id: NodeId) -> Option<(NodeId, Pointwise)> {
    let node = graph.node(id);
    let is_sixth = |alpha: f32| (alpha - 1.0 / 6.0).abs() < 1e-6;
    let function = if node.op == Op::Pointwise(Pointwise::Sigmoid) {
        Pointwise::Silu
    } else if matches!(node.op, Op::Pointwise(Pointwise::HardSigmoid { alpha, beta: 0.5 }) if is_sixth(alpha)) {
        Pointwise::HardSwish
    } else {
        return None;
    };
    let [product] = consumers[id][..] else { return None };
    let factors = &graph.node(product).inputs;
    let is_gated = factors.len() == 2 && factors.contains(&id) && factors.contains(&node.inputs[0]);
    (is_gated && graph.node(product).op == Op::Mul).then_some((product, function))
}

/// A value whose buffer is not chosen yet.
const fn unplaced(node: NodeId) -> Operand {
    Operand { node, location: Location::Image }
}

/// Whether a node's output is its input, bit for bit and in the same order.
fn is_alias(graph: &Graph, id: NodeId, fusion: Fusion) -> bool {
    let node = graph.node(id);
    match node.op {
        Op::Identity => true,
        Op::Flatten | Op::FlattenPixels => (fusion.is_flat)(graph.shape(node.inputs[0])),
        Op::Input
        | Op::Conv2d(_)
        | Op::BatchNorm { .. }
        | Op::Linear { .. }
        | Op::PRelu { .. }
        | Op::Pointwise(_)
        | Op::Add
        | Op::Concat
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::Mul
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
        | Op::Pad { .. }
        | Op::Slice { .. }
        | Op::Softmax => false,
    }
}

fn assign_buffers(graph: &Graph, mut steps: Vec<FusedStep>, size: impl Fn(NodeId) -> usize) -> Schedule {
    let mut last_read = vec![usize::MAX; graph.nodes().len()];
    for (at, step) in steps.iter().enumerate() {
        step.inputs.iter().chain(&step.residual).for_each(|operand| last_read[operand.node] = at);
    }
    let mut buffer_sizes: Vec<usize> = Vec::new();
    // By size.
    let mut free: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut buffer_of = vec![0; graph.nodes().len()];
    for (at, step) in steps.iter_mut().enumerate() {
        step.buffer = take_buffer(size(step.value), &mut free, &mut buffer_sizes);
        buffer_of[step.value] = step.buffer;
        let mut done = Vec::new();
        for operand in step.inputs.iter_mut().chain(&mut step.residual).filter(|operand| operand.node != 0) {
            operand.location = Location::Buffer(buffer_of[operand.node]);
            done.extend((last_read[operand.node] == at).then_some(operand.node));
        }
        done.sort_unstable();
        done.dedup();
        free.extend(done.into_iter().map(|value| (buffer_sizes[buffer_of[value]], buffer_of[value])));
    }
    Schedule { steps, buffer_sizes }
}

/// The smallest free buffer that is large enough, else the largest free one, enlarged, else a new one.
fn take_buffer(size: usize, free: &mut BTreeSet<(usize, usize)>, buffer_sizes: &mut Vec<usize>) -> usize {
    let best = free.range((size, 0)..).next().or_else(|| free.last()).copied();
    let buffer = match best {
        Some(taken) => {
            free.remove(&taken);
            taken.1
        }
        None => {
            buffer_sizes.push(0);
            buffer_sizes.len() - 1
        }
    };
    buffer_sizes[buffer] = buffer_sizes[buffer].max(size);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, GraphBuilder};

    const ALL: Fusion = Fusion {
        adds: |op| matches!(op, Op::Conv2d(_) | Op::Linear { .. }),
        activates: |_, _| true,
        scales: |op| matches!(op, Op::Conv2d(_)),
        is_flat: |shape| shape.h * shape.w == 1 || shape.c == 1,
    };

    fn schedule(graph: &Graph, fusion: Fusion) -> Schedule {
        Schedule::new(graph, fusion, |node| graph.shape(node).len())
    }

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
    fn a_residual_block_takes_four_steps_in_two_buffers() {
        let s = schedule(&residual_block(), ALL);
        let nodes: Vec<NodeId> = s.steps.iter().map(|s| s.node).collect();
        assert_eq!(nodes, [1, 3, 6, 8]);
        assert_eq!(s.steps[1].residual, Some(Operand { node: 1, location: Location::Buffer(0) }));
        assert_eq!(s.steps[1].activation, Some(Pointwise::Relu));
        assert_eq!(s.buffer_sizes, [100, 100]);
    }

    #[test]
    fn an_engine_without_fusion_computes_every_node() {
        let nothing = Fusion { adds: |_| false, activates: |_, _| false, scales: |_| false, is_flat: |_| false };
        let graph = residual_block();
        let s = schedule(&graph, nothing);
        assert_eq!(s.steps.iter().map(|s| s.node).collect::<Vec<_>>(), (1..graph.nodes().len()).collect::<Vec<_>>());
        assert!(s.steps.iter().all(|s| s.residual.is_none() && s.activation.is_none() && s.value == s.node));
    }

    #[test]
    fn a_value_read_twice_is_not_fused_away() {
        let mut b = GraphBuilder::new(Shape { c: 2, h: 3, w: 3 });
        let a = b.push("a", conv(2), &[0]);
        let r = b.push("r", Op::Pointwise(Pointwise::Relu), &[a]);
        b.push("sum", Op::Add, &[a, r]);
        let s = schedule(&b.finish().unwrap(), ALL);
        assert_eq!(s.steps.len(), 3);
        assert!(s.steps.iter().all(|s| s.residual.is_none() && s.activation.is_none()));
    }

    /// input -> conv -> (* sigmoid) -> (* sigmoid(conv(mean))) -> conv
    fn gated_block() -> Graph {
        let mut b = GraphBuilder::new(Shape { c: 4, h: 5, w: 5 });
        let first = b.push("first", conv(4), &[0]);
        let gate = b.push("gate", Op::Pointwise(Pointwise::Sigmoid), &[first]);
        let silu = b.push("silu", Op::Mul, &[first, gate]);
        let mean = b.push("mean", Op::GlobalAvgPool, &[silu]);
        let squeezed = b.push("squeezed", Op::Conv2d(Conv2d::square(4, 4, 1, 1, 0)), &[mean]);
        let factors = b.push("factors", Op::Pointwise(Pointwise::Sigmoid), &[squeezed]);
        let scaled = b.push("scaled", Op::Mul, &[factors, silu]);
        b.push("last", conv(4), &[scaled]);
        b.finish().unwrap()
    }

    #[test]
    fn a_value_times_its_own_gate_and_channels_times_factors_are_no_steps() {
        let s = schedule(&gated_block(), ALL);
        assert_eq!(s.steps.iter().map(|s| s.node).collect::<Vec<_>>(), [1, 4, 5, 8]);
        let activations: Vec<_> = s.steps.iter().map(|s| s.activation).collect();
        assert_eq!(activations, [Some(Pointwise::Silu), None, Some(Pointwise::Sigmoid), None]);
        assert_eq!(s.steps[3].inputs.iter().map(|operand| operand.node).collect::<Vec<_>>(), [1, 5]);
        // The image's first map stays until the last step has read it.
        assert_eq!(s.steps[3].inputs[0].location, Location::Buffer(s.steps[0].buffer));
        let unfused = schedule(&gated_block(), Fusion { scales: |_| false, activates: |_, _| false, ..ALL });
        assert_eq!(unfused.steps.iter().map(|s| s.node).collect::<Vec<_>>(), (1..9).collect::<Vec<_>>());
    }

    #[test]
    fn a_gate_of_something_else_stays_a_step() {
        for (gate, factor, is_read_again) in [(0.3, 1, false), (1.0 / 6.0, 0, false), (1.0 / 6.0, 1, true)] {
            let mut b = GraphBuilder::new(Shape { c: 2, h: 3, w: 3 });
            let x = b.push("x", conv(2), &[0]);
            let gate = b.push("gate", Op::Pointwise(Pointwise::HardSigmoid { alpha: gate, beta: 0.5 }), &[x]);
            let product = b.push("product", Op::Mul, &[gate, [0, x][factor]]);
            if is_read_again {
                b.push("sum", Op::Max, &[product, gate]);
            }
            let s = schedule(&b.finish().unwrap(), ALL);
            assert!(s.steps.iter().all(|s| s.activation != Some(Pointwise::HardSwish)));
        }
    }

    #[test]
    fn an_identity_of_the_image_is_still_computed() {
        let mut b = GraphBuilder::new(Shape { c: 2, h: 1, w: 1 });
        b.push("same", Op::Identity, &[0]);
        assert_eq!(schedule(&b.finish().unwrap(), ALL).steps.len(), 1);
    }

    #[test]
    fn no_step_writes_what_it_reads() {
        for seed in 0..40 {
            for step in schedule(&crate::random::random_graph(seed), ALL).steps {
                let mut read = step.inputs.iter().chain(&step.residual);
                assert!(read.all(|operand| operand.location != Location::Buffer(step.buffer)), "{step:?}");
            }
        }
    }
}
