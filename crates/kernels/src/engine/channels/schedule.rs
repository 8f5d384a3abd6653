//! In which order and memory a network on large images is computed: images pass the first steps, whose maps are large,
//! one by one, in bands of rows that stay in the cache, and the others, whose weights outweigh them, in groups.

use std::ops::Range;

use secateur_net::{FusedStep, Graph, Location, NodeId, Op, Schedule};

use super::maps::ChannelMap;
use super::step::{ChannelWay, StepMaps, has_forms};
use crate::engine::fusion;
use crate::engine::winograd::geometry::POINTS;
use crate::simd::isa::Isa;

/// Images of a group at most: weights are then read once for eight images.
const MAX_GROUP: usize = 8;

/// Values that the buffers of a group may have, one image always being let in: 256 MiB.
const MAX_GROUP_VALUES: usize = 64 << 20;

/// Images that pass together, at most `max_group`, when `n_images` are shared out to `n_threads`.
pub(crate) fn group_len(n_images: usize, n_threads: usize, max_group: usize) -> usize {
    n_images.div_ceil(n_threads).clamp(1, max_group)
}

/// Values that a second-level cache has room for, and the part of them that a band's rows may take.
const CACHE: usize = 256 << 10;
const BAND: usize = 96 << 10;
/// Rows of a band at least: two rows of tiles.
const MIN_BAND_ROWS: usize = 8;

/// Networks whose images have at least so many pixels are faster with channels in lanes than with images, unless they
/// are mostly plain 3x3 convolutions: their maps would leave the caches sixteen at a time. What is pruned does not
/// change it.
const MIN_PIXELS: usize = 96 * 96;

/// The steps of a network, and the buffers of both parts.
#[derive(Clone, Debug)]
pub(crate) struct ChannelSchedule {
    /// In order; the buffers that they name are those of their part.
    pub steps: Vec<FusedStep>,
    /// Steps that images pass one by one.
    pub n_alone: usize,
    /// These steps, cut into segments.
    pub segments: Vec<BandSegment>,
    /// Values of every buffer there.
    pub alone: Vec<usize>,
    /// Values of every buffer behind them, for each image of a group.
    pub together: Vec<usize>,
    /// Values that are needed in both.
    pub carried: Vec<CarriedValue>,
}

/// Steps that are computed band by band.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BandSegment {
    pub steps: Range<usize>,
    /// Rows of every step, for every band; none where the steps are computed whole.
    pub bands: Vec<Vec<Range<usize>>>,
}

/// A value that goes from one part to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CarriedValue {
    /// The buffer of an image alone.
    pub from: usize,
    /// The buffer of the group.
    pub to: usize,
    /// Values of an image.
    pub len: usize,
}

/// Whether at least half of the convolutions are those that Winograd's tiles compute: sixteen images at a time they are
/// a third faster than with channels in lanes (ResNet-18 at 224x224); fewer take as long as sixteen.
fn is_mostly_filtered(graph: &Graph) -> bool {
    let mut counts = [0, 0];
    for node in graph.nodes() {
        if let Op::Conv2d(conv) = &node.op {
            let is_filtered = conv.kernel == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1];
            counts[usize::from(is_filtered && conv.groups == 1)] += 1;
        }
    }
    counts[1] > 0 && counts[1] >= counts[0]
}

impl ChannelSchedule {
    /// Images of a group at most: fewer where each has maps of many values to keep.
    pub(crate) fn max_group(&self) -> usize {
        let of_image = self.together.iter().fold(0usize, |sum, &len| sum.saturating_add(len));
        (MAX_GROUP_VALUES / of_image.max(1)).clamp(1, MAX_GROUP)
    }

    /// Of a network that is to be computed with channels in lanes, in calls of at most `n_images` images; `None` for
    /// others.
    pub(crate) fn if_large(graph: &Graph, isa: Isa, n_images: usize) -> Option<Self> {
        let is_large = graph.input().h * graph.input().w >= MIN_PIXELS;
        let fills_lanes = n_images > isa.lanes() / 2;
        if is_large && !(fills_lanes && is_mostly_filtered(graph)) { Self::of(graph, isa) } else { None }
    }

    /// Of any network whose operations have a form; `None` for others.
    pub(crate) fn of(graph: &Graph, isa: Isa) -> Option<Self> {
        let lanes = isa.lanes();
        let Schedule { mut steps, buffer_sizes } =
            Schedule::new(graph, fusion::BY_CHANNEL, |node| ChannelMap::padded(graph.shape(node), lanes).len());
        if !has_forms(graph, &steps, isa) {
            return None;
        }
        let maps: Vec<StepMaps> = steps.iter().map(|step| StepMaps::of(graph, step, lanes)).collect();
        let weights: Vec<usize> =
            steps.iter().zip(&maps).map(|(step, maps)| n_weights(graph, step, maps, lanes)).collect();
        let n_alone = cheapest_cut(&maps, &weights);
        let segments = segments(&steps[..n_alone], &maps, &weights);
        let mut schedule = Self {
            steps: Vec::new(),
            n_alone,
            segments,
            alone: Vec::new(),
            together: vec![0; buffer_sizes.len()],
            carried: Vec::new(),
        };
        let buffer_of = schedule.assign_alone(&mut steps, &maps);
        for (step, maps) in steps.iter().zip(&maps).skip(n_alone) {
            schedule.together[step.buffer] = maps.out.len().max(schedule.together[step.buffer]);
            let read = step.inputs.iter().zip(&maps.inputs).chain(step.residual.iter().zip(&maps.residual));
            for (operand, input) in read {
                let (Location::Buffer(to), Some(from)) = (operand.location, buffer_of[operand.node]) else { continue };
                let value = CarriedValue { from, to, len: input.map.len() };
                schedule.together[to] = value.len.max(schedule.together[to]);
                if !schedule.carried.contains(&value) {
                    schedule.carried.push(value);
                }
            }
        }
        schedule.steps = steps;
        Some(schedule)
    }

    /// Gives buffers to the values of images alone: what a segment reads stays until its end. Returns those of nodes.
    fn assign_alone(&mut self, steps: &mut [FusedStep], maps: &[StepMaps]) -> Vec<Option<usize>> {
        let n_nodes = steps.iter().map(|step| step.value.max(step.node) + 1).max().unwrap_or(0);
        let mut last_read = vec![0; n_nodes];
        for (at, step) in steps.iter().enumerate() {
            step.inputs.iter().chain(&step.residual).for_each(|operand| last_read[operand.node] = at);
        }
        let mut buffer_of: Vec<Option<usize>> = vec![None; n_nodes];
        let mut free: Vec<usize> = Vec::new();
        let mut alive: Vec<NodeId> = Vec::new();
        for segment in &self.segments {
            for at in segment.steps.clone() {
                let len = maps[at].out.len();
                // The free buffer that has to grow least.
                let distance = |&i: &usize| self.alone[free[i]].abs_diff(len);
                let buffer = match (0..free.len()).min_by_key(distance) {
                    Some(i) => free.swap_remove(i),
                    None => {
                        self.alone.push(0);
                        self.alone.len() - 1
                    }
                };
                self.alone[buffer] = self.alone[buffer].max(len);
                let step = &mut steps[at];
                for operand in step.inputs.iter_mut().chain(&mut step.residual) {
                    if let Some(buffer) = buffer_of[operand.node] {
                        operand.location = Location::Buffer(buffer);
                    }
                }
                step.buffer = buffer;
                buffer_of[step.value] = Some(buffer);
                alive.push(step.value);
            }
            alive.retain(|&node| {
                let is_done = last_read[node] < segment.steps.end;
                if is_done && let Some(buffer) = buffer_of[node] {
                    free.push(buffer);
                }
                !is_done
            });
        }
        buffer_of
    }
}

/// Values of a step's prepared weights.
fn n_weights(graph: &Graph, step: &FusedStep, maps: &StepMaps, lanes: usize) -> usize {
    graph.node(step.node).op.as_conv2d().map_or(0, |conv| {
        let is_tiled = ChannelWay::of(&conv, [maps.inputs[0].map, maps.out], lanes) == Some(ChannelWay::Tiles);
        let n_taps = if is_tiled { POINTS } else { conv.kernel[0] * conv.kernel[1] };
        conv.out_channels * (conv.in_channels / conv.groups) * n_taps
    })
}

/// How many steps images pass one by one: where the fewest values move, those of weights once for each image or once
/// for a group, those of maps where a group of them leaves the cache.
fn cheapest_cut(maps: &[StepMaps], weights: &[usize]) -> usize {
    let of_step = |at: usize| {
        let (maps, weights) = (&maps[at], weights[at]);
        let values = maps.out.len() + maps.inputs.iter().map(|input| input.map.len()).sum::<usize>();
        let leaving = if values * MAX_GROUP > CACHE { values } else { 0 };
        [if weights > CACHE / 2 { weights } else { 0 }, weights / MAX_GROUP + leaving]
    };
    let costs: Vec<[usize; 2]> = (0..maps.len()).map(of_step).collect();
    let sum = |costs: &[[usize; 2]], way: usize| costs.iter().map(|cost| cost[way]).sum::<usize>();
    // The logits are always those of a group.
    let cost = |n_alone: usize| sum(&costs[..n_alone], 0) + sum(&costs[n_alone..], 1);
    (0..maps.len()).min_by_key(|&n_alone| cost(n_alone)).unwrap_or(0)
}

/// Cuts steps into segments: each step reads rows of the one before, and all their weights stay in the cache.
fn segments(steps: &[FusedStep], maps: &[StepMaps], weights: &[usize]) -> Vec<BandSegment> {
    let mut segments = Vec::new();
    let mut start = 0;
    for at in 0..steps.len() {
        let is_last = at + 1 == steps.len() || {
            let next = &steps[at + 1];
            let mut reads = next.inputs.iter().chain(&next.residual);
            let continues = maps[at].reach.is_some()
                && maps[at + 1].reach.is_some()
                && reads.any(|operand| steps[start..=at].iter().any(|step| step.value == operand.node));
            !continues || weights[start..=at + 1].iter().sum::<usize>() > CACHE / 2
        };
        if is_last {
            segments.push(BandSegment { steps: start..at + 1, bands: bands(&steps[start..=at], &maps[start..=at]) });
            start = at + 1;
        }
    }
    segments
}

/// The rows of every band: as many of the last step as leave the cache room, of the others what these read.
fn bands(steps: &[FusedStep], maps: &[StepMaps]) -> Vec<Vec<Range<usize>>> {
    let values = maps[0].inputs[0].map.len() + maps.iter().map(|maps| maps.out.len()).sum::<usize>();
    let last_rows = maps[maps.len() - 1].out.shape.h;
    let band_rows = (last_rows * BAND / values.max(1)).max(MIN_BAND_ROWS).next_multiple_of(4);
    if steps.len() == 1 || values <= 2 * BAND || band_rows >= last_rows {
        return Vec::new();
    }
    let mut done = vec![0; steps.len()];
    let mut bands = Vec::new();
    let mut end = 0;
    while end < last_rows {
        end = (end + band_rows).min(last_rows);
        // A step whose value nothing here reads, because it is needed later, is computed along with the last.
        let mut ends: Vec<usize> = maps.iter().map(|maps| (maps.out.shape.h * end).div_ceil(last_rows)).collect();
        for at in (0..steps.len()).rev() {
            let Some(reach) = maps[at].reach else { continue };
            let h = maps[at].out.shape.h;
            ends[at] = ends[at].next_multiple_of(reach.row_step).min(h).max(done[at]);
            for (before, step) in steps[..at].iter().enumerate() {
                if steps[at].inputs.iter().any(|operand| operand.node == step.value) {
                    ends[before] = reach.rows_read(ends[at]).max(ends[before]);
                }
                if steps[at].residual.is_some_and(|operand| operand.node == step.value) {
                    ends[before] = ends[at].max(ends[before]);
                }
            }
        }
        bands.push(done.iter().zip(&ends).map(|(&done, &end)| done..end).collect());
        done = ends;
    }
    bands
}

#[cfg(test)]
mod tests {
    use super::*;
    use secateur_net::{Shape, arch};

    #[test]
    fn networks_of_plain_convolutions_that_fill_the_lanes_and_of_small_images_keep_images_in_lanes() {
        let is_by_channel = |name: &str, side: usize, n_images: usize| {
            let graph = arch::build(name, Shape { c: 3, h: side, w: side }, 10).unwrap();
            ChannelSchedule::if_large(&graph, Isa::detect(), n_images).is_some()
        };
        let chosen = [("mobilenet_v1", 96, 16), ("mobilenet_v1", 32, 1), ("resnet20", 96, 16), ("resnet20", 96, 1)]
            .map(|(name, side, n_images)| is_by_channel(name, side, n_images));
        assert_eq!(chosen, [true, false, false, true]);
    }
}
