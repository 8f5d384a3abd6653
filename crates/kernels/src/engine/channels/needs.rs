//! What a plan whose vectors are channels takes, told before anything is allocated.

use secateur_net::{FusedStep, Graph, Op};

use super::conv::ChannelConvKernel;
use super::depthwise::ChannelDepthwiseKernel;
use super::maps::ChannelMap;
use super::schedule::{ChannelSchedule, group_len};
use super::step::{ChannelStep, ChannelWay, StepMaps};
use super::tiles::ChannelTilesKernel;
use crate::engine::plan_needs::{constants, widen};
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// Memory of a plan whose vectors are channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelNeeds {
    /// Bytes of prepared weights and tables.
    pub kernels: u64,
    /// Bytes of the buffers that images pass one by one.
    pub alone: u64,
    /// Bytes of the others, for each image of a group.
    pub together: u64,
    /// Images of a group at most.
    pub max_group: usize,
    /// Bytes of other working memory.
    pub scratch: u64,
}

impl ChannelNeeds {
    /// Of the plan of `graph`.
    pub(crate) fn of(graph: &Graph, schedule: &ChannelSchedule, isa: Isa) -> Self {
        let bytes =
            |lens: &[usize]| lens.iter().fold(0u64, |sum, &len| sum.saturating_add(AlignedVec::bytes(len as u64)));
        let mut needs = Self {
            kernels: 0,
            alone: bytes(&schedule.alone),
            together: bytes(&schedule.together),
            max_group: schedule.max_group(),
            scratch: 0,
        };
        let mut working = [0; 4];
        let band = size_of::<std::ops::Range<usize>>();
        let bands = schedule.segments.iter().map(|segment| segment.bands.len() * segment.steps.len() * band);
        needs.kernels = bands.sum::<usize>() as u64;
        let mut copies: Vec<u64> = Vec::new();
        for step in &schedule.steps {
            let maps = StepMaps::of(graph, step, isa.lanes());
            needs.kernels = needs.kernels.saturating_add(step_bytes(graph, step, &maps, isa, &mut working));
            if is_dense(&graph.node(step.node).op, &maps) {
                copies.resize(copies.len().max(maps.inputs.len()), 0);
                for (most, input) in copies.iter_mut().zip(&maps.inputs) {
                    *most = copy_bytes(input.map).max(*most);
                }
                working[3] = copy_bytes(maps.out).max(working[3]);
            }
        }
        needs.scratch = working.iter().chain(&copies).fold(0, |sum, &bytes| sum.saturating_add(bytes));
        needs
    }

    /// Bytes of the activations of each thread that computes a share of `n_images` on `n_threads` threads.
    pub(crate) fn activations(&self, n_images: usize, n_threads: usize) -> u64 {
        let group = group_len(n_images, n_threads, self.max_group);
        self.alone.saturating_add(self.together.saturating_mul(group as u64))
    }
}

/// Of a copy without padding, where one is made.
fn copy_bytes(map: ChannelMap) -> u64 {
    if map.pitch == map.shape.c { 0 } else { AlignedVec::bytes(map.shape.len() as u64) }
}

/// Whether an operation takes maps without padding: as `form` in [`super::step`] chooses.
fn is_dense(op: &Op, maps: &StepMaps) -> bool {
    let is_same =
        maps.inputs.iter().all(|input| input.map.pitch == maps.out.pitch && input.map.shape.c == maps.out.shape.c);
    match op {
        Op::Conv2d(_) | Op::Linear { .. } | Op::Concat | Op::ChannelShuffle { .. } => false,
        Op::Slice { step, channels } => *step != [1, 1] && channels[1] > channels[0],
        Op::Pad { channels, .. } => *channels != [0, 0] || !is_same,
        Op::Pointwise(_)
        | Op::Add
        | Op::Mul
        | Op::Max
        | Op::Min
        | Op::MaxPool(_)
        | Op::AvgPool(_)
        | Op::GlobalAvgPool
        | Op::GlobalMaxPool
        | Op::Resize { .. }
        | Op::Input
        | Op::Identity => !is_same,
        Op::FlattenPixels => !is_same || maps.inputs.iter().any(|input| input.map.shape != maps.out.shape),
        Op::BatchNorm { .. }
        | Op::PRelu { .. }
        | Op::Flatten
        | Op::DepthToSpace { .. }
        | Op::LayerNorm { .. }
        | Op::ConvTranspose2d(_)
        | Op::ChannelConv { .. }
        | Op::GroupNorm { .. }
        | Op::LocalResponseNorm { .. }
        | Op::ChannelMean
        | Op::ChannelMax
        | Op::BranchSum { .. }
        | Op::BranchSoftmax { .. }
        | Op::Softmax => true,
    }
}

/// Bytes of a step, and what it wants of working memory: what lies under kernels, two of tiles.
fn step_bytes(graph: &Graph, step: &FusedStep, maps: &StepMaps, isa: Isa, working: &mut [u64; 4]) -> u64 {
    let lists =
        size_of_val(&*maps.inputs) + size_of::<ChannelStep>() + size_of::<FusedStep>() + 128 * step.inputs.len();
    let op = &graph.node(step.node).op;
    let pair = [maps.inputs[0].map, maps.out];
    let Some(conv) = op.as_conv2d() else {
        return lists as u64 + constants(op, 1);
    };
    let (form, kernel) = match ChannelWay::of(&conv, pair, isa.lanes()).expect("`has_forms` was true") {
        ChannelWay::Product => {
            let (kernel, gathered) = ChannelConvKernel::bytes(isa, &conv, maps.out, maps.inputs.len() > 1);
            widen(working, [gathered, 0, 0, 0]);
            (size_of::<ChannelConvKernel>(), kernel)
        }
        ChannelWay::Tiles => {
            let (kernel, [inputs, sums]) = ChannelTilesKernel::bytes(isa, pair);
            widen(working, [0, inputs, sums, 0]);
            (size_of::<ChannelTilesKernel>(), kernel)
        }
        ChannelWay::Depthwise => (size_of::<ChannelDepthwiseKernel>(), ChannelDepthwiseKernel::bytes(&conv, maps.out)),
    };
    (lists + form) as u64 + kernel
}
