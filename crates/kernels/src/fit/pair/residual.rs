//! A pair of maps on one group of images: what it lacks, and what that asks of either map.

use secateur_net::{ConvTranspose2d, Network, NodeId, Shape};

use crate::engine::elementwise;
use crate::engine::op_kernel::{OpKernel, Scratch, Tail};
use crate::fit::pair::PairProblem;
use crate::fit::pair::moments::{GroupOfImages, MomentBuffers};
use crate::fit::pair::slope::multiply_by_slopes;
use crate::fit::segment::{Segment, SegmentBuffers};
use crate::fit::surrogate::hidden_target;
use crate::fit::target::Nonlinearity;
use crate::simd::aligned::AlignedVec;
use crate::{Isa, KernelError, LinearMap, Refit};

/// The pair with some weights, ready to run.
pub(crate) struct GroupPass<'a> {
    problem: &'a PairProblem<'a>,
    /// From the first map to the second.
    segment: Segment,
    /// The node that the first map reads.
    source: NodeId,
    /// From the second map's outputs to its inputs.
    back: OpKernel,
    maps: [LinearMap; 2],
    /// The second map without its bias.
    second: OpKernel,
    /// Both maps with the weights of a direction.
    along: Option<[OpKernel; 2]>,
}

/// What a group of images makes, `[.., LANES]` each, and working memory.
#[derive(Debug, Default)]
pub(crate) struct PassBuffers {
    segment: SegmentBuffers,
    scratch: Scratch,
    pub moments: MomentBuffers,
    /// Outputs of the first map.
    sums: AlignedVec,
    /// What the second map reads.
    hidden: AlignedVec,
    /// The other addends.
    others: AlignedVec,
    /// What the second map's outputs lack; zero where what follows hides it, and where there is no image.
    residual: AlignedVec,
    /// What the residual asks of the first map's outputs.
    brought_back: AlignedVec,
    /// What the first map's direction makes of its inputs.
    first_change: AlignedVec,
    /// What either direction changes of the second map's outputs.
    changes: [AlignedVec; 2],
    /// Values of the residual, of the first map's outputs.
    lens: [usize; 2],
}

impl PassBuffers {
    /// The residual, and what the directions of the first and the second map change of it.
    pub(crate) fn residual_and_changes(&self) -> [&[f32]; 3] {
        let n = self.lens[0];
        [&self.residual[..n], &self.changes[0][..n], &self.changes[1][..n]]
    }

    /// Sum of the squared residuals.
    pub(crate) fn energy(&self) -> f64 {
        let lines = self.residual[..self.lens[0]].chunks(128);
        lines.map(|line| f64::from(line.iter().map(|r| r * r).sum::<f32>())).sum()
    }
}

impl<'a> GroupPass<'a> {
    /// With the weights of `network`.
    ///
    /// # Errors
    /// As [`crate::NodeKernel::new`].
    pub(crate) fn new(
        problem: &'a PairProblem<'a>,
        network: &Network,
        maps: &[LinearMap; 2],
    ) -> Result<Self, KernelError> {
        let (graph, pair) = (network.graph(), problem.pair);
        let [_, second] = maps;
        let weight = second.weights(network);
        let [input, output] = second.shapes();
        let back = OpKernel::transposed(Isa::detect(), &turned_back(second), [output, input], weight);
        Ok(Self {
            problem,
            segment: Segment::new(network, pair.first..pair.second + 1)?,
            source: graph.node(pair.first).inputs[0],
            back,
            maps: maps.clone(),
            second: kernel(second, weight, None),
            along: None,
        })
    }

    /// The same, to measure what a direction changes.
    pub(crate) fn along(mut self, direction: [&Refit; 2]) -> Self {
        self.along = Some([0, 1].map(|at| {
            let Refit { weight, bias } = direction[at];
            kernel(&self.maps[at], weight, Some(bias))
        }));
        self
    }

    /// Runs the pair on a group of images.
    ///
    /// # Errors
    /// As [`crate::NodeKernel::run`].
    pub(crate) fn residual(&self, group: usize, buffers: &mut PassBuffers) -> Result<(), KernelError> {
        let PairProblem { pair, target, original, n_sum_channels, outputs, activations, .. } = *self.problem;
        let images = activations.images();
        let lanes = images.lanes();
        let [[_, sums_shape], [hidden_shape, out_shape]] = self.maps.each_ref().map(LinearMap::shapes);
        buffers.lens = [out_shape, sums_shape].map(|shape| shape.len() * lanes);
        let [n_out, n_sums] = buffers.lens;
        let PassBuffers { segment, sums, hidden, others, residual, .. } = buffers;
        sums.grow(n_sums);
        hidden.grow(hidden_shape.len() * lanes);
        [&mut *others, &mut *residual].into_iter().for_each(|values| values.grow(n_out));
        others[..n_out].fill(0.0);
        for &other in target.others.iter().filter(|&&other| other < pair.first) {
            elementwise::add_to(&mut others[..n_out], activations.whole(other, group));
        }
        self.segment.run(segment, &|node| activations.whole(node, group), |node, input, out| {
            if node == pair.first {
                sums[..n_sums].copy_from_slice(out);
            } else if node == pair.second {
                hidden[..input.len()].copy_from_slice(input);
                residual[..n_out].copy_from_slice(out);
            } else if target.others.contains(&node) {
                elementwise::add_to(&mut others[..n_out], out);
            }
        })?;
        let wanted = original.whole(target.sum, group).chunks_exact(n_sum_channels * lanes);
        let pixels = residual[..n_out].chunks_exact_mut(outputs.len() * lanes);
        let others = others[..n_out].chunks_exact(outputs.len() * lanes);
        for ((made, others), wanted) in pixels.zip(others).zip(wanted) {
            let channels = made.chunks_exact_mut(lanes).zip(others.chunks_exact(lanes));
            for ((made, others), &channel) in channels.zip(outputs) {
                let wanted = &wanted[channel * lanes..][..lanes];
                replace_by_lack(target.nonlinearity, made, others, wanted);
            }
        }
        images.clear_missing(group, &mut residual[..n_out]);
        Ok(())
    }

    /// What the residual asks of the first map's outputs, to first order.
    pub(crate) fn bring_back(&self, buffers: &mut PassBuffers) {
        let [n_out, n_sums] = buffers.lens;
        let PassBuffers { scratch, sums, residual, brought_back, .. } = buffers;
        brought_back.grow(n_sums);
        let back = &mut brought_back[..n_sums];
        self.back.run(&|_| &residual[..n_out], Tail::default(), back, scratch);
        multiply_by_slopes(&self.problem.pair.functions, &sums[..n_sums], back);
    }

    /// Tells `visit` the inputs of both maps, and what each is asked for.
    pub(crate) fn with_inputs(
        &self,
        group: usize,
        buffers: &mut PassBuffers,
        mut visit: impl FnMut(GroupOfImages<'_>, [[&[f32]; 2]; 2], &mut MomentBuffers),
    ) {
        let [n_out, n_sums] = buffers.lens;
        let PassBuffers { moments, hidden, residual, brought_back, .. } = buffers;
        let activations = self.problem.activations;
        let n_hidden = self.maps[1].shapes()[0].len() * activations.images().lanes();
        let first = [activations.whole(self.source, group), &brought_back[..n_sums]];
        visit(
            GroupOfImages { images: activations.images(), group },
            [first, [&hidden[..n_hidden], &residual[..n_out]]],
            moments,
        );
    }

    /// What the direction of either map changes of the second's outputs, to first order; zero where that is hidden.
    pub(crate) fn changes(&self, group: usize, buffers: &mut PassBuffers) {
        let Some([first, second]) = &self.along else { return };
        let [n_out, n_sums] = buffers.lens;
        let PassBuffers { scratch, sums, hidden, residual, first_change, changes, .. } = buffers;
        first_change.grow(n_sums);
        changes.iter_mut().for_each(|values| values.grow(n_out));
        let activations = self.problem.activations;
        let x = activations.whole(self.source, group);
        first.run(&|_| x, Tail::default(), &mut first_change[..n_sums], scratch);
        multiply_by_slopes(&self.problem.pair.functions, &sums[..n_sums], &mut first_change[..n_sums]);
        let [by_first, by_second] = changes;
        self.second.run(&|_| &first_change[..n_sums], Tail::default(), &mut by_first[..n_out], scratch);
        second.run(&|_| &**hidden, Tail::default(), &mut by_second[..n_out], scratch);
        for change in [by_first, by_second] {
            for (change, &residual) in change[..n_out].iter_mut().zip(&residual[..n_out]) {
                *change = if residual == 0.0 { 0.0 } else { *change };
            }
        }
    }
}

/// Replaces the outputs of the second map by what they lack.
fn replace_by_lack(nonlinearity: Nonlinearity, made: &mut [f32], others: &[f32], wanted: &[f32]) {
    for ((made, other), &wanted) in made.iter_mut().zip(others).zip(wanted) {
        let sum = *made + other;
        let nearest = match nonlinearity {
            Nonlinearity::Clamp(clamp) => hidden_target(wanted, sum, clamp),
            Nonlinearity::Unknown | Nonlinearity::Softmax => wanted,
        };
        *made = nearest - sum;
    }
}

/// A map with some weights.
fn kernel(map: &LinearMap, weight: &[f32], bias: Option<&[f32]>) -> OpKernel {
    OpKernel::convolution(Isa::detect(), &map.convolution(), map.shapes(), weight, bias)
}

/// The transposed convolution from a map's outputs to its inputs.
fn turned_back(map: &LinearMap) -> ConvTranspose2d {
    let [Shape { c: in_channels, .. }, Shape { c: out_channels, .. }] = map.shapes();
    let axes = map.axes();
    let reach = |axis: usize| (axes[axis].kernel - 1) * axes[axis].dilation + 1;
    // What the kernel's last step leaves of the inputs.
    let left = |axis: usize| {
        axes[axis].n_in + axes[axis].padding
            - ((axes[axis].n_out - 1) * axes[axis].stride + reach(axis)).min(axes[axis].n_in + axes[axis].padding)
    };
    ConvTranspose2d {
        kernel: axes.map(|axis| axis.kernel),
        stride: axes.map(|axis| axis.stride),
        padding: axes.map(|axis| [axis.padding; 2]),
        output_padding: [left(0), left(1)],
        dilation: axes.map(|axis| axis.dilation),
        ..ConvTranspose2d::square(out_channels, in_channels, 1, 1, 0)
    }
}
