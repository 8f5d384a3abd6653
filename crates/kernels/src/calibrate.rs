//! Normal equations of every consumer of a network on its original activations, in one pass over the calibration images.

use rayon::prelude::*;
use secateur_net::{ChannelGroups, Network, NodeId};

use crate::gram::GramBuilder;
use crate::linear_map::PixelSample;
use crate::refit::check_images;
use crate::segment::{Segment, SegmentBuffers};
use crate::{KernelError, LinearMap, NormalEquations};

/// Images evaluated together: enough rows for an efficient product, few enough for their rows to stay in the cache.
const CHUNK_IMAGES: usize = 64;
/// Images a thread takes at a time.
const JOB_IMAGES: usize = 8;

/// Rows of a least-squares problem for each of its columns.
pub const ROWS_PER_COLUMN: usize = 150;

/// One linear map on its way to its equations.
struct Collector {
    builder: GramBuilder,
    sample: PixelSample,
    /// All of the map's inputs.
    channels: Vec<usize>,
    /// Rows of the current chunk.
    rows: Vec<f32>,
}

/// Of one collector: its map, sample and channels, and the rows of one image.
type ImageRows<'a> = (&'a LinearMap, PixelSample, &'a [usize], &'a mut [f32]);

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
    let mut collectors: Vec<Collector> = maps.map(|map| Collector::new(map, n_images)).collect();
    let last = collectors.iter().map(|c| c.builder.map().node + 1).max().unwrap_or(1);
    let segment = Segment::new(network, 1..last)?;
    for (chunk, images) in images.chunks(CHUNK_IMAGES * image_len).enumerate() {
        pool.install(|| -> Result<(), KernelError> {
            collect_rows(&segment, images, image_len, chunk * CHUNK_IMAGES, &mut collectors)?;
            let n = images.len() / image_len;
            collectors.par_iter_mut().for_each(|c| c.builder.add(&c.rows[..n * c.rows_len()]));
            Ok(())
        })?;
        progress(chunk * CHUNK_IMAGES + images.len() / image_len);
    }
    Ok(collectors.into_iter().map(|c| c.builder.finish()).collect())
}

impl Collector {
    fn new(map: LinearMap, n_images: usize) -> Self {
        let [_, output] = map.shapes();
        let sample = PixelSample::new(output.h * output.w, n_images, ROWS_PER_COLUMN * map.columns());
        let channels = (0..map.inputs.1).collect();
        let builder = GramBuilder::new(map);
        let rows = vec![0.0; CHUNK_IMAGES * sample.per_image * builder.row_len()];
        Self { builder, sample, channels, rows }
    }
    /// Values that one image adds.
    const fn rows_len(&self) -> usize {
        self.sample.per_image * self.builder.row_len()
    }
}

/// Runs the network on a chunk of images and writes the rows of every collector.
fn collect_rows(
    segment: &Segment,
    images: &[f32],
    image_len: usize,
    first_image: usize,
    collectors: &mut [Collector],
) -> Result<(), KernelError> {
    let n = images.len() / image_len;
    let mut per_image: Vec<Vec<ImageRows<'_>>> = (0..n).map(|_| Vec::new()).collect();
    for collector in collectors {
        let len = collector.rows_len();
        let Collector { builder, sample, channels, rows } = collector;
        for (list, rows) in per_image.iter_mut().zip(rows.chunks_exact_mut(len)) {
            list.push((builder.map(), *sample, channels, rows));
        }
    }
    per_image.par_chunks_mut(JOB_IMAGES).enumerate().try_for_each_init(
        SegmentBuffers::default,
        |buffers, (job, lists)| {
            lists.iter_mut().enumerate().try_for_each(|(i, list)| {
                let i = job * JOB_IMAGES + i;
                let image = &images[i * image_len..][..image_len];
                segment.run(buffers, &|_| image, |node, input, output| {
                    for (map, sample, channels, rows) in list.iter_mut().filter(|(map, ..)| map.node == node) {
                        let row_len = rows.len() / sample.per_image;
                        for (pixel, row) in sample.pixels(first_image + i).zip(rows.chunks_exact_mut(row_len)) {
                            let (x, y) = row.split_at_mut(map.columns());
                            map.write_inputs(input, pixel, channels, x);
                            y.copy_from_slice(map.outputs_at(output, pixel));
                        }
                    }
                })
            })
        },
    )
}
