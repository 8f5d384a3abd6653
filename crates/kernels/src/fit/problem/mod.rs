//! The least-squares problem of one linear map inside a half-pruned network.

mod maps;
mod rows;
mod wide;

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use secateur_net::NodeId;

use crate::engine::elementwise;
use crate::fit::activations::{Activations, StoredChannels};
use crate::fit::map_sums::MapProducts;
use crate::fit::target::{Effort, Nonlinearity, RefitTarget};
use crate::simd::aligned::AlignedVec;
use crate::{KernelError, LinearMap, NormalEquations, Refit};

/// Values of a block's inputs that stay in the second-level cache.
pub(crate) const BLOCK_VALUES: usize = 192 << 10;
/// Most sums that are made side by side; fixed, so that they do not depend on the number of threads.
const SLOTS_MAX: usize = 8;
/// Memory that they may take together, in values.
const SLOTS_VALUES: usize = 8 << 20;
/// How often the targets of a classifier's logits are moved: its steps are short, but its rows are few.
const SOFTMAX_PASSES: usize = 30;
/// Share of a pass's step that is taken. Moved targets bound the loss by a quadratic with its minimum at the full step,
/// so that anything below twice the step lowers it too; nearly twice gets there in about half the passes.
pub(crate) const OVER_RELAXATION: f32 = 1.7;

/// Inputs as the network now makes them, targets as the original made them.
#[derive(Debug)]
pub(crate) struct RefitProblem<'a> {
    /// The map, within the network as it now is.
    pub map: LinearMap,
    /// Its inputs and the target's other addends.
    pub activations: &'a Activations<'a>,
    /// The node it reads.
    pub source: NodeId,
    /// What is aimed at.
    pub target: &'a RefitTarget,
    /// Channels of the target.
    pub target_channels: usize,
    /// The channel of the target that each output of the map stands for.
    pub outputs: Vec<usize>,
    /// Number of passes and of rows: quick or thorough.
    pub effort: Effort,
    /// Working memory.
    pub blocks: &'a SpareBlocks,
}

/// Working memory for some rows, or the maps of some groups of images; all `[.., LANES]`.
#[derive(Debug, Default)]
pub(crate) struct BlockBuffers {
    /// Inputs: `[rows, columns]`, or `[groups, H, W, inputs + 1]` with a channel of ones.
    pub x: AlignedVec,
    /// Targets less the other addends, `[rows or pixels, outputs]`.
    pub y: AlignedVec,
    /// The sums of the other addends, the same.
    pub others: AlignedVec,
    /// What the weights predict, then by how much the targets move, the same.
    pub fit: AlignedVec,
}

/// How the data of a problem is cut into blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocking {
    /// Number of blocks.
    pub n_blocks: usize,
    /// Values of a block's inputs, and of its outputs.
    pub lens: [usize; 2],
    /// Values of the sums that are made of them.
    pub n_sums: usize,
}

/// Working memory, to be used again.
pub(crate) type SpareBlocks = Mutex<Vec<BlockBuffers>>;

/// Where the inputs of a problem lie in memory.
pub(crate) struct InputLayout {
    /// The source's channels, of which the map's inputs are used.
    pub source: StoredChannels,
    /// Those of every other addend, of which the channels of the map's outputs are used.
    others: Vec<StoredChannels>,
}

impl RefitProblem<'_> {
    /// Normal equations for all inputs of the map.
    pub(crate) fn equations(&self, pool: &rayon::ThreadPool) -> NormalEquations {
        let channels: Vec<usize> = (0..self.map.inputs.len).collect();
        let layout = self.input_layout(&channels);
        let images = self.activations.images();
        let n_images = images.n_images().min(self.target.n_groups * images.lanes());
        let n_rows = (n_images * self.target.sample.per_image) as u64;
        pool.install(|| {
            if self.is_whole() {
                self.equations_of_maps(&layout, n_rows)
            } else {
                self.equations_of_rows(&layout, n_rows)
            }
        })
    }

    /// Whether whole maps are summed, without writing out the rows.
    fn is_whole(&self) -> bool {
        self.target.sample.is_whole() && MapProducts::suits(&self.map)
    }

    /// Weights from the inputs in `channels` (positions within the map's inputs, ascending).
    ///
    /// Least squares counts all errors alike; the nonlinearity behind the sum may not. So targets are moved to where an
    /// error of the fit matters no more than it does there, and the weights solved for again, a few times.
    ///
    /// # Errors
    /// As [`NormalEquations::refit`].
    pub(crate) fn solve(
        &self,
        pool: &rayon::ThreadPool,
        equations: &NormalEquations,
        channels: &[usize],
    ) -> Result<Refit, KernelError> {
        let n_out = self.outputs.len();
        let solver = equations.solver(channels)?;
        let mut refit = solver.refit(&equations.moment)?;
        let layout = self.input_layout(channels);
        for _ in 0..self.n_passes() {
            let mut moment = equations.moment.clone();
            let change = pool.install(|| {
                if self.is_whole() {
                    self.change_of_maps(&refit, &layout)
                } else {
                    self.change_of_rows(&refit, &layout)
                }
            });
            for (row, change) in self.columns(channels).zip(change.chunks_exact(n_out)) {
                moment[row * n_out..][..n_out].iter_mut().zip(change).for_each(|(m, c)| *m += c);
            }
            refit.move_towards(&solver.refit(&moment)?, OVER_RELAXATION);
        }
        Ok(refit)
    }

    /// How often targets are moved.
    pub(crate) const fn n_passes(&self) -> usize {
        match self.target.nonlinearity {
            Nonlinearity::Unknown => 0,
            Nonlinearity::Clamp(_) => self.effort.clamp_passes(),
            Nonlinearity::Softmax => SOFTMAX_PASSES,
        }
    }

    /// For every input used, tap by tap, and the intercept, the row of the normal equations' X^T Y.
    fn columns(&self, channels: &[usize]) -> impl Iterator<Item = usize> {
        let taps = self.map.taps();
        let weights = (0..taps).flat_map(move |t| channels.iter().map(move |c| c * taps + t));
        weights.chain([self.map.columns() - 1])
    }

    /// Runs `work` on the blocks of each slot, slots side by side, and adds up what it makes.
    pub(crate) fn sum_slots<T: Send>(
        &self,
        cut: Blocking,
        work: impl Fn(&mut dyn Iterator<Item = usize>, &mut BlockBuffers) -> T + Sync,
        add: impl Fn(&mut T, &T),
    ) -> T {
        let n_slots = (SLOTS_VALUES / cut.n_sums).clamp(1, SLOTS_MAX).min(cut.n_blocks.max(1));
        let idle = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |slot: usize| {
            let mut block = idle().pop().unwrap_or_default();
            let BlockBuffers { x, y, others, fit } = &mut block;
            x.reset(cut.lens[0]);
            [y, others, fit].into_iter().for_each(|values| values.reset(cut.lens[1]));
            let result = work(&mut (slot..cut.n_blocks).step_by(n_slots), &mut block);
            idle().push(block);
            result
        };
        let slots: Vec<T> = (0..n_slots).into_par_iter().with_max_len(1).map(run).collect();
        let sum = slots.into_iter().reduce(|mut sum, more| {
            add(&mut sum, &more);
            sum
        });
        sum.expect("there is at least one slot")
    }

    /// Where to read the inputs `channels` (positions within the map's inputs) and the other addends.
    pub(crate) fn input_layout(&self, channels: &[usize]) -> InputLayout {
        let [input, output] = self.map.shapes();
        let mut source = self.activations.channels(self.source, input.c);
        source.used = channels.iter().map(|c| source.used[self.map.inputs.first + c]).collect();
        let of_outputs = |&other: &NodeId| {
            let StoredChannels { n_stored, used } = self.activations.channels(other, output.c);
            StoredChannels { n_stored, used: used[self.map.outputs.range()].to_vec() }
        };
        InputLayout { source, others: self.target.others.iter().map(of_outputs).collect() }
    }

    /// The sums of the other addends of one row, `[outputs, LANES]`.
    pub(crate) fn sum_others(&self, group: usize, pixel: usize, layout: &InputLayout, sums: &mut [f32]) {
        let lanes = self.activations.images().lanes();
        sums.fill(0.0);
        for (&other, StoredChannels { n_stored, used }) in self.target.others.iter().zip(&layout.others) {
            let values = &self.activations.whole(other, group)[pixel * n_stored * lanes..][..n_stored * lanes];
            for (from, to, n) in runs(used) {
                elementwise::add_to(&mut sums[to * lanes..][..n * lanes], &values[from * lanes..][..n * lanes]);
            }
        }
    }

    /// The targets of row `row` of all less the other addends, `[outputs, LANES]`.
    pub(crate) fn write_targets(&self, row: usize, lanes: usize, others: &[f32], y: &mut [f32]) {
        let len = self.target_channels * lanes;
        let target = &self.target.values[row * len..][..len];
        for (from, to, n) in runs(&self.outputs) {
            let (part, n) = (to * lanes, n * lanes);
            let targets = &target[from * lanes..][..n];
            for ((y, other), target) in y[part..][..n].iter_mut().zip(&others[part..][..n]).zip(targets) {
                *y = target - other;
            }
        }
    }
}

/// Stretches of consecutive channels: the first, its place in the list, and how many.
fn runs(channels: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = 0;
    channels.chunk_by(|a, b| *b == a + 1).map(move |run| {
        at += run.len();
        (run[0], at - run.len(), run.len())
    })
}
