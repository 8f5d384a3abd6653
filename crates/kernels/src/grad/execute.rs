//! Runs the instructions of a training step on one group of images.

use crate::engine::op_kernel::Tail;
use crate::grad::channels::{self, Centred, ChannelSums, Clamped, GradientCoefficients, MapSize, Normalising};
use crate::grad::input_gradient::{GradientScratch, PassedBack};
use crate::grad::loss::{BatchLoss, StepReport};
use crate::grad::op_gradient::{GradientSum, add_slope_gradient};
use crate::grad::placement::{Placement, ValuePlace};
use crate::grad::program::{Instruction, TrainProgram, TrainWork, ValueId};
use crate::grad::teacher::MatchedGroup;
use crate::grad::weight_gradient::{ProductScratch, add_bias_gradient};
use crate::simd::aligned::AlignedVec;
use crate::simd::interleave::interleave;
use crate::simd::isa::Isa;

/// What all instructions of a step see.
pub(crate) struct TrainContext<'a> {
    pub isa: Isa,
    pub program: &'a TrainProgram,
    pub placement: &'a Placement,
    /// Values of the trained parameters.
    pub parameters: &'a [f32],
    /// `[N, H, W, C]`
    pub images: &'a [f32],
    pub loss: &'a BatchLoss<'a>,
}

/// What a group of images keeps between phases.
#[derive(Debug)]
pub(crate) struct GroupState {
    /// Its number in the batch.
    pub index: usize,
    pub buffers: Vec<AlignedVec>,
    /// Sums for BatchNorm.
    pub sums: Vec<f64>,
    /// Sums over its images.
    pub report: StepReport,
}

/// One thread's memory.
#[derive(Debug, Default)]
pub(crate) struct TrainWorker {
    buffers: Vec<AlignedVec>,
    scratch: GradientScratch,
    products: ProductScratch,
    sums: ChannelSums,
    loss: LossRoom,
}

impl TrainWorker {
    /// Memory for a step's instructions.
    pub(crate) fn new(context: &TrainContext<'_>) -> Self {
        let lanes = context.isa.lanes();
        let most_channels = context.program.norms.iter().map(|norm| norm.channels).max().unwrap_or(0);
        Self {
            buffers: buffers(&context.placement.worker_lens, lanes),
            sums: ChannelSums::with_room(most_channels, lanes),
            ..Self::default()
        }
    }
}

/// Buffers of `lens` values for each lane.
pub(crate) fn buffers(lens: &[usize], lanes: usize) -> Vec<AlignedVec> {
    lens.iter().map(|len| AlignedVec::zeros(len * lanes)).collect()
}

impl TrainContext<'_> {
    /// Images of a group.
    pub(crate) fn n_present(&self, group: usize) -> usize {
        let lanes = self.isa.lanes();
        (self.loss.n_images - group * lanes).min(lanes)
    }

    fn map_size(&self, n_pixels: usize, group: usize) -> MapSize {
        MapSize { n_pixels, lanes: self.isa.lanes(), n_present: self.n_present(group) }
    }

    /// Runs one instruction; gradients of parameters are added to `gradient`.
    pub(crate) fn run(
        &self,
        instruction: &Instruction,
        group: &mut GroupState,
        worker: &mut TrainWorker,
        gradient: &mut [f32],
    ) {
        let lanes = self.isa.lanes();
        let place = |value: ValueId| self.placement.places[value].expect("every value that is read or written has one");
        let mut out = instruction.write.map(|value| match place(value) {
            ValuePlace::Group(slot) => std::mem::take(&mut group.buffers[slot]),
            ValuePlace::Worker(slot) => std::mem::take(&mut worker.buffers[slot]),
        });
        let len = instruction.write.map_or(0, |value| self.program.value_lens[value] * lanes);
        {
            let (groups, workers) = (&group.buffers, &worker.buffers);
            let read = |i: usize| {
                let value = instruction.reads[i];
                let buffer = match place(value) {
                    ValuePlace::Group(slot) => &groups[slot],
                    ValuePlace::Worker(slot) => &workers[slot],
                };
                &buffer[..self.program.value_lens[value] * lanes]
            };
            let mut rest = Rest {
                index: group.index,
                sums: &mut group.sums,
                report: &mut group.report,
                scratch: &mut worker.scratch,
                products: &mut worker.products,
                channel_sums: &mut worker.sums,
                loss: &mut worker.loss,
                gradient,
            };
            match out.as_mut() {
                Some(out) => self.write(instruction, &read, &mut out[..len], &mut rest),
                None => self.sum(instruction, &read, &mut rest),
            }
        }
        if let (Some(value), Some(out)) = (instruction.write, out) {
            match place(value) {
                ValuePlace::Group(slot) => group.buffers[slot] = out,
                ValuePlace::Worker(slot) => worker.buffers[slot] = out,
            }
        }
    }

    /// Instructions that write a value.
    fn write<'a>(
        &self,
        instruction: &Instruction,
        read: &dyn Fn(usize) -> &'a [f32],
        out: &mut [f32],
        rest: &mut Rest<'_>,
    ) {
        let n_reads = instruction.reads.len();
        let behind = |n: usize| (n_reads > n).then(|| read(n));
        match instruction.work {
            TrainWork::Images => self.bring_images(rest.index, out),
            TrainWork::Operation { kernel, activation, has_residual } => {
                let residual = has_residual.then(|| read(n_reads - 1));
                self.program.kernels[kernel].kernel.run(
                    read,
                    Tail { residual, activation },
                    out,
                    &mut rest.scratch.kernel,
                );
            }
            TrainWork::Normalise { norm, clamp } => {
                let norm = &self.program.norms[norm];
                let how = Normalising { scale: &norm.scale, shift: &norm.shift, residual: behind(1), clamp };
                channels::normalise(self.isa, read(0), how, out);
            }
            TrainWork::Loss => self.take_loss(read(0), behind(1), out, rest),
            TrainWork::Match { matched } => {
                let (matched, n_teacher_channels) = &self.program.matched[matched];
                let group = MatchedGroup {
                    matched,
                    values: [read(0), read(1)],
                    n_teacher_channels: *n_teacher_channels,
                    lanes: self.isa.lanes(),
                    n_images: [self.loss.n_images, self.n_present(rest.index)],
                };
                rest.report.loss += group.run(behind(2), out);
            }
            TrainWork::StopAtBounds { bounds } => {
                if instruction.write != Some(instruction.reads[0]) {
                    out.copy_from_slice(read(0));
                }
                channels::stop_at_bounds(self.isa, read(1), bounds, out);
            }
            TrainWork::StopAndSum { norm, bounds } => {
                if instruction.write != Some(instruction.reads[0]) {
                    out.copy_from_slice(read(0));
                }
                let norm = &self.program.norms[norm];
                let ([y, x], pixel_len) = ([read(1), read(2)], norm.channels * self.isa.lanes());
                let size = self.map_size(norm.n_pixels, rest.index);
                rest.channel_sums.sum(size, &mut rest.sums[norm.sums.clone()], |pixels, sums| {
                    let at = pixels.start * pixel_len..pixels.end * pixel_len;
                    let clamped = Clamped { y: &y[at.clone()], bounds };
                    let x = Centred { x: &x[at.clone()], centre: &norm.mean };
                    channels::stop_and_sum(self.isa, clamped, &mut out[at], x, sums);
                });
            }
            TrainWork::Sum => out.iter_mut().zip(read(0).iter().zip(read(1))).for_each(|(to, (a, b))| *to = a + b),
            TrainWork::NormInput { norm } => {
                let [of_gradient, of_input, shift] = &self.program.norms[norm].coefficients;
                channels::combine_gradient(
                    self.isa,
                    read(0),
                    read(1),
                    GradientCoefficients { of_gradient, of_input, shift },
                    out,
                );
                self.clear_missing(rest.index, out);
                behind(2).into_iter().for_each(|previous| out.iter_mut().zip(previous).for_each(|(to, p)| *to += p));
            }
            TrainWork::ConvInput { kernel } => {
                let of_input = self.program.kernels[kernel].input_gradient.as_ref();
                let of_input = of_input.expect("made for convolutions whose input has a gradient");
                of_input.run(PassedBack { g: read(0), previous: behind(1) }, out, rest.scratch);
            }
            TrainWork::Input { gradient, kernel, has_previous } => {
                match has_previous.then(|| read(n_reads - 1)) {
                    Some(previous) => out.copy_from_slice(previous),
                    None => out.fill(0.0),
                }
                let slopes = self.program.kernels[kernel].weight.clone().map_or(&[][..], |at| &self.parameters[at]);
                self.program.gradients[gradient].add(read, slopes, GradientSum { lanes: self.isa.lanes(), out });
            }
            TrainWork::Statistics { .. }
            | TrainWork::NormSums { .. }
            | TrainWork::ConvWeight { .. }
            | TrainWork::SlopeWeight { .. } => {
                unreachable!("these write no value")
            }
        }
    }

    /// Instructions that add up sums over a group.
    fn sum<'a>(&self, instruction: &Instruction, read: &dyn Fn(usize) -> &'a [f32], rest: &mut Rest<'_>) {
        let lanes = self.isa.lanes();
        let size = |n_pixels: usize| self.map_size(n_pixels, rest.index);
        match instruction.work {
            TrainWork::Statistics { norm } => {
                let norm = &self.program.norms[norm];
                let (x, pixel_len) = (read(0), norm.channels * lanes);
                rest.channel_sums.sum(size(norm.n_pixels), &mut rest.sums[norm.sums.clone()], |pixels, sums| {
                    let x = &x[pixels.start * pixel_len..pixels.end * pixel_len];
                    channels::add_moments(self.isa, x, &norm.running_mean, sums);
                });
            }
            TrainWork::NormSums { norm } => {
                let norm = &self.program.norms[norm];
                let ([g, x], pixel_len) = ([read(0), read(1)], norm.channels * lanes);
                rest.channel_sums.sum(size(norm.n_pixels), &mut rest.sums[norm.sums.clone()], |pixels, sums| {
                    let at = pixels.start * pixel_len..pixels.end * pixel_len;
                    channels::add_gradient_sums(self.isa, &g[at.clone()], &x[at], &norm.mean, sums);
                });
            }
            TrainWork::ConvWeight { kernel } => {
                let kernel = &self.program.kernels[kernel];
                if let (Some(of_weight), Some(at)) = (&kernel.weight_gradient, kernel.weight.clone()) {
                    of_weight.add([read(0), read(1)], &mut rest.gradient[at], rest.products);
                }
                if let Some(at) = kernel.bias.clone() {
                    add_bias_gradient(self.isa, read(1), &mut rest.gradient[at], rest.products);
                }
            }
            TrainWork::SlopeWeight { kernel } => {
                let at = self.program.kernels[kernel].weight.clone();
                at.into_iter().for_each(|at| add_slope_gradient([read(1), read(0)], lanes, &mut rest.gradient[at]));
            }
            _ => unreachable!("these write a value"),
        }
    }

    /// Lanes without an image get the group's first: its gradient is zero, and all that is computed of it is finite.
    fn bring_images(&self, index: usize, out: &mut [f32]) {
        let (lanes, n_present) = (self.isa.lanes(), self.n_present(index));
        let image_len = out.len() / lanes;
        let images = &self.images[index * lanes * image_len..][..n_present * image_len];
        interleave(images, image_len, lanes, out);
        if n_present < lanes {
            for values in out.chunks_exact_mut(lanes) {
                let first = values[0];
                values[n_present..].fill(first);
            }
        }
    }

    fn clear_missing(&self, index: usize, values: &mut [f32]) {
        let (lanes, n_present) = (self.isa.lanes(), self.n_present(index));
        if n_present < lanes {
            values.chunks_exact_mut(lanes).for_each(|values| values[n_present..].fill(0.0));
        }
    }

    fn take_loss(&self, outputs: &[f32], teacher: Option<&[f32]>, out: &mut [f32], rest: &mut Rest<'_>) {
        let lanes = self.isa.lanes();
        let LossRoom { outputs: row, gradient, teacher: teacher_row, logs } = &mut *rest.loss;
        *rest.report = StepReport::default();
        out.fill(0.0);
        let lane_of = |values: &[f32], lane: usize, row: &mut Vec<f64>| {
            row.clear();
            row.extend(values[lane..].iter().step_by(lanes).map(|&x| f64::from(x)));
        };
        for lane in 0..self.n_present(rest.index) {
            lane_of(outputs, lane, row);
            gradient.clear();
            gradient.resize(row.len(), 0.0);
            let (loss, is_correct) = self.loss.of_image(rest.index * lanes + lane, row, gradient, logs);
            rest.report.loss += loss;
            rest.report.n_correct += usize::from(is_correct);
            if let (Some(teacher), Some(how)) = (teacher, &self.program.output_match) {
                lane_of(teacher, lane, teacher_row);
                rest.report.loss += how.of_image([row, teacher_row], self.loss.n_images, gradient, logs);
            }
            out[lane..].iter_mut().step_by(lanes).zip(&**gradient).for_each(|(to, &g)| *to = g as f32);
        }
    }
}

/// Working memory of losses.
#[derive(Debug, Default)]
struct LossRoom {
    /// Of one image.
    outputs: Vec<f64>,
    gradient: Vec<f64>,
    teacher: Vec<f64>,
    logs: [Vec<f64>; 2],
}

/// All that an instruction may use beside the values that it reads and writes.
struct Rest<'a> {
    index: usize,
    sums: &'a mut [f64],
    report: &'a mut StepReport,
    scratch: &'a mut GradientScratch,
    products: &'a mut ProductScratch,
    channel_sums: &'a mut ChannelSums,
    loss: &'a mut LossRoom,
    gradient: &'a mut [f32],
}
