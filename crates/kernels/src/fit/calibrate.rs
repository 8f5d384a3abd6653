//! Normal equations of every consumer of a network on its original activations, in one pass over the calibration
//! images.

use rayon::prelude::*;
use secateur_net::{ChannelGroups, Network};

use crate::fit::contributions::{Contributions, contribution_rows, contributions};
use crate::fit::gram::GramSums;
use crate::fit::image_groups::{ImageGroups, check_images};
use crate::fit::linear_map::{ChannelSpan, GroupMaps, PixelSample, ROWS_PER_COLUMN};
use crate::fit::segment::{Segment, SegmentBuffers};
use crate::fit::wide::{has_few_rows, reads_prunable, wide_nodes, wide_rows_max};
use crate::fit::wide_rows::WideRows;
use crate::{Isa, KernelError, LinearMap, NormalEquations};

/// Groups of images evaluated together: enough for all threads and for products over many rows, few enough for their
/// rows to be held.
const CHUNK_GROUPS: usize = 8;

/// What the consumers of a network's groups make of the calibration images.
///
/// # Example
/// ```
/// use secateur_kernels::calibrate;
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{ChannelGroups, Protocol, Shape, arch, fold_batch_norm};
///
/// let shape = Shape { c: 3, h: 8, w: 8 };
/// let network = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10)?, 1))?;
/// let groups = ChannelGroups::derive(network.graph(), Protocol::Inner);
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
/// let images: Vec<f32> = (0..32 * shape.len()).map(|i| (i % 17) as f32 / 17.0).collect();
/// let calibration = calibrate(&pool, &network, &groups, &images, |_| ())?;
/// // With these equations a consumer is refitted to any subset of its inputs, without another look at images.
/// let equations = &calibration.equations[0];
/// let refit = equations.refit(&[0, 2, 5])?;
/// assert_eq!(refit.weight.len(), equations.map.outputs.len * 3 * equations.map.taps());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Calibration {
    /// The equations of every linear map that reads a prunable group and is not too wide for them, nor has fewer rows
    /// than columns.
    pub equations: Vec<NormalEquations>,
    /// What each channel adds to the outputs of every other one.
    pub contributions: Vec<Contributions>,
}

/// What is kept of a map's rows.
enum Sums {
    Products(GramSums),
    /// Of a wide map, the rows themselves.
    Rows(WideRows),
}

/// One linear map on its way to its equations.
struct Collector {
    map: LinearMap,
    sums: Sums,
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

/// The equations of every linear map that reads a prunable group (others are never refitted on original activations),
/// or, of those too wide for them ([`crate::wide_nodes`]) or with fewer rows than columns, the contributions of its
/// channels. `images` is `[N, H, W, C]`; `progress` is told the number of images done.
///
/// # Errors
/// Images that are not whole, none, or not finite.
pub fn calibrate(
    pool: &rayon::ThreadPool,
    network: &Network,
    groups: &ChannelGroups,
    images: &[f32],
    mut progress: impl FnMut(usize),
) -> Result<Calibration, KernelError> {
    check_images(network, images)?;
    let graph = network.graph();
    let image_len = graph.input().len();
    let n_images = images.len() / image_len;
    let wide = wide_nodes(graph, groups);
    let readers = (1..graph.nodes().len()).filter(|&node| reads_prunable(graph, groups, node));
    let maps = readers.flat_map(|node| LinearMap::of(graph, node));
    let isa = Isa::detect();
    let mut collectors: Vec<Collector> =
        maps.map(|map| Collector::new(isa, wide.contains(&map.node), map, n_images)).collect();
    let last = collectors.iter().map(|c| c.map.node + 1).max().unwrap_or(1);
    let segment = Segment::new(network, 1..last)?;
    for (chunk, images) in images.chunks(CHUNK_GROUPS * isa.lanes() * image_len).enumerate() {
        let n = images.len() / image_len;
        pool.install(|| -> Result<(), KernelError> {
            let groups = ImageGroups::new(images, image_len, isa.lanes());
            collect_rows(&segment, &groups, chunk * CHUNK_GROUPS, &mut collectors)?;
            collectors.par_iter_mut().for_each(|c| c.add(&groups));
            Ok(())
        })?;
        progress(chunk * CHUNK_GROUPS * isa.lanes() + n);
    }
    let mut calibration = Calibration { equations: Vec::new(), contributions: Vec::new() };
    pool.install(|| collectors.into_iter().for_each(|c| c.finish(network, groups, n_images, &mut calibration)));
    Ok(calibration)
}

impl Collector {
    fn new(isa: Isa, is_wide: bool, map: LinearMap, n_images: usize) -> Self {
        let [_, output] = map.shapes();
        let n_pixels = output.h * output.w;
        let (n_rows, sums) = if is_wide || has_few_rows(map.columns(), n_images, n_pixels) {
            let n_columns = map.columns() - 1;
            let n_rows = contribution_rows(map.outputs.len, wide_rows_max(n_columns)).min(n_images * n_pixels);
            (n_rows, Sums::Rows(WideRows::new(n_columns, n_rows)))
        } else {
            (ROWS_PER_COLUMN * map.columns(), Sums::Products(GramSums::new(isa, &map)))
        };
        let sample = PixelSample::new(n_pixels, n_images, n_rows);
        let channels = map.inputs.range().collect();
        let mut collector = Self { map, sums, sample, channels, x: Vec::new(), y: Vec::new() };
        let [x, y] = collector.row_lens(isa.lanes()).map(|len| len * CHUNK_GROUPS);
        (collector.x, collector.y) = (vec![0.0; x], vec![0.0; y]);
        collector
    }
    /// Values of X and Y that one group of images adds.
    const fn row_lens(&self, lanes: usize) -> [usize; 2] {
        let n = self.sample.per_image * lanes;
        [n * self.map.columns(), n * self.map.outputs.len]
    }
    /// Adds the rows of the groups of images that were just collected.
    fn add(&mut self, groups: &ImageGroups) {
        let lanes = groups.lanes();
        let [x, y] = self.row_lens(lanes).map(|len| len * groups.len());
        match &mut self.sums {
            Sums::Products(sums) => sums.add(&self.x[..x], &self.y[..y]),
            Sums::Rows(rows) => {
                let row_len = self.map.columns() * lanes;
                let per_group = self.sample.per_image;
                for (i, row) in self.x[..x].chunks_exact(row_len).enumerate() {
                    rows.push(row, lanes, groups.n_present(i / per_group));
                }
            }
        }
    }
    fn finish(self, network: &Network, groups: &ChannelGroups, n_images: usize, into: &mut Calibration) {
        let n_rows = (n_images * self.sample.per_image) as u64;
        let weights = self.map.weights(network);
        match self.sums {
            Sums::Products(sums) => {
                into.equations.push(sums.finish(self.map, n_rows).pulled_towards(weights));
            }
            Sums::Rows(rows) => {
                let ChannelSpan { first: from, len: n } = self.map.inputs;
                let axis = &groups.axis(network.graph().node(self.map.node).inputs[0])[from..from + n];
                into.contributions.extend(contributions(&self.map, axis, &rows, weights));
            }
        }
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
        let maps = GroupMaps { values: input, n_channels: in_shape.c, lanes };
        let x_len = self.map.columns() * lanes;
        let ChannelSpan { first: from, len: n } = self.map.outputs;
        let rows = self.x.chunks_exact_mut(x_len).zip(self.y.chunks_exact_mut(n * lanes));
        for (pixel, (x, y)) in self.sample.pixels(group).zip(rows) {
            self.map.write_inputs(maps, pixel, self.channels, x);
            y.copy_from_slice(&output[(pixel * out_shape.c + from) * lanes..][..n * lanes]);
        }
    }
}
