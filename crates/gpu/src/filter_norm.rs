//! L1 and L2 norms of all filters and all input channels of a network, in one submission; CPU twin: `channel_norms` of
//! `secateur-kernels`.

use secateur_kernels::Norm;
use secateur_net::{ChannelGroups, GroupId, Network, NodeId, Op};
use wgpu::{
    BindGroupDescriptor, BindGroupEntry, BindingResource, Buffer, BufferBinding, BufferSize, ComputePassDescriptor,
};

use crate::device::GROUPS_MAX;
use crate::layout::NormRow;
use crate::pipelines::{PipelineKey, Shader};
use crate::{Gpu, GpuError};

/// Both norms of some weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// Sum of absolute values.
    pub l1: f32,
    /// Euclidean norm.
    pub l2: f32,
}

/// Norms of one convolution or Linear node.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorms {
    /// The node.
    pub node: NodeId,
    /// Of every filter, `[out]`.
    pub filters: Vec<Norms>,
    /// Of all weights that read an input channel, `[in]`.
    pub inputs: Vec<Norms>,
}

/// Elements that one invocation adds up; the shader's SEGMENT.
const SEGMENT: usize = 64;
/// Segments that are added up before they are added to the rest; as in the shader.
const BLOCK: usize = 32;
/// Invocations of a workgroup, in all shaders but dense convolutions.
pub(crate) const GROUP: usize = 64;

/// Some filters of a layer, all of them if a binding holds as many, as rows of weights.
struct WeightPiece<'a> {
    node: NodeId,
    weight: &'a [f32],
    n_filters: usize,
    rows: Vec<NormRow>,
}

/// The norms of every layer that has weights, in graph order. Weights that together exceed what the adapter can bind
/// are split over several bindings of one submission, between layers or between the filters of one.
///
/// # Errors
/// One filter alone larger than that; failures of the device.
pub fn filter_norms(gpu: &Gpu, network: &Network) -> Result<Vec<LayerNorms>, GpuError> {
    let pieces = pieces(network, gpu.binding_max())?;
    let max = (gpu.binding_max() / 4) as usize;
    let mut encoder = gpu.encoder();
    let mut parts: Vec<(std::ops::Range<usize>, Buffer)> = Vec::new();
    let mut n_rows = 0;
    let mut at = 0;
    while at < pieces.len() {
        let (mut end, mut total) = (at, 0);
        while end < pieces.len() && (end == at || total + pieces[end].weight.len() <= max) {
            total += pieces[end].weight.len();
            end += 1;
        }
        let n: usize = pieces[at..end].iter().map(|p| p.rows.len()).sum();
        parts.push((n_rows..n_rows + n, encode(gpu, &mut encoder, &pieces[at..end])));
        n_rows += n;
        at = end;
    }
    let all = gpu.storage("norms", 8 * n_rows as u64);
    for (rows, norms) in &parts {
        encoder.copy_buffer_to_buffer(norms, 0, &all, 8 * rows.start as u64, 8 * rows.len() as u64);
    }
    let sums: Vec<[f32; 2]> = gpu.fetch(encoder, &all, n_rows, "filter norms")?;
    let mut sums = sums.into_iter();
    Ok(pieces.chunk_by(|a, b| a.node == b.node).map(|of_layer| layer_norms(of_layer, &mut sums)).collect())
}

/// Norms of one layer from the sums of its pieces: filters lie in one piece each, input channels in all.
fn layer_norms(pieces: &[WeightPiece<'_>], sums: &mut impl Iterator<Item = [f32; 2]>) -> LayerNorms {
    let mut filters = Vec::new();
    let mut inputs = vec![[0.0f64; 2]; pieces[0].rows.len() - pieces[0].n_filters];
    for piece in pieces {
        filters.extend(sums.by_ref().take(piece.n_filters).map(|[l1, squares]| Norms { l1, l2: squares.sqrt() }));
        for (input, sum) in inputs.iter_mut().zip(sums.by_ref().take(piece.rows.len() - piece.n_filters)) {
            *input = [input[0] + f64::from(sum[0]), input[1] + f64::from(sum[1])];
        }
    }
    let inputs = inputs.iter().map(|&[l1, squares]| Norms { l1: l1 as f32, l2: squares.sqrt() as f32 }).collect();
    LayerNorms { node: pieces[0].node, filters, inputs }
}

/// The layers, those with more than `max` bytes of weights in several pieces.
///
/// # Errors
/// One filter larger than that.
fn pieces(network: &Network, max: u64) -> Result<Vec<WeightPiece<'_>>, GpuError> {
    let graph = network.graph();
    let mut out = Vec::new();
    for (node, n) in graph.nodes().iter().enumerate() {
        let Some(conv) = n.op.as_conv2d() else { continue };
        let n_filters = conv.out_channels;
        let weight = network.parameter(&n.name, "weight");
        let layer = FilterShape {
            n_filters,
            n_in: conv.in_channels,
            groups: conv.groups,
            taps: weight.shape()[2..].iter().product(),
        };
        let bytes = 4 * layer.per_filter() as u64;
        if bytes > max {
            return Err(GpuError::TooLarge { what: format!("one filter of node '{}'", n.name), bytes, max });
        }
        let most = usize::try_from(max / bytes.max(1)).unwrap_or(usize::MAX);
        for first in (0..n_filters).step_by(most) {
            let filters = first..n_filters.min(first.saturating_add(most));
            let per_filter = layer.per_filter();
            let weight = &weight.data()[filters.start * per_filter..filters.end * per_filter];
            out.push(WeightPiece { node, weight, n_filters: filters.len(), rows: layer.rows(&filters) });
        }
    }
    Ok(out)
}

/// How the weights of a layer lie.
struct FilterShape {
    n_filters: usize,
    n_in: usize,
    groups: usize,
    taps: usize,
}

impl FilterShape {
    const fn per_filter(&self) -> usize {
        self.n_in / self.groups * self.taps
    }

    /// Rows of some filters, then of the input channels in them (empty ones where those filters do not read a channel);
    /// `first` is relative to the first of these filters.
    fn rows(&self, filters: &std::ops::Range<usize>) -> Vec<NormRow> {
        let (in_group, out_group, per_filter) =
            (self.n_in / self.groups, self.n_filters / self.groups, self.per_filter());
        let row = |first: usize, n: usize, inner: usize| NormRow {
            first: first as u32,
            n: n as u32,
            inner: inner as u32,
            outer_stride: per_filter as u32,
            n_segments: n.div_ceil(SEGMENT) as u32,
            ..NormRow::default()
        };
        let of_filters = (0..filters.len()).map(|o| row(o * per_filter, per_filter, per_filter));
        let inputs = (0..self.n_in).map(|c| {
            let (group, i) = (c / in_group, c % in_group);
            let readers = (group * out_group).max(filters.start)..((group + 1) * out_group).min(filters.end);
            row(
                readers.start.saturating_sub(filters.start) * per_filter + i * self.taps,
                readers.len() * self.taps,
                self.taps,
            )
        });
        of_filters.chain(inputs).collect()
    }
}

/// Adds the two dispatches for some pieces; the result holds their rows one after the other.
fn encode(gpu: &Gpu, encoder: &mut wgpu::CommandEncoder, pieces: &[WeightPiece<'_>]) -> Buffer {
    let n_weights: usize = pieces.iter().map(|p| p.weight.len()).sum();
    let source = gpu.storage("weights", 4 * n_weights as u64);
    let (mut rows, mut row_of) = (Vec::new(), Vec::new());
    let mut first = 0;
    for piece in pieces {
        gpu.queue.write_buffer(&source, 4 * first as u64, bytemuck::cast_slice(piece.weight));
        for row in &piece.rows {
            row_of.extend(std::iter::repeat_n(rows.len() as u32, row.n_segments as usize));
            let first_segment = row_of.len() as u32 - row.n_segments;
            rows.push(NormRow { first: row.first + first as u32, first_segment, ..*row });
        }
        first += piece.weight.len();
    }
    let norms = gpu.storage("norms of layers", 8 * rows.len() as u64);
    let partial = gpu.storage("norms of segments", 8 * row_of.len() as u64);
    let (rows_buffer, row_of_buffer) = (gpu.storage_of("rows", &rows), gpu.storage_of("row of segment", &row_of));
    let buffers = [(&rows_buffer, 32 * rows.len()), (&row_of_buffer, 4 * row_of.len()), (&source, 4 * n_weights)];
    let mut entries: Vec<BindGroupEntry<'_>> = Vec::new();
    for (binding, (buffer, bytes)) in buffers.into_iter().enumerate() {
        // arrayLength() must see the elements only, not what rounding the buffer up added.
        let part = BufferBinding { buffer, offset: 0, size: BufferSize::new(bytes as u64) };
        entries.push(BindGroupEntry { binding: binding as u32, resource: BindingResource::Buffer(part) });
    }
    entries.push(BindGroupEntry { binding: 3, resource: partial.as_entire_binding() });
    entries.push(BindGroupEntry { binding: 4, resource: norms.as_entire_binding() });
    let layout = &gpu.pipelines.filter_norm;
    let bind = gpu.device.create_bind_group(&BindGroupDescriptor { label: Some("norms"), layout, entries: &entries });
    let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
    pass.set_bind_group(0, &bind, &[]);
    for (entry, n) in [("segments", row_of.len()), ("rows", rows.len())] {
        pass.set_pipeline(&gpu.pipelines.get(PipelineKey::new(Shader::FilterNorm, entry)));
        let [x, y] = grid(n.div_ceil(GROUP));
        pass.dispatch_workgroups(x, y, 1);
    }
    drop(pass);
    norms
}

/// At least `n` workgroups along two axes.
pub(crate) fn grid(n: usize) -> [u32; 2] {
    let x = n.clamp(1, GROUPS_MAX);
    [x as u32, n.max(1).div_ceil(x) as u32]
}

/// Norm of every channel of a group over all weights that go when it goes, as `channel_norms` of `secateur-kernels`
/// defines it, from the norms of the layers.
pub fn group_norms(
    network: &Network,
    groups: &ChannelGroups,
    group: GroupId,
    layers: &[LayerNorms],
    norm: Norm,
) -> Vec<f64> {
    let mut sums = vec![0.0f64; groups.group(group).n_channels];
    let term = |Norms { l1, l2 }: Norms| match norm {
        Norm::L1 => f64::from(l1),
        Norm::L2 => f64::from(l2) * f64::from(l2),
    };
    for layer in layers {
        let node = network.graph().node(layer.node);
        for (slot, &filter) in groups.axis(layer.node).iter().zip(&layer.filters).filter(|(s, _)| s.group == group) {
            sums[slot.channel] += term(filter);
        }
        // Depthwise filters count once.
        if matches!(&node.op, Op::Conv2d(c) if c.is_depthwise()) {
            continue;
        }
        let axis = groups.axis(node.inputs[0]);
        for (slot, &input) in axis.iter().zip(&layer.inputs).filter(|(s, _)| s.group == group) {
            sums[slot.channel] += term(input);
        }
    }
    match norm {
        Norm::L1 => sums,
        Norm::L2 => sums.into_iter().map(f64::sqrt).collect(),
    }
}

/// The channels of a group by their norm, smallest first, of equal ones the last first, as the CPU orders them; none
/// where two are so close, or so small or large, that sums of 32 bits cannot tell.
pub fn norm_order(
    network: &Network,
    groups: &ChannelGroups,
    group: GroupId,
    layers: &[LayerNorms],
    norm: Norm,
) -> Option<Vec<usize>> {
    let norms = group_norms(network, groups, group, layers, norm);
    let mut order: Vec<usize> = (0..norms.len()).collect();
    order.sort_by(|&a, &b| norms[a].total_cmp(&norms[b]).then(b.cmp(&a)));
    let longest = layers.iter().map(|l| network.parameter(&network.graph().node(l.node).name, "weight").data().len());
    let error = relative_error(longest.max().unwrap_or(0));
    // Squares of smaller numbers may have become 0; NaN and infinity compare false.
    let is_exact = |norm: f64| (1e-12..1e15).contains(&norm);
    let is_apart = |pair: &[usize]| norms[pair[1]] - norms[pair[0]] > 2.0 * error * norms[pair[1]];
    (norms.iter().all(|&n| is_exact(n)) && order.windows(2).all(is_apart)).then_some(order)
}

/// Most that rounding changes the sum of `n` positive numbers, as the shader adds them up: within a segment, within a
/// block of segments, over blocks; squares, roots and what the host adds (in 64 bits) take a few roundings more.
fn relative_error(n: usize) -> f64 {
    let blocks = n.div_ceil(SEGMENT * BLOCK);
    (SEGMENT + BLOCK + blocks + 8) as f64 * f64::from(f32::EPSILON) / 2.0
}
