//! Consecutive nodes of a network, run on one group of images at a time, so that what lies between them never leaves
//! the core's cache.

use std::ops::Range;

use secateur_net::{Network, NodeId, Op, Pointwise};

use crate::engine::elementwise;
use crate::simd::aligned::AlignedVec;
use crate::{Isa, KernelError, NodeKernel, Scratch};

/// Nodes `nodes` of a network, ready to run.
#[derive(Debug)]
pub(crate) struct Segment {
    nodes: Range<NodeId>,
    kernels: Vec<NodeKernel>,
    inputs: Vec<Vec<NodeId>>,
    /// Buffer that holds each node's output until its last reader within the segment has run.
    slots: Vec<usize>,
    slot_lens: Vec<usize>,
    /// Activations that are applied where their input lies, which nothing else reads.
    in_place: Vec<Option<Pointwise>>,
}

/// Working memory of a [`Segment`], one per thread.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuffers {
    slots: Vec<AlignedVec>,
    scratch: Scratch,
}

impl Segment {
    /// Prepares `nodes` of `network`.
    ///
    /// # Errors
    /// As [`NodeKernel::new`].
    pub(crate) fn new(network: &Network, nodes: Range<NodeId>) -> Result<Self, KernelError> {
        let graph = network.graph();
        let kernels: Vec<NodeKernel> = nodes
            .clone()
            .map(|node| NodeKernel::new(graph, network.weights(), node))
            .collect::<Result<_, KernelError>>()?;
        let inputs: Vec<Vec<NodeId>> = nodes.clone().map(|node| graph.node(node).inputs.clone()).collect();
        let readers = graph.consumers();
        let (mut slots, mut slot_lens, mut free) = (Vec::new(), Vec::<usize>::new(), Vec::<usize>::new());
        let in_place: Vec<Option<Pointwise>> = nodes
            .clone()
            .map(|node| match (&graph.node(node).op, &inputs[node - nodes.start][..]) {
                (Op::Pointwise(f), [input]) if nodes.contains(input) && readers[*input].len() == 1 => Some(*f),
                _ => None,
            })
            .collect();
        for (i, node) in nodes.clone().enumerate() {
            if in_place[i].is_some() {
                slots.push(slots[inputs[i][0] - nodes.start]);
                continue;
            }
            let slot = free.pop().unwrap_or(slot_lens.len());
            if slot == slot_lens.len() {
                slot_lens.push(0);
            }
            slot_lens[slot] = slot_lens[slot].max(kernels[i].out_len());
            slots.push(slot);
            let mut done: Vec<NodeId> = inputs[i].clone();
            done.sort_unstable();
            done.dedup();
            let done = done.into_iter().filter(|input| nodes.contains(input));
            free.extend(
                done.filter(|&input| readers[input].iter().all(|&r| r <= node)).map(|i| slots[i - nodes.start]),
            );
        }
        Ok(Self { nodes, kernels, inputs, slots, slot_lens, in_place })
    }

    /// Runs the nodes on one group of images. `outside(node)` is the output of a node before the segment; `visit(node,
    /// input, output)` is told each node's first input and its output as soon as it is computed; an activation's input
    /// may be its output already.
    ///
    /// # Errors
    /// As [`NodeKernel::run`].
    pub(crate) fn run<'a>(
        &'a self,
        buffers: &mut SegmentBuffers,
        outside: &dyn Fn(NodeId) -> &'a [f32],
        mut visit: impl FnMut(NodeId, &[f32], &[f32]),
    ) -> Result<(), KernelError> {
        buffers.slots.resize_with(self.slot_lens.len().max(buffers.slots.len()), AlignedVec::default);
        for (slot, &len) in buffers.slots.iter_mut().zip(&self.slot_lens) {
            slot.grow(len);
        }
        for (i, node) in self.nodes.clone().enumerate() {
            if let Some(function) = self.in_place[i] {
                let out = &mut buffers.slots[self.slots[i]][..self.kernels[i].out_len()];
                elementwise::activate_all(Isa::detect(), function, out);
                visit(node, out, out);
                continue;
            }
            let mut out = std::mem::take(&mut buffers.slots[self.slots[i]]);
            let inputs: Vec<&[f32]> = self.inputs[i]
                .iter()
                .map(|&input| match input.checked_sub(self.nodes.start) {
                    Some(at) => &buffers.slots[self.slots[at]][..self.kernels[at].out_len()],
                    None => outside(input),
                })
                .collect();
            let result = self.kernels[i].run(&inputs, &mut out[..self.kernels[i].out_len()], &mut buffers.scratch);
            if result.is_ok() {
                visit(node, inputs[0], &out[..self.kernels[i].out_len()]);
            }
            buffers.slots[self.slots[i]] = out;
            result?;
        }
        Ok(())
    }
}
