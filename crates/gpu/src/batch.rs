//! A group of candidates on the card: weights packed, buffers bound, ready for images.

use std::sync::Arc;

use secateur_net::Location;
use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindingResource, Buffer, BufferUsages,
    CommandEncoder, ComputePass, ComputePassDescriptor, ComputePipeline,
};

use crate::arena::{Arena, ArenaPiece};
use crate::candidates::LayerKind;
use crate::convolution::{CONV_BLOCK_MAX, CONV_TILES, ConvShape, ConvVariant, STRIP_ROWS, strip_constants};
use crate::device::GROUPS_MAX;
use crate::filter_norm::{GROUP, grid};
use crate::images::GpuImages;
use crate::layout::{Candidate, Uniforms};
use crate::packing::{Packed, pack};
use crate::pipelines::{ConvConstants, PipelineKey, Shader};
use crate::program::{Dispatch, Kernel, Program};
use crate::weights::BatchWeights;
use crate::{Gpu, GpuError};

/// How a dispatch's workgroups follow from the number of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Pixels or strips of one image, of one workgroup, blocks of quads.
    Blocks { per_image: usize, tile: usize, n_blocks: usize },
    /// Invocations per image.
    Flat { per_image: usize },
}

impl Extent {
    fn groups(self, n_images: usize) -> [u32; 2] {
        match self {
            Self::Blocks { per_image, tile, n_blocks } => {
                [n_blocks as u32, (n_images * per_image).div_ceil(tile) as u32]
            }
            Self::Flat { per_image } => grid((n_images * per_image).div_ceil(GROUP)),
        }
    }
}

/// A dispatch with everything bound but the images of the chunk.
#[derive(Debug)]
pub struct Bound {
    pipeline: Arc<ComputePipeline>,
    step: BindGroup,
    /// One, or one per part of the images where it reads those.
    activations: Vec<BindGroup>,
    extent: Extent,
}

/// Candidates ready to be run on images, `chunk` at a time.
#[derive(Debug)]
pub struct CandidateBatch {
    /// What is run.
    pub program: Program,
    /// Number of candidates.
    pub n_candidates: usize,
    /// Most images at a time.
    pub chunk: usize,
    /// The dispatches.
    pub bound: Vec<Bound>,
    /// Activations.
    pub buffers: Vec<Buffer>,
    /// Bytes of the packed weights.
    pub weights_bytes: u64,
    /// Weights, packed and as they were sent.
    weights: [Buffer; 2],
}

/// Most pixels along one axis of a grid, for the smallest tile.
const PIXELS_MAX: usize = GROUPS_MAX * 4 * CONV_TILES[CONV_TILES.len() - 1] as usize;
/// Images that should pass together at least, before more candidates do.
const IMAGES_WANTED: usize = 16;
/// Candidates of a batch, if as many keep the card busy: it computes them while the next ones' weights are gathered.
const CANDIDATES_WANTED: usize = 16;

/// How many candidates, and how many images at a time, fit the device's memory and bindings.
///
/// # Errors
/// One candidate or one image that alone does not fit, naming the node.
pub fn fit(
    gpu: &Gpu,
    program: &Program,
    names: impl Fn(usize) -> String,
    n_images: usize,
) -> Result<[usize; 2], GpuError> {
    let max = gpu.binding_max();
    let mut n = program.n_out.len().min(GROUPS_MAX);
    let mut total = 0;
    for dispatch in &program.dispatches {
        let Kernel::Layer(kind) = dispatch.kernel else { continue };
        let taps = (dispatch.uniforms.kernel_h * dispatch.uniforms.kernel_w) as usize;
        // Batches of fewer candidates may be cut into other blocks: the largest has most to fill up.
        let packed = |c: &Candidate| {
            let n_out = c.n_out + if dispatch.block > 0 { 4 * (CONV_BLOCK_MAX as u32 - 1) } else { 0 };
            crate::weights::packed_quads(kind, taps, 1, &Candidate { n_out, ..*c })
        };
        let bytes = 16 * dispatch.candidates.iter().map(packed).max().unwrap_or(0) as u64;
        if bytes > max {
            return Err(GpuError::TooLarge { what: format!("weights of node '{}'", names(dispatch.node)), bytes, max });
        }
        total += bytes + gpu.alignment();
        n = n.min(usize::try_from(max / bytes.max(1)).unwrap_or(usize::MAX));
    }
    n = n.min(usize::try_from(gpu.weights_max() / total.max(1)).unwrap_or(usize::MAX)).max(1);
    let largest = 16 * program.buffer_quads.iter().copied().max().unwrap_or(1).max(1) as u64;
    if largest > max {
        return Err(GpuError::TooLarge { what: "activations of one image".into(), bytes: largest, max });
    }
    let room = usize::try_from(gpu.activations_max().max(largest) / largest).unwrap_or(usize::MAX);
    let n = n.min((room / IMAGES_WANTED.min(n_images.max(1))).max(1));
    let n = n.min(CANDIDATES_WANTED.max(room / n_images.max(1)));
    let pixels = program.dispatches.iter().map(|d| (d.uniforms.out_h * d.uniforms.out_w) as usize).max().unwrap_or(1);
    let chunk = (room / n).min(n_images).min(PIXELS_MAX / pixels.max(1)).max(1);
    Ok([n, chunk])
}

impl CandidateBatch {
    /// Packs `weights` and binds everything. The packing is submitted; nothing is waited for but room for the weights.
    ///
    /// # Errors
    /// Shared weights of a layer larger than a binding, failures of the device.
    pub fn new(
        gpu: &Gpu,
        images: &GpuImages,
        mut program: Program,
        weights: &BatchWeights<'_>,
        chunk: usize,
    ) -> Result<Self, GpuError> {
        let n_candidates = program.n_out.len();
        for layer in &weights.layers {
            let parts = program.dispatches[layer.dispatch].candidates.iter_mut();
            parts.zip(&layer.jobs).for_each(|(part, job)| part.weights = job.packed);
        }
        let Packed { packed, source, pieces } = pack(gpu, weights)?;
        let buffer_bytes = |quads: &usize| 16 * (quads * chunk * n_candidates) as u64;
        let buffers: Vec<Buffer> =
            program.buffer_quads.iter().map(|q| gpu.reused("activations", buffer_bytes(q))).collect();
        let mut uniforms = Arena::new(gpu);
        let mut parts = Arena::new(gpu);
        let mut where_: Vec<(ArenaPiece, ArenaPiece)> = Vec::new();
        for dispatch in &program.dispatches {
            where_.push((uniforms.push(&[scaled(&dispatch.uniforms, chunk)]), parts.push(&dispatch.candidates)));
        }
        let uniforms = uniforms.buffer(gpu, "steps", BufferUsages::UNIFORM);
        let parts = parts.buffer(gpu, "candidates", BufferUsages::STORAGE);
        let mut bound = Vec::with_capacity(program.dispatches.len());
        for (at, dispatch) in program.dispatches.iter().enumerate() {
            let layer = weights.layers.iter().position(|l| l.dispatch == at);
            // Steps without weights bind any.
            let own = layer.map_or_else(|| parts.as_entire_binding(), |l| pieces[l].of(&packed));
            let step = [where_[at].0.of(&uniforms), where_[at].1.of(&parts), own];
            let (key, extent) = kernel(gpu, dispatch);
            bound.push(Bound {
                pipeline: gpu.pipelines.get(key),
                step: bind(gpu, &gpu.pipelines.step, &step),
                activations: activations(gpu, images, dispatch, &buffers),
                extent,
            });
        }
        gpu.check("preparing candidates")?;
        let weights_bytes = pieces.last().map_or(0, |piece| piece.offset + piece.size);
        Ok(Self { n_candidates, program, chunk, bound, buffers, weights_bytes, weights: [packed, source] })
    }

    /// Its large buffers, for the next batch: whatever that writes there comes after what this one reads.
    pub fn into_buffers(self) -> Vec<Buffer> {
        self.buffers.into_iter().chain(self.weights).collect()
    }

    /// Adds all dispatches for one chunk of `n_images` of part `part`.
    pub fn encode(&self, encoder: &mut CommandEncoder, part: usize, n_images: usize, chunk: &BindGroup) {
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        for bound in &self.bound {
            self.dispatch(&mut pass, bound, part, n_images, chunk);
        }
    }

    /// Adds one dispatch.
    pub fn dispatch(&self, pass: &mut ComputePass<'_>, bound: &Bound, part: usize, n_images: usize, chunk: &BindGroup) {
        let activations = bound.activations.get(part).unwrap_or(&bound.activations[0]);
        pass.set_pipeline(&bound.pipeline);
        pass.set_bind_group(0, &bound.step, &[]);
        pass.set_bind_group(1, activations, &[]);
        pass.set_bind_group(2, chunk, &[]);
        let [x, y] = bound.extent.groups(n_images);
        if x > 0 {
            pass.dispatch_workgroups(x, y, self.n_candidates as u32);
        }
    }
}

/// Strides for `chunk` images.
fn scaled(step: &Uniforms, chunk: usize) -> Uniforms {
    let chunk = chunk as u32;
    Uniforms {
        in_stride: step.in_stride * chunk,
        residual_stride: step.residual_stride * chunk,
        out_stride: step.out_stride * chunk,
        ..*step
    }
}

fn activations(gpu: &Gpu, images: &GpuImages, dispatch: &Dispatch, buffers: &[Buffer]) -> Vec<BindGroup> {
    let residual = dispatch.residual.unwrap_or(dispatch.input);
    let reads_images = dispatch.input == Location::Image || residual == Location::Image;
    let n = if reads_images { images.parts.len().max(1) } else { 1 };
    let buffer = |location: Location, part: usize| match location {
        Location::Buffer(buffer) => buffers[buffer].as_entire_binding(),
        Location::Image => images.parts.get(part).map_or(&buffers[0], |p| &p.images).as_entire_binding(),
    };
    let group = |part| {
        let entries =
            [buffer(dispatch.input, part), buffer(residual, part), buffers[dispatch.buffer].as_entire_binding()];
        bind(gpu, &gpu.pipelines.activations, &entries)
    };
    (0..n).map(group).collect()
}

/// Binds resources to bindings 0, 1, …
pub fn bind(gpu: &Gpu, layout: &BindGroupLayout, resources: &[BindingResource<'_>]) -> BindGroup {
    let numbered: Vec<(u32, BindingResource<'_>)> = (0..).zip(resources.iter().cloned()).collect();
    bind_at(gpu, layout, &numbered)
}

/// Binds resources to the bindings given.
pub fn bind_at(gpu: &Gpu, layout: &BindGroupLayout, resources: &[(u32, BindingResource<'_>)]) -> BindGroup {
    let numbered = resources.iter().cloned();
    let entries: Vec<BindGroupEntry<'_>> =
        numbered.map(|(binding, resource)| BindGroupEntry { binding, resource }).collect();
    gpu.device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
}

/// The pipeline of a dispatch and its workgroups.
fn kernel(gpu: &Gpu, dispatch: &Dispatch) -> (PipelineKey, Extent) {
    let pixels = (dispatch.uniforms.out_h * dispatch.uniforms.out_w) as usize;
    let out_quads = dispatch.out_quads();
    let flat = |shader, entry| (PipelineKey::new(shader, entry), Extent::Flat { per_image: pixels * out_quads });
    match dispatch.kernel {
        Kernel::Layer(LayerKind::Dense) => dense(gpu.conv_shape(&dispatch.uniforms), dispatch),
        Kernel::Layer(LayerKind::Depthwise) => flat(Shader::Conv, "depthwise"),
        Kernel::Layer(LayerKind::Grouped(_) | LayerKind::Multiplied) => flat(Shader::Conv, "grouped"),
        Kernel::Layer(LayerKind::Slopes) => flat(Shader::Elementwise, "slopes"),
        Kernel::MaxPool => flat(Shader::Pool, "max_pool"),
        Kernel::AveragePool => flat(Shader::Pool, "average_pool"),
        Kernel::Shift => flat(Shader::Move, "shift"),
        Kernel::Flatten => flat(Shader::Move, "flatten"),
        Kernel::Combine => flat(Shader::Elementwise, "combine"),
        Kernel::Softmax => (PipelineKey::new(Shader::Elementwise, "softmax"), Extent::Flat { per_image: pixels }),
    }
}

fn dense(shape: ConvShape, dispatch: &Dispatch) -> (PipelineKey, Extent) {
    let (ConvShape { variant, tile, .. }, step) = (shape, &dispatch.uniforms);
    let n_blocks = dispatch.out_quads().div_ceil(dispatch.block.max(1));
    let key = |shader, strips| {
        let conv = ConvConstants { tile, quads: dispatch.block as u32, strips };
        PipelineKey { shader, entry: variant.name(), conv }
    };
    let tile = tile as usize;
    match variant {
        ConvVariant::Direct | ConvVariant::Staged => {
            let per_image = (step.out_h * step.out_w) as usize;
            (key(Shader::Conv, None), Extent::Blocks { per_image, tile: 4 * tile, n_blocks })
        }
        ConvVariant::Strips => {
            let per_image = (step.out_h.div_ceil(STRIP_ROWS) * step.out_w) as usize;
            (key(Shader::Strips, Some(strip_constants(step))), Extent::Blocks { per_image, tile, n_blocks })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::{Candidates, Widths};
    use crate::images::Truth;
    use crate::weights::gather;
    use crate::{GpuOptions, filter_norms};
    use secateur_net::random::{random_network, with_random_weights};
    use secateur_net::{ChannelGroups, Conv2d, GraphBuilder, KeptChannels, Op, Protocol, Shape};

    /// Every call is checked against the least limits that any adapter must offer; nothing runs.
    #[test]
    fn whole_networks_are_accepted_by_a_device_that_only_checks() {
        let of =
            |(conv, tile)| Gpu::noop(&GpuOptions { conv: Some(conv), conv_tile: Some(tile), ..GpuOptions::default() });
        let gpus: Vec<Gpu> =
            ConvVariant::ALL.iter().flat_map(|&conv| CONV_TILES.map(|tile| of((conv, tile)))).collect();
        for (seed, gpu) in (0..42).zip(gpus.iter().cycle()) {
            let network = random_network(seed);
            let groups = ChannelGroups::derive(network.graph(), Protocol::Full);
            let kept = [KeptChannels::all(&groups), KeptChannels::all(&groups)];
            let (shape, n_classes) = (network.graph().input(), network.graph().n_classes());
            let (images, logits) = (vec![0.0; 3 * shape.len()], vec![0.0; 3 * n_classes]);
            let truth = Truth { labels: Some(&[0; 3]), n_classes, original_logits: Some(&logits) };
            let images = GpuImages::new(gpu, shape, &images, Some(truth)).unwrap();
            let masked = Candidates::Masked { network: &network, groups: &groups, kept: &kept };
            assert_eq!(gpu.score(&images, &masked).unwrap().len(), 2);
            assert_eq!(gpu.logits(&images, &Candidates::Repaired(&[&network])).unwrap()[0].len(), 3 * n_classes);
            filter_norms(gpu, &network).unwrap();
        }
    }

    /// However many candidates and images: the weights of those that wait for the card stay within the room there is
    /// for them.
    #[test]
    fn candidates_whose_weights_do_not_fit_together_are_scored_one_after_the_other() {
        let network = random_network(7);
        let (shape, n_classes) = (network.graph().input(), network.graph().n_classes());
        let truth = Truth { labels: Some(&[0; 3]), n_classes, original_logits: None };
        let networks = [&network; 5];
        let score = |weights_max: Option<u64>| {
            // Without an adapter the tests in tests/it say that they are skipped.
            let gpu = Gpu::open(&GpuOptions { weights_max, ..GpuOptions::default() }).ok()?;
            let images = GpuImages::new(&gpu, shape, &vec![0.5; 3 * shape.len()], Some(truth)).unwrap();
            let candidates = Candidates::Repaired(&networks);
            let program =
                Program::new(network.graph(), &candidates.widths().unwrap(), |step| gpu.conv_shape(step)).unwrap();
            let [n, _] = fit(&gpu, &program, |_| String::new(), 3).unwrap();
            Some((n, gpu.score(&images, &candidates).unwrap(), gpu.n_outstanding()))
        };
        let (Some((n, expected, n_outstanding)), Some((n_less, scores, n_less_outstanding))) =
            (score(None), score(Some(1)))
        else {
            return;
        };
        assert_eq!((n, n_outstanding, n_less, n_less_outstanding), (5, 1, 1, 1));
        assert_eq!(scores, expected);
    }

    /// A layer that keeps nothing: what reads it is left with its biases.
    #[test]
    fn empty_masks_leave_the_biases() {
        let mut b = GraphBuilder::new(Shape { c: 3, h: 5, w: 4 });
        let a = b.push("a", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(3, 6, 3, 1, 1) }), &[0]);
        let d = b.push("d", Op::Conv2d(Conv2d { groups: 6, ..Conv2d::square(6, 6, 3, 1, 1) }), &[a]);
        let c = b.push("c", Op::Conv2d(Conv2d { bias: true, ..Conv2d::square(6, 5, 3, 1, 1) }), &[d]);
        b.push("m", Op::GlobalAvgPool, &[c]);
        let network = with_random_weights(b.finish().unwrap(), 1);
        let none = Widths { channels: vec![3, 0, 0, 5, 5], shifts: vec![0; 5], groups: vec![1, 1, 0, 1, 1] };
        for conv in ConvVariant::ALL {
            let options = GpuOptions { checked: true, conv: Some(conv), ..GpuOptions::default() };
            // Without an adapter the tests in tests/it say that they are skipped.
            let Ok(gpu) = Gpu::open(&options) else { return };
            let images = GpuImages::new(&gpu, network.graph().input(), &[1.0; 2 * 60], None).unwrap();
            let program =
                Program::new(network.graph(), std::slice::from_ref(&none), |step| gpu.conv_shape(step)).unwrap();
            let networks = [&network];
            let weights = gather(&program, &Candidates::Repaired(&networks), std::slice::from_ref(&none));
            let batch = CandidateBatch::new(&gpu, &images, program, &weights, 2).unwrap();
            let logits = gpu.logits_of_batch(&images, &batch).unwrap();
            for image in logits[0].chunks(5) {
                for (got, bias) in image.iter().zip(network.parameter("c", "bias").data()) {
                    assert!((got - bias).abs() < 1e-6, "{conv:?}: {got} {bias}");
                }
            }
        }
    }
}
