//! A training in progress: losses, steps, and what is kept to go on later.

use rayon::ThreadPool;
use secateur_kernels::{Isa, StepReport, Teacher, TrainLoss, TrainPlan, WeightedLoss};
use secateur_net::Network;
use serde::{Deserialize, Serialize};

use crate::error::checked;
use crate::{Decay, Optimiser, OptimiserSettings, RateSchedule, TuneError, WeightAverage, clip_norm};

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossSettings {
    /// Share of distillation in the loss where there is a teacher, from 0 to 1; the rest is cross-entropy.
    pub distillation: f32,
    /// Of teacher and student.
    pub temperature: f32,
    /// Label smoothing of the cross-entropy.
    pub smoothing: f32,
}

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerSettings {
    /// Images of a step.
    pub batch: usize,
    /// Steps of the whole training, from which learning rates follow.
    pub n_steps: usize,
    /// Highest learning rate.
    pub rate: f32,
    /// Share of the steps in which the rate rises.
    pub warm_up: f32,
    /// How it falls.
    pub decay: Decay,
    /// What moves the weights.
    pub optimiser: OptimiserSettings,
    /// Longest gradient; longer ones are shortened.
    pub clip: f32,
    /// Half-life of the average of weights, as a share of all steps.
    pub half_life: f32,
    /// Losses.
    pub loss: LossSettings,
}

/// A network that is being trained. Results do not depend on the number of threads, nor on stops on the way.
#[derive(Debug)]
pub struct Trainer {
    settings: TrainerSettings,
    schedule: RateSchedule,
    plan: TrainPlan,
    scaled: Vec<f32>,
    progress: TrainerState,
}

/// All that a training needs to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    settings: TrainerSettings,
    /// Steps that are done.
    step: usize,
    values: Vec<f32>,
    statistics: Vec<f32>,
    optimiser: Optimiser,
    average: WeightAverage,
    /// Of the running statistics, which belong to the weights of their steps.
    average_statistics: WeightAverage,
}

/// What the network should say of the images of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTargets<'a> {
    /// `[N]`; without them there is no cross-entropy.
    pub labels: Option<&'a [u16]>,
    /// Outputs of a teacher, `[N, outputs]`.
    pub teacher: Option<&'a [f32]>,
}

impl Trainer {
    /// A training of `network` from its first step on.
    ///
    /// # Errors
    /// A setting out of range, or as [`TrainPlan::compile`].
    pub fn new(network: &Network, isa: Isa, settings: TrainerSettings) -> Result<Self, TuneError> {
        Self::of(TrainPlan::compile(network, isa, settings.batch)?, settings)
    }

    /// A training of `network` that brings it closer to `teacher`, which computes beside it; steps need no targets.
    ///
    /// # Errors
    /// A setting out of range, or as [`TrainPlan::compile_with_teacher`].
    pub fn with_teacher(
        network: &Network,
        teacher: &Teacher<'_>,
        isa: Isa,
        settings: TrainerSettings,
    ) -> Result<Self, TuneError> {
        Self::of(TrainPlan::compile_with_teacher(network, teacher, isa, settings.batch)?, settings)
    }

    fn of(plan: TrainPlan, settings: TrainerSettings) -> Result<Self, TuneError> {
        let schedule = RateSchedule::new(settings.rate, settings.warm_up, settings.decay)?;
        let LossSettings { distillation, .. } = settings.loss;
        checked("share of distillation", distillation, (0.0..=1.0).contains(&distillation), "from 0 to 1")?;
        checked("longest gradient", settings.clip, settings.clip > 0.0, "above 0")?;
        let (n_values, n_statistics) = (plan.values().len(), plan.statistics().count());
        let half_life = (settings.half_life * settings.n_steps as f32).max(1.0);
        let progress = TrainerState {
            settings,
            step: 0,
            values: Vec::new(),
            statistics: Vec::new(),
            optimiser: Optimiser::new(plan.parameters(), settings.optimiser)?,
            average: WeightAverage::new(n_values, half_life)?,
            average_statistics: WeightAverage::new(n_statistics, half_life)?,
        };
        Ok(Self { settings, schedule, plan, scaled: vec![0.0; n_values], progress })
    }

    /// Goes on from `state`, which [`Self::state`] gave for the same network and settings.
    ///
    /// # Errors
    /// A state of another training.
    pub fn resume(&mut self, state: TrainerState) -> Result<(), TuneError> {
        if state.settings != self.settings {
            return Err(TuneError::OtherTraining { what: "settings" });
        }
        if self.plan.restore(&state.values, &state.statistics).is_err() {
            return Err(TuneError::OtherTraining { what: "network" });
        }
        self.progress = state;
        Ok(())
    }

    /// All that is needed to go on from here.
    pub fn state(&self) -> TrainerState {
        let (values, statistics) = (self.plan.values().to_vec(), self.plan.statistics().copied().collect());
        TrainerState { values, statistics, ..self.progress.clone() }
    }

    /// How it is done.
    pub const fn settings(&self) -> &TrainerSettings {
        &self.settings
    }

    /// Outputs of the network for one image that losses are of.
    pub const fn n_outputs(&self) -> usize {
        self.plan.n_outputs()
    }

    /// Steps that are done.
    pub const fn n_done(&self) -> usize {
        self.progress.step
    }

    /// One step on `images` `[N, H, W, C]`.
    ///
    /// # Errors
    /// A loss or gradient that is not finite: the weights are as they were, but not the running statistics. As
    /// [`TrainPlan::step`].
    pub fn step(
        &mut self,
        pool: &ThreadPool,
        images: &[f32],
        StepTargets { labels, teacher }: StepTargets<'_>,
    ) -> Result<StepReport, TuneError> {
        let LossSettings { distillation, temperature, smoothing } = self.settings.loss;
        let share = match (labels, teacher) {
            (Some(_), Some(_)) => distillation,
            (None, Some(_)) => 1.0,
            (_, None) => 0.0,
        };
        let cross_entropy = labels
            .map(|labels| WeightedLoss { loss: TrainLoss::CrossEntropy { labels, smoothing }, weight: 1.0 - share });
        let divergence =
            teacher.map(|teacher| WeightedLoss { loss: TrainLoss::Divergence { teacher, temperature }, weight: share });
        let report = match (cross_entropy, divergence) {
            (Some(cross_entropy), Some(divergence)) => self.plan.step(pool, images, &[cross_entropy, divergence])?,
            (Some(only), None) | (None, Some(only)) => self.plan.step(pool, images, &[only])?,
            (None, None) => self.plan.step(pool, images, &[])?,
        };
        let step = self.progress.step;
        let rate = self.schedule.rate(step, self.settings.n_steps);
        let (values, gradient) = self.plan.values_and_gradient();
        let (norm, factor) = clip_norm(gradient, self.settings.clip);
        if !(report.loss.is_finite() && norm.is_finite()) {
            return Err(TuneError::NotFinite {
                step,
                peak: self.settings.rate.to_string(),
                lower: (self.settings.rate / 4.0).to_string(),
            });
        }
        self.scaled.iter_mut().zip(gradient).for_each(|(to, g)| *to = factor * g);
        self.progress.optimiser.step(values, &self.scaled, rate);
        self.progress.average.add(values.iter());
        self.progress.average_statistics.add(self.plan.statistics());
        self.progress.step += 1;
        Ok(report)
    }

    /// The network with the averages of the weights and of the running statistics so far: what is used and written.
    ///
    /// # Errors
    /// A parameter that is not finite, by name.
    pub fn network(&self) -> Result<Network, TuneError> {
        let TrainerState { step, average, average_statistics, .. } = &self.progress;
        if *step == 0 {
            return Ok(self.plan.network()?);
        }
        Ok(self.plan.network_with(average.values(), average_statistics.values())?)
    }
}
