//! An open device: its limits, its errors, waiting for its queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wgpu::{
    Adapter, Buffer, BufferDescriptor, BufferUsages, CommandEncoder, CommandEncoderDescriptor, Device,
    DeviceDescriptor, DeviceType, Features, Limits, MapMode, PollError, PollType, Queue, SubmissionIndex,
};

use crate::GpuError;
use crate::adapter::choose;
use crate::pipelines::Pipelines;

/// How dense convolutions are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvVariant {
    /// Weights straight from memory, no barrier.
    Direct,
    /// Weights in workgroup memory.
    Staged,
}

impl ConvVariant {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Staged];
}

/// What may be asked of a device; the default is what runs use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// Keep all bounds, loop and division checks in the shaders.
    pub checked: bool,
    /// Longest wait for one submission (zero: every wait is too long); default 60 s, ten minutes on software adapters.
    pub timeout: Option<Duration>,
    /// Most bytes of one binding; default what the adapter allows.
    pub binding_max: Option<u64>,
    /// Most bytes of one buffer of activations; default by the kind of adapter.
    pub activations_max: Option<u64>,
    /// How to convolve; default without barriers on software adapters, else staged.
    pub conv: Option<ConvVariant>,
    /// Most output quads that an invocation computes together, 1 to 4; default 4.
    pub conv_block: Option<usize>,
}

/// An open device with its queue and pipelines.
#[derive(Debug)]
pub struct Gpu {
    name: String,
    /// Under which compiled pipelines are kept.
    key: Option<String>,
    pub(crate) device: Device,
    pub(crate) queue: Queue,
    pub(crate) pipelines: Pipelines,
    limits: Limits,
    timeout: Duration,
    binding_max: u64,
    activations_max: u64,
    conv: ConvVariant,
    /// Most output quads of a block.
    conv_block_max: usize,
    faults: Arc<Faults>,
    /// Buffers of finished batches, for the next ones.
    spare: Mutex<Vec<Buffer>>,
}

/// Elements on their way from the card.
#[derive(Debug)]
pub(crate) struct Fetch {
    here: Buffer,
    bytes: u64,
    submission: SubmissionIndex,
}

/// What the driver reported, whenever it did.
#[derive(Debug, Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    /// The first error since the last look; those after it are its consequences.
    error: Mutex<Option<Fault>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    OutOfMemory(String),
    Refused(String),
}

impl From<&wgpu::Error> for Fault {
    fn from(error: &wgpu::Error) -> Self {
        match error {
            wgpu::Error::OutOfMemory { source } => Self::OutOfMemory(source.to_string()),
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                Self::Refused(description.clone())
            }
        }
    }
}

/// Most output quads that masked_conv2d.wgsl computes together.
pub(crate) const CONV_BLOCK_MAX: usize = 4;
/// Most workgroups along one axis that any adapter must allow.
pub(crate) const GROUPS_MAX: usize = 65535;

impl Gpu {
    /// Opens the best adapter; see [`crate::adapters`].
    ///
    /// # Errors
    /// No adapter, or one that gives no device.
    pub fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        Self::open_with(options, &|_| None)
    }

    /// As [`Gpu::open`], with pipelines compiled earlier: `compiled` is asked for what [`Gpu::compiled`] returned under a key. Other
    /// bytes must never be given: drivers trust them.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_with(options: &GpuOptions, compiled: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Self, GpuError> {
        let adapter = choose()?;
        let key = wgpu::util::pipeline_cache_key(&adapter.get_info());
        let compiled = key.as_deref().and_then(compiled);
        Self::on(&adapter, options, key, compiled.as_deref())
    }

    fn on(
        adapter: &Adapter,
        options: &GpuOptions,
        key: Option<String>,
        compiled: Option<&[u8]>,
    ) -> Result<Self, GpuError> {
        let info = adapter.get_info();
        let description = DeviceDescriptor {
            label: Some("secateur"),
            required_features: adapter.features() & (Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE),
            required_limits: adapter.limits(),
            ..DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&description))
            .map_err(|e| GpuError::NoDevice { adapter: info.name.clone(), problem: e.to_string() })?;
        let pipelines = Pipelines::new(&device, options.checked, compiled);
        let gpu = Self { key, ..Self::with(device, queue, pipelines, (info.name, info.device_type), options) };
        gpu.check("opening the device")?;
        Ok(gpu)
    }

    /// A device that does nothing: every call is checked, nothing runs. For tests of what is asked of a device.
    #[cfg(test)]
    pub(crate) fn noop() -> Self {
        let (device, queue) = Device::noop(&DeviceDescriptor::default());
        let pipelines = Pipelines::new(&device, true, None);
        Self::with(device, queue, pipelines, ("noop".into(), DeviceType::Other), &GpuOptions::default())
    }

    fn with(
        device: Device,
        queue: Queue,
        pipelines: Pipelines,
        (name, kind): (String, DeviceType),
        options: &GpuOptions,
    ) -> Self {
        let faults = Arc::new(Faults::default());
        let on_error = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let mut first = on_error.error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| (&error).into());
        }));
        let on_loss = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let mut lost = on_loss.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.get_or_insert_with(|| format!("{reason:?} {message}"));
        });
        let is_software = kind == DeviceType::Cpu;
        let limits = device.limits();
        let (by_kind, seconds) = match kind {
            // Software: what stays in the processor's caches.
            DeviceType::Cpu => (4 << 20, 600),
            DeviceType::DiscreteGpu => (512 << 20, 60),
            _ => (128 << 20, 60),
        };
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let binding_max = options.binding_max.unwrap_or(largest).min(largest);
        let variant = if is_software { ConvVariant::Direct } else { ConvVariant::Staged };
        Self {
            name,
            key: None,
            pipelines,
            device,
            queue,
            timeout: options.timeout.unwrap_or(Duration::from_secs(seconds)),
            binding_max,
            activations_max: options.activations_max.unwrap_or(by_kind).min(binding_max),
            conv: options.conv.unwrap_or(variant),
            conv_block_max: options.conv_block.unwrap_or(CONV_BLOCK_MAX).clamp(1, CONV_BLOCK_MAX),
            limits,
            faults,
            spare: Mutex::default(),
        }
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it computes dense convolutions.
    pub const fn conv(&self) -> ConvVariant {
        self.conv
    }

    /// Key and content of the pipelines compiled so far, for [`Gpu::open_with`] of a later process; none where the adapter does not
    /// hand them out.
    pub fn compiled(&self) -> Option<(String, Vec<u8>)> {
        Some((self.key.clone()?, self.pipelines.compiled()?))
    }

    /// Most bytes of one binding.
    pub(crate) const fn binding_max(&self) -> u64 {
        self.binding_max
    }

    /// Most bytes of one buffer.
    pub(crate) const fn buffer_max(&self) -> u64 {
        self.limits.max_buffer_size
    }

    /// Most bytes of one buffer of activations.
    pub(crate) const fn activations_max(&self) -> u64 {
        self.activations_max
    }

    /// Invocations of a convolution's workgroup.
    pub(crate) fn conv_tile(&self) -> u32 {
        let limits = &self.limits;
        if limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x) < 64 { 32 } else { 64 }
    }

    /// How many of `out_quads` output quads a convolution computes together: blocks as even as possible, none larger than the
    /// registers of an invocation hold.
    pub(crate) const fn conv_block(&self, out_quads: usize) -> usize {
        let n_blocks = out_quads.div_ceil(self.conv_block_max);
        if n_blocks == 0 { 1 } else { out_quads.div_ceil(n_blocks) }
    }

    /// Offsets of bindings are multiples of this.
    pub(crate) fn alignment(&self) -> u64 {
        u64::from(self.limits.min_storage_buffer_offset_alignment.max(self.limits.min_uniform_buffer_offset_alignment))
    }

    /// A buffer of `bytes`, of unspecified content until written.
    pub(crate) fn buffer(&self, label: &str, bytes: u64, usage: BufferUsages) -> Buffer {
        let size = bytes.max(16).next_multiple_of(16);
        self.device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    }

    /// A storage buffer of `bytes` that can be copied from and to.
    pub(crate) fn storage(&self, label: &str, bytes: u64) -> Buffer {
        self.buffer(label, bytes, BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC)
    }

    /// A storage buffer of at least `bytes` with any content: one given back earlier, or a new one. Making large buffers takes the
    /// driver longer than filling them.
    pub(crate) fn activations(&self, bytes: u64) -> Buffer {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(i, buffer): (usize, &Buffer)| (buffer.size() >= bytes).then_some((buffer.size(), i));
        match spare.iter().enumerate().filter_map(fits).min() {
            Some((_, at)) => spare.swap_remove(at),
            None => self.storage("activations", bytes),
        }
    }

    /// Takes buffers back; those that were too small for the batch that just ended are dropped.
    pub(crate) fn give_back(&self, buffers: Vec<Buffer>) {
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = buffers;
    }

    /// A storage buffer with this content.
    pub(crate) fn storage_of<T: bytemuck::Pod>(&self, label: &str, content: &[T]) -> Buffer {
        let buffer = self.storage(label, size_of_val(content) as u64);
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(content));
        buffer
    }

    /// A uniform buffer with this content.
    pub(crate) fn uniform_of<T: bytemuck::Pod>(&self, label: &str, content: &[T]) -> Buffer {
        let buffer = self.buffer(label, size_of_val(content) as u64, BufferUsages::UNIFORM | BufferUsages::COPY_DST);
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(content));
        buffer
    }

    pub(crate) fn encoder(&self) -> CommandEncoder {
        self.device.create_command_encoder(&CommandEncoderDescriptor::default())
    }

    pub(crate) fn submit(&self, encoder: CommandEncoder) -> SubmissionIndex {
        self.queue.submit([encoder.finish()])
    }

    /// Whether anything went wrong so far.
    ///
    /// # Errors
    /// What did.
    pub(crate) fn check(&self, doing: &str) -> Result<(), GpuError> {
        let doing = doing.to_owned();
        if let Some(problem) = self.faults.lost.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(GpuError::Lost { doing, problem });
        }
        match self.faults.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(Fault::OutOfMemory(problem)) => Err(GpuError::OutOfMemory { doing, problem }),
            Some(Fault::Refused(problem)) => Err(GpuError::Refused { doing, problem }),
        }
    }

    /// Waits for a submission.
    ///
    /// # Errors
    /// What went wrong up to it, or that it takes too long.
    pub(crate) fn wait(&self, submission: SubmissionIndex, doing: &str) -> Result<(), GpuError> {
        self.check(doing)?;
        let wait = PollType::Wait { submission_index: Some(submission), timeout: Some(self.timeout) };
        let waited = self.device.poll(wait);
        self.check(doing)?;
        // No time at all is too little, even where the work happens to be done: software adapters may do it while it is submitted.
        let waited = if self.timeout.is_zero() { Err(PollError::Timeout) } else { waited };
        waited.map(|_| ()).map_err(|error| self.wait_error(error, doing))
    }

    fn wait_error(&self, error: PollError, doing: &str) -> GpuError {
        let doing = doing.to_owned();
        match error {
            PollError::Timeout => GpuError::Timeout { doing, limit_s: self.timeout.as_secs() },
            error => GpuError::Refused { doing, problem: error.to_string() },
        }
    }

    /// Submits `encoder` after a copy of the first `n` elements of `from`, and brings them here.
    ///
    /// # Errors
    /// As for a wait for the submission.
    pub(crate) fn fetch<T: bytemuck::Pod>(
        &self,
        encoder: CommandEncoder,
        from: &Buffer,
        n: usize,
        doing: &str,
    ) -> Result<Vec<T>, GpuError> {
        self.end_fetch(self.begin_fetch(encoder, from, (n * size_of::<T>()) as u64), doing)
    }

    /// The first half of [`Gpu::fetch`]: nothing is waited for.
    pub(crate) fn begin_fetch(&self, mut encoder: CommandEncoder, from: &Buffer, bytes: u64) -> Fetch {
        let here = self.buffer("result", bytes, BufferUsages::COPY_DST | BufferUsages::MAP_READ);
        encoder.copy_buffer_to_buffer(from, 0, &here, 0, bytes);
        let submission = self.submit(encoder);
        here.slice(..bytes).map_async(MapMode::Read, |_| ());
        Fetch { here, bytes, submission }
    }

    /// The second half of [`Gpu::fetch`].
    ///
    /// # Errors
    /// As for a wait for the submission.
    pub(crate) fn end_fetch<T: bytemuck::Pod>(&self, fetch: Fetch, doing: &str) -> Result<Vec<T>, GpuError> {
        let Fetch { here, bytes, submission } = fetch;
        self.wait(submission, doing)?;
        let view = here.slice(..bytes).get_mapped_range();
        let view = view.map_err(|e| GpuError::Refused { doing: doing.to_owned(), problem: e.to_string() })?;
        // The mapping need not be aligned for T.
        Ok(bytemuck::pod_collect_to_vec(&view))
    }

    /// What the driver does when something fails.
    #[cfg(test)]
    pub(crate) fn report(&self, error: &wgpu::Error) {
        self.faults.error.lock().unwrap().get_or_insert_with(|| error.into());
    }

    /// Gives the device up: all work on it fails as if it had been lost.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The driver's complaints reach the caller as what they are, the first one only.
    #[test]
    fn failures_are_told_apart_and_consequences_are_dropped() {
        let gpu = Gpu::noop();
        gpu.report(&wgpu::Error::OutOfMemory { source: "no room".into() });
        gpu.report(&wgpu::Error::Validation { source: "x".into(), description: "invalid buffer".into() });
        let error = gpu.check("packing").unwrap_err();
        assert_eq!(error, GpuError::OutOfMemory { doing: "packing".into(), problem: "no room".into() });
        assert_eq!(gpu.check("packing"), Ok(()));
        // A real mistake: larger than any buffer may be.
        gpu.buffer("too large", gpu.buffer_max() + 16, BufferUsages::STORAGE);
        assert!(matches!(gpu.check("buffers"), Err(GpuError::Refused { .. })));
        let error = gpu.wait_error(PollError::Timeout, "scoring");
        assert_eq!(error.to_string(), "scoring: the queue did not finish within 60 s");
        assert!(error.is_of_device());
        *gpu.faults.lost.lock().unwrap() = Some("Unknown reset".into());
        let error = gpu.check("scoring").unwrap_err();
        assert_eq!(error.to_string(), "scoring: the device was lost: Unknown reset");
    }
}
