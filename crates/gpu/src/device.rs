//! An open device: its limits, its errors, waiting for its queue.

mod buffers;
mod faults;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wgpu::{
    Adapter, Buffer, CommandEncoder, CommandEncoderDescriptor, Device, DeviceDescriptor, DeviceType, Features, Limits,
    PollError, PollType, Queue, SubmissionIndex,
};

use crate::GpuError;
use crate::adapter::{AdapterId, choose};
use crate::convolution::{ConvChoice, ConvShape, ConvVariant};
use crate::layout::Uniforms;
use crate::pipelines::Pipelines;
pub(crate) use buffers::Fetch;
use faults::{Faults, watched};

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
    /// Most bytes of packed weights on the card, of candidates it has not scored yet; default by the kind of adapter.
    pub weights_max: Option<u64>,
    /// How to convolve; default without barriers on software adapters, else strips.
    pub conv: Option<ConvVariant>,
    /// Most output quads that an invocation computes together, 1 to 4; default what suits the layer.
    pub conv_block: Option<usize>,
    /// Invocations of a workgroup of a dense convolution: 32, 64 or 128; default what suits the layer and the adapter
    /// allows.
    pub conv_tile: Option<u32>,
}

/// An open device with its queue and pipelines.
#[derive(Debug)]
pub struct Gpu {
    adapter: AdapterId,
    /// Under which compiled pipelines are kept.
    key: Option<String>,
    pub(crate) device: Device,
    pub(crate) queue: Queue,
    pub(crate) pipelines: Pipelines,
    limits: Limits,
    pub(crate) timeout: Duration,
    binding_max: u64,
    activations_max: u64,
    weights_max: u64,
    conv: ConvChoice,
    faults: Arc<Faults>,
    /// Buffers of finished batches, for the next ones.
    spare: Mutex<Vec<Buffer>>,
    /// Batches handed over, oldest first: when each is done, and bytes of its packed weights.
    outstanding: Mutex<VecDeque<(SubmissionIndex, u64)>>,
}

/// Bytes that a batch counts for at least.
const BATCH_BYTES_MIN: u64 = 1 << 20;
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

    /// As [`Gpu::open`], with pipelines compiled earlier: `compiled` is asked for what [`Gpu::compiled`] returned under
    /// a key. Other bytes must never be given: drivers trust them.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_with(options: &GpuOptions, compiled: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Self, GpuError> {
        Self::open_again(options, compiled, None)
    }

    /// As [`Gpu::open_with`], on the adapter `again` and no other.
    ///
    /// # Errors
    /// As [`Gpu::open`]; that the adapter is gone.
    pub(crate) fn open_again(
        options: &GpuOptions,
        compiled: &dyn Fn(&str) -> Option<Vec<u8>>,
        again: Option<&AdapterId>,
    ) -> Result<Self, GpuError> {
        let adapter = choose(again)?;
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
        let (id, kind) = (AdapterId::of(adapter), adapter.get_info().device_type);
        let description = DeviceDescriptor {
            label: Some("secateur"),
            required_features: adapter.features() & (Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE),
            required_limits: adapter.limits(),
            ..DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&description))
            .map_err(|e| GpuError::NoDevice { adapter: id.name.clone(), problem: e.to_string() })?;
        let pipelines = Pipelines::new(&device, options.checked, compiled);
        let mut gpu = Self::with(device, queue, pipelines, (id, kind), options);
        gpu.key = key;
        gpu.check("opening the device")?;
        Ok(gpu)
    }

    /// A device that does nothing: every call is checked, nothing runs. For tests of what is asked of a device.
    #[cfg(test)]
    pub(crate) fn noop(options: &GpuOptions) -> Self {
        let (device, queue) = Device::noop(&DeviceDescriptor::default());
        let pipelines = Pipelines::new(&device, true, None);
        let id = AdapterId { name: "noop".into(), backend: "noop".into() };
        Self::with(device, queue, pipelines, (id, DeviceType::Other), options)
    }

    fn with(
        device: Device,
        queue: Queue,
        pipelines: Pipelines,
        (adapter, kind): (AdapterId, DeviceType),
        options: &GpuOptions,
    ) -> Self {
        let limits = device.limits();
        let (activations, weights, seconds) = match kind {
            // Software: what stays in the processor's caches.
            DeviceType::Cpu => (4 << 20, 256 << 20, 600),
            DeviceType::DiscreteGpu => (512 << 20, 1 << 30, 60),
            _ => (128 << 20, 256 << 20, 60),
        };
        let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let binding_max = options.binding_max.unwrap_or(largest).min(largest);
        let variant = if kind == DeviceType::Cpu { ConvVariant::Direct } else { ConvVariant::Strips };
        let conv = ConvChoice {
            variant: options.conv.unwrap_or(variant),
            tile: options.conv_tile,
            block_max: options.conv_block,
        };
        Self {
            adapter,
            key: None,
            pipelines,
            faults: watched(&device),
            device,
            queue,
            timeout: options.timeout.unwrap_or(Duration::from_secs(seconds)),
            binding_max,
            activations_max: options.activations_max.unwrap_or(activations).min(binding_max),
            weights_max: options.weights_max.unwrap_or(weights).min(limits.max_buffer_size),
            conv,
            limits,
            spare: Mutex::default(),
            outstanding: Mutex::default(),
        }
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.adapter.name
    }

    /// Which adapter it is of.
    pub(crate) const fn adapter(&self) -> &AdapterId {
        &self.adapter
    }

    /// How it computes dense convolutions.
    pub const fn conv(&self) -> ConvChoice {
        self.conv
    }

    /// Computes dense convolutions like this from now on, as far as layers and the adapter allow.
    pub const fn set_conv(&mut self, conv: ConvChoice) {
        self.conv = conv;
    }

    /// How it computes a dense layer.
    pub(crate) fn conv_shape(&self, step: &Uniforms) -> ConvShape {
        self.conv.shape(step, &self.limits)
    }

    /// Key and content of the pipelines compiled so far, for [`Gpu::open_with`] of a later process; none where the
    /// adapter does not hand them out.
    pub fn compiled(&self) -> Option<(String, Vec<u8>)> {
        Some((self.key.clone()?, self.pipelines.compiled()?))
    }

    /// Most bytes of one binding.
    pub(crate) const fn binding_max(&self) -> u64 {
        self.binding_max
    }

    /// Most bytes of one buffer of activations.
    pub(crate) const fn activations_max(&self) -> u64 {
        self.activations_max
    }

    /// Most bytes of packed weights of candidates that are not scored yet.
    pub(crate) const fn weights_max(&self) -> u64 {
        self.weights_max
    }

    /// Waits until `bytes` more of packed weights are within [`Gpu::weights_max`], or all before them are done with.
    ///
    /// # Errors
    /// As for a wait for their submissions.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), GpuError> {
        loop {
            let oldest = {
                let mut outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner);
                let total: u64 = outstanding.iter().map(|(_, bytes)| bytes).sum();
                if total + bytes <= self.weights_max {
                    return Ok(());
                }
                outstanding.pop_front()
            };
            let Some((submission, _)) = oldest else { return Ok(()) };
            self.wait(submission, "waiting for room for weights")?;
        }
    }

    /// Notes that `bytes` of packed weights are in use until all that was submitted so far is done.
    pub(crate) fn take_room(&self, bytes: u64) {
        // However small, a batch takes some of the driver's memory.
        let bytes = bytes.max(BATCH_BYTES_MIN);
        let submission = self.queue.submit([]);
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).push_back((submission, bytes));
    }

    /// Offsets of bindings are multiples of this.
    pub(crate) fn alignment(&self) -> u64 {
        u64::from(self.limits.min_storage_buffer_offset_alignment.max(self.limits.min_uniform_buffer_offset_alignment))
    }

    pub(crate) fn encoder(&self) -> CommandEncoder {
        self.device.create_command_encoder(&CommandEncoderDescriptor::default())
    }

    pub(crate) fn submit(&self, encoder: CommandEncoder) -> SubmissionIndex {
        self.queue.submit([encoder.finish()])
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
        // No time at all is too little, even where the work happens to be done: software adapters may do it while it is
        // submitted.
        let waited = if self.timeout.is_zero() { Err(PollError::Timeout) } else { waited };
        waited.map(|_| ()).map_err(|error| self.wait_error(error, doing))
    }

    fn wait_error(&self, error: PollError, doing: &str) -> GpuError {
        let doing = doing.to_owned();
        match error {
            PollError::Timeout => {
                self.faults.hangs.store(true, Ordering::Relaxed);
                GpuError::Timeout { doing, limit_s: self.timeout.as_secs() }
            }
            error => GpuError::Refused { doing, problem: error.to_string() },
        }
    }

    /// What the driver does when something fails.
    #[cfg(test)]
    pub(crate) fn report(&self, error: &wgpu::Error) {
        self.faults.error.lock().unwrap().get_or_insert_with(|| error.into());
    }

    /// Batches whose weights are still counted.
    #[cfg(test)]
    pub(crate) fn n_outstanding(&self) -> usize {
        self.outstanding.lock().unwrap().len()
    }

    /// Gives the device up: all work on it fails as if it had been lost.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}

impl Drop for Gpu {
    /// Closing a queue waits until it is idle, for ever if it hangs: such a one stays open.
    fn drop(&mut self) {
        if self.faults.hangs.load(Ordering::Relaxed) {
            std::mem::forget((self.device.clone(), self.queue.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use wgpu::BufferUsages;

    use super::*;

    /// The driver's complaints reach the caller as what they are, the first one only.
    #[test]
    fn failures_are_told_apart_and_consequences_are_dropped() {
        let gpu = Gpu::noop(&GpuOptions::default());
        gpu.report(&wgpu::Error::OutOfMemory { source: "no room".into() });
        gpu.report(&wgpu::Error::Validation { source: "x".into(), description: "invalid buffer".into() });
        let error = gpu.check("packing").unwrap_err();
        assert_eq!(error, GpuError::OutOfMemory { doing: "packing".into(), problem: "no room".into() });
        assert_eq!(gpu.check("packing"), Ok(()));
        // A real mistake: larger than any buffer may be.
        gpu.buffer("too large", gpu.limits.max_buffer_size + 16, BufferUsages::STORAGE);
        assert!(matches!(gpu.check("buffers"), Err(GpuError::Refused { .. })));
        let error = gpu.wait_error(PollError::Timeout, "scoring");
        assert_eq!(error.to_string(), "scoring: the queue did not finish within 60 s");
        assert!(error.is_of_device());
        *gpu.faults.lost.lock().unwrap() = Some("Unknown reset".into());
        let error = gpu.check("scoring").unwrap_err();
        assert_eq!(error.to_string(), "scoring: the device was lost: Unknown reset");
    }

    /// What a closed device held is let go of; a hung one is left as it is, since closing it would wait for ever.
    #[test]
    fn a_device_is_closed_unless_its_queue_hangs() {
        let held = |hangs: bool| {
            let gpu = Gpu::noop(&GpuOptions::default());
            if hangs {
                gpu.wait_error(PollError::Timeout, "scoring");
            }
            let faults = gpu.faults.clone();
            drop(gpu);
            Arc::strong_count(&faults) > 1
        };
        assert_eq!([held(false), held(true)], [false, true]);
    }
}
