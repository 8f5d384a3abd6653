//! How long scoring takes, as a whole by the clock and dispatch by dispatch by the card's own timestamps.

use std::time::{Duration, Instant};

use wgpu::{
    Buffer, BufferUsages, ComputePassDescriptor, ComputePassTimestampWrites, Features, QuerySet, QuerySetDescriptor,
    QueryType,
};

use crate::batch::CandidateBatch;
use crate::candidates::{Candidates, LayerKind};
use crate::convolution::ConvShape;
use crate::images::GpuImages;
use crate::program::{Dispatch, Kernel};
use crate::score::slices;
use crate::{Gpu, GpuError};

/// One dispatch, over all candidates of a batch and the images of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct DispatchTime {
    /// The node it computes, with what is fused to it.
    pub node: String,
    /// Which kernel.
    pub kernel: String,
    /// How it is cut, where it is a dense convolution.
    pub conv: Option<ConvShape>,
    /// Multiply-accumulates, of all candidates and images.
    pub macs: u64,
    /// The shortest of the repetitions.
    pub seconds: f64,
}

impl DispatchTime {
    /// Share of a peak given in floating-point operations per second, two to a multiply-accumulate.
    pub fn share_of_peak(&self, peak: f64) -> f64 {
        2.0 * self.macs as f64 / self.seconds.max(f64::MIN_POSITIVE) / peak
    }
}

/// How often something is repeated, and how long at least: a card that has had nothing to do, such as while shaders are
/// compiled, takes up to a second to bring its clock up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// Repetitions, at least one.
    pub n: usize,
    /// More of them, until as much time has passed.
    pub at_least: Duration,
}

/// All dispatches of one batch on one chunk of images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DispatchTimes {
    /// Candidates of the batch.
    pub n_candidates: usize,
    /// Images of the chunk.
    pub n_images: usize,
    /// In order.
    pub dispatches: Vec<DispatchTime>,
}

/// Most queries of one set that wgpu allows.
const QUERIES_MAX: usize = 4096;

impl Gpu {
    /// Whether [`Gpu::time_dispatches`] can be used.
    pub fn has_timestamps(&self) -> bool {
        self.device.features().contains(Features::TIMESTAMP_QUERY)
    }

    /// Seconds of each of `repeats` scorings of all candidates on all images, by the clock: from networks in this
    /// machine's memory to counts back in it, gathering, sending and packing weights included. The first one also makes
    /// the pipelines.
    ///
    /// # Errors
    /// As [`Gpu::score`].
    pub fn time_scoring(
        &self,
        images: &GpuImages,
        candidates: &Candidates<'_>,
        repeats: usize,
    ) -> Result<Vec<f64>, GpuError> {
        let timed = |_| {
            let start = Instant::now();
            self.score(images, candidates)?;
            Ok(start.elapsed().as_secs_f64())
        };
        (0..repeats).map(timed).collect()
    }

    /// The time of every dispatch on the first chunk of images, of the first batch that the candidates are cut into;
    /// none when the adapter has no timestamps or there is nothing to run. Dispatches are measured alone, none beside
    /// another.
    ///
    /// # Errors
    /// As [`Gpu::score`].
    pub fn time_dispatches(
        &self,
        images: &GpuImages,
        candidates: &Candidates<'_>,
        repeats: Repeats,
    ) -> Result<Option<DispatchTimes>, GpuError> {
        let mut out = None;
        let Some(graph) = candidates.graph().filter(|_| self.has_timestamps()) else { return Ok(None) };
        self.for_each_batch(images, candidates, |batch| {
            if out.is_none() && 2 * batch.bound.len() <= QUERIES_MAX {
                out = self.time_batch(images, batch, repeats)?.map(|(n_images, seconds)| DispatchTimes {
                    n_candidates: batch.n_candidates,
                    n_images,
                    dispatches: std::iter::zip(&batch.program.dispatches, seconds)
                        .map(|(d, seconds)| self.describe(d, &graph.node(d.node).name, n_images, seconds))
                        .collect(),
                });
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Images of the first chunk, and the shortest time of every dispatch on them.
    fn time_batch(
        &self,
        images: &GpuImages,
        batch: &CandidateBatch,
        repeats: Repeats,
    ) -> Result<Option<(usize, Vec<f64>)>, GpuError> {
        let slices = slices(images, batch.chunk);
        let Some(first) = slices.first() else { return Ok(None) };
        let chunk = self.chunks(batch, &slices[..1]).swap_remove(0);
        let n = 2 * batch.bound.len();
        let queries = self.device.create_query_set(&QuerySetDescriptor {
            label: Some("dispatches"),
            ty: QueryType::Timestamp,
            count: n as u32,
        });
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let ticks: Buffer = self.buffer("timestamps", 8 * n as u64, usage);
        let mut best = vec![f64::INFINITY; batch.bound.len()];
        let begin = Instant::now();
        let mut n_done = 0;
        while n_done < repeats.n.max(1) || begin.elapsed() < repeats.at_least {
            n_done += 1;
            let mut encoder = self.encoder();
            for (i, bound) in batch.bound.iter().enumerate() {
                let description = ComputePassDescriptor { label: None, timestamp_writes: Some(writes(&queries, i)) };
                let mut pass = encoder.begin_compute_pass(&description);
                batch.dispatch(&mut pass, bound, first.part, first.n, &chunk);
            }
            encoder.resolve_query_set(&queries, 0..n as u32, &ticks, 0);
            let stamps: Vec<u64> = self.fetch(encoder, &ticks, n, "timing dispatches")?;
            let period_s = f64::from(self.queue.get_timestamp_period()) * 1e-9;
            for (best, stamp) in best.iter_mut().zip(stamps.chunks(2)) {
                *best = best.min(stamp[1].saturating_sub(stamp[0]) as f64 * period_s);
            }
        }
        Ok(Some((first.n, best)))
    }

    fn describe(&self, dispatch: &Dispatch, node: &str, n_images: usize, seconds: f64) -> DispatchTime {
        let kernel = match dispatch.kernel {
            Kernel::Layer(kind) => format!("{kind:?}"),
            kernel => format!("{kernel:?}"),
        };
        let is_dense = dispatch.kernel == Kernel::Layer(LayerKind::Dense);
        DispatchTime {
            node: node.to_owned(),
            kernel,
            conv: is_dense.then(|| self.conv_shape(&dispatch.uniforms)),
            macs: dispatch.macs * n_images as u64,
            seconds,
        }
    }
}

fn writes(queries: &QuerySet, dispatch: usize) -> ComputePassTimestampWrites<'_> {
    let at = 2 * dispatch as u32;
    ComputePassTimestampWrites {
        query_set: queries,
        beginning_of_pass_write_index: Some(at),
        end_of_pass_write_index: Some(at + 1),
    }
}
