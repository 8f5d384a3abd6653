//! Candidates that are trained a few steps towards the dense network before they are scored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use secateur_kernels::{Isa, KernelError, OutputMatch, Teacher, TrainPlan};
use secateur_net::{ChannelGroups, KeptChannels, Network, Protocol};
use secateur_sim::{Build, Evaluate, Prepared, RefitAndScore, Score};
use secateur_tune::{
    AdamSettings, Decay, LossSettings, OptimiserSettings, StepTargets, Trainer, TrainerSettings, TuneError,
};

use super::matched::{matched_values, output_match};
use crate::scene::TuneBeforeScore;

/// Tunes what another evaluator builds, and leaves scoring to that.
///
/// The steps go through the refit images in their order, again from the first where these are fewer, as they are:
/// neither moved nor mirrored. Nothing of it depends on other candidates, on threads, or on when it is done.
#[derive(Clone)]
pub(crate) struct TunedFirst {
    builder: Arc<dyn Evaluate>,
    settings: TuneBeforeScore,
    /// Nanoseconds that tuning took, added up over candidates.
    spent: Arc<AtomicU64>,
}

/// What the candidates of a network are tuned by.
struct TuningTask<'a> {
    settings: TuneBeforeScore,
    pool: &'a ThreadPool,
    prepared: &'a Prepared,
    outputs: OutputMatch,
}

/// How the candidates of a scene are built and scored.
pub(crate) fn evaluator_of(settings: Option<TuneBeforeScore>) -> Arc<dyn Evaluate> {
    match settings {
        Some(settings) => Arc::new(TunedFirst::new(settings, Arc::new(RefitAndScore))),
        None => Arc::new(RefitAndScore),
    }
}

/// Bytes that tuning one candidate of `network`, BatchNorm folded, takes at most on a pool of `n_threads` threads.
///
/// # Errors
/// An operation that cannot be trained through, no weights to train.
pub(crate) fn bytes_needed(
    network: &Network,
    protocol: Protocol,
    TuneBeforeScore { batch, .. }: TuneBeforeScore,
    n_threads: usize,
) -> Result<u64, KernelError> {
    let groups = ChannelGroups::derive(network.graph(), protocol);
    let values = matched_values(network.graph(), &groups, &KeptChannels::all(&groups));
    let outputs = OutputMatch::Divergence { temperature: 1.0, weight: 1.0 };
    let teacher = Teacher { network, outputs, values };
    TrainPlan::bytes_needed(network, Some(&teacher), Isa::detect(), [batch, n_threads])
}

impl TunedFirst {
    pub(crate) fn new(settings: TuneBeforeScore, builder: Arc<dyn Evaluate>) -> Self {
        Self { builder, settings, spent: Arc::default() }
    }

    /// Time that tuning took so far, added up over candidates.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }
}

impl Evaluate for TunedFirst {
    fn begin<'a>(&'a self, pool: &'a ThreadPool, prepared: &'a Prepared) -> Result<Build<'a>, KernelError> {
        let build = self.builder.begin(pool, prepared)?;
        if self.settings.steps == 0 {
            return Ok(build);
        }
        let task = TuningTask { settings: self.settings, pool, prepared, outputs: output_match(prepared, pool)? };
        Ok(Box::new(move |kept| {
            let network = build(kept)?;
            let start = Instant::now();
            let tuned = task.run(kept, &network).map(Arc::new);
            self.spent.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            tuned
        }))
    }

    fn score(&self, pool: &ThreadPool, prepared: &Prepared, network: &Network) -> Result<Score, KernelError> {
        self.builder.score(pool, prepared, network)
    }
}

impl TuningTask<'_> {
    fn run(&self, kept: &KeptChannels, network: &Network) -> Result<Network, KernelError> {
        self.tuned(kept, network).map_err(|error| match error {
            TuneError::Kernel(error) => error,
            TuneError::NotFinite { .. } | TuneError::Setting { .. } | TuneError::OtherTraining { .. } => {
                KernelError::NotFinite { what: format!("`tune_before_score` of the scene: {error};") }
            }
        })
    }

    fn tuned(&self, kept: &KeptChannels, network: &Network) -> Result<Network, TuneError> {
        let Self { settings, pool, prepared, outputs } = self;
        let dense = &prepared.network;
        let values = matched_values(dense.graph(), &prepared.groups, kept);
        let teacher = Teacher { network: dense, outputs: outputs.clone(), values };
        let mut trainer = Trainer::with_teacher(network, &teacher, Isa::detect(), trainer_settings(*settings))?;
        let step_len = settings.batch * dense.graph().input().len();
        let steps = prepared.refit_images.chunks_exact(step_len).cycle().take(settings.steps);
        for images in steps {
            trainer.step(pool, images, StepTargets::default())?;
        }
        trainer.network()
    }
}

fn trainer_settings(TuneBeforeScore { steps, batch, rate }: TuneBeforeScore) -> TrainerSettings {
    TrainerSettings {
        batch,
        n_steps: steps,
        rate,
        warm_up: 0.1,
        decay: Decay::Cosine,
        optimiser: OptimiserSettings::Adam(AdamSettings::default()),
        clip: 5.0,
        half_life: 0.05,
        loss: LossSettings { distillation: 1.0, temperature: 1.0, smoothing: 0.0 },
    }
}
