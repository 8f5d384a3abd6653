//! Weights on their way into the order in which shaders read them.

use wgpu::{Buffer, BufferSize, BufferUsages, ComputePassDescriptor};

use crate::arena::{Arena, ArenaPiece};
use crate::batch::bind;
use crate::filter_norm::{GROUP, grid};
use crate::pipelines::{PipelineKey, Shader};
use crate::weights::{BatchWeights, LayerWeights};
use crate::{Gpu, GpuError};

/// Weights on the card.
pub struct Packed {
    /// As the shaders read them.
    pub packed: Buffer,
    /// As they were sent.
    pub source: Buffer,
    /// Each layer's part of `packed`.
    pub pieces: Vec<ArenaPiece>,
}

/// Places `bytes` behind all before them.
fn place(end: &mut u64, bytes: u64, alignment: u64) -> ArenaPiece {
    let offset = end.next_multiple_of(alignment);
    let size = bytes.max(16).next_multiple_of(16);
    *end = offset + size;
    ArenaPiece { offset, size }
}

/// Sends the weights as they are and packs them on the card, all layers in one submission.
///
/// # Errors
/// Shared weights of a layer larger than a binding, failures of the device.
pub fn pack(gpu: &Gpu, weights: &BatchWeights<'_>) -> Result<Packed, GpuError> {
    let (mut n_packed, mut n_source) = (0u64, 0u64);
    let layers = || weights.layers.iter();
    let packed_bytes = layers().map(|layer| 16 * layer.packed_quads as u64);
    let pieces: Vec<ArenaPiece> = packed_bytes.map(|bytes| place(&mut n_packed, bytes, gpu.alignment())).collect();
    let source_bytes = layers().map(|layer| 4 * layer.n_values as u64);
    let sources: Vec<ArenaPiece> = source_bytes.map(|bytes| place(&mut n_source, bytes, gpu.alignment())).collect();
    if let Some(piece) = sources.iter().find(|piece| piece.size > gpu.binding_max()) {
        let what = "the shared weights of one layer".to_owned();
        return Err(GpuError::TooLarge { what, bytes: piece.size, max: gpu.binding_max() });
    }
    gpu.make_room(n_packed)?;
    let (packed, source) = (gpu.reused("packed weights", n_packed), gpu.reused("weights", n_source));
    for (layer, at) in layers().zip(&sources) {
        send(gpu, layer, &source, at.offset);
    }
    let out = Packed { packed, source, pieces };
    submit_packing(gpu, weights, &sources, &out);
    gpu.check("packing weights")?;
    Ok(out)
}

/// Copies the weights of a layer into the memory that the card is sent.
fn send(gpu: &Gpu, layer: &LayerWeights<'_>, to: &Buffer, offset: u64) {
    let Some(n_bytes) = BufferSize::new(4 * layer.n_values as u64) else { return };
    // A failure shows in the device's error handler.
    let Some(mut sent) = gpu.queue.write_buffer_with(to, offset, n_bytes) else { return };
    let mut at = 0;
    for values in &layer.source {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        sent.slice(at..at + bytes.len()).copy_from_slice(bytes);
        at += bytes.len();
    }
}

/// Adds one dispatch per layer.
fn submit_packing(gpu: &Gpu, weights: &BatchWeights<'_>, sources: &[ArenaPiece], to: &Packed) {
    let masks = gpu.storage_of("masks", &weights.masks);
    let (mut uniforms, mut jobs) = (Arena::new(gpu), Arena::new(gpu));
    let where_: Vec<(ArenaPiece, ArenaPiece)> =
        weights.layers.iter().map(|layer| (uniforms.push(&[layer.layer]), jobs.push(&layer.jobs))).collect();
    let uniforms = uniforms.buffer(gpu, "layers", BufferUsages::UNIFORM);
    let jobs = jobs.buffer(gpu, "jobs", BufferUsages::STORAGE);
    let mut encoder = gpu.encoder();
    let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
    pass.set_pipeline(&gpu.pipelines.get(PipelineKey::new(Shader::Pack, "pack")));
    for (i, layer) in weights.layers.iter().enumerate() {
        let (uniform, job) = where_[i];
        let resources = [
            uniform.of(&uniforms),
            job.of(&jobs),
            sources[i].of(&to.source),
            masks.as_entire_binding(),
            to.pieces[i].of(&to.packed),
        ];
        pass.set_bind_group(0, &bind(gpu, &gpu.pipelines.pack, &resources), &[]);
        let [x, y] = grid(layer.packed_quads_max.div_ceil(GROUP));
        pass.dispatch_workgroups(x, y, layer.jobs.len() as u32);
    }
    drop(pass);
    gpu.submit(encoder);
}
