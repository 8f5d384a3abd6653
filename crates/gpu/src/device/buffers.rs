//! Buffers on a device, and what is brought back from them.

use std::sync::PoisonError;

use wgpu::{Buffer, BufferDescriptor, BufferUsages, CommandEncoder, MapMode, SubmissionIndex};

use crate::{Gpu, GpuError};

/// Elements on their way from the card.
#[derive(Debug)]
pub(crate) struct Fetch {
    here: Buffer,
    bytes: u64,
    submission: SubmissionIndex,
}

impl Gpu {
    /// A buffer of `bytes`, of unspecified content until written.
    pub(crate) fn buffer(&self, label: &str, bytes: u64, usage: BufferUsages) -> Buffer {
        let size = bytes.max(16).next_multiple_of(16);
        self.device.create_buffer(&BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    }

    /// A storage buffer of `bytes` that can be copied from and to.
    pub(crate) fn storage(&self, label: &str, bytes: u64) -> Buffer {
        self.buffer(label, bytes, BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC)
    }

    /// A storage buffer of at least `bytes` with any content: one given back earlier, or a new one. Making large
    /// buffers takes the driver longer than filling them.
    pub(crate) fn reused(&self, label: &str, bytes: u64) -> Buffer {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |(i, buffer): (usize, &Buffer)| (buffer.size() >= bytes).then_some((buffer.size(), i));
        match spare.iter().enumerate().filter_map(fits).min() {
            Some((_, at)) => spare.swap_remove(at),
            None => self.storage(label, bytes),
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
}
