//! Means and variances of channels over images.

use std::collections::BTreeMap;

use rayon::prelude::*;
use secateur_net::{ChannelMoments, Network, NodeId};

use crate::fit::image_groups::{ImageGroups, check_images};
use crate::fit::segment::{Segment, SegmentBuffers};
use crate::{Isa, KernelError};

/// Groups of images evaluated together.
const CHUNK_GROUPS: usize = 8;

/// Sums over images and pixels of a channel's values and their squares, `[2, C]`, for each node that is asked for.
type Sums = Vec<Vec<f64>>;

/// Mean and variance of every channel of the outputs of `nodes`, over `images` `[N, H, W, C]` and pixels.
///
/// # Errors
/// Images that are not whole, none, or not finite.
///
/// # Example
/// ```
/// use secateur_kernels::channel_moments;
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{Shape, arch, fold_batch_norm, insert_batch_norms, norm_places};
///
/// let shape = Shape { c: 3, h: 8, w: 8 };
/// let network = fold_batch_norm(&with_random_weights(arch::build("resnet20", shape, 10)?, 1))?;
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
/// let images: Vec<f32> = (0..32 * shape.len()).map(|i| (i % 17) as f32 / 17.0).collect();
/// let moments = channel_moments(&pool, &network, &norm_places(network.graph()), &images)?;
/// // All 19 convolutions of the network are ready to be trained with BatchNorm.
/// let trained = insert_batch_norms(&network, &moments)?;
/// assert_eq!(trained.graph().nodes().len(), network.graph().nodes().len() + 19);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn channel_moments(
    pool: &rayon::ThreadPool,
    network: &Network,
    nodes: &[NodeId],
    images: &[f32],
) -> Result<BTreeMap<NodeId, ChannelMoments>, KernelError> {
    check_images(network, images)?;
    let graph = network.graph();
    let (image_len, lanes) = (graph.input().len(), Isa::detect().lanes());
    let segment = Segment::new(network, 1..nodes.iter().max().map_or(1, |last| last + 1))?;
    let empty = || -> Sums { nodes.iter().map(|&node| vec![0.0; 2 * graph.shape(node).c]).collect() };
    let mut sums = empty();
    for images in images.chunks(CHUNK_GROUPS * lanes * image_len) {
        let groups = ImageGroups::new(images, image_len, lanes);
        let of_groups: Vec<Sums> = pool.install(|| {
            let run = |buffers: &mut SegmentBuffers, group: usize| -> Result<Sums, KernelError> {
                let mut sums = empty();
                segment.run(buffers, &|_| groups.group(group), |node, _, output| {
                    for (_, sums) in nodes.iter().zip(&mut sums).filter(|(of, _)| **of == node) {
                        add(output, lanes, groups.n_present(group), sums);
                    }
                })?;
                Ok(sums)
            };
            (0..groups.len()).into_par_iter().map_init(SegmentBuffers::default, run).collect::<Result<_, _>>()
        })?;
        // Groups are added in their order, however many threads there are.
        for of_group in &of_groups {
            for (sum, more) in sums.iter_mut().zip(of_group) {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
        }
    }
    let n_images = images.len() / image_len;
    let moments = nodes.iter().zip(&sums).map(|(&node, sums)| {
        let shape = graph.shape(node);
        let n = (n_images * shape.h * shape.w) as f64;
        let (values, squares) = sums.split_at(shape.c);
        let mean: Vec<f64> = values.iter().map(|sum| sum / n).collect();
        let variance = squares.iter().zip(&mean).map(|(sum, mean)| (sum / n - mean * mean).max(0.0)).collect();
        (node, ChannelMoments { mean, variance })
    });
    Ok(moments.collect())
}

/// Adds the values of one group of images `[H, W, C, LANES]`.
fn add(output: &[f32], lanes: usize, n_present: usize, sums: &mut [f64]) {
    let channels = sums.len() / 2;
    let (values, squares) = sums.split_at_mut(channels);
    for pixel in output.chunks_exact(channels * lanes) {
        for (channel, of_images) in pixel.chunks_exact(lanes).enumerate() {
            let present = of_images[..n_present].iter().map(|&x| f64::from(x));
            let (value, square) = present.fold((0.0, 0.0), |(value, square), x| (value + x, square + x * x));
            values[channel] += value;
            squares[channel] += square;
        }
    }
}

#[cfg(test)]
mod tests {
    use secateur_net::random::{SplitMix, random_network};

    use super::*;
    use crate::run_reference;

    #[test]
    fn moments_are_those_of_the_reference_for_any_number_of_threads() {
        for seed in 0..20 {
            let network = random_network(seed);
            let (graph, mut rng) = (network.graph(), SplitMix(seed));
            let images: Vec<f32> = (0..37 * graph.input().len()).map(|_| rng.signed()).collect();
            let nodes: Vec<NodeId> = (1..graph.nodes().len()).collect();
            let of = |n_threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
                channel_moments(&pool, &network, &nodes, &images).unwrap()
            };
            let got = of(1);
            assert_eq!(got, of(3));
            let values: Vec<Vec<Vec<f32>>> =
                images.chunks(graph.input().len()).map(|image| run_reference(&network, image).unwrap()).collect();
            for &node in &nodes {
                let channels = graph.shape(node).c;
                for channel in 0..channels {
                    let of_channel: Vec<f64> = values
                        .iter()
                        .flat_map(|of_image| of_image[node].iter().skip(channel).step_by(channels))
                        .map(|&x| f64::from(x))
                        .collect();
                    let n = of_channel.len() as f64;
                    let mean = of_channel.iter().sum::<f64>() / n;
                    let variance = of_channel.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                    let is_close = |a: f64, b: f64| (a - b).abs() <= 2e-3 * (1.0 + b.abs());
                    let moments = &got[&node];
                    assert!(is_close(moments.mean[channel], mean), "seed {seed}, node {node}");
                    assert!(is_close(moments.variance[channel], variance), "seed {seed}, node {node}");
                }
            }
        }
    }

    #[test]
    fn images_that_are_not_whole_or_no_numbers_are_refused() {
        let network = random_network(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let len = network.graph().input().len();
        for images in [vec![], vec![0.0; len + 1], vec![f32::NAN; len]] {
            assert!(channel_moments(&pool, &network, &[1], &images).is_err());
        }
    }
}
