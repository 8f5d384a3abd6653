//! Many small pieces of data in one buffer, each where a binding may begin.

use wgpu::{BindingResource, Buffer, BufferBinding, BufferSize, BufferUsages};

use crate::Gpu;

/// Bytes with the ranges that were put in.
#[derive(Debug)]
pub struct Arena {
    bytes: Vec<u8>,
    alignment: u64,
}

/// A range of bytes in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaPiece {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

impl ArenaPiece {
    /// The piece of `buffer`, to be bound.
    pub fn of<'a>(&self, buffer: &'a Buffer) -> BindingResource<'a> {
        BindingResource::Buffer(BufferBinding { buffer, offset: self.offset, size: BufferSize::new(self.size) })
    }
}

impl Arena {
    /// Empty.
    pub fn new(gpu: &Gpu) -> Self {
        Self { bytes: Vec::new(), alignment: gpu.alignment() }
    }

    /// Appends; never an empty piece, which could not be bound.
    pub fn push<T: bytemuck::Pod>(&mut self, items: &[T]) -> ArenaPiece {
        let offset = (self.bytes.len() as u64).next_multiple_of(self.alignment);
        self.bytes.resize(offset as usize, 0);
        self.bytes.extend_from_slice(bytemuck::cast_slice(items));
        let size = (size_of_val(items) as u64).max(16).next_multiple_of(16);
        self.bytes.resize((offset + size) as usize, 0);
        ArenaPiece { offset, size }
    }

    /// Sends all of it to the card.
    pub fn buffer(&self, gpu: &Gpu, label: &str, usage: BufferUsages) -> Buffer {
        let buffer = gpu.buffer(label, self.bytes.len() as u64, usage | BufferUsages::COPY_DST);
        gpu.queue.write_buffer(&buffer, 0, &self.bytes);
        buffer
    }
}
