//! Normal equations of every consumer of a network on its original activations, in one pass over the calibration images.

use rayon::prelude::*;
use secateur_net::{ChannelGroups, Network, NodeId};

use crate::gram::GramSums;
use crate::image_groups::ImageGroups;
use crate::linear_map::PixelSample;
use crate::refit::check_images;
use crate::segment::{Segment, SegmentBuffers};
use crate::{Isa, KernelError, LinearMap, NormalEquations};

/// Groups of images evaluated together: enough for all threads and for products over many rows, few enough for their rows to be held.
const CHUNK_GROUPS: usize = 8;

/// Rows of a least-squares problem for each of its columns.
pub const ROWS_PER_COLUMN: usize = 150;

/// One linear map on its way to its equations.
struct Collector {
    map: LinearMap,
    sums: GramSums,
    sample: PixelSample,
    /// All of the map's inputs, as channels of the node it reads.
    channels: Vec<usize>,
    /// Rows of the current chunk: X and Y, `[groups, pixels, columns, LANES]`.
    x: Vec<f32>,
    y: Vec<f32>,
}

/// Of one collector: its map, sample and channels, and the rows of one group of images.
struct GroupRows<'a> {
    map: &'a LinearMap,
    sample: PixelSample,
    channels: &'a [usize],
    x: &'a mut [f32],
    y: &'a mut [f32],
}

/// The equations of every linear map that reads a prunable group (others are never refitted on original activations).
/// `images` is `[N, H, W, C]`; `progress` is told the number of images done.
///
/// # Errors
/// Images that are not whole, none, or not finite.
pub fn calibrate(
    pool: &rayon::ThreadPool,
    network: &Network,
    groups: &ChannelGroups,
    images: &[f32],
    mut progress: impl FnMut(usize),
) -> Result<Vec<NormalEquations>, KernelError> {
    check_images(network, images)?;
    let graph = network.graph();
    let image_len = graph.input().len();
    let n_images = images.len() / image_len;
    let reads_prunable = |node: NodeId| {
        let source = graph.node(node).inputs.first();
        source.is_some_and(|&i| groups.axis(i).iter().any(|s| groups.group(s.group).frozen.is_none()))
    };
    let maps = (1..graph.nodes().len()).filter(|&n| reads_prunable(n)).flat_map(|n| LinearMap::of(graph, n));
    let isa = Isa::detect();
    let mut collectors: Vec<Collector> = maps.map(|map| Collector::new(isa, map, n_images)).collect();
    let last = collectors.iter().map(|c| c.map.node + 1).max().unwrap_or(1);
    let segment = Segment::new(network, 1..last)?;
    for (chunk, images) in images.chunks(CHUNK_GROUPS * isa.lanes() * image_len).enumerate() {
        let n = images.len() / image_len;
        pool.install(|| -> Result<(), KernelError> {
            let groups = ImageGroups::new(images, image_len, isa.lanes());
            collect_rows(&segment, &groups, chunk * CHUNK_GROUPS, &mut collectors)?;
            collectors.par_iter_mut().for_each(|c| {
                let [x, y] = c.row_lens(isa.lanes()).map(|len| len * groups.len());
                c.sums.add(&c.x[..x], &c.y[..y]);
            });
            Ok(())
        })?;
        progress(chunk * CHUNK_GROUPS * isa.lanes() + n);
    }
    Ok(collectors.into_iter().map(|c| c.finish(n_images)).collect())
}

impl Collector {
    fn new(isa: Isa, map: LinearMap, n_images: usize) -> Self {
        let [_, output] = map.shapes();
        let sample = PixelSample::new(output.h * output.w, n_images, ROWS_PER_COLUMN * map.columns());
        let channels = (map.inputs.0..map.inputs.0 + map.inputs.1).collect();
        let sums = GramSums::new(isa, &map);
        let mut collector = Self { map, sums, sample, channels, x: Vec::new(), y: Vec::new() };
        let [x, y] = collector.row_lens(isa.lanes()).map(|len| len * CHUNK_GROUPS);
        (collector.x, collector.y) = (vec![0.0; x], vec![0.0; y]);
        collector
    }
    /// Values of X and Y that one group of images adds.
    const fn row_lens(&self, lanes: usize) -> [usize; 2] {
        let n = self.sample.per_image * lanes;
        [n * self.map.columns(), n * self.map.outputs.1]
    }
    fn finish(self, n_images: usize) -> NormalEquations {
        let n_rows = (n_images * self.sample.per_image) as u64;
        self.sums.finish(self.map, n_rows)
    }
}

/// Runs the network on some groups of images and writes the rows of every collector.
fn collect_rows(
    segment: &Segment,
    groups: &ImageGroups,
    first_group: usize,
    collectors: &mut [Collector],
) -> Result<(), KernelError> {
    let lanes = groups.lanes();
    let mut per_group: Vec<Vec<GroupRows<'_>>> = (0..groups.len()).map(|_| Vec::new()).collect();
    for collector in collectors {
        let [x_len, y_len] = collector.row_lens(lanes);
        let Collector { map, sample, channels, x, y, .. } = collector;
        for ((list, x), y) in per_group.iter_mut().zip(x.chunks_exact_mut(x_len)).zip(y.chunks_exact_mut(y_len)) {
            list.push(GroupRows { map, sample: *sample, channels, x, y });
        }
    }
    per_group.par_iter_mut().enumerate().try_for_each_init(SegmentBuffers::default, |buffers, (group, list)| {
        segment.run(buffers, &|_| groups.group(group), |node, input, output| {
            for rows in list.iter_mut().filter(|rows| rows.map.node == node) {
                rows.write(first_group + group, lanes, input, output);
                for row in [&mut *rows.x, &mut *rows.y] {
                    groups.clear_missing(group, row);
                }
            }
        })
    })
}

impl GroupRows<'_> {
    fn write(&mut self, group: usize, lanes: usize, input: &[f32], output: &[f32]) {
        let [in_shape, out_shape] = self.map.shapes();
        let (x_len, (from, n)) = (self.map.columns() * lanes, self.map.outputs);
        let rows = self.x.chunks_exact_mut(x_len).zip(self.y.chunks_exact_mut(n * lanes));
        for (pixel, (x, y)) in self.sample.pixels(group).zip(rows) {
            self.map.write_inputs((input, in_shape.c, lanes), pixel, self.channels, x);
            y.copy_from_slice(&output[(pixel * out_shape.c + from) * lanes..][..n * lanes]);
        }
    }
}
