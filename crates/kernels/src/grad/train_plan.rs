//! A network ready to be trained.

use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;
use secateur_net::{Network, Tensor};

use crate::grad::execute::{GroupState, TrainContext, TrainWorker, buffers};
use crate::grad::loss::{BatchLoss, StepReport, WeightedLoss};
use crate::grad::parameters::TrainedParameter;
use crate::grad::placement::Placement;
use crate::grad::program::{TrainProgram, TrainWork, TrainedKernel};
use crate::grad::teacher::Teacher;
use crate::simd::isa::Isa;
use crate::{Arithmetic, KernelError};

/// A network with the gradient of its parameters on batches of images, in f32. Results do not depend on the number of
/// threads, bit for bit.
///
/// BatchNorm normalises with the statistics of the batch, and moves its running ones towards them (a tenth of the way
/// each step, as PyTorch does). A softmax at the end is left out: losses are of what it reads.
///
/// # Example
/// ```
/// use secateur_kernels::{Isa, TrainLoss, TrainPlan, WeightedLoss};
/// use secateur_net::random::with_random_weights;
/// use secateur_net::{Shape, arch};
///
/// let shape = Shape { c: 3, h: 8, w: 8 };
/// let network = with_random_weights(arch::build("resnet20", shape, 10)?, 1);
/// let mut plan = TrainPlan::compile(&network, Isa::detect(), 4)?;
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
/// let images: Vec<f32> = (0..4 * shape.len()).map(|i| (i % 17) as f32 / 17.0).collect();
/// let loss = TrainLoss::CrossEntropy { labels: &[0, 1, 2, 3], smoothing: 0.0 };
/// let losses = [WeightedLoss { loss, weight: 1.0 }];
/// let before = plan.step(&pool, &images, &losses)?;
/// // One step of plain gradient descent.
/// let (values, gradient) = plan.values_and_gradient();
/// values.iter_mut().zip(gradient).for_each(|(value, g)| *value -= 0.01 * g);
/// assert!(plan.step(&pool, &images, &losses)?.loss < before.loss);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TrainPlan {
    /// As it was; parameters and statistics have moved on since.
    network: Network,
    isa: Isa,
    most_images: usize,
    program: TrainProgram,
    placement: Placement,
    values: Vec<f32>,
    gradient: Vec<f32>,
    shards: Vec<Shard>,
    idle: Mutex<Vec<TrainWorker>>,
}

/// Groups of images whose gradients are added up one after the other.
#[derive(Debug)]
struct Shard {
    groups: Vec<GroupState>,
    gradient: Vec<f32>,
}

/// Most sums of gradients that are made side by side, whatever the number of threads: each takes as much memory as the
/// parameters.
const SHARDS: usize = 8;

impl TrainPlan {
    /// Compiles `network` for steps of up to `most_images` images.
    ///
    /// # Errors
    /// When an operation in front of which there are parameters has no gradient, when there is nothing to train, when
    /// this processor lacks `isa`, or as [`crate::Plan::compile`].
    pub fn compile(network: &Network, isa: Isa, most_images: usize) -> Result<Self, KernelError> {
        Self::compile_within(network, None, isa, most_images)
    }

    /// As [`Self::compile`], for a network that is brought closer to `teacher` in every step, beside the losses that
    /// the step is given, if any.
    ///
    /// # Errors
    /// As [`Self::compile`], or a teacher of other images or outputs, or a value that a plan does not keep, or of
    /// another shape, by the name of its node.
    pub fn compile_with_teacher(
        network: &Network,
        teacher: &Teacher<'_>,
        isa: Isa,
        most_images: usize,
    ) -> Result<Self, KernelError> {
        Self::compile_within(network, Some(teacher), isa, most_images)
    }

    fn compile_within(
        network: &Network,
        teacher: Option<&Teacher<'_>>,
        isa: Isa,
        most_images: usize,
    ) -> Result<Self, KernelError> {
        Arithmetic::F32(isa).checked()?;
        if most_images == 0 {
            return Err(KernelError::BatchSize { most: 0, got: 0 });
        }
        let program = TrainProgram::new(network, isa, teacher)?;
        let placement = Placement::new(&program.instructions, &program.value_lens);
        let (lanes, n_values) = (isa.lanes(), program.values.len());
        let n_groups = most_images.div_ceil(lanes);
        let group = |index: usize| GroupState {
            index,
            buffers: buffers(&placement.group_lens, lanes),
            sums: vec![0.0; program.n_sums],
            report: StepReport::default(),
        };
        let n_shards = SHARDS.min(n_groups);
        let shard = |at: usize| Shard {
            groups: (at * n_groups / n_shards..(at + 1) * n_groups / n_shards).map(group).collect(),
            gradient: vec![0.0; n_values],
        };
        let shards = (0..n_shards).map(shard).collect();
        let (values, gradient) = (program.values.clone(), vec![0.0; n_values]);
        let (network, idle) = (network.clone(), Mutex::new(Vec::new()));
        Ok(Self { network, isa, most_images, program, placement, values, gradient, shards, idle })
    }

    /// What is trained, in the order of [`Self::values`].
    pub fn parameters(&self) -> &[TrainedParameter] {
        &self.program.parameters
    }

    /// Values of the trained parameters.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Values of the trained parameters, to be changed, and the gradient of the last step.
    pub fn values_and_gradient(&mut self) -> (&mut [f32], &[f32]) {
        (&mut self.values, &self.gradient)
    }

    /// Outputs of the network for one image that losses are of.
    pub const fn n_outputs(&self) -> usize {
        self.program.n_outputs
    }

    /// Bytes of activations, gradients and sums on a pool of `n_threads` threads.
    pub fn bytes(&self, n_threads: usize) -> u64 {
        let n_groups: usize = self.shards.iter().map(|shard| shard.groups.len()).sum();
        bytes(&self.placement, self.values.len(), self.isa, [n_groups, self.shards.len(), n_threads])
    }

    /// What [`Self::bytes`] would say of a plan, before any of it is taken.
    ///
    /// # Errors
    /// As [`Self::compile_with_teacher`].
    pub fn bytes_needed(
        network: &Network,
        teacher: Option<&Teacher<'_>>,
        isa: Isa,
        [most_images, n_threads]: [usize; 2],
    ) -> Result<u64, KernelError> {
        let program = TrainProgram::new(network, isa, teacher)?;
        let placement = Placement::new(&program.instructions, &program.value_lens);
        let n_groups = most_images.div_ceil(isa.lanes());
        Ok(bytes(&placement, program.values.len(), isa, [n_groups, SHARDS.min(n_groups), n_threads]))
    }

    /// Computes the gradient of the sum of `losses`, a mean over `images` `[N, H, W, C]`, in training mode.
    ///
    /// # Errors
    /// No images, or more than the plan was made for; targets that do not fit.
    pub fn step(
        &mut self,
        pool: &ThreadPool,
        images: &[f32],
        losses: &[WeightedLoss<'_>],
    ) -> Result<StepReport, KernelError> {
        let per_image = self.network.graph().input().len();
        if !images.len().is_multiple_of(per_image) {
            return Err(KernelError::PartialImage { got: images.len(), per_image });
        }
        let n_images = images.len() / per_image;
        if n_images == 0 || n_images > self.most_images {
            return Err(KernelError::BatchSize { most: self.most_images, got: n_images });
        }
        let loss = BatchLoss::checked(losses, n_images, self.program.n_outputs)?;
        pool.install(|| {
            self.refresh_kernels();
            self.gradient.fill(0.0);
            self.shards.par_iter_mut().for_each(|shard| shard.gradient.fill(0.0));
            let n_phases = self.program.instructions.last().map_or(0, |last| last.phase + 1);
            for phase in 0..n_phases {
                self.run_phase(phase, images, &loss);
                self.finish_sums(phase, n_images);
            }
            self.add_gradients();
        });
        let groups = self.shards.iter().flat_map(|shard| &shard.groups).take(n_images.div_ceil(self.isa.lanes()));
        let mut report = StepReport::default();
        for group in groups {
            report.loss += group.report.loss / n_images as f64;
            report.n_correct += group.report.n_correct;
        }
        Ok(report)
    }

    /// The network as it is now, running statistics included.
    ///
    /// # Errors
    /// A parameter that is no longer finite, by name.
    pub fn network(&self) -> Result<Network, KernelError> {
        let statistics: Vec<f32> = self.statistics().copied().collect();
        self.network_with(&self.values, &statistics)
    }

    /// The network with other values of its trained parameters, and other running statistics.
    ///
    /// # Errors
    /// As [`Self::network`] and [`Self::restore`].
    pub fn network_with(&self, values: &[f32], statistics: &[f32]) -> Result<Network, KernelError> {
        self.check_lengths(values, statistics)?;
        let (graph, mut weights) = self.network.clone().into_parts();
        let of_parameters = self.program.parameters.iter().map(|p| (p.name.clone(), &values[p.range.clone()]));
        let mut rest = statistics;
        let of_norms = self.program.norms.iter().flat_map(|norm| {
            ["running_mean", "running_var"].map(|statistic| {
                let (of_norm, others) = rest.split_at(norm.channels);
                rest = others;
                (format!("{}.{statistic}", norm.name), of_norm)
            })
        });
        for (name, data) in of_parameters.chain(of_norms) {
            weights.get_mut(&name).map(Tensor::data_mut).into_iter().for_each(|to| to.copy_from_slice(data));
        }
        Ok(Network::new(graph, weights)?)
    }

    /// Running means and variances of all BatchNorms, in the order of nodes.
    pub fn statistics(&self) -> impl Iterator<Item = &f32> {
        self.program.norms.iter().flat_map(|norm| norm.running_mean.iter().chain(&norm.running_var))
    }

    /// Takes other values of the trained parameters, and other running statistics.
    ///
    /// # Errors
    /// When there are not as many as this network has.
    pub fn restore(&mut self, values: &[f32], statistics: &[f32]) -> Result<(), KernelError> {
        self.check_lengths(values, statistics)?;
        self.values.copy_from_slice(values);
        let mut rest = statistics;
        for norm in &mut self.program.norms {
            for to in [&mut norm.running_mean, &mut norm.running_var] {
                let (of_norm, others) = rest.split_at(to.len());
                to.copy_from_slice(of_norm);
                rest = others;
            }
        }
        Ok(())
    }

    fn check_lengths(&self, values: &[f32], statistics: &[f32]) -> Result<(), KernelError> {
        let n_statistics = self.program.norms.iter().map(|norm| 2 * norm.channels).sum();
        for (what, expected, got) in [
            ("values of the trained parameters", self.values.len(), values.len()),
            ("running statistics", n_statistics, statistics.len()),
        ] {
            if expected != got {
                return Err(KernelError::Length { what: what.into(), expected, got });
            }
        }
        Ok(())
    }

    /// Packs the parameters as they are now.
    fn refresh_kernels(&mut self) {
        let values = &self.values;
        let refresh = |trained: &mut TrainedKernel| {
            let Some(weight) = trained.weight.clone() else { return };
            trained.kernel.set_weights(&values[weight.clone()], trained.bias.clone().map(|at| &values[at]));
            trained.input_gradient.iter_mut().for_each(|of_input| of_input.set_weights(&values[weight.clone()]));
        };
        self.program.kernels.par_iter_mut().for_each(refresh);
    }

    fn run_phase(&mut self, phase: usize, images: &[f32], loss: &BatchLoss<'_>) {
        let instructions = &self.program.instructions;
        let start = instructions.partition_point(|instruction| instruction.phase < phase);
        let end = instructions.partition_point(|instruction| instruction.phase <= phase);
        let context = TrainContext {
            isa: self.isa,
            program: &self.program,
            placement: &self.placement,
            parameters: &self.values,
            images,
            loss,
        };
        let n_groups = loss.n_images.div_ceil(self.isa.lanes());
        let idle = &self.idle;
        self.shards.par_iter_mut().for_each(|shard| {
            let worker = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut worker = worker.unwrap_or_else(|| TrainWorker::new(&context));
            for group in shard.groups.iter_mut().filter(|group| group.index < n_groups) {
                for instruction in &context.program.instructions[start..end] {
                    context.run(instruction, group, &mut worker, &mut shard.gradient);
                }
            }
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        });
    }

    /// Adds up what BatchNorm needs of the whole batch, group by group.
    fn finish_sums(&mut self, phase: usize, n_images: usize) {
        let n_groups = n_images.div_ceil(self.isa.lanes());
        let instructions = &self.program.instructions;
        let of_phase =
            instructions.partition_point(|i| i.phase < phase)..instructions.partition_point(|i| i.phase <= phase);
        for instruction in &instructions[of_phase] {
            let (norm, is_forward) = match instruction.work {
                TrainWork::Statistics { norm } => (norm, true),
                TrainWork::NormSums { norm } | TrainWork::StopAndSum { norm, .. } => (norm, false),
                _ => continue,
            };
            let norm = &mut self.program.norms[norm];
            let at = norm.sums.start;
            let groups = || self.shards.iter().flat_map(|shard| &shard.groups).take(n_groups);
            let sum = |i: usize| groups().map(|group| group.sums[at + i]).sum::<f64>();
            if is_forward {
                norm.take_statistics(n_images, &self.values, sum);
            } else {
                norm.take_gradient(n_images, &self.values, &mut self.gradient, sum);
            }
        }
    }

    fn add_gradients(&mut self) {
        const PART: usize = 1 << 14;
        let shards = &self.shards;
        self.gradient.par_chunks_mut(PART).enumerate().for_each(|(part, gradient)| {
            for (i, to) in gradient.iter_mut().enumerate() {
                let sum: f64 = shards.iter().map(|shard| f64::from(shard.gradient[part * PART + i])).sum();
                *to += sum as f32;
            }
        });
    }
}

fn bytes(placement: &Placement, n_values: usize, isa: Isa, [n_groups, n_shards, n_threads]: [usize; 3]) -> u64 {
    let sum = |lens: &[usize]| lens.iter().fold(0u64, |sum, &len| sum.saturating_add(4 * (len * isa.lanes()) as u64));
    let of_parameters = (n_shards as u64 + 2).saturating_mul(4 * n_values as u64);
    let of_groups = (n_groups as u64).saturating_mul(sum(&placement.group_lens));
    let of_threads = (n_threads as u64).saturating_mul(sum(&placement.worker_lens));
    of_groups.saturating_add(of_threads).saturating_add(of_parameters)
}
