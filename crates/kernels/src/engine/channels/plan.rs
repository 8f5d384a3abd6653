//! A whole network on large images, compiled.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::ThreadPool;
use secateur_net::{Location, Network};

use super::maps::ChannelMap;
use super::schedule::{BandSegment, CarriedValue, ChannelSchedule, group_len};
use super::step::{ChannelInput, ChannelScratch, ChannelStep};
use crate::KernelError;
use crate::engine::plan::compile_each;
use crate::simd::aligned::AlignedVec;
use crate::simd::isa::Isa;

/// A network whose vectors are channels, compiled.
#[derive(Debug)]
pub(crate) struct ChannelPlan {
    steps: Vec<ChannelStep>,
    n_alone: usize,
    segments: Vec<BandSegment>,
    alone: Vec<usize>,
    together: Vec<usize>,
    carried: Vec<CarriedValue>,
    max_group: usize,
    image_len: usize,
    out: ChannelMap,
    /// Buffers of finished workers, for the next call.
    idle: Mutex<Vec<ChannelWorker>>,
}

/// One thread's buffers.
#[derive(Debug)]
struct ChannelWorker {
    alone: Vec<AlignedVec>,
    together: Vec<AlignedVec>,
    /// One for each part in which rows are computed at a time.
    scratch: Vec<ChannelScratch>,
}

impl ChannelPlan {
    /// Compiles a network by its schedule.
    ///
    /// # Errors
    /// A missing or misshapen parameter, or an output that is too large.
    pub(crate) fn compile(net: &Network, schedule: ChannelSchedule, isa: Isa) -> Result<Self, KernelError> {
        let graph = net.graph();
        let max_group = schedule.max_group();
        let ChannelSchedule { steps, n_alone, segments, alone, together, carried } = schedule;
        let steps = compile_each(&steps, |step| ChannelStep::new(graph, net.weights(), step, isa))?;
        Ok(Self {
            image_len: graph.input().len(),
            out: steps[steps.len() - 1].out,
            steps,
            n_alone,
            segments,
            alone,
            together,
            carried,
            max_group,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Writes the outputs of `images`, whole ones, to `logits`.
    pub(crate) fn logits(&self, pool: &ThreadPool, images: &[f32], logits: &mut [f32]) {
        let n_images = images.len() / self.image_len;
        let n_threads = pool.current_num_threads();
        let group = group_len(n_images, n_threads, self.max_group);
        let n_groups = n_images.div_ceil(group);
        // Too few images for all threads: their rows are shared out as well.
        let n_parts = (n_threads / n_groups.max(1)).max(1);
        let per_image = self.out.shape.len();
        let groups = Mutex::new(images.chunks(group * self.image_len).zip(logits.chunks_mut(group * per_image)));
        let next = || groups.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let mut worker = self.take_worker(group, n_parts);
            while let Some((images, logits)) = next() {
                self.run(images, logits, &mut worker, n_parts, &mut |_, _| ());
            }
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        };
        pool.scope(|scope| {
            (0..n_groups.min(n_threads)).for_each(|_| scope.spawn(|_| work()));
        });
    }

    /// Runs all `images`, a group after the other, and tells the time of each step.
    pub(crate) fn run_timed(&self, images: &[f32], timed: &mut dyn FnMut(usize, f64)) {
        let n_parts = rayon::current_num_threads();
        let group = (images.len() / self.image_len).clamp(1, self.max_group);
        let mut worker = self.take_worker(group, n_parts);
        let mut logits = vec![0.0; group * self.out.shape.len()];
        for images in images.chunks(group * self.image_len) {
            let n_logits = images.len() / self.image_len * self.out.shape.len();
            self.run(images, &mut logits[..n_logits], &mut worker, n_parts, timed);
        }
    }

    fn take_worker(&self, group: usize, n_parts: usize) -> ChannelWorker {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = idle.unwrap_or_else(|| ChannelWorker {
            alone: self.alone.iter().map(|&len| AlignedVec::zeros(len)).collect(),
            together: self.together.iter().map(|_| AlignedVec::default()).collect(),
            scratch: Vec::new(),
        });
        worker.together.iter_mut().zip(&self.together).for_each(|(buffer, &len)| buffer.grow(len * group));
        if worker.scratch.len() < n_parts {
            worker.scratch.resize_with(n_parts, ChannelScratch::default);
        }
        worker
    }

    /// Runs a group of images, rows in `n_parts` parts side by side, and tells the time of each step.
    fn run(
        &self,
        images: &[f32],
        logits: &mut [f32],
        worker: &mut ChannelWorker,
        n_parts: usize,
        timed: &mut dyn FnMut(usize, f64),
    ) {
        let n_images = images.len() / self.image_len;
        let ChannelWorker { alone, together, scratch } = worker;
        let scratch = &mut scratch[..n_parts];
        if self.n_alone > 0 {
            for (at, image) in images.chunks_exact(self.image_len).enumerate() {
                for segment in &self.segments {
                    if segment.bands.is_empty() || n_parts > 1 {
                        for step in segment.steps.clone() {
                            self.run_step(step, image, 1, alone, scratch, timed);
                        }
                    } else {
                        self.run_bands(segment, image, alone, &mut scratch[0], timed);
                    }
                }
                for &CarriedValue { from, to, len } in &self.carried {
                    together[to][at * len..][..len].copy_from_slice(&alone[from][..len]);
                }
            }
        }
        for step in self.n_alone..self.steps.len() {
            self.run_step(step, images, n_images, together, scratch, timed);
        }
        let out = &together[self.steps[self.steps.len() - 1].out_buffer];
        let ChannelMap { shape, pitch } = self.out;
        super::maps::copy_channels(&out[..n_images * self.out.len()], logits, shape.c, [0, 0], [pitch, shape.c]);
    }

    fn run_step(
        &self,
        at: usize,
        images: &[f32],
        n_images: usize,
        buffers: &mut [AlignedVec],
        scratch: &mut [ChannelScratch],
        timed: &mut dyn FnMut(usize, f64),
    ) {
        let start = Instant::now();
        let step = &self.steps[at];
        let mut out = std::mem::take(&mut buffers[step.out_buffer]);
        let others = &*buffers;
        let read = |input: ChannelInput| input.of(images, n_images, others);
        let (input, residual) = (|i: usize| read(step.inputs[i]), step.residual.map(read));
        step.run(&input, residual, &mut out[..n_images * step.out.len()], scratch);
        buffers[step.out_buffer] = out;
        timed(at, start.elapsed().as_secs_f64());
    }

    /// Runs the steps of a segment in turns, some rows of each.
    fn run_bands(
        &self,
        segment: &BandSegment,
        image: &[f32],
        buffers: &mut [AlignedVec],
        scratch: &mut ChannelScratch,
        timed: &mut dyn FnMut(usize, f64),
    ) {
        for (at, rows) in segment.bands.iter().flat_map(|band| segment.steps.clone().zip(band)) {
            if rows.is_empty() {
                continue;
            }
            let start = Instant::now();
            let step = &self.steps[at];
            let mut out = std::mem::take(&mut buffers[step.out_buffer]);
            let others = &*buffers;
            let read = |input: ChannelInput| input.of(image, 1, others);
            let (input, residual) = (|i: usize| read(step.inputs[i]), step.residual.map(read));
            step.run_band(&input, residual, rows.clone(), &mut out[..step.out.len()], scratch);
            buffers[step.out_buffer] = out;
            timed(at, start.elapsed().as_secs_f64());
        }
    }
}

impl ChannelInput {
    /// The value of a group of images.
    fn of<'a>(&self, images: &'a [f32], n_images: usize, buffers: &'a [AlignedVec]) -> &'a [f32] {
        match self.location {
            Location::Image => images,
            Location::Buffer(buffer) => &buffers[buffer][..n_images * self.map.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_reference;
    use secateur_net::random::{SplitMix, random_network, random_network_of_every_operation, with_random_weights};
    use secateur_net::{Conv2d, GraphBuilder, NodeId, Op, Pointwise, Shape, Window};

    fn pool(n_threads: usize) -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap()
    }

    /// Outputs of the network, whatever the size of its images; `None` where it has no form.
    fn logits(net: &Network, isa: Isa, n_threads: usize, images: &[f32]) -> Option<Vec<f32>> {
        let plan = ChannelPlan::compile(net, ChannelSchedule::of(net.graph(), isa)?, isa).unwrap();
        let mut logits = vec![f32::NAN; images.len() / net.graph().input().len() * net.graph().n_classes()];
        plan.logits(&pool(n_threads), images, &mut logits);
        Some(logits)
    }

    /// Against the plain loops, on every instruction set and any number of threads; whether there was a form.
    fn check(net: &Network, n_images: usize, context: &str) -> bool {
        let mut rng = SplitMix(7);
        let len = net.graph().input().len();
        let images: Vec<f32> = (0..n_images * len).map(|_| 2.0 * rng.signed()).collect();
        let expected: Vec<f32> =
            images.chunks(len).flat_map(|x| run_reference(net, x).unwrap().pop().unwrap()).collect();
        let scale = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
        let mut n_checked = 0;
        for isa in Isa::available() {
            let Some(got) = logits(net, isa, 1, &images) else { continue };
            n_checked += 1;
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let context = format!("{context}, {isa:?}, value {i}: got {got}, expected {expected}");
                assert!((got - expected).abs() <= 1e-4 * scale, "{context}");
            }
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for n_threads in [2, 3, 7] {
                assert_eq!(bits(&got), bits(&logits(net, isa, n_threads, &images).unwrap()), "{context}, {n_threads}");
            }
            let alone = logits(net, isa, 1, &images[len..2 * len]).unwrap();
            assert_eq!(bits(&alone), bits(&got[alone.len()..2 * alone.len()]), "{context}: an image alone");
        }
        n_checked > 0
    }

    #[test]
    fn random_networks_agree_with_the_reference_on_any_number_of_threads() {
        let n = (0..60).filter(|&seed| check(&random_network(seed), 3 + seed as usize % 17, &format!("seed {seed}")));
        assert!(n.count() > 20, "most networks have a form");
        let every =
            |seed: &u64| check(&random_network_of_every_operation(*seed), 2, &format!("every operation, {seed}"));
        assert!((0..100).filter(every).count() > 20);
    }

    /// A network of one kind of convolution behind another, on maps that no tile or strip divides.
    fn chain(input: Shape, convs: &[Conv2d]) -> Network {
        let mut b = GraphBuilder::new(input);
        let mut at: NodeId = 0;
        for (i, conv) in convs.iter().enumerate() {
            at = b.push(format!("conv{i}"), Op::Conv2d(Conv2d { bias: i % 2 == 0, ..conv.clone() }), &[at]);
            let function = [Pointwise::Relu6, Pointwise::Silu, Pointwise::Relu][i % 3];
            at = b.push(format!("f{i}"), Op::Pointwise(function), &[at]);
        }
        let pooled = b.push("pool", Op::MaxPool(Window::new([3, 3], [2, 2], [1, 1])), &[at]);
        b.push("mean", Op::GlobalAvgPool, &[pooled]);
        with_random_weights(b.finish().unwrap(), 5)
    }

    #[test]
    fn convolutions_of_every_kind_agree_with_the_reference() {
        let square = Conv2d::square;
        let depthwise = |c, kernel, stride| Conv2d { groups: c, ..square(c, c, kernel, stride, kernel / 2) };
        for (c, h, w) in [(3, 30, 34), (1, 27, 9), (20, 13, 41)] {
            let convs = [
                square(c, 33, 7, 2, 3),
                square(33, 70, 3, 1, 1),
                depthwise(70, 5, 2),
                square(70, 131, 1, 1, 0),
                square(131, 40, 3, 1, 0),
            ];
            assert!(check(&chain(Shape { c, h, w }, &convs), 9, "one"));
            let dilated = Conv2d { dilation: [2, 1], padding: [2, 0], ..square(17, 50, 3, 1, 1) };
            let convs =
                [square(c, 17, 3, 1, 1), dilated, depthwise(50, 3, 1), square(50, 19, 1, 2, 0), depthwise(19, 7, 1)];
            assert!(check(&chain(Shape { c, h, w }, &convs), 3, "two"));
        }
    }

    #[test]
    fn a_convolution_of_several_groups_is_left_to_images_in_lanes() {
        let conv = Conv2d { groups: 2, ..Conv2d::square(4, 6, 3, 1, 1) };
        assert!(!check(&chain(Shape { c: 4, h: 9, w: 9 }, &[conv]), 2, "groups"));
    }
}
