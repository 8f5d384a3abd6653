//! One dense linear map of a network, and the rows of the least-squares problem that its output pixels make.

use std::ops::Range;

use secateur_net::{Conv2d, Graph, Network, NodeId, Op, Shape};

/// Neighbouring channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSpan {
    /// The first of them.
    pub first: usize,
    /// How many they are.
    pub len: usize,
}

impl ChannelSpan {
    /// Their indices.
    pub const fn range(self) -> Range<usize> {
        self.first..self.first + self.len
    }
}

/// A convolution, one conv group of a grouped convolution, or a Linear node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearMap {
    /// The convolution or Linear node.
    pub node: NodeId,
    /// Which conv group; 0 for all others.
    pub conv_group: usize,
    /// Input channels, of those of the node it reads.
    pub inputs: ChannelSpan,
    /// Output channels, of the node's.
    pub outputs: ChannelSpan,
    input: Shape,
    output: Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
}

/// A map's geometry along rows or columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AxisGeometry {
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
    /// Input and output pixels.
    pub n_in: usize,
    pub n_out: usize,
}

impl LinearMap {
    /// The linear maps of a node: one per conv group, none for depthwise convolutions (they are not refitted) and other
    /// nodes.
    pub fn of(graph: &Graph, node: NodeId) -> Vec<Self> {
        let is_depthwise = matches!(&graph.node(node).op, Op::Conv2d(conv) if conv.is_depthwise());
        if is_depthwise { Vec::new() } else { Self::per_conv_group(graph, node) }
    }
    /// As [`Self::of`], but a grouped convolution that pruning left with one input per conv group still counts as one:
    /// by its own shape it cannot be told from a depthwise convolution.
    pub fn per_conv_group(graph: &Graph, node: NodeId) -> Vec<Self> {
        let Some(&source) = graph.node(node).inputs.first() else { return Vec::new() };
        let (input, output) = (graph.shape(source), graph.shape(node));
        let Some(conv) = graph.node(node).op.as_conv2d() else { return Vec::new() };
        let (n_in, n_out) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        let map_of = |conv_group| Self {
            node,
            conv_group,
            inputs: ChannelSpan { first: conv_group * n_in, len: n_in },
            outputs: ChannelSpan { first: conv_group * n_out, len: n_out },
            input,
            output,
            kernel: conv.kernel,
            stride: conv.stride,
            padding: conv.padding,
            dilation: conv.dilation,
        };
        (0..conv.groups).map(map_of).collect()
    }
    /// A map of one output from one factor for each of `n` channels, at the same node.
    pub(crate) fn of_channel_factors(&self, n: usize) -> Self {
        let one = Shape { c: 1, h: 1, w: 1 };
        Self {
            inputs: ChannelSpan { first: 0, len: n },
            outputs: ChannelSpan { first: 0, len: 1 },
            input: Shape { c: n, ..one },
            output: one,
            kernel: [1; 2],
            stride: [1; 2],
            padding: [0; 2],
            dilation: [1; 2],
            ..self.clone()
        }
    }
    /// Kernel taps per input channel.
    pub const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
    /// Columns of X: inputs times taps, and the intercept.
    pub const fn columns(&self) -> usize {
        self.inputs.len * self.taps() + 1
    }
    /// The map's weights in `network`, `[outputs, inputs * taps]`: filters are stored one conv group after the other.
    pub(crate) fn weights<'a>(&self, network: &'a Network) -> &'a [f32] {
        let per_filter = self.columns() - 1;
        let weights = network.parameter(&network.graph().node(self.node).name, "weight").data();
        &weights[self.outputs.first * per_filter..][..self.outputs.len * per_filter]
    }
    /// The same as a dense convolution with a bias.
    pub(crate) fn convolution(&self) -> Conv2d {
        Conv2d {
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            bias: true,
            ..Conv2d::square(self.inputs.len, self.outputs.len, 1, 1, 0)
        }
    }
    /// Rows, then columns.
    pub(crate) fn axes(&self) -> [AxisGeometry; 2] {
        let (kernel, stride, padding, dilation) = (self.kernel, self.stride, self.padding, self.dilation);
        let axis = |i: usize, n_in, n_out| AxisGeometry {
            kernel: kernel[i],
            stride: stride[i],
            padding: padding[i],
            dilation: dilation[i],
            n_in,
            n_out,
        };
        [axis(0, self.input.h, self.output.h), axis(1, self.input.w, self.output.w)]
    }
    /// Shape of the whole node's input and output.
    pub(crate) const fn shapes(&self) -> [Shape; 2] {
        [self.input, self.output]
    }

    /// Writes the inputs under the kernel at output pixel `pixel` of a group of images: taps in order, within a tap the
    /// channels `channels` (of those in memory), then 1. `row` is `[columns, lanes]`.
    pub(crate) fn write_inputs(
        &self,
        GroupMaps { values, n_channels, lanes }: GroupMaps<'_>,
        pixel: usize,
        channels: &[usize],
        row: &mut [f32],
    ) {
        let (oy, ox) = (pixel / self.output.w, pixel % self.output.w);
        let (taps, intercept) = row.split_at_mut(row.len() - lanes);
        intercept.fill(1.0);
        for (tap, into) in taps.chunks_exact_mut(channels.len() * lanes).enumerate() {
            let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
            let y = (oy * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.padding[0]);
            let x = (ox * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.padding[1]);
            if y >= self.input.h || x >= self.input.w {
                into.fill(0.0);
                continue;
            }
            gather(&values[(y * self.input.w + x) * n_channels * lanes..][..n_channels * lanes], lanes, channels, into);
        }
    }
}

/// What a node puts out for a group of images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupMaps<'a> {
    /// `[H, W, n_channels, lanes]`.
    pub values: &'a [f32],
    /// Channels in memory, which may be fewer or more than the map's.
    pub n_channels: usize,
    /// Images of the group.
    pub lanes: usize,
}

/// Copies the channels `channels` (ascending) of a pixel `[channels, lanes]`.
pub(crate) fn gather(pixel: &[f32], lanes: usize, channels: &[usize], into: &mut [f32]) {
    match channels {
        &[first, .., last] if last - first + 1 == channels.len() => {
            into.copy_from_slice(&pixel[first * lanes..][..into.len()]);
        }
        _ => {
            for (to, &c) in into.chunks_exact_mut(lanes).zip(channels) {
                to.copy_from_slice(&pixel[c * lanes..][..lanes]);
            }
        }
    }
}

/// Rows of a least-squares problem for each of its columns.
pub(crate) const ROWS_PER_COLUMN: usize = 150;

/// Which output pixels of every image enter a least-squares problem: neighbouring pixels say nearly the same, so a
/// spread sample of many images is worth more than all pixels of few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelSample {
    /// Output pixels used of each image.
    pub per_image: usize,
    n_pixels: usize,
    step: usize,
}

impl PixelSample {
    /// As many pixels of each of `n_images` images as make about `n_rows` rows.
    pub(crate) fn new(n_pixels: usize, n_images: usize, n_rows: usize) -> Self {
        let per_image = n_rows.div_ceil(n_images.max(1)).clamp(1, n_pixels);
        // Steps near the golden section of a cycle spread any number of points evenly; prime to its length, they meet
        // no pixel twice.
        let golden = (n_pixels as f64 * 0.618) as usize;
        let step = (1..=golden.max(1)).rev().find(|&s| gcd(s, n_pixels) == 1).unwrap_or(1);
        Self { per_image, n_pixels, step }
    }
    /// All pixels of every image, in order.
    pub(crate) const fn whole(n_pixels: usize) -> Self {
        Self { per_image: n_pixels, n_pixels, step: 1 }
    }
    /// Whether every pixel is used.
    pub(crate) const fn is_whole(&self) -> bool {
        self.per_image == self.n_pixels
    }
    /// The pixels of each image of group `group`, shifted from group to group; all of them come in order.
    pub(crate) fn pixels(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { per_image, n_pixels, step } = *self;
        let (group, step) = if self.is_whole() { (0, 1) } else { (group, step) };
        let shift = (group as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let shift = ((shift * n_pixels as u64) >> 32) as usize;
        (0..per_image).map(move |i| (shift + i * step) % n_pixels)
    }
}

const fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_sample_meets_no_pixel_of_an_image_twice() {
        for n_pixels in [1, 2, 6, 49, 64, 100, 1024] {
            for n_rows in [1, 10, 1000, 1_000_000] {
                let sample = PixelSample::new(n_pixels, 10, n_rows);
                assert_eq!(sample.per_image, n_rows.div_ceil(10).min(n_pixels));
                for image in 0..5 {
                    let pixels: BTreeSet<usize> = sample.pixels(image).collect();
                    assert_eq!(pixels.len(), sample.per_image, "{n_pixels} pixels, {n_rows} rows");
                    assert!(pixels.iter().all(|&p| p < n_pixels));
                }
            }
        }
    }

    #[test]
    fn samples_of_many_images_cover_all_pixels() {
        let sample = PixelSample::new(64, 1000, 2000);
        let met: BTreeSet<usize> = (0..1000).flat_map(|image| sample.pixels(image)).collect();
        assert_eq!((sample.per_image, met.len()), (2, 64));
    }
}
