//! The shaders as pipelines: sources, bind group layouts, constants. Each pipeline is made when it is first used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType, ComputePipeline,
    ComputePipelineDescriptor, Device, Features, PipelineCache, PipelineCacheDescriptor, PipelineCompilationOptions,
    PipelineLayout, PipelineLayoutDescriptor, ShaderModule, ShaderModuleDescriptor, ShaderRuntimeChecks, ShaderSource,
    ShaderStages,
};

/// A shader file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shader {
    /// masked_conv2d.wgsl
    Conv,
    /// conv_strips.wgsl
    Strips,
    /// pool.wgsl
    Pool,
    /// move.wgsl
    Move,
    /// elementwise.wgsl
    Elementwise,
    /// top1.wgsl
    Top1,
    /// pack_weights.wgsl
    Pack,
    /// filter_norm.wgsl
    FilterNorm,
}

impl Shader {
    /// Every shader file.
    pub const ALL: [Self; 8] =
        [Self::Conv, Self::Strips, Self::Pool, Self::Move, Self::Elementwise, Self::Top1, Self::Pack, Self::FilterNorm];

    /// Its text, the shared parts included.
    pub fn source(self) -> String {
        macro_rules! shader {
            ($name:literal) => {
                include_str!(concat!("../../../shaders/", $name))
            };
        }
        let (prelude, dense) = (shader!("prelude.wgsl"), shader!("dense.wgsl"));
        let parts: &[&str] = match self {
            Self::Conv => &[prelude, dense, shader!("masked_conv2d.wgsl")],
            Self::Strips => &[prelude, dense, shader!("conv_strips.wgsl")],
            Self::Pool => &[prelude, shader!("pool.wgsl")],
            Self::Move => &[prelude, shader!("move.wgsl")],
            Self::Elementwise => &[prelude, shader!("elementwise.wgsl")],
            Self::Top1 => &[prelude, shader!("top1.wgsl")],
            Self::Pack => &[shader!("pack_weights.wgsl")],
            Self::FilterNorm => &[shader!("filter_norm.wgsl")],
        };
        parts.join("\n")
    }

    /// Entry points of the file.
    pub const fn entry_points(self) -> &'static [&'static str] {
        match self {
            Self::Conv => &["direct", "staged", "depthwise", "grouped"],
            Self::Strips => &["strips"],
            Self::Pool => &["max_pool", "average_pool"],
            Self::Move => &["shift", "flatten"],
            Self::Elementwise => &["combine", "slopes", "softmax"],
            Self::Top1 => &["judge", "tally"],
            Self::Pack => &["pack"],
            Self::FilterNorm => &["segments", "rows"],
        }
    }
}

/// Constants of a convolution's pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvConstants {
    /// TILE: invocations of a workgroup.
    pub tile: u32,
    /// QUADS: output quads that an invocation computes together.
    pub quads: u32,
    /// Those of conv_strips.wgsl besides; nothing elsewhere.
    pub strips: Option<StripConstants>,
}

/// What conv_strips.wgsl knows of a layer when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StripConstants {
    /// KERNEL_H: rows of the kernel.
    pub kernel_h: u32,
    /// IN_W: columns of the input.
    pub in_w: u32,
    /// EDGE: rows of taps at either end of a strip that may lie outside the image.
    pub edge: u32,
}

impl ConvConstants {
    /// Names and values.
    fn named(self) -> Vec<(&'static str, f64)> {
        let mut named = vec![("TILE", self.tile), ("QUADS", self.quads)];
        if let Some(StripConstants { kernel_h, in_w, edge }) = self.strips {
            named.extend([("KERNEL_H", kernel_h), ("IN_W", in_w), ("EDGE", edge)]);
        }
        named.into_iter().map(|(name, value)| (name, f64::from(value))).collect()
    }
}

/// Which pipeline: file, entry point, and the constants of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipelineKey {
    /// The file.
    pub shader: Shader,
    /// Its entry point.
    pub entry: &'static str,
    /// Of masked_conv2d.wgsl and conv_strips.wgsl.
    pub conv: ConvConstants,
}

impl PipelineKey {
    /// A pipeline without constants of its own.
    pub const fn new(shader: Shader, entry: &'static str) -> Self {
        Self { shader, entry, conv: ConvConstants { tile: 64, quads: 1, strips: None } }
    }
}

/// Bind group layouts, and the pipelines made so far.
#[derive(Debug)]
pub struct Pipelines {
    device: Device,
    checked: bool,
    /// Compiled pipelines of earlier processes, and of this one; none where the adapter has no such thing.
    cache: Option<PipelineCache>,
    /// Uniforms, candidates, weights.
    pub step: BindGroupLayout,
    /// Input, residual, output.
    pub activations: BindGroupLayout,
    /// Images of a chunk.
    pub chunk: BindGroupLayout,
    /// Logits, labels, the original's log-probabilities, verdicts and tallies.
    pub top1: BindGroupLayout,
    /// All of pack_weights.wgsl.
    pub pack: BindGroupLayout,
    /// All of filter_norm.wgsl.
    pub filter_norm: BindGroupLayout,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    modules: HashMap<Shader, ShaderModule>,
    pipelines: HashMap<PipelineKey, Arc<ComputePipeline>>,
}

const UNIFORM: BufferBindingType = BufferBindingType::Uniform;
const READ: BufferBindingType = BufferBindingType::Storage { read_only: true };
const WRITE: BufferBindingType = BufferBindingType::Storage { read_only: false };

impl Pipelines {
    /// The layouts; `checked` keeps bounds and loop checks in the shaders, `compiled` is what [`Pipelines::compiled`]
    /// of an earlier process returned.
    pub fn new(device: &Device, checked: bool, compiled: Option<&[u8]>) -> Self {
        let layout = |label: &str, kinds: &[(u32, BufferBindingType)]| {
            let entry = |&(binding, ty): &(u32, BufferBindingType)| BindGroupLayoutEntry {
                binding,
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            };
            let entries: Vec<_> = kinds.iter().map(entry).collect();
            device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
        };
        Self {
            device: device.clone(),
            checked,
            cache: device.features().contains(Features::PIPELINE_CACHE).then(|| pipeline_cache(device, compiled)),
            step: layout("step", &[(0, UNIFORM), (1, READ), (2, READ)]),
            activations: layout("activations", &[(0, READ), (1, READ), (2, WRITE)]),
            chunk: layout("chunk", &[(0, UNIFORM)]),
            top1: layout("top1", &[(0, READ), (3, READ), (4, READ), (5, WRITE), (6, WRITE)]),
            pack: layout("pack", &[(0, UNIFORM), (1, READ), (2, READ), (3, READ), (4, WRITE)]),
            filter_norm: layout("filter norm", &[(0, READ), (1, READ), (2, READ), (3, WRITE), (4, WRITE)]),
            made: Mutex::default(),
        }
    }

    /// The pipeline, made on first use. A failure shows in the device's error handler.
    pub fn get(&self, key: PipelineKey) -> Arc<ComputePipeline> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.pipelines.get(&key) {
            return pipeline.clone();
        }
        let module = made.modules.entry(key.shader).or_insert_with(|| module(&self.device, key.shader, self.checked));
        let constants = match key.shader {
            Shader::Conv | Shader::Strips => key.conv.named(),
            Shader::Pool | Shader::Move | Shader::Elementwise | Shader::Top1 | Shader::Pack | Shader::FilterNorm => {
                Vec::new()
            }
        };
        let pipeline = Arc::new(self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: Some(key.entry),
            layout: Some(&self.layout_of(key.shader)),
            module,
            entry_point: Some(key.entry),
            compilation_options: PipelineCompilationOptions {
                constants: &constants,
                // Every invocation writes what others read.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref(),
        }));
        made.pipelines.insert(key, pipeline.clone());
        pipeline
    }

    /// The pipelines compiled so far, as the driver keeps them.
    pub fn compiled(&self) -> Option<Vec<u8>> {
        self.cache.as_ref().and_then(PipelineCache::get_data)
    }

    fn layout_of(&self, shader: Shader) -> PipelineLayout {
        let groups: &[Option<&BindGroupLayout>] = match shader {
            Shader::Pack => &[Some(&self.pack)],
            Shader::FilterNorm => &[Some(&self.filter_norm)],
            Shader::Top1 => &[Some(&self.step), Some(&self.top1), Some(&self.chunk)],
            _ => &[Some(&self.step), Some(&self.activations), Some(&self.chunk)],
        };
        self.device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: groups,
            immediate_size: 0,
        })
    }
}

#[expect(unsafe_code, reason = "the driver reads what an earlier process left")]
fn pipeline_cache(device: &Device, compiled: Option<&[u8]>) -> PipelineCache {
    let description = PipelineCacheDescriptor { label: Some("pipelines"), data: compiled, fallback: true };
    // SAFETY: callers promise that the bytes are those that `compiled` returned for an adapter of the same key; wgpu
    // and the driver check their own headers in them (version, adapter, driver) and start anew where those do not fit.
    unsafe { device.create_pipeline_cache(&description) }
}

#[expect(unsafe_code, reason = "the only way to leave out checks that cost a hundredfold in inner loops (wgpu#7698)")]
fn module(device: &Device, shader: Shader, checked: bool) -> ShaderModule {
    let source = ShaderSource::Wgsl(shader.source().into());
    let description = ShaderModuleDescriptor { label: Some("shader"), source };
    let checks = if checked { ShaderRuntimeChecks::checked() } else { ShaderRuntimeChecks::unchecked() };
    // SAFETY: the text is this crate's own, not a user's; its loops end and its indices stay within the buffers that
    // this crate binds with it, which the tests run with all checks on and compare with the same run without.
    unsafe { device.create_shader_module_trusted(description, checks) }
}
