//! Running candidates on images: counts of correct predictions, divergences, or logits.

use std::collections::VecDeque;
use std::ops::Range;

use wgpu::{BindGroup, Buffer, BufferUsages, ComputePassDescriptor, SubmissionIndex};

use crate::arena::Arena;
use crate::batch::{CandidateBatch, bind, bind_at, fit};
use crate::candidates::Candidates;
use crate::device::Fetch;
use crate::images::GpuImages;
use crate::layout::{Candidate, Chunk, NONE, Tally, Uniforms, quads};
use crate::pipelines::{PipelineKey, Shader};
use crate::program::Program;
use crate::weights::gather;
use crate::{Gpu, GpuError};

/// What one candidate makes of all images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GpuScore {
    /// Images whose largest logit (of equal ones the first) is that of their label.
    pub n_correct: usize,
    /// Sum over images of the divergence of its class probabilities from the original's, nats; 0 without original
    /// logits.
    pub divergence: f64,
    /// The first image whose logits hold NaN or infinity; the other numbers mean nothing then.
    pub first_not_finite: Option<usize>,
}

impl GpuScore {
    fn of(tally: &Tally) -> Self {
        Self {
            n_correct: tally.n_correct as usize,
            divergence: f64::from(tally.divergence) + f64::from(tally.block),
            first_not_finite: (tally.first_not_finite != NONE).then_some(tally.first_not_finite as usize),
        }
    }
}

/// Candidates that a card is busy with.
#[derive(Debug, Default)]
pub struct Scoring {
    /// Oldest first.
    running: VecDeque<SubmissionIndex>,
    /// Of every batch.
    tallies: Vec<Fetch>,
}

/// Most submissions of one scoring that wait for the card, each a whole network on a chunk of images: more are no
/// faster, and take the driver's memory.
const RUNNING_MAX: usize = 64;
/// What a failure interrupted.
const DOING: &str = "scoring candidates";

/// Some images of one part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    pub(crate) part: usize,
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// Number of the first one among all.
    number: usize,
}

impl Gpu {
    /// Scores every candidate on all images. Only counts and sums come back.
    ///
    /// # Errors
    /// Candidates of other topologies or other numbers of outputs, images without labels, what does not fit the
    /// adapter, failures of the device.
    pub fn score(&self, images: &GpuImages, candidates: &Candidates<'_>) -> Result<Vec<GpuScore>, GpuError> {
        self.finish_scoring(self.begin_scoring(images, candidates)?)
    }

    /// The first half of [`Gpu::score`]: hands everything to the card and returns while that is busy. Scores do not
    /// depend on what else the card was handed, nor on how it was cut into batches.
    ///
    /// # Errors
    /// As [`Gpu::score`].
    pub fn begin_scoring(&self, images: &GpuImages, candidates: &Candidates<'_>) -> Result<Scoring, GpuError> {
        let mut scoring = Scoring::default();
        self.for_each_batch(images, candidates, |batch| self.submit_batch(images, batch, &mut scoring))?;
        Ok(scoring)
    }

    /// The second half of [`Gpu::score`]: waits for what `begin_scoring` of the same device handed to the card.
    ///
    /// # Errors
    /// As [`Gpu::score`].
    pub fn finish_scoring(&self, scoring: Scoring) -> Result<Vec<GpuScore>, GpuError> {
        // One after the other: each may take the whole time that a submission has.
        for submission in scoring.running {
            self.wait(submission, DOING)?;
        }
        let mut out = Vec::new();
        for fetch in scoring.tallies {
            out.extend(self.end_fetch::<Tally>(fetch, DOING)?.iter().map(GpuScore::of));
        }
        Ok(out)
    }

    /// Outputs `[N, n_classes]` of every candidate (an output with rows and columns comes as `[H, W, C]`).
    ///
    /// # Errors
    /// As [`Gpu::score`], but labels are not needed.
    pub fn logits(&self, images: &GpuImages, candidates: &Candidates<'_>) -> Result<Vec<Vec<f32>>, GpuError> {
        let mut out = Vec::with_capacity(candidates.len());
        self.for_each_batch(images, candidates, |batch| {
            out.extend(self.logits_of_batch(images, batch)?);
            Ok(())
        })?;
        Ok(out)
    }

    /// Cuts the candidates into batches that fit the card.
    pub(crate) fn for_each_batch(
        &self,
        images: &GpuImages,
        candidates: &Candidates<'_>,
        mut run: impl FnMut(&CandidateBatch) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Some(graph) = candidates.graph() else { return Ok(()) };
        if graph.input() != images.shape {
            let (expected, got) = (graph.input().len(), images.shape.len());
            return Err(GpuError::Length { what: "one image", expected, got });
        }
        let all = Program::new(graph, &candidates.widths()?, |step| self.conv_shape(step))?;
        let [n, chunk] = fit(self, &all, |node| graph.node(node).name.clone(), images.len())?;
        for first in (0..candidates.len()).step_by(n) {
            let part = candidates.part(first..candidates.len().min(first + n));
            let widths = part.widths()?;
            let program = Program::new(graph, &widths, |step| self.conv_shape(step))?;
            let weights = gather(&program, &part, &widths);
            let batch = CandidateBatch::new(self, images, program, &weights, chunk)?;
            run(&batch)?;
            self.take_room(batch.weights_bytes);
            self.give_back(batch.into_buffers());
        }
        Ok(())
    }

    fn submit_batch(&self, images: &GpuImages, batch: &CandidateBatch, scoring: &mut Scoring) -> Result<(), GpuError> {
        let slices = slices(images, batch.chunk);
        let judge = Judge::new(self, images, batch)?;
        for (slice, chunk) in slices.iter().zip(&self.chunks(batch, &slices)) {
            let mut encoder = self.encoder();
            batch.encode(&mut encoder, slice.part, slice.n, chunk);
            judge.encode(self, &mut encoder, *slice, batch.n_candidates, chunk);
            scoring.running.push_back(self.submit(encoder));
            if scoring.running.len() > RUNNING_MAX
                && let Some(oldest) = scoring.running.pop_front()
            {
                self.wait(oldest, DOING)?;
            }
        }
        let bytes = (size_of::<Tally>() * batch.n_candidates) as u64;
        scoring.tallies.push(self.begin_fetch(self.encoder(), &judge.tallies, bytes));
        self.check(DOING)
    }

    /// Outputs of one batch; see [`Gpu::logits`].
    pub(crate) fn logits_of_batch(
        &self,
        images: &GpuImages,
        batch: &CandidateBatch,
    ) -> Result<Vec<Vec<f32>>, GpuError> {
        let slices = slices(images, batch.chunk);
        let chunks = self.chunks(batch, &slices);
        let (buffer, shape) = (batch.program.out_buffer, batch.program.out_shape);
        let stride = 4 * batch.program.buffer_quads[buffer] * batch.chunk;
        let mut out: Vec<Vec<f32>> = vec![Vec::new(); batch.n_candidates];
        for (slice, chunk) in slices.iter().zip(&chunks) {
            let mut encoder = self.encoder();
            batch.encode(&mut encoder, slice.part, slice.n, chunk);
            let n = stride * batch.n_candidates;
            let values: Vec<f32> = self.fetch(encoder, &batch.buffers[buffer], n, "computing logits")?;
            for (i, (of_candidate, logits)) in values.chunks(stride).zip(&mut out).enumerate() {
                let (c, n_pixels) = (batch.program.n_out[i], shape.h * shape.w);
                for image in of_candidate.chunks(4 * quads(c) * n_pixels).take(slice.n) {
                    let value = |at: usize| image[4 * ((at % c) / 4 * n_pixels + at / c) + (at % c) % 4];
                    logits.extend((0..c * n_pixels).map(value));
                }
            }
        }
        Ok(out)
    }

    /// Bind groups of the chunks.
    pub(crate) fn chunks(&self, batch: &CandidateBatch, slices: &[Slice]) -> Vec<BindGroup> {
        let mut arena = Arena::new(self);
        let piece = |slice: &Slice| {
            arena.push(&[Chunk {
                n_images: slice.n as u32,
                image_offset: (slice.first * batch.program.image_quads) as u32,
                first_image: slice.first as u32,
                number: slice.number as u32,
            }])
        };
        let pieces: Vec<_> = slices.iter().map(piece).collect();
        let buffer = arena.buffer(self, "chunks", BufferUsages::UNIFORM);
        pieces.iter().map(|piece| bind(self, &self.pipelines.chunk, &[piece.of(&buffer)])).collect()
    }
}

/// The images in pieces of at most `chunk`, none across two parts.
pub(crate) fn slices(images: &GpuImages, chunk: usize) -> Vec<Slice> {
    let parts = images.parts.iter().enumerate();
    let cut = |n: usize| (0..n).step_by(chunk).map(move |first| first..n.min(first + chunk));
    parts
        .flat_map(|(part, p)| {
            cut(p.n).map(move |r: Range<usize>| Slice { part, first: r.start, n: r.len(), number: p.first + r.start })
        })
        .collect()
}

/// What turns logits into tallies.
struct Judge {
    step: BindGroup,
    by_part: Vec<BindGroup>,
    tallies: Buffer,
}

impl Judge {
    fn new(gpu: &Gpu, images: &GpuImages, batch: &CandidateBatch) -> Result<Self, GpuError> {
        let (buffer, shape) = (batch.program.out_buffer, batch.program.out_shape);
        let Some(judged) = images.judged else {
            return Err(GpuError::Length { what: "labels", expected: images.len(), got: 0 });
        };
        if let Some(c) = batch.program.n_out.iter().find(|&c| c * shape.h * shape.w != judged.n_classes) {
            let got = c * shape.h * shape.w;
            return Err(GpuError::Length { what: "outputs", expected: judged.n_classes, got });
        }
        let step = Uniforms {
            out_h: shape.h as u32,
            out_w: shape.w as u32,
            in_stride: (batch.program.buffer_quads[buffer] * batch.chunk) as u32,
            out_stride: batch.chunk as u32,
            compares: u32::from(judged.has_original),
            ..Uniforms::default()
        };
        let parts: Vec<Candidate> =
            batch.program.n_out.iter().map(|&n| Candidate { n_out: n as u32, ..Candidate::default() }).collect();
        let (step, parts) = (gpu.uniform_of("judge", &[step]), gpu.storage_of("candidates", &parts));
        let verdicts = gpu.storage("verdicts", (8 * batch.n_candidates * batch.chunk) as u64);
        let tallies = gpu.storage("tallies", (size_of::<Tally>() * batch.n_candidates) as u64);
        let of_part = |part: &crate::images::ImagePart| {
            let buffers = [&batch.buffers[buffer], &part.labels, &part.log_probabilities, &verdicts, &tallies];
            let resources: Vec<_> = [0, 3, 4, 5, 6].into_iter().zip(buffers.map(Buffer::as_entire_binding)).collect();
            bind_at(gpu, &gpu.pipelines.top1, &resources)
        };
        let bound = [&step, &parts, &parts].map(Buffer::as_entire_binding);
        Ok(Self {
            step: bind(gpu, &gpu.pipelines.step, &bound),
            by_part: images.parts.iter().map(of_part).collect(),
            tallies,
        })
    }

    fn encode(&self, gpu: &Gpu, encoder: &mut wgpu::CommandEncoder, slice: Slice, n: usize, chunk: &BindGroup) {
        let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
        pass.set_bind_group(0, &self.step, &[]);
        pass.set_bind_group(1, &self.by_part[slice.part], &[]);
        pass.set_bind_group(2, chunk, &[]);
        for (entry, groups) in [("judge", slice.n.div_ceil(64)), ("tally", 1)] {
            pass.set_pipeline(&gpu.pipelines.get(PipelineKey::new(Shader::Top1, entry)));
            pass.dispatch_workgroups(groups as u32, 1, n as u32);
        }
    }
}
