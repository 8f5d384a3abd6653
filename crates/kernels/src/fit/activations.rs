//! Activations of a network on many images, advanced node by node: only what later nodes read is held.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;
use secateur_net::{Network, NodeId};

use crate::KernelError;
use crate::fit::image_groups::ImageGroups;
use crate::fit::segment::{Segment, SegmentBuffers};
use crate::simd::aligned::AlignedVec;

/// Outputs of some nodes for all images, `[groups, H, W, C, LANES]` each. Memory of outputs no longer needed is used
/// again.
#[derive(Debug)]
pub(crate) struct Activations<'a> {
    images: &'a ImageGroups,
    held: BTreeMap<NodeId, Held>,
    /// First node not yet computed.
    next: NodeId,
    spare: Vec<AlignedVec>,
}

/// The channels of a node's output, as they lie in memory.
#[derive(Clone, Debug)]
pub(crate) struct StoredChannels {
    /// Channels of a pixel in memory, those that pruning has removed included.
    pub n_stored: usize,
    /// Which of them are meant.
    pub used: Vec<usize>,
}

/// One node's output.
#[derive(Debug)]
struct Held {
    data: AlignedVec,
    /// Values per group.
    len: usize,
    n_channels: usize,
    /// Which of the channels are still part of the network; the others are skipped when read.
    view: Option<Vec<usize>>,
}

impl<'a> Activations<'a> {
    /// Nothing computed yet; `spare` is memory to use.
    pub(crate) fn new(images: &'a ImageGroups, spare: Vec<AlignedVec>) -> Self {
        Self { images, held: BTreeMap::new(), next: 1, spare }
    }
    /// The images.
    pub(crate) const fn images(&self) -> &'a ImageGroups {
        self.images
    }
    /// The memory, for another network.
    pub(crate) fn into_spare(mut self) -> Vec<AlignedVec> {
        self.spare.extend(self.held.into_values().map(|held| held.data));
        self.spare
    }
    /// Nodes whose outputs are held.
    pub(crate) fn held(&self) -> impl Iterator<Item = NodeId> {
        self.held.keys().copied()
    }

    /// From now on only the channels at `positions` (ascending, of those visible now) of a held output are seen.
    pub(crate) fn keep_channels(&mut self, node: NodeId, positions: &[usize]) {
        let Some(held) = self.held.get_mut(&node) else { return };
        held.view = Some(match &held.view {
            Some(view) => positions.iter().map(|&p| view[p]).collect(),
            None => positions.to_vec(),
        });
    }

    /// A group's output of a held node, those of its channels included that are no longer to be seen.
    pub(crate) fn whole(&self, node: NodeId, group: usize) -> &[f32] {
        match self.held.get(&node) {
            Some(held) => &held.data[group * held.len..][..held.len],
            None => self.images.group(group),
        }
    }

    /// Channels of [`Self::whole`], and where among them the `n` to be seen are.
    pub(crate) fn channels(&self, node: NodeId, n: usize) -> StoredChannels {
        match self.held.get(&node) {
            Some(Held { n_channels, view: Some(view), .. }) => {
                StoredChannels { n_stored: *n_channels, used: view.clone() }
            }
            _ => StoredChannels { n_stored: n, used: (0..n).collect() },
        }
    }

    /// A group's output of a held node with the channels to be seen; `buffer` is used where some are not.
    fn read<'b>(&'b self, node: NodeId, group: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        let data = self.whole(node, group);
        let Some(Held { n_channels, view: Some(view), .. }) = self.held.get(&node) else { return data };
        let lanes = self.images.lanes();
        buffer.clear();
        for pixel in data.chunks_exact(n_channels * lanes) {
            view.iter().for_each(|&c| buffer.extend_from_slice(&pixel[c * lanes..][..lanes]));
        }
        buffer
    }

    /// Computes the nodes before `until` from what is held, and keeps of all outputs those that `until` or later nodes
    /// read.
    ///
    /// # Errors
    /// As [`crate::NodeKernel::new`] and [`crate::NodeKernel::run`].
    pub(crate) fn advance(
        &mut self,
        pool: &rayon::ThreadPool,
        network: &Network,
        until: NodeId,
    ) -> Result<(), KernelError> {
        if until <= self.next {
            return Ok(());
        }
        let graph = network.graph();
        let readers = graph.consumers();
        let segment = Segment::new(network, self.next..until)?;
        let (lanes, n_groups) = (self.images.lanes(), self.images.len());
        let is_needed = |node: NodeId| readers[node].iter().any(|&r| r >= until);
        let stored: Vec<NodeId> = (self.next..until).filter(|&n| is_needed(n)).collect();
        let mut outputs: Vec<AlignedVec> = stored
            .iter()
            .map(|&node| take_spare(&mut self.spare, n_groups * graph.shape(node).len() * lanes))
            .collect();
        let mut per_group: Vec<Vec<&mut [f32]>> = (0..n_groups).map(|_| Vec::with_capacity(stored.len())).collect();
        for (data, &node) in outputs.iter_mut().zip(&stored) {
            let groups = per_group.iter_mut().zip(data.chunks_exact_mut(graph.shape(node).len() * lanes));
            groups.for_each(|(list, values)| list.push(values));
        }
        pool.install(|| self.run(&segment, &read_by(network, self.next..until), &stored, per_group))?;
        for (data, node) in outputs.into_iter().zip(stored) {
            let shape = graph.shape(node);
            self.held.insert(node, Held { data, len: shape.len() * lanes, n_channels: shape.c, view: None });
        }
        let done: Vec<NodeId> = self.held.keys().copied().filter(|&n| !is_needed(n)).collect();
        self.spare.extend(done.into_iter().filter_map(|n| self.held.remove(&n)).map(|held| held.data));
        self.next = until;
        Ok(())
    }

    /// Runs `segment`, which reads the nodes `sources`, on every group of images, whose outputs of the nodes `stored`
    /// are written to the places given (in the order of `stored`; both ascending).
    fn run(
        &self,
        segment: &Segment,
        sources: &[NodeId],
        stored: &[NodeId],
        mut per_group: Vec<Vec<&mut [f32]>>,
    ) -> Result<(), KernelError> {
        per_group.par_iter_mut().enumerate().try_for_each_init(
            || (SegmentBuffers::default(), vec![Vec::new(); sources.len()]),
            |(buffers, views), (group, list)| {
                let inputs = sources.iter().zip(views).map(|(&n, view)| self.read(n, group, view));
                let inputs: Vec<&[f32]> = inputs.collect();
                let outside = |node| inputs[sources.binary_search(&node).unwrap_or(0)];
                segment.run(buffers, &outside, |node, _, out| {
                    if let Ok(at) = stored.binary_search(&node) {
                        list[at].copy_from_slice(out);
                    }
                })
            },
        )
    }
}

/// Nodes outside `nodes` that they read, ascending.
fn read_by(network: &Network, nodes: Range<NodeId>) -> Vec<NodeId> {
    let inputs = nodes.clone().flat_map(|n| network.graph().node(n).inputs.iter().copied());
    let sources: BTreeSet<NodeId> = inputs.filter(|i| !nodes.contains(i)).collect();
    sources.into_iter().collect()
}

/// A buffer of at least `len` values, the smallest spare one that is large enough if there is one; its values are
/// arbitrary.
fn take_spare(spare: &mut Vec<AlignedVec>, len: usize) -> AlignedVec {
    let fitting = (0..spare.len()).filter(|&i| spare[i].len() >= len).min_by_key(|&i| spare[i].len());
    fitting.map_or_else(|| AlignedVec::zeros(len), |i| spare.swap_remove(i))
}
