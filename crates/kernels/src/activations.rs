//! Activations of a network on many images, advanced node by node: only what later nodes read is held.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;
use secateur_net::{Network, NodeId};

use crate::KernelError;
use crate::segment::{Segment, SegmentBuffers};

/// Images a thread takes at a time.
const JOB_IMAGES: usize = 16;

/// Outputs of some nodes for all images, `[N, H, W, C]` each. Memory of outputs no longer needed is used again.
#[derive(Debug)]
pub struct Activations<'a> {
    images: &'a [f32],
    image_len: usize,
    n: usize,
    held: BTreeMap<NodeId, Held>,
    /// First node not yet computed.
    next: NodeId,
    spare: Vec<Vec<f32>>,
}

/// One node's output.
#[derive(Debug)]
struct Held {
    data: Vec<f32>,
    /// Values per image.
    len: usize,
    n_channels: usize,
    /// Which of the channels are still part of the network; the others are skipped when read.
    view: Option<Vec<usize>>,
}

impl<'a> Activations<'a> {
    /// Nothing computed yet; `images` is `[N, H, W, C]`, `spare` is memory to use.
    pub fn new(images: &'a [f32], image_len: usize, spare: Vec<Vec<f32>>) -> Self {
        Self { images, image_len, n: images.len() / image_len, held: BTreeMap::new(), next: 1, spare }
    }
    /// The memory, for another network.
    pub fn into_spare(mut self) -> Vec<Vec<f32>> {
        self.spare.extend(self.held.into_values().map(|held| held.data));
        self.spare
    }
    /// Number of images.
    pub const fn n_images(&self) -> usize {
        self.n
    }
    /// Nodes whose outputs are held.
    pub fn held(&self) -> impl Iterator<Item = NodeId> {
        self.held.keys().copied()
    }

    /// From now on only the channels at `positions` (ascending, of those visible now) of a held output are seen.
    pub fn keep_channels(&mut self, node: NodeId, positions: &[usize]) {
        let Some(held) = self.held.get_mut(&node) else { return };
        held.view = Some(match &held.view {
            Some(view) => positions.iter().map(|&p| view[p]).collect(),
            None => positions.to_vec(),
        });
    }

    /// One image's output of a held node with the channels to be seen; `buffer` is used where some are not.
    pub fn read<'b>(&'b self, node: NodeId, image: usize, buffer: &'b mut Vec<f32>) -> &'b [f32] {
        if node == 0 {
            return &self.images[image * self.image_len..][..self.image_len];
        }
        let held = &self.held[&node];
        let data = &held.data[image * held.len..][..held.len];
        let Some(view) = &held.view else { return data };
        buffer.clear();
        buffer.extend(data.chunks_exact(held.n_channels).flat_map(|pixel| view.iter().map(|&c| pixel[c])));
        buffer
    }

    /// Computes the nodes before `until` from what is held, and keeps of all outputs those that `until` or later nodes read.
    ///
    /// # Errors
    /// As [`crate::NodeKernel::new`] and [`crate::NodeKernel::run`].
    pub fn advance(&mut self, pool: &rayon::ThreadPool, network: &Network, until: NodeId) -> Result<(), KernelError> {
        if until <= self.next {
            return Ok(());
        }
        let graph = network.graph();
        let readers = graph.consumers();
        let segment = Segment::new(network, self.next..until)?;
        let is_needed = |node: NodeId| readers[node].iter().any(|&r| r >= until);
        let stored: Vec<NodeId> = (self.next..until).filter(|&n| is_needed(n)).collect();
        let mut outputs: Vec<Vec<f32>> =
            stored.iter().map(|&node| take_spare(&mut self.spare, self.n * graph.shape(node).len())).collect();
        let mut per_image: Vec<Vec<&mut [f32]>> = (0..self.n).map(|_| Vec::with_capacity(stored.len())).collect();
        for (data, &node) in outputs.iter_mut().zip(&stored) {
            let images = per_image.iter_mut().zip(data.chunks_exact_mut(graph.shape(node).len()));
            images.for_each(|(list, values)| list.push(values));
        }
        let sources: Vec<NodeId> = read_by(network, self.next..until);
        let this = &*self;
        pool.install(|| {
            per_image.par_iter_mut().enumerate().with_min_len(JOB_IMAGES).try_for_each_init(
                || (SegmentBuffers::default(), vec![Vec::new(); sources.len()]),
                |(buffers, views), (image, list)| {
                    let inputs = sources.iter().zip(views).map(|(&n, view)| this.read(n, image, view));
                    let inputs: Vec<&[f32]> = inputs.collect();
                    let outside = |node| inputs[sources.binary_search(&node).unwrap_or(0)];
                    segment.run(buffers, &outside, |node, _, out| {
                        if let Ok(at) = stored.binary_search(&node) {
                            list[at].copy_from_slice(out);
                        }
                    })
                },
            )
        })?;
        for (data, node) in outputs.into_iter().zip(stored) {
            let shape = graph.shape(node);
            self.held.insert(node, Held { data, len: shape.len(), n_channels: shape.c, view: None });
        }
        let done: Vec<NodeId> = self.held.keys().copied().filter(|&n| !is_needed(n)).collect();
        self.spare.extend(done.into_iter().filter_map(|n| self.held.remove(&n)).map(|held| held.data));
        self.next = until;
        Ok(())
    }
}

/// Nodes outside `nodes` that they read, ascending.
fn read_by(network: &Network, nodes: Range<NodeId>) -> Vec<NodeId> {
    let inputs = nodes.clone().flat_map(|n| network.graph().node(n).inputs.iter().copied());
    let sources: BTreeSet<NodeId> = inputs.filter(|i| !nodes.contains(i)).collect();
    sources.into_iter().collect()
}

/// A buffer of `len` values, the smallest spare one that is large enough if there is one; its values are arbitrary.
fn take_spare(spare: &mut Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let fitting = (0..spare.len()).filter(|&i| spare[i].capacity() >= len).min_by_key(|&i| spare[i].capacity());
    let mut buffer = fitting.map_or_else(Vec::new, |i| spare.swap_remove(i));
    buffer.resize(len, 0.0);
    buffer
}
